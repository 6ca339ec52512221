//! The commands that change who belongs to the cluster.
//!
//! Adding, removing and promoting change raft's configuration as well: such a command is alone in
//! its batch, and the batch travels with raft's own change of the configuration. An update of a
//! member's URLs is raft's business in nothing and comes like any other command.

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use super::body::{MemberPublishBody, access, is_sound};
use super::{Batch, Command, CommandKind, FRAME_HEADER_SIZE_BYTES, FrameWriter, MemberPublishRef};
use crate::ids::MemberId;
use crate::membership::Peer;
use crate::view::MemberAttributes;

/// A new member, to be written into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberAddRef<'a> {
    /// Its id.
    pub id: MemberId,
    /// Where the other members reach it.
    pub peer_urls: &'a [String],
    /// Whether it only learns at first.
    pub is_learner: bool,
    /// How many learners there may be, this one included: the setting of whoever proposes it, so
    /// that all members decide alike.
    pub learners_max: u32,
}

/// Where a member is reached from now on, to be written into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberUpdateRef<'a> {
    /// The member.
    pub id: MemberId,
    /// Where the other members reach it.
    pub peer_urls: &'a [String],
}

/// What a batch does that travels with a change of raft's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// A member is added.
    Add {
        /// The member.
        id: MemberId,
        /// Whether it only learns.
        is_learner: bool,
    },
    /// A member is removed for ever.
    Remove(MemberId),
    /// A learner votes from now on.
    Promote(MemberId),
}

#[derive(Archive, Serialize)]
pub(crate) struct MemberAddBody<'a> {
    pub(crate) id: u64,
    #[rkyv(with = InlineAsBox)]
    pub(crate) peer_urls: &'a [String],
    pub(crate) is_learner: bool,
    pub(crate) learners_max: u32,
}

impl ArchivedMemberAddBody<'_> {
    pub(crate) fn to_peer(&self) -> Peer {
        Peer {
            id: MemberId(self.id.to_native()),
            peer_urls: self.peer_urls.iter().map(|url| url.as_str().to_owned()).collect(),
            is_learner: self.is_learner,
        }
    }
}

/// Of a member that is removed or promoted.
#[derive(Archive, Serialize)]
pub(crate) struct MemberIdBody {
    pub(crate) id: u64,
}

impl ArchivedMemberIdBody {
    pub(crate) fn id(&self) -> MemberId {
        MemberId(self.id.to_native())
    }
}

#[derive(Archive, Serialize)]
pub(crate) struct MemberUpdateBody<'a> {
    pub(crate) id: u64,
    #[rkyv(with = InlineAsBox)]
    pub(crate) peer_urls: &'a [String],
}

impl ArchivedMemberUpdateBody<'_> {
    pub(crate) fn id(&self) -> MemberId {
        MemberId(self.id.to_native())
    }

    pub(crate) fn peer_urls(&self) -> Vec<String> {
        self.peer_urls.iter().map(|url| url.as_str().to_owned()).collect()
    }
}

/// What raft and the transport know of a member, as the store keeps it.
#[derive(Archive, Serialize)]
struct PeerBody<'a> {
    id: u64,
    #[rkyv(with = InlineAsBox)]
    peer_urls: &'a [String],
    is_learner: bool,
}

impl FrameWriter {
    /// Appends a new member.
    pub fn push_member_add(&mut self, frames: &mut Vec<u8>, add: &MemberAddRef<'_>) {
        let body = MemberAddBody {
            id: add.id.0,
            peer_urls: add.peer_urls,
            is_learner: add.is_learner,
            learners_max: add.learners_max,
        };
        self.push(frames, CommandKind::MemberAdd, &body);
    }

    /// Appends the removal of a member.
    pub fn push_member_remove(&mut self, frames: &mut Vec<u8>, id: MemberId) {
        self.push(frames, CommandKind::MemberRemove, &MemberIdBody { id: id.0 });
    }

    /// Appends the promotion of a learner.
    pub fn push_member_promote(&mut self, frames: &mut Vec<u8>, id: MemberId) {
        self.push(frames, CommandKind::MemberPromote, &MemberIdBody { id: id.0 });
    }

    /// Appends where a member is reached from now on.
    pub fn push_member_update(&mut self, frames: &mut Vec<u8>, update: &MemberUpdateRef<'_>) {
        let body = MemberUpdateBody { id: update.id.0, peer_urls: update.peer_urls };
        self.push(frames, CommandKind::MemberUpdate, &body);
    }
}

impl Batch {
    /// What the batch's only command does to raft's configuration; `None` for a batch that has
    /// several, or another. What is `None` must not come with a change of the configuration, and
    /// what is not must not come without.
    #[must_use]
    pub fn membership_change(&self) -> Option<MembershipChange> {
        if self.len() != 1 {
            return None;
        }
        match self.command(0) {
            Command::MemberAdd(add) => Some(MembershipChange::Add {
                id: MemberId(add.id.to_native()),
                is_learner: add.is_learner,
            }),
            Command::MemberRemove(member) => Some(MembershipChange::Remove(member.id())),
            Command::MemberPromote(member) => Some(MembershipChange::Promote(member.id())),
            _ => None,
        }
    }

    /// The member whose URLs the batch's only command changes.
    #[must_use]
    pub fn member_update(&self) -> Option<MemberId> {
        match self.len() {
            1 => match self.command(0) {
                Command::MemberUpdate(update) => Some(update.id()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A member's attributes as the store keeps them: the body of the command that brought them.
pub(crate) fn member_to_bytes(member: &MemberPublishRef<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    FrameWriter::new().push_member_publish(&mut frame, member);
    frame.drain(..FRAME_HEADER_SIZE_BYTES);
    frame
}

/// The inverse of [`member_to_bytes`]; `None` for bytes that are not attributes.
pub(crate) fn member_from_bytes(bytes: &[u8]) -> Option<MemberAttributes> {
    if !is_sound::<MemberPublishBody<'static>>(bytes) {
        return None;
    }
    Some(access::<MemberPublishBody<'static>>(bytes).to_attributes())
}

/// What the store keeps of a peer: an archive like that of a command.
pub(crate) fn peer_to_bytes(peer: &Peer) -> Vec<u8> {
    let body = PeerBody { id: peer.id.0, peer_urls: &peer.peer_urls, is_learner: peer.is_learner };
    let mut bytes = Vec::new();
    FrameWriter::new().write(&mut bytes, &body);
    bytes
}

/// The inverse of [`peer_to_bytes`]; `None` for bytes that are no peer.
pub(crate) fn peer_from_bytes(bytes: &[u8]) -> Option<Peer> {
    if !is_sound::<PeerBody<'static>>(bytes) {
        return None;
    }
    let body = access::<PeerBody<'static>>(bytes);
    Some(Peer {
        id: MemberId(body.id.to_native()),
        peer_urls: body.peer_urls.iter().map(|url| url.as_str().to_owned()).collect(),
        is_learner: body.is_learner,
    })
}
