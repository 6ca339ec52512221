//! Every bound of one HTTP/2 connection, with its reason.
//!
//! Invariants:
//! - A limit is met by an error to the client or by back pressure, never by an assertion.

/// The largest frame payload that we accept and send: the protocol's least and usual value
/// (RFC 9113, 4.2). Larger frames save nothing measurable and would let one answer hold the
/// connection for longer.
pub const FRAME_BYTES_MAX: usize = 16_384;

/// Our receive window for one stream. The largest request is about 2 MiB; half of that keeps a
/// sender at full speed over a round trip of a few milliseconds.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Our receive window for the whole connection: eight streams at full window.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Both the encoded size of a header block and the decoded size of its list (RFC 9113, 6.5.2).
/// etcd's largest header is an auth token of a few kilobytes; grpc-go's default of 16 MiB
/// would let each connection pin that much.
pub const HEADER_LIST_BYTES_MAX: usize = 64 << 10;

/// CONTINUATION frames in one header block. A block of the largest size needs four full ones;
/// a flood of small or empty ones ends here although it stays below the limit in bytes.
pub const CONTINUATIONS_MAX: u32 = 64;

/// The decoder's dynamic table, the protocol's default (RFC 9113, 6.5.2).
pub const HEADER_TABLE_BYTES: u32 = 4096;

/// Open streams of one connection, whatever the flag allows (etcd's default is no limit at all):
/// a slot costs about two hundred bytes, so this bounds them to some 13 MiB.
pub const STREAMS_OPEN_MAX: u32 = 65_536;

/// How many closed streams are remembered to tell a late frame from a wrong one (RFC 9113, 5.1).
pub const STREAMS_CLOSED_REMEMBERED: usize = 64;

/// One call of `poll_output` moves queued DATA until this much waits for the socket: more would
/// only put small answers further behind large ones.
pub const OUTPUT_FILL_BYTES: usize = 64 << 10;

/// Bodies are written straight into the output until this much waits there; the rest stays in the
/// streams. A range of a thousand small records (about 300 KiB) fits, and is so written once and
/// never copied; a client that opens its windows wide and then does not read holds no more.
pub const OUTPUT_DIRECT_BYTES: usize = 512 << 10;

/// Answers that one connection may have waiting for its windows. Above it new streams are refused,
/// to be tried again: a client that asks for much and takes nothing cannot be made to wait by not
/// reading from it, since its WINDOW_UPDATEs come the same way. Large, because a client with the
/// default window of 64 KiB may honestly have many large ranges under way.
pub const QUEUED_BYTES_MAX: usize = 128 << 20;

/// The hard end: with this much waiting the connection is ended. More than the largest message of
/// gRPC on top of [`QUEUED_BYTES_MAX`], so only who has many large answers to calls that were under
/// way at once and takes none of them comes here.
pub const QUEUED_BYTES_END: usize = (2 << 30) + 4 * QUEUED_BYTES_MAX;

/// What may wait in a stream before what arrives on it is not given back to its window: a client
/// that goes on asking and does not take the answers has to stop when its window is spent. Some
/// thousand small answers, so that no client that reads comes here.
pub const STREAM_QUEUED_BYTES_MAX: usize = 64 << 10;
/// Once it has fallen to this, the window is given back.
pub const STREAM_QUEUED_BYTES_RESUME: usize = 16 << 10;

/// Capacity that an idle stream slot may keep from its last large answer.
pub const PENDING_KEPT_BYTES: usize = 32 << 10;

/// Frames that move no call forward (pings, settings, window updates, empty data, ...): this many
/// at once, refilled by time and by progress. A second's worth of the steady rate costs well under
/// a millisecond of CPU.
pub const CONTROL_FRAMES_BURST: u32 = 10_000;
/// See [`CONTROL_FRAMES_BURST`].
pub const CONTROL_FRAMES_PER_SECOND: u32 = 1_000;

/// Streams that the client opened and reset before any answer (CVE-2023-44487): this many at
/// once. A client whose thousand outstanding calls time out together stays below it.
pub const RESETS_BURST: u32 = 2_000;
/// See [`RESETS_BURST`].
pub const RESETS_PER_SECOND: u32 = 200;

/// Longest header block worth remembering by its bytes; a gRPC request of a warmed-up client is
/// about ten bytes, one with literals a few hundred.
pub const MEMO_BLOCK_BYTES_MAX: usize = 256;

/// Header blocks remembered per connection: a client rarely mixes more than a few methods.
pub const MEMO_BLOCKS: usize = 8;

const _: () = assert!(CONNECTION_WINDOW_BYTES >= STREAM_WINDOW_BYTES);
// A complete block of the largest size must fit into the CONTINUATION frames that we allow.
const _: () = assert!(HEADER_LIST_BYTES_MAX <= CONTINUATIONS_MAX as usize * FRAME_BYTES_MAX);
// What waits in the streams is moved before the output is empty and never beyond its bound.
const _: () = assert!(OUTPUT_FILL_BYTES + FRAME_BYTES_MAX <= OUTPUT_DIRECT_BYTES);
const _: () = assert!(MEMO_BLOCK_BYTES_MAX <= FRAME_BYTES_MAX);
