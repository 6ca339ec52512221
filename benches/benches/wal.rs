//! The log's kernels, without a disk: what they cost the core that runs the log.
//!
//! - `append`: records of 256 bytes, so many to a batch; each batch is sealed, handed out as a
//!   write, and reported durable at once. The disk keeps nothing; segments are released behind the
//!   writer and come back, as after checkpoints.
//! - `recover`: a log of one segment, from the list of files to the certain end. Reads are copies
//!   from memory, which is what a page cache would do.

use std::collections::BTreeMap;

use benches::draw::{Draw, VALUE_SIZE_BYTES};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wal::{
    Completion, Config, DiskError, DiskOp, ListedFile, Lsn, Record, RecordKind, Recovery,
    SegmentSequence, Start, Writer, segment_file_name,
};

const ENTRY: RecordKind = RecordKind::owned(1);
/// Nearly fills the segment of 64 MiB in batches of 64 records.
const RECOVERED_RECORDS: usize = 200_000;

/// A disk that does everything at once.
trait Disk {
    fn perform(&mut self, op: DiskOp) -> Completion;
}

/// Keeps nothing: an empty directory for ever.
struct NullDisk;

impl Disk for NullDisk {
    fn perform(&mut self, op: DiskOp) -> Completion {
        match op {
            DiskOp::List => Completion::Listed(Vec::new()),
            DiskOp::Write { buffer, .. } => {
                Completion::Written { size_bytes: buffer.as_slice().len(), buffer }
            }
            DiskOp::Read { .. } => unreachable!("an empty log has nothing to read"),
            _ => Completion::Done,
        }
    }
}

/// Keeps the bytes of each segment.
#[derive(Default)]
struct MemoryDisk(BTreeMap<u64, Vec<u8>>);

impl MemoryDisk {
    fn list(&self) -> Vec<ListedFile> {
        let listed = |(sequence, bytes): (&u64, &Vec<u8>)| ListedFile {
            name: segment_file_name(SegmentSequence(*sequence)),
            size_bytes: bytes.len() as u64,
        };
        self.0.iter().map(listed).collect()
    }

    fn at(&mut self, segment: SegmentSequence, offset: u64, size_bytes: usize) -> &mut [u8] {
        let bytes = self.0.get_mut(&segment.0).expect("only files that exist are touched");
        let start = in_memory(offset);
        &mut bytes[start..start + size_bytes]
    }
}

impl Disk for MemoryDisk {
    fn perform(&mut self, op: DiskOp) -> Completion {
        match op {
            DiskOp::List => return Completion::Listed(self.list()),
            DiskOp::Write { segment, offset, buffer } => {
                let size_bytes = buffer.as_slice().len();
                self.at(segment, offset, size_bytes).copy_from_slice(buffer.as_slice());
                return Completion::Written { buffer, size_bytes };
            }
            DiskOp::Read { segment, offset, mut buffer } => {
                let size_bytes = buffer.as_slice().len();
                buffer.as_mut_slice().copy_from_slice(self.at(segment, offset, size_bytes));
                return Completion::Read { buffer, size_bytes };
            }
            DiskOp::Create { segment, size_bytes } => {
                self.0.entry(segment.0).or_default().resize(in_memory(size_bytes), 0);
            }
            DiskOp::Zero { segment, offset, size_bytes } => {
                self.at(segment, offset, in_memory(size_bytes)).fill(0);
            }
            DiskOp::Rename { from, to } => {
                let bytes = self.0.remove(&from.0).expect("only files that exist are renamed");
                self.0.insert(to.0, bytes);
            }
            DiskOp::Remove { segment } => {
                self.0.remove(&segment.0);
            }
            DiskOp::Sync { .. } | DiskOp::SyncDirectory => {}
        }
        Completion::Done
    }
}

fn in_memory(size: u64) -> usize {
    usize::try_from(size).expect("usize is 64 bits wide")
}

/// Opens the log, showing each record to `see`.
fn recover(disk: &mut impl Disk, mut see: impl FnMut(Record<'_>)) -> Writer {
    let config = Config::new(b"a member".to_vec());
    let start = Start { replay_from: Lsn::ZERO, boot_nonce: 1, may_create: true };
    let mut recovery = Recovery::new(config, start);
    while !recovery.poll_done().expect("the disk damages nothing") {
        while let Some((id, op)) = recovery.poll_op() {
            recovery.handle_completion(id, Ok(disk.perform(op)));
        }
        while let Some(record) = recovery.poll_record() {
            see(record);
        }
    }
    recovery.finish()
}

/// Appends a batch, seals it, and performs all that the writer asks for.
fn commit(writer: &mut Writer, disk: &mut impl Disk, bodies: &[Vec<u8>]) {
    for body in bodies {
        writer.append(ENTRY, &[body]).expect("everything before is durable");
    }
    writer.flush();
    while let Some((id, op)) = writer.poll_op() {
        let result: Result<_, DiskError> = Ok(disk.perform(op));
        writer.handle_completion(id, result).expect("the disk refuses nothing");
    }
    assert_eq!(writer.durable(), writer.appended());
}

fn bodies(count: usize) -> Vec<Vec<u8>> {
    let mut draw = Draw::new(1);
    (0..count).map(|_| draw.value()).collect()
}

fn throughput(records: usize) -> Throughput {
    let bytes = (records * VALUE_SIZE_BYTES) as u64;
    Throughput::ElementsAndBytes { elements: records as u64, bytes }
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal append");
    for records in [1, 64, 1000] {
        let bodies = bodies(records);
        let mut writer = recover(&mut NullDisk, |_| ());
        group.throughput(throughput(records));
        group.bench_function(format!("{records} to a batch"), |bencher| {
            bencher.iter(|| {
                commit(&mut writer, &mut NullDisk, &bodies);
                writer.release_before(writer.durable());
            });
        });
    }
    group.finish();
}

fn recovery(criterion: &mut Criterion) {
    let mut disk = MemoryDisk::default();
    let mut writer = recover(&mut disk, |_| ());
    let bodies = bodies(RECOVERED_RECORDS);
    for batch in bodies.chunks(64) {
        commit(&mut writer, &mut disk, batch);
    }
    let expected: usize = bodies.iter().map(Vec::len).sum();
    let mut group = criterion.benchmark_group("wal recover");
    group.throughput(throughput(RECOVERED_RECORDS)).sample_size(20);
    group.bench_function(format!("{RECOVERED_RECORDS} records"), |bencher| {
        bencher.iter(|| {
            let mut size_bytes = 0;
            recover(&mut disk, |record| size_bytes += record.body.len());
            assert_eq!(size_bytes, expected, "bytes recovered");
        });
    });
    group.finish();
}

criterion_group!(kernels, append, recovery);
criterion_main!(kernels);
