//! The plain cases, told as etcd would answer them.

use crate::driver::{Driver, Frames};
use engine::command::PutRef;
use engine::{Outcome, RangeQuery, Revision};

fn put<'a>(key: &'a str, value: &'a str) -> PutRef<'a> {
    PutRef { key: key.as_bytes(), value: value.as_bytes(), ..PutRef::default() }
}

#[test]
fn the_first_write_gets_revision_two() {
    let mut driver = Driver::new(1);
    let answers = driver.apply(Frames::new().put(&put("a", "1")).put(&put("a", "2")));
    assert_eq!(answers[0].revision, Revision(2));
    assert_eq!(answers[1].revision, Revision(3));
    assert_eq!(answers[1].outcome, Outcome::Put { prev: None });
    let query = RangeQuery { key: b"a", ..RangeQuery::default() };
    let (records, summary) = driver.range(&query).unwrap();
    assert_eq!((summary.count, summary.revision), (1, Revision(3)));
    assert_eq!((&records[0].value[..], records[0].version), (&b"2"[..], 2));
    let query = RangeQuery { revision: 2, ..query };
    let (records, _) = driver.range(&query).unwrap();
    assert_eq!((&records[0].value[..], records[0].version), (&b"1"[..], 1));
}
