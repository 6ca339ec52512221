//! Who votes and who learns after a change: for a start, which replays changes before there is a
//! raft to ask.
//!
//! Invariant: what this says of a change is what raft-rs says of it when it is live, because it is
//! raft-rs that is asked, on a configuration that stands alone.

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use raft::{Changer, Error, ProgressTracker};

/// The configuration behind a change. Ids are in their order, so that all members say it in the
/// same bytes.
///
/// # Errors
/// raft-rs' refusal: the change does not fit, or would leave nobody who votes.
pub fn changed(state: &ConfState, change: &ConfChangeV2) -> Result<ConfState, Error> {
    if change.leave_joint() || change.enter_joint().is_some() {
        return Err(Error::ConfChangeError("changes are made one at a time".to_owned()));
    }
    // Nothing is ever in flight in it.
    let mut tracker = ProgressTracker::new(1);
    for &voter in &state.voters {
        step(&mut tracker, &[single(ConfChangeType::AddNode, voter)])?;
    }
    for &learner in &state.learners {
        step(&mut tracker, &[single(ConfChangeType::AddLearnerNode, learner)])?;
    }
    step(&mut tracker, &change.changes)?;
    Ok(sorted(tracker.conf().to_conf_state()))
}

/// The same configuration with its ids in their order; raft-rs keeps them in none.
#[must_use]
pub fn sorted(mut state: ConfState) -> ConfState {
    for list in [&mut state.voters, &mut state.learners] {
        list.sort_unstable();
    }
    state
}

fn single(kind: ConfChangeType, member: u64) -> ConfChangeSingle {
    let mut single = ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = member;
    single
}

fn step(tracker: &mut ProgressTracker, changes: &[ConfChangeSingle]) -> Result<(), Error> {
    let (configuration, progress) = Changer::new(tracker).simple(changes)?;
    tracker.apply_conf(configuration, progress, 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::ids::{LogIndex, MemberId};

    use super::super::storage::{LogStore, conf_state_of};
    use super::super::{Consensus, ConsensusConfig};
    use super::*;

    const ADD: ConfChangeType = ConfChangeType::AddNode;
    const LEARN: ConfChangeType = ConfChangeType::AddLearnerNode;
    const REMOVE: ConfChangeType = ConfChangeType::RemoveNode;

    fn change(kind: ConfChangeType, member: u64) -> ConfChangeV2 {
        let changes = vec![single(kind, member)].into();
        ConfChangeV2 { changes, ..ConfChangeV2::default() }
    }

    #[test]
    fn a_replay_and_a_live_raft_agree() {
        let founders = [MemberId(1)];
        let mut replayed = conf_state_of(&founders);
        let config = ConsensusConfig {
            member_id: MemberId(1),
            heartbeat_ticks: 1,
            election_ticks: 10,
            pre_vote: true,
        };
        let mut live = Consensus::new(config, LogStore::bootstrap(&founders), LogIndex(1)).unwrap();
        let steps = [
            (ADD, 7),
            (ADD, 3),
            (LEARN, 9),
            (ADD, 3),
            (LEARN, 5),
            (ADD, 9),
            (REMOVE, 7),
            (REMOVE, 7),
            (LEARN, 3),
            (ADD, u64::MAX),
            (REMOVE, 5),
            (REMOVE, 1),
            (REMOVE, 9),
            (REMOVE, u64::MAX),
        ];
        let mut refused = 0;
        for (kind, member) in steps {
            let change = change(kind, member);
            let live = live.apply_membership(&change).map(sorted);
            match changed(&replayed, &change) {
                Ok(state) => {
                    assert_eq!(Some(&state), live.as_ref().ok(), "{kind:?} {member}");
                    assert!(state.voters.is_sorted() && state.learners.is_sorted());
                    replayed = state;
                }
                Err(_) => {
                    assert!(live.is_err(), "{kind:?} {member}");
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 1, "the last voter stays");
        assert_eq!((&replayed.voters[..], &replayed.learners[..]), (&[u64::MAX][..], &[3][..]));
    }

    #[test]
    fn a_change_of_several_at_once_is_none_of_ours() {
        let state = conf_state_of(&[MemberId(1)]);
        let several = vec![single(ADD, 2), single(ADD, 3)].into();
        let several = ConfChangeV2 { changes: several, ..ConfChangeV2::default() };
        assert!(changed(&state, &several).is_err());
        assert!(changed(&state, &ConfChangeV2::default()).is_err(), "to leave a joint change");
    }
}
