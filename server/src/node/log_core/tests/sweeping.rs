//! Sweeps beside other work.

use super::*;

#[test]
fn a_physical_compaction_is_answered_when_its_sweep_is_done_and_stalls_nobody() {
    let mut world = World::new("physical");
    world.time_of_a_look = Duration::from_micros(20);
    for _ in 0..4 {
        world.fill(0..2000, b"value");
    }
    let half = world.compact(Revision(4000), true);
    let whole = world.compact(Revision(8000), true);
    let plain = world.compact(Revision(8001), false);
    let refused = world.compact(Revision(4), true);
    while !world.is_answered(plain) {
        world.turn();
    }
    assert!(!world.is_answered(half) && !world.is_answered(whole));
    let rejection = Outcome::Rejected(Rejection::Compacted);
    assert_eq!(world.take_outcome(refused), Ok(rejection));
    let put = world.put("meanwhile", b"value");
    while !world.is_answered(put) {
        world.turn();
    }
    assert!(!world.is_answered(half));
    while !world.is_answered(half) {
        world.turn();
    }
    assert!(world.core.engine.swept() >= Revision(4000));
    assert!(!world.is_answered(whole));
    while !world.is_answered(whole) {
        world.turn();
    }
    assert!(world.core.engine.swept() >= Revision(8000));
    // One that is under way when the member stops is answered, too.
    world.fill(0..2000, b"value");
    let last = world.compact(Revision(10_000), true);
    while world.core.background_due().is_none() {
        world.turn();
    }
    world.core.stop();
    world.turn();
    assert_eq!(world.take_outcome(last), Err(Unavailable::Stopped));
}

#[test]
fn a_step_of_a_sweep_ends_by_the_clock_or_after_some_looks() {
    for (micros, looks) in [(0, 16), (10, 6), (20, 3), (59, 2), (1000, 1)] {
        let mut world = World::new("clock");
        world.time_of_a_look = Duration::from_micros(micros);
        for _ in 0..4 {
            world.fill(0..2000, b"value");
        }
        let whole = world.compact(Revision(8000), true);
        let mut most = 0;
        while !world.is_answered(whole) {
            let before = world.core.engine.activity().swept_changes;
            world.turn();
            most = most.max(world.core.engine.activity().swept_changes - before);
        }
        assert_eq!(most, looks * 64, "{micros} us a look");
    }
}
