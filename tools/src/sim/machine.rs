//! A member's machine: the disks that outlive it, and the doors through which it reaches them.
//!
//! Invariants:
//! - What the member is told to be durable survives every crash, unless the disk is made to lie.
//! - A machine whose power fails during a start fails every operation from then on.

use std::cell::RefCell;
use std::rc::Rc;

use engine::page::PageBuffer;
use engine::page::disk::{Completion, DiskError, DiskOp, DiskOpKind, FileId};
use engine::{Engine, EngineConfig, EngineFiles};
use server::node::failure::Failure;
use server::node::start::{Disks, LogDoor, StoreDoor};
use wal::DiskErrorKind;
use wal::sim::{Crash, SimDisk};

use super::files::{SimDirectory, SimFile};
use super::random::Random;

/// Nothing that is simulated is larger; it bounds the address space.
const SHARD_SIZE_BYTES_MAX: u64 = 256 << 20;

/// The name of the file of checkpoints; shard 0 has the next, and so on.
const META_NAME: u64 = 0;

/// The disks of one member.
#[derive(Clone)]
pub struct Machine {
    disks: Rc<RefCell<Contents>>,
}

struct Contents {
    log: SimDisk,
    store: SimDirectory,
    random: Random,
    /// The store's files cannot grow.
    is_store_full: bool,
    /// Operations of the store until one fails.
    store_ops: Option<u64>,
    /// Operations until the power fails, during a start.
    power_ops: Option<u64>,
    segment_size_bytes: u64,
}

impl Machine {
    /// An empty one.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let log = SimDisk::new(random.word());
        let contents = Contents {
            log,
            store: SimDirectory::default(),
            random: random.split(1),
            is_store_full: false,
            store_ops: None,
            power_ops: None,
            segment_size_bytes: 64 << 10,
        };
        Self { disks: Rc::new(RefCell::new(contents)) }
    }

    /// Performs an operation of the log; what it writes is durable.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn perform_log(&self, op: wal::DiskOp) -> Result<wal::Completion, wal::DiskError> {
        self.disks.borrow_mut().log.perform(op)
    }

    /// Performs an operation of the store.
    #[must_use]
    pub fn perform_store(&self, op: DiskOp) -> Completion {
        self.disks.borrow_mut().perform_store(op)
    }

    /// The machine stops, or only the process if `crash` keeps all. Operations that were on their
    /// way may have happened in part.
    pub fn crash(
        &self,
        log_ops: impl IntoIterator<Item = wal::DiskOp>,
        store_ops: impl IntoIterator<Item = DiskOp>,
        crash: Crash,
    ) {
        let mut disks = self.disks.borrow_mut();
        let disks = &mut *disks;
        (disks.power_ops, disks.store_ops) = (None, None);
        disks.log.crash(log_ops, crash);
        for op in store_ops {
            // A sync that has not ended has synced nothing that could be relied upon.
            if op.kind != DiskOpKind::Sync {
                let _ = disks.perform_store(op);
            }
        }
        if crash != Crash::KeepsAll {
            let mut random = disks.random.split(2);
            disks.store.crash(&mut random);
        }
    }

    /// The next start finds that the power fails after so many operations.
    pub fn fail_power_after(&self, ops: Option<u64>) {
        self.disks.borrow_mut().power_ops = ops;
    }

    /// An operation of the log will fail, after so many that do not.
    pub fn fail_log_after(&self, ops: u64, fault: wal::sim::Fault) {
        self.disks.borrow_mut().log.fail_after(ops, fault);
    }

    /// An operation of the store will fail, after so many that do not.
    pub fn fail_store_after(&self, ops: u64) {
        self.disks.borrow_mut().store_ops = Some(ops);
    }

    /// How large the log's segments are.
    pub fn set_segment_size(&self, segment_size_bytes: u64) {
        self.disks.borrow_mut().segment_size_bytes = segment_size_bytes;
    }

    /// A fault that was to come does not.
    pub fn forget_fault(&self) {
        let mut disks = self.disks.borrow_mut();
        disks.log.forget_fault();
        disks.store_ops = None;
    }

    /// The disk is full, or no more.
    pub fn set_full(&self, is_full: bool) {
        let mut disks = self.disks.borrow_mut();
        disks.is_store_full = is_full;
        let used: usize =
            disks.log.segments().iter().map(|segment| disks.log.bytes(*segment).len()).sum();
        disks.log.set_capacity(if is_full { used as u64 } else { u64::MAX });
    }

    /// Changes some bytes of what lies on the disk behind everybody's back: rot, or a write that
    /// went elsewhere. The process is not running. Answers with what was done.
    pub fn damage(&self) -> String {
        let mut disks = self.disks.borrow_mut();
        let mut random = disks.random.split(3);
        if random.once_in(3) {
            let name = random.below(2);
            if let Some(file) = disks.store.file_mut(name) {
                file.rot(&mut random);
            }
            return format!("a bit of store file {name} flips");
        }
        let segments = disks.log.segments();
        if segments.is_empty() {
            return "nothing is there to be damaged".to_owned();
        }
        let segment = *random.pick(&segments);
        let what = if random.once_in(2) { "a bit flips" } else { "a block is overwritten" };
        disks.log.damage(segment, |bytes| {
            if bytes.is_empty() {
                return;
            }
            if what == "a bit flips" {
                let at = random.place(bytes.len());
                bytes[at] ^= 1 << random.below(8);
                return;
            }
            // A write of this disk's that went to another place.
            let blocks = bytes.len() / wal::BLOCK_SIZE_BYTES;
            let (from, to) = (random.place(blocks), random.place(blocks));
            let from = from * wal::BLOCK_SIZE_BYTES;
            bytes.copy_within(from..from + wal::BLOCK_SIZE_BYTES, to * wal::BLOCK_SIZE_BYTES);
        });
        format!("{what} in segment {}", segment.0)
    }
}

impl Contents {
    fn has_power(&mut self) -> bool {
        match &mut self.power_ops {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// Whether the operation that comes now is the one to fail.
    fn fails_now(&mut self) -> bool {
        let ops = self.store_ops.take();
        self.store_ops = ops.and_then(|left| left.checked_sub(1));
        ops == Some(0)
    }

    /// An operation fails half-way. What a sync that failed was to cover is as open as before.
    fn fail_store(&mut self, op: DiskOp) -> Completion {
        let (name, file) = (name_of(op.file), op.file);
        let buffer = match op.kind {
            DiskOpKind::Write { offset, bytes, .. } => {
                let offset = usize::try_from(offset).expect("a small file");
                let mut random = self.random.split(4);
                self.store.create(name).write_some(offset, &bytes, &mut random);
                bytes
            }
            _ => PageBuffer::default(),
        };
        let cause = std::io::Error::from_raw_os_error(EIO);
        let error = DiskError { file, operation: "use", cause };
        Completion { token: op.token, buffer, result: Err(error) }
    }

    fn perform_store(&mut self, op: DiskOp) -> Completion {
        if self.fails_now() {
            return self.fail_store(op);
        }
        let name = name_of(op.file);
        let is_full = self.is_store_full;
        let file = self.store.create(name);
        let failed = |operation, code| {
            let cause = std::io::Error::from_raw_os_error(code);
            Err(DiskError { file: op.file, operation, cause })
        };
        let (buffer, result) = match op.kind {
            DiskOpKind::Write { offset, bytes, .. } => {
                file.write(usize::try_from(offset).expect("a small file"), &bytes);
                (bytes, Ok(()))
            }
            DiskOpKind::Sync => {
                file.sync();
                (PageBuffer::default(), Ok(()))
            }
            DiskOpKind::Shorten { size_bytes } => {
                resize(file, size_bytes, |now, wanted| wanted < now);
                (PageBuffer::default(), Ok(()))
            }
            DiskOpKind::Allocate { size_bytes } => {
                let grows = size_bytes > file.bytes().len() as u64;
                if is_full && grows {
                    (PageBuffer::default(), failed("allocate", ENOSPC))
                } else {
                    resize(file, size_bytes, |now, wanted| wanted > now);
                    (PageBuffer::default(), Ok(()))
                }
            }
        };
        Completion { token: op.token, buffer, result }
    }
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn name_of(file: FileId) -> u64 {
    match file {
        FileId::Meta => META_NAME,
        FileId::Shard(shard) => META_NAME + 1 + u64::from(shard),
    }
}

fn resize(file: &mut SimFile, size_bytes: u64, wants: impl FnOnce(usize, usize) -> bool) {
    let wanted = usize::try_from(size_bytes).expect("a small file");
    if wants(file.bytes().len(), wanted) {
        file.resize(wanted);
    }
}

/// The way to the log during a start.
pub struct LogOfMachine(Machine);

impl LogDoor for LogOfMachine {
    fn perform(&mut self, op: wal::DiskOp) -> Result<wal::Completion, wal::DiskError> {
        let mut disks = self.0.disks.borrow_mut();
        if !disks.has_power() {
            return Err(wal::DiskError { kind: DiskErrorKind::Io, os_code: None });
        }
        disks.log.perform(op)
    }
}

/// The way to the store during a start.
pub struct StoreOfMachine(Machine);

impl StoreDoor for StoreOfMachine {
    fn perform(&mut self, op: DiskOp) -> Completion {
        let mut disks = self.0.disks.borrow_mut();
        if !disks.has_power() {
            let cause = std::io::Error::from_raw_os_error(EIO);
            let error = DiskError { file: op.file, operation: "use", cause };
            return Completion {
                token: op.token,
                buffer: PageBuffer::default(),
                result: Err(error),
            };
        }
        disks.perform_store(op)
    }
}

impl Disks for Machine {
    type Log = LogOfMachine;
    type Store = StoreOfMachine;

    fn open_store(&mut self) -> Result<(EngineFiles, StoreOfMachine, bool), Failure> {
        let mut disks = self.disks.borrow_mut();
        let meta = disks.store.create(META_NAME).bytes().to_vec();
        let shard = disks.store.create(META_NAME + 1).bytes().to_vec();
        let is_empty = meta.is_empty();
        let files = EngineFiles::Memory { meta, shards: vec![shard] };
        Ok((files, StoreOfMachine(self.clone()), is_empty))
    }

    fn sync_store_directory(&mut self) -> Result<(), Failure> {
        let mut disks = self.disks.borrow_mut();
        if !disks.has_power() {
            let cause = std::io::Error::from_raw_os_error(EIO);
            return Err(Failure::File { operation: "sync the store's directory".into(), cause });
        }
        disks.store.sync();
        Ok(())
    }

    fn handle_opened(&mut self, _engine: &Engine) -> Result<(), Failure> {
        Ok(())
    }

    fn open_log(&mut self) -> LogOfMachine {
        LogOfMachine(self.clone())
    }

    fn store_config(&self) -> EngineConfig {
        EngineConfig { shards: 1, shard_size_bytes_max: SHARD_SIZE_BYTES_MAX }
    }

    fn log_config(&self, identity: Vec<u8>) -> wal::Config {
        wal::Config {
            segment_size_bytes: self.disks.borrow().segment_size_bytes,
            backlog_size_bytes_max: 16 << 20,
            ..wal::Config::new(identity)
        }
    }
}
