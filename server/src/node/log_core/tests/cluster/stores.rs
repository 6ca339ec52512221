//! Stores that one member is given by another.

use super::*;

/// Found in review: a record longer than the window of a transfer was never acknowledged, and its
/// other half never sent.
#[test]
fn a_store_of_large_values_travels() {
    let mut cluster = Cluster::new_in("cluster-large", 16 << 20);
    let leader = cluster.elect();
    let away = (leader + 1) % 3;
    cluster.away.push(away);
    let sizes_bytes = [3 << 19, 5 << 20, 10, 12 << 20, 3 << 19, 1 << 20];
    for (key, size_bytes) in sizes_bytes.into_iter().enumerate() {
        cluster.members[leader].begin_fill(key..key + 1, &vec![7; size_bytes]);
        cluster.run();
    }
    cluster.away.clear();
    // It has come, and the log that is to begin anew behind it does not get on.
    cluster.members[away].is_log_held = true;
    for _ in 0..30 {
        cluster.tick();
    }
    assert_eq!(cluster.members[away].core.meter.metrics().installs_inflight.get(), 1);
    cluster.members[away].is_log_held = false;
    for _ in 0..60 {
        cluster.tick();
    }
    assert_eq!(cluster.revisions(), [7; 3]);
    let hashes = cluster.hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let metrics_of = |place: usize| cluster.members[place].core.meter.metrics();
    let sent = &metrics_of(leader).peers.of(id_of(away).0).stores_sent;
    let received = &metrics_of(away).peers.of(id_of(leader).0).stores_received;
    for counts in [sent, received] {
        let [in_flight, failed] = [&counts.in_flight, &counts.failed].map(Counter::get);
        assert_eq!((in_flight, failed), (0, 0));
        assert!(counts.succeeded.get() > 0);
        assert_eq!(counts.durations.count(), counts.succeeded.get());
    }
    assert_eq!(metrics_of(away).installs_inflight.get(), 0);
}

/// Seed 9620: the leader sends another store while the one that came settles in, and waits for an
/// answer to it.
#[test]
fn a_store_that_is_announced_while_another_settles_in_is_answered() {
    let mut cluster = Cluster::new_in("cluster-announced", 8 << 20);
    let leader = cluster.elect();
    let away = (leader + 1) % 3;
    cluster.away.push(away);
    cluster.members[leader].begin_fill(0..1, &vec![7; 3 << 20]);
    cluster.run();
    cluster.away.clear();
    cluster.members[away].is_log_held = true;
    for _ in 0..30 {
        cluster.tick();
    }
    assert!(cluster.members[away].core.transfers.is_raft_frozen());
    let core = &mut cluster.members[leader].core;
    let first = core.transfers.outgoing.pop().unwrap();
    core.begin_transfer(first.message);
    assert_ne!(core.transfers.outgoing[0].transfer, first.transfer);
    for _ in 0..10 {
        cluster.tick();
    }
    cluster.members[away].is_log_held = false;
    for _ in 0..10 {
        cluster.tick();
    }
    assert_eq!(cluster.members[leader].core.transfers.outgoing.len(), 0);
    assert_eq!(cluster.revisions(), [2; 3]);
}

/// A reader holds the store of before when the defragmentation behind the install comes.
#[test]
fn what_an_install_leaves_is_dealt_with_when_its_reader_has_gone() {
    let mut cluster = Cluster::new_in("cluster-owed", 8 << 20);
    let leader = cluster.elect();
    let away = (leader + 1) % 3;
    for part in 0..20 {
        cluster.members[leader].begin_fill(part..part + 1, &vec![7; 200_000]);
        cluster.run();
    }
    cluster.tick();
    let held = cluster.members[away].core.engine().read_handle().hold().unwrap();
    cluster.away.push(away);
    let deleted = cluster.members[leader].delete_all();
    cluster.run();
    assert!(cluster.members[leader].take_outcome(deleted).is_ok());
    let revision = cluster.members[leader].core.engine().revision();
    cluster.members[leader].compact(revision, true);
    cluster.members[leader].core.set_window(Window { entries_max: 1, size_bytes_max: 0 });
    for part in 0..20 {
        cluster.members[leader].begin_fill(part * 100..(part + 1) * 100, &[7; 2000]);
        cluster.run();
    }
    cluster.away.clear();
    for _ in 0..100 {
        cluster.tick();
    }
    let core = |cluster: &Cluster| -> (u64, u64) {
        let engine = cluster.members[away].core.engine();
        (engine.newest_view().size_bytes, engine.reach_bytes())
    };
    let revisions = cluster.revisions();
    assert_eq!(revisions, [revisions[leader]; 3]);
    let (size_bytes, reach_bytes) = core(&cluster);
    assert!(size_bytes + (3 << 20) < reach_bytes, "{size_bytes} of {reach_bytes} bytes count");
    drop(held);
    // Pages are given back with what is written next, and its checkpoints.
    for number in 0..3 {
        cluster.members[leader].put(&format!("more {number}"), b"value");
        for _ in 0..400 {
            cluster.tick();
        }
    }
    let (size_bytes, reach_after) = core(&cluster);
    assert_eq!(size_bytes, reach_after, "all of a short file counts");
    assert!(reach_after + (3 << 20) < reach_bytes, "{reach_after} bytes of {reach_bytes}");
}
