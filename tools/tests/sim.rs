//! The simulator as it is called: the same seed tells the same story in every process.

use std::process::Command;

/// All that a run of a seed tells.
fn story(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output();
    let output = output.expect("the simulator was built with this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).expect("it tells its story in words")
}

/// What stands before the time that it took, which no two runs share.
fn without_time(story: &str) -> &str {
    story.trim_end().rsplit_once(", ").expect("the last line ends with the time").0
}

#[test]
fn two_processes_tell_the_same_story_of_a_seed() {
    // Standard hash maps are seeded anew in each process, so one that decides anything shows here.
    for seed in ["7", "23", "41"] {
        let arguments = ["--seed", seed, "--duration-ms", "8000", "--trace"];
        let (first, second) = (story(&arguments), story(&arguments));
        assert!(first.lines().count() > 1000, "seed {seed} tells next to nothing");
        let mut lines = without_time(&first).lines().zip(without_time(&second).lines());
        let difference = lines.find(|(one, other)| one != other);
        assert_eq!(difference, None, "seed {seed}");
        assert_eq!(without_time(&first).len(), without_time(&second).len(), "seed {seed}");
    }
}

#[test]
fn seeds_are_told_in_their_order_whoever_runs_them() {
    let arguments =
        |jobs| ["--seed", "11", "--seeds", "6", "--duration-ms", "3000", "--jobs", jobs];
    let (one, many) = (story(&arguments("1")), story(&arguments("3")));
    assert_eq!(without_time(&one), without_time(&many));
}
