//! Text as Go prints it, since grpc-go's messages quote what a client sent.
//!
//! Invariants:
//! - Any bytes may come in; what goes out is valid UTF-8.

use std::fmt::Write;

/// Bytes as text, each byte that is not UTF-8 replaced by U+FFFD (one for each byte, as Go does).
pub(super) fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Bytes as Go's `%q` prints them.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_quoted(&mut text, character);
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    text.push('"');
    text
}

fn push_quoted(text: &mut String, character: char) {
    match character {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        '\0'..='\x1f' | '\x7f' => {
            write!(text, "\\x{:02x}", u32::from(character)).expect("strings take all");
        }
        // Go also escapes characters that it does not consider printable; control characters are
        // the ones that matter on a terminal.
        _ if character.is_control() => {
            write!(text, "\\u{:04x}", u32::from(character)).expect("strings take all");
        }
        _ => text.push(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        let cases: [(&[u8], &str); 5] = [
            (b"", r#""""#),
            (b"/foo", r#""/foo""#),
            (b"a\"b\\\n\x01", r#""a\"b\\\n\x01""#),
            (b"\xff\xc3\xa4", "\"\\xff\u{e4}\""),
            (b"\xc2\x85", r#""\u0085""#),
        ];
        for (bytes, text) in cases {
            assert_eq!(quoted(bytes), text);
        }
    }

    #[test]
    fn each_wrong_byte_is_replaced() {
        assert_eq!(lossy(b"f\xff\xe2\x82oo"), "f\u{fffd}\u{fffd}\u{fffd}oo");
    }
}
