//! Base64 as Go's protobuf writes and reads it: standard alphabet out; in, either alphabet, with or
//! without padding, and line ends anywhere.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes of which a step of a long value is made; a multiple of three, so that no padding stands
/// within.
pub(super) const STEP_BYTES: usize = 48 << 10;

/// Appends bytes in base64, with padding.
pub fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    let mut triples = bytes.chunks_exact(3);
    for triple in &mut triples {
        let bits = u32::from_be_bytes([0, triple[0], triple[1], triple[2]]);
        out.extend_from_slice(&[digit(bits, 18), digit(bits, 12), digit(bits, 6), digit(bits, 0)]);
    }
    match *triples.remainder() {
        [a] => {
            let bits = u32::from_be_bytes([0, a, 0, 0]);
            out.extend_from_slice(&[digit(bits, 18), digit(bits, 12), b'=', b'=']);
        }
        [a, b] => {
            let bits = u32::from_be_bytes([0, a, b, 0]);
            out.extend_from_slice(&[digit(bits, 18), digit(bits, 12), digit(bits, 6), b'=']);
        }
        _ => {}
    }
}

fn digit(bits: u32, shift: u32) -> u8 {
    STANDARD[(bits >> shift & 63) as usize]
}

/// Reads base64; `None` if it is none.
pub fn read(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let is_url = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let is_padded = text.len().is_multiple_of(4);
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut digits = text.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')).peekable();
    let (mut bits, mut count) = (0u32, 0);
    while let Some(&&byte) = digits.peek() {
        if byte == b'=' {
            break;
        }
        digits.next();
        bits = bits << 6 | u32::from(value(byte, is_url)?);
        count += 1;
        if count == 4 {
            let [_, a, b, c] = bits.to_be_bytes();
            out.extend_from_slice(&[a, b, c]);
            (bits, count) = (0, 0);
        }
    }
    let mut padding = 0;
    for byte in digits {
        if *byte != b'=' {
            return None;
        }
        padding += 1;
    }
    let expected = if is_padded && count > 0 { 4 - count } else { 0 };
    if padding != expected {
        return None;
    }
    match count {
        0 => {}
        2 => out.push((bits >> 4).to_be_bytes()[3]),
        3 => out.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
        _ => return None,
    }
    Some(out)
}

fn value(byte: u8, is_url: bool) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' if !is_url => 62,
        b'/' if !is_url => 63,
        b'-' if is_url => 62,
        b'_' if is_url => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        put(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..bytes.len() {
            let text = written(&bytes[..len]);
            assert_eq!(read(&text).as_deref(), Some(&bytes[..len]), "{len}");
            let bare = text.trim_end_matches('=');
            assert_eq!(read(bare).as_deref(), Some(&bytes[..len]), "{len} without padding");
            let url = text.replace('+', "-").replace('/', "_");
            assert_eq!(read(&url).as_deref(), Some(&bytes[..len]), "{len} for URLs");
        }
        assert_eq!(written(b"foo"), "Zm9v");
        assert_eq!(written(b"fo"), "Zm8=");
    }

    #[test]
    fn what_go_refuses_is_refused() {
        // Recorded from Go's encoding/base64 under the rules of protojson.
        for text in ["a", "aaaaa", "Zm9", "Zg==Zg==", "Zg=", "Z===", "Zm9v!", "+_aa", "====", "é"]
        {
            let is_bare = text == "Zm9";
            assert_eq!(read(text).is_some(), is_bare, "{text}");
        }
        assert_eq!(read("Zm\n9v").as_deref(), Some(&b"foo"[..]));
    }
}
