//! The peer role of the log core: connections to other members, and theirs.
//!
//! It carries letters between [`LogCore`](super::log_core::LogCore) and the [`Link`]s and
//! [`Receiver`](crate::peer::receive::Receiver)s of the peer protocol, and follows what the log
//! core says about the members: who is added is dialed, who is removed is not any more. The sockets
//! are those of the core's own reactor, whose events the core routes here by [`PeerRole::owns`].
//!
//! A letter that comes is handed over at once. When the log core has no room for more of them the
//! connections that carry entries are not read: what their senders have to say stays with them, in
//! queues that are bounded. Senders do not wait for ever for somebody who takes nothing, and cannot
//! know why; so when there is no room for long ([`held_back`]), what comes is read again and
//! entries are thrown away. raft finds out what a follower misses.
//!
//! Invariants:
//! - The log core is told of each change of a link once, and of every letter that was dropped.
//! - Connections are bounded: those that have not shown who they are in number and in time, those
//!   of members to one a lane, and all together.
//! - A member that this one does not know yet is a guest: it is answered at the addresses that it
//!   tells, as long as it is connected.

mod accepted;
mod correspondent;
mod held_back;
mod outgoing;
mod pages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use engine::ids::MemberId;
use engine::{Identity, KeyValueHashScan, Member, ReadHandle};

use self::accepted::{Accepted, Next, Speaker};
pub use self::correspondent::Correspondent;
use self::held_back::{HeldBack, Reading};
use self::outgoing::Outgoing;
use self::pages::Pages;
use super::failure::Failure;
use super::log_core::ANSWER_TIME_MAX;
use crate::bootstrap::SERVER_NAME;
use crate::log_event;
use crate::log_lines;
use crate::metrics::LogMetrics;
use crate::peer::hello::{Lane, Refusal};
use crate::peer::letter::{Letter, SnapshotAcknowledged};
use crate::peer::link::{ConnectionId, LinkConfig};
use crate::peer::receive::{Greeted, Members, Oneself, ReceiveError, Received as Heard, Standing};
use crate::runtime::dialer::Dialer;
use crate::runtime::files;
use crate::runtime::reactor::{Event, Reactor, SocketId};
use crate::runtime::sockets::Listener;
use crate::runtime::wake::Waker;

/// Connections that were accepted, all together. Members have three each.
const ACCEPTED_MAX: usize = 1024;
/// Those among them that have not greeted. When there are more the oldest goes: who greets at once,
/// as members do, passes even while strangers fill the places.
const UNGREETED_MAX: usize = 64;
/// How long a connection may go without greeting or asking.
const UNGREETED_TIME_MAX: Duration = Duration::from_secs(10);
/// How long somebody who asks for a hash may wait for it: as long as the log core works on it, and
/// a while for the answer to leave.
const HASH_TIME_MAX: Duration = ANSWER_TIME_MAX.saturating_add(UNGREETED_TIME_MAX);
/// Members that are answered although they are not known to be members.
const GUESTS_MAX: usize = 16;
/// etcd's time for connecting to a member, besides an election.
const DIAL_TIMEOUT_BASE: Duration = Duration::from_secs(1);
/// etcd's time for a write to a member.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// What is waited before a member is dialed again: soon after the first failure, because it may be
/// a restart, and later no longer than an election takes to notice.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Who this member is and how patient it is.
#[derive(Debug, Clone)]
pub struct PeerSettings {
    /// Its ids.
    pub identity: Identity,
    /// Of this start.
    pub boot_nonce: u64,
    /// Whether it is the member's first.
    pub is_new: bool,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// Where it is reached, while the store does not say.
    pub own_urls: Vec<String>,
    /// Where its connections to other members leave from, if that is not for the system to choose.
    pub local_address: Option<IpAddr>,
    /// What it tells over HTTP while the store names no members: itself, if it founded its cluster
    /// alone.
    pub alone: Option<Member>,
}

/// What a connection is.
enum Tenant {
    /// One that was dialed.
    Dialed(MemberId, ConnectionId),
    /// One that was accepted.
    Accepted(Box<Accepted>),
    /// It is being closed, and nobody listens any more.
    Leaving,
}

struct Seat {
    socket: SocketId,
    tenant: Tenant,
}

/// Who belongs to the cluster, as far as this member has applied.
#[derive(Debug, Default)]
struct Known {
    members: Vec<Member>,
    removed: BTreeSet<MemberId>,
}

impl Members for Known {
    fn standing(&self, member: MemberId) -> Standing {
        if self.removed.contains(&member) {
            Standing::Removed
        } else if self.members.iter().any(|known| known.id == member) {
            Standing::Member
        } else {
            Standing::Unknown
        }
    }
}

/// The role.
pub struct PeerRole {
    settings: PeerSettings,
    oneself: Oneself,
    pages: Pages,
    listeners: Vec<Listener>,
    /// The reactor's numbers of them.
    listening: Range<usize>,
    outgoing: Outgoing,
    metrics: Arc<LogMetrics>,
    /// By the sockets' places in the reactor.
    seats: Vec<Option<Seat>>,
    accepted_count: usize,
    /// Accepted, and has not greeted; and until when it may stay so.
    ungreeted: Vec<(SocketId, Duration)>,
    greeted: BTreeMap<(MemberId, Lane), SocketId>,
    known: Known,
    /// The number of the members that were followed last.
    followed: Option<u64>,
    /// Accepted connections that are to end.
    dismissed: Vec<SocketId>,
    /// Whether connections that carry entries are read.
    held_back: HeldBack,
    /// Who waits for a hash, by the number that the log core was given.
    hashes: BTreeMap<u64, SocketId>,
    hashes_counted: u64,
    /// What the log core is to be asked.
    hashes_wanted: Vec<(u64, KeyValueHashScan)>,
    /// Whose askers have gone.
    hashes_unwanted: Vec<u64>,
}

impl PeerRole {
    /// Nothing is dialed or accepted yet. `waker` wakes the core that this role is on.
    #[must_use]
    pub fn new(
        settings: PeerSettings,
        listeners: Vec<Listener>,
        views: ReadHandle,
        waker: Waker,
        metrics: Arc<LogMetrics>,
    ) -> Self {
        let server_version = env!("CARGO_PKG_VERSION").to_owned();
        let Identity { cluster, member } = settings.identity;
        let server = format!("{SERVER_NAME}{server_version}");
        let boot_nonce = settings.boot_nonce;
        let dialer = Dialer::new(waker, settings.local_address);
        Self {
            oneself: Oneself { cluster, member, boot_nonce, server_version },
            pages: Pages::new(cluster, server, views, settings.alone.clone()),
            settings,
            listeners,
            listening: 0..0,
            outgoing: Outgoing::new(dialer, Arc::clone(&metrics)),
            metrics,
            seats: Vec::new(),
            accepted_count: 0,
            ungreeted: Vec::new(),
            greeted: BTreeMap::new(),
            known: Known::default(),
            followed: None,
            dismissed: Vec::new(),
            held_back: HeldBack::default(),
            hashes: BTreeMap::new(),
            hashes_counted: 0,
            hashes_wanted: Vec::new(),
            hashes_unwanted: Vec::new(),
        }
    }

    /// Starts to accept. Before any other listener of the reactor.
    pub fn begin(&mut self, reactor: &mut Reactor) {
        let mut numbers = 0..0;
        for (place, listener) in self.listeners.drain(..).enumerate() {
            log_lines::serving_peer_traffic(listener.address());
            let number = reactor.listen(listener);
            if place == 0 {
                numbers = number..number;
            }
            assert_eq!(number, numbers.end, "nobody else begins to listen meanwhile");
            numbers.end = number + 1;
        }
        self.listening = numbers;
    }

    /// Whether an event of the reactor is for this role.
    #[must_use]
    pub fn owns(&self, event: &Event) -> bool {
        match event {
            Event::Accepted { listener, .. } => self.listening.contains(listener),
            Event::Received { socket, .. }
            | Event::Sent { socket, .. }
            | Event::SentVectored { socket, .. }
            | Event::HalfClosed { socket }
            | Event::Closed { socket } => self.has_seat(*socket),
            Event::Written { .. } | Event::Woken => false,
        }
    }

    /// How many listeners come before those of clients.
    #[must_use]
    pub fn listener_count(&self) -> usize {
        self.listening.len()
    }

    /// Takes an event that [`Self::owns`] claims.
    ///
    /// # Errors
    /// The log core's.
    pub fn handle_event<C: Correspondent>(
        &mut self,
        event: Event,
        core: &mut C,
        reactor: &mut Reactor,
        now: Duration,
    ) -> Result<(), Failure> {
        match event {
            Event::Accepted { descriptor, .. } => {
                if self.accepted_count < ACCEPTED_MAX {
                    let socket = reactor.adopt(descriptor);
                    self.accept(socket, now);
                }
            }
            Event::Received { socket, received } => {
                let heard = self.handle_received(socket, reactor.received(&received), core, now);
                reactor.recycle(received);
                heard?;
                self.advance(socket, reactor);
            }
            Event::SentVectored { socket, count } => {
                self.handle_sent(socket, count, now);
                self.advance(socket, reactor);
            }
            Event::HalfClosed { socket } => {
                self.handle_half_closed(socket, reactor, now);
                self.advance(socket, reactor);
            }
            Event::Closed { socket } => self.handle_closed(socket, now),
            Event::Sent { .. } | Event::Written { .. } | Event::Woken => {}
        }
        self.dismiss(reactor);
        Ok(())
    }

    /// Carries letters: from the log core to the links, and from these into the ring. Whether
    /// anything waits there to be submitted.
    ///
    /// # Errors
    /// The log core's.
    pub fn settle<C: Correspondent>(
        &mut self,
        core: &mut C,
        reactor: &mut Reactor,
        now: Duration,
    ) -> Result<bool, Failure> {
        self.follow(core, reactor, now)?;
        self.finish_dials(reactor, now);
        self.outgoing.probe(now);
        while let Some((to, letter)) = core.poll_letter() {
            if let Letter::SnapshotAcknowledged(acknowledged) = letter {
                self.acknowledge(to, acknowledged, reactor);
            } else if !self.outgoing.push(to, &letter) {
                core.handle_unreachable(to);
            }
        }
        self.pass_hashes(core, reactor, now);
        let has_sent = self.advance_links(core, reactor, now)?;
        self.expire(reactor, now);
        self.hold_back(core, reactor, now);
        Ok(has_sent)
    }

    /// When there is something to do although nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let ungreeted = self.ungreeted.iter().map(|(_, until)| *until).min();
        let other = [self.outgoing.deadline(), self.held_back.deadline()];
        ungreeted.into_iter().chain(other.into_iter().flatten()).min()
    }

    /// Whether another member has said that this one was removed from the cluster for ever.
    #[must_use]
    pub fn is_told_removed(&self) -> bool {
        self.outgoing.is_told_removed()
    }

    fn has_seat(&self, socket: SocketId) -> bool {
        let seat = self.seats.get(socket.index()).and_then(Option::as_ref);
        seat.is_some_and(|seat| seat.socket == socket)
    }

    fn tenant(&mut self, socket: SocketId) -> Option<&mut Tenant> {
        let seat = self.seats.get_mut(socket.index())?.as_mut()?;
        (seat.socket == socket).then_some(&mut seat.tenant)
    }

    fn sit(&mut self, socket: SocketId, tenant: Tenant) {
        let place = socket.index();
        if self.seats.len() <= place {
            self.seats.resize_with(place + 1, || None);
        }
        assert!(self.seats[place].is_none(), "two tenants in place {place}");
        self.seats[place] = Some(Seat { socket, tenant });
    }

    fn accept(&mut self, socket: SocketId, now: Duration) {
        self.accepted_count += 1;
        self.sit(socket, Tenant::Accepted(Box::new(Accepted::new())));
        if self.ungreeted.len() >= UNGREETED_MAX {
            let oldest = (0..self.ungreeted.len()).min_by_key(|place| self.ungreeted[*place].1);
            let oldest = oldest.expect("there are as many as there may be");
            self.dismissed.push(self.ungreeted.swap_remove(oldest).0);
        }
        self.ungreeted.push((socket, now + UNGREETED_TIME_MAX));
    }

    fn handle_received<C: Correspondent>(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        core: &mut C,
        now: Duration,
    ) -> Result<(), Failure> {
        match self.tenant(socket) {
            Some(Tenant::Dialed(member, connection)) => {
                let (member, connection) = (*member, *connection);
                if let Some(link) = self.outgoing.link(member) {
                    link.handle_received(connection, bytes, now);
                }
                Ok(())
            }
            Some(Tenant::Accepted(_)) => self.listen_to(socket, bytes, core, now),
            Some(Tenant::Leaving) | None => Ok(()),
        }
    }

    fn listen_to<C: Correspondent>(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        core: &mut C,
        now: Duration,
    ) -> Result<(), Failure> {
        let Self { seats, oneself, known, outgoing, held_back, .. } = self;
        let Some(Seat { tenant: Tenant::Accepted(accepted), .. }) =
            seats.get_mut(socket.index()).and_then(Option::as_mut)
        else {
            return Ok(());
        };
        if accepted.is_ending() {
            return Ok(());
        }
        accepted.recognize(bytes, oneself, Duration::from_millis(files::unix_ms()));
        if let Some(metrics) = &accepted.metrics {
            metrics.received_bytes.add(bytes.len() as u64);
        }
        let mut greeted = None;
        let mut refused = None;
        match &mut accepted.speaker {
            Speaker::Unknown => {}
            Speaker::Http(http) => http.handle_received(bytes, now),
            Speaker::Member(receiver) => {
                let mut input = bytes;
                loop {
                    match receiver.handle_received(&mut input, known) {
                        Ok(Some(Heard::Letter(letter))) if held_back.refuses(&letter) => {}
                        Ok(Some(Heard::Letter(letter))) => {
                            let (from, _) = receiver.greeted().expect("greetings come first");
                            match letter {
                                Letter::Probe(clock) => {
                                    outgoing.push(from, &Letter::ProbeAnswer(clock));
                                }
                                Letter::ProbeAnswer(clock) => {
                                    outgoing.handle_probe_answer(from, clock, now);
                                }
                                letter => core.handle_letter(from, letter)?,
                            }
                        }
                        Ok(Some(Heard::Greeted(who))) => greeted = Some(who),
                        Ok(None) => break,
                        Err(error) => {
                            refused = Some((error, receiver.greeted()));
                            break;
                        }
                    }
                }
            }
        }
        if let Some((error, greeted)) = refused {
            accepted.end();
            if let Some(metrics) = &accepted.metrics {
                metrics.receive_failures.add(1);
            }
            report_refused(self.settings.identity, &error, greeted);
        }
        if let Some(greeted) = greeted {
            self.welcome(socket, greeted);
        }
        self.answer(socket, now);
        Ok(())
    }

    /// Answers what was asked over HTTP. Who asks has more time to ask again.
    fn answer(&mut self, socket: SocketId, now: Duration) {
        let Self { seats, pages, .. } = self;
        let seat = seats.get_mut(socket.index()).and_then(Option::as_mut);
        let Some(Seat { tenant: Tenant::Accepted(accepted), .. }) = seat else { return };
        let has_asked = accepted.answer(pages, now);
        let hash_wanted = accepted.take_hash_wanted();
        if has_asked {
            self.give_time(socket, now + UNGREETED_TIME_MAX);
        }
        if let Some(scan) = hash_wanted {
            self.hashes_counted += 1;
            self.hashes.insert(self.hashes_counted, socket);
            self.hashes_wanted.push((self.hashes_counted, scan));
            self.give_time(socket, now + HASH_TIME_MAX);
        }
    }

    /// A connection that has not greeted may stay until then.
    fn give_time(&mut self, socket: SocketId, until: Duration) {
        if let Some(place) = self.ungreeted.iter().position(|(other, _)| *other == socket) {
            self.ungreeted[place].1 = until;
        }
    }

    /// Carries questions for hashes to the log core, and its answers back.
    fn pass_hashes<C: Correspondent>(
        &mut self,
        core: &mut C,
        reactor: &mut Reactor,
        now: Duration,
    ) {
        for (number, scan) in self.hashes_wanted.drain(..) {
            core.handle_hash_request(number, scan);
        }
        for number in self.hashes_unwanted.drain(..) {
            core.handle_hash_unwanted(number);
        }
        while let Some((number, told)) = core.poll_hash() {
            let Some(socket) = self.hashes.remove(&number) else { continue };
            let Self { seats, pages, .. } = self;
            let seat = seats.get_mut(socket.index()).and_then(Option::as_mut);
            if let Some(Seat { tenant: Tenant::Accepted(accepted), socket: known }) = seat
                && *known == socket
            {
                accepted.tell_hash(pages, told);
                self.give_time(socket, now + UNGREETED_TIME_MAX);
                self.answer(socket, now);
                self.advance(socket, reactor);
            }
        }
        self.dismiss(reactor);
    }

    /// A member has shown who it is. Its earlier connection for the same is what is left of one
    /// that it has given up.
    fn welcome(&mut self, socket: SocketId, greeted: Greeted) {
        let Greeted { from, lane, guest_urls, .. } = greeted;
        self.ungreeted.retain(|(other, _)| *other != socket);
        self.count_for(socket, from);
        if let Some(earlier) = self.greeted.insert((from, lane), socket) {
            self.dismissed.push(earlier);
        }
        if let Some(link) = self.outgoing.link(from) {
            link.handle_present();
        }
        if !guest_urls.is_empty() && self.outgoing.guest_count() < GUESTS_MAX {
            let config = self.link_config(from);
            self.outgoing.invite(from, guest_urls, config);
        }
    }

    /// What comes over a connection counts for its member. Guests are anybody, and not counted.
    fn count_for(&mut self, socket: SocketId, from: MemberId) {
        if self.known.standing(from) != Standing::Member {
            return;
        }
        let metrics = self.metrics.peers.of(from.0);
        if let Some(Tenant::Accepted(accepted)) = self.tenant(socket) {
            accepted.metrics.get_or_insert(metrics);
        }
    }

    fn handle_sent(&mut self, socket: SocketId, count: usize, now: Duration) {
        match self.tenant(socket) {
            Some(Tenant::Dialed(member, connection)) => {
                let (member, connection) = (*member, *connection);
                self.outgoing.handle_sent(member, connection, count, now);
            }
            Some(Tenant::Accepted(accepted)) => {
                accepted.handle_sent(count);
                self.answer(socket, now);
            }
            Some(Tenant::Leaving) | None => {}
        }
    }

    fn handle_half_closed(&mut self, socket: SocketId, reactor: &mut Reactor, now: Duration) {
        match self.tenant(socket) {
            Some(Tenant::Dialed(member, connection)) => {
                let (member, connection) = (*member, *connection);
                self.leave(socket, reactor);
                self.outgoing.handle_lost(member, connection, now);
            }
            Some(Tenant::Accepted(accepted)) => {
                accepted.handle_half_closed();
                self.answer(socket, now);
            }
            Some(Tenant::Leaving) | None => {}
        }
    }

    fn handle_closed(&mut self, socket: SocketId, now: Duration) {
        match self.tenant(socket) {
            Some(Tenant::Dialed(member, connection)) => {
                let (member, connection) = (*member, *connection);
                self.outgoing.handle_lost(member, connection, now);
            }
            Some(Tenant::Accepted(_)) => self.forget_accepted(socket),
            Some(Tenant::Leaving) | None => {}
        }
        self.seats[socket.index()] = None;
    }

    /// What is known of an accepted connection besides its seat.
    fn forget_accepted(&mut self, socket: SocketId) {
        self.accepted_count -= 1;
        let unwanted = self.hashes.extract_if(.., |_, asker| *asker == socket);
        self.hashes_unwanted.extend(unwanted.map(|(number, _)| number));
        self.ungreeted.retain(|(other, _)| *other != socket);
        let left = self.greeted.iter().find(|(_, other)| **other == socket).map(|(key, _)| *key);
        if let Some(left) = left {
            self.greeted.remove(&left);
        }
    }

    /// Whether a member has a connection to this one.
    fn is_connected(&self, member: MemberId) -> bool {
        Lane::ALL.iter().any(|lane| self.greeted.contains_key(&(member, *lane)))
    }

    /// Whether a member has the connection to this one that its heartbeats take. It is always read:
    /// of one that is held back the end is not seen.
    fn is_heard(&self, member: MemberId) -> bool {
        self.greeted.contains_key(&(member, Lane::Control))
    }

    /// Nobody listens to the socket any more.
    fn leave(&mut self, socket: SocketId, reactor: &mut Reactor) {
        if matches!(self.tenant(socket), Some(Tenant::Accepted(_))) {
            self.forget_accepted(socket);
        }
        if let Some(tenant) = self.tenant(socket) {
            *tenant = Tenant::Leaving;
            reactor.close(socket);
        }
    }

    fn dismiss(&mut self, reactor: &mut Reactor) {
        for socket in std::mem::take(&mut self.dismissed) {
            self.leave(socket, reactor);
        }
    }

    /// Gets on with an accepted connection.
    fn advance(&mut self, socket: SocketId, reactor: &mut Reactor) {
        let Some(Tenant::Accepted(accepted)) = self.tenant(socket) else { return };
        match accepted.poll() {
            Next::Wait => {}
            Next::Send(pieces) => reactor.send_vectored(socket, pieces),
            Next::Close => self.leave(socket, reactor),
        }
    }

    /// Tells the sender of a raft snapshot how far it has come. When its connection is gone it will
    /// ask again.
    fn acknowledge(
        &mut self,
        member: MemberId,
        acknowledged: SnapshotAcknowledged,
        reactor: &mut Reactor,
    ) {
        let Some(&socket) = self.greeted.get(&(member, Lane::Snapshot)) else { return };
        if let Some(Tenant::Accepted(accepted)) = self.tenant(socket)
            && let Speaker::Member(receiver) = &mut accepted.speaker
        {
            receiver.acknowledge(acknowledged);
        }
        self.advance(socket, reactor);
    }

    /// Stops reading entries while there is no room for them.
    fn hold_back<C: Correspondent>(&mut self, core: &C, reactor: &mut Reactor, now: Duration) {
        if self.greeted.is_empty() {
            // Nobody is kept waiting, and nothing is due.
            self.held_back = HeldBack::default();
            return;
        }
        let before = self.held_back.reading();
        let reading = self.held_back.handle_room(core.has_letter_room(), now);
        if (before, reading) == (Reading::All, Reading::All) {
            return;
        }
        for (_, &socket) in self.greeted.iter().filter(|((_, lane), _)| *lane == Lane::Bulk) {
            if reading == Reading::Nothing {
                reactor.pause(socket);
            } else {
                reactor.resume(socket);
            }
        }
    }

    /// Ends what has shown nothing of itself for too long.
    fn expire(&mut self, reactor: &mut Reactor, now: Duration) {
        if self.ungreeted.iter().any(|(_, until)| *until <= now) {
            let late = self.ungreeted.iter().filter(|(_, until)| *until <= now);
            self.dismissed.extend(late.map(|(socket, _)| *socket));
            self.dismiss(reactor);
        }
    }

    fn link_config(&self, to: MemberId) -> LinkConfig {
        let Identity { cluster, member } = self.settings.identity;
        let own = self.known.members.iter().find(|known| known.id == member);
        let own_urls = own.map_or(&self.settings.own_urls, |own| &own.peer_urls);
        LinkConfig {
            cluster,
            from: member,
            to,
            boot_nonce: self.settings.boot_nonce,
            server_version: self.oneself.server_version.clone(),
            own_urls: own_urls.clone(),
            dial_timeout: self.dial_timeout(),
            stall_timeout: STALL_TIMEOUT,
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            seed: self.settings.boot_nonce ^ to.0,
        }
    }

    /// Takes over what the log core says about the members, if that has changed.
    fn follow<C: Correspondent>(
        &mut self,
        core: &mut C,
        reactor: &mut Reactor,
        now: Duration,
    ) -> Result<(), Failure> {
        let number = core.membership_number();
        if self.followed == Some(number) {
            return Ok(());
        }
        let is_recovered = self.followed.is_none() && !self.settings.is_new;
        self.followed = Some(number);
        let removed = core.removed().iter().copied().collect();
        let known = Known { members: core.members().to_vec(), removed };
        let before = std::mem::replace(&mut self.known, known);
        report_members(self.settings.identity, &before, &self.known, is_recovered);
        let own = self.settings.identity.member;
        let others: Vec<(MemberId, Vec<String>)> = self
            .known
            .members
            .iter()
            .filter(|member| member.id != own)
            .map(|member| (member.id, member.peer_urls.clone()))
            .collect();
        for (id, urls) in others {
            let config = self.link_config(id);
            self.outgoing.keep(id, urls, config);
        }
        let greeted: Vec<_> = self.greeted.iter().map(|(key, socket)| (*socket, key.0)).collect();
        for (socket, from) in greeted {
            self.count_for(socket, from);
        }
        let Known { members, removed } = &self.known;
        let is_member = |id: MemberId| members.iter().any(|member| member.id == id);
        self.outgoing.stop_unless(own, is_member, |id| removed.contains(&id));
        let gone = self.greeted.iter().filter(|((member, _), _)| removed.contains(member));
        self.dismissed.extend(gone.map(|(_, socket)| *socket));
        self.advance_links(core, reactor, now)?;
        self.dismiss(reactor);
        Ok(())
    }

    fn dial_timeout(&self) -> Duration {
        DIAL_TIMEOUT_BASE + self.settings.election_timeout
    }
}

impl std::fmt::Debug for PeerRole {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PeerRole")
            .field("known", &self.known)
            .field("accepted", &self.accepted_count)
            .field("ungreeted", &self.ungreeted.len())
            .finish_non_exhaustive()
    }
}

/// Who joined and who left, in the words of etcd.
fn report_members(own: Identity, before: &Known, now: &Known, is_recovered: bool) {
    for member in &now.members {
        match before.members.iter().find(|known| known.id == member.id) {
            None if is_recovered => log_lines::recovered_member(own, member),
            None => log_lines::added_member(own, member),
            Some(known) if known.is_learner && !member.is_learner => {
                log_lines::promoted_member(own, member);
            }
            Some(known) if known.peer_urls != member.peer_urls => {
                log_lines::updated_member(own, member);
            }
            Some(_) => {}
        }
    }
    let gone = before.members.iter().filter(|member| now.removed.contains(&member.id));
    gone.for_each(|member| log_lines::removed_member(own, member));
}

/// Who was not let in, or had to leave. Strangers say what they like as often as they like; that is
/// nothing for the log of a member that is well.
fn report_refused(own: Identity, error: &ReceiveError, greeted: Option<(MemberId, Lane)>) {
    match error {
        ReceiveError::Refused { from, refusal: Refusal::Cluster(_) } => {
            log_lines::cluster_id_mismatch(own, *from);
        }
        ReceiveError::Refused { from, .. } => log_lines::rejected_peer(*from, error),
        _ => match greeted {
            Some((from, _)) => log_lines::rejected_peer(from, error),
            None => {
                let error = &error as &dyn std::fmt::Display;
                log_event!(Debug, "closed a connection to a peer address", "error" => error);
            }
        },
    }
}
