//! Values as Go reads them: integers, switches and durations of the command line.
//!
//! Scripts written for etcd rely on Go's spellings (`0x10`, `1_000`, `T`, `1m30s`), and its error
//! texts end up in bug reports, so both are Go's to the letter. Nothing here knows any flag.

use std::fmt;

/// Why a text is no value. The texts are those of Go's `flag` and `strconv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// Not of the kind at all.
    Parse,
    /// A number too large for its width.
    Range,
    /// Anything that says more than the two.
    Text(String),
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse => f.write_str("parse error"),
            Self::Range => f.write_str("value out of range"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Go's `strconv.ParseBool`.
pub fn parse_switch(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::Parse),
    }
}

/// Go's `strconv.ParseUint` with base 0: the prefix decides the base, underscores part digits.
pub fn parse_unsigned(text: &str) -> Result<u64, ValueError> {
    let lower = text.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let has_prefix = digits.len() < lower.len();
    let mut value: u64 = 0;
    let mut overflowed = false;
    let mut digit_last = has_prefix;
    let mut digits_count = 0;
    for character in digits.chars() {
        if character == '_' {
            if !digit_last {
                return Err(ValueError::Parse);
            }
            digit_last = false;
            continue;
        }
        let digit = character.to_digit(base).ok_or(ValueError::Parse)?;
        digit_last = true;
        digits_count += 1;
        let next = value.checked_mul(u64::from(base)).and_then(|v| v.checked_add(digit.into()));
        match next {
            Some(next) => value = next,
            // Go looks at every digit before it complains about the size.
            None => overflowed = true,
        }
    }
    if digits_count == 0 || !digit_last {
        return Err(ValueError::Parse);
    }
    if overflowed { Err(ValueError::Range) } else { Ok(value) }
}

/// Go's `strconv.ParseInt` with base 0.
pub fn parse_signed(text: &str) -> Result<i64, ValueError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = i128::from(parse_unsigned(digits)?);
    let value = if negative { -magnitude } else { magnitude };
    i64::try_from(value).map_err(|_| ValueError::Range)
}

/// etcd's 32-bit flags report Go's conversion error whole, instead of the short text of the rest.
pub fn parse_unsigned_32(text: &str) -> Result<u32, ValueError> {
    let reason = match parse_unsigned(text).map(u32::try_from) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(_)) | Err(ValueError::Range) => "value out of range",
        Err(_) => "invalid syntax",
    };
    Err(ValueError::Text(format!("strconv.ParseUint: parsing {text:?}: {reason}")))
}

/// Go's `time.ParseDuration`, in nanoseconds: `300ms`, `-1.5h`, `2h45m`, `0`.
pub fn parse_duration(text: &str) -> Result<i64, ValueError> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(ValueError::Parse);
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let (part, after) = parse_duration_part(rest)?;
        nanos += part;
        rest = after;
        // Go calls an overflow a parse error, too: the flag package hides the difference.
        if nanos > i128::from(i64::MAX) + i128::from(negative) {
            return Err(ValueError::Parse);
        }
    }
    i64::try_from(if negative { -nanos } else { nanos }).map_err(|_| ValueError::Parse)
}

/// What Go's `time.ParseDuration` says of a text that is none.
pub fn duration_error(text: &str) -> String {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit = &after[..unit_end];
        let has_digit = number.bytes().any(|byte| byte.is_ascii_digit());
        if !has_digit || number.matches('.').count() > 1 {
            break;
        }
        if unit.is_empty() {
            return format!("time: missing unit in duration {text:?}");
        }
        if !matches!(unit, "ns" | "us" | "\u{b5}s" | "\u{3bc}s" | "ms" | "s" | "m" | "h") {
            return format!("time: unknown unit {unit:?} in duration {text:?}");
        }
        rest = &after[unit_end..];
    }
    format!("time: invalid duration {text:?}")
}

/// One number with its unit, and what follows it.
fn parse_duration_part(text: &str) -> Result<(i128, &str), ValueError> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, after) = rest.split_at(unit_end);
    let unit_nanos: i128 = match unit {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return Err(ValueError::Parse),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(ValueError::Parse);
    }
    let whole: i64 =
        if whole.is_empty() { 0 } else { whole.parse().map_err(|_| ValueError::Parse)? };
    let mut nanos = i128::from(whole) * unit_nanos;
    let mut scale = unit_nanos;
    for digit in fraction.bytes() {
        // An hour has thirteen decimal digits of nanoseconds; what is finer rounds down.
        nanos += i128::from(digit - b'0') * scale / 10;
        scale /= 10;
    }
    Ok((nanos, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("10000", Ok(10_000)),
            ("0x10", Ok(16)),
            ("0X1F", Ok(31)),
            ("0b1_0", Ok(2)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("0_7", Ok(7)),
            ("1_000", Ok(1000)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(ValueError::Range)),
            ("99999999999999999999", Err(ValueError::Range)),
            ("99999999999999999999x", Err(ValueError::Parse)),
            ("", Err(ValueError::Parse)),
            ("0x", Err(ValueError::Parse)),
            ("08", Err(ValueError::Parse)),
            ("1__0", Err(ValueError::Parse)),
            ("_1", Err(ValueError::Parse)),
            ("1_", Err(ValueError::Parse)),
            ("-3", Err(ValueError::Parse)),
            ("+3", Err(ValueError::Parse)),
            ("abc", Err(ValueError::Parse)),
            (" 1", Err(ValueError::Parse)),
        ] {
            assert_eq!(parse_unsigned(text), expected, "{text:?}");
        }
        assert_eq!(parse_signed("-0x10"), Ok(-16));
        assert_eq!(parse_signed("+7"), Ok(7));
        assert_eq!(parse_signed("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_signed("9223372036854775808"), Err(ValueError::Range));
        assert_eq!(parse_signed("--1"), Err(ValueError::Parse));
    }

    #[test]
    fn the_32_bit_text_is_strconvs() {
        assert_eq!(parse_unsigned_32("0x10"), Ok(16));
        assert_eq!(parse_unsigned_32("4294967295"), Ok(u32::MAX));
        for (text, reason) in
            [("-1", "invalid syntax"), ("4294967296", "value out of range"), ("", "invalid syntax")]
        {
            let expected = format!("strconv.ParseUint: parsing {text:?}: {reason}");
            assert_eq!(parse_unsigned_32(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        const SECOND: i64 = 1_000_000_000;
        for (text, expected) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("5s", Ok(5 * SECOND)),
            ("1m30s", Ok(90 * SECOND)),
            ("300ms", Ok(300_000_000)),
            ("2h45m0.5s", Ok(9_900 * SECOND + SECOND / 2)),
            (".5s", Ok(SECOND / 2)),
            ("1.s", Ok(SECOND)),
            ("1.5us", Ok(1_500)),
            ("1\u{b5}s", Ok(1_000)),
            ("-5s", Ok(-5 * SECOND)),
            ("+5s", Ok(5 * SECOND)),
            ("0.0000000000001h", Ok(0)),
            ("2562047h47m16.854775807s", Ok(i64::MAX)),
            ("2562047h47m16.854775808s", Err(ValueError::Parse)),
            ("-2562047h47m16.854775808s", Ok(i64::MIN)),
            ("9223372036854775808ns", Err(ValueError::Parse)),
            ("", Err(ValueError::Parse)),
            ("5", Err(ValueError::Parse)),
            ("5x", Err(ValueError::Parse)),
            ("s", Err(ValueError::Parse)),
            (".s", Err(ValueError::Parse)),
            ("1..5s", Err(ValueError::Parse)),
            ("5s ", Err(ValueError::Parse)),
            ("-", Err(ValueError::Parse)),
            ("1d", Err(ValueError::Parse)),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("abc", "time: invalid duration \"abc\""),
            ("-5", "time: missing unit in duration \"-5\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1h2x", "time: unknown unit \"x\" in duration \"1h2x\""),
            ("1h1..5s", "time: invalid duration \"1h1..5s\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
        ] {
            assert_eq!(duration_error(text), error);
        }
    }

    #[test]
    fn switches_take_gos_twelve_spellings() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_switch(text), Ok(true));
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_switch(text), Ok(false));
        }
        for text in ["", "2", "yes", "tRUE", "maybe"] {
            assert_eq!(parse_switch(text), Err(ValueError::Parse));
        }
    }
}
