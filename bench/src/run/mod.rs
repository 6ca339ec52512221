//! The event loop: connections, streams and workloads of one thread, driven by epoll.
//!
//! A run opens its long-lived streams, loads the server until its time or its operations are over,
//! waits for the answers that are still out, and lets the watches catch up. The clock is read once
//! for all that one read from a socket brings, so that it does not cost more than the answers do.
//!
//! Invariants:
//! - `busy_count` is the number of slots with a unary call outstanding; a run ends only when it is
//!   0 and the long-lived streams are idle, or when every connection is gone.
//! - An operation's latency runs from the moment it was due until its status came.

use std::collections::VecDeque;
use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};

use crate::client::{Connection, Event, HeaderStyle, code};
use crate::failure::Failure;
use crate::report::{Report, Tally, duration_text};
use crate::schedule::Schedule;
use crate::workload::{Context, Ledger, Op, Workload};

/// No answer for so long means that there will be none.
const STALL_NS_MAX: u64 = 60_000_000_000;
/// How long the watches may take to show the last write.
const SETTLE_NS_MAX: u64 = 10_000_000_000;
/// How often the progress line changes.
const PROGRESS_INTERVAL_NS: u64 = 200_000_000;
/// Ready sockets taken at a time.
const EVENTS_MAX: usize = 256;

/// Streams that share a workload.
pub struct Group {
    /// What the report calls it.
    pub name: String,
    /// How many connections.
    pub connections: usize,
    /// How many streams on each connection.
    pub streams: usize,
    /// Operations a second, or as fast as they are answered.
    pub rate: Option<f64>,
    /// What the streams do.
    pub workload: Box<dyn Workload>,
}

/// What all groups of a run share.
#[derive(Clone)]
pub struct RunConfig {
    /// The server, or the members of a cluster: each group's connections take them in turn.
    pub addresses: Vec<SocketAddr>,
    /// How requests name their headers.
    pub header_style: HeaderStyle,
    /// For how long new operations are sent; without it, until the workloads have no more.
    pub duration: Option<Duration>,
    /// How many keys the ledger remembers.
    pub keys: u64,
    /// What the generations in the values count from; runs whose values may meet share it.
    pub epoch: Instant,
    /// What the progress line begins with, if it is wanted.
    pub progress: Option<String>,
}

/// Runs the groups of each thread and gives one report.
pub fn run(config: &RunConfig, threads: Vec<Vec<Group>>) -> Result<Report, Failure> {
    let mut drivers = Vec::new();
    for (number, groups) in threads.into_iter().enumerate() {
        let mut config = config.clone();
        config.progress = config.progress.filter(|_| number == 0);
        // Threads of few connections must not all begin with the same member.
        let members = config.addresses.len();
        config.addresses.rotate_left(number % members);
        drivers.push(Driver::new(config, groups)?);
    }
    let reports: Vec<Result<Report, Failure>> = if drivers.len() == 1 {
        drivers.into_iter().map(Driver::drive).collect()
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                drivers.into_iter().map(|driver| scope.spawn(|| driver.drive())).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect()
        })
    };
    let mut reports = reports.into_iter();
    let mut merged = reports.next().expect("a run has at least one thread")?;
    for report in reports {
        merged.merge(&report?);
    }
    Ok(merged)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Long-lived streams are being opened.
    Opening,
    /// New operations are sent.
    Loading,
    /// The last answers are awaited.
    Draining,
    /// The watches catch up.
    Settling,
    Finished,
}

struct Link {
    socket: TcpStream,
    connection: Connection,
    alive: bool,
    dirty: bool,
    writable_wanted: bool,
}

struct Slot {
    link: usize,
    group: usize,
    op: Op,
    due_ns: u64,
    /// The stream of a long-lived slot.
    stream_id: u32,
}

struct GroupState {
    workload: Box<dyn Workload>,
    long_lived: bool,
    tally: Tally,
    schedule: Schedule,
    rate: Option<f64>,
    /// Slots that wait for their time, in an open loop.
    free: VecDeque<u32>,
    exhausted: bool,
}

struct Driver {
    config: RunConfig,
    epoll: OwnedFd,
    links: Vec<Link>,
    dirty: Vec<usize>,
    slots: Vec<Slot>,
    groups: Vec<GroupState>,
    ledger: Ledger,
    phase: Phase,
    now_ns: u64,
    start_ns: u64,
    end_ns: u64,
    heard_ns: u64,
    progress_ns: u64,
    cpu_start: Duration,
    cpu_end: Duration,
    busy_count: usize,
    scratch: Vec<u8>,
}

impl Driver {
    fn new(config: RunConfig, groups: Vec<Group>) -> Result<Self, Failure> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Failure::of("create an epoll"))?;
        let ledger = Ledger::new(config.keys);
        let mut driver = Self {
            config,
            epoll,
            links: Vec::new(),
            dirty: Vec::new(),
            slots: Vec::new(),
            groups: Vec::new(),
            ledger,
            phase: Phase::Opening,
            now_ns: 0,
            start_ns: 0,
            end_ns: 0,
            heard_ns: 0,
            progress_ns: 0,
            cpu_start: Duration::ZERO,
            cpu_end: Duration::ZERO,
            busy_count: 0,
            scratch: Vec::new(),
        };
        for group in groups {
            driver.add_group(group)?;
        }
        Ok(driver)
    }

    fn add_group(&mut self, group: Group) -> Result<(), Failure> {
        let group_index = self.groups.len();
        let mut number = 0;
        for connection in 0..group.connections {
            let link = self.links.len();
            let address = self.config.addresses[connection % self.config.addresses.len()];
            self.links.push(self.connect(address, link, group.streams)?);
            for _ in 0..group.streams {
                let op = Op { number, ..Op::default() };
                self.slots.push(Slot { link, group: group_index, op, due_ns: 0, stream_id: 0 });
                number += 1;
            }
        }
        self.groups.push(GroupState {
            long_lived: group.workload.is_long_lived(),
            workload: group.workload,
            tally: Tally::new(&group.name),
            schedule: Schedule::new(group.rate, 0),
            rate: group.rate,
            free: VecDeque::new(),
            exhausted: false,
        });
        Ok(())
    }

    fn connect(&self, address: SocketAddr, link: usize, streams: usize) -> Result<Link, Failure> {
        let failed = || Failure::of(format!("connect to {address}"));
        let socket = TcpStream::connect(address).map_err(failed())?;
        socket.set_nodelay(true).map_err(failed())?;
        socket.set_nonblocking(true).map_err(failed())?;
        let data = epoll::EventData::new_u64(link as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)
            .map_err(Failure::of("add a socket to the epoll"))?;
        let style = self.config.header_style;
        let connection = Connection::new(&address.to_string(), style, streams);
        Ok(Link { socket, connection, alive: true, dirty: false, writable_wanted: false })
    }

    fn drive(mut self) -> Result<Report, Failure> {
        self.tick();
        self.heard_ns = self.now_ns;
        for link in 0..self.links.len() {
            self.mark_dirty(link);
        }
        self.begin_long_lived();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while self.phase != Phase::Finished {
            self.tick();
            self.advance_phase();
            if self.phase == Phase::Loading {
                self.issue_due();
            }
            self.flush_dirty();
            self.show_progress();
            if self.phase != Phase::Finished {
                self.wait(&mut events)?;
            }
        }
        self.clear_progress();
        Ok(Report {
            tallies: self.groups.into_iter().map(|group| group.tally).collect(),
            elapsed: Duration::from_nanos(self.end_ns.saturating_sub(self.start_ns)),
            client_cpu: self.cpu_end.saturating_sub(self.cpu_start),
            wrong_count: self.ledger.wrong_count,
            complaints: self.ledger.complaints,
        })
    }

    fn tick(&mut self) {
        let elapsed = self.config.epoch.elapsed().as_nanos();
        self.now_ns = u64::try_from(elapsed).expect("a run is shorter than a century");
    }

    fn advance_phase(&mut self) {
        if self.phase == Phase::Opening && self.groups.iter().all(|group| group.workload.is_ready())
        {
            self.begin_loading();
        }
        if self.phase == Phase::Loading && (self.is_time_over() || self.is_work_over()) {
            self.phase = Phase::Draining;
        }
        if self.phase == Phase::Draining && self.is_quiet() {
            self.cpu_end = thread_cpu();
            self.phase = Phase::Settling;
            self.heard_ns = self.now_ns;
        }
        if self.phase == Phase::Settling {
            let mut missing =
                self.groups.iter().filter_map(|group| group.workload.missing(&self.ledger));
            match missing.next() {
                None => self.phase = Phase::Finished,
                Some(text) if self.now_ns > self.heard_ns + SETTLE_NS_MAX => {
                    drop(missing);
                    self.ledger.handle_wrong(text);
                    self.phase = Phase::Finished;
                }
                Some(_) => {}
            }
        }
        let stalled = self.now_ns > self.heard_ns + STALL_NS_MAX;
        let connected = self.links.iter().any(|link| link.alive);
        if self.phase != Phase::Finished && (stalled || !connected) {
            let left = self.busy_count;
            let why = if connected { "no answer for a minute" } else { "no connection is left" };
            self.ledger.complain(format!("{why}; {left} operations are unanswered"));
            for group in &mut self.groups {
                group.tally.errors_count += 1;
            }
            if self.cpu_end.is_zero() {
                self.cpu_end = thread_cpu();
            }
            self.phase = Phase::Finished;
        }
    }

    fn begin_loading(&mut self) {
        self.phase = Phase::Loading;
        self.start_ns = self.now_ns;
        self.end_ns = self.now_ns;
        self.cpu_start = thread_cpu();
        for group in &mut self.groups {
            group.schedule = Schedule::new(group.rate, self.now_ns);
        }
        for index in 0..self.slots.len() {
            let slot = slot_number(index);
            let group = &mut self.groups[self.slots[index].group];
            if group.schedule.is_open() {
                group.free.push_back(slot);
            } else if group.long_lived {
                self.issue_streamed(slot);
            } else {
                self.issue(slot, self.now_ns);
            }
        }
    }

    fn is_time_over(&self) -> bool {
        let limit = self.config.duration;
        limit.is_some_and(|limit| self.now_ns - self.start_ns >= duration_ns(limit))
    }

    /// Whether nothing is outstanding and nothing will be sent; a closed loop that is not finished
    /// always has something outstanding.
    fn is_work_over(&self) -> bool {
        let open = |group: &GroupState| group.schedule.is_open() && !group.exhausted;
        self.is_quiet() && !self.groups.iter().any(open)
    }

    /// Whether nothing is outstanding.
    fn is_quiet(&self) -> bool {
        self.busy_count == 0 && self.groups.iter().all(|group| group.workload.is_idle())
    }

    fn begin_long_lived(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let group = &mut self.groups[slot.group];
            if !group.long_lived {
                continue;
            }
            self.scratch.clear();
            let (ledger, tally) = (&mut self.ledger, &mut group.tally);
            let context = &mut Context { ledger, tally, now_ns: self.now_ns };
            let path = group.workload.begin(&mut slot.op, context, &mut self.scratch);
            let path = path.expect("a long-lived workload begins in every slot");
            let connection = &mut self.links[slot.link].connection;
            match connection.open(slot_number(index), path, &self.scratch, false) {
                Err(failure) => self.ledger.handle_wrong(failure.to_string()),
                Ok(id) => {
                    slot.stream_id = id;
                    loop {
                        self.scratch.clear();
                        if !group.workload.poll_message(&mut slot.op, &mut self.scratch) {
                            break;
                        }
                        connection.send_message(id, &self.scratch, false);
                    }
                }
            }
        }
    }

    /// Sends everything whose time has come in the open loops.
    fn issue_due(&mut self) {
        for index in 0..self.groups.len() {
            loop {
                let group = &mut self.groups[index];
                let due_ns = group.schedule.due_ns(self.now_ns);
                let ready = group.schedule.is_open() && !group.exhausted && due_ns <= self.now_ns;
                let Some(slot) = (if ready { group.free.pop_front() } else { None }) else {
                    break;
                };
                group.schedule.handle_issued();
                self.issue(slot, due_ns);
            }
        }
    }

    /// Begins the next operation in a slot, if there is one.
    fn issue(&mut self, number: u32, due_ns: u64) {
        let slot = &mut self.slots[slot_index(number)];
        let group = &mut self.groups[slot.group];
        self.scratch.clear();
        let (ledger, tally) = (&mut self.ledger, &mut group.tally);
        let context = &mut Context { ledger, tally, now_ns: self.now_ns };
        match group.workload.begin(&mut slot.op, context, &mut self.scratch) {
            None => group.exhausted = true,
            Some(path) => {
                slot.due_ns = due_ns;
                self.busy_count += 1;
                self.send(number, path);
            }
        }
    }

    /// Sends what a long-lived stream has to ask next.
    fn issue_streamed(&mut self, number: u32) {
        let slot = &mut self.slots[slot_index(number)];
        let group = &mut self.groups[slot.group];
        let link = slot.link;
        if !self.links[link].alive || slot.stream_id == 0 {
            return;
        }
        let mut sent = false;
        loop {
            self.scratch.clear();
            let (ledger, tally) = (&mut self.ledger, &mut group.tally);
            let context = &mut Context { ledger, tally, now_ns: self.now_ns };
            if !group.workload.poll_operation(&mut slot.op, context, &mut self.scratch) {
                break;
            }
            let connection = &mut self.links[link].connection;
            connection.send_message(slot.stream_id, &self.scratch, false);
            sent = true;
        }
        if sent {
            self.mark_dirty(link);
        }
    }

    fn send(&mut self, number: u32, path: &'static str) {
        let link = self.slots[slot_index(number)].link;
        let connection = &mut self.links[link].connection;
        match connection.open(number, path, &self.scratch, true) {
            Ok(_) => self.mark_dirty(link),
            Err(failure) => {
                // The connection takes no more streams: the slot is given up, because the next
                // request in it would fail in the same way.
                self.note_failed(number, &failure.to_string());
                self.busy_count -= 1;
            }
        }
    }

    fn mark_dirty(&mut self, link: usize) {
        if !std::mem::replace(&mut self.links[link].dirty, true) {
            self.dirty.push(link);
        }
    }

    fn flush_dirty(&mut self) {
        while let Some(link) = self.dirty.pop() {
            self.links[link].dirty = false;
            self.flush(link);
        }
    }

    fn flush(&mut self, index: usize) {
        let link = &mut self.links[index];
        let mut blocked = false;
        while link.alive && !blocked && !link.connection.output().is_empty() {
            match link.socket.write(link.connection.output()) {
                Ok(count) => link.connection.handle_sent(count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => blocked = true,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = format!("write: {error}");
                    return self.close(index, &reason);
                }
            }
        }
        if link.alive && blocked != link.writable_wanted {
            link.writable_wanted = blocked;
            let out = if blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &link.socket, data, epoll::EventFlags::IN | out)
                .expect("the socket was added when it was connected");
        }
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> Result<(), Failure> {
        let timeout_ns = self.wait_ns_max();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout_ns / 1_000_000_000).expect("a short time"),
            tv_nsec: i64::try_from(timeout_ns % 1_000_000_000).expect("below a second"),
        };
        events.clear();
        let buffer = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::of("wait for the sockets")(error)),
        }
        if !events.is_empty() {
            self.tick();
            self.heard_ns = self.now_ns;
        }
        for event in events {
            let link = event.data.u64();
            let link = usize::try_from(link).expect("it was given out as an index");
            if self.links[link].alive {
                self.receive(link);
                self.flush(link);
            }
        }
        Ok(())
    }

    /// The time until something other than a socket needs attention.
    fn wait_ns_max(&self) -> u64 {
        let mut until_ns = self.now_ns + PROGRESS_INTERVAL_NS;
        if self.phase == Phase::Loading {
            if let Some(limit) = self.config.duration {
                until_ns = until_ns.min(self.start_ns + duration_ns(limit));
            }
            for group in &self.groups {
                if group.schedule.is_open() && !group.exhausted && !group.free.is_empty() {
                    until_ns = until_ns.min(group.schedule.due_ns(self.now_ns));
                }
            }
        }
        until_ns.saturating_sub(self.now_ns)
    }

    fn receive(&mut self, index: usize) {
        loop {
            let link = &mut self.links[index];
            let space = link.connection.receive_space();
            let space_len = space.len();
            match link.socket.read(space) {
                Ok(0) => return self.close(index, "the server closed the connection"),
                Ok(count) => {
                    link.connection.handle_received(count);
                    self.tick();
                    self.handle_events(index);
                    if count < space_len || !self.links[index].alive {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = format!("read: {error}");
                    return self.close(index, &reason);
                }
            }
        }
    }

    fn handle_events(&mut self, index: usize) {
        loop {
            match self.links[index].connection.poll_event() {
                Ok(None) => return,
                Ok(Some(Event::Message { slot: number, payload })) => {
                    let slot = &mut self.slots[slot_index(number)];
                    let group = &mut self.groups[slot.group];
                    let (ledger, tally) = (&mut self.ledger, &mut group.tally);
                    let context = &mut Context { ledger, tally, now_ns: self.now_ns };
                    group.workload.handle_message(&mut slot.op, context, payload);
                    if group.long_lived {
                        self.handle_streamed(number);
                    }
                }
                Ok(Some(Event::Ended { slot, code: code::OK, .. })) => self.handle_ended(slot),
                Ok(Some(Event::Ended { slot, code, message })) => {
                    let text = format!("status {code}: {message}");
                    self.handle_failed(slot, &text);
                }
                Err(failure) => {
                    let reason = failure.to_string();
                    self.close(index, &reason);
                    return;
                }
            }
        }
    }

    /// A message has come on a long-lived stream, and may be followed by a request.
    fn handle_streamed(&mut self, number: u32) {
        let running = matches!(self.phase, Phase::Loading | Phase::Draining);
        if running && self.busy_count == 0 {
            // Where calls are made as well, it is their answers that end a run.
            self.end_ns = self.now_ns;
        }
        if self.phase == Phase::Loading && !self.is_time_over() {
            self.issue_streamed(number);
        }
    }

    fn handle_ended(&mut self, number: u32) {
        let slot = &mut self.slots[slot_index(number)];
        let group = &mut self.groups[slot.group];
        if group.long_lived {
            return self.handle_failed(number, "the server ended a long-lived stream");
        }
        if !slot.op.answered {
            self.ledger.handle_wrong("a call succeeded without a message");
        }
        self.scratch.clear();
        let (ledger, tally) = (&mut self.ledger, &mut group.tally);
        let context = &mut Context { ledger, tally, now_ns: self.now_ns };
        if let Some(path) = group.workload.handle_end(&mut slot.op, context, &mut self.scratch) {
            return self.send(number, path);
        }
        group.tally.record(self.now_ns.saturating_sub(slot.due_ns));
        self.end_ns = self.now_ns;
        self.free(number);
    }

    fn handle_failed(&mut self, number: u32, text: &str) {
        self.note_failed(number, text);
        let group = &self.groups[self.slots[slot_index(number)].group];
        if group.long_lived {
            // Its events can no longer be complete, whatever comes next.
            self.ledger.wrong_count += 1;
            let slot = &mut self.slots[slot_index(number)];
            slot.stream_id = 0;
            self.groups[slot.group].workload.handle_broken(&slot.op);
        } else {
            self.end_ns = self.now_ns;
            self.free(number);
        }
    }

    fn note_failed(&mut self, number: u32, text: &str) {
        let group = &mut self.groups[self.slots[slot_index(number)].group];
        group.tally.errors_count += 1;
        let name = &group.tally.name;
        self.ledger.complain(format!("{name}: {text}"));
    }

    /// A slot's operation is over: the next one begins, or the slot waits for its time.
    fn free(&mut self, number: u32) {
        self.busy_count -= 1;
        let slot = &self.slots[slot_index(number)];
        let group = &mut self.groups[slot.group];
        if !self.links[slot.link].alive {
            return;
        }
        if group.schedule.is_open() {
            group.free.push_back(number);
        } else if self.phase == Phase::Loading && !self.is_time_over() {
            self.issue(number, self.now_ns);
        }
    }

    fn close(&mut self, index: usize, reason: &str) {
        let link = &mut self.links[index];
        if !std::mem::replace(&mut link.alive, false) {
            return;
        }
        let _ = link.socket.shutdown(std::net::Shutdown::Both);
        epoll::delete(&self.epoll, &link.socket).expect("the socket was added once");
        link.connection.handle_closed(reason);
        let slots = &self.slots;
        for group in &mut self.groups {
            group.free.retain(|&slot| slots[slot_index(slot)].link != index);
        }
        self.handle_events(index);
    }

    fn show_progress(&mut self) {
        let Some(label) = &self.config.progress else { return };
        if self.now_ns < self.progress_ns + PROGRESS_INTERVAL_NS || !std::io::stderr().is_terminal()
        {
            return;
        }
        self.progress_ns = self.now_ns;
        let seconds = self.now_ns.saturating_sub(self.start_ns) as f64 / 1e9;
        let mut line = format!("\r{label} {seconds:6.1} s");
        for group in &self.groups {
            let Tally { name, operations_count, .. } = &group.tally;
            let rate = *operations_count as f64 / seconds.max(1e-9);
            let p99 = duration_text(group.tally.quantile_ns(0.99));
            line.push_str(&format!("  {name} {operations_count} ({rate:.0}/s, p99 {p99})"));
        }
        // A terminal that cannot be written to is no reason to stop measuring.
        let _ = write!(std::io::stderr(), "{line}\x1b[K");
    }

    fn clear_progress(&self) {
        if self.config.progress.is_some() && std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn slot_number(index: usize) -> u32 {
    u32::try_from(index).expect("the command line bounds the streams")
}

fn slot_index(number: u32) -> usize {
    usize::try_from(number).expect("it was made from an index")
}

fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("CPU time is not negative");
    let nanos = u32::try_from(time.tv_nsec).expect("below a second");
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests;
