//! A JSON value as a protobuf message.
//!
//! The rules are those of Go's protojson when told to ignore what it does not know: names in either
//! style, numbers as numbers or strings, `null` for what is not set, a name twice is a mistake. Its
//! texts are told to clients, so they are the same.
//!
//! The value is whole and its grammar was checked by [`Scanner`](super::Scanner); what is found
//! wrong here is what only this parser looks at.
//!
//! Invariants:
//! - The path from the outermost message to the one being read lies in [`Decoder::levels`], not on
//!   the stack: a client chooses how deep it nests, and Go's parser lets it nest ten thousand deep.
//! - Every byte of the output is written once and moved at most once, however deep it stands.

use super::base64;
use super::scan::is_space;
use super::schema::{ENUMS, Field, Kind, MESSAGES, Message, MessageId, message};

/// As deep as protobuf's own limit.
const DEPTH_MAX: usize = 10_000;
/// The prefix of Go's texts; the space is a no-break space in the reference's build.
const PREFIX: &str = "proto:\u{a0}";
/// The lengths that take one byte, for which there is room from the beginning.
const LENGTH_SHORT_MAX: usize = 0x7f;

/// Translates a value; what is wrong with it is in the words of Go.
///
/// # Errors
/// If the value is none of the message.
pub fn decode(json: &[u8], id: MessageId) -> Result<Vec<u8>, String> {
    let out = Vec::with_capacity(json.len() / 4 * 3);
    let mut decoder = Decoder { json, at: 0, out, levels: Vec::new(), lengths: Lengths::default() };
    decoder.open(message(id))?;
    decoder.run()?;
    let Decoder { out, lengths, .. } = decoder;
    Ok(lengths.insert_into(out))
}

#[derive(Clone, Copy)]
enum Token<'j> {
    Null,
    Bool(bool),
    Number,
    String(&'j [u8]),
    Open(u8),
    Close,
}

struct Decoder<'j> {
    json: &'j [u8],
    at: usize,
    out: Vec<u8>,
    levels: Vec<Level>,
    lengths: Lengths,
}

/// A message that is being read.
struct Level {
    message: &'static Message,
    /// Its fields that have come, a bit each.
    seen: u64,
    /// Its oneofs that are set.
    oneofs: u64,
    /// The list among its fields whose values are being read.
    list: Option<&'static Field>,
    mark: Mark,
}

/// The lengths of nested messages. Each has room for one byte; those that need more are listed,
/// and written in one pass at the end.
#[derive(Default)]
struct Lengths {
    /// Where a message begins in the output, and its length as it will be; in the order of their
    /// beginnings. Of messages that are still being read the length is not known.
    long: Vec<(usize, usize)>,
    /// Bytes that the lengths known so far will take beyond their first.
    grown: usize,
}

/// What was so when a message began.
#[derive(Clone, Copy, Default)]
struct Mark {
    begin: usize,
    place: usize,
    grown: usize,
}

impl Lengths {
    fn open(&mut self, out: &mut Vec<u8>) -> Mark {
        out.push(0);
        let mark = Mark { begin: out.len(), place: self.long.len(), grown: self.grown };
        self.long.push((mark.begin, 0));
        mark
    }

    fn close(&mut self, mark: Mark, out: &mut [u8]) {
        let length = out.len() - mark.begin + self.grown - mark.grown;
        if length <= LENGTH_SHORT_MAX {
            // A message within is shorter still, so this one is the last of the list.
            self.long.truncate(mark.place);
            out[mark.begin - 1] = length.to_le_bytes()[0];
        } else {
            self.long[mark.place].1 = length;
            self.grown += varint_len(length) - 1;
        }
    }

    fn insert_into(self, out: Vec<u8>) -> Vec<u8> {
        if self.long.is_empty() {
            return out;
        }
        let mut whole = Vec::with_capacity(out.len() + self.grown);
        let mut done = 0;
        for (begin, length) in self.long {
            whole.extend_from_slice(&out[done..begin - 1]);
            put_varint(&mut whole, length as u64);
            done = begin;
        }
        whole.extend_from_slice(&out[done..]);
        whole
    }
}

/// A token and where it stands.
struct Found<'j> {
    token: Token<'j>,
    from: usize,
    to: usize,
}

impl<'j> Decoder<'j> {
    /// Reads until the outermost message has ended.
    fn run(&mut self) -> Result<(), String> {
        while let Some(level) = self.levels.last() {
            if let Some(field) = level.list {
                if self.peek()? == b']' {
                    self.next()?;
                    self.level().list = None;
                } else {
                    self.value(field)?;
                }
                continue;
            }
            let name = self.next()?;
            if let Token::String(raw) = name.token {
                self.field(raw, &name)?;
            } else {
                // The grammar was checked, so this is the end.
                self.close();
            }
        }
        Ok(())
    }

    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("fields are read inside of a message")
    }

    /// Enters a message.
    fn open(&mut self, message: &'static Message) -> Result<(), String> {
        if self.levels.len() >= DEPTH_MAX {
            return Err(format!("{PREFIX}exceeded max recursion depth"));
        }
        let open = self.next()?;
        if !matches!(open.token, Token::Open(b'{')) {
            return Err(self.unexpected(&open));
        }
        assert!(message.fields.len() <= 64, "a bit for each field of {}", message.name);
        let is_outermost = self.levels.is_empty();
        let mark = if is_outermost { Mark::default() } else { self.lengths.open(&mut self.out) };
        self.levels.push(Level { message, seen: 0, oneofs: 0, list: None, mark });
        Ok(())
    }

    fn close(&mut self) {
        let level = self.levels.pop().expect("the caller looked at it");
        if !self.levels.is_empty() {
            self.lengths.close(level.mark, &mut self.out);
        }
    }

    /// Reads what a name stands for.
    fn field(&mut self, raw: &[u8], name: &Found<'j>) -> Result<(), String> {
        let text = self.unescape(raw, name)?;
        let message = self.level().message;
        let named = |of: fn(&Field) -> &str| message.fields.iter().position(|f| of(f) == text);
        let place = named(|field| field.camel_name).or_else(|| named(|field| field.name));
        let Some(place) = place else {
            let depth = DEPTH_MAX - self.levels.len();
            return self.skip(depth);
        };
        let field = &message.fields[place];
        let bit = 1 << place;
        if self.level().seen & bit != 0 {
            return Err(self.failed(name, &format!("duplicate field {}", self.raw(name))));
        }
        self.level().seen |= bit;
        if self.peek()? == b'n' {
            self.next()?;
            return Ok(());
        }
        if field.repeated {
            let open = self.next()?;
            if !matches!(open.token, Token::Open(b'[')) {
                return Err(self.unexpected(&open));
            }
            self.level().list = Some(field);
            return Ok(());
        }
        if let Some(oneof) = field.oneof {
            if self.level().oneofs & 1 << oneof != 0 {
                let (raw, oneof) = (self.raw(name), message.oneofs[oneof]);
                let text = format!("error parsing {raw}, oneof {oneof} is already set");
                return Err(self.failed(name, &text));
            }
            self.level().oneofs |= 1 << oneof;
        }
        self.value(field)
    }

    fn value(&mut self, field: &Field) -> Result<(), String> {
        if let Kind::Message(id) = field.kind {
            put_varint(&mut self.out, u64::from(field.number) << 3 | 2);
            return self.open(&MESSAGES[id]);
        }
        let found = self.next()?;
        let mut out = std::mem::take(&mut self.out);
        let is_kept = self.scalar(&mut out, field, &found);
        self.out = out;
        if is_kept? {
            return Ok(());
        }
        let (kind, name, raw) = (field.kind.name(), field.camel_name, self.raw(&found));
        Err(self.failed(&found, &format!("invalid value for {kind} field {name}: {raw}")))
    }

    /// Appends a value that is no message; `false` if it is none of the field.
    fn scalar(&self, out: &mut Vec<u8>, field: &Field, found: &Found<'_>) -> Result<bool, String> {
        let varint = match (field.kind, found.token) {
            (Kind::Bool, Token::Bool(value)) => Some(u64::from(value)),
            (Kind::String, Token::String(raw)) => {
                put_delimited(out, field.number, self.unescape(raw, found)?.as_bytes());
                return Ok(true);
            }
            (Kind::Bytes, Token::String(raw)) => {
                let Some(bytes) = base64::read(&self.unescape(raw, found)?) else {
                    return Ok(false);
                };
                put_delimited(out, field.number, &bytes);
                return Ok(true);
            }
            (Kind::Enum(id), Token::String(raw)) => {
                let text = self.unescape(raw, found)?;
                let Some((_, value)) = ENUMS[id].values.iter().find(|(name, _)| *name == text)
                else {
                    // A name that is not known is as good as none.
                    return Ok(true);
                };
                Some(sign_extended(i64::from(*value)))
            }
            (Kind::Bool | Kind::Bytes | Kind::String | Kind::Message(_), _) => None,
            (Kind::Enum(_), Token::Number) => integer(self.raw_bytes(found), Kind::Int32),
            (kind, Token::Number) => integer(self.raw_bytes(found), kind),
            (Kind::Enum(_), _) => None,
            (kind, Token::String(raw)) => {
                let text = self.unescape(raw, found)?;
                number_in(&text).and_then(|number| integer(number, kind))
            }
            (_, Token::Null | Token::Bool(_) | Token::Open(_) | Token::Close) => None,
        };
        let Some(varint) = varint else { return Ok(false) };
        // A set arm of a oneof is set even if its value is the default.
        if varint != 0 || field.oneof.is_some() || field.repeated {
            put_varint(out, u64::from(field.number) << 3);
            put_varint(out, varint);
        }
        Ok(true)
    }

    /// Passes over a value that nobody knows.
    fn skip(&mut self, depth: usize) -> Result<(), String> {
        let mut open = 0usize;
        loop {
            let found = self.next()?;
            match found.token {
                Token::Open(_) => {
                    open += 1;
                    if open > depth {
                        return Err(format!("{PREFIX}exceeded max recursion depth"));
                    }
                }
                Token::Close => open -= 1,
                Token::String(raw) => drop(self.unescape(raw, &found)?),
                Token::Null | Token::Bool(_) | Token::Number => {}
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// The first byte of the next token; commas and colons are none.
    fn peek(&mut self) -> Result<u8, String> {
        while let Some(&byte) = self.json.get(self.at) {
            if !is_space(byte) && byte != b',' && byte != b':' {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(format!("{PREFIX}unexpected EOF"))
    }

    fn next(&mut self) -> Result<Found<'j>, String> {
        let first = self.peek()?;
        let from = self.at;
        let rest = &self.json[from..];
        let (token, len) = match first {
            b'{' | b'[' => (Token::Open(first), 1),
            b'}' | b']' => (Token::Close, 1),
            b'"' => {
                let len = string_len(rest).ok_or_else(|| format!("{PREFIX}unexpected EOF"))?;
                (Token::String(&rest[1..len - 1]), len)
            }
            b'n' => (Token::Null, 4),
            b't' => (Token::Bool(true), 4),
            b'f' => (Token::Bool(false), 5),
            _ => {
                let is_part =
                    |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                (Token::Number, rest.iter().take_while(|byte| is_part(byte)).count().max(1))
            }
        };
        let to = (from + len).min(self.json.len());
        self.at = to;
        Ok(Found { token, from, to })
    }

    /// The text of a string.
    fn unescape(&self, raw: &[u8], found: &Found<'_>) -> Result<String, String> {
        let mut text = String::with_capacity(raw.len());
        let mut rest = raw;
        while !rest.is_empty() {
            let plain = rest.iter().position(|byte| *byte == b'\\').unwrap_or(rest.len());
            match str::from_utf8(&rest[..plain]) {
                Ok(part) => text.push_str(part),
                Err(_) => return Err(self.syntax(found, "invalid UTF-8 in string")),
            }
            rest = &rest[plain..];
            if rest.is_empty() {
                break;
            }
            let (letter, len) = match rest[1] {
                b'b' => ('\x08', 2),
                b'f' => ('\x0c', 2),
                b'n' => ('\n', 2),
                b'r' => ('\r', 2),
                b't' => ('\t', 2),
                b'u' => {
                    // What follows in the whole value, for Go looks at it before it looks for the
                    // string's end.
                    let behind = found.from + 1 + raw.len() - rest.len();
                    match unicode(&self.json[behind..]) {
                        Ok(letter) => letter,
                        Err([]) => return Err(format!("{PREFIX}unexpected EOF")),
                        Err(shown) => {
                            let shown = String::from_utf8_lossy(shown);
                            let text = format!("invalid escape code {shown:?} in string");
                            return Err(self.syntax(found, &text));
                        }
                    }
                }
                other => (char::from(other), 2),
            };
            text.push(letter);
            rest = &rest[len..];
        }
        Ok(text)
    }

    fn raw_bytes(&self, found: &Found<'_>) -> &'j [u8] {
        &self.json[found.from..found.to]
    }

    fn raw(&self, found: &Found<'_>) -> String {
        String::from_utf8_lossy(self.raw_bytes(found)).into_owned()
    }

    fn unexpected(&self, found: &Found<'_>) -> String {
        self.syntax(found, &format!("unexpected token {}", self.raw(found)))
    }

    fn syntax(&self, found: &Found<'_>, text: &str) -> String {
        let (line, column) = self.position(found.from);
        format!("{PREFIX}syntax error (line {line}:{column}): {text}")
    }

    fn failed(&self, found: &Found<'_>, text: &str) -> String {
        let (line, column) = self.position(found.from);
        format!("{PREFIX}(line {line}:{column}): {text}")
    }

    /// Line and column, both counted from one.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.json[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        (line, String::from_utf8_lossy(&before[begin..]).chars().count() + 1)
    }
}

/// The length of the string that a text begins with, quotes included.
fn string_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The character of an escape and the escape's length; of a bad one, what is to be shown, nothing
/// if the text ends before that.
fn unicode(text: &[u8]) -> Result<(char, usize), &[u8]> {
    let unit = |from: usize| -> Option<u32> {
        let digits = str::from_utf8(text.get(from..from + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(2).ok_or(text.get(..6).unwrap_or_default())?;
    if let Some(letter) = char::from_u32(first) {
        return Ok((letter, 6));
    }
    let shown = text.get(6..12).unwrap_or_default();
    let is_pair = first < 0xdc00 && shown.starts_with(b"\\u");
    let second = unit(8).filter(|second| is_pair && (0xdc00..0xe000).contains(second));
    let second = second.ok_or(shown)?;
    let code = 0x1_0000 + ((first - 0xd800) << 10 | (second - 0xdc00));
    Ok((char::from_u32(code).ok_or(shown)?, 12))
}

/// The number that a string consists of.
fn number_in(text: &str) -> Option<&[u8]> {
    let bytes = text.as_bytes();
    let is_trimmed = text.trim() == text;
    let is_number = matches!(bytes.first(), Some(b'-' | b'0'..=b'9'));
    (is_trimmed && is_number && !bytes.iter().any(|byte| is_space(*byte))).then_some(bytes)
}

/// An integer of JSON's grammar, fraction and exponent included as long as it is one, as a varint;
/// `None` if it is none or does not fit.
fn integer(text: &[u8], kind: Kind) -> Option<u64> {
    let value = whole_number(text)?;
    match kind {
        Kind::Int32 => i32::try_from(value).ok().map(|value| sign_extended(value.into())),
        Kind::Int64 => i64::try_from(value).ok().map(sign_extended),
        Kind::Uint32 => u32::try_from(value).ok().map(u64::from),
        Kind::Uint64 => u64::try_from(value).ok(),
        _ => None,
    }
}

fn sign_extended(value: i64) -> u64 {
    u64::from_ne_bytes(value.to_ne_bytes())
}

/// Digits beyond which no 64-bit number goes.
const DIGITS_MAX: usize = 20;

fn whole_number(text: &[u8]) -> Option<i128> {
    let (is_negative, rest) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, rest) = digits(rest);
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return None;
    }
    let (fraction, rest) = match rest.strip_prefix(b".") {
        Some(rest) => Some(digits(rest)).filter(|(fraction, _)| !fraction.is_empty())?,
        None => (&rest[..0], rest),
    };
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', exponent @ ..] => {
            let unsigned = exponent.strip_prefix(b"+").unwrap_or(exponent);
            str::from_utf8(unsigned).ok()?.parse::<i32>().ok()?
        }
        _ => return None,
    };
    let whole = if whole == b"0" { &whole[..0] } else { whole };
    let end = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |place| place + 1);
    let fraction = &fraction[..end];
    if whole.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    let shift = usize::try_from(exponent.unsigned_abs()).ok()?;
    let mut number: Vec<u8> = whole.to_vec();
    if exponent >= 0 {
        if fraction.len() > shift || whole.len() + shift > DIGITS_MAX {
            return None;
        }
        number.extend_from_slice(fraction);
        number.resize(whole.len() + shift, b'0');
    } else {
        let kept = whole.len().checked_sub(shift).filter(|_| fraction.is_empty())?;
        if number[kept..].iter().any(|digit| *digit != b'0') {
            return None;
        }
        number.truncate(kept);
    }
    if number.len() > 2 * DIGITS_MAX {
        return None;
    }
    // Go parses what is left, and an empty text is no number.
    let value: i128 = str::from_utf8(&number).ok()?.parse().ok()?;
    Some(if is_negative { -value } else { value })
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn varint_len(value: usize) -> usize {
    let bits = (usize::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_delimited(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
