//! Sends of many pieces: what the kernel is given for one, and what keeps it valid.
//!
//! Invariants:
//! - The pieces, the list of them and the head live at fixed addresses until the value is dropped,
//!   wherever the value itself is moved to; the reactor drops it after the completion.

use bytes::Bytes;

/// Pieces of one send; the kernel takes so many (UIO_MAXIOV).
pub const PIECES_MAX: usize = 1024;

/// A send of pieces on its way.
pub struct VectoredSend {
    /// Where.
    pub socket: u32,
    /// Held so that what `list` points to stays where it is.
    #[expect(dead_code, reason = "held for the kernel")]
    pieces: Vec<Bytes>,
    /// Held so that what `head` points to stays where it is.
    #[expect(dead_code, reason = "held for the kernel")]
    list: Vec<libc::iovec>,
    head: Box<libc::msghdr>,
}

impl VectoredSend {
    /// Lists the pieces, of which there is at least one and none is empty.
    pub fn new(socket: u32, pieces: Vec<Bytes>) -> Self {
        assert!(!pieces.is_empty() && pieces.len() <= PIECES_MAX, "{} pieces", pieces.len());
        let entry = |piece: &Bytes| {
            assert!(!piece.is_empty(), "an empty send would look like a closed connection");
            libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() }
        };
        let mut list: Vec<libc::iovec> = pieces.iter().map(entry).collect();
        // SAFETY: all zero is a head without address, list and control data.
        let mut head: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        head.msg_iov = list.as_mut_ptr();
        head.msg_iovlen = list.len();
        Self { socket, pieces, list, head }
    }

    /// What the kernel is given.
    pub fn head(&self) -> *const libc::msghdr {
        &raw const *self.head
    }
}
