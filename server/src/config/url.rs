//! Addresses as etcd takes them: `http://host:port`, comma-separated, unique and sorted.
//!
//! Not a general URL parser. etcd allows a scheme, a host and a port and nothing else; the texts of
//! its refusals are kept. What its parser lets through without a meaning for a listener (user
//! names, queries) is refused here, instead of carried along.
//!
//! `unix://` is followed by a path: of the file system's root with three slashes, of the working
//! directory with two (`unix://127.0.0.1:2379` is a file of that name). Where no path follows, etcd
//! listens on a random name that nobody can know; here that is refused. For its peers etcd looks at
//! the host alone; here a path is a path.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::value::ValueError;

/// The schemes that etcd knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
    /// A socket of this machine's file system.
    Unix,
    /// TLS over such a socket.
    Unixs,
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }

    /// Whether it is a path that follows.
    pub fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }

    /// Whether TLS is spoken.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }
}

/// Where a URL lets listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A path of the file system.
    Unix(PathBuf),
}

/// A host and a port to listen on or to be reached at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// What is spoken, and over what.
    pub scheme: Scheme,
    /// A name or an address; an IPv6 address without its brackets. The path of a unix socket.
    pub host: String,
    /// The port; 0 of a unix socket.
    pub port: u16,
    text: String,
}

impl Url {
    /// The URL as it is shown, stored and hashed: the text given, with its scheme in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port`, with brackets around an IPv6 address; the path of a unix socket.
    pub fn authority(&self) -> &str {
        if self.scheme.is_unix() {
            return &self.host;
        }
        self.text.split_once("://").expect("a Url is only made from a text with a scheme").1
    }

    /// The same place under another host, as etcd makes it for a default it replaces.
    pub fn with_host(scheme: Scheme, host: IpAddr, port: u16) -> Self {
        let text = format!("{}://{}", scheme.name(), SocketAddr::new(host, port));
        Self { scheme, host: host.to_string(), port, text }
    }

    /// Where to listen: etcd takes addresses and `localhost`, but no other name.
    pub fn place(&self) -> Result<Place, ValueError> {
        if self.scheme.is_unix() {
            return Ok(Place::Unix(PathBuf::from(&self.host)));
        }
        if self.host == "localhost" {
            // What Go picks for the name, whatever the resolver would say.
            return Ok(Place::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port)));
        }
        match self.host.parse::<IpAddr>() {
            Ok(address) => Ok(Place::Tcp(SocketAddr::new(address, self.port))),
            Err(_) => Err(text_error(format!("expected IP in URL for binding ({self})"))),
        }
    }

    fn parse(text: &str) -> Result<Self, ValueError> {
        if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            let reason = "net/url: invalid control character in URL";
            return Err(text_error(format!("parse {text:?}: {reason}")));
        }
        let scheme_end = text.find(':').unwrap_or(0);
        let scheme = match text[..scheme_end].to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => return Self::parse_unix(Scheme::Unix, text),
            "unixs" => return Self::parse_unix(Scheme::Unixs, text),
            _ => {
                let reason = "URL scheme must be http, https, unix, or unixs";
                return Err(text_error(format!("{reason}: {text}")));
            }
        };
        let Some(rest) = text[scheme_end..].strip_prefix("://") else {
            return Err(host_port_error(text));
        };
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(authority_end);
        if authority.contains('@') || tail.starts_with(['?', '#']) {
            return Err(text_error(format!("URL must be scheme, host and port only: {text}")));
        }
        let (host, port) = split_host_port(authority, text)?;
        if !tail.is_empty() {
            return Err(text_error(format!("URL must not contain a path: {text}")));
        }
        let text = format!("{}://{authority}", scheme.name());
        Ok(Self { scheme, host: host.to_owned(), port, text })
    }

    fn parse_unix(scheme: Scheme, text: &str) -> Result<Self, ValueError> {
        let (_, rest) = text.split_once(':').expect("the scheme ends with a colon");
        let has_authority = rest.starts_with("//");
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let host_end = if has_authority { path.find('/').unwrap_or(path.len()) } else { 0 };
        let host = &path[..host_end];
        if let Some((_, port)) = host.rsplit_once(':')
            && !port.bytes().all(|byte| byte.is_ascii_digit())
        {
            let reason = format!("invalid port {:?} after host", format!(":{port}"));
            return Err(text_error(format!("parse {text:?}: {reason}")));
        }
        if path.contains(['?', '#', '@', '%']) {
            return Err(text_error(format!("URL must be scheme and path only: {text}")));
        }
        // `unix:name` has neither host nor path, in a URL's terms.
        if path.is_empty() || !has_authority && !path.starts_with('/') {
            return Err(text_error(format!("URL must have the form \"unix:///path\": {text}")));
        }
        // Go shows the two slashes only if they were there.
        let shown = format!("{}:{rest}", scheme.name());
        Ok(Self { scheme, host: path.to_owned(), port: 0, text: shown })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A comma-separated list, sorted, each URL once: the order is part of a member's id.
pub fn parse_urls(text: &str) -> Result<Vec<Url>, ValueError> {
    let mut urls = Vec::new();
    for part in text.split(',') {
        urls.push(Url::parse(part.trim())?);
    }
    Ok(sorted_unique(urls))
}

/// In etcd's order, without repetitions.
pub fn sorted_unique(mut urls: Vec<Url>) -> Vec<Url> {
    urls.sort_by(|a, b| a.text.cmp(&b.text));
    urls.dedup_by(|a, b| a.text == b.text);
    urls
}

/// The texts of a list, for log lines and messages.
pub fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.text.clone()).collect()
}

fn split_host_port<'a>(authority: &'a str, whole: &str) -> Result<(&'a str, u16), ValueError> {
    const HOST_FORBIDDEN: [char; 7] = [' ', '\\', '^', '`', '{', '|', '}'];
    if let Some(bad) = authority.chars().find(|c| HOST_FORBIDDEN.contains(c)) {
        let reason = format!("invalid character \"{}\" in host name", bad.escape_default());
        return Err(text_error(format!("parse {whole:?}: {reason}")));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest
                .split_once(']')
                .ok_or_else(|| text_error(format!("parse {whole:?}: missing ']' in host")))?;
            (host, after.strip_prefix(':').ok_or_else(|| host_port_error(whole))?)
        }
        None => authority.rsplit_once(':').ok_or_else(|| host_port_error(whole))?,
    };
    // A colon in a host without brackets is an IPv6 address that etcd takes for two ports.
    if !authority.starts_with('[') && host.contains(':') || port.is_empty() {
        return Err(host_port_error(whole));
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        let reason = format!("invalid port {:?} after host", format!(":{port}"));
        return Err(text_error(format!("parse {whole:?}: {reason}")));
    }
    match port.parse() {
        Ok(port) => Ok((host, port)),
        Err(_) => Err(text_error(format!("URL port must not be above 65535: {whole}"))),
    }
}

fn host_port_error(text: &str) -> ValueError {
    text_error(format!("URL address does not have the form \"host:port\": {text}"))
}

fn text_error(text: String) -> ValueError {
    ValueError::Text(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_out_sorted_and_unique() {
        let urls = parse_urls("http://b:2, HTTP://a:1,http://b:2,https://[::1]:3").unwrap();
        assert_eq!(texts(&urls), ["http://a:1", "http://b:2", "https://[::1]:3"]);
        assert_eq!(urls[2].host, "::1");
        assert_eq!(urls[2].authority(), "[::1]:3");
    }

    #[test]
    fn refusals_carry_etcds_texts() {
        for (text, expected) in [
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("localhost:1", "URL scheme must be http, https, unix, or unixs: localhost:1"),
            (
                "ftp://localhost:1",
                "URL scheme must be http, https, unix, or unixs: ftp://localhost:1",
            ),
            (
                "http://localhost",
                "URL address does not have the form \"host:port\": http://localhost",
            ),
            ("http:x", "URL address does not have the form \"host:port\": http:x"),
            ("http://a:", "URL address does not have the form \"host:port\": http://a:"),
            ("http://::1:1", "URL address does not have the form \"host:port\": http://::1:1"),
            ("http://[::1]", "URL address does not have the form \"host:port\": http://[::1]"),
            ("http://localhost:1/x", "URL must not contain a path: http://localhost:1/x"),
            ("http://localhost:1/", "URL must not contain a path: http://localhost:1/"),
            (
                "http://localhost:abc",
                "parse \"http://localhost:abc\": invalid port \":abc\" after host",
            ),
            ("http://a b:1", "parse \"http://a b:1\": invalid character \" \" in host name"),
            ("http://u@a:1", "URL must be scheme, host and port only: http://u@a:1"),
            ("http://a:1?x=y", "URL must be scheme, host and port only: http://a:1?x=y"),
            ("http://a:65536", "URL port must not be above 65535: http://a:65536"),
            (
                "unix://localhost:m1",
                "parse \"unix://localhost:m1\": invalid port \":m1\" after host",
            ),
            ("unix://", "URL must have the form \"unix:///path\": unix://"),
            ("unix:a", "URL must have the form \"unix:///path\": unix:a"),
            ("unix:///a?b", "URL must be scheme and path only: unix:///a?b"),
        ] {
            assert_eq!(parse_urls(text).unwrap_err().to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn unix_urls_are_paths() {
        for (text, path) in [
            ("unix:///run/a.sock", "/run/a.sock"),
            ("unixs:///run/a.sock", "/run/a.sock"),
            ("unix:/run/a.sock", "/run/a.sock"),
            ("unix://a.sock", "a.sock"),
            ("unix://a/b.sock", "a/b.sock"),
            ("unix://127.0.0.1:2379", "127.0.0.1:2379"),
        ] {
            let url = &parse_urls(text).unwrap()[0];
            assert_eq!(url.place().unwrap(), Place::Unix(PathBuf::from(path)), "{text}");
            assert_eq!((url.as_str(), url.authority()), (text, path));
            assert_eq!(url.scheme.is_secure(), text.starts_with("unixs"));
        }
        assert_eq!(texts(&parse_urls("UNIX:///a").unwrap()), ["unix:///a"]);
    }

    #[test]
    fn only_addresses_and_localhost_are_bound() {
        let bind = |text| parse_urls(text).unwrap()[0].place();
        let tcp = |text: &str| Ok(Place::Tcp(text.parse().unwrap()));
        assert_eq!(bind("http://localhost:1"), tcp("127.0.0.1:1"));
        assert_eq!(bind("http://0.0.0.0:1"), tcp("0.0.0.0:1"));
        assert_eq!(bind("http://[::1]:1"), tcp("[::1]:1"));
        for text in ["http://foo:1", "http://:1", "http://LOCALHOST:1", "http://1.2.3:1"] {
            assert_eq!(
                bind(text).unwrap_err().to_string(),
                format!("expected IP in URL for binding ({text})")
            );
        }
    }

    #[test]
    fn no_text_panics() {
        // Every short text over an alphabet of what the parser looks at.
        const ALPHABET: &[u8] = b"h:/[]@?1 ";
        for first in ALPHABET {
            for second in ALPHABET {
                for third in ALPHABET {
                    for prefix in ["", "http:", "http://"] {
                        let tail = [*first, *second, *third];
                        let text = format!("{prefix}{}", String::from_utf8_lossy(&tail));
                        if let Ok(urls) = parse_urls(&text) {
                            assert!(!urls[0].authority().is_empty(), "{text:?}");
                        }
                    }
                }
            }
        }
    }
}
