//! The version that a downgrade asks for, as etcd's library reads it.

use engine::ClusterVersion;

/// Reads a version of two or three parts; the third, a pre-release and metadata say nothing.
pub(super) fn parse_target(text: &str) -> Option<ClusterVersion> {
    parse_version(text).or_else(|| parse_version(&format!("{text}.0")))
}

fn parse_version(text: &str) -> Option<ClusterVersion> {
    let (text, metadata) = split(text, '+');
    let (text, pre_release) = split(text, '-');
    if !is_identifier(metadata) || !is_identifier(pre_release) {
        return None;
    }
    let mut parts = text.splitn(3, '.').map(parse_number);
    let (major, minor) = (parts.next()??, parts.next()??);
    parts.next()??;
    Some(ClusterVersion { major, minor })
}

fn split(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

/// Go's parser takes a sign, which no part can have here: a minus has ended the version, a plus
/// too.
fn parse_number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn is_identifier(text: &str) -> bool {
    let is_part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'~';
        !part.is_empty() && part.bytes().all(allowed)
    };
    text.is_empty() || text.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of etcd 3.7.1 to `Downgrade`.
    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        let read = |text| parse_target(text).map(|version| version.to_string());
        for text in ["3.6", "3.6.0", "3.6.9", "3.6.0-rc", "3.6.0+x", "03.6.0", "3.6.0-", "3.6.0+"] {
            assert_eq!(read(text).as_deref(), Some("3.6.0"), "{text}");
        }
        assert_eq!(read("3.4").as_deref(), Some("3.4.0"));
        for text in [
            "",
            "nonsense",
            "v3.6.0",
            "3",
            " 3.6.0",
            "3.6.-1",
            "3.6.0.0",
            "3.6.",
            "3.6-rc",
            "3.6+x",
            "3.6.99999999999999999999",
            "3.6.0-a..b",
            "3.6.0-a_b",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
