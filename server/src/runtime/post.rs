//! Post between two cores: a bounded single-producer ring each way, and the wake-up with it.
//!
//! A sender wakes the receiver only if that is parked: the receiver raises a flag, looks into its
//! rings once more, and only then waits. Letters are boxed: a ring slot is a pointer, and
//! moving a letter copies eight bytes.
//!
//! Invariants:
//! - One core pushes, one core pops.
//! - After `push` returned true the letter will be seen: either the receiver was awake and looks
//!   before it parks, or it is parked and the sender must wake it.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};

use rtrb::{Consumer, Producer, RingBuffer};

/// Letters that may be under way; a writer that finds the ring full keeps adding to the letter in
/// its hand.
pub const LETTERS_MAX: usize = 256;

/// Whether a core waits in the kernel, and the ring that wakes it.
#[derive(Debug, Default)]
pub struct Bell {
    parked: AtomicBool,
    ring: AtomicI32,
}

impl Bell {
    /// A bell that nobody listens to yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { parked: AtomicBool::new(false), ring: AtomicI32::new(-1) })
    }

    /// Says which io_uring wakes this core; called once, before the first letter.
    pub fn attach(&self, ring: RawFd) {
        self.ring.store(ring, Ordering::Release);
    }

    /// The core is about to wait: from here on senders ring. It must look for letters once more
    /// before it waits.
    pub fn park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wants_wake`: either the sender sees the flag, or this core sees
        // the letter.
        fence(Ordering::SeqCst);
    }

    /// The core is awake.
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// The ring to wake, if the core is parked and nobody has rung yet.
    #[must_use]
    pub fn wants_wake(&self) -> Option<RawFd> {
        fence(Ordering::SeqCst);
        let ring = self.ring.load(Ordering::Acquire);
        (ring >= 0 && self.parked.swap(false, Ordering::AcqRel)).then_some(ring)
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Outbox<T> {
    ring: Producer<Box<T>>,
    bell: Arc<Bell>,
}

/// The receiving end.
#[derive(Debug)]
pub struct Inbox<T> {
    ring: Consumer<Box<T>>,
}

/// A ring to the core that listens to `bell`.
#[must_use]
pub fn ring<T>(bell: &Arc<Bell>) -> (Outbox<T>, Inbox<T>) {
    let (producer, consumer) = RingBuffer::new(LETTERS_MAX);
    (Outbox { ring: producer, bell: Arc::clone(bell) }, Inbox { ring: consumer })
}

impl<T> Outbox<T> {
    /// Whether a letter would fit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.ring.slots() > 0
    }

    /// Sends a letter; the caller has made sure that there is room.
    pub fn push(&mut self, letter: Box<T>) {
        assert!(self.ring.push(letter).is_ok(), "a letter was sent into a full ring");
    }

    /// The io_uring to wake after a push, if the receiver sleeps.
    #[must_use]
    pub fn wants_wake(&self) -> Option<RawFd> {
        self.bell.wants_wake()
    }
}

impl<T> Inbox<T> {
    /// The next letter.
    pub fn pop(&mut self) -> Option<Box<T>> {
        self.ring.pop().ok()
    }

    /// Whether no letter waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_core_is_rung_once() {
        let bell = Bell::new();
        let (mut outbox, mut inbox) = ring::<u32>(&bell);
        bell.attach(5);
        outbox.push(Box::new(1));
        assert_eq!(outbox.wants_wake(), None, "an awake core looks by itself");
        bell.park();
        assert!(!inbox.is_empty(), "the look before waiting finds the letter");
        outbox.push(Box::new(2));
        assert_eq!(outbox.wants_wake(), Some(5));
        assert_eq!(outbox.wants_wake(), None, "one ring is enough");
        assert_eq!(
            (inbox.pop(), inbox.pop(), inbox.pop()),
            (Some(Box::new(1)), Some(Box::new(2)), None)
        );
    }

    #[test]
    fn a_full_ring_says_so() {
        let (mut outbox, _inbox) = ring::<u32>(&Bell::new());
        for letter in 0..LETTERS_MAX {
            assert!(outbox.has_room());
            outbox.push(Box::new(u32::try_from(letter).unwrap()));
        }
        assert!(!outbox.has_room());
    }
}
