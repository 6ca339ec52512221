//! Watch fragments: where one revision's events are cut when they are too much for a message.

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb as pb;
use super::watch::watch_all;
use super::{Corpus, delete_all, list, op, put, then};

/// Messages are cut at this and half a mebibyte more.
const SMALL: &[&str] = &["--max-request-bytes", "40000"];
const CUT_BYTES: usize = 40_000 + 512 * 1024;

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_live(corpus);
    add_near_the_limit(corpus);
    add_past(corpus);
    corpus.alone("watch/fragments-of-other-streams-and-none", SMALL, |c| {
        fill(c, 20, 35_000);
        let ids = [true, false, true].map(|fragment| {
            let id = c.watch_open();
            let request = pb::WatchCreateRequest { fragment, prev_kv: true, ..watch_all(c, "") };
            c.watch_create(id, request.clone());
            c.watch_create(id, pb::WatchCreateRequest { prev_kv: false, ..request });
            c.watch_keeps_cuts(id);
            c.watch_wait_created(id, 2);
            id
        });
        c.delete(delete_all(c, ""));
        for id in ids {
            c.watch_settle(id);
        }
    });
}

/// So many keys with values of one size.
fn fill(c: &mut Conversation<'_>, count: usize, size: usize) {
    for index in 0..count {
        let request = put(c, &format!("{index:03}"), "");
        c.put(pb::PutRequest { value: vec![b'v'; size], ..request });
    }
}

/// Watches with fragments, and deletes all keys in one revision: with what was there before, the
/// events are larger than the puts could be.
fn delete_watched(c: &mut Conversation<'_>, fragment: bool, prev_kv: bool) {
    let id = c.watch_open();
    let request = pb::WatchCreateRequest { fragment, prev_kv, ..watch_all(c, "") };
    c.watch_create(id, request);
    c.watch_keeps_cuts(id);
    c.watch_wait(id, 1);
    c.delete(delete_all(c, ""));
    c.watch_settle(id);
    c.range(list(c, ""));
}

fn add_live(corpus: &mut Corpus) {
    for (count, size) in [(4, 35_000), (16, 35_000), (17, 35_000), (40, 35_000), (700, 900)] {
        for (name, fragment, prev_kv) in [
            ("fragments", true, true),
            ("fragments-without-prev", true, false),
            ("no-fragments", false, true),
        ] {
            corpus.alone(format!("watch/{name}-{count}-of-{size}-bytes"), SMALL, move |c| {
                fill(c, count, size);
                delete_watched(c, fragment, prev_kv);
            });
        }
    }
    corpus.alone("watch/fragments-of-a-txn-of-puts", SMALL, |c| {
        fill(c, 20, 35_000);
        let id = c.watch_open();
        let request = pb::WatchCreateRequest { fragment: true, prev_kv: true, ..watch_all(c, "") };
        c.watch_create(id, request);
        c.watch_keeps_cuts(id);
        c.watch_wait(id, 1);
        let puts = (0..20).map(|index| op::put(put(c, &format!("{index:03}"), "small")));
        let puts = puts.collect();
        c.txn(then(puts));
        c.watch_settle(id);
        let filters = vec![0];
        c.watch_create(id, pb::WatchCreateRequest { filters, fragment: true, ..watch_all(c, "") });
        c.watch_settle(id);
        c.delete(delete_all(c, ""));
        c.watch_settle(id);
    });
}

fn add_near_the_limit(corpus: &mut Corpus) {
    // The last of sixteen values is as much larger as leads to the limit, which the frame around
    // the events shifts: so the sizes around it are all tried.
    for step in 0..12 {
        corpus.alone(format!("watch/fragments-near-the-limit-{step}"), SMALL, move |c| {
            const COUNT: usize = 16;
            fill(c, COUNT - 1, 34_000);
            let rest = CUT_BYTES - (COUNT - 1) * 34_000;
            let size = rest - 2600 + step * 160;
            let request = put(c, "~last", "");
            c.put(pb::PutRequest { value: vec![b'v'; size], ..request });
            delete_watched(c, true, true);
        });
    }
}

fn add_past(corpus: &mut Corpus) {
    for fragment in [false, true] {
        let word = if fragment { "fragments" } else { "no-fragments" };
        corpus.alone(format!("watch/{word}-of-the-past"), SMALL, move |c| {
            fill(c, 40, 35_000);
            let id = c.watch_open();
            let request = pb::WatchCreateRequest { fragment, ..watch_all(c, "") };
            c.watch_create(id, pb::WatchCreateRequest { start_revision: 1, ..request });
            c.watch_wait(id, 1);
            c.watch_catch_up(id);
        });
    }
}
