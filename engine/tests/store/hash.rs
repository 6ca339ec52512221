//! `HashKV` against numbers that etcd 3.7.1 gave for the same history.

use crate::driver::{Driver, Frames};
use engine::command::{CompactRef, CompareRef, DeleteRangeRef, OperationRef, PutRef, TxnRef};
use engine::{KeyValueHashScan, Progress, ReadError, Rejection, Revision};

fn put<'a>(key: &'a str, value: &'a str) -> PutRef<'a> {
    PutRef { key: key.as_bytes(), value: value.as_bytes(), ..PutRef::default() }
}

fn delete(key: &str) -> DeleteRangeRef<'_> {
    DeleteRangeRef { key: key.as_bytes(), ..DeleteRangeRef::default() }
}

fn hash(driver: &mut Driver, revision: i64) -> Hash {
    let mut scan = KeyValueHashScan::new(Revision(revision));
    loop {
        let view = driver.handle.pin();
        match scan.step(&view, 3) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => {
                let result = scan.result().unwrap();
                let asked = if revision == 0 { view.revision.0 } else { revision };
                assert_eq!((result.revision.0, result.current), (asked, view.revision));
                return Ok((result.hash, result.compacted.0));
            }
            Err(ReadError::Rejection(rejection)) => return Err(rejection),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }
}

fn compact(driver: &mut Driver, revision: i64) {
    let compact = CompactRef { revision: Revision(revision), physical: true };
    driver.apply(Frames::new().compact(compact));
    driver.sweep();
}

fn check(driver: &mut Driver, expected: &[(i64, Hash)]) {
    for &(revision, expected) in expected {
        assert_eq!(hash(driver, revision), expected, "revision {revision}");
    }
}

/// The hash and the compacted revision it was taken under, or the refusal.
type Hash = Result<(u32, i64), Rejection>;

const COMPACTED: Hash = Err(Rejection::Compacted);

#[test]
fn hashes_are_those_of_etcd() {
    for shards in [1, 4] {
        let mut driver = Driver::new(shards);
        check(&mut driver, &[(0, Ok((1_084_519_789, -1))), (1, Ok((1_084_519_789, -1)))]);
        write_history(&mut driver);
        check(
            &mut driver,
            &[
                (0, Ok((2_837_408_142, -1))),
                (1, Ok((1_084_519_789, -1))),
                (2, Ok((2_587_454_935, -1))),
                (3, Ok((1_827_592_406, -1))),
                (4, Ok((2_069_675_932, -1))),
                (5, Ok((1_125_682_900, -1))),
                (6, Ok((1_947_802_976, -1))),
                (7, Ok((3_016_922_282, -1))),
                (8, Ok((3_415_106_293, -1))),
                (9, Ok((4_139_020_797, -1))),
                (10, Ok((2_806_701_506, -1))),
                (11, Ok((2_837_408_142, -1))),
                (12, Err(Rejection::FutureRevision)),
            ],
        );
        check_compactions(&mut driver);
    }
}

/// Revisions 2 to 11.
fn write_history(driver: &mut Driver) {
    let frames = Frames::new().put(&put("a", "1")).put(&put("b", "2")).put(&put("a", "3"));
    driver.apply(frames.delete(&delete("b")).put(&put("c", "")));
    let mod_revision_of_a =
        CompareRef { target: 2, result: 1, key: b"a", number: 0, ..CompareRef::default() };
    let txn = TxnRef {
        compares: vec![mod_revision_of_a],
        success: vec![
            OperationRef::Put(put("d", "4")),
            OperationRef::DeleteRange(delete("a")),
            OperationRef::Put(put("e", "5")),
        ],
        failure: vec![],
    };
    driver.apply(Frames::new().txn(&txn));
    let frames = Frames::new().put(&put("b", "6")).put(&put("d", "7"));
    driver.apply(frames.delete(&delete("d")).delete(&delete("c")));
}

fn check_compactions(driver: &mut Driver) {
    compact(driver, 5);
    check(
        driver,
        &[
            (0, Ok((1_185_415_178, 5))),
            (1, COMPACTED),
            (4, COMPACTED),
            (5, Ok((1_125_682_900, -1))),
            (6, Ok((244_968_164, 5))),
            (7, Ok((3_880_631_670, 5))),
            (8, Ok((166_206_572, 5))),
            (9, Ok((238_581_444, 5))),
            (10, Ok((2_672_326_166, 5))),
            (11, Ok((1_185_415_178, 5))),
        ],
    );
    compact(driver, 7);
    check(
        driver,
        &[
            (0, Ok((2_975_543_152, 7))),
            (5, Ok((1_125_682_900, -1))),
            (6, COMPACTED),
            (7, Ok((3_880_631_670, 5))),
            (8, Ok((638_588_836, 7))),
            (9, Ok((3_074_875_492, 7))),
            (10, Ok((597_338_732, 7))),
            (11, Ok((2_975_543_152, 7))),
        ],
    );
    compact(driver, 11);
    check(driver, &[(0, Ok((691_993_636, 11))), (10, COMPACTED), (11, Ok((2_975_543_152, 7)))]);
    let everything = DeleteRangeRef { key: b"\0", range_end: b"\0", prev_kv: false };
    driver.apply(Frames::new().delete(&everything).put(&put("z", "1")).delete(&delete("z")));
    check(
        driver,
        &[
            (0, Ok((3_850_167_905, 11))),
            (11, Ok((2_975_543_152, 7))),
            (12, Ok((4_156_353_019, 11))),
            (13, Ok((3_061_099_373, 11))),
            (14, Ok((3_850_167_905, 11))),
        ],
    );
    compact(driver, 13);
    check(
        driver,
        &[
            (0, Ok((1_495_317_303, 13))),
            (13, Ok((3_061_099_373, 11))),
            (14, Ok((1_495_317_303, 13))),
        ],
    );
}
