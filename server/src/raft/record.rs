//! What raft writes to the log: entries and hard states, as opaque records of the WAL.
//!
//! The bodies are frozen by golden bytes: little-endian, without alignment, validated when read.
//! An entry is its head followed by the payload as it was proposed, so that the payload is copied
//! once, into the log's buffer.

use engine::ids::{LogIndex, Term};
use raft::eraftpb::{Entry, EntryType, HardState};
use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

/// The record kind of an entry.
pub const KIND_ENTRY: u8 = 1;

/// Head of an entry record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct EntryHead {
    index: u64,
    term: u64,
    kind: u8,
}

/// Body of a hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct StateBody {
    term: u64,
    vote: u64,
    commit: u64,
}

/// Body of the record that voids the log before it: the store came from another member, as it was
/// after this entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct ResetBody {
    index: u64,
    term: u64,
}

/// What an entry's record is longer than its payload.
pub const ENTRY_HEAD_SIZE_BYTES: usize = size_of::<ArchivedEntryHead>();
const STATE_SIZE_BYTES: usize = size_of::<ArchivedStateBody>();
const _: () = assert!(ENTRY_HEAD_SIZE_BYTES == 17);
const RESET_SIZE_BYTES: usize = size_of::<ArchivedResetBody>();
const _: () = assert!(STATE_SIZE_BYTES == 24);
const _: () = assert!(RESET_SIZE_BYTES == 16);

/// A record that cannot have been written by us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// What is wrong with it.
    pub reason: &'static str,
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.reason)
    }
}

impl std::error::Error for RecordError {}

fn kind_code(kind: EntryType) -> u8 {
    match kind {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

/// The head of an entry's record; the payload follows it.
#[must_use]
pub fn encode_entry_head(entry: &Entry) -> [u8; ENTRY_HEAD_SIZE_BYTES] {
    let kind = kind_code(entry.get_entry_type());
    encode(&EntryHead { index: entry.index, term: entry.term, kind })
}

/// Reads an entry back.
///
/// # Errors
/// The body is too short or of an unknown kind.
pub fn decode_entry(body: &[u8]) -> Result<Entry, RecordError> {
    let Some((head, payload)) = body.split_at_checked(ENTRY_HEAD_SIZE_BYTES) else {
        return Err(RecordError { reason: "an entry record is shorter than its head" });
    };
    let head = rkyv::from_bytes::<EntryHead, rancor::Failure>(head)
        .map_err(|_| RecordError { reason: "an entry record has an invalid head" })?;
    let kind = match head.kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return Err(RecordError { reason: "an entry record is of an unknown kind" }),
    };
    let mut entry = Entry { index: head.index, term: head.term, ..Entry::default() };
    entry.set_entry_type(kind);
    entry.data = payload.to_vec().into();
    Ok(entry)
}

/// The body of the record behind which the log goes on with the entry after this one.
#[must_use]
pub fn encode_reset((index, term): (LogIndex, Term)) -> [u8; RESET_SIZE_BYTES] {
    encode(&ResetBody { index: index.0, term: term.0 })
}

/// Reads that back.
///
/// # Errors
/// The body has another length.
pub fn decode_reset(body: &[u8]) -> Result<(LogIndex, Term), RecordError> {
    if body.len() != RESET_SIZE_BYTES {
        return Err(RecordError { reason: "a reset record has the wrong length" });
    }
    let body = rkyv::from_bytes::<ResetBody, rancor::Failure>(body)
        .map_err(|_| RecordError { reason: "a reset record is invalid" })?;
    Ok((LogIndex(body.index), Term(body.term)))
}

/// The body of a hard state's record.
#[must_use]
pub fn encode_state(state: &HardState) -> [u8; STATE_SIZE_BYTES] {
    encode(&StateBody { term: state.term, vote: state.vote, commit: state.commit })
}

/// Reads a hard state back.
///
/// # Errors
/// The body has another length.
pub fn decode_state(body: &[u8]) -> Result<HardState, RecordError> {
    if body.len() != STATE_SIZE_BYTES {
        return Err(RecordError { reason: "a hard state record has a wrong length" });
    }
    let state = rkyv::from_bytes::<StateBody, rancor::Failure>(body)
        .map_err(|_| RecordError { reason: "a hard state record is invalid" })?;
    Ok(HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..HardState::default()
    })
}

fn encode<const N: usize, T>(value: &T) -> [u8; N]
where
    T: for<'a> Serialize<
        rkyv::api::high::HighSerializer<
            rkyv::util::AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            rancor::Failure,
        >,
    >,
{
    let bytes = rkyv::to_bytes::<rancor::Failure>(value).expect("a flat struct always encodes");
    bytes.as_slice().try_into().expect("the archived size is asserted at compile time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_freeze_the_entry() {
        let mut entry = Entry { index: 0x0102, term: 3, ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        let head = encode_entry_head(&entry);
        assert_eq!(head, [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2]);
        let mut body = head.to_vec();
        body.extend_from_slice(b"payload");
        entry.data = b"payload".to_vec().into();
        assert_eq!(decode_entry(&body).unwrap(), entry);
    }

    #[test]
    fn golden_bytes_freeze_the_hard_state() {
        let state = HardState { term: 1, vote: 2, commit: 0x0300, ..HardState::default() };
        let body = encode_state(&state);
        let golden = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(body, golden);
        assert_eq!(decode_state(&body).unwrap(), state);
    }

    #[test]
    fn what_we_never_wrote_is_refused() {
        assert!(decode_entry(&[0; 16]).is_err());
        let mut body = [0; 17];
        body[16] = 9;
        assert!(decode_entry(&body).is_err());
        assert!(decode_state(&[0; 23]).is_err());
    }
}
