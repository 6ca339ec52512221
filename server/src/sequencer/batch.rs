//! Batches: what arrives while the disk is busy becomes the next log entry.
//!
//! No timer waits. An idle server commits a lone put at once; a busy one commits thousands with
//! one sync. The owner proposes each batch, tells its place with [`Batcher::handle_proposed`], and
//! takes the tickets back when the entry of that place is applied.
//!
//! A member that does not lead sends its batches to the one that does
//! ([`Batcher::handle_forwarded`]) and knows them again, when they are applied, by what their
//! headers say.
//!
//! Invariants:
//! - Commands keep the order in which their front-end sent them.
//! - Every ticket leaves exactly once: with its entry, through [`Batcher::fail_waiting`], or, when
//!   it went to the leader, with its refusal or as forgotten.
//! - (member, nonce, sequence) names a command once and for all: nothing is ever proposed twice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::BatchHeader;
use engine::command::{BATCH_HEADER_SIZE_BYTES, frees_space};
use engine::ids::{LogIndex, MemberId, Term};

use crate::mail::{FrontendId, Slot};

/// A batch closes at this size; a single larger letter stands alone. It bounds what one entry costs
/// the log, the peers and the apply.
pub const BATCH_SIZE_BYTES_MAX: usize = 1024 * 1024;
/// What must be waiting before a batch is proposed while another is on its way to the disk. Below
/// it a second write would only split the next batch.
pub const EAGER_SIZE_BYTES_MIN: usize = 64 * 1024;
/// Batches on their way to the disk. Measured: four writes in flight take 144 us each where one
/// takes 87; more only lengthen the queue.
pub const BATCHES_UNSYNCED_MAX: usize = 4;

/// A batch that waits longer takes no more commands: while nobody leads, those in it are given up
/// together, and none much before its time.
const GATHERING_TIME_MAX: Duration = Duration::from_millis(100);

/// Whose command it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The front-end that asked.
    pub frontend: FrontendId,
    /// Its slot.
    pub slot: Slot,
}

#[derive(Debug, Default)]
struct Gathering {
    bytes: Vec<u8>,
    tickets: Vec<Ticket>,
    /// When it was opened.
    since: Duration,
}

#[derive(Debug)]
struct Proposed {
    index: LogIndex,
    term: Term,
    tickets: Vec<Ticket>,
}

/// Gathers commands into batches and remembers whose they are.
#[derive(Debug)]
pub struct Batcher {
    member: MemberId,
    boot_nonce: u64,
    sequence_next: u64,
    waiting: VecDeque<Gathering>,
    waiting_size_bytes: usize,
    proposed: VecDeque<Proposed>,
    /// Of proposals whose place another one has.
    replaced: Vec<Ticket>,
    /// Batches that went to the leader, by the sequence number of their first command.
    forwarded: BTreeMap<u64, Forwarded>,
    /// How many of them the present leader has.
    forwarded_count: usize,
    /// Counts the leaders that batches went to.
    leaders: u64,
    taken: Option<Taken>,
    now: Duration,
}

/// A batch that was taken and whose fate is yet to be told.
#[derive(Debug)]
struct Taken {
    sequence_first: u64,
    tickets: Vec<Ticket>,
}

/// A batch whose fate the log will tell, if anybody does.
#[derive(Debug)]
struct Forwarded {
    tickets: Vec<Ticket>,
    /// Which leader it went to.
    leader: u64,
    /// When nobody waits for it any more.
    until: Duration,
}

impl Batcher {
    /// For `member`, which drew `boot_nonce` at this start.
    #[must_use]
    pub fn new(member: MemberId, boot_nonce: u64) -> Self {
        Self {
            member,
            boot_nonce,
            sequence_next: 1,
            waiting: VecDeque::new(),
            waiting_size_bytes: 0,
            proposed: VecDeque::new(),
            replaced: Vec::new(),
            forwarded: BTreeMap::new(),
            forwarded_count: 0,
            leaders: 0,
            taken: None,
            now: Duration::ZERO,
        }
    }

    /// Tells the time, for what comes from now on.
    pub fn handle_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// Takes the commands of one letter.
    pub fn handle_commands(&mut self, frontend: FrontendId, frames: &[u8], slots: &[Slot]) {
        if slots.is_empty() {
            assert!(frames.is_empty(), "command frames without slots to answer to");
            return;
        }
        let (mut frames, mut slots) = (frames, slots);
        while !slots.is_empty() {
            let room = self.room_for(frame_size(frames));
            let (size, count) = frames_within(frames, room, slots.len());
            let batch = self.waiting.back_mut().expect("room_for() opened one if need be");
            batch.bytes.extend_from_slice(&frames[..size]);
            batch.tickets.extend(slots[..count].iter().map(|&slot| Ticket { frontend, slot }));
            self.waiting_size_bytes += size;
            (frames, slots) = (&frames[size..], &slots[count..]);
        }
        assert!(frames.is_empty(), "more command frames than slots");
    }

    /// The room in the last batch for at least one frame of this size; a new batch if it has none.
    fn room_for(&mut self, size_bytes: usize) -> usize {
        let room = |batch: &Gathering| BATCH_SIZE_BYTES_MAX.saturating_sub(batch.bytes.len());
        let is_young = |batch: &&Gathering| batch.since + GATHERING_TIME_MAX > self.now;
        match self.waiting.back().filter(is_young).map(room) {
            Some(room) if room >= size_bytes => room,
            _ => {
                let bytes = vec![0; BATCH_HEADER_SIZE_BYTES];
                let since = self.now;
                self.waiting.push_back(Gathering { bytes, tickets: Vec::new(), since });
                (BATCH_SIZE_BYTES_MAX - BATCH_HEADER_SIZE_BYTES).max(size_bytes)
            }
        }
    }

    /// The size of the next batch to propose, given how many are not yet synced.
    #[must_use]
    pub fn peek_batch(&self, unsynced: usize) -> Option<usize> {
        assert!(self.taken.is_none(), "the last batch's fate was not told");
        let eager = self.waiting_size_bytes >= EAGER_SIZE_BYTES_MIN;
        if unsynced >= BATCHES_UNSYNCED_MAX || (unsynced > 0 && !eager) {
            return None;
        }
        self.waiting.front().map(|batch| batch.bytes.len())
    }

    /// Takes the batch that was peeked at. The owner must answer with [`Self::handle_proposed`] or
    /// [`Self::handle_refused`] before it peeks again.
    pub fn take_batch(&mut self) -> Vec<u8> {
        let batch = self.waiting.pop_front().expect("a batch was peeked at");
        let Gathering { mut bytes, tickets, .. } = batch;
        self.waiting_size_bytes -= bytes.len() - BATCH_HEADER_SIZE_BYTES;
        let frame_count = u32::try_from(tickets.len()).expect("a batch is far below 2^32 frames");
        let header = BatchHeader {
            member: self.member,
            boot_nonce: self.boot_nonce,
            sequence_first: self.sequence_next,
            frame_count,
        };
        bytes[..BATCH_HEADER_SIZE_BYTES].copy_from_slice(&header.to_bytes());
        self.taken = Some(Taken { sequence_first: self.sequence_next, tickets });
        self.sequence_next += u64::from(frame_count);
        bytes
    }

    /// Takes one command as a batch of its own, past all that waits. What is said of
    /// [`Self::take_batch`] goes for it, too.
    pub fn take_alone(&mut self, ticket: Ticket, frame: &[u8]) -> Vec<u8> {
        assert!(self.taken.is_none(), "the last batch's fate was not told");
        let mut bytes = vec![0; BATCH_HEADER_SIZE_BYTES];
        bytes.extend_from_slice(frame);
        self.waiting_size_bytes += frame.len();
        self.waiting.push_front(Gathering { bytes, tickets: vec![ticket], since: self.now });
        self.take_batch()
    }

    /// How many commands are in the batch just taken.
    #[must_use]
    pub fn taken_count(&self) -> usize {
        self.taken.as_ref().map_or(0, |taken| taken.tickets.len())
    }

    /// The batch just taken stands at this place of the log.
    pub fn handle_proposed(&mut self, index: LogIndex, term: Term) {
        let Taken { tickets, .. } = self.taken.take().expect("a batch was taken");
        // Another leader has replaced what this one proposed in an earlier term.
        while let Some(last) = self.proposed.pop_back_if(|last| last.index >= index) {
            assert!(last.term < term, "a proposal at {index} after one at {}", last.index);
            self.replaced.extend(last.tickets);
        }
        self.proposed.push_back(Proposed { index, term, tickets });
    }

    /// The batch just taken was not taken; these are its commands' tickets.
    pub fn handle_refused(&mut self) -> Vec<Ticket> {
        self.taken.take().expect("a batch was taken").tickets
    }

    /// The batch just taken went to the leader, once and for all; `until` then nobody waits for it
    /// any more.
    pub fn handle_forwarded(&mut self, until: Duration) {
        let Taken { sequence_first, tickets } = self.taken.take().expect("a batch was taken");
        let leader = self.leaders;
        self.forwarded.insert(sequence_first, Forwarded { tickets, leader, until });
        self.forwarded_count += 1;
    }

    /// Another member leads, or nobody: of what went to the last one nothing may ever be heard.
    pub fn handle_leader_changed(&mut self) {
        self.leaders += 1;
        self.forwarded_count = 0;
    }

    /// The tickets of a batch that went to the leader and is applied, or was refused there. Empty
    /// for one that nobody waits for any more, and for one that was proposed here.
    pub fn take_forwarded(&mut self, boot_nonce: u64, sequence_first: u64) -> Vec<Ticket> {
        if boot_nonce != self.boot_nonce {
            return Vec::new();
        }
        let Some(batch) = self.forwarded.remove(&sequence_first) else { return Vec::new() };
        self.forwarded_count -= usize::from(batch.leader == self.leaders);
        batch.tickets
    }

    /// The tickets of batches whose fate is not known in time. They may yet be applied.
    pub fn take_forgotten(&mut self, now: Duration) -> Vec<Ticket> {
        let late = self.forwarded.extract_if(.., |_, batch| batch.until <= now);
        let late: Vec<Forwarded> = late.map(|(_, batch)| batch).collect();
        let present = late.iter().filter(|batch| batch.leader == self.leaders).count();
        self.forwarded_count -= present;
        late.into_iter().flat_map(|batch| batch.tickets).collect()
    }

    /// Batches that went to the present leader and of which nothing was heard yet.
    #[must_use]
    pub fn forwarded_count(&self) -> usize {
        self.forwarded_count
    }

    /// The tickets of the entry at this place. Empty for an entry of another member or an earlier
    /// boot. Proposals before `index` that another leader's entries replaced come back in `lost`.
    pub fn take_applied(
        &mut self,
        index: LogIndex,
        term: Term,
        lost: &mut Vec<Ticket>,
    ) -> Vec<Ticket> {
        lost.append(&mut self.replaced);
        while let Some(front) = self.proposed.front() {
            if front.index > index {
                break;
            }
            let front = self.proposed.pop_front().expect("front() has just shown it");
            if front.index == index && front.term == term {
                return front.tickets;
            }
            lost.extend(front.tickets);
        }
        Vec::new()
    }

    /// The store has come from another member, as it was behind this entry: what this one had
    /// proposed up to there may be in it or not.
    pub fn take_installed(&mut self, index: LogIndex) -> Vec<Ticket> {
        let mut tickets = std::mem::take(&mut self.replaced);
        while let Some(first) = self.proposed.pop_front_if(|first| first.index <= index) {
            tickets.extend(first.tickets);
        }
        tickets
    }

    /// Whether the next batch only deletes and compacts.
    #[must_use]
    pub fn frees_space(&self) -> bool {
        let Some(batch) = self.waiting.front() else { return false };
        let mut frames = &batch.bytes[BATCH_HEADER_SIZE_BYTES..];
        while !frames.is_empty() {
            let frame;
            (frame, frames) = frames.split_at(frame_size(frames));
            // As a rule the first one says no.
            if !frees_space(frame) {
                return false;
            }
        }
        true
    }

    /// Takes the commands that store something out of the next batch, for a full disk; what deletes
    /// or compacts stays. These are the tickets of what was taken out.
    pub fn refuse_storing(&mut self) -> Vec<Ticket> {
        let Some(batch) = self.waiting.pop_front() else { return Vec::new() };
        let size_bytes = batch.bytes.len();
        let bytes = vec![0; BATCH_HEADER_SIZE_BYTES];
        let mut kept = Gathering { bytes, tickets: Vec::new(), since: batch.since };
        let mut refused = Vec::new();
        let mut frames = &batch.bytes[BATCH_HEADER_SIZE_BYTES..];
        for ticket in batch.tickets {
            let frame;
            (frame, frames) = frames.split_at(frame_size(frames));
            if frees_space(frame) {
                kept.bytes.extend_from_slice(frame);
                kept.tickets.push(ticket);
            } else {
                refused.push(ticket);
            }
        }
        assert!(frames.is_empty(), "a ticket for every frame");
        self.waiting_size_bytes -= size_bytes - kept.bytes.len();
        if !kept.tickets.is_empty() {
            self.waiting.push_front(kept);
        }
        refused
    }

    /// Tickets of batches that wait since before this moment and went nowhere.
    pub fn take_late(&mut self, before: Duration) -> Vec<Ticket> {
        let mut late = Vec::new();
        while let Some(batch) = self.waiting.pop_front_if(|batch| batch.since <= before) {
            self.waiting_size_bytes -= batch.bytes.len() - BATCH_HEADER_SIZE_BYTES;
            late.extend(batch.tickets);
        }
        late
    }

    /// Bytes of commands that wait.
    #[must_use]
    pub fn waiting_size_bytes(&self) -> usize {
        self.waiting_size_bytes
    }

    /// Tickets of batches not yet proposed, for a member that does not lead.
    pub fn fail_waiting(&mut self) -> Vec<Ticket> {
        self.waiting_size_bytes = 0;
        self.waiting.drain(..).flat_map(|batch| batch.tickets).collect()
    }

    /// Whether commands wait to be proposed.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether proposed commands wait to be applied, here or with the leader.
    #[must_use]
    pub fn has_proposed(&self) -> bool {
        !self.proposed.is_empty() || !self.forwarded.is_empty()
    }
}

/// The size of the first frame: its length, as `engine::command` writes it, and what it counts.
///
/// # Panics
/// Without a frame.
#[must_use]
pub fn frame_size(frames: &[u8]) -> usize {
    let length = frames.first_chunk().expect("a frame for every slot");
    4 + u32::from_le_bytes(*length) as usize
}

/// How many bytes and frames of `frames` fit into `room`, at most `count_max`.
fn frames_within(frames: &[u8], room: usize, count_max: usize) -> (usize, usize) {
    let (mut size, mut count) = (0, 0);
    while count < count_max {
        let next = frame_size(&frames[size..]);
        if size + next > room {
            break;
        }
        (size, count) = (size + next, count + 1);
    }
    (size, count)
}

#[cfg(test)]
mod tests {
    use engine::command::{CompactRef, DeleteRangeRef, PutRef};

    use super::*;

    const FRONTEND: FrontendId = FrontendId(3);

    fn batcher() -> Batcher {
        Batcher::new(MemberId(9), 77)
    }

    fn ask(batcher: &mut Batcher, slots: std::ops::Range<u32>, size_bytes: usize) {
        // All bytes go to the first frame; the others are empty.
        let slots: Vec<Slot> = slots.map(Slot).collect();
        let mut frames = Vec::new();
        for place in 0..slots.len() {
            let body = if place == 0 { size_bytes - 4 * slots.len() } else { 0 };
            frames.extend_from_slice(&u32::try_from(body).unwrap().to_le_bytes());
            frames.resize(frames.len() + body, 1);
        }
        batcher.handle_commands(FRONTEND, &frames, &slots);
    }

    fn take(batcher: &mut Batcher, unsynced: usize) -> Option<Vec<u8>> {
        batcher.peek_batch(unsynced)?;
        Some(batcher.take_batch())
    }

    fn header(bytes: &[u8]) -> BatchHeader {
        BatchHeader::from_bytes(bytes).unwrap()
    }

    #[test]
    fn an_idle_disk_takes_a_lone_command_at_once() {
        let mut batcher = batcher();
        ask(&mut batcher, 0..1, 10);
        let bytes = take(&mut batcher, 0).unwrap();
        assert_eq!(bytes.len(), BATCH_HEADER_SIZE_BYTES + 10);
        let header = header(&bytes);
        assert_eq!((header.member, header.boot_nonce), (MemberId(9), 77));
        assert_eq!((header.sequence_first, header.frame_count), (1, 1));
    }

    #[test]
    fn what_arrives_while_the_disk_is_busy_is_one_batch() {
        let mut batcher = batcher();
        ask(&mut batcher, 0..1, 10);
        take(&mut batcher, 0).unwrap();
        batcher.handle_proposed(LogIndex(5), Term(2));
        for slot in 1..4 {
            ask(&mut batcher, slot..slot + 1, 10);
            assert!(take(&mut batcher, 1).is_none());
        }
        let bytes = take(&mut batcher, 0).unwrap();
        assert_eq!(header(&bytes).sequence_first, 2);
        assert_eq!(header(&bytes).frame_count, 3);
        batcher.handle_proposed(LogIndex(6), Term(2));
        let mut lost = Vec::new();
        let tickets = batcher.take_applied(LogIndex(5), Term(2), &mut lost);
        assert_eq!(tickets, [Ticket { frontend: FRONTEND, slot: Slot(0) }]);
        assert_eq!(batcher.take_applied(LogIndex(6), Term(2), &mut lost).len(), 3);
        assert!(lost.is_empty() && !batcher.has_proposed());
    }

    #[test]
    fn enough_bytes_go_to_a_busy_disk_up_to_the_depth() {
        let mut batcher = batcher();
        ask(&mut batcher, 0..1, EAGER_SIZE_BYTES_MIN - 4);
        assert!(take(&mut batcher, 1).is_none());
        ask(&mut batcher, 1..2, 4);
        assert!(take(&mut batcher, BATCHES_UNSYNCED_MAX).is_none());
        assert!(take(&mut batcher, BATCHES_UNSYNCED_MAX - 1).is_some());
    }

    #[test]
    fn a_batch_ends_at_its_limit_and_a_larger_letter_stands_alone() {
        let mut batcher = batcher();
        ask(&mut batcher, 0..1, BATCH_SIZE_BYTES_MAX - BATCH_HEADER_SIZE_BYTES);
        ask(&mut batcher, 1..2, 4);
        ask(&mut batcher, 2..3, BATCH_SIZE_BYTES_MAX * 2);
        ask(&mut batcher, 3..4, 4);
        let mut sizes = Vec::new();
        for index in 1.. {
            let Some(bytes) = take(&mut batcher, 0) else { break };
            sizes.push(bytes.len() - BATCH_HEADER_SIZE_BYTES);
            batcher.handle_proposed(LogIndex(index), Term(1));
        }
        let full = BATCH_SIZE_BYTES_MAX - BATCH_HEADER_SIZE_BYTES;
        assert_eq!(sizes, [full, 4, BATCH_SIZE_BYTES_MAX * 2, 4]);
    }

    /// Found in review: a letter of many large puts became one batch, larger than the log takes.
    #[test]
    fn a_letter_larger_than_a_batch_is_cut_between_frames() {
        let mut batcher = batcher();
        let slots: Vec<Slot> = (0..30).map(Slot).collect();
        let mut frames = Vec::new();
        for _ in 0..30 {
            frames.extend_from_slice(&(400_000u32).to_le_bytes());
            frames.resize(frames.len() + 400_000, 1);
        }
        batcher.handle_commands(FRONTEND, &frames, &slots);
        let mut count = 0;
        for index in 1.. {
            let Some(bytes) = take(&mut batcher, 0) else { break };
            assert!(bytes.len() <= BATCH_SIZE_BYTES_MAX);
            count += header(&bytes).frame_count;
            batcher.handle_proposed(LogIndex(index), Term(1));
        }
        assert_eq!(count, 30);
    }

    #[test]
    fn a_proposal_that_another_leader_replaced_is_lost_not_answered() {
        let mut batcher = batcher();
        for index in 5..7 {
            ask(&mut batcher, 0..1, 4);
            take(&mut batcher, 0).unwrap();
            batcher.handle_proposed(LogIndex(index), Term(2));
        }
        let mut lost = Vec::new();
        assert!(batcher.take_applied(LogIndex(5), Term(3), &mut lost).is_empty());
        assert_eq!(lost.len(), 1);
        assert!(batcher.take_applied(LogIndex(7), Term(3), &mut lost).is_empty());
        assert_eq!(lost.len(), 2);
    }

    #[test]
    fn a_proposal_at_the_place_of_an_earlier_term_replaces_what_follows() {
        let mut batcher = batcher();
        for index in 5..8 {
            ask(&mut batcher, 0..1, 4);
            take(&mut batcher, 0).unwrap();
            batcher.handle_proposed(LogIndex(index), Term(2));
        }
        ask(&mut batcher, 1..2, 4);
        take(&mut batcher, 0).unwrap();
        batcher.handle_proposed(LogIndex(6), Term(4));
        let mut lost = Vec::new();
        assert_eq!(batcher.take_applied(LogIndex(5), Term(2), &mut lost).len(), 1);
        assert_eq!(lost.len(), 2);
        assert_eq!(batcher.take_applied(LogIndex(6), Term(4), &mut lost).len(), 1);
        assert!(lost.len() == 2 && !batcher.has_proposed());
    }

    #[test]
    fn what_waits_too_long_is_given_up_and_what_came_later_is_not() {
        let mut batcher = batcher();
        let time = Duration::from_millis;
        for (moment, slot) in [(0, 0), (50, 1), (150, 2)] {
            batcher.handle_time(time(moment));
            ask(&mut batcher, slot..slot + 1, 4);
        }
        assert!(batcher.take_late(time(0)).len() == 2 && batcher.has_waiting());
        assert!(batcher.take_late(time(149)).is_empty());
        assert_eq!(batcher.take_late(time(150)).len(), 1);
        assert!(!batcher.has_waiting() && batcher.waiting_size_bytes() == 0);
    }

    #[test]
    fn a_new_leader_is_not_charged_with_what_the_last_one_got() {
        let mut batcher = batcher();
        for slot in 0..4 {
            ask(&mut batcher, slot..slot + 1, 4);
            take(&mut batcher, 0).unwrap();
            batcher.handle_forwarded(Duration::from_secs(1));
        }
        assert_eq!(batcher.forwarded_count(), 4);
        batcher.handle_leader_changed();
        assert_eq!(batcher.forwarded_count(), 0);
        ask(&mut batcher, 4..5, 4);
        take(&mut batcher, 0).unwrap();
        batcher.handle_forwarded(Duration::from_secs(1));
        assert_eq!((batcher.take_forwarded(77, 1).len(), batcher.forwarded_count()), (1, 1));
        assert_eq!((batcher.take_forwarded(77, 5).len(), batcher.forwarded_count()), (1, 0));
        assert_eq!(batcher.take_forgotten(Duration::from_secs(1)).len(), 3);
    }

    #[test]
    fn on_a_full_disk_deletes_and_compactions_stay_in_their_order() {
        let mut batcher = batcher();
        let (mut writer, mut frames) = (engine::FrameWriter::new(), Vec::new());
        let put = PutRef { key: b"k", value: b"v", ..PutRef::default() };
        writer.push_put(&mut frames, &put);
        writer.push_delete_range(&mut frames, &DeleteRangeRef { key: b"k", ..Default::default() });
        writer.push_put(&mut frames, &put);
        let compact = CompactRef { revision: engine::ids::Revision(1), physical: false };
        writer.push_compact(&mut frames, compact);
        let slots: Vec<Slot> = (0..4).map(Slot).collect();
        batcher.handle_commands(FRONTEND, &frames, &slots);
        assert!(!batcher.frees_space());
        let refused: Vec<Slot> = batcher.refuse_storing().iter().map(|one| one.slot).collect();
        assert_eq!(refused, [Slot(0), Slot(2)]);
        assert!(batcher.frees_space());
        let bytes = take(&mut batcher, 0).unwrap();
        assert_eq!(engine::Batch::validate(bytes).unwrap().len(), 2);
        let tickets: Vec<Slot> = batcher.handle_refused().iter().map(|one| one.slot).collect();
        assert_eq!(tickets, [Slot(1), Slot(3)]);
        batcher.handle_commands(FRONTEND, &frames[..frame_size(&frames)], &slots[..1]);
        assert_eq!(batcher.refuse_storing().len(), 1);
        assert!(!batcher.has_waiting() && batcher.waiting_size_bytes == 0);
    }

    #[test]
    fn what_went_to_the_leader_is_known_again_by_its_header() {
        let mut batcher = batcher();
        for slot in 0..3 {
            ask(&mut batcher, slot..slot + 1, 4);
            let bytes = take(&mut batcher, 0).unwrap();
            assert_eq!(header(&bytes).sequence_first, u64::from(slot) + 1);
            batcher.handle_forwarded(Duration::from_secs(u64::from(slot)));
        }
        assert_eq!(batcher.forwarded_count(), 3);
        let slots = |tickets: Vec<Ticket>| tickets.iter().map(|one| one.slot.0).collect::<Vec<_>>();
        // The leader may have taken the second and not the first.
        assert_eq!(slots(batcher.take_forwarded(77, 2)), [1]);
        assert!(
            batcher.take_forwarded(77, 2).is_empty() && batcher.take_forwarded(78, 3).is_empty()
        );
        assert_eq!(slots(batcher.take_forgotten(Duration::from_secs(1))), [0]);
        assert!(batcher.take_forwarded(77, 1).is_empty());
        assert_eq!(slots(batcher.take_forwarded(77, 3)), [2]);
        assert!(!batcher.has_proposed());
    }

    #[test]
    fn giving_up_returns_what_was_not_proposed_once() {
        let mut batcher = batcher();
        ask(&mut batcher, 0..2, 8);
        take(&mut batcher, 0).unwrap();
        batcher.handle_proposed(LogIndex(2), Term(1));
        ask(&mut batcher, 2..5, 12);
        assert_eq!(batcher.fail_waiting().len(), 3);
        assert!(batcher.fail_waiting().is_empty() && batcher.has_proposed());
    }
}
