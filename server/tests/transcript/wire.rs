//! The client's side of the wire, as text: lines to frames and frames to lines.
//!
//! A line is words; a word may hold quoted parts with the escapes `\n \r \t \" \\ \xNN`. `1000b`
//! stands for a thousand bytes `x`, `msg:WORD` for a gRPC message with its prefix, `hex:0aff` for
//! bytes. Frames:
//!
//! ```text
//! preface                              the client's 24 bytes
//! open                                 preface, empty SETTINGS, acknowledgement of ours
//! headers 1 [end] [more] [pad=3] [priority] FIELD...     more: without END_HEADERS
//! continuation 1 [more] FIELD...
//! data 1 [end] [pad=3] WORD
//! reset 1 CANCEL    window 0 1000    ping 0102030405060708    ping-ack HEX    goaway
//! settings [NAME=VALUE...]    settings-ack    priority 1
//! frame TYPE FLAGS STREAM WORD         anything else, numbers in decimal
//! raw WORD                             no frame at all
//! ```
//!
//! A FIELD is `name=value` (a literal), `+name=value` (inserted into the table), `static:3`,
//! `block:hex:82` (raw header block bytes), or `request` (the usual four).

use server::frontend::http2::frame::{ErrorCode, FrameHead, FrameKind, HEAD_BYTES, PREFACE, flag};
use server::frontend::http2::hpack::decoder::Decoder;

/// Splits a line into words.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut chars = line.chars();
    while let Some(next) = chars.next() {
        match next {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => {
                let escape = chars.next().expect("an escape has a second character");
                let byte = match escape {
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    'x' => {
                        let digits: String = chars.by_ref().take(2).collect();
                        u8::from_str_radix(&digits, 16).expect("\\x has two digits")
                    }
                    other => u8::try_from(other).expect("escapes are ASCII"),
                };
                word.get_or_insert_default().push(byte);
            }
            ' ' if !quoted => words.extend(word.take()),
            other => {
                let bytes = word.get_or_insert_default();
                bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
    words.extend(word);
    words
}

/// A word as text.
pub fn text(word: &[u8]) -> &str {
    str::from_utf8(word).expect("keywords are text")
}

/// A word as a number.
pub fn number(word: &[u8]) -> u32 {
    text(word).parse().unwrap_or_else(|_| panic!("not a number: {}", text(word)))
}

fn unhex(digits: &[u8]) -> Vec<u8> {
    let byte = |pair| u8::from_str_radix(text(pair), 16).expect("hexadecimal digits");
    digits.chunks(2).map(byte).collect()
}

/// What a word stands for as bytes.
pub fn payload(word: &[u8]) -> Vec<u8> {
    if let Some(message) = word.strip_prefix(b"msg:") {
        let message = payload(message);
        let length = u32::try_from(message.len()).expect("messages are short");
        return [&[0][..], &length.to_be_bytes(), &message].concat();
    }
    if let Some(digits) = word.strip_prefix(b"hex:") {
        return unhex(digits);
    }
    if let Some(count) = word.strip_suffix(b"b")
        && !count.is_empty()
        && count.iter().all(u8::is_ascii_digit)
    {
        return vec![b'x'; number(count) as usize];
    }
    word.to_vec()
}

/// Bytes as a word.
pub fn show(bytes: &[u8]) -> String {
    if bytes.len() > 16 && bytes.iter().all(|byte| *byte == b'x') {
        return format!("{}b", bytes.len());
    }
    if bytes.len() > 5 && bytes[0] == 0 {
        let (prefix, message) = bytes.split_at(5);
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        if length as usize == message.len() {
            return format!("msg:{}", show(message));
        }
    }
    format!("\"{}\"", bytes.escape_ascii())
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn put_string(block: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    if length < 127 {
        block.push(u8::try_from(length).expect("below 127"));
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(u8::try_from(length % 128).expect("below 128") | 128);
            length /= 128;
        }
        block.push(u8::try_from(length).expect("below 128"));
    }
    block.extend_from_slice(bytes);
}

fn put_field(block: &mut Vec<u8>, word: &[u8]) {
    if word == b"request" {
        for field in [":method=POST", ":scheme=http", ":path=/a", ":authority=x"] {
            put_field(block, field.as_bytes());
        }
    } else if let Some(bytes) = word.strip_prefix(b"block:") {
        block.extend_from_slice(&payload(bytes));
    } else if let Some(index) = word.strip_prefix(b"static:") {
        block.push(0x80 | u8::try_from(number(index)).expect("a static index"));
    } else {
        let (kind, field) = match word.strip_prefix(b"+") {
            Some(field) => (0x40, field),
            None => (0x00, word),
        };
        let equals = field.iter().skip(1).position(|byte| *byte == b'=').map(|at| at + 1);
        let (name, value) = field.split_at(equals.expect("a field is name=value"));
        block.push(kind);
        put_string(block, name);
        put_string(block, &payload(&value[1..]));
    }
}

const SETTINGS: [(&str, u16); 6] = [
    ("HEADER_TABLE_SIZE", 1),
    ("ENABLE_PUSH", 2),
    ("MAX_CONCURRENT_STREAMS", 3),
    ("INITIAL_WINDOW_SIZE", 4),
    ("MAX_FRAME_SIZE", 5),
    ("MAX_HEADER_LIST_SIZE", 6),
];

/// The name of an error code as the transcripts write it.
pub fn code_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NoError => "NO_ERROR",
        ErrorCode::ProtocolError => "PROTOCOL_ERROR",
        ErrorCode::InternalError => "INTERNAL_ERROR",
        ErrorCode::FlowControlError => "FLOW_CONTROL_ERROR",
        ErrorCode::SettingsTimeout => "SETTINGS_TIMEOUT",
        ErrorCode::StreamClosed => "STREAM_CLOSED",
        ErrorCode::FrameSizeError => "FRAME_SIZE_ERROR",
        ErrorCode::RefusedStream => "REFUSED_STREAM",
        ErrorCode::Cancel => "CANCEL",
        ErrorCode::CompressionError => "COMPRESSION_ERROR",
        ErrorCode::ConnectError => "CONNECT_ERROR",
        ErrorCode::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
        ErrorCode::InadequateSecurity => "INADEQUATE_SECURITY",
        ErrorCode::Http11Required => "HTTP_1_1_REQUIRED",
    }
}

/// The code of a name.
pub fn code(name: &[u8]) -> ErrorCode {
    (0..=0xd)
        .map(ErrorCode::from_wire)
        .find(|code| code_name(*code).as_bytes() == name)
        .unwrap_or_else(|| panic!("no error code is named {}", text(name)))
}

/// The bytes of one line.
pub fn encode(line: &str) -> Vec<u8> {
    let words = words(line);
    let (verb, rest) = words.split_first().expect("a line has a verb");
    let mut out = Vec::new();
    match text(verb) {
        "preface" => out.extend_from_slice(PREFACE),
        "open" => {
            out.extend_from_slice(PREFACE);
            put_frame(&mut out, 4, 0, 0, &[]);
            put_frame(&mut out, 4, flag::ACK, 0, &[]);
        }
        "headers" => put_block(&mut out, 1, rest),
        "continuation" => put_block(&mut out, 9, rest),
        "data" => put_data(&mut out, rest),
        "reset" => {
            let code = code(&rest[1]).to_wire().to_be_bytes();
            put_frame(&mut out, 3, 0, number(&rest[0]), &code);
        }
        "window" => put_frame(&mut out, 8, 0, number(&rest[0]), &number(&rest[1]).to_be_bytes()),
        "ping" => put_frame(&mut out, 6, 0, 0, &unhex(&rest[0])),
        "ping-ack" => put_frame(&mut out, 6, flag::ACK, 0, &unhex(&rest[0])),
        "goaway" => put_frame(&mut out, 7, 0, 0, &[0; 8]),
        "priority" => put_frame(&mut out, 2, 0, number(&rest[0]), &[0, 0, 0, 0, 16]),
        "settings-ack" => put_frame(&mut out, 4, flag::ACK, 0, &[]),
        "settings" => {
            let mut payload = Vec::new();
            for word in rest {
                let (name, value) = text(word).split_once('=').expect("NAME=VALUE");
                let known = SETTINGS.iter().find(|(known, _)| *known == name);
                let id = known.map_or_else(|| name.parse().expect("an id"), |(_, id)| *id);
                payload.extend_from_slice(&u16::to_be_bytes(id));
                payload.extend_from_slice(&number(value.as_bytes()).to_be_bytes());
            }
            put_frame(&mut out, 4, 0, 0, &payload);
        }
        "frame" => {
            let byte = |word: &[u8]| u8::try_from(number(word)).expect("a byte");
            let payload = rest.get(3).map(|word| payload(word)).unwrap_or_default();
            put_frame(&mut out, byte(&rest[0]), byte(&rest[1]), number(&rest[2]), &payload);
        }
        "raw" => out.extend_from_slice(&payload(&rest[0])),
        other => panic!("unknown verb {other}"),
    }
    out
}

fn put_block(out: &mut Vec<u8>, kind: u8, words: &[Vec<u8>]) {
    let mut flags = flag::END_HEADERS;
    let mut padding = None;
    let mut priority = false;
    let mut block = Vec::new();
    for word in &words[1..] {
        match word.as_slice() {
            b"end" => flags |= flag::END_STREAM,
            b"more" => flags &= !flag::END_HEADERS,
            b"priority" => priority = true,
            other => match other.strip_prefix(b"pad=") {
                Some(count) => padding = Some(number(count)),
                None => put_field(&mut block, other),
            },
        }
    }
    if priority {
        flags |= flag::PRIORITY;
        block.splice(0..0, [0, 0, 0, 0, 16]);
    }
    put_padded(out, kind, flags, number(&words[0]), block, padding);
}

fn put_data(out: &mut Vec<u8>, words: &[Vec<u8>]) {
    let mut flags = 0;
    let mut padding = None;
    let mut body = Vec::new();
    for word in &words[1..] {
        match word.as_slice() {
            b"end" => flags |= flag::END_STREAM,
            other => match other.strip_prefix(b"pad=") {
                Some(count) => padding = Some(number(count)),
                None => body.extend_from_slice(&payload(other)),
            },
        }
    }
    put_padded(out, 0, flags, number(&words[0]), body, padding);
}

fn put_padded(
    out: &mut Vec<u8>,
    kind: u8,
    flags: u8,
    stream: u32,
    mut payload: Vec<u8>,
    padding: Option<u32>,
) {
    let Some(padding) = padding else { return put_frame(out, kind, flags, stream, &payload) };
    payload.insert(0, u8::try_from(padding).expect("padding is a byte"));
    payload.resize(payload.len() + padding as usize, 0);
    put_frame(out, kind, flags | flag::PADDED, stream, &payload);
}

/// Reads the server's frames and prints them.
#[derive(Debug)]
pub struct FrameReader {
    bytes: Vec<u8>,
    decoder: Decoder,
}

impl FrameReader {
    /// A reader at the start of a connection.
    pub fn new() -> Self {
        Self { bytes: Vec::new(), decoder: Decoder::new(4096) }
    }

    /// One line for each complete frame.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        self.bytes.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some((head, rest)) = self.bytes.split_first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::parse(*head);
            if rest.len() < head.length {
                break;
            }
            let payload = rest[..head.length].to_vec();
            self.bytes.drain(..HEAD_BYTES + head.length);
            lines.push(self.line(head, &payload));
        }
        lines
    }

    /// Whether only whole frames have been read.
    pub fn is_between_frames(&self) -> bool {
        self.bytes.is_empty()
    }

    fn line(&mut self, head: FrameHead, payload: &[u8]) -> String {
        let word = |at: usize| {
            let bytes = payload[at..at + 4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes)
        };
        let stream = head.stream;
        let end = if head.has(flag::END_STREAM) { " end" } else { "" };
        let hex = || payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match head.kind {
            FrameKind::Data => format!("data {stream}{end} {}", show(payload)),
            FrameKind::Headers | FrameKind::Continuation => {
                assert!(head.has(flag::END_HEADERS), "answers here fit into one frame");
                let mut line = format!("headers {stream}{end}");
                self.decoder
                    .decode(payload, |name, value| {
                        let value = value.escape_ascii().to_string();
                        let quote = if value.contains(' ') || value.is_empty() { "\"" } else { "" };
                        line += &format!(" {}={quote}{value}{quote}", name.escape_ascii());
                    })
                    .expect("the server's blocks are sound");
                line
            }
            FrameKind::ResetStream => {
                format!("reset {stream} {}", code_name(ErrorCode::from_wire(word(0))))
            }
            FrameKind::Settings if head.has(flag::ACK) => "settings-ack".to_owned(),
            FrameKind::Settings => {
                let mut line = "settings".to_owned();
                for parameter in payload.chunks(6) {
                    let id = u16::from_be_bytes([parameter[0], parameter[1]]);
                    let value = u32::from_be_bytes(parameter[2..].try_into().expect("four bytes"));
                    let (name, _) = SETTINGS[usize::from(id) - 1];
                    line += &format!(" {name}={value}");
                }
                line
            }
            FrameKind::Ping if head.has(flag::ACK) => format!("ping-ack {}", hex()),
            FrameKind::Ping => format!("ping {}", hex()),
            FrameKind::GoAway => format!(
                "goaway last={} {} {}",
                word(0),
                code_name(ErrorCode::from_wire(word(4))),
                show(&payload[8..])
            ),
            FrameKind::WindowUpdate => format!("window {stream} {}", word(0)),
            FrameKind::Priority | FrameKind::PushPromise | FrameKind::Unknown => {
                panic!("a server of ours never sends {head:?}")
            }
        }
    }
}
