//! The bounds of the replicated state, and how each number was found.

/// A quarter of the cores of a 64-core machine; the checkpoint's meta block has to name the trees
/// of all shards in 4 KiB.
pub const SHARDS_MAX: u16 = 16;

/// A frame longer than this cannot come from a request: requests are bounded far below it. It
/// keeps every offset inside a frame within 32 bits with room to spare.
pub const FRAME_SIZE_BYTES_MAX: usize = 1 << 30;

/// Events of one batch that are kept for the watch cores. Over it the batch is marked as a gap and
/// the cores read the changes from the tree instead, so one huge delete costs no memory per core.
pub const EVENTS_SIZE_BYTES_MAX: usize = 16 << 20;

/// The same bound in events, for floods of tiny ones.
pub const EVENTS_COUNT_MAX: usize = 128 << 10;

/// Keys that a range delete collects before it deletes them: enough that finding them costs little
/// per key, few enough that one step stays short.
pub const DELETE_CHUNK_KEYS_MAX: usize = 256;

/// The same bound in bytes of keys: what a chunk needs is reserved at once.
pub const DELETE_CHUNK_SIZE_BYTES_MAX: usize = 64 << 10;

/// Bytes that cost a step as much as looking at a key does: copying or checking them takes about
/// as long. Budgets are counted in keys, so that one number bounds both.
pub const BYTES_PER_KEY: usize = 512;

/// What so many bytes take off a budget.
#[must_use]
pub const fn keys_for_bytes(size_bytes: usize) -> usize {
    size_bytes / BYTES_PER_KEY
}

/// The compactions whose hashes are remembered; etcd's number, visible through `HashKV`.
pub const COMPACTION_HASHES_MAX: usize = 10;

/// Views that can be held at a time: a few by each front-end core. The writer looks at every slot
/// when it publishes.
pub const READ_SLOTS_MAX: usize = 256;

/// Two shards must be possible, and a shard id must fit the type.
const _: () = assert!(SHARDS_MAX >= 2);
/// A chunk of a range delete has to be a fraction of what one batch of events may hold.
const _: () = assert!(DELETE_CHUNK_KEYS_MAX < EVENTS_COUNT_MAX);
