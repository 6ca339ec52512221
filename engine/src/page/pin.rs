//! Pins: readers on any core hold a published view, the writer knows which views are held.
//!
//! One writer publishes; each reader owns a slot. To pin, a reader stores the current view's
//! address in its slot, fences, and looks whether the view is still current; the writer swaps the
//! current view, fences, and looks at all slots. Of the two fences one comes first: either the
//! writer sees the slot, or the reader sees that the view is no longer current and tries again.
//! Neither ever waits for the other.
//!
//! Invariants:
//! - A view whose address stands in a slot of a successful pin is neither freed nor missing from
//!   [`Publisher::protected`].
//! - One slot holds one pin; who needs several pins at a time takes several slots.
//! - Views are freed by the writer, or by the last of writer and readers to go.
#![allow(unexpected_cfgs, reason = "`--cfg loom` is how the loom test is built")]

#[cfg(all(loom, test))]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, Ordering, fence},
};
#[cfg(not(all(loom, test)))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, Ordering, fence},
};

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr;

use super::ids::Epoch;

/// The writer's side: publishes views and knows which are still held.
pub struct Publisher<V> {
    shared: Arc<Shared<V>>,
    /// The current view and those that were still held at the last look; oldest first.
    held: Vec<(Epoch, *mut V)>,
}

/// The readers' side: hands out slots. Cheap to clone and to send to other cores.
pub struct Pins<V> {
    shared: Arc<Shared<V>>,
}

/// A reader's slot: room for one pin.
pub struct PinSlot<V> {
    shared: Arc<Shared<V>>,
    index: usize,
}

/// A view held for as long as this guard lives.
pub struct Pinned<'a, V> {
    slot: &'a Slot<V>,
    view: *const V,
}

/// A view held together with its slot, for a scan that outlives the function which began it.
pub struct PinnedSlot<V> {
    slot: PinSlot<V>,
    view: *const V,
}

struct Shared<V> {
    current: AtomicPtr<V>,
    slots: Box<[Slot<V>]>,
    /// Views that were still held when the publisher went; whoever goes last frees them.
    orphans: UnsafeCell<Vec<*mut V>>,
}

/// Alone on its pair of cache lines: a pin must not make another core's pin miss.
#[repr(align(128))]
struct Slot<V> {
    view: AtomicPtr<V>,
    taken: AtomicBool,
}

// SAFETY: the pointers are to boxed views that are shared by reference between cores (`V: Sync`)
// and freed on whichever core goes last (`V: Send`); `orphans` is written by the publisher's drop
// and read by the drop of the last `Arc`, which that drop happens before.
unsafe impl<V: Send + Sync> Send for Shared<V> {}
// SAFETY: as above.
unsafe impl<V: Send + Sync> Sync for Shared<V> {}
// SAFETY: the publisher's own pointers are to views that only it frees.
unsafe impl<V: Send + Sync> Send for Publisher<V> {}
// SAFETY: the view stays alive and unchanged while the guard lives, wherever the guard is.
unsafe impl<V: Send + Sync> Send for PinnedSlot<V> {}

impl<V> Publisher<V> {
    /// Publishes the first view, readable through at most `slots_max` slots at a time.
    #[must_use]
    pub fn new(view: Box<V>, epoch: Epoch, slots_max: usize) -> Self {
        let view = Box::into_raw(view);
        let slot =
            |_| Slot { view: AtomicPtr::new(ptr::null_mut()), taken: AtomicBool::new(false) };
        let shared = Shared {
            current: AtomicPtr::new(view),
            slots: (0..slots_max).map(slot).collect(),
            orphans: UnsafeCell::new(Vec::new()),
        };
        Self { shared: Arc::new(shared), held: vec![(epoch, view)] }
    }

    /// The readers' side.
    #[must_use]
    pub fn pins(&self) -> Pins<V> {
        Pins { shared: Arc::clone(&self.shared) }
    }

    /// Makes `view` the one that readers pin from now on, and frees views that nobody holds.
    pub fn publish(&mut self, view: Box<V>, epoch: Epoch) {
        let last = self.held.last().expect("there is always a current view").0;
        assert!(epoch > last, "epoch {epoch} published after {last}");
        let view = Box::into_raw(view);
        self.shared.current.store(view, Ordering::Release);
        self.held.push((epoch, view));
        self.collect();
    }

    /// Epochs of all views that are held or current, oldest first. A view that is not among them
    /// will not be read again.
    pub fn protected(&mut self) -> Vec<Epoch> {
        self.collect();
        self.held.iter().map(|(epoch, _)| *epoch).collect()
    }

    /// The current view.
    #[must_use]
    pub fn current(&self) -> &V {
        let (_, view) = self.held.last().expect("there is always a current view");
        // SAFETY: the current view is never freed before a later `publish`, which needs `&mut
        // self`.
        unsafe { &**view }
    }

    /// Frees retired views that no slot names.
    fn collect(&mut self) {
        // Orders the store of `current` before the loads of the slots; pairs with the fence in
        // `acquire`.
        fence(Ordering::SeqCst);
        let current = self.held.len() - 1;
        let mut index = 0;
        let slots = &self.shared.slots;
        self.held.retain(|(_, view)| {
            let is_current = index == current;
            index += 1;
            // Acquire: a reader's last use of the view happens before its slot is seen empty.
            let held = |slot: &Slot<V>| slot.view.load(Ordering::Acquire) == *view;
            if is_current || slots.iter().any(held) {
                return true;
            }
            // SAFETY: the pointer came from `Box::into_raw`, leaves the list with this, and after
            // the fence no slot names it: a reader that stores it later sees another current view.
            drop(unsafe { Box::from_raw(*view) });
            false
        });
    }
}

impl<V> Drop for Publisher<V> {
    fn drop(&mut self) {
        // Readers may go on with the last view; the list passes to whoever drops `shared` last.
        let orphans = self.held.drain(..).map(|(_, view)| view).collect();
        // SAFETY: only this drop writes the cell, and only the drop of `shared` reads it, later.
        unsafe { *self.shared.orphans.get() = orphans };
    }
}

impl<V> Drop for Shared<V> {
    fn drop(&mut self) {
        for view in self.orphans.get_mut().drain(..) {
            // SAFETY: the publisher gave the pointer up, and with the last `Arc` all pins are gone.
            drop(unsafe { Box::from_raw(view) });
        }
    }
}

impl<V> Clone for Pins<V> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<V> Pins<V> {
    /// Takes a slot, if one is left.
    #[must_use]
    pub fn slot(&self) -> Option<PinSlot<V>> {
        let free = |slot: &Slot<V>| {
            slot.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let index = self.shared.slots.iter().position(free)?;
        Some(PinSlot { shared: Arc::clone(&self.shared), index })
    }
}

impl<V> PinSlot<V> {
    /// Holds the current view until the guard is dropped.
    pub fn pin(&mut self) -> Pinned<'_, V> {
        let view = self.acquire();
        Pinned { slot: self.own(), view }
    }

    /// Holds the current view together with the slot; [`PinnedSlot::release`] gives the slot back.
    #[must_use]
    pub fn into_pinned(self) -> PinnedSlot<V> {
        let view = self.acquire();
        PinnedSlot { slot: self, view }
    }

    fn own(&self) -> &Slot<V> {
        &self.shared.slots[self.index]
    }

    fn acquire(&self) -> *const V {
        let slot = self.own();
        let mut view = self.shared.current.load(Ordering::Acquire);
        loop {
            // Release: a writer that reads this store, rather than the null before it, must still
            // have the slot's earlier view read to its end before it frees that view. Found by
            // loom.
            slot.view.store(view, Ordering::Release);
            fence(Ordering::SeqCst);
            let current = self.shared.current.load(Ordering::Acquire);
            if current == view {
                return view;
            }
            view = current;
        }
    }

    fn release(&self) {
        self.own().view.store(ptr::null_mut(), Ordering::Release);
    }
}

impl<V> Drop for PinSlot<V> {
    fn drop(&mut self) {
        // A guard that was forgotten rather than dropped leaves its view in the slot.
        self.release();
        self.own().taken.store(false, Ordering::Release);
    }
}

impl<V> Deref for Pinned<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        // SAFETY: the slot has named the view since before it stopped being current, so the writer
        // does not free it.
        unsafe { &*self.view }
    }
}

impl<V> Drop for Pinned<'_, V> {
    fn drop(&mut self) {
        self.slot.view.store(ptr::null_mut(), Ordering::Release);
    }
}

impl<V> PinnedSlot<V> {
    /// Lets the view go and keeps the slot.
    #[must_use]
    pub fn release(self) -> PinSlot<V> {
        self.slot.release();
        self.slot
    }
}

impl<V> Deref for PinnedSlot<V> {
    type Target = V;

    fn deref(&self) -> &V {
        // SAFETY: as for `Pinned`; the slot is emptied only when `self` goes.
        unsafe { &*self.view }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn protected_names_what_is_held_and_the_current() {
        let mut publisher = Publisher::new(Box::new(1), Epoch(1), 2);
        let pins = publisher.pins();
        let (mut first, second) = (pins.slot().unwrap(), pins.slot().unwrap());
        assert!(pins.slot().is_none(), "two slots were asked for");
        let held = first.pin();
        publisher.publish(Box::new(2), Epoch(2));
        let long = second.into_pinned();
        publisher.publish(Box::new(3), Epoch(3));
        publisher.publish(Box::new(4), Epoch(4));
        assert_eq!(publisher.protected(), [Epoch(1), Epoch(2), Epoch(4)]);
        assert_eq!((*held, *long), (1, 2));
        drop(held);
        assert_eq!(publisher.protected(), [Epoch(2), Epoch(4)]);
        let mut second = long.release();
        assert_eq!(*second.pin(), 4);
        assert_eq!(publisher.protected(), [Epoch(4)]);
        drop(second);
        assert!(pins.slot().is_some());
    }

    #[test]
    fn readers_outlive_the_publisher() {
        let mut publisher = Publisher::new(Box::new(String::from("old")), Epoch(1), 2);
        let mut slot = publisher.pins().slot().unwrap();
        let held = publisher.pins().slot().unwrap().into_pinned();
        publisher.publish(Box::new(String::from("last")), Epoch(2));
        drop(publisher);
        assert_eq!((&**held, &**slot.pin()), ("old", "last"));
    }

    #[test]
    fn readers_on_other_threads_see_whole_views() {
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        let mut publisher = Publisher::new(Box::new([0_u64; 8]), Epoch(0), 2);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut slot = publisher.pins().slot().unwrap();
                std::thread::spawn(move || {
                    let mut last = 0;
                    while last < rounds {
                        let view = slot.pin();
                        assert!(view.iter().all(|&part| part == view[0]), "{:?}", *view);
                        assert!(view[0] >= last);
                        last = view[0];
                        std::hint::spin_loop();
                        drop(view);
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        for round in 1..=rounds {
            publisher.publish(Box::new([round; 8]), Epoch(round));
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(publisher.protected(), [Epoch(rounds)]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// A view whose parts the writer destroys when it frees it: a reader that still looked would
    /// race with that in loom's eyes.
    struct Watched(loom::cell::UnsafeCell<u64>);

    impl Drop for Watched {
        fn drop(&mut self) {
            // SAFETY: the view is being freed: nobody may hold it, which is what loom checks here.
            self.0.with_mut(|value| unsafe { *value = u64::MAX });
        }
    }

    // SAFETY: the cell is read by many and written at the end only, which is what loom checks.
    unsafe impl Sync for Watched {}

    fn watched(value: u64) -> Box<Watched> {
        Box::new(Watched(loom::cell::UnsafeCell::new(value)))
    }

    fn read(view: &Watched) -> u64 {
        // SAFETY: pinned views are not written; loom reports it if one is.
        view.0.with(|value| unsafe { *value })
    }

    #[test]
    fn a_pinned_view_is_never_freed() {
        loom::model(|| {
            let mut publisher = Publisher::new(watched(1), Epoch(1), 1);
            let mut slot = publisher.pins().slot().unwrap();
            let reader = loom::thread::spawn(move || {
                for _ in 0..2 {
                    let view = slot.pin();
                    let value = read(&view);
                    assert!((1..=3).contains(&value), "view {value}");
                }
            });
            publisher.publish(watched(2), Epoch(2));
            publisher.publish(watched(3), Epoch(3));
            reader.join().unwrap();
            assert_eq!(publisher.protected(), [Epoch(3)]);
        });
    }

    #[test]
    fn a_pinned_epoch_is_protected() {
        loom::model(|| {
            let mut publisher = Publisher::new(watched(1), Epoch(1), 1);
            let mut slot = publisher.pins().slot().unwrap();
            let freed = Arc::new(loom::sync::atomic::AtomicU64::new(0));
            let seen = Arc::clone(&freed);
            let reader = loom::thread::spawn(move || {
                let view = slot.pin();
                let value = read(&view);
                // The writer reuses pages of an epoch only after `protected` left it out.
                assert!(seen.load(Ordering::Acquire) < value, "view {value} was given up");
            });
            publisher.publish(watched(2), Epoch(2));
            if publisher.protected() == [Epoch(2)] {
                freed.store(1, Ordering::Release);
            }
            reader.join().unwrap();
        });
    }
}
