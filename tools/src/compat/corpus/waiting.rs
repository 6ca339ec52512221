//! Lock and Campaign when another holds what they want, and Observe: calls that wait.
//!
//! That a call waits is seen by the key it has put: once both servers have it, neither may have
//! answered.

use super::super::calling::CallId;
use super::super::conversation::Conversation;
use super::super::wire::{v3electionpb as election, v3lockpb as lock};
use super::lock::{CAMPAIGN, LOCK, acquire, campaign, leader, proclaim, release, resign};
use super::{Corpus, delete, delete_all, list, put};

const OBSERVE: &str = "/v3electionpb.Election/Observe";
/// Leases of these cases; each takes its own.
const LEASE: i64 = 9100;

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_locks(corpus);
    add_campaigns(corpus);
    add_expiries(corpus);
    add_observers(corpus);
}

/// The key under which a lease holds or wants a name.
fn key(c: &Conversation<'_>, name: &str, lease: i64) -> Vec<u8> {
    c.key(&format!("{name}/{lease:x}"))
}

fn lock_waiting(c: &mut Conversation<'_>, lease: i64) -> CallId {
    let request = lock::LockRequest { name: c.key("l"), lease };
    c.call_begin(LOCK, &request)
}

fn campaign_waiting(c: &mut Conversation<'_>, lease: i64, value: &str) -> CallId {
    let request = election::CampaignRequest { name: c.key("e"), lease, value: value.into() };
    c.call_begin(CAMPAIGN, &request)
}

fn unlock(c: &mut Conversation<'_>, lease: i64) {
    let key = key(c, "l", lease);
    release(c, [key.clone(), key]);
}

/// Waits until both servers have so many keys of the case, and sees that a call is unanswered.
fn see_waiting(c: &mut Conversation<'_>, id: CallId, count: i64) {
    let request = list(c, "");
    c.range_until(request, count);
    c.call_expect_silence(id);
}

/// Waits for a call's one answer and its end.
fn finish(c: &mut Conversation<'_>, id: CallId) {
    c.call_wait_end(id);
}

fn grant(c: &mut Conversation<'_>, leases: &[i64]) {
    for lease in leases {
        c.lease_grant(*lease, 500);
    }
}

fn revoke(c: &mut Conversation<'_>, leases: &[i64]) {
    for lease in leases {
        c.lease_revoke([*lease; 2]);
    }
}

/// How whoever holds a lock lets go of it.
type LetGo = fn(&mut Conversation<'_>, i64);

fn add_locks(corpus: &mut Corpus) {
    const WAYS: [(&str, LetGo); 3] = [
        ("unlock", unlock),
        ("revoke", |c, lease| {
            c.lease_revoke([lease; 2]);
        }),
        ("a-delete-of-its-key", |c, lease| {
            let name = format!("l/{lease:x}");
            let request = delete(c, &name);
            c.delete(request);
        }),
    ];
    for (index, (name, let_go)) in (0..).zip(WAYS) {
        let (first, second) = (LEASE + 2 * index, LEASE + 2 * index + 1);
        corpus.case(format!("lock/waits-for-{name}"), move |c| {
            grant(c, &[first, second]);
            acquire(c, "l", first);
            let waiter = lock_waiting(c, second);
            see_waiting(c, waiter, 2);
            // What else happens is nothing to it.
            let request = put(c, "other", "v");
            c.put(request);
            c.call_expect_silence(waiter);
            let_go(c, first);
            finish(c, waiter);
            c.range(list(c, ""));
            unlock(c, second);
            c.range(list(c, ""));
            c.lease_revoke([second; 2]);
        });
    }
    corpus.case("lock/three-wait-in-order", |c| {
        let leases = [LEASE + 20, LEASE + 21, LEASE + 22, LEASE + 23];
        grant(c, &leases);
        acquire(c, "l", leases[0]);
        let mut waiters = Vec::new();
        for (count, lease) in (2..).zip(&leases[1..]) {
            let waiter = lock_waiting(c, *lease);
            see_waiting(c, waiter, count);
            waiters.push(waiter);
        }
        for (index, lease) in leases[..3].iter().enumerate() {
            unlock(c, *lease);
            finish(c, waiters[index]);
            for waiter in &waiters[index + 1..] {
                c.call_expect_silence(*waiter);
            }
            c.range(list(c, ""));
        }
        revoke(c, &leases);
    });
    corpus.case("lock/one-in-the-middle-goes", |c| {
        let leases = [LEASE + 30, LEASE + 31, LEASE + 32];
        grant(c, &leases);
        acquire(c, "l", leases[0]);
        let second = lock_waiting(c, leases[1]);
        see_waiting(c, second, 2);
        let third = lock_waiting(c, leases[2]);
        see_waiting(c, third, 3);
        // Its own lease is gone: it learns so when it is its turn.
        c.lease_revoke([leases[1]; 2]);
        c.range(list(c, ""));
        c.call_expect_silence(third);
        unlock(c, leases[0]);
        finish(c, second);
        finish(c, third);
        c.range(list(c, ""));
        revoke(c, &leases);
    });
    corpus.case("lock/the-waiter-is-cancelled", |c| {
        let leases = [LEASE + 40, LEASE + 41, LEASE + 42];
        grant(c, &leases);
        acquire(c, "l", leases[0]);
        let second = lock_waiting(c, leases[1]);
        see_waiting(c, second, 2);
        let third = lock_waiting(c, leases[2]);
        see_waiting(c, third, 3);
        c.call_cancel(second);
        // It takes its key away, and who comes after it goes on waiting.
        see_waiting(c, third, 2);
        unlock(c, leases[0]);
        finish(c, third);
        c.range(list(c, ""));
        revoke(c, &leases);
    });
    corpus.case("lock/the-waiter-has-no-more-time", |c| {
        let leases = [LEASE + 50, LEASE + 51];
        grant(c, &leases);
        acquire(c, "l", leases[0]);
        let waiter = c.call_open(LOCK, &[("grpc-timeout", b"300m")]);
        let request = lock::LockRequest { name: c.key("l"), lease: leases[1] };
        c.call_send(waiter, &request);
        c.call_half_close(waiter);
        finish(c, waiter);
        let request = list(c, "");
        c.range_until(request, 1);
        revoke(c, &leases);
    });
    corpus.case("lock/twice-on-one-lease-while-another-waits", |c| {
        let leases = [LEASE + 60, LEASE + 61];
        grant(c, &leases);
        acquire(c, "l", leases[0]);
        let waiter = lock_waiting(c, leases[1]);
        see_waiting(c, waiter, 2);
        // A second call on the lease that waits waits for the same.
        let again = lock_waiting(c, leases[1]);
        acquire(c, "l", leases[0]);
        see_waiting(c, again, 2);
        unlock(c, leases[0]);
        finish(c, waiter);
        finish(c, again);
        c.range(list(c, ""));
        revoke(c, &leases);
    });
    corpus.case("lock/a-key-of-another-hand-comes-first", |c| {
        c.lease_grant(LEASE + 70, 500);
        let request = put(c, "l/0-not-a-lease", "v");
        c.put(request);
        let waiter = lock_waiting(c, LEASE + 70);
        see_waiting(c, waiter, 2);
        c.delete(delete_all(c, "l/0"));
        finish(c, waiter);
        c.lease_revoke([LEASE + 70; 2]);
    });
}

fn add_campaigns(corpus: &mut Corpus) {
    corpus.case("election/waits-for-resign", |c| {
        let leases = [LEASE + 100, LEASE + 101];
        grant(c, &leases);
        let key = campaign(c, leases[0], "first").etcd().leader;
        let waiter = campaign_waiting(c, leases[1], "second");
        see_waiting(c, waiter, 2);
        leader(c);
        proclaim(c, key.clone(), "first again");
        c.call_expect_silence(waiter);
        resign(c, key);
        finish(c, waiter);
        leader(c);
        c.range(list(c, ""));
        revoke(c, &leases);
        leader(c);
    });
    corpus.case("election/waits-for-revoke", |c| {
        let leases = [LEASE + 110, LEASE + 111];
        grant(c, &leases);
        campaign(c, leases[0], "first");
        let waiter = campaign_waiting(c, leases[1], "second");
        see_waiting(c, waiter, 2);
        c.lease_revoke([leases[0]; 2]);
        finish(c, waiter);
        leader(c);
        revoke(c, &leases[1..]);
    });
    corpus.case("election/the-waiter-is-cancelled", |c| {
        let leases = [LEASE + 120, LEASE + 121, LEASE + 122];
        grant(c, &leases);
        let key = campaign(c, leases[0], "first").etcd().leader;
        let second = campaign_waiting(c, leases[1], "second");
        see_waiting(c, second, 2);
        let third = campaign_waiting(c, leases[2], "third");
        see_waiting(c, third, 3);
        c.call_cancel(second);
        see_waiting(c, third, 2);
        resign(c, key);
        finish(c, third);
        leader(c);
        revoke(c, &leases);
    });
    corpus.case("election/the-waiters-lease-goes", |c| {
        let leases = [LEASE + 130, LEASE + 131];
        grant(c, &leases);
        let key = campaign(c, leases[0], "first").etcd().leader;
        let waiter = campaign_waiting(c, leases[1], "second");
        see_waiting(c, waiter, 2);
        c.lease_revoke([leases[1]; 2]);
        c.call_expect_silence(waiter);
        resign(c, key);
        finish(c, waiter);
        leader(c);
        revoke(c, &leases[..1]);
    });
    corpus.case("election/the-waiter-campaigns-with-another-value", |c| {
        let leases = [LEASE + 140, LEASE + 141];
        grant(c, &leases);
        let first = campaign(c, leases[0], "first").etcd().leader;
        let one = campaign_waiting(c, leases[1], "one");
        see_waiting(c, one, 2);
        let other = campaign_waiting(c, leases[1], "other");
        // It has put its value over the first's.
        let name = format!("e/{:x}", leases[1]);
        let request = super::get(c, &name);
        c.ask_until("/etcdserverpb.KV/Range", &request, &|answer: &super::pb::RangeResponse| {
            answer.kvs.first().is_some_and(|kv| kv.value == b"other")
        });
        c.call_expect_silence(other);
        resign(c, first);
        finish(c, one);
        finish(c, other);
        leader(c);
        c.range(list(c, ""));
        revoke(c, &leases);
    });
}

fn add_expiries(corpus: &mut Corpus) {
    corpus.alone("lock/waits-for-expiry", &[], |c| {
        c.lease_grant(1, 1);
        c.lease_grant(2, 500);
        acquire(c, "l", 1);
        let waiter = lock_waiting(c, 2);
        see_waiting(c, waiter, 2);
        finish(c, waiter);
        c.range(list(c, ""));
    });
    corpus.alone("lock/the-waiters-lease-expires", &[], |c| {
        c.lease_grant(1, 500);
        c.lease_grant(2, 1);
        acquire(c, "l", 1);
        let waiter = lock_waiting(c, 2);
        see_waiting(c, waiter, 2);
        see_waiting(c, waiter, 1);
        unlock(c, 1);
        finish(c, waiter);
    });
    corpus.alone("election/waits-for-expiry", &[], |c| {
        c.lease_grant(1, 1);
        c.lease_grant(2, 500);
        campaign(c, 1, "first");
        let waiter = campaign_waiting(c, 2, "second");
        see_waiting(c, waiter, 2);
        finish(c, waiter);
        leader(c);
    });
}

fn observe(c: &mut Conversation<'_>, name: &str) -> CallId {
    let request = election::LeaderRequest { name: c.key(name) };
    c.call_begin(OBSERVE, &request)
}

fn add_observers(corpus: &mut Corpus) {
    corpus.case("election/observe-a-leader-and-its-words", |c| {
        c.lease_grant(LEASE + 200, 500);
        let key = campaign(c, LEASE + 200, "first").etcd().leader;
        let observer = observe(c, "e");
        c.call_wait(observer, 1);
        for value in ["second", "", "third"] {
            proclaim(c, key.clone(), value);
            c.call_wait(observer, 1);
        }
        let request = put(c, "other", "v");
        c.put(request);
        // A second observer hears where things stand now.
        let late = observe(c, "e");
        c.call_wait(late, 1);
        c.call_expect_silence(observer);
        c.call_cancel(observer);
        proclaim(c, key, "fourth");
        c.call_wait(late, 1);
        c.lease_revoke([LEASE + 200; 2]);
    });
    corpus.case("election/observe-one-leader-after-the-other", |c| {
        let leases = [LEASE + 210, LEASE + 211, LEASE + 212];
        grant(c, &leases);
        let first = campaign(c, leases[0], "first").etcd().leader;
        let waiters =
            [(leases[1], "second", 2), (leases[2], "third", 3)].map(|(lease, value, count)| {
                let waiter = campaign_waiting(c, lease, value);
                see_waiting(c, waiter, count);
                waiter
            });
        let observer = observe(c, "e");
        c.call_wait(observer, 1);
        resign(c, first);
        finish(c, waiters[0]);
        c.call_wait(observer, 1);
        c.lease_revoke([leases[1]; 2]);
        finish(c, waiters[1]);
        c.call_wait(observer, 1);
        c.lease_revoke([leases[2]; 2]);
        c.call_expect_silence(observer);
        revoke(c, &leases[..1]);
    });
    corpus.case("election/observe-before-there-is-a-leader", |c| {
        c.lease_grant(LEASE + 220, 500);
        let observer = observe(c, "e");
        leader(c);
        c.call_expect_silence(observer);
        let key = campaign(c, LEASE + 220, "first").etcd().leader;
        c.call_wait(observer, 1);
        proclaim(c, key.clone(), "second");
        c.call_wait(observer, 1);
        resign(c, key);
        c.call_expect_silence(observer);
        campaign(c, LEASE + 220, "again");
        c.call_wait(observer, 1);
        c.lease_revoke([LEASE + 220; 2]);
    });
    corpus.case("election/observe-what-is-put-without-an-election", |c| {
        let observer = observe(c, "e");
        let request = put(c, "e/anything", "v");
        c.put(request.clone());
        c.call_wait(observer, 1);
        c.put(request);
        c.call_wait(observer, 1);
        c.delete(delete_all(c, "e/"));
        c.call_expect_silence(observer);
    });
    corpus.case("election/observe-with-no-more-time", |c| {
        let observer = c.call_open(OBSERVE, &[("grpc-timeout", b"200m")]);
        let request = election::LeaderRequest { name: c.key("e") };
        c.call_send(observer, &request);
        c.call_half_close(observer);
        c.call_wait_end(observer);
    });
}
