//! Strings as protobuf's JSON and Go's error texts write them.

use std::fmt::Write;

/// Which characters of a string are escaped beyond those that JSON demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// None.
    Json,
    /// Also those that mean something in HTML: Go's other encoder, through which the chunks of a
    /// stream go, does that.
    Html,
}

/// Appends a JSON string.
pub fn put_string(out: &mut Vec<u8>, text: &str, escape: Escape) {
    out.push(b'"');
    let mut rest = text;
    while let Some(place) = rest.find(|letter| needs_escape(letter, escape)) {
        out.extend_from_slice(&rest.as_bytes()[..place]);
        let letter = rest[place..].chars().next().expect("it was found there");
        put_escaped(out, letter);
        rest = &rest[place + letter.len_utf8()..];
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

fn needs_escape(letter: char, escape: Escape) -> bool {
    match letter {
        '\0'..='\x1f' | '"' | '\\' => true,
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escape == Escape::Html,
        _ => false,
    }
}

fn put_escaped(out: &mut Vec<u8>, letter: char) {
    let short = match letter {
        '"' => b'"',
        '\\' => b'\\',
        '\x08' => b'b',
        '\x0c' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => {
            let code = u32::from(letter);
            return out.extend_from_slice(format!("\\u{code:04x}").as_bytes());
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// A byte between single quotes, as Go's JSON parser names what it did not expect.
pub fn quoted_char(byte: u8) -> String {
    let mut text = String::from("'");
    match byte {
        b'\'' => text.push_str("\\'"),
        b'\\' => text.push_str("\\\\"),
        0x07 => text.push_str("\\a"),
        0x08 => text.push_str("\\b"),
        0x0b => text.push_str("\\v"),
        0x0c => text.push_str("\\f"),
        b'\n' => text.push_str("\\n"),
        b'\r' => text.push_str("\\r"),
        b'\t' => text.push_str("\\t"),
        0..=0x1f | 0x7f => write!(text, "\\x{byte:02x}").expect("a string takes all"),
        0x80..=0xa0 | 0xad => write!(text, "\\u{byte:04x}").expect("a string takes all"),
        _ => text.push(char::from(byte)),
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        let escaped = |text, escape| {
            let mut out = Vec::new();
            put_string(&mut out, text, escape);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(escaped("a\"\\\n\x01\x7fé<", Escape::Json), "\"a\\\"\\\\\\n\\u0001\x7fé<\"");
        assert_eq!(escaped("<&>\u{2028}", Escape::Html), "\"\\u003c\\u0026\\u003e\\u2028\"");
        assert_eq!(escaped("", Escape::Html), "\"\"");
    }

    #[test]
    fn characters_are_quoted_as_go_does() {
        let cases = [
            (b'a', "'a'"),
            (b'\'', "'\\''"),
            (b'"', "'\"'"),
            (0, "'\\x00'"),
            (0xe9, "'é'"),
            (0x85, "'\\u0085'"),
        ];
        for (byte, expected) in cases {
            assert_eq!(quoted_char(byte), expected);
        }
    }
}
