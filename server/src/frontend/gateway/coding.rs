//! Which coding a client would have an answer in, decided as etcd's `/metrics` decides it.
//!
//! Two are offered, in this order: the bytes as they are, and gzip. What a field says behind
//! something that cannot be read does not count, and a client that takes nothing gets the bytes.

/// Whether the field `accept-encoding` prefers gzip.
#[must_use]
pub fn prefers_gzip(accept_encoding: &str) -> bool {
    let (mut plain, mut gzip) = (0.0_f64, 0.0_f64);
    let mut rest = accept_encoding;
    while let Some((name, quality, behind)) = take_coding(rest) {
        if matches!(name, "identity" | "*") {
            plain = plain.max(quality);
        }
        if matches!(name, "gzip" | "*") {
            gzip = gzip.max(quality);
        }
        let Some(next) = behind.trim_start().strip_prefix(',') else { break };
        rest = next;
    }
    gzip > plain
}

/// A coding, how much it is liked, and what stands behind it.
fn take_coding(text: &str) -> Option<(&str, f64, &str)> {
    let text = text.trim_start();
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    let (name, rest) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    if name.is_empty() {
        return None;
    }
    let Some(parameter) = rest.trim_start().strip_prefix(';') else {
        return Some((name, 1.0, rest));
    };
    let quality = parameter.trim_start().strip_prefix("q=")?;
    let fraction = quality.strip_prefix(['0', '1'])?;
    let rest = fraction
        .strip_prefix('.')
        .map_or(fraction, |digits| digits.trim_start_matches(|c: char| c.is_ascii_digit()));
    let number = &quality[..quality.len() - rest.len()];
    Some((name, number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_likes_it_better() {
        for field in [
            "gzip",
            "deflate, gzip;q=1.0, *;q=0.5",
            "gzip;q=0.001",
            " gzip ; q=0.3 , identity;q=0.2",
            "identity;q=0, gzip",
            "*;q=0,gzip",
            "gzip what is this",
            "gzip;q=0.5.5",
        ] {
            assert!(prefers_gzip(field), "{field:?}");
        }
        for field in [
            "",
            "gzip;q=0",
            "gzip;q=0.000, deflate",
            "gzip, identity",
            "*",
            "GZIP",
            "x-gzip",
            "gzip;q=2",
            "gzip;q=01",
            "gzip;q=",
            "gzip;level=9",
            "br what, gzip",
            ",gzip",
            "gzip;q=0.5, *",
        ] {
            assert!(!prefers_gzip(field), "{field:?}");
        }
    }
}
