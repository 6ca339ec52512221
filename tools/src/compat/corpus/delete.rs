//! DeleteRange: which keys go, what is told of them, which deletions take a revision.

use super::super::wire::etcdserverpb as pb;
use super::{Corpus, delete, delete_all, furnish, list};

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    const RANGES: [(&str, &str, Option<&str>); 14] = [
        ("one-key", "a", None),
        ("one-key-anew", "c", None),
        ("missing-key", "x", None),
        ("deleted-key", "g", None),
        ("some", "b", Some("e")),
        ("end-is-exclusive", "b", Some("c")),
        ("equal-ends", "b", Some("b")),
        ("backward", "e", Some("b")),
        ("between-keys", "aa", Some("ab")),
        ("past-the-last", "x", Some("z")),
        ("all", "", Some("~")),
        ("only-a-deleted-key", "g", Some("h")),
        ("end-extends-key", "b", Some("b\0")),
        ("last-and-deleted", "f", Some("h")),
    ];
    for (name, from, to) in RANGES {
        for prev_kv in [false, true] {
            let suffix = if prev_kv { "-with-prev" } else { "" };
            corpus.case(format!("delete/{name}{suffix}"), move |c| {
                furnish(c);
                let range_end = to.map(|to| c.key(to)).unwrap_or_default();
                c.delete(pb::DeleteRangeRequest { range_end, prev_kv, ..delete(c, from) });
                c.range(list(c, ""));
                let revision = c.revision() - 1;
                c.range(pb::RangeRequest { revision, ..list(c, "") });
            });
        }
    }
    corpus.case("delete/refused-empty-key", |c| {
        c.delete(pb::DeleteRangeRequest::default());
        c.delete(pb::DeleteRangeRequest { range_end: c.key("z"), ..Default::default() });
        c.delete(pb::DeleteRangeRequest { prev_kv: true, ..Default::default() });
    });
    corpus.case("delete/twice", |c| {
        furnish(c);
        for _ in 0..2 {
            c.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete_all(c, "") });
            c.range(list(c, ""));
        }
    });
    corpus.case("delete/many-take-one-revision", |c| {
        for index in 0..120 {
            c.put(super::put(c, &format!("{index:03}"), "v"));
        }
        c.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete_all(c, "0") });
        c.range(list(c, ""));
        c.delete(delete_all(c, ""));
        let revision = c.revision() - 1;
        c.range(pb::RangeRequest { revision, ..list(c, "") });
    });
    corpus.alone("delete/from-key-on", &[], |c| {
        furnish(c);
        c.delete(pb::DeleteRangeRequest { range_end: vec![0], prev_kv: true, ..delete(c, "c") });
        c.range(list(c, ""));
    });
    corpus.alone("delete/everything", &[], |c| {
        furnish(c);
        let key = vec![0];
        c.delete(pb::DeleteRangeRequest { key, range_end: vec![0], prev_kv: true });
        c.range(list(c, ""));
    });
}
