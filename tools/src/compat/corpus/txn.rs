//! Txn: comparisons, branches, what operations see of each other, nesting.

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb::{self as pb, compare::TargetUnion};
use super::{Corpus, delete, delete_all, furnish, get, list, op, put, then};

const RESULTS: [(&str, i32); 4] = [("equal", 0), ("greater", 1), ("less", 2), ("not-equal", 3)];
const TARGETS: [(&str, i32); 5] =
    [("version", 0), ("create", 1), ("mod", 2), ("value", 3), ("lease", 4)];

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_compares(corpus);
    add_compared_ranges(corpus);
    add_odd_compares(corpus);
    add_branches(corpus);
    add_sight(corpus);
    add_revisions_inside(corpus);
    add_nested(corpus);
    add_guarded(corpus);
}

/// A transaction that tells which branch it took.
fn judged(c: &mut Conversation<'_>, compare: Vec<pb::Compare>) {
    let (success, failure) = (get(c, "a"), get(c, "b"));
    c.txn(pb::TxnRequest {
        compare,
        success: vec![op::range(success)],
        failure: vec![op::range(failure)],
    });
}

/// What a key could be compared with, around what it has.
fn operands(c: &Conversation<'_>, target: i32) -> Vec<TargetUnion> {
    let now = c.revision();
    match target {
        0 => [0, 1, 2].map(TargetUnion::Version).to_vec(),
        1 => (0..=1).chain(now - 8..=now).map(TargetUnion::CreateRevision).collect(),
        2 => (0..=1).chain(now - 8..=now).map(TargetUnion::ModRevision).collect(),
        3 => ["", "apple", "beech", "zzz"].map(|value| TargetUnion::Value(value.into())).to_vec(),
        _ => [0, 1, -1].map(TargetUnion::Lease).to_vec(),
    }
}

fn add_compares(corpus: &mut Corpus) {
    for (target_name, target) in TARGETS {
        for (result_name, result) in RESULTS {
            for (key_name, key) in [("put-once", "a"), ("put-twice", "b"), ("missing", "x")] {
                let name = format!("txn/compare-{target_name}-{result_name}-{key_name}");
                corpus.case(name, move |c| {
                    furnish(c);
                    for operand in operands(c, target) {
                        let key = c.key(key);
                        let target_union = Some(operand);
                        let compare =
                            pb::Compare { result, target, key, target_union, ..Default::default() };
                        judged(c, vec![compare]);
                    }
                });
            }
        }
    }
}

fn add_compared_ranges(corpus: &mut Corpus) {
    const RANGES: [(&str, &str, &str); 5] = [
        ("some", "a", "c"),
        ("all", "", "~"),
        ("empty", "x", "z"),
        ("backward", "c", "a"),
        ("only-deleted", "g", "h"),
    ];
    for (range_name, from, to) in RANGES {
        for (target_name, target) in TARGETS {
            corpus.case(format!("txn/compare-range-{range_name}-{target_name}"), move |c| {
                furnish(c);
                for (_, result) in RESULTS {
                    for operand in operands(c, target) {
                        judged(
                            c,
                            vec![pb::Compare {
                                result,
                                target,
                                key: c.key(from),
                                range_end: c.key(to),
                                target_union: Some(operand),
                            }],
                        );
                    }
                }
            });
        }
    }
    corpus.case("txn/compare-range-from-key-on", |c| {
        furnish(c);
        for (_, result) in RESULTS {
            let target_union = Some(TargetUnion::Version(0));
            let (key, range_end) = (c.key("a"), vec![0]);
            judged(c, vec![pb::Compare { result, target: 0, key, range_end, target_union }]);
        }
    });
}

fn add_odd_compares(corpus: &mut Corpus) {
    for (target_name, target) in TARGETS {
        corpus.case(format!("txn/compare-{target_name}-without-operand"), move |c| {
            furnish(c);
            for key in ["a", "d", "x"] {
                for (_, result) in RESULTS {
                    let key = c.key(key);
                    judged(c, vec![pb::Compare { result, target, key, ..Default::default() }]);
                }
            }
        });
        corpus.case(format!("txn/compare-{target_name}-with-anothers-operand"), move |c| {
            furnish(c);
            let others = [
                TargetUnion::Version(1),
                TargetUnion::CreateRevision(1),
                TargetUnion::ModRevision(1),
                TargetUnion::Value(b"apple".to_vec()),
                TargetUnion::Lease(1),
            ];
            for operand in others {
                for (_, result) in RESULTS {
                    let target_union = Some(operand.clone());
                    let key = c.key("a");
                    let compare =
                        pb::Compare { result, target, key, target_union, ..Default::default() };
                    judged(c, vec![compare]);
                }
            }
        });
    }
    for (name, result, target) in [
        ("result-4", 4, 0),
        ("result-negative", -1, 0),
        ("target-5", 0, 5),
        ("target-negative", 0, -1),
        ("target-5-greater", 1, 5),
        ("target-5-not-equal", 3, 5),
        ("both", 9, 9),
    ] {
        corpus.case(format!("txn/compare-unknown-{name}"), move |c| {
            furnish(c);
            for key in ["a", "x"] {
                for operand in [TargetUnion::Version(1), TargetUnion::Version(7)] {
                    let target_union = Some(operand);
                    let key = c.key(key);
                    let compare =
                        pb::Compare { result, target, key, target_union, ..Default::default() };
                    judged(c, vec![compare]);
                }
            }
        });
    }
    corpus.case("txn/compares-must-all-hold", |c| {
        furnish(c);
        for versions in [[1, 2], [1, 1], [2, 2], [2, 1]] {
            let compares = ["a", "b"].into_iter().zip(versions).map(|(key, version)| pb::Compare {
                key: c.key(key),
                target_union: Some(TargetUnion::Version(version)),
                ..Default::default()
            });
            let compares = compares.collect();
            judged(c, compares);
        }
    });
}

fn add_branches(corpus: &mut Corpus) {
    corpus.case("txn/empty", |c| {
        c.txn(pb::TxnRequest::default());
        furnish(c);
        c.txn(pb::TxnRequest::default());
    });
    for is_taken in [true, false] {
        let word = if is_taken { "taken" } else { "not-taken" };
        type Branch = fn(&Conversation<'_>) -> Vec<pb::RequestOp>;
        let branches: [(&str, Branch); 9] = [
            ("nothing", |_| Vec::new()),
            ("one-range", |c| vec![op::range(list(c, ""))]),
            ("one-put", |c| vec![op::put(put(c, "a", "new"))]),
            ("one-delete", |c| vec![op::delete(delete(c, "a"))]),
            ("delete-of-nothing", |c| vec![op::delete(delete(c, "x"))]),
            ("puts", |c| ["a", "x", "y"].map(|key| op::put(put(c, key, "new"))).to_vec()),
            ("put-with-prev", |c| {
                let put = |key| pb::PutRequest { prev_kv: true, ..put(c, key, "new") };
                vec![op::put(put("a")), op::put(put("x"))]
            }),
            ("delete-with-prev", |c| {
                let request = pb::DeleteRangeRequest { prev_kv: true, ..delete_all(c, "") };
                vec![op::delete(request)]
            }),
            ("all-kinds", |c| {
                vec![
                    op::range(list(c, "")),
                    op::put(put(c, "x", "new")),
                    op::delete(delete(c, "a")),
                    op::txn(then(vec![op::put(put(c, "y", "nested"))])),
                    op::range(list(c, "")),
                ]
            }),
        ];
        for (name, branch) in branches {
            corpus.case(format!("txn/branch-{name}-{word}"), move |c| {
                furnish(c);
                let compare = pb::Compare {
                    key: c.key("a"),
                    target_union: Some(TargetUnion::Version(if is_taken { 1 } else { 2 })),
                    ..Default::default()
                };
                let success = branch(c);
                c.txn(pb::TxnRequest {
                    compare: vec![compare.clone()],
                    success: success.clone(),
                    failure: Vec::new(),
                });
                c.range(list(c, ""));
                let compare = vec![compare];
                c.txn(pb::TxnRequest { compare, success: Vec::new(), failure: success });
                c.range(list(c, ""));
            });
        }
    }
}

fn add_sight(corpus: &mut Corpus) {
    type Ops = fn(&Conversation<'_>) -> Vec<pb::RequestOp>;
    let sights: [(&str, Ops); 12] = [
        ("range-before-put", |c| vec![op::range(get(c, "a")), op::put(put(c, "a", "new"))]),
        ("range-after-put", |c| vec![op::put(put(c, "a", "new")), op::range(get(c, "a"))]),
        ("range-around-put", |c| {
            vec![op::range(list(c, "")), op::put(put(c, "a", "new")), op::range(list(c, ""))]
        }),
        ("range-around-delete", |c| {
            vec![op::range(list(c, "")), op::delete(delete(c, "a")), op::range(list(c, ""))]
        }),
        ("range-after-delete-of-nothing", |c| {
            vec![op::delete(delete(c, "x")), op::range(list(c, ""))]
        }),
        ("two-deletes", |c| vec![op::delete(delete(c, "a")), op::delete(delete_all(c, ""))]),
        ("same-delete-twice", |c| {
            let request = pb::DeleteRangeRequest { prev_kv: true, ..delete(c, "a") };
            vec![op::delete(request.clone()), op::delete(request)]
        }),
        ("put-of-new-seen-by-count", |c| {
            let count = pb::RangeRequest { count_only: true, ..list(c, "") };
            vec![op::range(count.clone()), op::put(put(c, "new", "")), op::range(count)]
        }),
        ("range-at-the-past-after-put", |c| {
            let past = pb::RangeRequest { revision: c.revision() - 1, ..list(c, "") };
            vec![op::put(put(c, "a", "new")), op::range(past)]
        }),
        ("range-at-now-after-put", |c| {
            let now = pb::RangeRequest { revision: c.revision(), ..list(c, "") };
            vec![op::put(put(c, "a", "new")), op::range(now)]
        }),
        ("range-serializable-after-put", |c| {
            let request = pb::RangeRequest { serializable: true, ..list(c, "") };
            vec![op::put(put(c, "a", "new")), op::range(request)]
        }),
        ("range-sorted-after-put", |c| {
            let request =
                pb::RangeRequest { sort_order: 2, sort_target: 3, limit: 2, ..list(c, "") };
            vec![op::put(put(c, "a", "new")), op::range(request)]
        }),
    ];
    for (name, ops) in sights {
        corpus.case(format!("txn/sight-{name}"), move |c| {
            furnish(c);
            let ops = ops(c);
            c.txn(then(ops));
            c.range(list(c, ""));
            let revision = c.revision() - 1;
            c.range(pb::RangeRequest { revision, ..list(c, "") });
        });
    }
}

fn add_revisions_inside(corpus: &mut Corpus) {
    for (name, distance) in [("future", 1), ("far-future", 1000), ("now", 0), ("past", -3)] {
        corpus.case(format!("txn/range-at-{name}"), move |c| {
            furnish(c);
            let revision = c.revision() + distance;
            let range = pb::RangeRequest { revision, ..list(c, "") };
            let request = put(c, "new", "v");
            c.txn(then(vec![op::range(range.clone())]));
            c.txn(then(vec![op::put(request.clone()), op::range(range.clone())]));
            c.txn(then(vec![op::range(range.clone()), op::put(request)]));
            // Nobody reads at that revision in the branch that is not taken.
            c.txn(pb::TxnRequest { failure: vec![op::range(range)], ..Default::default() });
            c.range(list(c, ""));
        });
    }
    for (name, revision) in [("minus-1", -1), ("minus-5", -5), ("1", 1)] {
        corpus.case(format!("txn/range-at-revision-{name}"), move |c| {
            furnish(c);
            let range = pb::RangeRequest { revision, ..list(c, "") };
            let request = put(c, "new", "v");
            c.txn(then(vec![op::range(range.clone())]));
            c.txn(then(vec![op::put(request), op::range(range)]));
        });
    }
}

fn add_nested(corpus: &mut Corpus) {
    for depth in [1, 2, 5, 20] {
        corpus.case(format!("txn/nested-{depth}-deep"), move |c| {
            furnish(c);
            let mut request = then(vec![op::put(put(c, "deep", "v")), op::range(list(c, ""))]);
            for _ in 0..depth {
                request = then(vec![op::range(get(c, "a")), op::txn(request)]);
            }
            c.txn(request);
            c.range(list(c, ""));
        });
    }
    corpus.case("txn/nested-compare-sees-earlier-put", |c| {
        furnish(c);
        for version in [1, 2] {
            let compare = pb::Compare {
                key: c.key("a"),
                target_union: Some(TargetUnion::Version(version)),
                ..Default::default()
            };
            let nested = pb::TxnRequest {
                compare: vec![compare],
                success: vec![op::put(put(c, "s", "success"))],
                failure: vec![op::put(put(c, "f", "failure"))],
            };
            let request = put(c, "a", "new");
            c.txn(then(vec![op::put(request), op::txn(nested)]));
            c.range(list(c, ""));
        }
    });
    corpus.case("txn/nested-without-effect", |c| {
        furnish(c);
        c.txn(then(vec![op::txn(pb::TxnRequest::default())]));
        let (range, gone) = (list(c, ""), delete(c, "x"));
        c.txn(then(vec![op::txn(then(vec![op::range(range), op::delete(gone)]))]));
    });
    corpus.case("txn/nested-siblings", |c| {
        furnish(c);
        let nested =
            |key: &str| op::txn(then(vec![op::put(put(c, key, "n")), op::range(list(c, ""))]));
        let request = then(vec![nested("n1"), nested("n2"), op::range(list(c, "")), nested("n3")]);
        c.txn(request);
    });
}

fn add_guarded(corpus: &mut Corpus) {
    corpus.case("txn/kubernetes-create-update-delete", |c| {
        for version in [0, 1] {
            for _ in 0..2 {
                let now = c.revision();
                let guard = |mod_revision| pb::Compare {
                    target: 2,
                    key: c.key("pod"),
                    target_union: Some(TargetUnion::ModRevision(mod_revision)),
                    ..Default::default()
                };
                let request = pb::TxnRequest {
                    compare: vec![guard(if version == 0 { 0 } else { now })],
                    success: vec![op::put(put(c, "pod", "spec"))],
                    failure: vec![op::range(get(c, "pod"))],
                };
                c.txn(request);
            }
        }
        let request = pb::TxnRequest {
            compare: vec![pb::Compare {
                target: 2,
                key: c.key("pod"),
                target_union: Some(TargetUnion::ModRevision(c.revision())),
                ..Default::default()
            }],
            success: vec![op::delete(delete(c, "pod"))],
            failure: vec![op::range(get(c, "pod"))],
        };
        c.txn(request.clone());
        c.txn(request);
    });
}
