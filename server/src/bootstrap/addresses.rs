//! Whether two lists of peer URLs lead to the same places, by etcd's rules and in its words.
//!
//! What a name means is an effect, and stands behind [`Resolve`].

use std::net::{IpAddr, SocketAddr};

use crate::config::Url;

/// Finds the address of a `host:port`.
pub trait Resolve {
    /// The first address, as etcd takes the first.
    ///
    /// # Errors
    /// The resolver's, as text.
    fn resolve(&mut self, authority: &str) -> Result<SocketAddr, String>;
}

/// Compares two lists of one member's URLs: by their texts first, which asks nobody.
///
/// # Errors
/// How they differ, or why that cannot be told.
pub fn compare(left: &[Url], right: &[Url], resolver: &mut impl Resolve) -> Result<(), String> {
    if left.len() != right.len() {
        return Err(format!("len({}) != len({})", quoted(left), quoted(right)));
    }
    let (left, right) = (sorted(left), sorted(right));
    let places = |urls: &[&Url]| urls.iter().map(|url| normal_place(url)).collect::<Vec<_>>();
    if places(&left) == places(&right) {
        return Ok(());
    }
    let mut resolved = |urls: &[&Url]| {
        let places = urls.iter().map(|url| resolved_place(url, resolver));
        let mut places = places.collect::<Result<Vec<String>, String>>()?;
        places.sort_unstable();
        Ok::<_, String>(places)
    };
    let (left, right) = (resolved(&left)?, resolved(&right)?);
    match left.iter().zip(&right).find(|(left, right)| left != right) {
        None => Ok(()),
        Some((left, right)) => Err(format!("resolved urls: {left:?} != {right:?}")),
    }
}

fn sorted(urls: &[Url]) -> Vec<&Url> {
    let mut sorted: Vec<&Url> = urls.iter().collect();
    sorted.sort_by_key(|url| url.as_str());
    sorted
}

/// `["a" "b"]`, as Go shows a list of texts.
fn quoted(urls: &[Url]) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("{:?}", url.as_str())).collect();
    format!("[{}]", urls.join(" "))
}

/// A URL whose address, if it is one, has its usual spelling.
fn normal_place(url: &Url) -> String {
    let (scheme, _) = url.as_str().split_once(':').unwrap_or_default();
    match url.host.parse::<IpAddr>() {
        Ok(address) if !url.scheme.is_unix() => {
            format!("{scheme}://{}", SocketAddr::new(address, url.port))
        }
        _ => url.as_str().to_owned(),
    }
}

/// A URL with an address in the place of a name. `localhost` stays: it means something else on each
/// machine, but the same in both lists.
fn resolved_place(url: &Url, resolver: &mut impl Resolve) -> Result<String, String> {
    if url.scheme.is_unix() || url.host == "localhost" {
        return Ok(url.as_str().to_owned());
    }
    if url.host.parse::<IpAddr>().is_ok() {
        return Ok(normal_place(url));
    }
    let (scheme, authority) = (url.as_str().split_once(':').unwrap_or_default().0, url.authority());
    match resolver.resolve(authority) {
        Ok(address) => Ok(format!("{scheme}://{address}")),
        Err(error) => Err(format!("failed to resolve {:?} ({error})", url.as_str())),
    }
}

/// A table in the place of a resolver.
#[cfg(test)]
pub struct Known(pub Vec<(&'static str, &'static str)>);

#[cfg(test)]
impl Resolve for Known {
    fn resolve(&mut self, authority: &str) -> Result<SocketAddr, String> {
        let (host, port) = authority.rsplit_once(':').unwrap();
        let found = self.0.iter().find(|(name, _)| *name == host);
        match found {
            Some((_, address)) => Ok(format!("{address}:{port}").parse().unwrap()),
            None => Err(format!("lookup {host}: no such host")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_urls;

    fn compared(left: &str, right: &str) -> Result<(), String> {
        let mut known = Known(vec![("a.test", "10.0.0.1"), ("b.test", "10.0.0.1")]);
        compare(&parse_urls(left).unwrap(), &parse_urls(right).unwrap(), &mut known)
    }

    #[test]
    fn lists_that_lead_to_the_same_places_are_equal() {
        for (left, right) in [
            ("http://nobody.test:1", "http://nobody.test:1"),
            ("http://a.test:1", "http://10.0.0.1:1"),
            ("http://a.test:1,http://c.test:1", "http://c.test:1,http://a.test:1"),
            ("http://a.test:1", "http://b.test:1"),
            ("http://[0:0:0:0:0:0:0:1]:1", "http://[::1]:1"),
            ("unix:///a", "unix:///a"),
        ] {
            assert_eq!(compared(left, right), Ok(()), "{left} {right}");
        }
    }

    #[test]
    fn differences_are_told_in_the_words_of_etcd() {
        for (left, right, expected) in [
            (
                "http://a.test:1",
                "http://a.test:1,http://b.test:1",
                "len([\"http://a.test:1\"]) != len([\"http://a.test:1\" \"http://b.test:1\"])",
            ),
            (
                "http://a.test:1",
                "http://a.test:2",
                "resolved urls: \"http://10.0.0.1:1\" != \"http://10.0.0.1:2\"",
            ),
            (
                "http://localhost:1",
                "http://127.0.0.1:1",
                "resolved urls: \"http://localhost:1\" != \"http://127.0.0.1:1\"",
            ),
            (
                "http://nobody.test:1",
                "http://10.0.0.1:1",
                "failed to resolve \"http://nobody.test:1\" (lookup nobody.test: no such host)",
            ),
            (
                "http://a.test:1",
                "https://a.test:1",
                "resolved urls: \"http://10.0.0.1:1\" != \"https://10.0.0.1:1\"",
            ),
        ] {
            assert_eq!(compared(left, right), Err(expected.to_owned()), "{left} {right}");
        }
    }
}
