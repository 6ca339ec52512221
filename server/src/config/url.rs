//! Addresses as etcd takes them: `http://host:port`, comma-separated, unique and sorted.
//!
//! Not a general URL parser. etcd allows a scheme, a host and a port and nothing else; the texts of
//! its refusals are kept. What its parser lets through without a meaning for a listener (user
//! names, queries) is refused here, instead of carried along.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::value::ValueError;

/// The schemes that etcd knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

/// A host and a port to listen on or to be reached at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether TLS is spoken.
    pub scheme: Scheme,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    text: String,
}

impl Url {
    /// The URL as it is shown, stored and hashed: the text given, with its scheme in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> &str {
        self.text.split_once("://").expect("a Url is only made from a text with a scheme").1
    }

    /// The same place under another host, as etcd makes it for a default it replaces.
    pub fn with_host(scheme: Scheme, host: IpAddr, port: u16) -> Self {
        let name = match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let text = format!("{name}://{}", SocketAddr::new(host, port));
        Self { scheme, host: host.to_string(), port, text }
    }

    /// Where to listen: etcd takes addresses and `localhost`, but no other name.
    pub fn bind_address(&self) -> Result<SocketAddr, ValueError> {
        if self.host == "localhost" {
            // What Go picks for the name, whatever the resolver would say.
            return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port));
        }
        match self.host.parse::<IpAddr>() {
            Ok(address) => Ok(SocketAddr::new(address, self.port)),
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
            "unix" | "unixs" => {
                let reason = "ringd does not listen on unix sockets yet";
                return Err(text_error(format!("{reason}: {text}")));
            }
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
        let name = if scheme == Scheme::Http { "http" } else { "https" };
        let text = format!("{name}://{authority}");
        Ok(Self { scheme, host: host.to_owned(), port, text })
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
            ("unix://a:1", "ringd does not listen on unix sockets yet: unix://a:1"),
        ] {
            assert_eq!(parse_urls(text).unwrap_err().to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn only_addresses_and_localhost_are_bound() {
        let bind = |text| parse_urls(text).unwrap()[0].bind_address();
        assert_eq!(bind("http://localhost:1").unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(bind("http://0.0.0.0:1").unwrap().to_string(), "0.0.0.0:1");
        assert_eq!(bind("http://[::1]:1").unwrap().to_string(), "[::1]:1");
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
