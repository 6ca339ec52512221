//! Membership: who belongs to the cluster, where its peers find it, and who was removed for ever.
//!
//! Three kinds of entries in the `system` tree of shard 0: what raft and the transport need of a
//! member, what the member told of itself once it ran, and the ids of those that were removed.
//!
//! A store that names no member and no removed one does not know: it was founded before members
//! were kept, or is being filled. It takes what anybody publishes, as it always did.
//!
//! Invariants:
//! - Checks stand in etcd's order: the id removed, then what the change itself asks for.
//! - An id that was removed never comes back; what its member published goes with it.
//! - What an unknown or removed member publishes is passed over. For an unknown one etcd stops the
//!   process instead; here a command that was admitted stops nobody, and as the state it is judged
//!   by is replicated, all members pass over the same.

use crate::answer::{Outcome, ReadError, Rejection};
use crate::command::{self, MemberPublishRef};
use crate::ids::MemberId;
use crate::page::{PageFault, Pages};
use crate::shard::Shard;
use crate::store::{self, ShardRoots};
use crate::system;
use crate::tree::Cursor;
use crate::view::MemberAttributes;
use crate::working::Working;

/// A key of what raft and the transport need of a member; the id follows, big endian.
pub(crate) const PEER: &[u8] = b"peer/";
/// A key of a member that was removed; the id follows, big endian.
pub(crate) const REMOVED: &[u8] = b"removed/";

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Where the other members reach it.
    pub peer_urls: Vec<String>,
    /// Whether it only learns.
    pub is_learner: bool,
    /// Its name; empty until it has published itself.
    pub name: String,
    /// Where clients reach it; empty until it has published itself.
    pub client_urls: Vec<String>,
}

/// What raft and the transport need of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    pub(crate) peer_urls: Vec<String>,
    pub(crate) is_learner: bool,
}

pub(crate) fn peer_key(id: MemberId) -> Vec<u8> {
    [PEER, &id.0.to_be_bytes()].concat()
}

pub(crate) fn removed_key(id: MemberId) -> Vec<u8> {
    [REMOVED, &id.0.to_be_bytes()].concat()
}

/// All that raft and the transport need, by id; the roots are those of shard 0.
pub(crate) fn peers<P: Pages>(pages: &P, roots: &ShardRoots) -> Result<Vec<Peer>, PageFault> {
    let mut peers = Vec::new();
    let mut cursor = Cursor::new(pages, roots.system);
    cursor.seek(PEER)?;
    while let Some((key, entry)) = cursor.next()? {
        if !key.starts_with(PEER) {
            break;
        }
        let peer = command::peer_from_bytes(entry.body(pages)?);
        peers.push(peer.ok_or_else(|| store::damaged(pages, roots.system, "a member"))?);
    }
    Ok(peers)
}

/// The members, by id, with what they have published.
pub(crate) fn members<P: Pages>(pages: &P, roots: &ShardRoots) -> Result<Vec<Member>, ReadError> {
    let published = system::members(pages, roots)?;
    let member = |Peer { id, peer_urls, is_learner }| {
        let attributes = published.iter().find(|attributes| attributes.id == id).cloned();
        let (name, client_urls) = attributes
            .map(|MemberAttributes { name, client_urls, .. }| (name, client_urls))
            .unwrap_or_default();
        Member { id, peer_urls, is_learner, name, client_urls }
    };
    Ok(peers(pages, roots)?.into_iter().map(member).collect())
}

/// The ids of the members that were removed.
pub(crate) fn removed<P: Pages>(pages: &P, roots: &ShardRoots) -> Result<Vec<MemberId>, PageFault> {
    let mut removed = Vec::new();
    let mut cursor = Cursor::new(pages, roots.system);
    cursor.seek(REMOVED)?;
    while let Some((key, _)) = cursor.next()? {
        let Some(id) = key.strip_prefix(REMOVED) else { break };
        let id = id.try_into().ok().map(u64::from_be_bytes).map(MemberId);
        removed.push(id.ok_or_else(|| store::damaged(pages, roots.system, "a removed member"))?);
    }
    Ok(removed)
}

/// Whether the store says who belongs to the cluster.
pub(crate) fn is_known<P: Pages>(pages: &P, roots: &ShardRoots) -> Result<bool, PageFault> {
    let has = |prefix: &[u8]| -> Result<bool, PageFault> {
        let mut cursor = Cursor::new(pages, roots.system);
        cursor.seek(prefix)?;
        Ok(cursor.next()?.is_some_and(|(key, _)| key.starts_with(prefix)))
    };
    Ok(has(PEER)? || has(REMOVED)?)
}

/// Enters a member as it is, with what it has published if that is anything. The caller has looked
/// that there is none with the id.
pub(crate) fn import(member: &Member, working: &mut Working) -> Result<(), PageFault> {
    let Member { id, name, client_urls, .. } = member;
    let peer = Peer { id: *id, peer_urls: member.peer_urls.clone(), is_learner: member.is_learner };
    let shard = &mut working.shards[0];
    put_peer(shard, &peer)?;
    if !name.is_empty() || !client_urls.is_empty() {
        system::put_member(shard, &MemberPublishRef { id: *id, name, client_urls })?;
    }
    Ok(())
}

/// Whether the id belongs to a member, or did.
pub(crate) fn is_taken(id: MemberId, working: &Working) -> Result<bool, PageFault> {
    let Shard { file, roots, .. } = &working.shards[0];
    Ok(system::get(file, roots, &peer_key(id))?.is_some() || is_removed(id, file, roots)?)
}

fn is_removed<P: Pages>(id: MemberId, pages: &P, roots: &ShardRoots) -> Result<bool, PageFault> {
    Ok(system::get(pages, roots, &removed_key(id))?.is_some())
}

pub(crate) fn put_peer(shard: &mut Shard, peer: &Peer) -> Result<(), PageFault> {
    system::put(shard, &peer_key(peer.id), &command::peer_to_bytes(peer))
}

/// Keeps what a member says of itself.
pub(crate) fn publish(
    member: &MemberAttributes,
    working: &mut Working,
) -> Result<Outcome, PageFault> {
    working.membership_number += 1;
    let shard = &mut working.shards[0];
    let MemberAttributes { id, name, client_urls } = member;
    let is_member = system::get(&shard.file, &shard.roots, &peer_key(*id))?.is_some();
    if is_member || !is_known(&shard.file, &shard.roots)? {
        system::put_member(shard, &MemberPublishRef { id: *id, name, client_urls })?;
    }
    Ok(Outcome::System)
}

/// What a change of a member finds.
struct Found {
    /// All members.
    peers: Vec<Peer>,
    /// The place of the one with the id.
    place: Option<usize>,
    is_removed: bool,
}

impl Found {
    fn look(id: MemberId, working: &Working) -> Result<Self, PageFault> {
        let Shard { file, roots, .. } = &working.shards[0];
        let peers = peers(file, roots)?;
        let place = peers.iter().position(|peer| peer.id == id);
        Ok(Self { peers, place, is_removed: is_removed(id, file, roots)? })
    }

    /// The member with the id, or the refusal of a change that needs one.
    fn member(mut self) -> Result<Peer, Rejection> {
        match self.place {
            _ if self.is_removed => Err(Rejection::MemberIdRemoved),
            Some(place) => Ok(self.peers.swap_remove(place)),
            None => Err(Rejection::MemberIdNotFound),
        }
    }

    /// Whether a member other than this one is reached at one of the URLs.
    fn has_url(&self, id: MemberId, urls: &[String]) -> bool {
        let others = self.peers.iter().filter(|peer| peer.id != id);
        others.flat_map(|peer| &peer.peer_urls).any(|url| urls.contains(url))
    }

    fn learner_count(&self) -> usize {
        self.peers.iter().filter(|peer| peer.is_learner).count()
    }
}

/// Adds a member.
pub(crate) fn add(
    peer: &Peer,
    learners_max: u32,
    working: &mut Working,
) -> Result<Outcome, PageFault> {
    let found = Found::look(peer.id, working)?;
    let learners_max = usize::try_from(learners_max).unwrap_or(usize::MAX);
    let rejection = if found.is_removed {
        Some(Rejection::MemberIdRemoved)
    } else if found.place.is_some() {
        Some(Rejection::MemberIdExists)
    } else if found.has_url(peer.id, &peer.peer_urls) {
        Some(Rejection::PeerUrlExists)
    } else {
        let is_over = peer.is_learner && found.learner_count() >= learners_max;
        is_over.then_some(Rejection::TooManyLearners)
    };
    if let Some(rejection) = rejection {
        return Ok(Outcome::Rejected(rejection));
    }
    working.membership_number += 1;
    let shard = &mut working.shards[0];
    put_peer(shard, peer)?;
    // What is left of a time in which the store did not know who belongs to the cluster.
    system::remove(shard, &system::member_key(peer.id))?;
    Ok(Outcome::System)
}

/// Removes a member for ever.
pub(crate) fn remove(id: MemberId, working: &mut Working) -> Result<Outcome, PageFault> {
    if let Err(rejection) = Found::look(id, working)?.member() {
        return Ok(Outcome::Rejected(rejection));
    }
    working.membership_number += 1;
    let shard = &mut working.shards[0];
    system::remove(shard, &peer_key(id))?;
    system::remove(shard, &system::member_key(id))?;
    system::put(shard, &removed_key(id), &[])?;
    Ok(Outcome::System)
}

/// Makes a learner a voter.
pub(crate) fn promote(id: MemberId, working: &mut Working) -> Result<Outcome, PageFault> {
    let peer = match Found::look(id, working)?.member() {
        Ok(peer) if !peer.is_learner => Err(Rejection::MemberNotLearner),
        found => found,
    };
    working.membership_number += 1;
    match peer {
        Ok(peer) => put_peer(&mut working.shards[0], &Peer { is_learner: false, ..peer })?,
        Err(rejection) => return Ok(Outcome::Rejected(rejection)),
    }
    Ok(Outcome::System)
}

/// Changes where a member is reached.
pub(crate) fn update(
    id: MemberId,
    peer_urls: Vec<String>,
    working: &mut Working,
) -> Result<Outcome, PageFault> {
    let found = Found::look(id, working)?;
    let has_url = found.has_url(id, &peer_urls);
    let peer = match found.member() {
        Ok(_) if has_url => Err(Rejection::PeerUrlExists),
        found => found,
    };
    working.membership_number += 1;
    match peer {
        Ok(peer) => put_peer(&mut working.shards[0], &Peer { peer_urls, ..peer })?,
        Err(rejection) => return Ok(Outcome::Rejected(rejection)),
    }
    Ok(Outcome::System)
}
