//! Put: what it changes, what it answers, what it refuses.

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb as pb;
use super::{Corpus, delete, furnish, get, list, put};

type Request = fn(&Conversation<'_>) -> pb::PutRequest;

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    const KEYS: [(&str, &str); 5] =
        [("put-once", "a"), ("put-twice", "b"), ("anew", "c"), ("deleted", "g"), ("missing", "x")];
    for (key_name, key) in KEYS {
        for prev_kv in [false, true] {
            for ignore_value in [false, true] {
                for ignore_lease in [false, true] {
                    let flags = match (prev_kv, ignore_value, ignore_lease) {
                        (false, false, false) => "plain".to_owned(),
                        (prev, value, lease) => {
                            [(prev, "prev"), (value, "value"), (lease, "lease")]
                                .iter()
                                .filter(|(is_set, _)| *is_set)
                                .map(|(_, word)| *word)
                                .collect::<Vec<_>>()
                                .join("-")
                        }
                    };
                    corpus.case(format!("put/{key_name}-{flags}"), move |c| {
                        furnish(c);
                        let value = if ignore_value { "" } else { "new" };
                        let request = put(c, key, value);
                        c.put(pb::PutRequest { prev_kv, ignore_value, ignore_lease, ..request });
                        c.range(list(c, ""));
                    });
                }
            }
        }
    }
    add_refusals(corpus);
    add_histories(corpus);
}

fn add_refusals(corpus: &mut Corpus) {
    let refused: [(&str, Request); 16] = [
        ("empty-key", |_| pb::PutRequest::default()),
        ("empty-key-with-value", |_| pb::PutRequest { value: vec![1], ..Default::default() }),
        ("value-and-ignore", |c| pb::PutRequest { ignore_value: true, ..put(c, "a", "v") }),
        ("lease-and-ignore", |c| pb::PutRequest {
            ignore_lease: true,
            lease: 7,
            ..put(c, "a", "v")
        }),
        ("ignore-value-of-missing", |c| pb::PutRequest { ignore_value: true, ..put(c, "x", "") }),
        ("ignore-lease-of-missing", |c| pb::PutRequest { ignore_lease: true, ..put(c, "x", "v") }),
        ("ignore-value-of-deleted", |c| pb::PutRequest { ignore_value: true, ..put(c, "g", "") }),
        ("lease-unknown", |c| pb::PutRequest { lease: 4711, ..put(c, "a", "v") }),
        ("lease-negative", |c| pb::PutRequest { lease: -1, ..put(c, "a", "v") }),
        ("lease-unknown-of-missing-key", |c| pb::PutRequest { lease: 4711, ..put(c, "x", "v") }),
        ("value-lease-and-ignore-both", |c| pb::PutRequest {
            ignore_value: true,
            ignore_lease: true,
            lease: 7,
            ..put(c, "a", "v")
        }),
        ("empty-key-and-ignore-both", |_| pb::PutRequest {
            ignore_value: true,
            ignore_lease: true,
            lease: 7,
            value: vec![1],
            ..Default::default()
        }),
        ("lease-unknown-and-ignore-value-of-missing", |c| pb::PutRequest {
            ignore_value: true,
            lease: 4711,
            ..put(c, "x", "")
        }),
        ("lease-unknown-and-ignore-value", |c| pb::PutRequest {
            ignore_value: true,
            lease: 4711,
            ..put(c, "a", "")
        }),
        ("lease-unknown-with-prev", |c| pb::PutRequest {
            lease: 4711,
            prev_kv: true,
            ..put(c, "a", "v")
        }),
        ("ignore-lease-of-missing-with-prev", |c| pb::PutRequest {
            ignore_lease: true,
            prev_kv: true,
            ..put(c, "x", "v")
        }),
    ];
    for (name, request) in refused {
        corpus.case(format!("put/refused-{name}"), move |c| {
            furnish(c);
            let request = request(c);
            c.put(request);
            // A refusal leaves no trace: neither a record nor a revision.
            c.range(list(c, ""));
        });
    }
    // 1.5 MiB is the most a command may take, the message's own fields included.
    for (name, size) in [
        ("well-below-the-limit", 1_000_000),
        ("at-the-limit", 1_572_800),
        ("above-the-limit", 1_572_864),
        ("well-above-the-limit", 1_900_000),
        ("above-the-transport-limit", 2_097_152),
        ("well-above-the-transport-limit", 5_000_000),
    ] {
        corpus.case(format!("put/size-{name}"), move |c| {
            c.put(pb::PutRequest { value: vec![b'v'; size], ..put(c, "a", "") });
            c.range(pb::RangeRequest { keys_only: true, ..get(c, "a") });
        });
    }
}

fn add_histories(corpus: &mut Corpus) {
    corpus.case("put/same-value-is-a-change", |c| {
        for _ in 0..3 {
            c.put(pb::PutRequest { prev_kv: true, ..put(c, "a", "same") });
            c.range(get(c, "a"));
        }
    });
    corpus.case("put/version-restarts-after-delete", |c| {
        for round in 0..3 {
            for value in ["x", "y"] {
                c.put(pb::PutRequest { prev_kv: true, ..put(c, "a", value) });
            }
            c.range(get(c, "a"));
            if round < 2 {
                c.delete(pb::DeleteRangeRequest { prev_kv: true, ..delete(c, "a") });
                c.range(get(c, "a"));
            }
        }
        for revision in c.revision() - 8..=c.revision() {
            c.range(pb::RangeRequest { revision, ..get(c, "a") });
        }
    });
    corpus.case("put/empty-value-and-value-differ", |c| {
        for value in ["", "v", ""] {
            c.put(pb::PutRequest { prev_kv: true, ..put(c, "a", value) });
            c.range(get(c, "a"));
        }
    });
    corpus.case("put/ignore-value-keeps-it-through-a-history", |c| {
        c.put(put(c, "a", "kept"));
        for _ in 0..3 {
            c.put(pb::PutRequest { ignore_value: true, prev_kv: true, ..put(c, "a", "") });
        }
        c.range(get(c, "a"));
    });
    corpus.case("put/bytes-that-are-no-text", |c| {
        let value: Vec<u8> = (0..=u8::MAX).collect();
        let key = [c.key(""), value.clone()].concat();
        c.put(pb::PutRequest { key: key.clone(), value, ..Default::default() });
        c.range(pb::RangeRequest { key, ..Default::default() });
    });
    corpus.case("put/a-deleted-range-and-then-puts", |c| {
        furnish(c);
        c.delete(pb::DeleteRangeRequest { prev_kv: true, ..super::delete_all(c, "") });
        furnish(c);
        c.range(list(c, ""));
    });
}
