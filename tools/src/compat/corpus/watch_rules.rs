//! Watch: ids, refusals, cancelling, progress, compaction, the stream's own end.

use bytes::Bytes;

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb as pb;
use super::watch::{change, watch_all};
use super::{Corpus, delete_all, furnish, put};

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_ids(corpus);
    add_refusals(corpus);
    add_cancels(corpus);
    add_progress(corpus);
    add_notifications(corpus);
    add_stream_ends(corpus);
    add_compactions(corpus);
}

/// Creates a watch of all keys under an id.
fn create(c: &Conversation<'_>, watch_id: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { watch_id, ..watch_all(c, "") }
}

fn add_ids(corpus: &mut Corpus) {
    const IDS: [(&str, &[i64]); 12] = [
        ("assigned", &[0, 0, 0]),
        ("given", &[7, 5, 1]),
        ("given-then-assigned", &[0, 1, 0, 0]),
        ("given-in-the-way-of-the-next", &[1, 2, 0, 0, 0]),
        ("duplicate", &[7, 7, 8]),
        ("duplicate-of-assigned", &[0, 0, 1, 0]),
        ("negative", &[-1, -2, 0]),
        ("negative-duplicate", &[-5, -5]),
        ("minus-one-twice", &[-1, -1]),
        ("largest", &[i64::MAX, 0]),
        ("smallest", &[i64::MIN, 0]),
        ("many-duplicates", &[3, 3, 3, 0, 3, 0]),
    ];
    for (name, ids) in IDS {
        corpus.case(format!("watch/ids-{name}"), move |c| {
            let id = c.watch_open();
            for watch_id in ids {
                let request = create(c, *watch_id);
                c.watch_create(id, request);
            }
            c.watch_wait(id, ids.len());
            furnish(c);
            c.watch_settle(id);
        });
    }
    corpus.case("watch/ids-after-a-cancel", |c| {
        let id = c.watch_open();
        for watch_id in [0, 0, 5] {
            let request = create(c, watch_id);
            c.watch_create(id, request);
        }
        c.watch_wait(id, 3);
        for watch_id in [0, 5] {
            c.watch_cancel(id, watch_id);
        }
        c.watch_wait(id, 2);
        for watch_id in [0, 5, 0] {
            let request = create(c, watch_id);
            c.watch_create(id, request);
        }
        c.watch_wait(id, 3);
        furnish(c);
        c.watch_settle(id);
    });
}

fn add_refusals(corpus: &mut Corpus) {
    const ENDS: [(&str, &str, &str); 4] =
        [("equal", "b", "b"), ("backward", "c", "b"), ("shorter", "bb", "b"), ("far", "z", "a")];
    for (name, from, to) in ENDS {
        for start_revision in [0, 1, -1] {
            corpus.case(format!("watch/refused-range-{name}-from-{start_revision}"), move |c| {
                let id = c.watch_open();
                let (key, range_end) = (c.key(from), c.key(to));
                let request = pb::WatchCreateRequest { key, range_end, ..Default::default() };
                c.watch_create(id, pb::WatchCreateRequest { start_revision, ..request });
                c.watch_wait(id, 1);
                furnish(c);
                c.watch_settle(id);
            });
        }
    }
    corpus.case("watch/refused-then-created", |c| {
        let id = c.watch_open();
        let backward =
            pb::WatchCreateRequest { key: c.key("b"), range_end: c.key("a"), ..Default::default() };
        for watch_id in [0, 4, 0] {
            c.watch_create(id, pb::WatchCreateRequest { watch_id, ..backward.clone() });
            let request = create(c, watch_id);
            c.watch_create(id, request);
        }
        c.watch_wait(id, 6);
        furnish(c);
        c.watch_settle(id);
    });
    corpus.case("watch/refused-for-two-reasons", |c| {
        let id = c.watch_open();
        let request = create(c, 4);
        c.watch_create(id, request);
        let backward =
            pb::WatchCreateRequest { key: c.key("b"), range_end: c.key("a"), ..create(c, 4) };
        c.watch_create(id, backward.clone());
        c.watch_create(id, pb::WatchCreateRequest { start_revision: -1, ..backward });
        let request = pb::WatchCreateRequest { start_revision: -1, ..create(c, 4) };
        c.watch_create(id, request);
        c.watch_wait(id, 4);
    });
    corpus.case("watch/request-without-a-kind", |c| {
        let id = c.watch_open();
        c.watch_send(id, &pb::WatchRequest { request_union: None });
        let request = create(c, 0);
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        furnish(c);
        c.watch_settle(id);
    });
    corpus.case("watch/request-that-is-no-message", |c| {
        let id = c.watch_open();
        let request = create(c, 0);
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        c.watch_send_bytes(id, &Bytes::from_static(&[0xff, 0xff, 0xff]));
        // Only the stream's end comes.
        c.watch_wait(id, 1);
    });
    corpus.case("watch/request-with-unknown-fields", |c| {
        let id = c.watch_open();
        // Field 99 of the outer message, then a request for everything.
        c.watch_send_bytes(id, &Bytes::from_static(&[0x9a, 0x06, 1, 7, 0x0a, 3, 0x12, 1, 0]));
        c.watch_wait(id, 1);
        furnish(c);
        c.watch_settle(id);
    });
}

fn add_cancels(corpus: &mut Corpus) {
    corpus.case("watch/cancel", |c| {
        let id = c.watch_open();
        let request = create(c, 0);
        c.watch_create(id, request);
        furnish(c);
        c.watch_settle(id);
        c.watch_cancel(id, 0);
        c.watch_wait(id, 1);
        furnish(c);
        c.watch_settle(id);
    });
    corpus.case("watch/cancel-unknown", |c| {
        let id = c.watch_open();
        for watch_id in [0, 1, -1, 99] {
            c.watch_cancel(id, watch_id);
        }
        let request = create(c, 0);
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        c.watch_settle(id);
    });
    corpus.case("watch/cancel-twice", |c| {
        let id = c.watch_open();
        let request = create(c, 3);
        c.watch_create(id, request);
        for _ in 0..2 {
            c.watch_cancel(id, 3);
        }
        c.watch_wait(id, 2);
        c.watch_settle(id);
    });
    corpus.case("watch/cancel-one-of-two", |c| {
        let id = c.watch_open();
        for watch_id in [1, 2] {
            let request = create(c, watch_id);
            c.watch_create(id, request);
        }
        c.watch_cancel(id, 1);
        c.watch_wait(id, 3);
        furnish(c);
        c.watch_settle(id);
    });
    corpus.case("watch/cancel-what-waits-for-the-future", |c| {
        let id = c.watch_open();
        let start_revision = c.put(put(c, "a", "")).etcd().header.map_or(0, |it| it.revision) + 3;
        c.watch_create(id, pb::WatchCreateRequest { start_revision, ..create(c, 1) });
        c.watch_wait(id, 1);
        c.watch_cancel(id, 1);
        c.watch_wait(id, 1);
        furnish(c);
        c.watch_settle(id);
    });
    corpus.case("watch/cancel-and-create-again", |c| {
        let id = c.watch_open();
        for round in 0..5 {
            let request = create(c, 1);
            c.watch_create(id, request);
            c.watch_wait(id, 1);
            let request = put(c, "a", &round.to_string());
            c.put(request);
            c.watch_settle(id);
            c.watch_cancel(id, 1);
            c.watch_wait(id, 1);
        }
    });
}

fn add_progress(corpus: &mut Corpus) {
    corpus.case("watch/progress-of-one", |c| {
        furnish(c);
        let id = c.watch_open();
        let request = create(c, 0);
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        c.watch_progress(id);
        c.watch_wait(id, 1);
        furnish(c);
        c.watch_settle(id);
        c.watch_progress(id);
        c.watch_wait(id, 1);
    });
    corpus.case("watch/progress-of-several", |c| {
        let id = c.watch_open();
        for watch_id in [4, 2, 9] {
            let request = create(c, watch_id);
            c.watch_create(id, request);
        }
        c.watch_wait(id, 3);
        furnish(c);
        c.watch_settle(id);
        for _ in 0..3 {
            c.watch_progress(id);
        }
        c.watch_wait(id, 3);
    });
    corpus.case("watch/progress-of-an-empty-stream", |c| {
        let id = c.watch_open();
        c.watch_progress(id);
        let request = create(c, 0);
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        c.watch_settle(id);
    });
    corpus.case("watch/progress-after-all-are-cancelled", |c| {
        let id = c.watch_open();
        let request = create(c, 2);
        c.watch_create(id, request);
        c.watch_cancel(id, 2);
        c.watch_wait(id, 2);
        c.watch_progress(id);
        c.watch_settle(id);
    });
    corpus.case("watch/progress-while-one-waits-for-the-future", |c| {
        furnish(c);
        let start_revision = c.revision() + 1000;
        let id = c.watch_open();
        let request = create(c, 1);
        c.watch_create(id, request);
        c.watch_create(id, pb::WatchCreateRequest { start_revision, ..create(c, 2) });
        c.watch_wait(id, 2);
        c.watch_progress(id);
        c.watch_settle(id);
    });
    corpus.case("watch/progress-of-a-filtered-watch", |c| {
        let id = c.watch_open();
        let filters = vec![0, 1];
        let request = pb::WatchCreateRequest { filters, ..create(c, 0) };
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        furnish(c);
        c.watch_settle(id);
        c.watch_progress(id);
        c.watch_wait(id, 1);
    });
}

fn add_notifications(corpus: &mut Corpus) {
    // Every 100 ms: the watch is idle, and what comes has no events.
    const OFTEN: &[&str] = &["--watch-progress-notify-interval", "100ms"];
    corpus.alone("watch/progress-notify-when-idle", OFTEN, |c| {
        furnish(c);
        let id = c.watch_open();
        let request = pb::WatchCreateRequest { progress_notify: true, ..create(c, 0) };
        c.watch_create(id, request);
        // How many come is chance; the first is compared.
        c.watch_wait_created(id, 1);
        c.watch_wait_first(id, 2);
    });
}

fn add_stream_ends(corpus: &mut Corpus) {
    corpus.case("watch/half-close-keeps-the-watches", |c| {
        let id = c.watch_open();
        let request = create(c, 0);
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        c.watch_half_close(id);
        let request = put(c, "a", "v");
        c.put(request);
        c.watch_wait_events(id, 1);
        c.delete(delete_all(c, ""));
        c.watch_wait_events(id, 1);
    });
    corpus.case("watch/has-leader-is-no-hindrance", |c| {
        let id = c.watch_open_with(&[("hasleader", b"true")]);
        let request = create(c, 0);
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        furnish(c);
        c.watch_settle(id);
    });
}

fn add_compactions(corpus: &mut Corpus) {
    for back in [0, 1, 3] {
        for below in [-1, 0, 1, 2, 5] {
            let name = format!("watch/compacted-at-now-minus-{back}-start-{below}-below");
            corpus.alone(name, &[], move |c| {
                change(c);
                let compacted = c.revision() - back;
                c.compact(compacted, true);
                let id = c.watch_open();
                let start_revision = compacted - below;
                let request = pb::WatchCreateRequest { prev_kv: true, ..create(c, 0) };
                c.watch_create(id, pb::WatchCreateRequest { start_revision, ..request });
                if below > 0 {
                    c.watch_wait(id, 2);
                } else {
                    c.watch_wait(id, 1);
                    if start_revision <= c.revision() {
                        c.watch_catch_up(id);
                    }
                }
                change(c);
                c.watch_settle(id);
            });
        }
    }
    corpus.alone("watch/compacted-one-of-two", &[], |c| {
        change(c);
        c.compact(c.revision() - 3, true);
        let id = c.watch_open();
        let request = create(c, 1);
        c.watch_create(id, request);
        c.watch_create(id, pb::WatchCreateRequest { start_revision: 1, ..create(c, 2) });
        c.watch_wait_created(id, 2);
        c.watch_wait_compacted(id, 1);
        change(c);
        c.watch_settle(id);
        // The id is free again, or is it?
        let request = create(c, 2);
        c.watch_create(id, request);
        c.watch_wait(id, 1);
        c.watch_cancel(id, 2);
        c.watch_wait(id, 1);
        c.watch_settle(id);
    });
    corpus.alone("watch/compacted-then-cancelled", &[], |c| {
        change(c);
        c.compact(c.revision() - 3, true);
        let id = c.watch_open();
        c.watch_create(id, pb::WatchCreateRequest { start_revision: 2, ..create(c, 6) });
        c.watch_wait(id, 2);
        c.watch_cancel(id, 6);
        c.watch_settle(id);
    });
    corpus.alone("watch/compaction-under-a-live-watch", &[], |c| {
        let id = c.watch_open();
        let request = pb::WatchCreateRequest { prev_kv: true, ..create(c, 0) };
        c.watch_create(id, request);
        c.watch_settle(id);
        for _ in 0..3 {
            change(c);
            c.watch_settle(id);
            c.compact(c.revision(), true);
        }
    });
}
