//! Watch: which events come, in which order, with what in them.

use super::super::conversation::Conversation;
use super::super::watching::WatchId;
use super::super::wire::etcdserverpb as pb;
use super::{Corpus, delete, delete_all, furnish, list, op, put, then};

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_ranges(corpus);
    add_options(corpus);
    add_starts(corpus);
    add_streams(corpus);
    add_pasts(corpus);
    add_orders(corpus);
}

/// A watch of all keys of this case that begin with `name`.
pub(super) fn watch_all(c: &Conversation<'_>, name: &str) -> pb::WatchCreateRequest {
    let (key, range_end) = (c.key(name), c.end(name));
    pb::WatchCreateRequest { key, range_end, ..Default::default() }
}

/// Changes of every kind: puts, deletions, transactions, and some that change nothing.
pub(super) fn change(c: &mut Conversation<'_>) {
    furnish(c);
    let request = delete(c, "missing");
    c.delete(request);
    let mixed = vec![
        op::put(put(c, "b", "bramble")),
        op::delete(delete(c, "a")),
        op::range(list(c, "")),
        op::put(put(c, "h", "hazel")),
    ];
    c.txn(then(mixed));
    let request = put(c, "a", "again");
    c.put(request);
    let request = pb::DeleteRangeRequest { range_end: c.key("d"), ..delete(c, "b") };
    c.delete(request);
    // Twice in one revision: by a delete and the put of a sibling.
    let gone = vec![op::delete(delete(c, "d"))];
    let made = vec![op::put(put(c, "i", "ivy"))];
    c.txn(then(vec![op::txn(then(gone)), op::txn(then(made))]));
}

/// A case with one watch that is created before the changes and one that reads them afterwards.
fn watched(
    corpus: &mut Corpus,
    name: String,
    create: impl Fn(&Conversation<'_>) -> pb::WatchCreateRequest + 'static,
) {
    corpus.case(name, move |c| {
        furnish(c);
        let before = c.revision();
        let live = c.watch_open();
        let request = create(c);
        c.watch_create(live, request.clone());
        c.watch_settle(live);
        change(c);
        c.watch_settle(live);
        let late = c.watch_open();
        c.watch_create(late, pb::WatchCreateRequest { start_revision: before + 1, ..request });
        c.watch_wait(late, 1);
        c.watch_catch_up(late);
        change(c);
        for id in [late, live] {
            c.watch_settle(id);
        }
    });
}

fn add_ranges(corpus: &mut Corpus) {
    const RANGES: [(&str, &str, Option<&str>); 8] = [
        ("one-key", "b", None),
        ("one-missing-key", "nothing", None),
        ("one-deleted-key", "g", None),
        ("some", "b", Some("e")),
        ("end-is-exclusive", "a", Some("b")),
        ("all", "", Some("~")),
        ("end-extends-key", "b", Some("b\0")),
        ("past-the-last", "x", Some("y")),
    ];
    for (name, from, to) in RANGES {
        watched(corpus, format!("watch/range-{name}"), move |c| pb::WatchCreateRequest {
            key: c.key(from),
            range_end: to.map(|to| c.key(to)).unwrap_or_default(),
            ..Default::default()
        });
    }
    watched(corpus, "watch/range-from-key-on".to_owned(), |c| pb::WatchCreateRequest {
        key: c.key("c"),
        range_end: vec![0],
        ..Default::default()
    });
    watched(corpus, "watch/range-everything".to_owned(), |_| pb::WatchCreateRequest {
        key: vec![0],
        range_end: vec![0],
        ..Default::default()
    });
    watched(corpus, "watch/range-empty-key-to-the-end".to_owned(), |_| pb::WatchCreateRequest {
        range_end: vec![0],
        ..Default::default()
    });
    watched(corpus, "watch/range-empty-key-to-a-key".to_owned(), |c| pb::WatchCreateRequest {
        range_end: c.key("c"),
        ..Default::default()
    });
}

fn add_options(corpus: &mut Corpus) {
    for prev_kv in [false, true] {
        for (filter_name, filters) in [
            ("no-filter", &[][..]),
            ("noput", &[0]),
            ("nodelete", &[1]),
            ("both", &[0, 1]),
            ("noput-twice", &[0, 0]),
            ("unknown-filter", &[7]),
            ("unknown-and-noput", &[7, 0]),
        ] {
            let suffix = if prev_kv { "-with-prev" } else { "" };
            watched(corpus, format!("watch/filters-{filter_name}{suffix}"), move |c| {
                pb::WatchCreateRequest { prev_kv, filters: filters.into(), ..watch_all(c, "") }
            });
        }
    }
    for (name, fragment, progress_notify) in [
        ("fragment", true, false),
        ("progress-notify", false, true),
        ("fragment-and-notify", true, true),
    ] {
        watched(corpus, format!("watch/option-{name}"), move |c| pb::WatchCreateRequest {
            fragment,
            progress_notify,
            ..watch_all(c, "")
        });
    }
}

fn add_starts(corpus: &mut Corpus) {
    for back in 0..12 {
        for prev_kv in [false, true] {
            let suffix = if prev_kv { "-with-prev" } else { "" };
            corpus.case(format!("watch/start-now-minus-{back}{suffix}"), move |c| {
                change(c);
                let start_revision = c.revision() - back;
                let id = c.watch_open();
                let request =
                    pb::WatchCreateRequest { start_revision, prev_kv, ..watch_all(c, "") };
                c.watch_create(id, request);
                c.watch_wait(id, 1);
                c.watch_catch_up(id);
                change(c);
                c.watch_settle(id);
            });
        }
    }
    for ahead in [1, 2, 5, 10] {
        corpus.case(format!("watch/start-now-plus-{ahead}"), move |c| {
            furnish(c);
            let start_revision = c.revision() + ahead;
            let id = c.watch_open();
            c.watch_create(id, pb::WatchCreateRequest { start_revision, ..watch_all(c, "") });
            c.watch_wait(id, 1);
            change(c);
            c.watch_settle(id);
        });
    }
    for start_revision in [-1, -2, i64::MIN, i64::MAX] {
        corpus.case(format!("watch/start-at-{start_revision}"), move |c| {
            furnish(c);
            let id = c.watch_open();
            c.watch_create(id, pb::WatchCreateRequest { start_revision, ..watch_all(c, "") });
            c.watch_wait(id, 1);
            change(c);
            c.watch_settle(id);
        });
    }
    corpus.case("watch/start-at-one", |c| {
        change(c);
        let id = c.watch_open();
        c.watch_create(id, pb::WatchCreateRequest { start_revision: 1, ..watch_all(c, "") });
        c.watch_wait(id, 1);
        c.watch_catch_up(id);
    });
}

fn add_streams(corpus: &mut Corpus) {
    corpus.case("watch/many-on-one-stream", |c| {
        let id = c.watch_open();
        for key in ["a", "b", "c", "d", "", "e", "b"] {
            let request = if key.is_empty() {
                watch_all(c, "")
            } else {
                pb::WatchCreateRequest { key: c.key(key), ..Default::default() }
            };
            c.watch_create(id, request);
        }
        c.watch_settle(id);
        change(c);
        c.watch_settle(id);
    });
    corpus.case("watch/same-range-on-three-streams", |c| {
        let ids: Vec<WatchId> = (0..3).map(|_| c.watch_open()).collect();
        for id in &ids {
            let request = watch_all(c, "");
            c.watch_create(*id, request);
            c.watch_settle(*id);
        }
        change(c);
        for id in ids {
            c.watch_settle(id);
        }
    });
    corpus.case("watch/past-and-present-on-one-stream", |c| {
        change(c);
        let past = c.revision() - 6;
        let id = c.watch_open();
        for start_revision in [past, 0, past + 3, past + 1] {
            c.watch_create(id, pb::WatchCreateRequest { start_revision, ..watch_all(c, "") });
        }
        c.watch_wait_created(id, 4);
        c.watch_catch_up(id);
        change(c);
        c.watch_settle(id);
    });
    corpus.case("watch/large-values", |c| {
        let id = c.watch_open();
        let request = watch_all(c, "");
        c.watch_create(id, request);
        c.watch_settle(id);
        for size in [1 << 10, 1 << 16, 1 << 20] {
            c.put(pb::PutRequest { value: vec![b'v'; size], ..put(c, "k", "") });
        }
        c.watch_settle(id);
        let late = c.watch_open();
        let start_revision = c.revision() - 3;
        c.watch_create(late, pb::WatchCreateRequest { start_revision, ..watch_all(c, "k") });
        c.watch_wait(late, 1);
        c.watch_catch_up(late);
    });
}

fn add_pasts(corpus: &mut Corpus) {
    corpus.case("watch/a-long-past", |c| {
        let start_revision = c.put(put(c, "first", "")).etcd().header.map_or(0, |it| it.revision);
        for index in 0..1500 {
            let request = put(c, &format!("{}", index % 13), &index.to_string());
            c.put(request);
        }
        let id = c.watch_open();
        let request = watch_all(c, "");
        c.watch_create(id, pb::WatchCreateRequest { start_revision, prev_kv: true, ..request });
        c.watch_wait(id, 1);
        c.watch_catch_up(id);
    });
}

fn add_orders(corpus: &mut Corpus) {
    corpus.case("watch/one-revision-of-many-keys", |c| {
        let id = c.watch_open();
        let request = pb::WatchCreateRequest { prev_kv: true, ..watch_all(c, "") };
        c.watch_create(id, request);
        c.watch_settle(id);
        let puts = (0..100).rev().map(|at| op::put(put(c, &format!("{at:03}"), "v"))).collect();
        c.txn(then(puts));
        c.watch_settle(id);
        c.delete(delete_all(c, "0"));
        c.watch_settle(id);
    });
    corpus.case("watch/deletes-of-overlapping-ranges-in-one-txn", |c| {
        let id = c.watch_open();
        let request = pb::WatchCreateRequest { prev_kv: true, ..watch_all(c, "") };
        c.watch_create(id, request);
        furnish(c);
        let one = op::delete(pb::DeleteRangeRequest { range_end: c.key("b"), ..delete(c, "a") });
        c.txn(then(vec![op::delete(delete(c, "f")), one, op::delete(delete_all(c, ""))]));
        c.watch_settle(id);
    });
    corpus.case("watch/put-then-delete-by-nested-siblings", |c| {
        furnish(c);
        let id = c.watch_open();
        let request = pb::WatchCreateRequest { prev_kv: true, ..watch_all(c, "") };
        c.watch_create(id, request);
        c.watch_settle(id);
        // The rule against duplicates does not see this one: a key changes twice in one revision.
        let made = vec![op::put(put(c, "a", "twice"))];
        let gone =
            pb::DeleteRangeRequest { range_end: c.key("c"), prev_kv: true, ..delete(c, "a") };
        c.txn(then(vec![op::txn(then(made)), op::txn(then(vec![op::delete(gone)]))]));
        c.watch_settle(id);
        c.range(list(c, ""));
        let request = put(c, "a", "after");
        c.put(pb::PutRequest { prev_kv: true, ..request });
        c.watch_settle(id);
        let start_revision = c.revision() - 4;
        let late = c.watch_open();
        let request = pb::WatchCreateRequest { prev_kv: true, start_revision, ..watch_all(c, "") };
        c.watch_create(late, request);
        c.watch_wait(late, 1);
        c.watch_catch_up(late);
    });
    corpus.case("watch/what-changes-nothing-is-not-told", |c| {
        furnish(c);
        let id = c.watch_open();
        let request = watch_all(c, "");
        c.watch_create(id, request);
        c.watch_settle(id);
        let (gone, read) = (delete(c, "missing"), list(c, ""));
        c.delete(gone.clone());
        c.txn(then(vec![op::delete(gone), op::range(read)]));
        let request = pb::PutRequest { lease: 4711, ..put(c, "a", "refused") };
        c.put(request);
        c.watch_settle(id);
    });
}
