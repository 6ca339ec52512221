//! The way of letters: connections between every two members, as frames of bytes.
//!
//! A connection keeps the order of what it carries. It breaks when somebody breaks it, when one end
//! dies, or some time after its way was cut; then what was on its way is lost, both ends are told,
//! and it is made again when that is possible. A letter of raft's may also vanish alone, or come
//! twice: raft has to bear more than a connection does to it.
//!
//! Invariants:
//! - Letters of one lane between two members arrive in their order or not at all.
//! - A letter arrives as the bytes that it was sent as.

use std::collections::BTreeMap;

use server::peer::frame::{BULK_BODY_SIZE_BYTES_MAX, FrameReader};
use server::peer::hello::Lane;
use server::peer::letter::Letter;

use super::network::{Network, Place};

/// From, to.
pub type Way = (Place, Place);

/// A connection, in one direction.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// Whether letters go over it.
    pub is_up: bool,
    /// Whether the lane of raft snapshots is there too.
    pub has_snapshot_lane: bool,
    /// Which of the connections it is: what was sent over an earlier one is lost.
    pub epoch: u64,
    /// When the last letter of each lane arrives.
    last: BTreeMap<u8, u64>,
}

/// Letters on their way, as what arrives when.
#[derive(Debug)]
pub struct Sent {
    /// When.
    pub at: u64,
    /// Over which connection.
    pub epoch: u64,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// The lane's number, for the order of letters.
fn number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
        Lane::Snapshot => 2,
    }
}

impl Link {
    /// Sends a letter: what of it arrives, and when.
    pub fn send(
        &mut self,
        letter: &Letter,
        way: Way,
        now: u64,
        network: &mut Network,
    ) -> Vec<Sent> {
        if !network.reaches(way.0, way.1) {
            return Vec::new();
        }
        let lane = letter.lane();
        let is_raft = matches!(letter, Letter::Raft(_));
        let mut delays = network.send(way.0, way.1);
        if !is_raft {
            // A connection loses or doubles nothing by itself.
            delays.truncate(1);
            if delays.is_empty() {
                delays.push(network.delay());
            }
        }
        let last = self.last.entry(number(lane)).or_default();
        let bytes = letter.encode().to_vec();
        let mut sent = Vec::new();
        for delay in delays {
            *last = (*last + 1).max(now + delay);
            sent.push(Sent { at: *last, epoch: self.epoch, bytes: bytes.clone() });
        }
        sent
    }

    /// The connection is gone, with all that it carried.
    pub fn break_off(&mut self) {
        self.epoch += 1;
        self.is_up = false;
        self.has_snapshot_lane = false;
        self.last.clear();
    }
}

/// A letter in a few words.
#[must_use]
pub fn describe(letter: &Letter, (from, to): Way, is_up: bool) -> String {
    let what = match letter {
        Letter::Raft(message) => format!(
            "{:?} term {} index {} commit {} entries {} reject {}",
            message.get_msg_type(),
            message.term,
            message.index,
            message.commit,
            message.entries.len(),
            message.reject
        ),
        Letter::Forward(bytes) => format!("a batch of {} bytes", bytes.len()),
        Letter::SnapshotBegin(begin) => {
            let place = begin.message.get_snapshot().get_metadata();
            format!(
                "transfer {} begins at chunk {}: entry {} of term {}",
                begin.transfer, begin.chunk_first, place.index, place.term
            )
        }
        Letter::SnapshotChunk(chunk) => {
            format!("transfer {} chunk {} of {}", chunk.transfer, chunk.number, chunk.records.len())
        }
        other => format!("{other:?}"),
    };
    let lost = if is_up { "" } else { " (no way)" };
    format!("m{} > m{} {what}{lost}", from + 1, to + 1)
}

/// Reads a letter back.
///
/// # Errors
/// The bytes are not what the other side has written.
pub fn decode(bytes: &[u8]) -> Result<Letter, String> {
    let (mut reader, mut input) = (FrameReader::new(BULK_BODY_SIZE_BYTES_MAX), bytes);
    let frame = reader
        .poll_frame(&mut input)
        .map_err(|error| format!("a frame cannot be read: {error}"))?
        .ok_or("a frame is cut")?;
    if !input.is_empty() {
        return Err("a frame goes on behind its end".to_owned());
    }
    Letter::decode(frame).map_err(|error| format!("a letter cannot be read: {error}"))
}
