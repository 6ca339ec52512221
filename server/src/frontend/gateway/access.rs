//! Who may ask: hosts against DNS rebinding, origins for browsers.

use std::collections::BTreeSet;

/// What flags decide about access; an empty set or `*` lets everybody in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `--host-whitelist`.
    pub hosts: BTreeSet<String>,
    /// `--cors`.
    pub origins: BTreeSet<String>,
}

impl Access {
    /// Whether a request to this host is answered.
    #[must_use]
    pub fn admits_host(&self, host: &str) -> bool {
        admits(&self.hosts, host)
    }

    /// What is told to a browser about an origin; `None` if it may not read the answer.
    #[must_use]
    pub fn allowed_origin<'o>(&self, origin: &'o str) -> Option<&'o str> {
        if admits(&self.origins, "*") {
            return Some("*");
        }
        self.origins.contains(origin).then_some(origin)
    }
}

fn admits(set: &BTreeSet<String>, name: &str) -> bool {
    set.is_empty() || set.contains("*") || set.contains(name)
}

/// The host without its port, if it has one.
#[must_use]
pub fn host_name(host: &str) -> &str {
    let Some((name, port)) = host.rsplit_once(':') else { return host };
    match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|name| !name.contains(['[', ']'])),
        None => Some(name).filter(|name| !name.contains([':', '[', ']'])),
    }
    .filter(|_| !port.contains(['[', ']']))
    .unwrap_or(host)
}

/// What is told to who asks for a host that is not on the list.
#[must_use]
pub fn unknown_host_text(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks \
         (CVE-2018-5702).\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn lists_without_names_let_everybody_in() {
        let open = Access::default();
        assert!(open.admits_host("anything"));
        assert_eq!(open.allowed_origin("http://a"), Some("*"));
        let starred = Access { hosts: set(&["*"]), origins: set(&["*"]) };
        assert!(starred.admits_host("anything"));
        assert_eq!(starred.allowed_origin("http://a"), Some("*"));
        let strict = Access { hosts: set(&["a"]), origins: set(&["http://a"]) };
        assert!(strict.admits_host("a") && !strict.admits_host("b"));
        assert_eq!(strict.allowed_origin("http://a"), Some("http://a"));
        assert_eq!(strict.allowed_origin("http://b"), None);
        assert_eq!(strict.allowed_origin(""), None);
    }

    #[test]
    fn ports_are_cut_off_as_go_does() {
        let cases = [
            ("a:1", "a"),
            ("a", "a"),
            ("[::1]:1", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("a:", "a"),
        ];
        for (host, expected) in cases {
            assert_eq!(host_name(host), expected);
        }
    }
}
