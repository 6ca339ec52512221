//! What stands behind the question mark.

/// Names and values, unescaped. What is broken is left out, as in Go.
pub fn parse(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(name)?, unescape(value)?))
        })
        .collect()
}

fn unescape(text: &str) -> Option<String> {
    let bytes = super::super::http1::unescape(&text.replace('+', " "))?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let cases: [(&str, &[(&str, &str)]); 6] = [
            ("", &[]),
            ("verbose", &[("verbose", "")]),
            ("exclude=a&exclude=b", &[("exclude", "a"), ("exclude", "b")]),
            ("a=b;c=d&e", &[("e", "")]),
            ("a%3db=c+d%26", &[("a=b", "c d&")]),
            ("a=%zz&b=1", &[("b", "1")]),
        ];
        for (query, expected) in cases {
            let parsed = parse(query);
            let parsed: Vec<_> =
                parsed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(parsed, expected, "{query}");
        }
    }
}
