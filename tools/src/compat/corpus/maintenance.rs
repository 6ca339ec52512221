//! Maintenance, Cluster and Auth, as far as one member without auth answers them.

use bytes::Bytes;
use prost::Message;

use super::super::conversation::Conversation;
use super::super::servers::PEER_URL;
use super::super::wire::{self, etcdserverpb as pb};
use super::{Corpus, delete, furnish, get, list, op, put, then};

const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";

/// Asks without caring for the answer.
#[allow(clippy::needless_pass_by_value, reason = "a case makes a request to send it")]
fn ask<Q: Message, A: Message + Default>(c: &mut Conversation<'_>, path: &str, request: Q) -> A {
    c.ask(path, &request).etcd()
}

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_status(corpus);
    add_alarms(corpus);
    add_members(corpus);
    add_upkeep(corpus);
    add_auth(corpus);
    add_quota(corpus);
}

fn add_status(corpus: &mut Corpus) {
    corpus.case("status/of-a-member", |c| {
        // The storage version is written some seconds after the start, so that both have one only
        // after a while: asked for where nothing else is compared, in a case of its own.
        let request = put(c, "a", "v");
        c.put(request);
        c.ask_until::<_, pb::StatusResponse>(STATUS, &pb::StatusRequest {}, &|status| {
            !status.storage_version.is_empty()
        });
    });
    corpus.case("status/hash-has-a-header", |c| {
        ask::<_, pb::HashResponse>(c, "/etcdserverpb.Maintenance/Hash", pb::HashRequest {});
    });
    for (name, quota) in [
        ("set", &["--quota-backend-bytes", "123456789"][..]),
        ("off", &["--quota-backend-bytes", "-1"]),
        ("zero", &["--quota-backend-bytes", "0"]),
    ] {
        corpus.alone(format!("status/quota-{name}"), quota, |c| {
            c.ask_until::<_, pb::StatusResponse>(STATUS, &pb::StatusRequest {}, &|status| {
                !status.storage_version.is_empty()
            });
        });
    }
}

fn alarm(c: &mut Conversation<'_>, action: i32, member_id: u64, alarm: i32) {
    ask::<_, pb::AlarmResponse>(c, ALARM, pb::AlarmRequest { action, member_id, alarm });
}

fn add_alarms(corpus: &mut Corpus) {
    corpus.case("alarm/get-when-there-is-none", |c| {
        for kind in [0, 1, 2, 9, -1] {
            alarm(c, 0, 0, kind);
        }
        alarm(c, 0, 4711, 1);
    });
    corpus.alone("alarm/raise-and-lower", &[], |c| {
        let member_id = c.range(get(c, "a")).etcd().header.map_or(0, |header| header.member_id);
        for member_id in [member_id, 4711, 0] {
            for kind in [0, 1] {
                alarm(c, 2, member_id, kind);
                alarm(c, 1, member_id, kind);
                alarm(c, 1, member_id, kind);
                alarm(c, 0, 0, 0);
                alarm(c, 0, 0, kind);
                alarm(c, 2, member_id, kind);
                alarm(c, 2, member_id, kind);
                alarm(c, 0, 0, 0);
            }
        }
    });
    corpus.alone("alarm/no-space-refuses", &[], |c| {
        furnish(c);
        let member_id = c.range(get(c, "a")).etcd().header.map_or(0, |header| header.member_id);
        alarm(c, 1, member_id, 1);
        refused_and_allowed(c);
        alarm(c, 2, member_id, 1);
        let request = put(c, "a", "after");
        c.put(request);
    });
    corpus.alone("alarm/corrupt-refuses", &[], |c| {
        furnish(c);
        let member_id = c.range(get(c, "a")).etcd().header.map_or(0, |header| header.member_id);
        alarm(c, 1, member_id, 2);
        refused_and_allowed(c);
        alarm(c, 2, member_id, 2);
        let request = put(c, "a", "after");
        c.put(request);
    });
}

/// One of each kind of request, well-formed and not.
fn refused_and_allowed(c: &mut Conversation<'_>) {
    let request = put(c, "a", "v");
    c.put(request);
    c.put(pb::PutRequest::default());
    let request = pb::PutRequest { ignore_value: true, ..put(c, "missing", "") };
    c.put(request);
    c.range(list(c, ""));
    c.range(pb::RangeRequest { serializable: true, ..list(c, "") });
    let (read, made, gone) = (get(c, "a"), put(c, "a", "v"), delete(c, "b"));
    c.txn(then(vec![op::range(read.clone())]));
    c.txn(then(vec![op::put(made.clone())]));
    c.txn(pb::TxnRequest { failure: vec![op::put(made.clone())], ..Default::default() });
    c.txn(then(vec![op::txn(then(vec![op::put(made)]))]));
    c.txn(then(vec![op::delete(gone.clone()), op::range(read)]));
    c.delete(gone);
    let middle = c.revision() - 1;
    c.compact(middle, true);
    c.lease_grant(4711, 9_000_000_001);
    c.lease_grant(4711, 500);
    c.lease_revoke([4711, 4711]);
    c.hash_kv(0);
    ask::<_, pb::StatusResponse>(c, STATUS, pb::StatusRequest {}).errors.clear();
}

fn add_members(corpus: &mut Corpus) {
    for linearizable in [false, true] {
        corpus.case(format!("members/list-linearizable-{linearizable}"), move |c| {
            let request = pb::MemberListRequest { linearizable };
            ask::<_, pb::MemberListResponse>(c, MEMBER_LIST, request);
        });
    }
    let adding = |urls: &'static [&'static str]| {
        move |c: &mut Conversation<'_>| {
            let add = "/etcdserverpb.Cluster/MemberAdd";
            for is_learner in [false, true] {
                let peer_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
                let request = pb::MemberAddRequest { peer_ur_ls, is_learner };
                ask::<_, pb::MemberAddResponse>(c, add, request);
            }
        }
    };
    for (name, urls) in [
        ("no-urls", &[][..]),
        ("nonsense", &["nonsense"]),
        ("one-wrong-url-of-two", &["http://a:1", "ftp://b"]),
    ] {
        corpus.case(format!("members/add-{name}"), adding(urls));
    }
    // A cluster answers by how long its members have been connected: tests/cluster waits for that.
    corpus.lone("members/add-a-url-that-is-taken", adding(&[PEER_URL]));
    let remove = "/etcdserverpb.Cluster/MemberRemove";
    let promote = "/etcdserverpb.Cluster/MemberPromote";
    corpus.case("members/remove-unknown", move |c| {
        let request = pb::MemberRemoveRequest { id: 4711 };
        ask::<_, pb::MemberRemoveResponse>(c, remove, request);
    });
    corpus.lone("members/remove-the-only-one", move |c| {
        let id = c.range(get(c, "a")).etcd().header.map_or(0, |header| header.member_id);
        ask::<_, pb::MemberRemoveResponse>(c, remove, pb::MemberRemoveRequest { id });
    });
    corpus.case("members/promote-unknown", move |c| {
        let request = pb::MemberPromoteRequest { id: 4711 };
        ask::<_, pb::MemberPromoteResponse>(c, promote, request);
    });
    corpus.case("members/promote-a-voter", move |c| {
        let id = c.range(get(c, "a")).etcd().header.map_or(0, |header| header.member_id);
        ask::<_, pb::MemberPromoteResponse>(c, promote, pb::MemberPromoteRequest { id });
    });
    corpus.case("members/update-unknown", |c| {
        let update = "/etcdserverpb.Cluster/MemberUpdate";
        let peer_ur_ls = vec!["http://localhost:4711".to_owned()];
        let request = pb::MemberUpdateRequest { id: 4711, peer_ur_ls };
        ask::<_, pb::MemberUpdateResponse>(c, update, request);
    });
}

fn add_upkeep(corpus: &mut Corpus) {
    corpus.case("maintenance/defragment", |c| {
        furnish(c);
        let path = "/etcdserverpb.Maintenance/Defragment";
        ask::<_, pb::DefragmentResponse>(c, path, pb::DefragmentRequest {});
        c.range(list(c, ""));
    });
    corpus.case("maintenance/move-leader", |c| {
        let path = "/etcdserverpb.Maintenance/MoveLeader";
        let own = c.range(get(c, "a")).etcd().header.map_or(0, |header| header.member_id);
        for target_id in [0, 4711, own] {
            ask::<_, pb::MoveLeaderResponse>(c, path, pb::MoveLeaderRequest { target_id });
        }
    });
    corpus.case("maintenance/downgrade", |c| {
        let path = "/etcdserverpb.Maintenance/Downgrade";
        for action in [0, 1, 2, 9] {
            for version in ["", "nonsense", "3.7.1", "3.8.0", "3.5.0", "3.4"] {
                let request = pb::DowngradeRequest { action, version: version.to_owned() };
                ask::<_, pb::DowngradeResponse>(c, path, request);
            }
        }
    });
    corpus.alone("maintenance/downgrade-of-one-version", &[], |c| {
        let path = "/etcdserverpb.Maintenance/Downgrade";
        for action in [0, 1, 1, 2, 2] {
            let request = pb::DowngradeRequest { action, version: "3.6.0".to_owned() };
            ask::<_, pb::DowngradeResponse>(c, path, request);
        }
    });
    corpus.case("maintenance/snapshot", |c| {
        furnish(c);
        let path = "/etcdserverpb.Maintenance/Snapshot";
        ask::<_, pb::SnapshotResponse>(c, path, pb::SnapshotRequest {});
    });
}

fn add_auth(corpus: &mut Corpus) {
    corpus.case("auth/nobody-is-asked-for-a-password", |c| {
        let path = "/etcdserverpb.Auth/Authenticate";
        for (name, password) in [("a", "b"), ("root", ""), ("", "")] {
            let (name, password) = (name.to_owned(), password.to_owned());
            let request = pb::AuthenticateRequest { name, password };
            ask::<_, pb::AuthenticateResponse>(c, path, request);
        }
    });
    // Each RPC has a case of its own, so that each is seen to be missing or is compared.
    for path in wire::paths().into_iter().filter(|path| path.starts_with("/etcdserverpb.Auth/")) {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        corpus.case(format!("auth/while-it-is-off-{name}"), move |c| {
            // All fields unset: of no user, no role and no permission.
            c.ask_with::<()>(&path, [Bytes::new(), Bytes::new()], &[]);
        });
    }
}

/// Fills a small quota. When exactly it is full depends on the file's format; what is refused then
/// does not.
fn add_quota(corpus: &mut Corpus) {
    corpus.alone("quota/one-request-too-large", &["--quota-backend-bytes", "100000"], |c| {
        let request = pb::PutRequest { value: vec![b'v'; 200_000], ..put(c, "a", "") };
        c.put(request);
        alarm(c, 0, 0, 0);
        refused_and_allowed(c);
    });
    corpus.alone("quota/off", &["--quota-backend-bytes", "-1"], |c| {
        for _ in 0..5 {
            let request = pb::PutRequest { value: vec![b'v'; 200_000], ..put(c, "a", "") };
            c.put(request);
        }
        alarm(c, 0, 0, 0);
    });
}
