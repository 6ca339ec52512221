//! A view: one published state of the store, and how cores hold one.
//!
//! Invariants:
//! - A view never changes. What its roots reach stays in place while a pin holds it.
//! - A pin never waits and never blocks the writer; who holds one for long costs disk space only.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::alarm::{self, Alarm, AlarmGate};
use crate::answer::{ReadError, Rejection};
use crate::downgrade::{self, ClusterVersion};
use crate::hash::KeyValueHash;
use crate::ids::{LeaseId, LogIndex, MemberId, Revision, Term};
use crate::lease::{self, Lease};
use crate::membership::{self, Member};
use crate::page::pin::{PinSlot, Pinned, PinnedSlot, Pins};
use crate::page::{Epoch, PageReader};
use crate::store::{ShardRoots, Store};
use crate::system;

/// One published state of the store. Immutable; a front-end core holds it only under a pin.
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
    /// How far the files were ever used, until they are shortened: what the quota bounds. Growth
    /// ahead of its use does not count; nor does what an install adds, or leaves behind until a
    /// defragmentation has dealt with it.
    pub size_bytes: u64,
    /// What of the files holds data, that which an install adds or leaves behind included.
    pub in_use_bytes: u64,
    pub(crate) roots: Vec<ShardRoots>,
    pub(crate) readers: Arc<[PageReader]>,
    pub(crate) compaction_hashes: Arc<[KeyValueHash]>,
}

impl View {
    /// What of [`Self::size_bytes`] holds data.
    #[must_use]
    pub fn counted_in_use_bytes(&self) -> u64 {
        self.in_use_bytes.min(self.size_bytes)
    }

    /// The hashes that the latest compactions left behind.
    #[must_use]
    pub fn compaction_hashes(&self) -> &[KeyValueHash] {
        &self.compaction_hashes
    }

    /// The attributes of all members that published some, by id.
    pub fn members(&self) -> Result<Vec<MemberAttributes>, ReadError> {
        let (pages, roots) = self.shard(0);
        system::members(pages, roots)
    }

    /// The members of the cluster, by id, with what they have published; none in a store that does
    /// not say who belongs to it.
    pub fn cluster_members(&self) -> Result<Vec<Member>, ReadError> {
        let (pages, roots) = self.shard(0);
        membership::members(pages, roots)
    }

    /// The members that were removed for ever, by id.
    pub fn removed_members(&self) -> Result<Vec<MemberId>, ReadError> {
        let (pages, roots) = self.shard(0);
        Ok(membership::removed(pages, roots)?)
    }

    /// Whether the store says who belongs to the cluster. One that was founded before members were
    /// kept does not.
    pub fn knows_members(&self) -> Result<bool, ReadError> {
        let (pages, roots) = self.shard(0);
        Ok(membership::is_known(pages, roots)?)
    }

    /// The alarms that stand, by kind, then by member.
    pub fn alarms(&self) -> Result<Vec<Alarm>, ReadError> {
        let (pages, roots) = self.shard(0);
        let mut alarms = Vec::new();
        alarm::list(pages, roots, &mut alarms)?;
        Ok(alarms)
    }

    /// Whether an alarm stands.
    pub fn has_alarm(&self, alarm: Alarm) -> Result<bool, ReadError> {
        let (pages, roots) = self.shard(0);
        Ok(alarm::stands(pages, roots, alarm)?)
    }

    /// What the alarms that stand answer to whoever wants a lease, if anything: for a request that
    /// is refused before it is in the log, and yet not before it would have been there.
    pub fn refusal_of_grant(&self) -> Result<Option<Rejection>, ReadError> {
        let (pages, roots) = self.shard(0);
        Ok(AlarmGate::load(pages, roots)?.refusal_of_storing())
    }

    /// One alarm of each kind of which any stands, of `kinds_max` kinds at most; costs no more the
    /// more alarms there are.
    pub fn alarm_kinds(&self, kinds_max: usize) -> Result<Vec<Alarm>, ReadError> {
        let (pages, roots) = self.shard(0);
        alarm::list_kinds(pages, roots, kinds_max)
    }

    /// The version to which the cluster is being downgraded, if it is.
    pub fn downgrade_target(&self) -> Result<Option<String>, ReadError> {
        let (pages, roots) = self.shard(0);
        downgrade::target(pages, roots)
    }

    /// Whether a downgrade to a version may begin; answers with the cluster's version.
    pub fn check_downgrade(&self, wanted: &str) -> Result<ClusterVersion, ReadError> {
        let (pages, roots) = self.shard(0);
        downgrade::check(pages, roots, wanted)
    }

    /// The cluster's version, if one was set.
    pub fn cluster_version(&self) -> Result<Option<String>, ReadError> {
        let (pages, roots) = self.shard(0);
        system::cluster_version(pages, roots)
    }

    /// The lease with this id.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, ReadError> {
        let (pages, roots) = self.shard(0);
        Ok(lease::get(pages, roots, id)?)
    }

    /// Some leases, by id, from `from` on, `count_max` at most; the id to go on from if there are
    /// more. Negative ids come last.
    pub fn leases(
        &self,
        from: LeaseId,
        count_max: usize,
        out: &mut Vec<Lease>,
    ) -> Result<Option<LeaseId>, ReadError> {
        let (pages, roots) = self.shard(0);
        Ok(lease::list(pages, roots, from, count_max, out)?)
    }

    /// Some keys of a lease, in order, from `from` on, `count_max` at most; the key to go on from
    /// if there are more.
    pub fn lease_keys(
        &self,
        id: LeaseId,
        from: &[u8],
        count_max: usize,
        out: &mut Vec<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(lease::keys(self, id, from, count_max, out)?)
    }

    /// Changes in the history that compaction has left.
    #[must_use]
    pub fn change_count(&self) -> u64 {
        self.roots.iter().map(|roots| roots.revisions.count).sum()
    }

    /// Keys in the store.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.roots.iter().map(|roots| roots.current.count).sum()
    }
}

impl Store for View {
    type Pages = PageReader;

    fn shard_count(&self) -> usize {
        self.roots.len()
    }

    fn shard(&self, shard: usize) -> (&PageReader, &ShardRoots) {
        (&self.readers[shard], &self.roots[shard])
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn compacted(&self) -> Revision {
        self.compacted
    }
}

impl fmt::Debug for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("View")
            .field("epoch", &self.epoch)
            .field("revision", &self.revision)
            .field("compacted", &self.compacted)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
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

/// The read half of the engine, one for each core that reads.
pub struct ReadHandle {
    pins: Pins<View>,
    slot: PinSlot<View>,
}

impl ReadHandle {
    pub(crate) fn new(pins: Pins<View>) -> Option<Self> {
        let slot = pins.slot()?;
        Some(Self { pins, slot })
    }

    /// Pins the newest published view until the guard is dropped. Never waits.
    pub fn pin(&mut self) -> PinnedView<'_> {
        PinnedView { pinned: self.slot.pin() }
    }

    /// Holds the newest published view for a job of several steps; `None` when too many are held.
    #[must_use]
    pub fn hold(&self) -> Option<HeldView> {
        Some(HeldView { pinned: self.pins.slot()?.into_pinned() })
    }
}

impl Clone for ReadHandle {
    /// A handle for another core.
    ///
    /// # Panics
    /// If more handles are in use than there are slots: cores are fewer.
    fn clone(&self) -> Self {
        Self::new(self.pins.clone()).expect("there are more slots than cores")
    }
}

impl fmt::Debug for ReadHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReadHandle").finish_non_exhaustive()
    }
}

/// A view that stays valid while this guard lives; it borrows the handle.
pub struct PinnedView<'a> {
    pinned: Pinned<'a, View>,
}

impl Deref for PinnedView<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        &self.pinned
    }
}

/// A view that stays valid while this value lives.
pub struct HeldView {
    pinned: PinnedSlot<View>,
}

impl Deref for HeldView {
    type Target = View;

    fn deref(&self) -> &View {
        &self.pinned
    }
}
