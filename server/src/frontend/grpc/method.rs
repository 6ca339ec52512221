//! The methods that a server has, found by path.
//!
//! Invariants:
//! - Paths are unique and of the form `/service/method`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::quote::{lossy, quoted};
use super::status::{Code, Status};
use crate::metrics::CallCounts;

/// The owner's number for a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodId(pub u16);

/// Who sends how many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// One message each way.
    Unary,
    /// One request, many answers.
    ServerStreaming,
    /// Many requests; one answer or many.
    ClientStreaming,
}

/// One method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// The owner's number for it.
    pub id: MethodId,
    /// Who sends how many messages.
    pub kind: MethodKind,
}

/// All methods of a server, and where their calls are counted.
#[derive(Debug)]
pub struct MethodTable {
    /// Ordered by path.
    methods: Vec<Method>,
    services: BTreeSet<&'static str>,
    counts: Option<Arc<CallCounts>>,
}

impl MethodTable {
    /// A table of the given methods.
    pub fn new(methods: &[Method]) -> Self {
        let mut methods = methods.to_vec();
        methods.sort_by_key(|method| method.path);
        assert!(methods.windows(2).all(|pair| pair[0].path != pair[1].path), "a path twice");
        let services = methods.iter().map(|method| {
            let (service, _) = split(method.path.as_bytes()).expect("paths are /service/method");
            &method.path[1..=service.len()]
        });
        let services = services.collect();
        Self { methods, services, counts: None }
    }

    /// The same table, with calls counted by the methods' numbers.
    #[must_use]
    pub fn counted(mut self, counts: Arc<CallCounts>) -> Self {
        self.counts = Some(counts);
        self
    }

    /// Where calls are counted.
    pub fn counts(&self) -> Option<&CallCounts> {
        self.counts.as_deref()
    }

    /// Finds a method, or the status that says why there is none.
    pub fn find(&self, path: &[u8]) -> Result<&Method, Status> {
        let found = self.methods.binary_search_by(|method| method.path.as_bytes().cmp(path));
        found.map(|place| &self.methods[place]).map_err(|_| self.missing(path))
    }

    #[cold]
    fn missing(&self, path: &[u8]) -> Status {
        let text = match split(path) {
            None => format!("malformed method name: {}", quoted(path)),
            Some((service, method)) => {
                let known = str::from_utf8(service).is_ok_and(|name| self.services.contains(name));
                if known {
                    format!("unknown method {} for service {}", lossy(method), lossy(service))
                } else {
                    format!("unknown service {}", lossy(service))
                }
            }
        };
        Status::new(Code::Unimplemented, text)
    }
}

/// Service and method of a path.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = path.strip_prefix(b"/")?;
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_are_refused_in_the_words_of_etcd() {
        let kind = MethodKind::Unary;
        let table = MethodTable::new(&[
            Method { path: "/etcdserverpb.KV/Range", id: MethodId(1), kind },
            Method { path: "/etcdserverpb.KV/Put", id: MethodId(2), kind },
        ]);
        assert_eq!(table.find(b"/etcdserverpb.KV/Put").unwrap().id, MethodId(2));
        // Each text was recorded from etcd 3.7.1.
        let cases: [(&[u8], &str); 9] = [
            (b"/foo.Bar/Baz", "unknown service foo.Bar"),
            (b"/etcdserverpb.KV/Baz", "unknown method Baz for service etcdserverpb.KV"),
            (b"foo", "malformed method name: \"foo\""),
            (b"/foo", "malformed method name: \"/foo\""),
            (b"/", "malformed method name: \"/\""),
            (b"//", "unknown service "),
            (b"/a/b/c", "unknown service a/b"),
            (b"*", "malformed method name: \"*\""),
            (b"/f\xffoo/bar", "unknown service f\u{fffd}oo"),
        ];
        for (path, text) in cases {
            let status = table.find(path).unwrap_err();
            assert_eq!(status, Status::new(Code::Unimplemented, text));
        }
    }
}
