//! `bench disk`: what one durable write costs on this disk, by method, with nothing in between.
//!
//! The file is preallocated and written with zeros beforehand, as a recycled log segment is, so
//! that no write has to allocate. One write is outstanding at a time. It is measured idle, with a
//! spinning thread on every core, and with the writer itself polling between bits of work, as a
//! server does that is never idle: the three differ by more than an order of magnitude for some
//! methods, because some complete in a kernel worker that has to be scheduled on the core that took
//! the interrupt.
//!
//! Invariants:
//! - A write counts only when all its bytes are reported durable; anything less is a failure.
//! - Spinning threads end when the measurement does, also when that fails.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::failure::Failure;
use crate::load::parse_duration;
use crate::report::{Tally, duration_text};

/// One log segment.
const FILE_BYTES: usize = 64 * 1024 * 1024;
const BLOCK_BYTES: usize = 4096;
/// `RWF_DSYNC` of `pwritev2(2)`.
const RWF_DSYNC: i32 = 2;
/// `IORING_ENTER_GETEVENTS` of `io_uring_enter(2)`.
const ENTER_GETEVENTS: u32 = 1;
/// What a polling writer works between two looks at its ring: the order of one batch of requests.
const WORK_BETWEEN_POLLS: Duration = Duration::from_micros(5);

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// O_DIRECT, written with RWF_DSYNC through io_uring.
    DirectDsync,
    /// Through the page cache, written with RWF_DSYNC through io_uring.
    BufferedDsync,
    /// O_DIRECT, with a linked fdatasync, through io_uring.
    DirectFdatasync,
    /// pwrite, then fdatasync.
    PwriteFdatasync,
}

impl Method {
    fn is_direct(self) -> bool {
        matches!(self, Self::DirectDsync | Self::DirectFdatasync)
    }

    fn text(self) -> &'static str {
        match self {
            Self::DirectDsync => "O_DIRECT + RWF_DSYNC, io_uring",
            Self::BufferedDsync => "buffered + RWF_DSYNC, io_uring",
            Self::DirectFdatasync => "O_DIRECT + linked fdatasync, io_uring",
            Self::PwriteFdatasync => "pwrite + fdatasync",
        }
    }
}

/// What else the cores do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// Nothing.
    Idle,
    /// A thread spins on every core.
    Busy,
    /// The writer never sleeps: it works and polls its ring.
    Poll,
}

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct DiskArgs {
    /// The directory whose disk is measured; the file is removed afterwards.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// For how long each row is measured.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Sizes of a write, in KiB.
    #[arg(long, value_delimiter = ',', default_value = "4,16,64,256")]
    pub sizes: Vec<usize>,
    /// The methods.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct-dsync,buffered-dsync,direct-fdatasync,pwrite-fdatasync"
    )]
    pub methods: Vec<Method>,
    /// What else the cores do.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "idle,busy,poll")]
    pub loads: Vec<Load>,
    /// Pin the writer to each of these cores in turn; without it, it runs where the kernel likes.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
}

/// One row of the table.
pub struct Row {
    /// Counts and latencies of the writes.
    pub tally: Tally,
    /// CPU time of the process, its kernel workers included, without the spinning threads.
    pub cpu: Duration,
}

/// Runs the command.
pub fn command(args: &DiskArgs) -> Result<bool, Failure> {
    let sizes_fit = args.sizes.iter().all(|&size| size > 0 && size % 4 == 0 && size <= 1024);
    if !sizes_fit {
        return Err(Failure::new("--sizes must be multiples of 4 KiB up to 1024"));
    }
    println!("| method | KiB | cores | writer | writes/s | p50 | p99 | p99.9 | max | CPU us |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let cores: Vec<Option<usize>> = match args.cores.as_slice() {
        [] => vec![None],
        cores => cores.iter().copied().map(Some).collect(),
    };
    for &size in &args.sizes {
        for &load in &args.loads {
            for &core in &cores {
                for &method in &args.methods {
                    if load == Load::Poll && method == Method::PwriteFdatasync {
                        // A blocking call leaves nothing to poll.
                        continue;
                    }
                    let shape = Shape { method, size_bytes: size * 1024, load, core };
                    let row = measure(&args.dir, shape, args.duration)?;
                    print_row(shape, &row, args.duration);
                }
            }
        }
    }
    Ok(true)
}

/// The floor under every put: a 4 KiB write, idle, by the two usual methods.
pub fn floor(dir: &Path, duration: Duration) -> Result<Vec<(&'static str, Row)>, Failure> {
    let methods = [Method::DirectDsync, Method::PwriteFdatasync];
    let rows = methods.map(|method| {
        let shape = Shape { method, size_bytes: BLOCK_BYTES, load: Load::Idle, core: None };
        Ok((method.text(), measure(dir, shape, duration)?))
    });
    rows.into_iter().collect()
}

fn print_row(shape: Shape, row: &Row, duration: Duration) {
    let count = row.tally.operations_count;
    let quantile = |quantile| duration_text(row.tally.quantile_ns(quantile));
    println!(
        "| {} | {} | {} | {} | {:.0} | {} | {} | {} | {} | {:.1} |",
        shape.method.text(),
        shape.size_bytes / 1024,
        if shape.load == Load::Busy { "all spinning" } else { "idle" },
        match (shape.load, shape.core) {
            (Load::Poll, None) => "polls".to_owned(),
            (Load::Poll, Some(core)) => format!("polls on core {core}"),
            (_, None) => "sleeps".to_owned(),
            (_, Some(core)) => format!("sleeps on core {core}"),
        },
        count as f64 / duration.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        duration_text(row.tally.histogram.max()),
        row.cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
    );
}

/// What one row measures.
#[derive(Clone, Copy)]
struct Shape {
    method: Method,
    size_bytes: usize,
    load: Load,
    core: Option<usize>,
}

fn measure(dir: &Path, shape: Shape, duration: Duration) -> Result<Row, Failure> {
    let path = dir.join(format!("bench-disk-{}.tmp", std::process::id()));
    let result = prepare(&path, shape.method.is_direct())
        .and_then(|file| measure_file(&file, shape, duration));
    let removed = std::fs::remove_file(&path);
    let row = result?;
    removed.map_err(Failure::of(format!("remove {}", path.display())))?;
    Ok(row)
}

/// A file whose blocks are allocated, zeroed and on disk.
fn prepare(path: &Path, direct: bool) -> Result<File, Failure> {
    let failed = |what: &str| format!("{what} {}", path.display());
    let file = File::create(path).map_err(Failure::of(failed("create")))?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES as u64)
        .map_err(Failure::of(failed("allocate")))?;
    let zeros = vec![0; 1024 * 1024];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset as u64).map_err(Failure::of(failed("write")))?;
    }
    file.sync_all().map_err(Failure::of(failed("sync")))?;
    let flags = if direct { OFlags::DIRECT.bits() } else { 0 };
    OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(flags).expect("O_DIRECT is a small flag"))
        .open(path)
        .map_err(Failure::of(failed("open")))
}

fn measure_file(file: &File, shape: Shape, duration: Duration) -> Result<Row, Failure> {
    let own_cores = sched_getaffinity(None).map_err(Failure::of("read the affinity"))?;
    let stop = AtomicBool::new(false);
    let spun_ns: Vec<AtomicU64> = cores(&own_cores).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        // The guard stops the spinners on every way out of this closure.
        let _guard = StopOnDrop(&stop);
        if shape.load == Load::Busy {
            for (core, spun_ns) in cores(&own_cores).zip(&spun_ns) {
                let stop = &stop;
                scope.spawn(move || spin(core, stop, spun_ns));
            }
        }
        // The writer gets a thread of its own, so that its affinity ends with it.
        let writer = scope.spawn(|| {
            if let Some(core) = shape.core {
                pin(core)?;
            }
            let spun = || spun_ns.iter().map(|spun| spun.load(Ordering::Relaxed)).sum::<u64>();
            let (cpu_before, spun_before) = (process_cpu_ns(), spun());
            let tally = write_for(file, shape, duration)?;
            let cpu_ns = process_cpu_ns() - cpu_before;
            let spun_ns = spun() - spun_before;
            let cpu = Duration::from_nanos(cpu_ns.saturating_sub(spun_ns));
            Ok(Row { tally, cpu })
        });
        match writer.join() {
            Ok(row) => row,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn write_for(file: &File, shape: Shape, duration: Duration) -> Result<Tally, Failure> {
    let mut writer = Writer::new(file, shape)?;
    let mut tally = Tally::new("write");
    let mut offset = 0;
    let end = Instant::now() + duration;
    loop {
        let before = Instant::now();
        if before >= end {
            return Ok(tally);
        }
        writer.write(offset)?;
        tally.record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
        offset += shape.size_bytes;
        if offset + shape.size_bytes > FILE_BYTES {
            offset = 0;
        }
    }
}

/// One write at a time, by one method.
struct Writer<'a> {
    file: &'a File,
    shape: Shape,
    ring: IoUring,
    /// Larger than a write by a block, so that an aligned write fits wherever it was allocated.
    buffer: Vec<u8>,
    buffer_start: usize,
    count: u64,
}

impl<'a> Writer<'a> {
    fn new(file: &'a File, shape: Shape) -> Result<Self, Failure> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(8)
            .map_err(Failure::of("create an io_uring"))?;
        let buffer = vec![0; shape.size_bytes + BLOCK_BYTES];
        let buffer_start = buffer.as_ptr().align_offset(BLOCK_BYTES);
        assert!(buffer_start < BLOCK_BYTES);
        Ok(Self { file, shape, ring, buffer, buffer_start, count: 0 })
    }

    fn write(&mut self, offset: usize) -> Result<(), Failure> {
        let Shape { method, size_bytes, .. } = self.shape;
        // No two writes are alike: a disk that compresses or deduplicates gains nothing.
        self.count += 1;
        let start = self.buffer_start;
        self.buffer[start..start + 8].copy_from_slice(&self.count.to_le_bytes());
        let bytes = &self.buffer[start..start + size_bytes];
        if method == Method::PwriteFdatasync {
            self.file.write_all_at(bytes, offset as u64).map_err(Failure::of("pwrite"))?;
            return self.file.sync_data().map_err(Failure::of("fdatasync"));
        }
        let fd = types::Fd(self.file.as_raw_fd());
        let len = u32::try_from(size_bytes).expect("the sizes were checked");
        let write = opcode::Write::new(fd, bytes.as_ptr(), len).offset(offset as u64);
        let entries = if method == Method::DirectFdatasync {
            let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC);
            let write = write.build().flags(squeue::Flags::IO_LINK).user_data(u64::from(len));
            vec![write, sync.build().user_data(0)]
        } else {
            vec![write.rw_flags(RWF_DSYNC).build().user_data(u64::from(len))]
        };
        // SAFETY: the entries point into `self.buffer` and at an open file; both outlive
        // `wait_for`, which does not return before the kernel has completed every entry.
        let pushed = unsafe { self.ring.submission().push_multiple(&entries) };
        pushed.expect("the ring has room for eight entries and none is outstanding");
        self.wait_for(entries.len())
    }

    /// Submits and waits for so many completions, sleeping or polling.
    fn wait_for(&mut self, count: usize) -> Result<(), Failure> {
        let sleeps = self.shape.load != Load::Poll;
        let mut refused = None;
        let mut left = count;
        let mut submitted = false;
        while left > 0 {
            let entered = if sleeps || !submitted {
                self.ring.submit_and_wait(if sleeps { left } else { 0 })
            } else {
                let worked = Instant::now();
                while worked.elapsed() < WORK_BETWEEN_POLLS {
                    std::hint::spin_loop();
                }
                // SAFETY: no argument is passed, and the ring is this thread's own.
                unsafe { self.ring.submitter().enter::<u8>(0, 0, ENTER_GETEVENTS, None) }
            };
            match entered {
                Ok(_) => submitted = true,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // The kernel may still hold the buffer: there is nothing to return to.
                Err(error) => panic!("io_uring_enter on a ring of our own: {error}"),
            }
            for completion in self.ring.completion() {
                left -= 1;
                // The entry's user data is the result that it has to have.
                let expected = i32::try_from(completion.user_data()).expect("at most 1 MiB");
                if completion.result() != expected {
                    refused = Some(completion.result());
                }
            }
        }
        match refused {
            None => Ok(()),
            Some(result) => Err(Failure::new(format!("a durable write ended with {result}"))),
        }
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn spin(core: usize, stop: &AtomicBool, spun_ns: &AtomicU64) {
    // Where a core may not be had, the spinner still keeps some core busy.
    let _ = pin(core);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20_000 {
            std::hint::spin_loop();
        }
        spun_ns.store(cpu_ns(ClockId::ThreadCPUTime), Ordering::Relaxed);
    }
}

fn pin(core: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(Failure::new(format!("there is no core {core}")));
    }
    set.set(core);
    sched_setaffinity(None, &set).map_err(Failure::of(format!("pin to core {core}")))
}

fn cores(set: &CpuSet) -> impl Iterator<Item = usize> + '_ {
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core))
}

fn process_cpu_ns() -> u64 {
    cpu_ns(ClockId::ProcessCPUTime)
}

fn cpu_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).expect("CPU time is not negative");
    let nanos = u64::try_from(time.tv_nsec).expect("below a second");
    seconds * 1_000_000_000 + nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_writes_and_leaves_no_file_behind() {
        let dir = std::env::temp_dir().join(format!("bench-disk-test-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let mut measured = 0;
        for method in [Method::BufferedDsync, Method::PwriteFdatasync] {
            for load in [Load::Idle, Load::Busy, Load::Poll] {
                let shape = Shape { method, size_bytes: 8192, load, core: None };
                let row = measure(&dir, shape, Duration::from_millis(20)).unwrap();
                assert!(row.tally.operations_count > 0);
                measured += 1;
            }
        }
        assert_eq!(measured, 6);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        std::fs::remove_dir(&dir).unwrap();
    }
}
