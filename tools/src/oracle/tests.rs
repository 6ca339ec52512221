//! Histories that the oracle must accept, and such as it must not.

use super::history::value_of;
use super::*;

fn put(id: u64, begun: u64, answered: Option<(u64, i64)>) -> Operation {
    Operation {
        id: OpId(id),
        request: Request::Put { key: b"k".to_vec(), lease: 0 },
        begun,
        answered: answered.map(|(at, revision)| (at, Answer::Written { revision })),
    }
}

fn read(id: u64, (begun, answered): (u64, u64), revision: i64, found: Vec<Found>) -> Operation {
    Operation {
        id: OpId(id),
        request: Request::Read { from: b"a".to_vec(), to: b"z".to_vec(), may_be_stale: false },
        begun,
        answered: Some((answered, Answer::Read { revision, found })),
    }
}

fn change(revision: i64, writer: u64) -> Change {
    Change { revision, sub: 0, key: b"k".to_vec(), value: Some(value_of(OpId(writer))), lease: 0 }
}

fn found(writer: u64, created: i64, changed: i64) -> Found {
    let version = changed - created + 1;
    Found { key: b"k".to_vec(), value: value_of(OpId(writer)), created, changed, version, lease: 0 }
}

fn complaint(operations: &[Operation], changes: &[Change]) -> String {
    check(operations, changes).expect_err("there is a violation").to_string()
}

#[test]
fn a_correct_history_passes() {
    let operations = [
        put(1, 0, Some((10, 2))),
        put(2, 5, None),
        put(3, 11, None),
        read(4, (12, 20), 3, vec![found(2, 2, 3)]),
        read(5, (12, 13), 2, vec![found(1, 2, 2)]),
    ];
    assert_eq!(check(&operations, &[change(2, 1), change(3, 2)]), Ok(()));
    assert_eq!(check(&[], &[]), Ok(()));
}

#[test]
fn an_acknowledged_write_that_is_lost_is_noticed() {
    let text = complaint(&[put(1, 0, Some((10, 2)))], &[]);
    assert!(text.contains("acknowledged at 2 and stands at None"), "{text}");
}

#[test]
fn a_write_that_was_done_twice_is_noticed() {
    let text = complaint(&[put(1, 0, None)], &[change(2, 1), change(3, 1)]);
    assert!(text.contains("done twice"), "{text}");
}

#[test]
fn a_refused_write_that_was_done_is_noticed() {
    let mut operation = put(1, 0, None);
    operation.answered = Some((3, Answer::Refused));
    let text = complaint(&[operation], &[change(2, 1)]);
    assert!(text.contains("refused and done"), "{text}");
}

#[test]
fn a_stale_read_is_noticed_unless_it_was_asked_for() {
    let changes = [change(2, 1), change(3, 2)];
    let mut operations = [
        put(1, 0, Some((10, 2))),
        put(2, 11, Some((20, 3))),
        read(3, (21, 30), 2, vec![found(1, 2, 2)]),
    ];
    let text = complaint(&operations, &changes);
    assert!(text.contains("it read at 2, and 3 was known"), "{text}");
    let Request::Read { may_be_stale, .. } = &mut operations[2].request else { unreachable!() };
    *may_be_stale = true;
    assert_eq!(check(&operations, &changes), Ok(()));
}

#[test]
fn reads_that_go_back_in_time_are_noticed() {
    let operations =
        [put(1, 0, None), read(2, (1, 5), 2, vec![found(1, 2, 2)]), read(3, (6, 7), 1, vec![])];
    assert!(complaint(&operations, &[change(2, 1)]).contains("2 was known"));
}

#[test]
fn a_read_of_what_was_not_there_is_noticed() {
    let operations = [put(1, 0, Some((1, 2))), read(2, (2, 3), 2, vec![])];
    assert!(complaint(&operations, &[change(2, 1)]).contains("what was not there"));
}

#[test]
fn a_read_of_the_future_is_noticed() {
    let operations = [read(2, (2, 3), 2, vec![found(1, 2, 2)]), put(1, 4, Some((5, 2)))];
    assert!(complaint(&operations, &[change(2, 1)]).contains("before that was asked for"));
}

#[test]
fn an_unknown_write_from_before_its_time_is_noticed() {
    let operations = [put(1, 0, Some((1, 3))), put(2, 4, None)];
    let text = complaint(&operations, &[change(2, 2), change(3, 1)]);
    assert!(text.contains("it stands at 2, and 3 was known"), "{text}");
}

#[test]
fn a_swap_is_held_to_its_condition() {
    let swap = |instead: Option<Vec<Found>>, revision| Operation {
        id: OpId(2),
        request: Request::Swap { key: b"k".to_vec(), expected: 2 },
        begun: 2,
        answered: Some((3, Answer::Swapped { revision, instead })),
    };
    let first = put(1, 0, Some((1, 2)));
    let changes = [change(2, 1), change(3, 2)];
    assert_eq!(check(&[first.clone(), swap(None, 3)], &changes), Ok(()));
    let refused = swap(Some(vec![found(1, 2, 2)]), 2);
    assert!(complaint(&[first.clone(), refused], &changes[..1]).contains("did not swap"));
    let other = put(3, 1, None);
    let wrong = [first, other, swap(None, 4)];
    let changes = [change(2, 1), change(3, 3), change(4, 2)];
    assert!(complaint(&wrong, &changes).contains("it swapped 2, and 3 was there"));
}

#[test]
fn deletions_are_counted_and_explained() {
    let gone = Change { revision: 3, sub: 0, key: b"k".to_vec(), value: None, lease: 0 };
    let changes = [change(2, 1), gone];
    let first = put(1, 0, Some((1, 2)));
    let delete = |answer: Option<(i64, i64)>| Operation {
        id: OpId(2),
        request: Request::Delete { from: b"a".to_vec(), to: b"z".to_vec() },
        begun: 2,
        answered: answer.map(|(revision, count)| (3, Answer::Deleted { revision, count })),
    };
    assert_eq!(check(&[first.clone(), delete(Some((3, 1)))], &changes), Ok(()));
    assert_eq!(check(&[first.clone(), delete(None)], &changes), Ok(()));
    assert!(complaint(std::slice::from_ref(&first), &changes).contains("nobody has deleted"));
    assert!(complaint(&[first, delete(Some((3, 2)))], &changes).contains("2 keys were deleted"));
}

#[test]
fn states_between_the_kept_ones_are_made_from_them() {
    let count = 3 * STATES_EVERY as i64 + 5;
    let changes: Vec<Change> = (0..count).map(|at| change(at + 2, at as u64)).collect();
    let mut operations: Vec<Operation> =
        (0..count).map(|at| put(at as u64, 0, Some((1, at + 2)))).collect();
    for at in 0..count {
        let id = 10_000 + at as u64;
        let mut read = read(id, (0, 1), at + 2, vec![found(at as u64, 2, at + 2)]);
        read.begun = 0;
        operations.push(read);
    }
    assert_eq!(check(&operations, &changes), Ok(()));
}

#[test]
fn the_keys_of_a_lease_end_together() {
    let leased = |key: &[u8], revision, writer| Change {
        key: key.to_vec(),
        lease: 7,
        ..change(revision, writer)
    };
    let put = |id, key: &[u8]| Operation {
        request: Request::Put { key: key.to_vec(), lease: 7 },
        ..put(id, 0, None)
    };
    let gone =
        |key: &[u8], sub| Change { revision: 4, sub, key: key.to_vec(), value: None, lease: 0 };
    let operations = [put(1, b"a"), put(2, b"b")];
    let mut changes = vec![leased(b"a", 2, 1), leased(b"b", 3, 2), gone(b"a", 0), gone(b"b", 1)];
    assert_eq!(check(&operations, &changes), Ok(()));
    changes.pop();
    assert!(complaint(&operations, &changes).contains("nobody has deleted"));
}
