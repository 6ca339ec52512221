//! Compact and HashKV: each case has servers of its own, because a compaction is told to all.

use super::super::conversation::Conversation;
use super::super::wire::etcdserverpb as pb;
use super::{Corpus, delete, furnish, get, list, op, put, then};

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    add_refusals(corpus);
    add_effects(corpus);
    add_automatic(corpus);
    add_hashes(corpus);
}

/// Reads at every revision there is, and around.
fn read_all(c: &mut Conversation<'_>) {
    for revision in -1..=c.revision() + 1 {
        c.range(pb::RangeRequest { revision, ..list(c, "") });
        c.range(pb::RangeRequest { revision, count_only: true, ..list(c, "") });
    }
    for key in ["a", "b", "c", "g"] {
        for revision in 1..=c.revision() {
            c.range(pb::RangeRequest { revision, keys_only: true, ..get(c, key) });
        }
    }
}

fn add_refusals(corpus: &mut Corpus) {
    corpus.alone("compact/revisions-out-of-bounds", &[], |c| {
        for revision in [-1, i64::MIN, 2, 1000, i64::MAX] {
            c.compact(revision, false);
            c.compact(revision, true);
        }
        furnish(c);
        for revision in [-1, c.revision() + 1, i64::MAX] {
            c.compact(revision, false);
        }
    });
    for physical in [false, true] {
        let word = if physical { "physical" } else { "logical" };
        corpus.alone(format!("compact/zero-once-{word}"), &[], move |c| {
            c.hash_kv(0);
            c.compact(0, physical);
            c.hash_kv(0);
            c.compact(0, physical);
            furnish(c);
            c.compact(0, physical);
            c.range(pb::RangeRequest { revision: -1, ..list(c, "") });
            c.txn(then(vec![op::range(pb::RangeRequest { revision: -1, ..list(c, "") })]));
            c.hash_kv(0);
        });
        corpus.alone(format!("compact/one-on-a-new-store-{word}"), &[], move |c| {
            c.compact(1, physical);
            c.compact(1, physical);
            c.compact(0, physical);
            c.hash_kv(0);
            c.hash_kv(1);
        });
        corpus.alone(format!("compact/again-and-below-{word}"), &[], move |c| {
            furnish(c);
            let middle = c.revision() - 4;
            c.compact(middle, physical);
            for revision in [middle, middle - 1, 1, 0, -1] {
                c.compact(revision, physical);
            }
            c.compact(middle + 1, physical);
            read_all(c);
        });
    }
}

fn add_effects(corpus: &mut Corpus) {
    // Every revision of the furnished store, so that each kind of change is the one compacted at.
    for back in 0..10 {
        corpus.alone(format!("compact/at-now-minus-{back}"), &[], move |c| {
            furnish(c);
            let revision = c.revision() - back;
            c.compact(revision, true);
            read_all(c);
            c.hash_kv(0);
            for revision in revision - 1..=c.revision() + 1 {
                c.hash_kv(revision);
            }
            let request = put(c, "g", "back again");
            c.put(pb::PutRequest { prev_kv: true, ..request });
            c.delete(pb::DeleteRangeRequest { prev_kv: true, ..super::delete_all(c, "") });
            read_all(c);
        });
    }
    corpus.alone("compact/reads-in-txns", &[], |c| {
        furnish(c);
        let middle = c.revision() - 3;
        c.compact(middle, true);
        for revision in [-1, 0, 1, middle - 1, middle, middle + 1, c.revision() + 1] {
            let range = pb::RangeRequest { revision, ..list(c, "") };
            let request = put(c, "new", "v");
            c.txn(then(vec![op::range(range.clone())]));
            c.txn(then(vec![op::put(request), op::range(range.clone())]));
            c.txn(pb::TxnRequest { failure: vec![op::range(range.clone())], ..Default::default() });
            c.txn(then(vec![op::txn(then(vec![op::range(range)]))]));
        }
        c.range(list(c, ""));
    });
    corpus.alone("compact/takes-no-revision", &[], |c| {
        furnish(c);
        let before = c.revision();
        c.compact(before, true);
        c.range(list(c, ""));
        let request = put(c, "a", "next");
        c.put(request);
    });
    corpus.alone("compact/again-and-again", &[], |c| {
        for round in 0..20 {
            furnish(c);
            let revision = c.revision() - round % 7;
            c.compact(revision, round % 2 == 0);
            c.hash_kv(0);
            c.hash_kv(revision);
            c.range(pb::RangeRequest { revision, ..list(c, "") });
            c.range(pb::RangeRequest { revision: revision - 1, ..list(c, "") });
        }
    });
    corpus.alone("compact/errors-of-reads-below", &[], |c| {
        furnish(c);
        let now = c.revision();
        c.compact(now, true);
        for revision in [1, now - 1, now, now + 1] {
            for count_only in [false, true] {
                for serializable in [false, true] {
                    let request = pb::RangeRequest { revision, count_only, ..get(c, "missing") };
                    c.range(pb::RangeRequest { serializable, ..request });
                }
            }
        }
    });
}

fn add_automatic(corpus: &mut Corpus) {
    for (name, args) in [
        ("seconds", &["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1s"]),
        (
            "a-second-and-a-half",
            &["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1500ms"],
        ),
    ] {
        corpus.alone(format!("compact/by-itself-{name}"), args, |c| {
            furnish(c);
            let last = c.revision();
            // When it comes to each revision is chance; where it ends is not.
            let hash = pb::HashKvRequest::default();
            c.ask_until(
                "/etcdserverpb.Maintenance/HashKV",
                &hash,
                &|answer: &pb::HashKvResponse| answer.compact_revision == last,
            );
            read_all(c);
            c.compact(last, true);
        });
    }
}

fn add_hashes(corpus: &mut Corpus) {
    corpus.alone("hash/of-every-revision", &[], |c| {
        c.hash_kv(0);
        c.hash_kv(1);
        furnish(c);
        for revision in -1..=c.revision() + 2 {
            c.hash_kv(revision);
        }
        c.hash_kv(i64::MAX);
        c.hash_kv(i64::MIN);
    });
    corpus.alone("hash/of-all-kinds-of-records", &[], |c| {
        let value: Vec<u8> = (0..=u8::MAX).collect();
        for size in [0, 1, 127, 128, 300, 20_000] {
            let key = [c.key(""), vec![b'k'; size % 5000]].concat();
            let value = value.iter().copied().cycle().take(size).collect();
            c.put(pb::PutRequest { key, value, ..Default::default() });
            c.hash_kv(0);
        }
        c.delete(pb::DeleteRangeRequest { prev_kv: true, ..super::delete_all(c, "k") });
        c.hash_kv(0);
    });
    corpus.alone("hash/after-many-changes", &[], |c| {
        for index in 0..500 {
            let request = put(c, &format!("{}", index * 7 % 40), &index.to_string());
            c.put(request);
            if index % 9 == 0 {
                let request = delete(c, &format!("{}", index % 40));
                c.delete(request);
            }
        }
        let last = c.revision();
        for step in 0..4 {
            c.hash_kv(0);
            c.hash_kv(last - 50);
            c.compact(last - 400 + step * 100, true);
        }
        c.hash_kv(last - 400);
        c.hash_kv(last - 300);
        c.hash_kv(last - 100);
        c.hash_kv(last - 99);
    });
    add_hashes_at_compactions(corpus);
}

fn add_hashes_at_compactions(corpus: &mut Corpus) {
    // Nothing lives at the revision; what the compaction keeps are the tombstones there.
    for between in [0, 1, 3] {
        corpus.alone(format!("hash/of-a-bare-revision-{between}-later"), &[], move |c| {
            furnish(c);
            c.compact(c.revision(), true);
            for _ in 0..between {
                let request = put(c, "a", "more");
                c.put(request);
            }
            c.delete(super::delete_all(c, ""));
            let bare = c.revision();
            c.hash_kv(bare);
            furnish(c);
            c.hash_kv(bare);
            c.compact(bare, true);
            c.hash_kv(bare);
            c.hash_kv(bare + 1);
            c.hash_kv(0);
            c.compact(bare + 2, true);
            c.hash_kv(bare);
            c.hash_kv(0);
        });
    }
    corpus.alone("hash/below-the-first-revision", &[], |c| {
        furnish(c);
        for back in [4, 2] {
            c.compact(c.revision() - back, true);
            for revision in [-1, -2, i64::MIN, 1] {
                c.hash_kv(revision);
            }
        }
    });
    corpus.alone("hash/remembers-its-compactions", &[], |c| {
        let mut compacted = Vec::new();
        for _ in 0..14 {
            furnish(c);
            let revision = c.revision() - 2;
            c.compact(revision, true);
            compacted.push(revision);
        }
        for revision in compacted {
            c.hash_kv(revision);
        }
    });
}
