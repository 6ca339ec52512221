//! A disk in memory that forgets, tears and refuses, for suites and simulators.
//!
//! It promises what FORMAT.md assumes of a medium and nothing more: a sector of 512 bytes is
//! written as a whole or not at all; what was not synced survives a crash sector by sector as it
//! likes, in any of the versions written since the last sync; each change of a name that was not
//! synced survives or does not.
//!
//! The caller performs operations in whatever order it wants completions to come, and hands those
//! it never performed to [`SimDisk::crash`].

use std::collections::BTreeMap;

use crate::disk::{Completion, DiskError, DiskErrorKind, DiskOp, ListedFile, OpId, OpKind};
use crate::record::{Lsn, RecordKind};
use crate::recovery::{Recovery, Start};
use crate::refusal::RecoveryError;
use crate::segment::{SegmentSequence, segment_file_name};
use crate::writer::Writer;
use crate::{Config, in_memory};

/// What the medium writes as a whole.
pub const SECTOR_SIZE_BYTES: usize = 512;

/// Seeded numbers, the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Every seed gives its own sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        in_memory(self.number() >> 11) % bound
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// What a crash does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All of it is lost: power went, and the disk had written nothing.
    LosesAll,
    /// All of it is kept: the process was killed, the machine lives.
    KeepsAll,
    /// Each sector is as it likes.
    Tears,
}

/// How one operation is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this error; a write may still have reached any of its sectors.
    Error(DiskErrorKind),
    /// A write or read that reports one block less than asked.
    Short,
}

#[derive(Clone, Default)]
struct Inode {
    // What reads see.
    bytes: Vec<u8>,
    // Differs from `bytes` in what `unsynced` covers, and in its length.
    durable: Vec<u8>,
    // The writes since the last sync, oldest first, without what a later sync of a part covered.
    unsynced: Vec<Unsynced>,
    // It was made shorter: what is durable behind its end counts for nothing any more.
    is_cut: bool,
    // Something was written: until then both are zeros, which need not be written again.
    is_written: bool,
}

/// A write that no sync has covered. Files are zeroed by the megabyte, so zeros are not kept.
#[derive(Clone)]
struct Unsynced {
    from: usize,
    to: usize,
    written: Option<Vec<u8>>,
}

impl Unsynced {
    /// What of it lies in a range; the bounds are those of sectors.
    fn part(&self, from: usize, to: usize) -> Option<Self> {
        let (from, to) = (from.max(self.from), to.min(self.to));
        let written =
            || self.written.as_ref().map(|it| it[from - self.from..to - self.from].to_vec());
        (from < to).then(|| Self { from, to, written: written() })
    }

    fn sector(&self, from: usize) -> &[u8] {
        match &self.written {
            Some(written) => &written[from - self.from..][..SECTOR_SIZE_BYTES],
            None => &[0; SECTOR_SIZE_BYTES],
        }
    }
}

#[derive(Clone)]
enum NameChange {
    Create(SegmentSequence, usize),
    Rename(SegmentSequence, SegmentSequence),
    Remove(SegmentSequence),
}

/// The disk.
#[derive(Clone)]
pub struct SimDisk {
    random: Random,
    inodes: Vec<Inode>,
    names: BTreeMap<SegmentSequence, usize>,
    names_durable: BTreeMap<SegmentSequence, usize>,
    name_changes: Vec<NameChange>,
    capacity_bytes: u64,
    fault: Option<(u64, Fault)>,
    performed: u64,
}

impl SimDisk {
    /// An empty directory.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            name_changes: Vec::new(),
            capacity_bytes: u64::MAX,
            fault: None,
            performed: 0,
        }
    }

    /// Files whose sizes add up to more are refused.
    pub fn set_capacity(&mut self, capacity_bytes: u64) {
        self.capacity_bytes = capacity_bytes;
    }

    /// The operation performed after `count` more will fail.
    pub fn fail_after(&mut self, count: u64, fault: Fault) {
        self.fault = Some((self.performed + count, fault));
    }

    /// No operation will fail that was to.
    pub fn forget_fault(&mut self) {
        self.fault = None;
    }

    /// How many operations were performed.
    pub fn performed(&self) -> u64 {
        self.performed
    }

    /// The segments that have a file.
    pub fn segments(&self) -> Vec<SegmentSequence> {
        self.names.keys().copied().collect()
    }

    /// A file as a reader sees it.
    pub fn bytes(&self, segment: SegmentSequence) -> &[u8] {
        &self.inodes[self.names[&segment]].bytes
    }

    /// Damage a file behind everybody's back.
    pub fn damage(&mut self, segment: SegmentSequence, change: impl FnOnce(&mut Vec<u8>)) {
        let inode = &mut self.inodes[self.names[&segment]];
        inode.is_written = true;
        change(&mut inode.bytes);
        inode.durable.clone_from(&inode.bytes);
        inode.unsynced.clear();
    }

    /// Remove a file behind everybody's back.
    pub fn damage_name(&mut self, segment: SegmentSequence) {
        self.names.remove(&segment);
        self.names_durable.remove(&segment);
    }

    /// Give a file another name behind everybody's back.
    pub fn damage_rename(&mut self, from: SegmentSequence, to: SegmentSequence) {
        let inode = self.names.remove(&from).expect("the suite names a file that is there");
        self.names_durable.remove(&from);
        self.names.insert(to, inode);
        self.names_durable.insert(to, inode);
    }

    /// Perform one operation.
    pub fn perform(&mut self, op: DiskOp) -> Result<Completion, DiskError> {
        self.performed += 1;
        if let Some((at, fault)) = self.fault
            && at < self.performed
        {
            self.fault = None;
            return self.fail(op, fault);
        }
        match op {
            DiskOp::List => Ok(Completion::Listed(self.list())),
            DiskOp::Write { segment, offset, buffer } => {
                let size_bytes = buffer.as_slice().len();
                self.inode(segment)?.write_through(offset, buffer.as_slice());
                Ok(Completion::Written { buffer, size_bytes })
            }
            DiskOp::Read { segment, offset, mut buffer } => {
                let inode = self.inode(segment)?;
                let from = in_memory(offset).min(inode.bytes.len());
                let found = &inode.bytes[from..];
                let size_bytes = found.len().min(buffer.as_slice().len());
                buffer.as_mut_slice()[..size_bytes].copy_from_slice(&found[..size_bytes]);
                Ok(Completion::Read { buffer, size_bytes })
            }
            other => self.change(&other).map(|()| Completion::Done),
        }
    }

    // Operations that complete without a buffer.
    fn change(&mut self, op: &DiskOp) -> Result<(), DiskError> {
        match *op {
            DiskOp::Create { segment, size_bytes } => {
                let others = self.names.iter().filter(|(other, _)| **other != segment);
                let used: usize = others.map(|(_, inode)| self.inodes[*inode].bytes.len()).sum();
                if used as u64 + size_bytes > self.capacity_bytes {
                    return Err(refused(DiskErrorKind::NoSpace));
                }
                self.create(segment);
                self.inode(segment)?.resize(in_memory(size_bytes));
            }
            DiskOp::Zero { segment, offset, size_bytes } => {
                self.inode(segment)?.zero(offset, in_memory(size_bytes));
            }
            DiskOp::Sync { segment } => self.inode(segment)?.sync(),
            DiskOp::SyncDirectory => {
                self.names_durable.clone_from(&self.names);
                self.name_changes.clear();
                self.forget_nameless();
            }
            DiskOp::Rename { from, to } => {
                self.inode(from)?;
                assert!(!self.names.contains_key(&to), "rename over an existing segment");
                self.change_name(NameChange::Rename(from, to));
            }
            DiskOp::Remove { segment } => self.change_name(NameChange::Remove(segment)),
            DiskOp::List | DiskOp::Write { .. } | DiskOp::Read { .. } => {
                unreachable!("performed with their buffers")
            }
        }
        Ok(())
    }

    /// The machine stops. What was in flight may have happened in part.
    pub fn crash(&mut self, in_flight: impl IntoIterator<Item = DiskOp>, crash: Crash) {
        for op in in_flight {
            match op {
                DiskOp::Write { segment, offset, buffer } => {
                    if let Ok(inode) = self.inode(segment) {
                        inode.write(offset, buffer.as_slice());
                    }
                }
                DiskOp::List | DiskOp::Read { .. } => {}
                // A sync in flight has synced nothing that could be relied upon.
                DiskOp::Sync { .. } | DiskOp::SyncDirectory => {}
                other => {
                    // One that is refused has changed nothing, which is one of the outcomes.
                    let _ = self.change(&other);
                }
            }
        }
        if crash == Crash::KeepsAll {
            return;
        }
        let mut names = self.names_durable.clone();
        for change in std::mem::take(&mut self.name_changes) {
            if crash == Crash::Tears && self.random.once_in(2) {
                apply(&mut names, &change);
            }
        }
        self.names_durable.clone_from(&names);
        self.names = names;
        for inode in &mut self.inodes {
            inode.crash(crash, &mut self.random);
        }
    }

    fn list(&self) -> Vec<ListedFile> {
        // In no helpful order: directories do not sort.
        let listed = self.names.iter().rev().map(|(segment, inode)| ListedFile {
            name: segment_file_name(*segment),
            size_bytes: self.inodes[*inode].bytes.len() as u64,
        });
        listed.collect()
    }

    fn fail(&mut self, op: DiskOp, fault: Fault) -> Result<Completion, DiskError> {
        let place = op.place();
        match (op, fault) {
            (DiskOp::Write { segment, offset, buffer }, Fault::Short) => {
                let size_bytes = buffer.as_slice().len() - crate::BLOCK_SIZE_BYTES;
                self.inode(segment)?.write(offset, &buffer.as_slice()[..size_bytes]);
                Ok(Completion::Written { buffer, size_bytes })
            }
            (DiskOp::Read { buffer, .. }, Fault::Short) => {
                let size_bytes = buffer.as_slice().len() - crate::BLOCK_SIZE_BYTES;
                Ok(Completion::Read { buffer, size_bytes })
            }
            (DiskOp::Write { segment, offset, buffer }, Fault::Error(kind)) => {
                let mut bytes = buffer.as_slice().to_vec();
                let old = self.inode(segment)?.bytes[in_memory(offset)..].to_vec();
                for sector in 0..bytes.len() / SECTOR_SIZE_BYTES {
                    if self.random.once_in(2) {
                        let range = sector * SECTOR_SIZE_BYTES..(sector + 1) * SECTOR_SIZE_BYTES;
                        bytes[range.clone()].copy_from_slice(&old[range]);
                    }
                }
                self.inode(segment)?.write(offset, &bytes);
                Err(refused(kind))
            }
            (_, Fault::Error(kind)) => Err(refused(kind)),
            (_, Fault::Short) => {
                assert!(place.0 != OpKind::Write && place.0 != OpKind::Read);
                Err(refused(DiskErrorKind::Io))
            }
        }
    }

    fn inode(&mut self, segment: SegmentSequence) -> Result<&mut Inode, DiskError> {
        let inode = self.names.get(&segment).ok_or(refused(DiskErrorKind::NotFound))?;
        Ok(&mut self.inodes[*inode])
    }

    fn create(&mut self, segment: SegmentSequence) {
        if !self.names.contains_key(&segment) {
            self.inodes.push(Inode::default());
            self.change_name(NameChange::Create(segment, self.inodes.len() - 1));
        }
    }

    /// Nobody reaches a file again whose last name is gone for good.
    fn forget_nameless(&mut self) {
        for (number, inode) in self.inodes.iter_mut().enumerate() {
            if !inode.bytes.is_empty() && self.names.values().all(|named| *named != number) {
                *inode = Inode::default();
            }
        }
    }

    fn change_name(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.name_changes.push(change);
    }
}

fn refused(kind: DiskErrorKind) -> DiskError {
    DiskError { kind, os_code: None }
}

fn apply(names: &mut BTreeMap<SegmentSequence, usize>, change: &NameChange) {
    match change {
        NameChange::Create(segment, inode) => {
            names.insert(*segment, *inode);
        }
        NameChange::Rename(from, to) => {
            // A file whose creation was lost has no name to change.
            if let Some(inode) = names.remove(from) {
                names.insert(*to, inode);
            }
        }
        NameChange::Remove(segment) => {
            names.remove(segment);
        }
    }
}

/// Gives a file its length. Memory that is asked for as zeros is not touched before it is used.
fn lengthen(bytes: &mut Vec<u8>, size_bytes: usize) {
    if bytes.is_empty() {
        *bytes = vec![0; size_bytes];
    } else {
        bytes.resize(size_bytes, 0);
    }
}

impl Inode {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let from = self.put(offset, bytes);
        let written = Some(bytes.to_vec());
        self.unsynced.push(Unsynced { from, to: from + bytes.len(), written });
    }

    /// A write that is durable when it ends.
    fn write_through(&mut self, offset: u64, bytes: &[u8]) {
        let from = self.put(offset, bytes);
        let to = from + bytes.len();
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        self.durable[from..to].copy_from_slice(bytes);
        if self.unsynced.iter().any(|write| write.part(from, to).is_some()) {
            let outside = |write: &Unsynced| [write.part(0, from), write.part(to, usize::MAX)];
            self.unsynced = self.unsynced.iter().flat_map(outside).flatten().collect();
        }
    }

    fn zero(&mut self, offset: u64, size_bytes: usize) {
        let from = in_memory(offset);
        let to = from + size_bytes;
        assert!(from.is_multiple_of(SECTOR_SIZE_BYTES) && to.is_multiple_of(SECTOR_SIZE_BYTES));
        if self.bytes.len() < to {
            lengthen(&mut self.bytes, to);
        }
        if self.is_written {
            self.bytes[from..to].fill(0);
        }
        self.unsynced.push(Unsynced { from, to, written: None });
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> usize {
        let from = in_memory(offset);
        assert!(from.is_multiple_of(SECTOR_SIZE_BYTES));
        assert!(bytes.len().is_multiple_of(SECTOR_SIZE_BYTES));
        if self.bytes.len() < from + bytes.len() {
            self.bytes.resize(from + bytes.len(), 0);
        }
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
        self.is_written = true;
        from
    }

    fn resize(&mut self, size_bytes: usize) {
        self.is_cut |= size_bytes < self.bytes.len();
        lengthen(&mut self.bytes, size_bytes);
    }

    fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        if std::mem::take(&mut self.is_cut) {
            return self.durable.clone_from(&self.bytes);
        }
        if self.durable.len() < self.bytes.len() {
            lengthen(&mut self.durable, self.bytes.len());
        }
        if !self.is_written {
            return;
        }
        for Unsynced { from, to, .. } in unsynced {
            self.durable[from..to].copy_from_slice(&self.bytes[from..to]);
        }
    }

    fn crash(&mut self, crash: Crash, random: &mut Random) {
        // The size of a file that was never synced is as open as its content.
        if self.durable.len() < self.bytes.len() && crash == Crash::Tears && random.once_in(2) {
            self.durable.resize(self.bytes.len(), 0);
        }
        let unsynced = std::mem::take(&mut self.unsynced);
        // The writes of each sector, oldest first.
        let mut versions: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, write) in unsynced.iter().enumerate() {
            for from in (write.from..write.to).step_by(SECTOR_SIZE_BYTES) {
                versions.entry(from).or_default().push(number);
            }
        }
        for (from, versions) in versions {
            let kept = random.below(versions.len() + 1);
            if crash == Crash::LosesAll || kept == 0 {
                continue;
            }
            if self.durable.len() < from + SECTOR_SIZE_BYTES {
                self.durable.resize(from + SECTOR_SIZE_BYTES, 0);
            }
            let sector = unsynced[versions[kept - 1]].sector(from);
            self.durable[from..from + SECTOR_SIZE_BYTES].copy_from_slice(sector);
        }
        if !unsynced.is_empty() || self.is_cut || self.bytes.len() != self.durable.len() {
            self.bytes.clone_from(&self.durable);
            self.is_cut = false;
        }
    }
}

/// A record as a suite keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Where it begins.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// What it is.
    pub kind: RecordKind,
    /// What was appended.
    pub body: Vec<u8>,
}

/// How a simulated recovery ended.
pub enum Outcome {
    /// The log is open.
    Open(Box<Writer>, Vec<OwnedRecord>),
    /// It ended with an error.
    Failed(RecoveryError),
    /// The operations allowed were used up; this one was in flight.
    Interrupted(DiskOp),
}

/// Recover from the disk, performing at most `ops_max` operations.
pub fn recover(disk: &mut SimDisk, config: &Config, start: Start, ops_max: u64) -> Outcome {
    let mut recovery = Recovery::new(config.clone(), start);
    let mut records = Vec::new();
    let mut performed = 0;
    loop {
        let mut idle = true;
        while let Some((id, op)) = recovery.poll_op() {
            if performed == ops_max {
                return Outcome::Interrupted(op);
            }
            performed += 1;
            let result = disk.perform(op);
            recovery.handle_completion(id, result);
            idle = false;
        }
        while let Some(record) = recovery.poll_record() {
            let body = record.body.to_vec();
            let (start, end, kind) = (record.start, record.end, record.kind);
            records.push(OwnedRecord { start, end, kind, body });
            idle = false;
        }
        match recovery.poll_done() {
            Ok(true) => return Outcome::Open(Box::new(recovery.finish()), records),
            Ok(false) => assert!(!idle, "recovery stands still"),
            Err(error) => return Outcome::Failed(error),
        }
    }
}

/// Perform everything the writer asks for, in order, until it asks for nothing.
pub fn settle(disk: &mut SimDisk, writer: &mut Writer) -> Result<(), crate::Failure> {
    let mut waiting: Vec<(OpId, DiskOp)> = Vec::new();
    loop {
        while let Some(issued) = writer.poll_op() {
            waiting.push(issued);
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let (id, op) = waiting.remove(0);
        let result = disk.perform(op);
        writer.handle_completion(id, result)?;
    }
}
