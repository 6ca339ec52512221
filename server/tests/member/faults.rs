//! A disk that is slow, fails or is full, under the real binary.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use server::service::proto::etcdserverpb as pb;

use crate::client::{CallError, Client, everything};
use crate::directory::Directory;
use crate::member::{Member, arguments, ringd};

/// The one time that is compared: a delay that was asked for is a lower bound on any machine.
#[test]
fn no_put_is_acknowledged_before_its_sync() {
    const DELAY: Duration = Duration::from_millis(300);
    let directory = Directory::new("delay");
    let data_dir = directory.join("data");
    let member = Member::start_with(&data_dir, &["--fault-sync-delay", "300ms"]);
    let mut client = member.connect();
    for round in 0..3 {
        let begun = Instant::now();
        let streams: Vec<u32> =
            (0..10).map(|i| client.begin_put(&format!("{round}-{i}"), b"v")).collect();
        for stream in streams {
            client.wait_put(stream).unwrap();
            let took = begun.elapsed();
            assert!(took >= DELAY, "acknowledged after {took:?}, the sync takes {DELAY:?} longer");
        }
        // Reads do not wait for a sync that is under way.
        let waiting = client.begin_put("slow", b"v");
        let mut other = member.connect();
        assert!(other.get(&format!("{round}-0")).unwrap().is_some());
        client.wait_put(waiting).unwrap();
    }
    // The write is held back whole: a kill before its end must leave nothing that was told.
    let lost = client.begin_put("lost", b"v");
    let mut other = member.connect();
    assert_eq!(other.get("lost").unwrap(), None, "what is not synced is read");
    let was_answered = client.is_answered(lost);
    member.kill();
    let told = client.wait_put(lost).is_ok();
    assert!(!was_answered || told);
    let member = Member::start(&data_dir);
    let there = member.connect().get("lost").unwrap().is_some();
    assert!(there || !told, "an acknowledged put is lost");
}

#[test]
fn a_failed_sync_ends_the_member_and_loses_nothing() {
    let directory = Directory::new("fail");
    for good in [0, 1, 2, 3, 5, 8, 21] {
        let data_dir = directory.join(&good.to_string());
        let text = good.to_string();
        let mut command = ringd();
        command.args(arguments(&data_dir)).args(["--fault-sync-fail-after", &text]);
        // The first syncs are the member's own, so it may end before it serves.
        let acknowledged = put_until_the_end(Member::spawn(&mut command), good);
        let member = Member::start(&data_dir);
        let all = member.connect().all();
        for (key, value) in &acknowledged {
            assert_eq!(all.get(key), Some(value), "{key} is lost, {good} syncs were good");
        }
    }
}

/// Puts until the member is gone; it must end by itself, with a code and a line that says why.
fn put_until_the_end(mut member: Member, good: u32) -> HashMap<String, Vec<u8>> {
    let mut acknowledged = HashMap::new();
    if let Some(mut client) = member.connect_if_served() {
        for i in 0.. {
            let (key, value) = (format!("key {i}"), format!("value {i}").into_bytes());
            match client.put(&key, &value) {
                Ok(_) => drop(acknowledged.insert(key, value)),
                Err(CallError::Lost | CallError::Status(14, _)) => break,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(acknowledged.len() <= good as usize, "more puts than syncs, one at a time");
    }
    let (status, log) = member.end();
    assert_eq!(status.code(), Some(1), "{}", log.join("\n"));
    let fatal = log.iter().find(|line| line.contains("\"level\":\"fatal\""));
    let fatal = fatal.unwrap_or_else(|| panic!("no fatal line in\n{}", log.join("\n")));
    assert!(fatal.contains("log"), "{fatal}");
    acknowledged
}

/// No file may grow above a size, as on a full disk. The log's segments lie below it, the store
/// wants more: puts are refused, reads go on, and nothing that was acknowledged is lost.
#[test]
fn a_full_disk_refuses_puts_and_loses_nothing() {
    const FILE_SIZE_BYTES_MAX: u64 = 72 << 20;
    const VALUE_SIZE_BYTES: usize = 1 << 20;
    let directory = Directory::new("full");
    let data_dir = directory.join("data");
    let member = Member::start_limited(&data_dir, FILE_SIZE_BYTES_MAX);
    let mut client = member.connect();
    let value = |i: usize| vec![u8::try_from(i % 251).unwrap(); VALUE_SIZE_BYTES];
    let mut acknowledged = 0;
    let refusal = loop {
        assert!((acknowledged * VALUE_SIZE_BYTES) as u64 <= FILE_SIZE_BYTES_MAX, "never full");
        match client.put(&format!("{acknowledged:03}"), &value(acknowledged)) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    let text = "etcdserver: mvcc: database space exceeded".to_owned();
    assert_eq!(refusal, CallError::Status(8, text));
    assert!(acknowledged > 0);
    let last = format!("{:03}", acknowledged - 1);
    assert_eq!(client.get(&last).unwrap(), Some(value(acknowledged - 1)), "reads go on");
    member.kill();

    let member = Member::start(&data_dir);
    let mut client = member.connect();
    for i in 0..acknowledged {
        assert_eq!(client.get(&format!("{i:03}")).unwrap(), Some(value(i)), "put {i}");
    }
    client.put("room again", b"v").unwrap();
    let request = pb::RangeRequest { count_only: true, ..everything() };
    let count = client.range(&request).unwrap().count;
    // The refused put changed nothing.
    assert_eq!(count, acknowledged as i64 + 1);
}

/// What a load from a page finds is not an error to return: the process ends, and says where.
#[test]
fn a_page_that_is_gone_is_named() {
    let directory = Directory::new("gone");
    let data_dir = directory.join("data");
    let member = Member::start(&data_dir);
    let mut client = member.connect();
    let value = vec![b'v'; 1000];
    let put_all = |client: &mut Client| {
        for key in 0..2000 {
            client.put(&format!("{key:06}"), &value).unwrap();
        }
    };
    put_all(&mut client);
    // A clean stop leaves all pages in the file, and none is in the memory of the next life.
    member.signal("TERM");
    member.end();
    let member = Member::start(&data_dir);
    let store = data_dir.join("store/shard-0000");
    let file = std::fs::OpenOptions::new().write(true).open(&store).unwrap();
    file.set_len(8192).unwrap();
    let mut client = member.connect();
    assert!(client.range(&everything()).is_err(), "pages that are gone cannot be answered from");
    let (status, log) = member.end();
    assert_eq!(status.signal(), Some(7), "{}", log.join("\n"));
    let named = log.iter().any(|line| {
        line.starts_with("ringd: page ") && line.contains("store/shard-0000 cannot be read")
    });
    assert!(named, "{}", log.join("\n"));
}
