//! Where a JSON value ends, told byte by byte, and what is wrong with it in the words of Go.
//!
//! A request's body is one value, or for a stream several, and arrives in pieces of any size; each
//! byte is looked at once. The grammar's other half, what may not stand in a string, is left to
//! [`decode`](super::decode), which sees whole values only.
//!
//! Invariants:
//! - A scanner that has failed or ended stays so until [`Scanner::begin`].

use super::text::quoted_char;

/// As deep as Go's parser goes.
const DEPTH_MAX: usize = 10_000;

/// What a run of bytes has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All of them belong to a value that has not ended, or to the space before it.
    More,
    /// The value ends before this many of them.
    End(usize),
    /// This is no JSON.
    Failed(String),
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    BeginValue,
    BeginValueOrEmpty,
    BeginString,
    BeginStringOrEmpty,
    EndValue,
    InString,
    InStringEscape,
    /// Hexadecimal digits that are still to come.
    InStringUnicode(u8),
    Negative,
    /// Digits before the point.
    Digits,
    /// A leading zero has no further digits.
    Zero,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// The rest of `true`, `false` or `null`, and how it is called.
    Literal(&'static str, usize),
    Ended,
}

/// What a value stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    ObjectKey,
    ObjectValue,
    Array,
}

/// The scanner of one value.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    frames: Vec<Frame>,
    is_begun: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: State::BeginValue, frames: Vec::new(), is_begun: false }
    }
}

impl Scanner {
    /// Expects a new value.
    pub fn begin(&mut self) {
        self.state = State::BeginValue;
        self.frames.clear();
        self.is_begun = false;
    }

    /// Whether anything but space has come.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Whether the value would be whole if nothing more came: a number's end shows only then.
    #[must_use]
    pub fn may_end(&self) -> bool {
        let is_number = matches!(
            self.state,
            State::Digits | State::Zero | State::Fraction | State::ExponentDigits
        );
        self.is_begun && self.frames.is_empty() && (is_number || self.state == State::EndValue)
    }

    /// Looks at the next bytes.
    pub fn scan(&mut self, bytes: &[u8]) -> Step {
        for (place, &byte) in bytes.iter().enumerate() {
            if self.state == State::InString && byte >= b' ' && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.is_begun |= !is_space(byte);
            if let Err(context) = self.step(byte) {
                let found = quoted_char(byte);
                return Step::Failed(format!("invalid character {found} {context}"));
            }
            match self.state {
                // A number has ended before this byte.
                State::Ended => return Step::End(place),
                State::EndValue if self.frames.is_empty() => {
                    self.state = State::Ended;
                    return Step::End(place + 1);
                }
                _ => {}
            }
        }
        Step::More
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        match self.state {
            State::InString => self.step_string(byte)?,
            State::BeginValue | State::BeginValueOrEmpty => self.begin_value(byte)?,
            State::BeginString | State::BeginStringOrEmpty => self.begin_string(byte)?,
            State::EndValue => self.end_value(byte)?,
            State::InStringEscape => {
                self.state = match byte {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => State::InString,
                    b'u' => State::InStringUnicode(4),
                    _ => return Err("in string escape code"),
                };
            }
            State::InStringUnicode(left) => {
                if !byte.is_ascii_hexdigit() {
                    return Err("in \\u hexadecimal character escape");
                }
                self.state =
                    if left == 1 { State::InString } else { State::InStringUnicode(left - 1) };
            }
            State::Literal(word, at) => self.step_literal(word, at, byte)?,
            State::Ended => {}
            _ => self.step_number(byte)?,
        }
        Ok(())
    }

    fn step_string(&mut self, byte: u8) -> Result<(), &'static str> {
        match byte {
            b'"' => self.state = State::EndValue,
            b'\\' => self.state = State::InStringEscape,
            0..=0x1f => return Err("in string literal"),
            _ => {}
        }
        Ok(())
    }

    fn begin_value(&mut self, byte: u8) -> Result<(), &'static str> {
        if is_space(byte) {
            return Ok(());
        }
        if byte == b']' && self.state == State::BeginValueOrEmpty {
            return self.end_value(byte);
        }
        self.state = match byte {
            b'{' => return self.push(Frame::ObjectKey, State::BeginStringOrEmpty),
            b'[' => return self.push(Frame::Array, State::BeginValueOrEmpty),
            b'"' => State::InString,
            b'-' => State::Negative,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Literal("true", 1),
            b'f' => State::Literal("false", 1),
            b'n' => State::Literal("null", 1),
            _ => return Err("looking for beginning of value"),
        };
        Ok(())
    }

    fn begin_string(&mut self, byte: u8) -> Result<(), &'static str> {
        if is_space(byte) {
            return Ok(());
        }
        if byte == b'}' && self.state == State::BeginStringOrEmpty {
            *self.frames.last_mut().expect("an object was begun") = Frame::ObjectValue;
            return self.end_value(byte);
        }
        if byte != b'"' {
            return Err("looking for beginning of object key string");
        }
        self.state = State::InString;
        Ok(())
    }

    fn end_value(&mut self, byte: u8) -> Result<(), &'static str> {
        let Some(frame) = self.frames.last_mut() else {
            self.state = State::Ended;
            return Ok(());
        };
        if is_space(byte) {
            self.state = State::EndValue;
            return Ok(());
        }
        match (*frame, byte) {
            (Frame::ObjectKey, b':') => {
                *frame = Frame::ObjectValue;
                self.state = State::BeginValue;
            }
            (Frame::ObjectValue, b',') => {
                *frame = Frame::ObjectKey;
                self.state = State::BeginString;
            }
            (Frame::Array, b',') => self.state = State::BeginValue,
            (Frame::ObjectValue, b'}') | (Frame::Array, b']') => {
                self.frames.pop();
                self.state = State::EndValue;
            }
            (Frame::ObjectKey, _) => return Err("after object key"),
            (Frame::ObjectValue, _) => return Err("after object key:value pair"),
            (Frame::Array, _) => return Err("after array element"),
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame, state: State) -> Result<(), &'static str> {
        if self.frames.len() >= DEPTH_MAX {
            return Err("exceeded max depth");
        }
        self.frames.push(frame);
        self.state = state;
        Ok(())
    }

    fn step_literal(
        &mut self,
        word: &'static str,
        at: usize,
        byte: u8,
    ) -> Result<(), &'static str> {
        if word.as_bytes()[at] != byte {
            return Err(match (word, at) {
                ("true", 1) => "in literal true (expecting 'r')",
                ("true", 2) => "in literal true (expecting 'u')",
                ("true", _) => "in literal true (expecting 'e')",
                ("false", 1) => "in literal false (expecting 'a')",
                ("false", 2) => "in literal false (expecting 'l')",
                ("false", 3) => "in literal false (expecting 's')",
                ("false", _) => "in literal false (expecting 'e')",
                (_, 1) => "in literal null (expecting 'u')",
                _ => "in literal null (expecting 'l')",
            });
        }
        let is_whole = at + 1 == word.len();
        self.state = if is_whole { State::EndValue } else { State::Literal(word, at + 1) };
        Ok(())
    }

    fn step_number(&mut self, byte: u8) -> Result<(), &'static str> {
        self.state = match (self.state, byte) {
            (State::Negative, b'0') => State::Zero,
            (State::Negative, b'1'..=b'9') | (State::Digits, b'0'..=b'9') => State::Digits,
            (State::Negative, _) => return Err("in numeric literal"),
            (State::Digits | State::Zero, b'.') => State::Point,
            (State::Digits | State::Zero | State::Fraction, b'e' | b'E') => State::Exponent,
            (State::Point | State::Fraction, b'0'..=b'9') => State::Fraction,
            (State::Point, _) => return Err("after decimal point in numeric literal"),
            (State::Exponent, b'+' | b'-') => State::ExponentSign,
            (State::Exponent | State::ExponentSign | State::ExponentDigits, b'0'..=b'9') => {
                State::ExponentDigits
            }
            (State::Exponent | State::ExponentSign, _) => {
                return Err("in exponent of numeric literal");
            }
            _ => return self.end_value(byte),
        };
        Ok(())
    }
}

/// What JSON takes for space.
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Step {
        let mut scanner = Scanner::default();
        scanner.scan(text.as_bytes())
    }

    #[test]
    fn a_value_ends_where_go_sees_its_end() {
        let cases = [
            ("{}", Step::End(2)),
            (" {\"a\": [1, 2.5e-3, true, null]} x", Step::End(31)),
            ("[]", Step::End(2)),
            ("\"a\\u00e9\\n\"x", Step::End(11)),
            ("true", Step::End(4)),
            ("12 ", Step::End(2)),
            ("12x", Step::End(2)),
            ("12", Step::More),
            ("", Step::More),
            ("  ", Step::More),
            ("{\"a\"", Step::More),
        ];
        for (text, expected) in cases {
            assert_eq!(scan(text), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_go() {
        let cases = [
            ("x", "'x' looking for beginning of value"),
            ("{a", "'a' looking for beginning of object key string"),
            ("{\"a\"}", "'}' after object key"),
            ("{\"a\":1]", "']' after object key:value pair"),
            ("[1}", "'}' after array element"),
            ("{\"a\":}", "'}' looking for beginning of value"),
            ("{\"a\":1,}", "'}' looking for beginning of object key string"),
            ("\"\\x\"", "'x' in string escape code"),
            ("\"\\u00g0\"", "'g' in \\u hexadecimal character escape"),
            ("\"\n\"", "'\\n' in string literal"),
            ("-a", "'a' in numeric literal"),
            ("1.x", "'x' after decimal point in numeric literal"),
            ("1e+x", "'x' in exponent of numeric literal"),
            ("nul1", "'1' in literal null (expecting 'l')"),
            ("'", "'\\'' looking for beginning of value"),
            ("\u{e9}", "'Ã' looking for beginning of value"),
        ];
        for (text, expected) in cases {
            assert_eq!(scan(text), Step::Failed(format!("invalid character {expected}")), "{text}");
        }
        let deep = Step::Failed("invalid character '[' exceeded max depth".into());
        assert_eq!(scan(&"[".repeat(10_001)), deep);
        assert_eq!(scan(&"[".repeat(10_000)), Step::More);
    }

    #[test]
    fn cuts_change_nothing() {
        let text = b" {\"a\\\"b\":[1.5e3,-0,\"\\u1234\",{}],\"c\":false}tail";
        let mut whole = Scanner::default();
        let Step::End(end) = whole.scan(text) else { panic!("it is a value") };
        for cut in 0..end {
            let mut scanner = Scanner::default();
            assert_eq!(scanner.scan(&text[..cut]), Step::More, "{cut}");
            assert!(!scanner.may_end(), "{cut}");
            assert_eq!(scanner.scan(&text[cut..]), Step::End(end - cut), "{cut}");
        }
        let mut number = Scanner::default();
        assert_eq!((number.scan(b" 1"), number.scan(b"2")), (Step::More, Step::More));
        assert!(number.may_end());
    }
}
