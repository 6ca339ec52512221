//! One core's door to the kernel: sockets, log writes and wake-ups over one io_uring.
//!
//! The owner calls [`Reactor::wait`] once a turn (one system call submits all that was queued and
//! collects what is done), drains [`Reactor::poll_event`], and queues new work. Nothing here
//! decides anything: a connection's protocol, the order of log writes and who is woken are the
//! owner's business.
//!
//! Invariants:
//! - Memory handed to the kernel is owned by `sends`, `vectored` or `writes` until its completion
//!   is seen; a reactor dropped with operations in flight leaks that memory rather than freeing it.
//! - [`Event::Closed`] is the last event of a socket and comes exactly once, after its last
//!   operation has ended; only then is the descriptor closed, so no completion meets a reused one.

mod failure;
#[cfg(test)]
mod tests;
mod vectored;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use bytes::Bytes;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use wal::AlignedBuffer;

pub use self::failure::ReactorError;
use self::vectored::VectoredSend;
use super::buffers::{BUFFER_GROUP, BufferRing, Received};
use super::slab::Slab;
use super::sockets::Listener;

/// Submission slots: more than one turn of a busy core queues; a full queue is submitted early.
const SUBMISSION_ENTRIES: u32 = 1024;
/// Completion slots: multishot receives complete many times a submission.
const COMPLETION_ENTRIES: u32 = 8192;

/// A connection's place in its reactor. The generation tells it from an earlier tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    index: u32,
    generation: u32,
}

impl SocketId {
    /// A socket that no reactor knows.
    #[cfg(test)]
    pub(crate) fn of_test(index: u32) -> Self {
        Self { index, generation: 1 }
    }

    /// The place, for the owner's own table of connections.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A client connected through the listener with this number.
    Accepted {
        /// As returned by [`Reactor::listen`].
        listener: usize,
        /// The new connection's descriptor; [`Reactor::adopt`] makes it a socket of some core.
        descriptor: OwnedFd,
    },
    /// Bytes arrived; they must be recycled.
    Received {
        /// Where.
        socket: SocketId,
        /// What.
        received: Received,
    },
    /// A send ended in full; the buffer comes back, emptied, for reuse.
    Sent {
        /// Where.
        socket: SocketId,
        /// The buffer that was sent.
        buffer: Vec<u8>,
    },
    /// A send of pieces ended, possibly before all of them had left.
    SentVectored {
        /// Where.
        socket: SocketId,
        /// How many bytes have left.
        count: usize,
    },
    /// The client sends nothing more; it may still read. Whether that is the end is for the owner
    /// to say.
    HalfClosed {
        /// Which.
        socket: SocketId,
    },
    /// The socket is gone, whoever ended it.
    Closed {
        /// Which.
        socket: SocketId,
    },
    /// A log write ended.
    Written {
        /// As passed to [`Reactor::write`].
        token: u64,
        /// Bytes written, or what the kernel refused.
        result: io::Result<usize>,
        /// What was written.
        buffer: AlignedBuffer,
    },
    /// Another core or thread left mail.
    Woken,
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the kernel has it.
    None,
    /// When it is on the medium, in one operation (RWF_DSYNC).
    WriteThrough,
    /// When it is on the medium, by a data sync linked to it.
    WriteThenSync,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept = 1,
    Receive = 2,
    Send = 3,
    Shutdown = 4,
    Write = 5,
    Sync = 10,
    Wake = 6,
    WakeSent = 7,
    Cancel = 8,
    Eventfd = 9,
    SendVectored = 11,
}

impl Kind {
    fn of(user_data: u64) -> Self {
        match (user_data >> 56) as u8 {
            1 => Self::Accept,
            2 => Self::Receive,
            3 => Self::Send,
            4 => Self::Shutdown,
            5 => Self::Write,
            10 => Self::Sync,
            6 => Self::Wake,
            7 => Self::WakeSent,
            8 => Self::Cancel,
            9 => Self::Eventfd,
            11 => Self::SendVectored,
            other => unreachable!("completion of an unknown kind {other}"),
        }
    }

    fn tag(self, index: u32) -> u64 {
        (self as u64) << 56 | u64::from(index)
    }
}

/// The completion that a wake-up of another ring shows there.
pub(super) fn wake_user_data() -> u64 {
    Kind::Wake.tag(0)
}

#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    generation: u32,
    operations: u32,
    receiving: bool,
    starved: bool,
    paused: bool,
    closing: bool,
}

#[derive(Debug)]
struct SendInFlight {
    socket: u32,
    buffer: Vec<u8>,
    sent: usize,
}

struct WriteInFlight {
    token: u64,
    buffer: AlignedBuffer,
    /// What the write said, when a sync follows it.
    written: Option<i32>,
}

impl WriteInFlight {
    fn size_bytes(&self) -> usize {
        self.buffer.as_slice().len()
    }
}

/// One core's ring and all that is in flight on it.
pub struct Reactor {
    ring: IoUring,
    buffers: BufferRing,
    sockets: Slab<Socket>,
    sends: Slab<SendInFlight>,
    vectored: Slab<VectoredSend>,
    writes: Slab<WriteInFlight>,
    listeners: Vec<Listener>,
    eventfd: OwnedFd,
    starved: Vec<u32>,
    events: VecDeque<Event>,
    generation: u32,
}

impl Reactor {
    /// A ring for the calling thread, which alone may use it.
    ///
    /// # Errors
    /// Where seccomp, sysctl or a memory limit forbids io_uring: the operation and the cause.
    pub fn new() -> Result<Self, ReactorError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)
            .map_err(|cause| ReactorError { operation: "set up an io_uring", cause })?;
        let buffers = BufferRing::register(&ring)
            .map_err(|cause| ReactorError { operation: "register receive buffers", cause })?;
        let eventfd = super::wake::eventfd()
            .map_err(|cause| ReactorError { operation: "create an eventfd", cause })?;
        let mut reactor = Self {
            ring,
            buffers,
            sockets: Slab::new(),
            sends: Slab::new(),
            vectored: Slab::new(),
            writes: Slab::new(),
            listeners: Vec::new(),
            eventfd,
            starved: Vec::new(),
            events: VecDeque::new(),
            generation: 0,
        };
        reactor.arm_eventfd();
        Ok(reactor)
    }

    /// The ring's descriptor, for wake-ups from other cores.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// The eventfd that wakes this core from threads without a ring.
    #[must_use]
    pub fn eventfd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Starts accepting on `listener`; its number comes with each [`Event::Accepted`].
    pub fn listen(&mut self, listener: Listener) -> usize {
        self.listeners.push(listener);
        let number = self.listeners.len() - 1;
        self.arm_accept(number);
        number
    }

    /// Stops accepting: the listening sockets are closed.
    pub fn stop_listening(&mut self) {
        for listener in &self.listeners {
            // Shutting a listening socket down ends its multishot accept; the error case is a
            // socket that is already down.
            drop(super::wake::shutdown(listener.as_raw_fd()));
        }
    }

    /// Makes `descriptor` a socket of this core and starts receiving on it.
    pub fn adopt(&mut self, descriptor: OwnedFd) -> SocketId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.sockets.insert(Socket {
            descriptor,
            generation,
            operations: 0,
            receiving: false,
            starved: false,
            paused: false,
            closing: false,
        });
        self.arm_receive(index);
        SocketId { index, generation }
    }

    /// Sends `buffer` whole. One send a socket at a time keeps the bytes in order.
    pub fn send(&mut self, socket: SocketId, buffer: Vec<u8>) {
        assert!(!buffer.is_empty(), "an empty send would look like a closed connection");
        let Some(state) = self.live(socket) else { return };
        if state.closing {
            return;
        }
        state.operations += 1;
        let index = self.sends.insert(SendInFlight { socket: socket.index, buffer, sent: 0 });
        self.push_send(index);
    }

    /// Sends pieces that are shared with others, in order, as far as the socket takes them at once:
    /// [`Event::SentVectored`] says how far that was. One send a socket at a time, of either kind.
    pub fn send_vectored(&mut self, socket: SocketId, pieces: Vec<Bytes>) {
        let Some(state) = self.live(socket) else { return };
        if state.closing {
            return;
        }
        state.operations += 1;
        let descriptor = types::Fd(state.descriptor.as_raw_fd());
        let send = VectoredSend::new(socket.index, pieces);
        let head = send.head();
        let index = self.vectored.insert(send);
        let flags = u32::try_from(libc::MSG_NOSIGNAL).expect("a flag is one positive bit");
        let entry = opcode::SendMsg::new(descriptor, head).flags(flags).build();
        self.push(entry.user_data(Kind::SendVectored.tag(index)));
    }

    /// Ends the connection; [`Event::Closed`] follows when nothing of it is in flight.
    pub fn close(&mut self, socket: SocketId) {
        if self.live(socket).is_some() {
            self.begin_close(socket.index);
        }
    }

    /// Stops reading from a client whose answers pile up; what already arrived is still delivered.
    pub fn pause(&mut self, socket: SocketId) {
        let Some(state) = self.live(socket) else { return };
        if !state.paused {
            state.paused = true;
            if state.receiving {
                let target = Kind::Receive.tag(socket.index);
                let entry = opcode::AsyncCancel::new(target).build();
                self.push(entry.user_data(Kind::Cancel.tag(socket.index)));
            }
        }
    }

    /// Reads again.
    pub fn resume(&mut self, socket: SocketId) {
        let Some(state) = self.live(socket) else { return };
        if state.paused {
            state.paused = false;
            if !state.receiving && !state.closing {
                self.arm_receive(socket.index);
            }
        }
    }

    /// Writes `buffer` to `file` at `offset`; it completes when it is as durable as asked.
    pub fn write(
        &mut self,
        file: RawFd,
        offset: u64,
        buffer: AlignedBuffer,
        durability: Durability,
        token: u64,
    ) {
        let bytes = buffer.as_slice();
        let address = bytes.as_ptr();
        let len = u32::try_from(bytes.len()).expect("a log write is far below 4 GiB");
        // The blocks stay where they are when the buffer moves into the slab.
        let index = self.writes.insert(WriteInFlight { token, buffer, written: None });
        let through = durability == Durability::WriteThrough;
        let entry = opcode::Write::new(types::Fd(file), address, len)
            .offset(offset)
            .rw_flags(if through { libc::RWF_DSYNC } else { 0 })
            .build()
            .user_data(Kind::Write.tag(index));
        if durability != Durability::WriteThenSync {
            self.push(entry);
            return;
        }
        // A failed or short write breaks the link: the sync is then cancelled.
        let sync = opcode::Fsync::new(types::Fd(file)).flags(types::FsyncFlags::DATASYNC).build();
        let sync = sync.user_data(Kind::Sync.tag(index));
        self.push_all(&[entry.flags(squeue::Flags::IO_LINK), sync]);
        self.writes.get_mut(index).expect("inserted above").written = Some(0);
    }

    /// Queues a wake-up of the core whose ring is `ring`.
    pub fn wake(&mut self, ring: RawFd) {
        let entry = opcode::MsgRingData::new(types::Fd(ring), 0, wake_user_data(), None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Kind::WakeSent.tag(0));
        self.push(entry);
    }

    /// Submits what is queued and waits for at least one completion, at most `timeout`.
    /// A zero timeout only submits and collects.
    ///
    /// # Errors
    /// Only what means that the ring itself is unusable.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), ReactorError> {
        self.rearm_starved();
        let outcome = if timeout.is_zero() || !self.events.is_empty() {
            self.ring.submit()
        } else {
            let timespec = types::Timespec::from(timeout);
            let arguments = types::SubmitArgs::new().timespec(&timespec);
            self.ring.submitter().submit_with_args(1, &arguments)
        };
        match outcome {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => return Err(ReactorError { operation: "wait on the io_uring", cause: error }),
            },
        }
        self.collect();
        Ok(())
    }

    /// Hands what is queued to the kernel without looking for completions.
    ///
    /// # Errors
    /// Only what means that the ring itself is unusable.
    pub fn submit(&mut self) -> Result<(), ReactorError> {
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(cause) => match cause.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(ReactorError { operation: "submit to the io_uring", cause }),
            },
        }
    }

    /// The next thing that happened since the last [`Self::wait`].
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Closed { socket } = event {
            // Only now: an accepted connection that is handled before this event must not find
            // itself in the place of one that its owner still believes to be open.
            drop(self.sockets.remove(socket.index));
        }
        Some(event)
    }

    /// The bytes of a receive.
    #[must_use]
    pub fn received(&self, received: &Received) -> &[u8] {
        self.buffers.bytes(received)
    }

    /// Gives a receive buffer back.
    pub fn recycle(&mut self, received: Received) {
        self.buffers.recycle(received);
    }

    /// Log writes whose end has not been seen.
    #[must_use]
    pub fn writes_in_flight(&self) -> usize {
        self.writes.len()
    }

    /// Sockets that are still open.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    fn live(&mut self, socket: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(socket.index).filter(|state| state.generation == socket.generation)
    }

    fn collect(&mut self) {
        loop {
            // One completion at a time: handling it may queue submissions, which needs the ring.
            let Some(completion) = self.ring.completion().next() else { break };
            self.handle(&completion);
        }
    }

    fn handle(&mut self, completion: &cqueue::Entry) {
        let user_data = completion.user_data();
        let index = u32::try_from(user_data & u64::from(u32::MAX)).expect("masked to 32 bits");
        match Kind::of(user_data) {
            Kind::Accept => self.handle_accept(index, completion),
            Kind::Receive => self.handle_receive(index, completion),
            Kind::Send => self.handle_send(index, completion.result()),
            Kind::SendVectored => self.handle_send_vectored(index, completion.result()),
            Kind::Shutdown => self.operation_ended(index),
            Kind::Write => self.handle_write(index, completion.result()),
            Kind::Sync => self.handle_sync(index, completion.result()),
            Kind::Wake => self.events.push_back(Event::Woken),
            Kind::Eventfd => {
                super::wake::drain(self.eventfd.as_raw_fd());
                if !cqueue::more(completion.flags()) {
                    self.arm_eventfd();
                }
                self.events.push_back(Event::Woken);
            }
            // A wake-up fails only when the other core is gone, which a stopping process allows;
            // a cancellation's own outcome shows in the operation it cancelled.
            Kind::WakeSent | Kind::Cancel => {}
        }
    }

    fn handle_accept(&mut self, number: u32, completion: &cqueue::Entry) {
        let listener = number as usize;
        let result = completion.result();
        if result >= 0 {
            // SAFETY: the kernel has just opened this descriptor for us; nobody else owns it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(result) };
            self.events.push_back(Event::Accepted { listener, descriptor });
        }
        // EINVAL is the answer of a listener that was shut down: it stays down.
        if !cqueue::more(completion.flags()) && result != -libc::EINVAL {
            self.arm_accept(listener);
        }
    }

    fn handle_receive(&mut self, index: u32, completion: &cqueue::Entry) {
        let result = completion.result();
        let more = cqueue::more(completion.flags());
        let state = self.sockets.get_mut(index).expect("a receive keeps its socket's slot");
        let socket = SocketId { index, generation: state.generation };
        if !more {
            state.receiving = false;
        }
        if let (Ok(len @ 1..), Some(buffer)) =
            (u32::try_from(result), cqueue::buffer_select(completion.flags()))
        {
            let received = Received::new(buffer, len);
            if state.closing {
                self.buffers.recycle(received);
            } else {
                self.events.push_back(Event::Received { socket, received });
            }
        }
        if more {
            return;
        }
        self.end_receive(index, result);
    }

    fn end_receive(&mut self, index: u32, result: i32) {
        let state = self.sockets.get_mut(index).expect("a receive keeps its socket's slot");
        let retry = result > 0 || result == -libc::ENOBUFS || result == -libc::ECANCELED;
        if retry && !state.closing {
            if result == -libc::ENOBUFS {
                state.starved = true;
                self.starved.push(index);
            } else if !state.paused {
                self.arm_receive(index);
            }
        } else if result == 0 && !state.closing {
            let socket = SocketId { index, generation: state.generation };
            self.events.push_back(Event::HalfClosed { socket });
        } else if !state.closing {
            self.begin_close(index);
        }
        self.operation_ended(index);
    }

    fn handle_send(&mut self, index: u32, result: i32) {
        let send = self.sends.get_mut(index).expect("a send is kept until its completion");
        let socket = send.socket;
        if let Ok(sent @ 1..) = usize::try_from(result) {
            send.sent += sent;
            if send.sent < send.buffer.len() {
                self.push_send(index);
                return;
            }
        }
        let mut send = self.sends.remove(index);
        let state = self.sockets.get_mut(socket).expect("a send keeps its socket's slot");
        let id = SocketId { index: socket, generation: state.generation };
        if result > 0 {
            send.buffer.clear();
            if !state.closing {
                self.events.push_back(Event::Sent { socket: id, buffer: send.buffer });
            }
        } else if !state.closing {
            self.begin_close(socket);
        }
        self.operation_ended(socket);
    }

    fn handle_send_vectored(&mut self, index: u32, result: i32) {
        let socket = self.vectored.remove(index).socket;
        let state = self.sockets.get_mut(socket).expect("a send keeps its socket's slot");
        let id = SocketId { index: socket, generation: state.generation };
        if !state.closing {
            match usize::try_from(result) {
                Ok(count @ 1..) => {
                    self.events.push_back(Event::SentVectored { socket: id, count });
                }
                _ => self.begin_close(socket),
            }
        }
        self.operation_ended(socket);
    }

    fn handle_write(&mut self, index: u32, result: i32) {
        let write = self.writes.get_mut(index).expect("a write is kept until its last completion");
        if let Some(written) = &mut write.written {
            *written = result;
            return;
        }
        self.end_write(index, result);
    }

    fn handle_sync(&mut self, index: u32, result: i32) {
        let write = self.writes.get_mut(index).expect("a write is kept until its last completion");
        let written = write.written.expect("a sync follows a write");
        // A write that fell short breaks the link: its own result says more than the cancellation.
        let is_whole = usize::try_from(written).is_ok_and(|size| size == write.size_bytes());
        let is_broken = result == -libc::ECANCELED && !is_whole;
        self.end_write(index, if result < 0 && !is_broken { result } else { written });
    }

    fn end_write(&mut self, index: u32, result: i32) {
        let write = self.writes.remove(index);
        let result = usize::try_from(result)
            .map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()));
        let WriteInFlight { token, buffer, .. } = write;
        self.events.push_back(Event::Written { token, result, buffer });
    }

    fn begin_close(&mut self, index: u32) {
        let state = self.sockets.get_mut(index).expect("the caller holds a live socket");
        if state.closing {
            return;
        }
        state.closing = true;
        state.operations += 1;
        let descriptor = state.descriptor.as_raw_fd();
        let entry = opcode::Shutdown::new(types::Fd(descriptor), libc::SHUT_RDWR).build();
        self.push(entry.user_data(Kind::Shutdown.tag(index)));
    }

    fn operation_ended(&mut self, index: u32) {
        let state = self.sockets.get_mut(index).expect("an operation keeps its socket's slot");
        assert!(state.operations > 0, "an operation ended that was never counted");
        state.operations -= 1;
        if state.closing && state.operations == 0 {
            let socket = SocketId { index, generation: state.generation };
            self.events.push_back(Event::Closed { socket });
        }
    }

    fn rearm_starved(&mut self) {
        // The list is swapped out because arming may find the ring of buffers empty once more and
        // list the socket anew.
        for index in std::mem::take(&mut self.starved) {
            let Some(state) = self.sockets.get_mut(index) else { continue };
            if state.starved && !state.receiving && !state.paused && !state.closing {
                self.arm_receive(index);
            }
        }
    }

    fn arm_receive(&mut self, index: u32) {
        let state = self.sockets.get_mut(index).expect("the caller holds a live socket");
        assert!(!state.receiving, "two receives on one socket would interleave");
        state.receiving = true;
        state.starved = false;
        state.operations += 1;
        let descriptor = types::Fd(state.descriptor.as_raw_fd());
        let entry = opcode::RecvMulti::new(descriptor, BUFFER_GROUP).build();
        self.push(entry.user_data(Kind::Receive.tag(index)));
    }

    fn arm_accept(&mut self, listener: usize) {
        let descriptor = types::Fd(self.listeners[listener].as_raw_fd());
        let number = u32::try_from(listener).expect("a handful of listeners");
        let entry = opcode::AcceptMulti::new(descriptor).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry.user_data(Kind::Accept.tag(number)));
    }

    fn arm_eventfd(&mut self) {
        let descriptor = types::Fd(self.eventfd.as_raw_fd());
        let events = u32::try_from(libc::POLLIN).expect("a small positive constant");
        let entry = opcode::PollAdd::new(descriptor, events).multi(true).build();
        self.push(entry.user_data(Kind::Eventfd.tag(0)));
    }

    fn push_send(&mut self, index: u32) {
        let send = self.sends.get_mut(index).expect("the caller has just filled the slot");
        let rest = &send.buffer[send.sent..];
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let (address, socket) = (rest.as_ptr(), send.socket);
        let state = self.sockets.get_mut(socket).expect("a send keeps its socket's slot");
        let descriptor = types::Fd(state.descriptor.as_raw_fd());
        let entry = opcode::Send::new(descriptor, address, len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry.user_data(Kind::Send.tag(index)));
    }

    #[expect(clippy::needless_pass_by_value, reason = "entries are built where they are pushed")]
    fn push(&mut self, entry: squeue::Entry) {
        self.push_all(std::slice::from_ref(&entry));
    }

    /// Linked entries must reach the kernel in one submission: all find room, or none.
    fn push_all(&mut self, entries: &[squeue::Entry]) {
        loop {
            // SAFETY: every buffer an entry points to is owned by `sends`, `vectored`, `writes` or
            // `buffers` until its completion; descriptors stay open as long as operations are
            // counted.
            let pushed = unsafe { self.ring.submission().push_multiple(entries) };
            if pushed.is_ok() {
                return;
            }
            // Full: hand the queue to the kernel. EBUSY means that completions wait to be
            // collected; they do not overflow (the kernel keeps them), so submitting goes on.
            if let Err(error) = self.ring.submit() {
                let busy = matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EINTR));
                assert!(busy, "the io_uring refused a submission: {error}");
                self.collect();
            }
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // The kernel may still read or write what these own. Leaking at the end of a process is
        // harmless, freeing is not.
        std::mem::forget(std::mem::take(&mut self.sends));
        std::mem::forget(std::mem::take(&mut self.vectored));
        std::mem::forget(std::mem::take(&mut self.writes));
    }
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reactor")
            .field("sockets", &self.sockets.len())
            .field("sends", &(self.sends.len() + self.vectored.len()))
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}
