//! Range: every option, alone and with the others.

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb as pb;
use super::{Corpus, delete, furnish, get, list, put};

type Change = fn(&mut pb::RangeRequest);
/// A filter and where to put its revision.
type Filter = (&'static str, fn(&mut pb::RangeRequest, i64));
type Request = fn(&Conversation<'_>) -> pb::RangeRequest;

const ORDERS: [(&str, i32); 3] = [("none", 0), ("ascend", 1), ("descend", 2)];
const TARGETS: [(&str, i32); 5] =
    [("key", 0), ("version", 1), ("create", 2), ("mod", 3), ("value", 4)];

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_bounds(corpus);
    add_options(corpus);
    add_sorts(corpus);
    add_filters(corpus);
    add_revisions(corpus);
    add_refusals(corpus);
    add_shapes(corpus);
}

/// A case that furnishes and asks for a list with one change to the request.
fn listed(corpus: &mut Corpus, name: String, change: impl Fn(&mut pb::RangeRequest) + 'static) {
    corpus.case(name, move |c| {
        furnish(c);
        let mut request = list(c, "");
        change(&mut request);
        c.range(request);
    });
}

fn add_bounds(corpus: &mut Corpus) {
    const ENDS: [(&str, &str, Option<&str>); 12] = [
        ("one-key", "b", None),
        ("one-missing-key", "x", None),
        ("one-deleted-key", "g", None),
        ("half-open", "b", Some("d")),
        ("end-is-exclusive", "a", Some("b")),
        ("equal-ends", "b", Some("b")),
        ("backward", "d", Some("b")),
        ("from-missing-to-missing", "aa", Some("bb")),
        ("between-keys", "aa", Some("ab")),
        ("past-the-last", "x", Some("z")),
        ("to-the-last", "a", Some("z")),
        ("end-extends-key", "b", Some("b\0")),
    ];
    for (name, from, to) in ENDS {
        corpus.case(format!("range/bounds-{name}"), move |c| {
            furnish(c);
            let range_end = to.map(|to| c.key(to)).unwrap_or_default();
            c.range(pb::RangeRequest { range_end, ..get(c, from) });
        });
    }
    corpus.case("range/bounds-from-key-on", |c| {
        furnish(c);
        // Whatever other cases have left behind their keys is the same on both sides.
        c.range(pb::RangeRequest { range_end: vec![0], limit: 9, ..get(c, "c") });
    });
    corpus.case("range/bounds-everything", |c| {
        furnish(c);
        c.range(pb::RangeRequest { key: vec![0], range_end: vec![0], ..Default::default() });
    });
    corpus.case("range/bounds-everything-counted", |c| {
        furnish(c);
        let request = pb::RangeRequest { key: vec![0], range_end: vec![0], ..Default::default() };
        c.range(pb::RangeRequest { count_only: true, ..request });
    });
    corpus.case("range/bounds-zero-bytes-in-keys", |c| {
        for key in ["\0", "\0\0", "\0a", "a\0"] {
            let request = put(c, key, "v");
            c.put(request);
        }
        c.range(list(c, ""));
        c.range(list(c, "\0"));
    });
    corpus.case("range/bounds-high-bytes-in-keys", |c| {
        for tail in [&[0xff][..], &[0xff, 0xff], &[0xfe], &[0xff, 0]] {
            let key = [c.key(""), tail.to_vec()].concat();
            c.put(pb::PutRequest { key, value: tail.to_vec(), ..Default::default() });
        }
        c.range(list(c, ""));
        let key = [c.key(""), vec![0xff]].concat();
        c.range(pb::RangeRequest { key, range_end: c.end(""), ..Default::default() });
    });
}

fn add_options(corpus: &mut Corpus) {
    for limit in [-1, 0, 1, 5, 6, 7, i64::MAX, i64::MIN] {
        listed(corpus, format!("range/limit-{limit}"), move |request| request.limit = limit);
        listed(corpus, format!("range/limit-{limit}-keys-only"), move |request| {
            request.limit = limit;
            request.keys_only = true;
        });
        listed(corpus, format!("range/limit-{limit}-count-only"), move |request| {
            request.limit = limit;
            request.count_only = true;
        });
    }
    const OPTIONS: [(&str, Change); 5] = [
        ("keys-only", |request| request.keys_only = true),
        ("count-only", |request| request.count_only = true),
        ("serializable", |request| request.serializable = true),
        ("keys-only-count-only", |request| {
            request.keys_only = true;
            request.count_only = true;
        }),
        ("all-flags", |request| {
            request.keys_only = true;
            request.count_only = true;
            request.serializable = true;
        }),
    ];
    for (name, change) in OPTIONS {
        listed(corpus, format!("range/{name}"), change);
        corpus.case(format!("range/{name}-of-one-key"), move |c| {
            furnish(c);
            for key in ["b", "c", "g", "x"] {
                let mut request = get(c, key);
                change(&mut request);
                c.range(request);
            }
        });
    }
}

fn add_sorts(corpus: &mut Corpus) {
    for (order_name, sort_order) in ORDERS {
        for (target_name, sort_target) in TARGETS {
            let name = format!("range/sort-{target_name}-{order_name}");
            let sort = move |request: &mut pb::RangeRequest| {
                request.sort_order = sort_order;
                request.sort_target = sort_target;
            };
            listed(corpus, name.clone(), sort);
            listed(corpus, format!("{name}-limit"), move |request| {
                sort(request);
                request.limit = 3;
            });
            listed(corpus, format!("{name}-keys-only"), move |request| {
                sort(request);
                request.keys_only = true;
            });
            listed(corpus, format!("{name}-count-only"), move |request| {
                sort(request);
                request.count_only = true;
            });
            corpus.case(format!("{name}-in-the-past"), move |c| {
                furnish(c);
                let mut request = list(c, "");
                sort(&mut request);
                // Before `c` and `g` were deleted.
                request.revision = c.revision() - 4;
                c.range(request);
            });
        }
    }
    corpus.case("range/sort-of-nothing", |c| {
        c.range(pb::RangeRequest { sort_order: 2, sort_target: 4, ..list(c, "") });
    });
    // etcd sorts what it has fetched, and how much that is depends on the order asked for.
    for limit in 1..6 {
        corpus.case(format!("range/sort-against-the-keys-limit-{limit}"), move |c| {
            for (key, value) in [("e", "1"), ("d", "2"), ("c", "3"), ("b", "4"), ("a", "5")] {
                let request = put(c, key, value);
                c.put(request);
            }
            for sort_order in 0..3 {
                for sort_target in 0..5 {
                    let sorted = pb::RangeRequest { sort_order, sort_target, ..list(c, "") };
                    let sorted = pb::RangeRequest { limit, ..sorted };
                    c.range(sorted.clone());
                    c.range(pb::RangeRequest { keys_only: true, ..sorted.clone() });
                    c.range(pb::RangeRequest { min_mod_revision: 1, ..sorted.clone() });
                    c.range(pb::RangeRequest { revision: c.revision() - 1, ..sorted });
                }
            }
        });
    }
    corpus.case("range/sort-value-is-by-bytes", |c| {
        for (key, value) in [("a", "b"), ("b", ""), ("c", "B"), ("d", "aa"), ("e", "\u{ff}")] {
            let request = put(c, key, value);
            c.put(request);
        }
        for sort_order in [1, 2] {
            c.range(pb::RangeRequest { sort_order, sort_target: 4, ..list(c, "") });
        }
    });
}

fn add_filters(corpus: &mut Corpus) {
    const FILTERS: [Filter; 4] = [
        ("min-mod", |request, revision| request.min_mod_revision = revision),
        ("max-mod", |request, revision| request.max_mod_revision = revision),
        ("min-create", |request, revision| request.min_create_revision = revision),
        ("max-create", |request, revision| request.max_create_revision = revision),
    ];
    for (name, filter) in FILTERS {
        for back in [0, 1, 2, 5, 8, 20] {
            corpus.case(format!("range/{name}-now-minus-{back}"), move |c| {
                furnish(c);
                let mut request = list(c, "");
                filter(&mut request, c.revision() - back);
                c.range(request.clone());
                c.range(pb::RangeRequest { limit: 2, ..request.clone() });
                c.range(pb::RangeRequest { count_only: true, ..request });
            });
        }
        for revision in [-1, i64::MIN, i64::MAX] {
            listed(corpus, format!("range/{name}-is-{revision}"), move |request| {
                filter(request, revision);
            });
        }
    }
    corpus.case("range/filters-together", |c| {
        furnish(c);
        let now = c.revision();
        c.range(pb::RangeRequest {
            min_mod_revision: now - 7,
            max_mod_revision: now - 1,
            min_create_revision: now - 8,
            max_create_revision: now - 1,
            limit: 2,
            sort_order: 2,
            sort_target: 3,
            ..list(c, "")
        });
    });
    corpus.case("range/filters-that-exclude-all", |c| {
        furnish(c);
        let now = c.revision();
        let request =
            pb::RangeRequest { min_mod_revision: now, max_mod_revision: 1, ..list(c, "") };
        c.range(pb::RangeRequest { limit: 1, ..request.clone() });
        c.range(pb::RangeRequest { keys_only: true, ..request });
    });
}

fn add_revisions(corpus: &mut Corpus) {
    for back in 0..12 {
        corpus.case(format!("range/revision-now-minus-{back}"), move |c| {
            furnish(c);
            let revision = c.revision() - back;
            c.range(pb::RangeRequest { revision, ..list(c, "") });
            c.range(pb::RangeRequest { revision, keys_only: true, ..list(c, "") });
            c.range(pb::RangeRequest { revision, count_only: true, ..list(c, "") });
            c.range(pb::RangeRequest { revision, limit: 2, ..list(c, "") });
            for key in ["b", "c", "g"] {
                c.range(pb::RangeRequest { revision, ..get(c, key) });
            }
        });
    }
    for ahead in [1, 2, 1000] {
        corpus.case(format!("range/revision-now-plus-{ahead}"), move |c| {
            furnish(c);
            let revision = c.revision() + ahead;
            c.range(pb::RangeRequest { revision, ..list(c, "") });
            c.range(pb::RangeRequest { revision, serializable: true, ..list(c, "") });
            c.range(pb::RangeRequest { revision, count_only: true, ..get(c, "x") });
        });
    }
    for revision in [0, 1, 2, -1, -5, i64::MIN, i64::MAX] {
        listed(corpus, format!("range/revision-is-{revision}"), move |request| {
            request.revision = revision;
        });
    }
    corpus.case("range/paged-at-a-revision", |c| {
        for index in 0..25 {
            let request = put(c, &format!("{index:02}"), "v");
            c.put(request);
        }
        let (revision, mut key) = (c.revision(), c.key(""));
        for page in 0..6 {
            let request = delete(c, &format!("{:02}", page * 4));
            c.delete(request);
            let request = pb::RangeRequest { key, limit: 5, revision, ..list(c, "") };
            let answer = c.range(request).etcd();
            key = answer.kvs.last().map_or_else(|| c.end(""), |kv| [&kv.key[..], &[0]].concat());
        }
    });
}

fn add_refusals(corpus: &mut Corpus) {
    let refused: [(&str, Request); 10] = [
        ("empty-key", |_| pb::RangeRequest::default()),
        ("empty-key-with-end", |c| pb::RangeRequest {
            range_end: c.key("z"),
            ..Default::default()
        }),
        ("sort-order-unknown", |c| pb::RangeRequest { sort_order: 3, ..list(c, "") }),
        ("sort-order-negative", |c| pb::RangeRequest { sort_order: -1, ..list(c, "") }),
        ("sort-target-unknown", |c| pb::RangeRequest { sort_target: 5, ..list(c, "") }),
        ("sort-target-negative", |c| pb::RangeRequest { sort_target: -1, ..list(c, "") }),
        ("empty-key-and-sort", |_| pb::RangeRequest { sort_order: 9, ..Default::default() }),
        ("empty-key-and-future", |_| pb::RangeRequest { revision: 1 << 40, ..Default::default() }),
        ("sort-and-future", |c| pb::RangeRequest {
            sort_target: 9,
            revision: 1 << 40,
            ..get(c, "a")
        }),
        ("everything-wrong", |_| pb::RangeRequest {
            sort_order: 9,
            sort_target: 9,
            revision: 1 << 40,
            limit: -9,
            ..Default::default()
        }),
    ];
    for (name, request) in refused {
        corpus.case(format!("range/refused-{name}"), move |c| {
            let request = request(c);
            c.range(pb::RangeRequest { serializable: true, ..request.clone() });
            c.range(request);
        });
    }
}

fn add_shapes(corpus: &mut Corpus) {
    for size in [0, 1, 1000, 4096, 20_000, 1 << 20] {
        corpus.case(format!("range/value-of-{size}-bytes"), move |c| {
            let value = (0..=u8::MAX).cycle().take(size).collect();
            c.put(pb::PutRequest { key: c.key("v"), value, ..Default::default() });
            c.range(get(c, "v"));
            c.range(pb::RangeRequest { keys_only: true, ..get(c, "v") });
        });
    }
    for size in [1, 200, 1500, 5000, 70_000] {
        corpus.case(format!("range/key-of-{size}-bytes"), move |c| {
            let key = [c.key(""), vec![b'k'; size]].concat();
            c.put(pb::PutRequest { key: key.clone(), value: vec![b'v'], ..Default::default() });
            c.range(list(c, ""));
            c.range(pb::RangeRequest { key: key.clone(), ..Default::default() });
            c.delete(pb::DeleteRangeRequest { key, prev_kv: true, ..Default::default() });
            c.range(list(c, ""));
        });
    }
    corpus.case("range/of-many-keys", |c| {
        for index in 0..300 {
            let request = put(c, &format!("{:03}", index * 7 % 300), &index.to_string());
            c.put(request);
        }
        c.range(list(c, ""));
        c.range(pb::RangeRequest { sort_order: 2, limit: 11, ..list(c, "") });
        c.range(pb::RangeRequest { sort_order: 2, sort_target: 3, limit: 11, ..list(c, "") });
        c.range(pb::RangeRequest { keys_only: true, ..list(c, "1") });
        c.range(pb::RangeRequest { count_only: true, ..list(c, "2") });
    });
}
