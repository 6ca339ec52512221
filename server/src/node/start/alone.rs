//! `--force-new-cluster`: a member goes on alone with what it has, whoever else its store names.
//!
//! As in etcd the others are removed by entries of the log that count as committed because this
//! start says so, and the next start, without the flag, finds nothing unusual. Unlike etcd nothing
//! that the log holds is thrown away: what stands behind the last commit that it knows of may have
//! been acknowledged, and nobody is left who could object to it.
//!
//! Invariants:
//! - The entries are durable before they are applied.
//! - Of a member that is alone already everything stays as it is.

use engine::command::BatchHeader;
use engine::ids::{LogIndex, MemberId, Term};
use engine::{Batch, Engine, FrameWriter, Identity};
use raft::eraftpb::HardState;
use wal::RecordKind;

use super::replay::{Replay, apply};
use super::{Failure, LogDoor, StoreDoor, write_through};
use crate::raft::change::entry_of;
use crate::raft::record::{KIND_ENTRY, encode_entry_head, encode_state};

/// Makes this member the only one. The store is published, and the log was read to its end.
///
/// # Errors
/// This member is no member any more, or a disk fails.
pub(super) fn stand_alone<S: StoreDoor, L: LogDoor>(
    (identity, boot_nonce): (Identity, u64),
    state: HardState,
    replay: &mut Replay,
    (engine, store): (&mut Engine, &mut S),
    (wal, log): (&mut wal::Writer, &mut L),
) -> Result<HardState, Failure> {
    let own = identity.member;
    let is_alone = replay.conf_state.voters == [own.0] && replay.conf_state.learners.is_empty();
    if is_alone {
        return Ok(state);
    }
    for entry in std::mem::take(&mut replay.pending) {
        replay.applied = LogIndex(entry.index);
        apply(engine, store, entry, &mut replay.conf_state)?;
    }
    engine.publish();
    let batches = batches(own, boot_nonce, engine)?;
    let (applied, applied_term) = engine.applied();
    let term = Term(state.term.max(applied_term.0));
    let mut entries = Vec::new();
    for (index, bytes) in (applied.0 + 1..).zip(batches) {
        let batch = Batch::validate(bytes.clone())
            .map_err(|cause| Failure::InvalidEntry { index: LogIndex(index), cause })?;
        let change = batch.membership_change().expect("each of them changes a member");
        let entry = entry_of(change, bytes, (LogIndex(index), term));
        let start = wal.appended();
        wal.append(RecordKind::owned(KIND_ENTRY), &[&encode_entry_head(&entry), &entry.data])?;
        replay.retained.push_back((LogIndex(index), start));
        entries.push(entry);
    }
    let commit = entries.last().map_or(applied.0, |last| last.index);
    let state = HardState { term: term.0, commit, ..state };
    wal.append_state(&encode_state(&state))?;
    write_through(wal, log)?;
    for entry in entries {
        replay.applied = LogIndex(entry.index);
        apply(engine, store, entry, &mut replay.conf_state)?;
    }
    Ok(state)
}

/// The changes, each a batch: this member votes, and no other is left.
fn batches(own: MemberId, boot_nonce: u64, engine: &Engine) -> Result<Vec<Vec<u8>>, Failure> {
    let members = engine.newest_view().cluster_members().map_err(engine::Failure::from)?;
    let Some(member) = members.iter().find(|member| member.id == own) else {
        return Err(Failure::Mismatch(format!(
            "member {:x} belongs to no cluster any more, or has not received its store yet: there \
             is nothing to make a new cluster of",
            own.0
        )));
    };
    let mut batches = Vec::new();
    let mut batch = |push: &dyn Fn(&mut FrameWriter, &mut Vec<u8>)| {
        let sequence_first = batches.len() as u64;
        let header = BatchHeader { member: own, boot_nonce, sequence_first, frame_count: 1 };
        let mut bytes = header.to_bytes().to_vec();
        push(&mut FrameWriter::new(), &mut bytes);
        batches.push(bytes);
    };
    if member.is_learner {
        batch(&|writer, frames| writer.push_member_promote(frames, own));
    }
    for other in members.iter().filter(|member| member.id != own) {
        batch(&|writer, frames| writer.push_member_remove(frames, other.id));
    }
    Ok(batches)
}
