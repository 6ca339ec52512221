//! Txn: what is refused, by which rule first, and that a refusal leaves no trace.

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb::{self as pb, compare::TargetUnion};
use super::{Corpus, delete, delete_all, furnish, get, list, op, put, then};

type Request = fn(&Conversation<'_>) -> pb::TxnRequest;

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_duplicates(corpus);
    add_nested_duplicates(corpus);
    add_refusals(corpus);
    add_doubly_wrong(corpus);
    add_counts(corpus);
}

/// A case that sends a transaction in either branch and looks at what is left.
fn both_branches(corpus: &mut Corpus, name: String, request: Request) {
    corpus.case(name, move |c| {
        furnish(c);
        let request = request(c);
        c.txn(request.clone());
        c.range(list(c, ""));
        let pb::TxnRequest { compare, success, failure } = request;
        c.txn(pb::TxnRequest { compare, success: failure, failure: success });
        c.range(list(c, ""));
    });
}

fn p(c: &Conversation<'_>, key: &str) -> pb::RequestOp {
    op::put(put(c, key, "v"))
}

fn d(c: &Conversation<'_>, key: &str) -> pb::RequestOp {
    op::delete(delete(c, key))
}

fn d_range(c: &Conversation<'_>, from: &str, to: &str) -> pb::RequestOp {
    op::delete(pb::DeleteRangeRequest { range_end: c.key(to), ..delete(c, from) })
}

fn nested(ops: Vec<pb::RequestOp>) -> pb::RequestOp {
    op::txn(then(ops))
}

fn nested_else(ops: Vec<pb::RequestOp>) -> pb::RequestOp {
    op::txn(pb::TxnRequest { failure: ops, ..Default::default() })
}

fn add_duplicates(corpus: &mut Corpus) {
    let rules: [(&str, Request); 17] = [
        ("put-put", |c| then(vec![p(c, "k"), p(c, "k")])),
        ("put-put-other-value", |c| then(vec![p(c, "k"), op::put(put(c, "k", "w"))])),
        ("put-other-put", |c| then(vec![p(c, "k"), p(c, "l"), p(c, "k")])),
        ("put-delete", |c| then(vec![p(c, "k"), d(c, "k")])),
        ("delete-put", |c| then(vec![d(c, "k"), p(c, "k")])),
        ("put-delete-range-over", |c| then(vec![p(c, "k"), d_range(c, "a", "z")])),
        ("delete-range-over-put", |c| then(vec![d_range(c, "a", "z"), p(c, "k")])),
        ("put-at-start-of-range", |c| then(vec![d_range(c, "k", "m"), p(c, "k")])),
        ("put-at-end-of-range", |c| then(vec![d_range(c, "a", "k"), p(c, "k")])),
        ("put-outside-range", |c| then(vec![d_range(c, "a", "c"), p(c, "k")])),
        ("put-in-backward-range", |c| then(vec![d_range(c, "z", "a"), p(c, "k")])),
        ("put-in-empty-range", |c| then(vec![d_range(c, "k", "k"), p(c, "k")])),
        ("put-in-open-range", |c| {
            let request = pb::DeleteRangeRequest { range_end: vec![0], ..delete(c, "zz") };
            then(vec![op::delete(request), p(c, "zzz")])
        }),
        ("put-below-open-range", |c| {
            let request = pb::DeleteRangeRequest { range_end: vec![0], ..delete(c, "zz") };
            then(vec![op::delete(request), p(c, "z")])
        }),
        ("delete-delete", |c| then(vec![d(c, "a"), d(c, "a")])),
        ("delete-overlapping", |c| then(vec![d_range(c, "a", "d"), d_range(c, "b", "z")])),
        ("then-else-same-key", |c| pb::TxnRequest {
            success: vec![p(c, "k")],
            failure: vec![p(c, "k")],
            ..Default::default()
        }),
    ];
    for (name, request) in rules {
        both_branches(corpus, format!("txn/duplicate-{name}"), request);
    }
}

fn add_nested_duplicates(corpus: &mut Corpus) {
    let rules: [(&str, Request); 17] = [
        ("nested-put-parent-put", |c| then(vec![nested(vec![p(c, "k")]), p(c, "k")])),
        ("parent-put-nested-put", |c| then(vec![p(c, "k"), nested(vec![p(c, "k")])])),
        ("parent-put-nested-else-put", |c| then(vec![p(c, "k"), nested_else(vec![p(c, "k")])])),
        ("nested-then-else-same-key", |c| {
            then(vec![op::txn(pb::TxnRequest {
                success: vec![p(c, "k")],
                failure: vec![p(c, "k")],
                ..Default::default()
            })])
        }),
        ("siblings-put-put", |c| then(vec![nested(vec![p(c, "k")]), nested(vec![p(c, "k")])])),
        ("siblings-put-in-then-and-else", |c| {
            then(vec![nested(vec![p(c, "k")]), nested_else(vec![p(c, "k")])])
        }),
        ("parent-put-nested-delete", |c| then(vec![p(c, "k"), nested(vec![d(c, "k")])])),
        ("nested-delete-parent-put", |c| then(vec![nested(vec![d(c, "k")]), p(c, "k")])),
        ("parent-delete-nested-put", |c| then(vec![d(c, "k"), nested(vec![p(c, "k")])])),
        ("nested-put-parent-delete", |c| then(vec![nested(vec![p(c, "k")]), d(c, "k")])),
        ("sibling-put-then-sibling-delete", |c| {
            then(vec![nested(vec![p(c, "k")]), nested(vec![d_range(c, "a", "z")])])
        }),
        ("sibling-delete-then-sibling-put", |c| {
            then(vec![nested(vec![d_range(c, "a", "z")]), nested(vec![p(c, "k")])])
        }),
        ("nested-delete-range-parent-put-outside", |c| {
            then(vec![nested(vec![d_range(c, "a", "c")]), p(c, "k")])
        }),
        ("deep-put-parent-put", |c| then(vec![nested(vec![nested(vec![p(c, "k")])]), p(c, "k")])),
        ("deep-puts-in-both-branches", |c| {
            let inner = op::txn(pb::TxnRequest {
                success: vec![nested(vec![p(c, "k")])],
                failure: vec![nested(vec![p(c, "k")])],
                ..Default::default()
            });
            then(vec![inner])
        }),
        ("deep-delete-parent-put", |c| {
            then(vec![nested_else(vec![nested(vec![d(c, "k")])]), p(c, "k")])
        }),
        ("range-and-put-same-key", |c| then(vec![op::range(get(c, "k")), p(c, "k")])),
    ];
    for (name, request) in rules {
        both_branches(corpus, format!("txn/duplicate-{name}"), request);
    }
}

/// One operation or comparison that is wrong, and the rule it breaks.
fn wrong_parts() -> Vec<(&'static str, Request)> {
    vec![
        ("empty-op", |_| then(vec![pb::RequestOp { request: None }])),
        ("put-empty-key", |_| then(vec![op::put(pb::PutRequest::default())])),
        ("range-empty-key", |_| then(vec![op::range(pb::RangeRequest::default())])),
        ("delete-empty-key", |_| then(vec![op::delete(pb::DeleteRangeRequest::default())])),
        ("compare-empty-key", |_| pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            ..Default::default()
        }),
        ("put-value-provided", |c| {
            then(vec![op::put(pb::PutRequest { ignore_value: true, ..put(c, "a", "v") })])
        }),
        ("put-lease-provided", |c| {
            let request = pb::PutRequest { ignore_lease: true, lease: 9, ..put(c, "a", "v") };
            then(vec![op::put(request)])
        }),
        ("put-lease-unknown", |c| {
            then(vec![op::put(pb::PutRequest { lease: 4711, ..put(c, "a", "v") })])
        }),
        ("put-ignore-value-of-missing", |c| {
            then(vec![op::put(pb::PutRequest { ignore_value: true, ..put(c, "x", "") })])
        }),
        ("put-ignore-lease-of-missing", |c| {
            then(vec![op::put(pb::PutRequest { ignore_lease: true, ..put(c, "x", "v") })])
        }),
        ("put-lease-unknown-and-ignore-value-of-missing", |c| {
            let request = pb::PutRequest { ignore_value: true, lease: 4711, ..put(c, "x", "") };
            then(vec![op::put(request)])
        }),
        ("range-sort-unknown", |c| {
            then(vec![op::range(pb::RangeRequest { sort_order: 9, ..get(c, "a") })])
        }),
        ("range-future", |c| {
            let revision = c.revision() + 50;
            then(vec![op::range(pb::RangeRequest { revision, ..get(c, "a") })])
        }),
        ("range-empty-key-future", |_| {
            then(vec![op::range(pb::RangeRequest { revision: 1 << 40, ..Default::default() })])
        }),
        ("duplicate", |c| then(vec![p(c, "k"), p(c, "k")])),
        ("too-many", |c| then((0..129).map(|at| p(c, &format!("many{at}"))).collect())),
    ]
}

fn add_refusals(corpus: &mut Corpus) {
    for (name, request) in wrong_parts() {
        both_branches(corpus, format!("txn/refused-{name}"), request);
        corpus.case(format!("txn/refused-nested-{name}"), move |c| {
            furnish(c);
            let request = then(vec![p(c, "ok"), op::txn(request(c))]);
            c.txn(request.clone());
            // As an operation of a branch that is not taken.
            let compare = pb::Compare {
                key: c.key("a"),
                target_union: Some(TargetUnion::Version(9)),
                ..Default::default()
            };
            c.txn(pb::TxnRequest { compare: vec![compare], ..request });
            c.range(list(c, ""));
        });
    }
    corpus.case("txn/refused-put-ignore-value-of-key-made-before", |c| {
        let made = put(c, "new", "v");
        let request = pb::PutRequest { ignore_value: true, ..put(c, "other", "") };
        c.txn(then(vec![op::put(made.clone()), op::put(request)]));
        // A put and a nested one of the same key are refused, so a deleted key it is.
        c.put(made);
        let gone = delete(c, "new");
        let request = pb::PutRequest { ignore_value: true, ..put(c, "new", "") };
        c.txn(then(vec![nested(vec![op::delete(gone)]), nested(vec![op::put(request)])]));
        c.range(list(c, ""));
    });
    corpus.case("txn/sibling-puts-with-ignore-value", |c| {
        furnish(c);
        let gone = d_range(c, "a", "z");
        let request = pb::PutRequest { ignore_value: true, prev_kv: true, ..put(c, "a", "") };
        c.txn(then(vec![nested(vec![op::put(request)]), nested(vec![gone])]));
        c.range(list(c, ""));
    });
}

/// Two wrongs in one request, in either order: which refusal wins is a rule, too.
fn add_doubly_wrong(corpus: &mut Corpus) {
    let parts = wrong_parts();
    for (first_name, first) in &parts {
        for (second_name, second) in &parts {
            if first_name == second_name {
                continue;
            }
            let (first, second) = (*first, *second);
            corpus.case(format!("txn/doubly-wrong-{first_name}-then-{second_name}"), move |c| {
                furnish(c);
                let (first, second) = (first(c), second(c));
                c.txn(pb::TxnRequest {
                    compare: [first.compare.clone(), second.compare.clone()].concat(),
                    success: [first.success.clone(), second.success.clone()].concat(),
                    failure: Vec::new(),
                });
                // One in each branch.
                c.txn(pb::TxnRequest {
                    compare: [first.compare, second.compare].concat(),
                    success: first.success,
                    failure: second.success,
                });
                c.range(list(c, ""));
            });
        }
    }
}

fn add_counts(corpus: &mut Corpus) {
    fn puts(c: &Conversation<'_>, count: usize) -> Vec<pb::RequestOp> {
        (0..count).map(|at| p(c, &format!("{at:04}"))).collect()
    }
    fn compares(c: &Conversation<'_>, count: usize) -> Vec<pb::Compare> {
        let compare = pb::Compare {
            key: c.key("a"),
            target_union: Some(TargetUnion::Version(0)),
            ..Default::default()
        };
        vec![compare; count]
    }
    for count in [127, 128, 129, 300] {
        corpus.case(format!("txn/count-success-{count}"), move |c| {
            let request = then(puts(c, count));
            c.txn(request);
            c.range(pb::RangeRequest { count_only: true, ..list(c, "") });
        });
        corpus.case(format!("txn/count-failure-{count}"), move |c| {
            let failure = puts(c, count);
            c.txn(pb::TxnRequest { failure, ..Default::default() });
        });
        corpus.case(format!("txn/count-compare-{count}"), move |c| {
            let compare = compares(c, count);
            c.txn(pb::TxnRequest { compare, ..Default::default() });
        });
    }
    corpus.case("txn/count-is-the-largest-of-three", |c| {
        let request = pb::TxnRequest {
            compare: compares(c, 128),
            success: puts(c, 128),
            failure: puts(c, 128),
        };
        c.txn(request);
    });
    for (outer, inner) in [(1, 127), (1, 128), (64, 64), (100, 29), (127, 1), (128, 0), (128, 1)] {
        corpus.case(format!("txn/count-nested-{outer}-and-{inner}"), move |c| {
            let mut ops = puts(c, outer - 1);
            let inner = (0..inner).map(|at| p(c, &format!("inner{at}"))).collect();
            ops.push(nested(inner));
            c.txn(then(ops));
            c.range(pb::RangeRequest { count_only: true, ..list(c, "") });
        });
    }
    corpus.case("txn/count-nested-in-each-of-two-branches", |c| {
        let branch = || vec![nested(puts(c, 120)), op::delete(delete_all(c, "~"))];
        let request = pb::TxnRequest { success: branch(), failure: branch(), ..Default::default() };
        c.txn(request);
    });
    corpus.alone("txn/max-txn-ops-of-3", &["--max-txn-ops", "3"], |c| {
        for count in 0..6 {
            let request = then(puts(c, count));
            c.txn(request);
            let compare = compares(c, count);
            c.txn(pb::TxnRequest { compare, ..Default::default() });
            let inner = then(vec![nested(puts(c, count))]);
            c.txn(inner);
        }
    });
}
