//! Provided receive buffers: one ring of equal buffers a core, which the kernel picks from.
//!
//! A socket that has nothing to say holds no memory: the kernel takes a buffer only when bytes
//! arrive. [`Received`] is the proof that a buffer was handed to us; it comes back through
//! [`BufferRing::recycle`], after which the kernel may write to it again.
//!
//! Invariants:
//! - A buffer is either the kernel's (listed in the ring) or ours (a live [`Received`]).
//! - The memory outlives the io_uring it is registered with: the reactor drops the ring first.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use memmap2::MmapMut;

/// Buffers a core keeps. 128 of them hold what a hundred busy connections send during one turn of
/// the loop; when they run out a receive ends with ENOBUFS and is armed again after a recycle.
pub const BUFFER_COUNT: u16 = 128;
/// Bytes of one buffer: what a client of many streams writes at once (grpc-go's write buffer is
/// 32 KiB), so that a wake-up costs one completion.
pub const BUFFER_SIZE_BYTES: usize = 32 * 1024;
/// The group id under which the ring is registered; there is one group a ring.
pub const BUFFER_GROUP: u16 = 0;

const _: () = assert!(BUFFER_COUNT.is_power_of_two());

/// Bytes that arrived: a buffer on loan from the ring.
#[derive(Debug)]
#[must_use = "a buffer that is not recycled is lost to the core"]
pub struct Received {
    id: u16,
    len: u32,
}

impl Received {
    pub(super) fn new(id: u16, len: u32) -> Self {
        assert!(id < BUFFER_COUNT, "the kernel chose buffer {id} of {BUFFER_COUNT}");
        assert!(len as usize <= BUFFER_SIZE_BYTES);
        Self { id, len }
    }
}

/// The buffers of one core and the ring that lends them to the kernel.
#[derive(Debug)]
pub struct BufferRing {
    entries: MmapMut,
    memory: MmapMut,
    tail: u16,
}

impl BufferRing {
    /// Allocates the buffers and registers them with `ring`.
    ///
    /// # Errors
    /// The kernel's, when memory or the registration is refused.
    pub fn register(ring: &IoUring) -> io::Result<Self> {
        let entries = MmapMut::map_anon(usize::from(BUFFER_COUNT) * size_of::<BufRingEntry>())?;
        let memory = MmapMut::map_anon(usize::from(BUFFER_COUNT) * BUFFER_SIZE_BYTES)?;
        let address = entries.as_ptr() as u64;
        // SAFETY: the mapping is page-aligned, long enough for BUFFER_COUNT entries, and lives in
        // the value returned here, which the reactor drops after the ring.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(address, BUFFER_COUNT, BUFFER_GROUP, 0)
        }?;
        let mut buffers = Self { entries, memory, tail: 0 };
        for id in 0..BUFFER_COUNT {
            buffers.lend(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The bytes that arrived in `received`.
    #[must_use]
    pub fn bytes(&self, received: &Received) -> &[u8] {
        let start = usize::from(received.id) * BUFFER_SIZE_BYTES;
        &self.memory[start..start + received.len as usize]
    }

    /// Gives the buffer back to the kernel.
    #[expect(clippy::needless_pass_by_value, reason = "consuming it is what ends the loan")]
    pub fn recycle(&mut self, received: Received) {
        self.lend(received.id);
        self.publish();
    }

    fn lend(&mut self, id: u16) {
        let address = self.memory.as_ptr() as u64 + u64::from(id) * BUFFER_SIZE_BYTES as u64;
        let slot = usize::from(self.tail & (BUFFER_COUNT - 1));
        let base = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: slot < BUFFER_COUNT, so the entry lies inside the mapping.
        let entry = unsafe { base.add(slot) };
        // SAFETY: the entry lies past the published tail: the kernel does not read it, and no
        // other reference to it exists. The tail itself shares entry 0's reserved field, which
        // the setters below do not touch.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(u32::try_from(BUFFER_SIZE_BYTES).expect("a buffer is 32 KiB"));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        let base = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: `base` is the first entry of the registered ring and initialised (zeroed).
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: the tail is an aligned u16 inside our mapping; the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entries written above must be visible before the kernel sees the new tail.
        tail.store(self.tail, Ordering::Release);
    }
}
