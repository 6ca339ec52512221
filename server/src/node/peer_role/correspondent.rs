//! The log core, as the transport sees it: letters both ways, and what is known of the members.

use std::time::Duration;

use engine::ids::MemberId;
use engine::{KeyValueHashScan, Member};

use crate::node::failure::Failure;
use crate::node::log_core::LogCore;
use crate::peer::letter::{HashTold, Letter};

/// Who writes letters to other members, and reads theirs.
pub trait Correspondent {
    /// A member says something.
    ///
    /// # Errors
    /// This member cannot go on.
    fn handle_letter(&mut self, from: MemberId, letter: Letter) -> Result<(), Failure>;
    /// The next letter, in the order in which those to one member are to leave.
    fn poll_letter(&mut self) -> Option<(MemberId, Letter)>;
    /// Whether more letters with entries may come. Heartbeats and votes may always.
    fn has_letter_room(&self) -> bool;
    /// Letters can reach a member, or cannot any more.
    fn handle_peer(&mut self, peer: MemberId, is_up: bool);
    /// Letters to a member were dropped.
    fn handle_unreachable(&mut self, peer: MemberId);
    /// A member's process is gone: there is no connection to or from it, and its host says that
    /// nobody listens where it is reached. Told once, until it is back.
    fn handle_absent(&mut self, peer: MemberId, now: Duration);
    /// The connection for raft snapshots to a member stands, or does not any more.
    fn handle_snapshot_lane(&mut self, peer: MemberId, is_up: bool);
    /// Whether there is a raft snapshot for a member.
    fn wants_snapshot_lane(&self, peer: MemberId) -> bool;
    /// Grows whenever one of the following three changes.
    fn membership_number(&self) -> u64;
    /// The members of the cluster, this one among them; none while this member does not know.
    fn members(&self) -> &[Member];
    /// Those that were removed.
    fn removed(&self) -> &[MemberId];
    /// Whether this member itself was.
    fn is_removed(&self) -> bool;
    /// Somebody wants a hash of the keys.
    fn handle_hash_request(&mut self, number: u64, scan: KeyValueHashScan);
    /// And has gone before it was there.
    fn handle_hash_unwanted(&mut self, number: u64);
    /// An answer to that.
    fn poll_hash(&mut self) -> Option<(u64, HashTold)>;
}

impl Correspondent for LogCore {
    fn handle_letter(&mut self, from: MemberId, letter: Letter) -> Result<(), Failure> {
        self.handle_letter(from, letter)
    }

    fn poll_letter(&mut self) -> Option<(MemberId, Letter)> {
        self.poll_letter()
    }

    fn has_letter_room(&self) -> bool {
        self.has_letter_room()
    }

    fn handle_peer(&mut self, peer: MemberId, is_up: bool) {
        self.handle_peer(peer, is_up);
    }

    fn handle_unreachable(&mut self, peer: MemberId) {
        self.handle_unreachable(peer);
    }

    fn handle_absent(&mut self, peer: MemberId, now: Duration) {
        self.handle_absent(peer, now);
    }

    fn handle_snapshot_lane(&mut self, peer: MemberId, is_up: bool) {
        self.handle_snapshot_lane(peer, is_up);
    }

    fn wants_snapshot_lane(&self, peer: MemberId) -> bool {
        self.wants_snapshot_lane(peer)
    }

    fn membership_number(&self) -> u64 {
        self.membership_number()
    }

    fn members(&self) -> &[Member] {
        self.members()
    }

    fn removed(&self) -> &[MemberId] {
        self.removed()
    }

    fn is_removed(&self) -> bool {
        self.is_removed()
    }

    fn handle_hash_request(&mut self, number: u64, scan: KeyValueHashScan) {
        self.handle_hash_request(number, scan);
    }

    fn handle_hash_unwanted(&mut self, number: u64) {
        self.handle_hash_unwanted(number);
    }

    fn poll_hash(&mut self) -> Option<(u64, HashTold)> {
        self.poll_hash()
    }
}
