//! Lock and Election, which etcd serves through a client of itself: all its errors are Unknown.

use super::super::conversation::{Conversation, Reply};
use super::super::wire::{v3electionpb as election, v3lockpb as lock};
use super::{Corpus, get, list, put};

const LEASE: i64 = 9000;
pub(super) const LOCK: &str = "/v3lockpb.Lock/Lock";
pub(super) const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_locks(corpus);
    add_elections(corpus);
}

pub(super) fn acquire(
    c: &mut Conversation<'_>,
    name: &str,
    lease: i64,
) -> Reply<lock::LockResponse> {
    let name = c.key(name);
    c.ask(LOCK, &lock::LockRequest { name, lease })
}

pub(super) fn release(c: &mut Conversation<'_>, keys: [Vec<u8>; 2]) {
    let requests = keys.map(|key| lock::UnlockRequest { key });
    c.ask_each::<_, lock::UnlockResponse>("/v3lockpb.Lock/Unlock", requests);
}

fn add_locks(corpus: &mut Corpus) {
    corpus.case("lock/acquire-and-release", |c| {
        c.lease_grant(LEASE, 500);
        let keys = acquire(c, "l", LEASE).both.map(|answer| answer.key);
        c.range(list(c, ""));
        // Who holds it already gets it again.
        acquire(c, "l", LEASE);
        release(c, keys.clone());
        release(c, keys);
        c.range(list(c, ""));
        c.lease_revoke([LEASE; 2]);
    });
    corpus.case("lock/on-a-lease-of-the-servers", |c| {
        let keys = acquire(c, "l", 0).both.map(|answer| answer.key);
        c.range(list(c, ""));
        release(c, keys);
    });
    corpus.case("lock/on-an-unknown-lease", |c| {
        acquire(c, "l", 4711);
        acquire(c, "l", -1);
        c.range(list(c, ""));
    });
    corpus.case("lock/two-names", |c| {
        c.lease_grant(LEASE + 1, 500);
        for name in ["one", "two", ""] {
            acquire(c, name, LEASE + 1);
        }
        c.range(list(c, ""));
        c.lease_revoke([LEASE + 1; 2]);
        c.range(list(c, ""));
    });
    corpus.case("lock/release-of-nothing", |c| {
        release(c, [Vec::new(), Vec::new()]);
        let key = c.key("nothing");
        release(c, [key.clone(), key]);
        // There is no check of who holds it.
        let request = put(c, "anything", "v");
        c.put(request);
        let key = c.key("anything");
        release(c, [key.clone(), key]);
        c.range(get(c, "anything"));
    });
}

pub(super) fn campaign(
    c: &mut Conversation<'_>,
    lease: i64,
    value: &str,
) -> Reply<election::CampaignResponse> {
    let name = c.key("e");
    let request = election::CampaignRequest { name, lease, value: value.into() };
    c.ask(CAMPAIGN, &request)
}

pub(super) fn leader(c: &mut Conversation<'_>) {
    let name = c.key("e");
    let request = election::LeaderRequest { name };
    let _: Reply<election::LeaderResponse> = c.ask("/v3electionpb.Election/Leader", &request);
}

pub(super) fn proclaim(c: &mut Conversation<'_>, leader: Option<election::LeaderKey>, value: &str) {
    let request = election::ProclaimRequest { leader, value: value.into() };
    let _: Reply<election::ProclaimResponse> = c.ask("/v3electionpb.Election/Proclaim", &request);
}

pub(super) fn resign(c: &mut Conversation<'_>, leader: Option<election::LeaderKey>) {
    let request = election::ResignRequest { leader };
    let _: Reply<election::ResignResponse> = c.ask("/v3electionpb.Election/Resign", &request);
}

fn add_elections(corpus: &mut Corpus) {
    corpus.case("election/campaign-proclaim-resign", |c| {
        leader(c);
        c.lease_grant(LEASE + 2, 500);
        let key = campaign(c, LEASE + 2, "first").etcd().leader;
        leader(c);
        proclaim(c, key.clone(), "second");
        leader(c);
        // Who leads already proclaims its other value.
        campaign(c, LEASE + 2, "third");
        campaign(c, LEASE + 2, "third");
        leader(c);
        c.range(list(c, ""));
        resign(c, key.clone());
        leader(c);
        proclaim(c, key.clone(), "too late");
        resign(c, key);
        c.range(list(c, ""));
        c.lease_revoke([LEASE + 2; 2]);
    });
    corpus.case("election/on-an-unknown-lease", |c| {
        campaign(c, 4711, "v");
        leader(c);
    });
    corpus.case("election/without-a-leader-field", |c| {
        proclaim(c, None, "v");
        resign(c, None);
    });
    corpus.case("election/with-a-wrong-revision", |c| {
        c.lease_grant(LEASE + 3, 500);
        let key = campaign(c, LEASE + 3, "v").etcd().leader;
        let wrong = key.map(|key| election::LeaderKey { rev: key.rev - 1, ..key });
        proclaim(c, wrong.clone(), "w");
        resign(c, wrong);
        leader(c);
        c.lease_revoke([LEASE + 3; 2]);
        leader(c);
    });
    corpus.case("election/with-an-empty-leader", |c| {
        proclaim(c, Some(election::LeaderKey::default()), "v");
        resign(c, Some(election::LeaderKey::default()));
    });
}
