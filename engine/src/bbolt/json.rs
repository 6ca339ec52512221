//! As much JSON as etcd's database has: members, the configuration of raft, a downgrade.
//!
//! Written as Go writes it, read with bounded depth. Four small texts do not pay for a library in
//! the crate that holds the replicated state.

use std::fmt::Write;

/// How deep values may lie in each other; etcd's go two deep.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As it was written: which numbers fit is the question of who asks.
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The value of a whole text; `None` if it is not JSON.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parser = Parser { rest: text };
        let value = parser.value(0)?;
        parser.skip_blanks();
        parser.rest.is_empty().then_some(value)
    }

    /// A member of an object. Of equal names the last counts; a null is as good as none.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let member = members.iter().rev().find(|member| member.0 == name)?;
        (member.1 != Self::Null).then_some(&member.1)
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        if let Self::Number(text) = self { text.parse().ok() } else { None }
    }

    pub(super) fn as_text(&self) -> Option<String> {
        if let Self::Text(text) = self { Some(text.clone()) } else { None }
    }

    /// All elements of a list, if each is what is asked for.
    pub(super) fn as_list<T>(&self, element: impl Fn(&Self) -> Option<T>) -> Option<Vec<T>> {
        if let Self::List(list) = self { list.iter().map(element).collect() } else { None }
    }
}

/// Appends a text in quotes, escaped as Go does it for text that may land in HTML.
pub(super) fn text_into(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(character)).expect("a text takes all");
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// Appends a list; `element` appends one of its elements.
pub(super) fn list_into<T>(list: &[T], element: impl Fn(&T, &mut String), out: &mut String) {
    out.push('[');
    for (index, one) in list.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        element(one, out);
    }
    out.push(']');
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_blanks();
        match self.rest.chars().next()? {
            '{' => self.object(depth),
            '[' => self.list(depth),
            '"' => self.text().map(Json::Text),
            '-' | '0'..='9' => self.number(),
            _ => {
                let words = [
                    ("null", Json::Null),
                    ("true", Json::Bool(true)),
                    ("false", Json::Bool(false)),
                ];
                words.into_iter().find(|(word, _)| self.skip(word)).map(|(_, value)| value)
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        let mut members = Vec::new();
        self.skip("{");
        self.skip_blanks();
        if self.skip("}") {
            return Some(Json::Object(members));
        }
        loop {
            self.skip_blanks();
            let name = self.text()?;
            self.skip_blanks();
            self.skip(":").then_some(())?;
            members.push((name, self.value(depth + 1)?));
            self.skip_blanks();
            if self.skip("}") {
                return Some(Json::Object(members));
            }
            self.skip(",").then_some(())?;
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        let mut list = Vec::new();
        self.skip("[");
        self.skip_blanks();
        if self.skip("]") {
            return Some(Json::List(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            self.skip_blanks();
            if self.skip("]") {
                return Some(Json::List(list));
            }
            self.skip(",").then_some(())?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let is_part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        // Rust's numbers are a superset of JSON's: that does not matter to who reads only integers.
        number.parse::<f64>().ok()?;
        Some(Json::Number(number.to_owned()))
    }

    fn text(&mut self) -> Option<String> {
        self.skip("\"").then_some(())?;
        let mut text = String::new();
        loop {
            let end = self.rest.find(|c| matches!(c, '"' | '\\' | '\0'..' '))?;
            let (plain, rest) = self.rest.split_at(end);
            text.push_str(plain);
            self.rest = rest;
            if self.skip("\"") {
                return Some(text);
            }
            self.skip("\\").then_some(())?;
            text.push(self.escaped()?);
        }
    }

    fn escaped(&mut self) -> Option<char> {
        let kind = self.rest.chars().next()?;
        self.rest = &self.rest[kind.len_utf8()..];
        Some(match kind {
            '"' | '\\' | '/' => kind,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let high = self.unit()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high);
                }
                self.skip("\\u").then_some(())?;
                let low = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low)?
            }
            _ => return None,
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let unit = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
        self.rest = &self.rest[4..];
        Some(unit)
    }

    fn skip(&mut self, word: &str) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_are_escaped_like_gos() {
        let text = "a\"\\/\u{1}\n\t\u{8}\u{c}<>&\u{2028}ü𝄞";
        let mut out = String::new();
        text_into(text, &mut out);
        let expected = r#""a\"\\/\u0001\n\t\b\f\u003c\u003e\u0026\u2028ü𝄞""#;
        assert_eq!(out, expected);
        assert_eq!(Json::parse(out.as_bytes()), Some(Json::Text(text.to_owned())));
        let pair = Json::parse(br#" "\ud834\udd1e\/" "#);
        assert_eq!(pair, Some(Json::Text("𝄞/".to_owned())));
    }

    #[test]
    fn objects_are_asked_by_name() {
        let json =
            Json::parse(br#"{"a":[1, 18446744073709551615],"b":{},"c":null,"d":true,"a":[]}"#);
        let json = json.unwrap();
        assert_eq!(json.get("a").unwrap().as_list(Json::as_u64), Some(vec![]));
        assert_eq!(json.get("c"), None);
        assert_eq!(json.get("d").unwrap().as_bool(), Some(true));
        let list = Json::parse(b"[1, 18446744073709551615]").unwrap();
        assert_eq!(list.as_list(Json::as_u64), Some(vec![1, u64::MAX]));
        assert_eq!(Json::parse(b"[1,-1]").unwrap().as_list(Json::as_u64), None);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let deep = "[".repeat(100_000);
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "nul",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud834\"",
            "\"\\ud834\\u0041\"",
            "1 2",
            "\"\n\"",
            "--1",
            "\"\\u+123\"",
            &deep,
        ] {
            assert_eq!(Json::parse(text.as_bytes()), None, "{:.20}", text);
        }
        assert_eq!(Json::parse(b"\"\xff\""), None);
    }
}
