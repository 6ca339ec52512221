//! Backups are made while others work, for clients that read, do not read, and go away.

use engine::bbolt::backup::{DIGEST_SIZE_BYTES, check_digest};
use engine::bbolt::schema::{self, RevisionKey};
use engine::bbolt::{Reader, check::check};

use super::super::super::shared::StatusCopy;
use super::super::super::streams::{
    HELD_INTERVAL, HELD_INTERVAL_ALONE, HELD_MAX, HELD_STEPS, STALLED_MAX,
};
use super::*;

const REQUEST: [pb::SnapshotRequest; 1] = [pb::SnapshotRequest {}];

/// The messages of a stream that are whole.
fn messages(bench: &Bench, client: usize, stream: u32) -> Vec<pb::SnapshotResponse> {
    let mut messages = Vec::new();
    let Some(answer) = bench.clients[client].answers.get(&stream) else { return messages };
    let mut rest = &answer.body[..];
    while let Some((prefix, behind)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let Some((message, behind)) = behind.split_at_checked(length as usize) else { break };
        rest = behind;
        messages.push(pb::SnapshotResponse::decode(message).unwrap());
    }
    messages
}

/// The file that messages make, which must be one.
fn file_of(messages: &[pb::SnapshotResponse]) -> Vec<u8> {
    let (digest, blobs) = messages.split_last().unwrap();
    assert_eq!((digest.remaining_bytes, digest.blob.len()), (0, DIGEST_SIZE_BYTES));
    let mut left: u64 = blobs.iter().map(|message| message.blob.len() as u64).sum();
    let mut file = Vec::new();
    for message in blobs {
        let is_last = message.remaining_bytes == 0;
        assert!(is_last || message.blob.len() == 32 << 10, "{} bytes", message.blob.len());
        left -= message.blob.len() as u64;
        assert_eq!(message.remaining_bytes, left);
        file.extend_from_slice(&message.blob);
    }
    file.extend_from_slice(&digest.blob);
    check_digest(&&file[..]).unwrap();
    check(&Reader::open(&file[..]).unwrap()).unwrap();
    file
}

/// How many changes a file holds, and the last of them.
fn changes(file: &[u8]) -> (usize, i64) {
    let reader = Reader::open(file).unwrap();
    let bucket = reader.bucket(schema::KEY).unwrap().unwrap();
    let (mut count, mut last, mut walk) = (0, 0, reader.walk(&bucket));
    while let Some((key, value)) = walk.next_pair().unwrap() {
        let record = schema::record_from(key, value).unwrap();
        let change = RevisionKey::from_bytes(key).unwrap().change;
        assert_eq!((record.mod_revision, record.value.len()), (change.main, 1000));
        (count, last) = (count + 1, change.main.0);
    }
    (count, last)
}

fn held(bench: &Bench) -> usize {
    bench.core.desk.streams.held_count()
}

#[test]
fn a_backup_is_the_store_as_it_was_while_puts_go_on() {
    let mut bench = Bench::new(3000, &[7; 1000], ServiceLimits::default());
    let (saver, other) = (bench.connect(), bench.connect());
    let stream = bench.call(saver, Method::Snapshot, &REQUEST)[0];
    bench.settle();
    let mut turns = 0;
    while bench.answered(saver) < 1 {
        assert!(bench.core.has_work(), "a backup that is not parked is to be stepped");
        // Each turn supersedes what the backup has not come to yet.
        bench.put([format!("k{:05}", 2999 - turns % 3000)].into_iter(), &[8; 1000]);
        bench.call(other, Method::Range, &[range("k00001", "")]);
        bench.settle();
        turns += 1;
        assert_eq!(bench.answered(other), turns, "a look-up waits for no backup");
        assert!(turns < 1000);
    }
    assert!(turns > 90 / HELD_STEPS as usize, "3 MB in {turns} turns");
    assert_eq!(held(&bench), 0);
    let file = file_of(&messages(&bench, saver, stream));
    assert_eq!(changes(&file), (3000, 3001));
    assert!(!bench.core.has_work() && bench.core.desk.calls.is_empty());
}

#[test]
fn a_file_does_not_depend_on_how_far_a_sweep_has_come() {
    let mut bench = Bench::new(2000, &[7; 1000], ServiceLimits::default());
    let saver = bench.connect();
    bench.put((0..1500).map(|number| format!("k{number:05}")), &[8; 1000]);
    let (mut frames, mut writer) = (Vec::new(), FrameWriter::new());
    let revision = engine::Revision(3001);
    writer.push_compact(&mut frames, engine::command::CompactRef { revision, physical: false });
    bench.store.commit(&frames);
    let mut files = Vec::new();
    for steps in [0, 1, 300, 10_000] {
        for _ in 0..steps {
            bench.store.engine.background_step(3).unwrap();
        }
        let stream = bench.call(saver, Method::Snapshot, &REQUEST)[0];
        bench.rest();
        let file = file_of(&messages(&bench, saver, stream));
        // 500 keys as they were, 1500 changed once: 500 of these after the compaction.
        assert_eq!(changes(&file), (2500, 3501), "after {steps} steps");
        files.push(file);
    }
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_client_that_takes_nothing_loses_its_view_after_a_while() {
    let mut bench = Bench::new(3000, &[7; 1000], ServiceLimits::default());
    let deaf = bench.connect();
    bench.clients[deaf].reads_nothing = true;
    let stream = bench.call(deaf, Method::Snapshot, &REQUEST)[0];
    let mut turns = 0;
    while bench.core.has_work() {
        bench.settle();
        turns += 1;
        assert!(turns < 1000, "work for a client that takes nothing");
    }
    let client = bench.core.clients[deaf].as_mut().unwrap();
    let Speech::Grpc(connection) = &mut client.speech else { panic!("it speaks gRPC") };
    let waiting = connection.http2().socket_pending_bytes();
    assert!(waiting < 1 << 20, "{waiting} bytes wait");
    assert_eq!(held(&bench), 1);
    bench.core.handle_tick(NOW + STALLED_MAX);
    assert_eq!(held(&bench), 1);
    bench.core.handle_tick(NOW + STALLED_MAX + Duration::from_secs(1));
    assert_eq!(held(&bench), 0);
    assert!(bench.core.desk.calls.is_empty());
    bench.clients[deaf].reads_nothing = false;
    bench.take(deaf);
    bench.rest();
    assert_eq!(bench.answered(deaf), 1);
    let last = messages(&bench, deaf, stream).pop().unwrap();
    assert!(last.remaining_bytes > 0, "it has got a part");
}

#[test]
fn a_backup_takes_its_steps_at_their_pace() {
    let mut bench = Bench::new(3000, &[7; 1000], ServiceLimits::default());
    let saver = bench.connect();
    bench.call(saver, Method::Snapshot, &REQUEST);
    bench.settle();
    let due = bench.core.work_due().unwrap();
    assert_eq!(due, NOW + HELD_INTERVAL_ALONE, "nobody has written");
    let status = &bench.core.desk.status;
    status.set(StatusCopy { committed: 7, ..status.get() });
    // Turns before that leave it where it is.
    let before = bench.core.desk.streams.due();
    bench.core.settle(due - Duration::from_micros(1));
    assert_eq!(bench.core.desk.streams.due(), before);
    let late = due + Duration::from_micros(5);
    bench.core.settle(late);
    assert_eq!(bench.core.work_due(), Some(late + HELD_INTERVAL));
}

#[test]
fn few_backups_hold_views_and_the_others_wait() {
    let mut bench = Bench::new(1000, &[7; 1000], ServiceLimits::default());
    let clients: Vec<usize> = (0..HELD_MAX + 2).map(|_| bench.connect()).collect();
    for client in &clients {
        bench.clients[*client].reads_nothing = true;
        bench.call(*client, Method::Snapshot, &REQUEST);
    }
    bench.rest();
    assert_eq!(held(&bench), HELD_MAX);
    // Who waits sees what is written meanwhile.
    bench.put(["late".to_owned()].into_iter(), &[7; 1000]);
    bench.core.handle_closed(socket(clients[0]));
    bench.rest();
    assert_eq!(held(&bench), HELD_MAX, "the next has taken its place");
    for client in &clients[1..] {
        bench.clients[*client].reads_nothing = false;
        bench.take(*client);
    }
    bench.rest();
    assert_eq!((held(&bench), bench.core.desk.calls.len()), (0, 0));
    let counts: Vec<usize> = clients[1..]
        .iter()
        .map(|client| changes(&file_of(&messages(&bench, *client, 1))).0)
        .collect();
    assert_eq!(counts, [1000, 1001, 1001]);
}
