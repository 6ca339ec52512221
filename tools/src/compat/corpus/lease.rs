//! Lease: granting, attaching, renewing, revoking, expiring.

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb as pb;
use super::watch::watch_all;
use super::{Corpus, delete, delete_all, get, list, op, put, then};

/// A key of this case on a lease.
fn leased(c: &Conversation<'_>, name: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { lease, ..put(c, name, "leased") }
}

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_grants(corpus);
    add_unknown(corpus);
    add_attachments(corpus);
    add_revokes(corpus);
    add_expiry(corpus);
}

fn add_grants(corpus: &mut Corpus) {
    for (index, ttl) in [i64::MIN, -1, 0, 1, 2, 3, 60, 9_000_000_000, 9_000_000_001, i64::MAX]
        .into_iter()
        .enumerate()
    {
        let id = 1000 + i64::try_from(index).expect("a short list");
        corpus.case(format!("lease/grant-ttl-{ttl}"), move |c| {
            c.lease_grant(id, ttl);
            c.lease_time_to_live([id; 2], false);
            c.lease_revoke([id; 2]);
        });
    }
    for id in [1, -1, 77, i64::MAX, i64::MIN] {
        corpus.case(format!("lease/grant-id-{id}"), move |c| {
            c.lease_grant(id, 500);
            c.lease_grant(id, 500);
            c.lease_grant(id, 9_000_000_001);
            c.lease_time_to_live([id; 2], true);
            c.lease_revoke([id; 2]);
            c.lease_revoke([id; 2]);
            c.lease_grant(id, 600);
            c.lease_revoke([id; 2]);
        });
    }
    corpus.case("lease/grant-id-chosen-by-the-server", |c| {
        let ids = c.lease_grant(0, 500).both.map(|answer| answer.id);
        for side in ids {
            if !c.is_over() && side <= 0 {
                c.note("a chosen id", vec![format!("{side} is not positive")]);
            }
        }
        let puts = ids.map(|id| leased(c, "a", id));
        c.ask_each::<_, pb::PutResponse>("/etcdserverpb.KV/Put", puts);
        c.range(get(c, "a"));
        c.lease_time_to_live(ids, true);
        c.lease_keep_alive(ids);
        c.lease_revoke(ids);
        c.range(get(c, "a"));
    });
    corpus.case("lease/grant-takes-no-revision", |c| {
        c.range(get(c, "a"));
        c.lease_grant(1100, 500);
        c.range(get(c, "a"));
        c.lease_revoke([1100; 2]);
        c.range(get(c, "a"));
    });
    corpus.alone("lease/list-is-by-expiry", &[], |c| {
        c.lease_leases();
        for (id, ttl) in [(5, 3000), (4, 9000), (9, 100), (1, 6000)] {
            c.lease_grant(id, ttl);
            c.lease_leases();
        }
        c.lease_revoke([4; 2]);
        c.lease_leases();
        c.lease_keep_alive([9; 2]);
        c.lease_leases();
    });
}

fn add_unknown(corpus: &mut Corpus) {
    for id in [0, 4711, -1, i64::MAX] {
        corpus.case(format!("lease/unknown-{id}"), move |c| {
            c.lease_revoke([id; 2]);
            c.lease_keep_alive([id; 2]);
            c.lease_time_to_live([id; 2], false);
            c.lease_time_to_live([id; 2], true);
        });
    }
    corpus.case("lease/keep-alive-of-known-and-unknown", |c| {
        c.lease_grant(1200, 500);
        for id in [1200, 4711, 1200] {
            c.lease_keep_alive([id; 2]);
        }
        c.lease_time_to_live([1200; 2], false);
        c.lease_revoke([1200; 2]);
        c.lease_keep_alive([1200; 2]);
    });
}

/// How keys come to a lease or leave it.
type Talk = fn(&mut Conversation<'_>);

fn attachments() -> [(&'static str, Talk); 9] {
    [
        ("one-key", |c| {
            let request = leased(c, "a", 1300);
            c.put(request);
        }),
        ("several-keys", |c| {
            for key in ["b", "a", "d", "c"] {
                let request = leased(c, key, 1300);
                c.put(request);
            }
        }),
        ("moved-to-another", |c| {
            for lease in [1300, 1301] {
                let request = leased(c, "a", lease);
                c.put(request);
            }
        }),
        ("detached-by-a-put", |c| {
            for lease in [1300, 0] {
                let request = leased(c, "a", lease);
                c.put(request);
            }
        }),
        ("kept-by-ignore-lease", |c| {
            let request = leased(c, "a", 1300);
            c.put(request);
            let request = put(c, "a", "other");
            c.put(pb::PutRequest { ignore_lease: true, prev_kv: true, ..request });
        }),
        ("kept-with-ignore-value", |c| {
            let request = put(c, "a", "kept");
            c.put(request);
            let request = pb::PutRequest { ignore_value: true, ..leased(c, "a", 1300) };
            c.put(pb::PutRequest { value: Vec::new(), prev_kv: true, ..request });
        }),
        ("detached-by-a-delete", |c| {
            let request = leased(c, "a", 1300);
            c.put(request);
            let request = delete(c, "a");
            c.delete(pb::DeleteRangeRequest { prev_kv: true, ..request });
            let request = put(c, "a", "free");
            c.put(request);
        }),
        ("in-a-txn", |c| {
            let puts = ["a", "b"].map(|key| op::put(leased(c, key, 1300))).to_vec();
            c.txn(then(puts));
        }),
        ("attached-twice", |c| {
            for _ in 0..2 {
                let request = leased(c, "a", 1300);
                c.put(request);
            }
        }),
    ]
}

fn add_attachments(corpus: &mut Corpus) {
    for (name, talk) in attachments() {
        corpus.case(format!("lease/attached-{name}"), move |c| {
            c.lease_grant(1300, 500);
            c.lease_grant(1301, 500);
            talk(c);
            for id in [1300, 1301] {
                c.lease_time_to_live([id; 2], true);
            }
            c.range(list(c, ""));
            for lease in [0, 1300, 1301] {
                let compare = pb::Compare {
                    target: 4,
                    key: c.key("a"),
                    target_union: Some(pb::compare::TargetUnion::Lease(lease)),
                    ..Default::default()
                };
                c.txn(pb::TxnRequest { compare: vec![compare], ..Default::default() });
            }
            c.range(pb::RangeRequest { keys_only: true, ..list(c, "") });
            for id in [1300, 1301] {
                c.lease_revoke([id; 2]);
                c.range(list(c, ""));
            }
            c.delete(delete_all(c, ""));
        });
    }
}

fn add_revokes(corpus: &mut Corpus) {
    corpus.case("lease/revoke-is-one-revision-in-key-order", |c| {
        c.lease_grant(1400, 500);
        for key in ["c", "a", "d", "b"] {
            let request = leased(c, key, 1400);
            c.put(request);
        }
        let id = c.watch_open();
        let request = pb::WatchCreateRequest { prev_kv: true, ..watch_all(c, "") };
        c.watch_create(id, request);
        c.watch_settle(id);
        c.lease_revoke([1400; 2]);
        c.watch_settle(id);
        c.range(list(c, ""));
        let revision = c.revision() - 2;
        c.range(pb::RangeRequest { revision, ..list(c, "") });
    });
    corpus.case("lease/txn-on-a-revoked-lease", |c| {
        c.lease_grant(1401, 500);
        c.lease_revoke([1401; 2]);
        let ops = vec![op::put(put(c, "a", "v")), op::put(leased(c, "b", 1401))];
        c.txn(then(ops));
        c.range(list(c, ""));
    });
    corpus.alone("lease/hash-with-leases", &[], |c| {
        c.lease_grant(1, 500);
        let request = leased(c, "a", 1);
        c.put(request);
        c.hash_kv(0);
        c.lease_revoke([1; 2]);
        c.hash_kv(0);
    });
}

fn add_expiry(corpus: &mut Corpus) {
    for count in [0, 1, 3] {
        corpus.alone(format!("lease/expiry-takes-{count}-keys"), &[], move |c| {
            let id = c.watch_open();
            let request = watch_all(c, "");
            c.watch_create(id, request);
            c.watch_settle(id);
            // The least there is: two seconds.
            c.lease_grant(1, 1);
            for index in (0..count).rev() {
                let request = leased(c, &index.to_string(), 1);
                c.put(request);
            }
            c.watch_settle(id);
            c.watch_wait_events(id, count);
            if count > 0 {
                c.lease_revoke([1; 2]);
                c.lease_time_to_live([1; 2], true);
                c.lease_keep_alive([1; 2]);
                c.lease_leases();
            }
            c.range(list(c, ""));
        });
    }
    corpus.alone("lease/expiry-in-order", &[], |c| {
        let id = c.watch_open();
        let request = watch_all(c, "");
        c.watch_create(id, request);
        c.watch_settle(id);
        for (lease, ttl) in [(1, 6), (2, 2), (3, 4)] {
            c.lease_grant(lease, ttl);
            let request = leased(c, &lease.to_string(), lease);
            c.put(request);
        }
        c.watch_settle(id);
        c.watch_wait_events(id, 3);
        c.range(list(c, ""));
    });
}
