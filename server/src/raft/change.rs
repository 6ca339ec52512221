//! What raft and the store keep of the configuration, in bytes: changes in entries, the state of
//! who votes beside the members.
//!
//! raft-rs writes a change as a Protocol Buffers message and reads it back before it takes it into
//! the log, so an entry's payload is that message (`eraftpb.ConfChangeV2`); the batch that decides
//! about it travels in its `context`. The messages are told here once more, field by field, because
//! nothing else in this program needs that codec.
//!
//! Invariants:
//! - A batch decides its change: an entry whose change is another one than its batch's is refused.
//! - What comes from a log or a peer is checked by value.

use engine::ids::{LogIndex, Term};
use engine::{Batch, MembershipChange};
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType};

/// `eraftpb.ConfChangeSingle`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct SingleBody {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    member: u64,
}

/// `eraftpb.ConfChangeV2`, without the transition: changes are made one at a time.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ChangeBody {
    #[prost(int32, tag = "1")]
    transition: i32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<SingleBody>,
    #[prost(bytes = "vec", tag = "3")]
    context: Vec<u8>,
}

/// `eraftpb.ConfState`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StateBody {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    learners: Vec<u64>,
}

/// An entry that does not change the configuration as its batch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeError {
    /// What is wrong with it.
    pub reason: &'static str,
}

impl std::fmt::Display for ChangeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.reason)
    }
}

impl std::error::Error for ChangeError {}

/// raft's change for a batch that changes the members.
#[must_use]
pub fn change_of(change: MembershipChange, batch: Vec<u8>) -> ConfChangeV2 {
    let mut single = ConfChangeSingle::default();
    let (kind, member) = match change {
        MembershipChange::Add { id, is_learner: true } => (ConfChangeType::AddLearnerNode, id),
        MembershipChange::Add { id, is_learner: false } | MembershipChange::Promote(id) => {
            (ConfChangeType::AddNode, id)
        }
        MembershipChange::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    single.set_change_type(kind);
    single.node_id = member.0;
    ConfChangeV2 { changes: vec![single].into(), context: batch.into(), ..ConfChangeV2::default() }
}

/// The entry of a change that nobody proposes: it stands there because a start puts it there.
#[must_use]
pub fn entry_of(
    change: MembershipChange,
    batch: Vec<u8>,
    (index, term): (LogIndex, Term),
) -> Entry {
    let change = change_of(change, batch);
    let single =
        |single: &ConfChangeSingle| SingleBody { kind: kind_of(single), member: single.node_id };
    let body = ChangeBody {
        transition: 0,
        changes: change.changes.iter().map(single).collect(),
        context: change.context.to_vec(),
    };
    let data = body.encode_to_vec().into();
    let mut entry = Entry { index: index.0, term: term.0, data, ..Entry::default() };
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    entry
}

fn kind_of(single: &ConfChangeSingle) -> i32 {
    match single.get_change_type() {
        ConfChangeType::AddNode => 0,
        ConfChangeType::RemoveNode => 1,
        ConfChangeType::AddLearnerNode => 2,
    }
}

/// The batch and raft's change in an entry that changes the configuration.
///
/// # Errors
/// It is not a change that a leader of ours has made.
pub fn decode_change(entry: &Entry) -> Result<(Batch, ConfChangeV2), ChangeError> {
    let wrong = |reason| ChangeError { reason };
    if entry.get_entry_type() != EntryType::EntryConfChangeV2 {
        return Err(wrong("an entry of a kind that is not used"));
    }
    let body = ChangeBody::decode(&entry.data[..])
        .map_err(|_| wrong("a change of the configuration that cannot be read"))?;
    let batch = Batch::validate(body.context)
        .map_err(|_| wrong("a change of the configuration with a batch that cannot be read"))?;
    let decided = batch
        .membership_change()
        .ok_or(wrong("a change of the configuration whose batch changes no member"))?;
    let change = change_of(decided, Vec::new());
    let same = |(single, body): (&ConfChangeSingle, &SingleBody)| {
        (kind_of(single), single.node_id) == (body.kind, body.member)
    };
    let is_same = body.transition == 0
        && body.changes.len() == change.changes.len()
        && change.changes.iter().zip(&body.changes).all(same);
    if !is_same {
        return Err(wrong("a change of the configuration that is not its batch's"));
    }
    Ok((batch, change))
}

/// Who votes, as the store keeps it.
///
/// # Panics
/// In the middle of a joint change, which is never begun.
#[must_use]
pub fn encode_conf_state(state: &ConfState) -> Vec<u8> {
    let is_joint = !state.voters_outgoing.is_empty() || !state.learners_next.is_empty();
    assert!(!is_joint, "changes are made one at a time");
    StateBody { voters: state.voters.clone(), learners: state.learners.clone() }.encode_to_vec()
}

/// The inverse of [`encode_conf_state`].
///
/// # Errors
/// The bytes are not such a state.
pub fn decode_conf_state(bytes: &[u8]) -> Result<ConfState, ChangeError> {
    let body = StateBody::decode(bytes)
        .map_err(|_| ChangeError { reason: "the store's state of who votes cannot be read" })?;
    Ok(ConfState::from((body.voters, body.learners)))
}

#[cfg(test)]
mod tests {
    use engine::FrameWriter;
    use engine::command::{BATCH_HEADER_SIZE_BYTES, BatchHeader, MemberAddRef};
    use engine::ids::MemberId;
    use raft::{RawNode, Storage};

    use super::super::storage::{LogStore, conf_state_of};
    use super::*;

    fn batch(push: impl FnOnce(&mut FrameWriter, &mut Vec<u8>)) -> Vec<u8> {
        let header =
            BatchHeader { member: MemberId(1), boot_nonce: 2, sequence_first: 3, frame_count: 1 };
        let mut bytes = header.to_bytes().to_vec();
        assert_eq!(bytes.len(), BATCH_HEADER_SIZE_BYTES);
        push(&mut FrameWriter::new(), &mut bytes);
        bytes
    }

    fn add(id: u64, is_learner: bool) -> Vec<u8> {
        let peer_urls = ["http://127.0.0.1:1".to_owned()];
        let add =
            MemberAddRef { id: MemberId(id), peer_urls: &peer_urls, is_learner, learners_max: 1 };
        batch(|writer, frames| writer.push_member_add(frames, &add))
    }

    fn entry(change: &ConfChangeV2) -> Entry {
        // raft-rs' own encoding, by way of a proposal.
        let config = raft::Config { id: 1, ..raft::Config::default() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let store = LogStore::bootstrap(&[MemberId(1)]);
        let mut node = RawNode::new(
            &raft::Config { applied: store.last_index().unwrap(), ..config },
            store,
            &logger,
        )
        .unwrap();
        node.campaign().unwrap();
        loop {
            let mut ready = node.ready();
            let entries = ready.take_entries();
            node.mut_store().append(&entries);
            if let Some(state) = ready.hs() {
                node.mut_store().set_hard_state(state.clone());
            }
            if let Some(found) = entries.iter().find(|entry| !entry.data.is_empty()) {
                return found.clone();
            }
            node.advance(ready);
            node.advance_apply();
            if node.raft.state == raft::StateRole::Leader && !node.raft.has_pending_conf() {
                node.propose_conf_change(Vec::new(), change.clone()).unwrap();
            }
        }
    }

    #[test]
    fn raft_writes_a_change_as_it_is_read_here() {
        let bytes = add(7, true);
        let decided = Batch::validate(bytes.clone()).unwrap().membership_change().unwrap();
        let entry = entry(&change_of(decided, bytes.clone()));
        let (batch, change) = decode_change(&entry).unwrap();
        assert_eq!(batch.bytes(), bytes);
        let place = (LogIndex(entry.index), Term(entry.term));
        assert_eq!(entry_of(decided, bytes, place), entry);
        assert_eq!(change.changes[0].node_id, 7);
        assert_eq!(change.changes[0].get_change_type(), ConfChangeType::AddLearnerNode);
    }

    #[test]
    fn a_change_that_is_not_its_batchs_is_refused() {
        let (learner, voter) = (add(7, true), add(7, false));
        let decided = Batch::validate(learner).unwrap().membership_change().unwrap();
        let entry = entry(&change_of(decided, voter));
        assert!(decode_change(&entry).unwrap_err().reason.contains("not its batch's"));
        let garbage = Entry { data: b"\xff\xff".to_vec().into(), ..entry };
        assert!(decode_change(&garbage).is_err());
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        let mut state = conf_state_of(&[MemberId(3), MemberId(u64::MAX)]);
        state.learners.push(9);
        assert_eq!(decode_conf_state(&encode_conf_state(&state)).unwrap(), state);
        assert!(decode_conf_state(b"\xff").is_err());
    }
}
