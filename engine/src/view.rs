//! A view: one published state of the store, read by any core under a pin.

use crate::answer::ReadError;
use crate::ids::{LogIndex, MemberId, Revision, Term};
use crate::page::ids::Epoch;

/// One published state of the store. Immutable; a front-end core holds it only under a pin.
#[derive(Debug)]
pub struct View {
    /// The number of this state; all shards share the counter.
    pub epoch: Epoch,
    /// The newest revision.
    pub revision: Revision,
    /// Reads below it are refused; -1 if the store was never compacted.
    pub compacted: Revision,
    /// The last raft entry that is part of this state.
    pub applied: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// Set by the owner before publishing: this member is the sole voter and leads, so a read of
    /// this view is linearizable without asking anybody.
    pub local_reads: bool,
    /// What the files take on the disk.
    pub size_bytes: u64,
    /// What of it holds data.
    pub in_use_bytes: u64,
}

/// What a member published about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAttributes {
    /// The member.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where its clients find it.
    pub client_urls: Vec<String>,
}

impl View {
    /// The attributes of all members that published some, by id.
    pub fn members(&self) -> Result<Vec<MemberAttributes>, ReadError> {
        panic!("landing: comes with the tree")
    }

    /// The cluster's version, if one was set.
    pub fn cluster_version(&self) -> Result<Option<String>, ReadError> {
        panic!("landing: comes with the tree")
    }
}

/// A view that stays valid while this value lives.
#[derive(Debug)]
pub struct PinnedView<'a> {
    view: &'a View,
}

impl std::ops::Deref for PinnedView<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        self.view
    }
}

/// The read half of the engine, one for each core that reads.
#[derive(Clone, Debug)]
pub struct ReadHandle {}

impl ReadHandle {
    /// Pins the newest published view. Never waits.
    pub fn pin(&mut self) -> PinnedView<'_> {
        panic!("landing: comes with the tree")
    }
}
