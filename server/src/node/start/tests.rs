//! Replay on a store that is made anew.

use engine::ids::{ClusterId, MemberId};

use super::*;

fn engine() -> (Engine, EngineDisk) {
    let path = std::env::temp_dir().join(format!("ringd-start-{}", std::process::id()));
    let file = open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let config = EngineConfig { shards: 1, shard_size_bytes_max: 64 << 20 };
    let identity = Identity { cluster: ClusterId(1), member: MemberId(2) };
    let engine = found(EngineFiles::new_in_memory(), config, identity).unwrap();
    (engine, EngineDisk::new(file.try_clone().unwrap(), vec![file]))
}

fn entry(index: u64) -> Entry {
    Entry { index, term: 2, ..Entry::default() }
}

#[test]
fn a_store_is_made_anew_only_from_the_first_entry_on() {
    let (mut engine, mut disk) = engine();
    for first in [3, 500] {
        let mut replay = Replay::new(&engine, Some("a torn block".to_owned()));
        let error = replay.handle_entry(entry(first), Lsn(0)).unwrap_err().to_string();
        let words = ["only checkpoint", "a torn block", "first entry"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let mut replay = Replay::new(&engine, Some("a torn block".to_owned()));
    for index in 2..10 {
        replay.handle_entry(entry(index), Lsn(index)).unwrap();
    }
    // A gap further on is damage of another kind.
    let error = replay.handle_entry(entry(11), Lsn(11)).unwrap_err().to_string();
    assert!(error.contains("entry 11 behind entry 9"), "{error}");
    replay.apply_through(&mut engine, &mut disk, LogIndex(9)).unwrap();
    assert_eq!(engine.applied().0, LogIndex(9));
}
