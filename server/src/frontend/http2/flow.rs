//! Flow control arithmetic alone (RFC 9113, 5.2 and 6.9): who may still send how many bytes.
//!
//! A *send window* is the peer's promise to us, a *receive window* ours to the peer. Both exist
//! once for the connection and once for each stream; DATA needs room in both.
//!
//! Invariants:
//! - A send window never exceeds 2^31-1. It may be negative: when the peer lowers
//!   SETTINGS_INITIAL_WINDOW_SIZE, bytes that we sent under the old promise count against the new
//!   one, and we owe them until WINDOW_UPDATEs have paid them back (RFC 9113, 6.9.2).
//! - Of a receive window, `remaining + received but not yet given back == limit`.

/// The largest legal window (RFC 9113, 6.9.1).
pub const WINDOW_MAX: u32 = 0x7fff_ffff;

/// The window of a new connection, and of a new stream unless settings say otherwise.
pub const WINDOW_DEFAULT: u32 = 65_535;

/// A window grew past 2^31-1, or the peer sent more than it was allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowViolation;

/// What the peer lets us send. Kept in 64 bits so that no sum can wrap.
#[derive(Clone, Copy, Debug)]
pub struct SendWindow(i64);

impl SendWindow {
    /// A window of the given size.
    pub fn new(size: u32) -> Self {
        assert!(size <= WINDOW_MAX, "a window of {size} bytes is beyond the protocol's limit");
        Self(i64::from(size))
    }

    /// Bytes that may be sent now; a negative window counts as an empty one.
    #[inline]
    pub fn available(&self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Notes bytes sent.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.available(), "{count} bytes sent, window has {}", self.0);
        self.0 -= i64::try_from(count).expect("at most the window, which is below 2^31");
    }

    /// Notes a WINDOW_UPDATE.
    pub fn widen(&mut self, increment: u32) -> Result<(), WindowViolation> {
        self.shift(i64::from(increment))
    }

    /// Moves the window by the difference between two initial sizes, down below zero if need be.
    pub fn shift(&mut self, difference: i64) -> Result<(), WindowViolation> {
        let moved = self.0 + difference;
        if moved > i64::from(WINDOW_MAX) {
            return Err(WindowViolation);
        }
        self.0 = moved;
        Ok(())
    }
}

/// What we let the peer send.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveWindow {
    limit: u32,
    remaining: u32,
    /// Taken off our hands but not yet given back to the peer.
    released: u32,
}

impl ReceiveWindow {
    /// A window of the given size, of which the peer knows.
    pub fn new(limit: u32) -> Self {
        assert!(limit <= WINDOW_MAX);
        Self { limit, remaining: limit, released: 0 }
    }

    /// Notes bytes received.
    #[inline]
    pub fn receive(&mut self, count: u32) -> Result<(), WindowViolation> {
        self.remaining = self.remaining.checked_sub(count).ok_or(WindowViolation)?;
        Ok(())
    }

    /// Notes that received bytes are dealt with. Returns the increment for a WINDOW_UPDATE once
    /// half the window has gathered: one small frame for every half window, never one a message.
    #[inline]
    pub fn release(&mut self, count: u32) -> Option<u32> {
        self.released += count;
        assert!(self.released + self.remaining <= self.limit, "more released than received");
        if self.released < self.limit.div_ceil(2) {
            return None;
        }
        let increment = self.released;
        self.remaining += increment;
        self.released = 0;
        Some(increment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_setting_makes_the_window_negative_and_updates_pay_it_back() {
        let mut window = SendWindow::new(WINDOW_DEFAULT);
        window.consume(60_000);
        window.shift(-65_535).unwrap(); // The peer's new initial size is 0: we owe 60,000 bytes.
        assert_eq!(window.available(), 0);
        window.widen(60_000).unwrap();
        assert_eq!(window.available(), 0);
        window.widen(1).unwrap();
        assert_eq!(window.available(), 1);
    }

    #[test]
    fn a_window_stops_at_its_largest_value() {
        let mut window = SendWindow::new(WINDOW_MAX);
        assert_eq!(window.widen(1), Err(WindowViolation));
        window.consume(1);
        assert_eq!(window.widen(1), Ok(()));
        assert_eq!(window.available(), WINDOW_MAX as usize);
    }

    #[test]
    fn a_receive_window_gives_back_in_halves_and_refuses_what_it_never_gave() {
        let mut window = ReceiveWindow::new(101);
        assert_eq!(window.receive(50), Ok(()));
        assert_eq!(window.release(50), None);
        assert_eq!(window.receive(51), Ok(()));
        assert_eq!(window.receive(1), Err(WindowViolation));
        assert_eq!(window.release(1), Some(51));
        assert_eq!(window.receive(52), Err(WindowViolation));
        assert_eq!(window.receive(51), Ok(()));
    }
}
