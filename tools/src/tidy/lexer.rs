//! Rust's comments and literals, made invisible.
//!
//! The result has the same length and the same lines as the text. Comments become spaces, string
//! and character literals become quotation marks: a line of a long string still counts as code,
//! but no word in it does.

/// The text with comments and literals blanked.
pub fn blank(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let (end, filler) = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => (line_end(bytes, at), b' '),
            b'/' if bytes.get(at + 1) == Some(&b'*') => (block_comment_end(bytes, at), b' '),
            b'"' => (string_end(bytes, at + 1), b'"'),
            b'\'' => match character_end(text, at) {
                Some(end) => (end, b'"'),
                None => {
                    at += 1;
                    continue;
                }
            },
            byte if is_word(byte) => {
                let end = word_end(bytes, at);
                match raw_string_end(bytes, at, end) {
                    Some(literal_end) => (literal_end, b'"'),
                    None => {
                        at = end;
                        continue;
                    }
                }
            }
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = filler;
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters are replaced by ASCII")
}

/// Whether a byte may be part of an identifier. All of a multi-byte character's bytes may.
pub const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Where the word that starts at `at` ends.
pub fn word_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| !is_word(*byte)).map_or(bytes.len(), |len| at + len)
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |len| at + len)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a character literal; a lifetime or a label is none.
fn character_end(text: &str, quote: usize) -> Option<usize> {
    let after = text[quote + 1..].chars().next()?;
    let bytes = text.as_bytes();
    if after == '\\' {
        // The escaped character may be a quotation mark itself.
        let close = bytes.get(quote + 3..)?.iter().position(|byte| *byte == b'\'')?;
        return Some(quote + 3 + close + 1);
    }
    let close = quote + 1 + after.len_utf8();
    (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
}

/// The end of a literal that a prefix opens: `r"`, `r#"`, `b"`, `br"`, `c"`, `b'`.
fn raw_string_end(bytes: &[u8], start: usize, prefix_end: usize) -> Option<usize> {
    let prefix = &bytes[start..prefix_end];
    match prefix {
        b"r" | b"br" | b"cr" => {
            let hashes = bytes[prefix_end..].iter().take_while(|byte| **byte == b'#').count();
            let open = prefix_end + hashes;
            if bytes.get(open) != Some(&b'"') {
                return None;
            }
            let close: Vec<u8> =
                std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            let body = &bytes[open + 1..];
            let len = body.windows(close.len()).position(|window| window == close);
            Some(len.map_or(bytes.len(), |len| open + 1 + len + close.len()))
        }
        b"b" | b"c" if bytes.get(prefix_end) == Some(&b'"') => {
            Some(string_end(bytes, prefix_end + 1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_disappear_and_lines_stay() {
        for (text, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d\n */ e", "a               \n    e"),
            ("f(\"x // y\")", "f(\"\"\"\"\"\"\"\")"),
            ("f(\"\\\"\", b)", "f(\"\"\"\", b)"),
            ("f(r\"\\\", b)", "f(\"\"\"\", b)"),
            ("r##\"a\"#b\"## c", "\"\"\"\"\"\"\"\"\"\"\" c"),
            ("b\"a\" br#\"a\"#", "\"\"\"\" \"\"\"\"\"\"\""),
            ("'a' '\\'' '\"' b'x'", "\"\"\" \"\"\"\" \"\"\" b\"\"\""),
            ("'é' &'a str 'l: loop", "\"\"\"\" &'a str 'l: loop"),
            ("'\\u{1f600}' x", "\"\"\"\"\"\"\"\"\"\"\" x"),
            ("r#type + bar", "r#type + bar"),
            ("\"a\nb\" c", "\"\"\n\"\" c"),
            ("\"open", "\"\"\"\"\""),
            ("/* open", "       "),
        ] {
            assert_eq!(blank(text), expected, "{text:?}");
        }
    }

    #[test]
    fn no_text_panics() {
        const ALPHABET: &[u8] = b"/*\"'\\r#b\na";
        for seed in 0..20_000_usize {
            let mut text = String::new();
            let mut rest = seed.wrapping_mul(0x9e37_79b9);
            for _ in 0..7 {
                text.push(char::from(ALPHABET[rest % ALPHABET.len()]));
                rest /= ALPHABET.len();
            }
            let blanked = blank(&text);
            assert_eq!(blanked.len(), text.len(), "{text:?}");
            assert_eq!(blanked.matches('\n').count(), text.matches('\n').count(), "{text:?}");
        }
    }
}
