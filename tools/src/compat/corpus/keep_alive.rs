//! LeaseKeepAlive as a stream of many messages, and what header fields do to streams.

use bytes::Bytes;

use super::super::calling::CallId;
use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb as pb;
use super::watch::watch_all;
use super::{Corpus, furnish, list, put};

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
/// Leases of these cases; each takes its own.
const LEASE: i64 = 9500;

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_streams(corpus);
    add_stream_renewals(corpus);
    add_ends(corpus);
    add_metadata(corpus);
    add_health(corpus);
}

fn renew(c: &mut Conversation<'_>, id: CallId, lease: i64) {
    c.call_send(id, &pb::LeaseKeepAliveRequest { id: lease });
}

fn add_streams(corpus: &mut Corpus) {
    corpus.case("lease/keep-alive-stream-of-several", |c| {
        for lease in [LEASE, LEASE + 1, LEASE + 2] {
            c.lease_grant(lease, 500 + lease);
        }
        let id = c.call_open(KEEP_ALIVE, &[]);
        for lease in [LEASE, LEASE + 1, LEASE, LEASE + 2, LEASE + 2, LEASE + 1] {
            renew(c, id, lease);
            c.call_wait(id, 1);
        }
        // All at once: they are answered in order.
        for lease in [LEASE + 2, LEASE, LEASE + 1, LEASE] {
            renew(c, id, lease);
        }
        c.call_wait(id, 4);
        for lease in [LEASE, LEASE + 1, LEASE + 2] {
            c.lease_revoke([lease; 2]);
        }
        c.call_half_close(id);
        c.call_wait_end(id);
    });
    corpus.case("lease/keep-alive-stream-of-known-and-unknown", |c| {
        c.lease_grant(LEASE + 10, 500);
        let id = c.call_open(KEEP_ALIVE, &[]);
        for lease in [LEASE + 10, 4711, 0, -1, LEASE + 10, i64::MIN, i64::MAX, LEASE + 10] {
            renew(c, id, lease);
        }
        c.call_wait(id, 8);
        c.lease_revoke([LEASE + 10; 2]);
        renew(c, id, LEASE + 10);
        c.call_wait(id, 1);
        c.lease_grant(LEASE + 10, 700);
        renew(c, id, LEASE + 10);
        c.call_wait(id, 1);
        c.lease_revoke([LEASE + 10; 2]);
    });
    corpus.case("lease/keep-alive-header-between-puts", |c| {
        c.lease_grant(LEASE + 20, 500);
        let id = c.call_open(KEEP_ALIVE, &[]);
        for value in ["one", "two"] {
            let request = put(c, "a", value);
            c.put(pb::PutRequest { lease: LEASE + 20, ..request });
            renew(c, id, LEASE + 20);
            c.call_wait(id, 1);
        }
        c.lease_revoke([LEASE + 20; 2]);
        renew(c, id, LEASE + 20);
        c.call_wait(id, 1);
    });
}

fn add_stream_renewals(corpus: &mut Corpus) {
    corpus.case("lease/keep-alive-two-streams-one-lease", |c| {
        c.lease_grant(LEASE + 30, 500);
        let ids = [c.call_open(KEEP_ALIVE, &[]), c.call_open(KEEP_ALIVE, &[])];
        for _ in 0..3 {
            for id in ids {
                renew(c, id, LEASE + 30);
                c.call_wait(id, 1);
            }
        }
        c.call_cancel(ids[0]);
        renew(c, ids[1], LEASE + 30);
        c.call_wait(ids[1], 1);
        c.lease_revoke([LEASE + 30; 2]);
    });
    corpus.case("lease/keep-alive-of-five-hundred", |c| {
        c.lease_grant(LEASE + 40, 500);
        let id = c.call_open(KEEP_ALIVE, &[]);
        for index in 0..500 {
            renew(c, id, if index % 7 == 0 { 4711 } else { LEASE + 40 });
        }
        c.call_wait(id, 500);
        c.call_half_close(id);
        c.call_wait_end(id);
        c.lease_revoke([LEASE + 40; 2]);
    });
    corpus.case("lease/keep-alive-renews", |c| {
        c.lease_grant(LEASE + 50, 500);
        c.lease_time_to_live([LEASE + 50; 2], false);
        let id = c.call_open(KEEP_ALIVE, &[]);
        renew(c, id, LEASE + 50);
        c.call_wait(id, 1);
        c.lease_time_to_live([LEASE + 50; 2], false);
        c.lease_revoke([LEASE + 50; 2]);
    });
    corpus.alone("lease/keep-alive-of-one-that-expired", &[], |c| {
        let id = c.call_open(KEEP_ALIVE, &[]);
        c.lease_grant(1, 1);
        let request = put(c, "a", "v");
        c.put(pb::PutRequest { lease: 1, ..request });
        renew(c, id, 1);
        c.call_wait(id, 1);
        let request = list(c, "");
        c.range_until(request, 0);
        renew(c, id, 1);
        c.call_wait(id, 1);
        c.lease_grant(1, 500);
        renew(c, id, 1);
        c.call_wait(id, 1);
    });
}

fn add_ends(corpus: &mut Corpus) {
    corpus.case("lease/keep-alive-without-a-message", |c| {
        let id = c.call_open(KEEP_ALIVE, &[]);
        c.call_half_close(id);
        c.call_wait_end(id);
    });
    corpus.case("lease/keep-alive-half-close-at-once", |c| {
        c.lease_grant(LEASE + 60, 500);
        let id = c.call_open(KEEP_ALIVE, &[]);
        for lease in [LEASE + 60, 4711, LEASE + 60] {
            renew(c, id, lease);
        }
        c.call_half_close(id);
        c.call_wait_end(id);
        c.lease_revoke([LEASE + 60; 2]);
    });
    corpus.case("lease/keep-alive-of-what-is-no-message", |c| {
        let id = c.call_open(KEEP_ALIVE, &[]);
        renew(c, id, 4711);
        c.call_wait(id, 1);
        let bytes = Bytes::from_static(&[0xff, 0xff]);
        c.call_send_bytes(id, &[bytes.clone(), bytes]);
        c.call_wait_end(id);
    });
    corpus.case("lease/keep-alive-with-no-more-time", |c| {
        c.lease_grant(LEASE + 70, 500);
        let id = c.call_open(KEEP_ALIVE, &[("grpc-timeout", b"300m")]);
        renew(c, id, LEASE + 70);
        c.call_wait(id, 1);
        c.call_wait_end(id);
        c.lease_revoke([LEASE + 70; 2]);
    });
    corpus.case("watch/with-no-more-time", |c| {
        let id = c.watch_open_with(&[("grpc-timeout", b"300m")]);
        let request = watch_all(c, "");
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        // Only the stream's end comes.
        c.watch_wait(id, 1);
    });
}

/// What a client says in its headers, on each kind of stream.
fn add_metadata(corpus: &mut Corpus) {
    const FIELDS: [(&str, &str, &[u8]); 7] = [
        ("has-leader", "hasleader", b"true"),
        ("has-leader-upper-case", "hasleader", b"TRUE"),
        ("has-leader-false", "hasleader", b"false"),
        ("version", "client-api-version", b"3.7"),
        ("version-old", "client-api-version", b"2.3"),
        ("version-empty", "client-api-version", b""),
        ("version-not-utf-8", "client-api-version", b"3.7\xff"),
    ];
    for (name, field, value) in FIELDS {
        let metadata: &'static [(&'static str, &'static [u8])] = Vec::leak(vec![(field, value)]);
        corpus.case(format!("metadata/keep-alive-{name}"), move |c| {
            let id = c.call_open(KEEP_ALIVE, metadata);
            for lease in [4711, 0] {
                renew(c, id, lease);
            }
            c.call_half_close(id);
            c.call_wait_end(id);
        });
        corpus.case(format!("metadata/watch-{name}"), move |c| {
            let id = c.watch_open_with(metadata);
            let request = watch_all(c, "");
            c.watch_create(id, request);
            c.watch_wait(id, 1);
            if value != b"3.7\xff" {
                furnish(c);
                c.watch_settle(id);
            }
        });
        corpus.case(format!("metadata/range-stream-{name}"), move |c| {
            furnish(c);
            let id = c.call_open(RANGE_STREAM, metadata);
            let request = list(c, "");
            c.call_send(id, &request);
            c.call_half_close(id);
            c.call_wait_end(id);
        });
        corpus.case(format!("metadata/observe-{name}"), move |c| {
            let request = put(c, "e/leader", "v");
            c.put(request);
            let name = c.key("e");
            let id = c.call_open(OBSERVE, metadata);
            c.call_send(id, &super::super::wire::v3electionpb::LeaderRequest { name });
            c.call_half_close(id);
            c.call_wait(id, 1);
        });
    }
    corpus.case("metadata/snapshot-version-not-utf-8", |c| {
        let id = c.call_open(SNAPSHOT, &[("client-api-version", b"\xff")]);
        c.call_send(id, &pb::SnapshotRequest {});
        c.call_half_close(id);
        c.call_wait_end(id);
    });
    corpus.case("metadata/health-version-not-utf-8", |c| {
        use super::super::wire::grpc::health::v1::HealthCheckRequest;
        let id = c.call_open(HEALTH_WATCH, &[("client-api-version", b"\xff")]);
        c.call_send(id, &HealthCheckRequest::default());
        c.call_half_close(id);
        c.call_wait(id, 1);
    });
}

fn add_health(corpus: &mut Corpus) {
    use super::super::wire::grpc::health::v1::HealthCheckRequest;
    for service in ["", "etcdserverpb.KV", "nothing"] {
        let name = if service.is_empty() { "the-server" } else { service };
        corpus.case(format!("health/watch-{name}"), move |c| {
            let id =
                c.call_begin(HEALTH_WATCH, &HealthCheckRequest { service: service.to_owned() });
            c.call_wait(id, 1);
            furnish(c);
            c.call_expect_silence(id);
        });
    }
}
