//! What a member does not start on: it says why, ends with the right code, and changes nothing.

use std::fs;
use std::path::Path;

use crate::directory::{Directory, assert_untouched, seen};
use crate::member::{Member, Refused, arguments, ringd};

#[test]
fn a_data_directory_of_etcd_is_left_as_it_is() {
    let directory = Directory::new("etcd");
    let data_dir = directory.join("data");
    fs::create_dir_all(data_dir.join("member/snap")).unwrap();
    fs::create_dir_all(data_dir.join("member/wal")).unwrap();
    fs::write(data_dir.join("member/snap/db"), [0xed; 20_000]).unwrap();
    let segment = "member/wal/0000000000000000-0000000000000000.wal";
    fs::write(data_dir.join(segment), [4, 0, 0, 0, 0, 0, 0, 0x84]).unwrap();
    let before = seen(&data_dir);
    let error = Refused::start(&data_dir).fatal();
    assert!(error.contains("is a data directory of etcd"), "{error}");
    assert!(error.contains(data_dir.to_str().unwrap()), "{error}");
    assert_untouched(&before, &seen(&data_dir));

    // The log alone, as --wal-dir makes it.
    let empty = directory.join("empty");
    let wal_dir = data_dir.join("member/wal");
    let wal_flag = wal_dir.to_str().unwrap();
    let refused = Refused::run(ringd().args(arguments(&empty)).args(["--wal-dir", wal_flag]));
    let error = refused.fatal();
    assert!(error.contains("is a data directory of etcd"), "{error}");
    assert_untouched(&before, &seen(&data_dir));
    assert!(!empty.exists(), "a refused start made a directory");
}

#[test]
fn a_directory_of_something_else_is_left_as_it_is() {
    let directory = Directory::new("foreign");
    let data_dir = directory.join("data");
    fs::create_dir(&data_dir).unwrap();
    fs::write(data_dir.join("thesis.txt"), "the only copy").unwrap();
    let before = seen(&data_dir);
    let error = Refused::start(&data_dir).fatal();
    assert!(error.contains("thesis.txt"), "{error}");
    assert_untouched(&before, &seen(&data_dir));
}

#[test]
fn two_members_do_not_share_a_directory() {
    let directory = Directory::new("shared");
    let data_dir = directory.join("data");
    let member = Member::start(&data_dir);
    let mut client = member.connect();
    client.put("k", b"1").unwrap();
    let error = Refused::start(&data_dir).fatal();
    assert!(error.contains("is in use by another process"), "{error}");
    assert!(error.contains(data_dir.to_str().unwrap()), "{error}");
    client.put("k", b"2").unwrap();
    member.kill();
    // The lock went with the process.
    let member = Member::start(&data_dir);
    assert_eq!(member.connect().get("k").unwrap().unwrap(), b"2");
}

#[test]
fn an_address_in_use_is_named() {
    let directory = Directory::new("address");
    let member = Member::start(&directory.join("data"));
    let taken = format!("http://{}", member.address());
    let mut command = ringd();
    command.args(["--data-dir", directory.join("other").to_str().unwrap()]);
    command.args(["--listen-client-urls", &taken, "--advertise-client-urls", &taken]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:0"]);
    let error = Refused::run(&mut command).fatal();
    let want = format!("listen tcp {}: bind: address already in use", member.address());
    assert!(error.contains(&want), "{error}");
}

#[test]
fn a_flag_that_is_not_there_is_refused_as_etcd_does() {
    let refused = Refused::run(ringd().args(["--nmae", "m"]));
    assert_eq!(refused.code, Some(2));
    let text = refused.stderr + &refused.stdout;
    assert_eq!(text.lines().next(), Some("flag provided but not defined: -nmae"));
}

/// Whoever sets what is not served is told so, by flag and by environment, instead of believing it.
#[test]
fn a_setting_that_is_not_served_is_refused_by_name() {
    let directory = Directory::new("flags");
    let data_dir = directory.join("data");
    let mut by_flag = ringd();
    by_flag.args(arguments(&data_dir)).arg("--auto-tls");
    let mut by_environment = ringd();
    by_environment.args(arguments(&data_dir)).env("ETCD_AUTO_TLS", "true");
    for mut command in [by_flag, by_environment] {
        let refused = Refused::run(&mut command);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("auto-tls"), "{}", refused.stderr);
        assert!(!data_dir.exists(), "a refused start made a directory");
    }
}

/// A member with some data, killed: its log has everything, its store may lag.
fn killed_member(data_dir: &Path) {
    let member = Member::start(data_dir);
    let mut client = member.connect();
    for i in 0..50 {
        client.put(&format!("key {i}"), format!("value {i} ").repeat(50).as_bytes()).unwrap();
    }
    member.kill();
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_log_is_refused_by_segment_and_left_as_it_is() {
    const BLOCK: usize = 4096;
    let directory = Directory::new("log");
    let first = "0000000000000001.wal";
    type Change = fn(&mut Vec<u8>);
    let damages: [(&str, Change); 3] = [
        ("no head", |bytes| bytes[..BLOCK].fill(0)),
        // Of many records, one of the first: behind it stands that it was durable.
        ("a lost sector", |bytes| bytes[8 * BLOCK..8 * BLOCK + 512].fill(0)),
        ("one bit", |bytes| bytes[8 * BLOCK + 100] ^= 4),
    ];
    for (what, damage) in damages {
        let data_dir = directory.join(what);
        killed_member(&data_dir);
        change(&data_dir.join("wal").join(first), damage);
        let before = seen(&data_dir);
        let error = Refused::start(&data_dir).fatal();
        assert!(error.contains(first), "{what}: {error}");
        assert_untouched(&before, &seen(&data_dir));
        fs::remove_dir_all(&data_dir).unwrap();
    }
    let data_dir = directory.join("missing");
    killed_member(&data_dir);
    fs::remove_file(data_dir.join("wal").join(first)).unwrap();
    let before = seen(&data_dir);
    let error = Refused::start(&data_dir).fatal();
    assert!(error.contains("wal") || error.contains("log"), "{error}");
    assert_untouched(&before, &seen(&data_dir));
}

const PAGE: usize = 4096;

fn flip_last_bits(bytes: &mut [u8]) {
    for page in bytes.chunks_mut(PAGE) {
        if let Some(at) = page.iter().rposition(|&byte| byte != 0) {
            page[at] ^= 1;
        }
    }
}

#[test]
fn a_damaged_store_is_refused_by_file() {
    let directory = Directory::new("store");
    type Change = fn(&mut Vec<u8>);
    let damages: [(&str, &str, Change); 4] = [
        ("meta of nothing", "meta", |bytes| bytes.fill(0)),
        ("meta of noise", "meta", |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x55)),
        ("header", "shard-0000", |bytes| flip_last_bits(&mut bytes[..PAGE])),
        // Of every page that is used, so that whichever is read first is among them.
        ("pages", "shard-0000", |bytes| flip_last_bits(&mut bytes[PAGE..])),
    ];
    for (what, file, damage) in damages {
        let data_dir = directory.join(what);
        let member = Member::start(&data_dir);
        let mut client = member.connect();
        for i in 0..200 {
            client.put(&format!("key {i}"), &[b'v'; 300]).unwrap();
        }
        // A clean stop, so that everything is in the store.
        member.signal("TERM");
        member.end();
        change(&data_dir.join("store").join(file), damage);
        let error = Refused::start(&data_dir).fatal();
        assert!(error.contains("store"), "{what}: {error}");
        // Without meta blocks nothing is known of shards: the store as a whole cannot begin.
        assert!(file == "meta" || error.contains("shard 0"), "{what}: {error}");
        fs::remove_dir_all(&data_dir).unwrap();
    }
}

/// Found in review: a store whose only checkpoint was torn could not be opened, although the log
/// had everything that was ever acknowledged.
#[test]
fn a_store_with_a_torn_first_checkpoint_is_made_anew_from_the_log() {
    const BLOCK: usize = 4096;
    let directory = Directory::new("torn");
    for attempt in 0..5 {
        let data_dir = directory.join(&attempt.to_string());
        killed_member(&data_dir);
        let meta = data_dir.join("store").join("meta");
        // On a machine that stands still for seconds a second checkpoint may have been written.
        if fs::read(&meta).unwrap()[BLOCK..].iter().any(|byte| *byte != 0) {
            continue;
        }
        change(&meta, |bytes| bytes[512..1024].fill(0x55));
        let member = Member::start(&data_dir);
        let told = member.log_text();
        assert!(told.contains("made anew from the log"), "{told}");
        let mut client = member.connect();
        assert_eq!(client.all().len(), 50);
        client.put("more", b"value").unwrap();
        member.signal("TERM");
        member.end();
        let member = Member::start(&data_dir);
        assert_eq!(member.connect().all().len(), 51);
        return;
    }
    panic!("each of the members wrote two checkpoints at once");
}
