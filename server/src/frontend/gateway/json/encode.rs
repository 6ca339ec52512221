//! A protobuf message as JSON, piece by piece.
//!
//! A message's fields are looked up once, when it is entered, because JSON has them in the order of
//! their declaration, lists together. A step looks up so many of them, or writes until it has
//! written enough, so that a large answer neither keeps a core nor takes memory three times over.
//!
//! Invariants:
//! - `frames` is the path from the message asked for to the one being written.
//! - What is not protobuf ends the encoder with an error; our own answers always are.

use super::base64;
use super::schema::{ENUMS, Field, Kind, MESSAGES, Message, MessageId, message};
use super::text::{Escape, put_string};

/// Fields that are looked up in a step: a hundred microseconds' worth, and more than any answer has
/// whose size is told before it.
const STEP_FIELDS: usize = 16 << 10;

/// The bytes are not a message of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A value of a field.
#[derive(Clone, Copy, Debug)]
enum Value {
    Varint(u64),
    /// A part of the encoder's bytes.
    Span(usize, usize),
}

/// A message that is being written.
#[derive(Debug)]
struct Frame {
    message: &'static Message,
    /// The part of the encoder's bytes whose fields were not looked up.
    unread: Option<(usize, usize)>,
    /// Field and value, in the order in which they are to be written.
    values: Vec<(usize, Value)>,
    next: usize,
    in_list: bool,
}

/// Writes one message.
#[derive(Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    /// What is left of a long value.
    span: Option<(usize, usize)>,
    root: Option<MessageId>,
    escape: Escape,
}

impl Encoder {
    /// The encoder of a message.
    #[must_use]
    pub fn new(bytes: Vec<u8>, id: MessageId, escape: Escape) -> Self {
        Self { bytes, frames: Vec::new(), span: None, root: Some(id), escape }
    }

    /// The message's bytes, which it holds until it is dropped.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes until `out` has grown by about `room` bytes; `true` when all is written.
    ///
    /// # Errors
    /// If the bytes are no such message.
    pub fn step(&mut self, out: &mut Vec<u8>, room: usize) -> Result<bool, Malformed> {
        let limit = out.len().saturating_add(room);
        if let Some(id) = self.root.take() {
            self.enter(out, message(id), 0, self.bytes.len());
        }
        loop {
            if let Some((from, to)) = self.span {
                self.put_span(out, from, to);
            } else {
                let Some(frame) = self.frames.last_mut() else { return Ok(true) };
                if frame.unread.is_some() {
                    frame.read_fields(&self.bytes)?;
                    if frame.unread.is_some() {
                        return Ok(false);
                    }
                    continue;
                }
                match frame.values.get(frame.next).copied() {
                    Some((place, value)) => self.put_value(out, place, value)?,
                    None => self.leave(out),
                }
            }
            if out.len() >= limit {
                return Ok(self.span.is_none() && self.frames.is_empty());
            }
        }
    }

    fn enter(&mut self, out: &mut Vec<u8>, message: &'static Message, from: usize, to: usize) {
        out.push(b'{');
        let (unread, values) = (Some((from, to)), Vec::new());
        self.frames.push(Frame { message, unread, values, next: 0, in_list: false });
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        let frame = self.frames.pop().expect("the caller looked at it");
        if frame.in_list {
            out.push(b']');
        }
        out.push(b'}');
    }

    fn put_value(
        &mut self,
        out: &mut Vec<u8>,
        place: usize,
        value: Value,
    ) -> Result<(), Malformed> {
        let frame = self.frames.last_mut().expect("the caller looked at it");
        let field = &frame.message.fields[place];
        let is_first = frame.next == 0;
        let continues = !is_first && frame.values[frame.next - 1].0 == place;
        frame.next += 1;
        if continues {
            out.push(b',');
        } else {
            if std::mem::take(&mut frame.in_list) {
                out.push(b']');
            }
            if !is_first {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b"\":");
            if field.repeated {
                frame.in_list = true;
                out.push(b'[');
            }
        }
        match (field.kind, value) {
            (Kind::Message(id), Value::Span(from, to)) => {
                self.enter(out, &MESSAGES[id], from, to);
            }
            (Kind::Bytes, Value::Span(from, to)) => {
                out.push(b'"');
                self.put_span(out, from, to);
            }
            (Kind::String, Value::Span(from, to)) => {
                let text = str::from_utf8(&self.bytes[from..to]).map_err(|_| Malformed)?;
                put_string(out, text, self.escape);
            }
            (kind, Value::Varint(number)) if !kind.is_delimited() => {
                put_number(out, field, number);
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    /// Writes a piece of a value of bytes.
    fn put_span(&mut self, out: &mut Vec<u8>, from: usize, to: usize) {
        let until = to.min(from + base64::STEP_BYTES);
        base64::put(out, &self.bytes[from..until]);
        if until == to {
            out.push(b'"');
        }
        self.span = (until < to).then_some((until, to));
    }
}

#[allow(clippy::cast_possible_truncation, reason = "so does protobuf with a varint that is longer")]
#[allow(clippy::cast_possible_wrap, reason = "a negative number is a varint of ten bytes")]
fn put_number(out: &mut Vec<u8>, field: &Field, number: u64) {
    let text = match field.kind {
        Kind::Bool => return out.extend_from_slice(if number == 0 { b"false" } else { b"true" }),
        Kind::Int64 => format!("\"{}\"", number as i64),
        Kind::Uint64 => format!("\"{number}\""),
        Kind::Int32 => (number as i32).to_string(),
        Kind::Uint32 => (number as u32).to_string(),
        Kind::Enum(id) => {
            let number = number as i32;
            match ENUMS[id].values.iter().find(|(_, value)| *value == number) {
                Some((name, _)) => format!("\"{name}\""),
                None => number.to_string(),
            }
        }
        Kind::String | Kind::Bytes | Kind::Message(_) => unreachable!("these are no varints"),
    };
    out.extend_from_slice(text.as_bytes());
}

impl Frame {
    /// Looks up some of the fields, and when all are known, sorts them as JSON has them. Of a field
    /// that is there twice and no list, the last counts; a default value counts only where presence
    /// says something.
    fn read_fields(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let Some((mut at, to)) = self.unread.take() else { return Ok(()) };
        for _ in 0..STEP_FIELDS {
            if at >= to {
                break;
            }
            self.read_field(bytes, &mut at, to)?;
        }
        if at < to {
            self.unread = Some((at, to));
        } else {
            self.values.sort_by_key(|(place, _)| *place);
        }
        Ok(())
    }

    fn read_field(&mut self, bytes: &[u8], at: &mut usize, to: usize) -> Result<(), Malformed> {
        let Self { message, values, .. } = self;
        let key = read_varint(bytes, at, to)?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let skip = |at: &mut usize, len: usize| {
            let begin = *at;
            *at = begin.checked_add(len).filter(|end| *end <= to).ok_or(Malformed)?;
            Ok((begin, *at))
        };
        let value = match key & 7 {
            0 => Value::Varint(read_varint(bytes, at, to)?),
            2 => {
                let len = read_varint(bytes, at, to)?;
                let (begin, end) = skip(at, usize::try_from(len).map_err(|_| Malformed)?)?;
                Value::Span(begin, end)
            }
            1 => return skip(at, 8).map(drop),
            5 => return skip(at, 4).map(drop),
            _ => return Err(Malformed),
        };
        let place = message.fields.iter().position(|field| field.number == number);
        let Some(place) = place else { return Ok(()) };
        let field = &message.fields[place];
        if let (true, false, Value::Span(mut begin, end)) =
            (field.repeated, field.kind.is_delimited(), value)
        {
            // Numbers of a list stand together.
            while begin < end {
                values.push((place, Value::Varint(read_varint(bytes, &mut begin, end)?)));
            }
            return Ok(());
        }
        if !field.repeated {
            if field.oneof.is_some() {
                values.retain(|(other, _)| message.fields[*other].oneof != field.oneof);
            } else {
                values.retain(|(other, _)| *other != place);
                if is_default(field, value) {
                    return Ok(());
                }
            }
        }
        values.push((place, value));
        Ok(())
    }
}

fn is_default(field: &Field, value: Value) -> bool {
    match value {
        Value::Varint(number) => number == 0,
        Value::Span(from, to) => from == to && !matches!(field.kind, Kind::Message(_)),
    }
}

fn read_varint(bytes: &[u8], at: &mut usize, to: usize) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        if *at >= to {
            return Err(Malformed);
        }
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests;
