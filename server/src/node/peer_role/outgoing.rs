//! The links to other members, their sockets, and how they come about.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use engine::ids::MemberId;

use super::{Correspondent, PeerRole, Tenant};
use crate::config::parse_urls;
use crate::log_lines;
use crate::metrics::LogMetrics;
use crate::metrics::peers::PeerMetrics;
use crate::node::failure::Failure;
use crate::peer::hello::Refusal;
use crate::peer::letter::Letter;
use crate::peer::link::{Action, ConnectionId, Link, LinkConfig, LinkEvent, LinkFailure};
use crate::runtime::dialer::Dialer;
use crate::runtime::reactor::{Reactor, SocketId};

/// etcd's interval of probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(4);
/// What takes longer was asked by another start of this member's.
const PROBE_TIME_MAX: Duration = Duration::from_secs(60);

/// Our clock as a probe carries it.
fn clock_of(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A member that letters go to.
struct Peer {
    link: Link,
    /// Of each lane the present connection's number and its socket.
    sockets: [Option<(u64, SocketId)>; 3],
    /// It is not known to be a member, and is answered as long as it is connected.
    is_guest: bool,
    /// Its link is stopped for good.
    is_stopped: bool,
    /// The log core knows that its process is gone.
    is_absent: bool,
    metrics: Arc<PeerMetrics>,
}

/// All links.
pub(super) struct Outgoing {
    dialer: Dialer,
    /// Whose connections are being made.
    dials: HashMap<u64, (MemberId, ConnectionId)>,
    dials_counted: u64,
    peers: BTreeMap<MemberId, Peer>,
    is_told_removed: bool,
    metrics: Arc<LogMetrics>,
    /// When the ways to the members are measured next.
    probe_next: Duration,
}

impl Outgoing {
    pub(super) fn new(dialer: Dialer, metrics: Arc<LogMetrics>) -> Self {
        Self {
            dialer,
            dials: HashMap::new(),
            dials_counted: 0,
            peers: BTreeMap::new(),
            is_told_removed: false,
            metrics,
            probe_next: Duration::ZERO,
        }
    }

    /// A member has these URLs; it is dialed if it was not before.
    pub(super) fn keep(&mut self, id: MemberId, urls: Vec<String>, config: LinkConfig) {
        match self.peers.get_mut(&id) {
            Some(peer) => {
                if std::mem::take(&mut peer.is_guest) {
                    peer.metrics = self.metrics.peers.of(id.0);
                    peer.metrics.is_active.set(peer.link.is_up().into());
                }
                peer.link.set_own_urls(&config.own_urls);
                if peer.link.urls() != urls {
                    log_lines::updated_remote_peer(config.from, id, &urls);
                    peer.link.set_urls(urls);
                }
            }
            None => {
                log_lines::added_remote_peer(config.from, id, &urls);
                self.add(id, urls, config, false);
            }
        }
    }

    /// Somebody who may be a member is connected and can be answered here.
    pub(super) fn invite(&mut self, id: MemberId, urls: Vec<String>, config: LinkConfig) {
        match self.peers.get_mut(&id) {
            Some(peer) if peer.is_guest => peer.link.set_urls(urls),
            Some(_) => {}
            None => self.add(id, urls, config, true),
        }
    }

    fn add(&mut self, id: MemberId, urls: Vec<String>, config: LinkConfig, is_guest: bool) {
        let link = Link::new(config, urls);
        let (sockets, is_stopped, is_absent) = ([None; 3], false, false);
        let metrics = match is_guest {
            true => Arc::new(PeerMetrics::unlisted(id.0)),
            false => self.metrics.peers.of(id.0),
        };
        let peer = Peer { link, sockets, is_guest, is_stopped, is_absent, metrics };
        self.peers.insert(id, peer);
    }

    pub(super) fn guest_count(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_guest).count()
    }

    fn is_guest(&self, id: MemberId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.is_guest)
    }

    /// A guest has left.
    fn dismiss(&mut self, id: MemberId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.link.stop();
            peer.is_stopped = true;
        }
    }

    /// Stops the links to those who are members no more.
    pub(super) fn stop_unless(
        &mut self,
        own: MemberId,
        is_member: impl Fn(MemberId) -> bool,
        is_removed: impl Fn(MemberId) -> bool,
    ) {
        for (&id, peer) in &mut self.peers {
            if !is_member(id) && (!peer.is_guest || is_removed(id)) {
                peer.link.stop();
                peer.is_stopped = true;
                log_lines::removed_remote_peer(own, id);
            }
        }
    }

    pub(super) fn link(&mut self, id: MemberId) -> Option<&mut Link> {
        self.peers.get_mut(&id).map(|peer| &mut peer.link)
    }

    /// Offers a letter to a link, which says by itself what it drops; false if there is none.
    pub(super) fn push(&mut self, to: MemberId, letter: &Letter) -> bool {
        let Some(link) = self.link(to) else { return false };
        link.push(letter);
        true
    }

    /// So much of what a link had to send has left.
    pub(super) fn handle_sent(
        &mut self,
        id: MemberId,
        connection: ConnectionId,
        count: usize,
        now: Duration,
    ) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.link.handle_sent(connection, count, now);
            peer.metrics.sent_bytes.add(count as u64);
        }
    }

    /// Measures the ways to the members when it is time.
    pub(super) fn probe(&mut self, now: Duration) {
        if now < self.probe_next {
            return;
        }
        self.probe_next = now + PROBE_INTERVAL;
        for peer in self.peers.values_mut().filter(|peer| peer.link.is_up()) {
            peer.link.push(&Letter::Probe(clock_of(now)));
        }
    }

    /// A member has answered a probe that left at this moment of our clock.
    pub(super) fn handle_probe_answer(&mut self, id: MemberId, clock: u64, now: Duration) {
        // Another start of this member's may have asked.
        let took = clock_of(now).checked_sub(clock).map(Duration::from_nanos);
        if let Some(peer) = self.peers.get(&id)
            && let Some(took) = took.filter(|took| *took < PROBE_TIME_MAX)
        {
            peer.metrics.round_trips.observe_duration(took, 1);
        }
    }

    /// A connection ended without our doing.
    pub(super) fn handle_lost(&mut self, id: MemberId, connection: ConnectionId, now: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let place = &mut peer.sockets[connection.lane.place()];
        if place.is_some_and(|(number, _)| number == connection.number) {
            *place = None;
        }
        peer.link.handle_closed(connection, now);
    }

    /// Whether the log core is to hear that a member's process is gone: it is not heard here, and
    /// nobody listens where it is reached.
    fn has_become_absent(&mut self, id: MemberId, is_heard: bool) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let is_absent = peer.link.is_absent() && !is_heard;
        let was_absent = std::mem::replace(&mut peer.is_absent, is_absent);
        is_absent && !was_absent
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let probe = (!self.peers.is_empty()).then_some(self.probe_next);
        self.peers.values().filter_map(|peer| peer.link.deadline()).chain(probe).min()
    }

    pub(super) fn is_told_removed(&self) -> bool {
        self.is_told_removed
    }

    fn dial(
        &mut self,
        (id, connection): (MemberId, ConnectionId),
        url: &str,
        timeout: Duration,
        now: Duration,
    ) {
        // What stands in the store was checked when it came there, but by the member that it came
        // through, which may have been of another version.
        let Some(url) = parse_urls(url).ok().and_then(|urls| urls.into_iter().next()) else {
            return self.handle_lost(id, connection, now);
        };
        self.dials_counted += 1;
        self.dials.insert(self.dials_counted, (id, connection));
        self.dialer.dial(self.dials_counted, url, timeout);
    }

    /// The next thing for a link's owner to do.
    fn poll_action(&mut self, id: MemberId, now: Duration) -> Option<Action> {
        self.peers.get_mut(&id)?.link.poll_action(now)
    }

    /// Whom to look at after `id`.
    fn next_after(&self, id: Option<MemberId>) -> Option<MemberId> {
        use std::ops::Bound;
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.peers.range((from, Bound::Unbounded)).next().map(|(id, _)| *id)
    }

    /// Tells the log core what a link has to tell.
    fn tell<C: Correspondent>(
        &mut self,
        own: MemberId,
        id: MemberId,
        core: &mut C,
    ) -> Result<(), Failure> {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        let mut went_down = false;
        while let Some(event) = peer.link.poll_event() {
            match event {
                LinkEvent::Up { .. } => {
                    log_lines::peer_became_active(id);
                    peer.metrics.is_active.set(1);
                    core.handle_peer(id, true);
                }
                LinkEvent::Down => {
                    went_down = true;
                    peer.metrics.is_active.set(0);
                    peer.metrics.disconnections.add(1);
                    core.handle_peer(id, false);
                }
                LinkEvent::SnapshotUp => core.handle_snapshot_lane(id, true),
                LinkEvent::SnapshotDown => core.handle_snapshot_lane(id, false),
                LinkEvent::Acknowledged(acknowledged) => {
                    core.handle_letter(id, Letter::SnapshotAcknowledged(acknowledged))?;
                }
                LinkEvent::Failed { failure, .. } => {
                    let is_removed = failure == LinkFailure::Refused(Refusal::Removed);
                    self.is_told_removed |= is_removed && !peer.is_guest;
                    if std::mem::take(&mut went_down) {
                        log_lines::peer_became_inactive(id, &failure);
                    } else {
                        log_lines::peer_not_reached(own, id, &failure);
                    }
                }
            }
        }
        if went_down {
            log_lines::peer_became_inactive(id, &"the link was stopped");
        }
        if peer.link.poll_unreachable() {
            peer.metrics.send_failures.add(1);
            core.handle_unreachable(id);
        }
        Ok(())
    }
}

impl PeerRole {
    /// Gets on with all links: what is due, what is to be sent, and what there is to tell. Whether
    /// anything was given to the ring to send.
    ///
    /// # Errors
    /// The log core's.
    pub(super) fn advance_links<C: Correspondent>(
        &mut self,
        core: &mut C,
        reactor: &mut Reactor,
        now: Duration,
    ) -> Result<bool, Failure> {
        let (mut has_sent, mut at) = (false, None);
        while let Some(id) = self.outgoing.next_after(at) {
            at = Some(id);
            // Only now: a guest that has lost its connection may have made another in this turn.
            if self.outgoing.is_guest(id) && !self.is_connected(id) {
                self.outgoing.dismiss(id);
            }
            if let Some(link) = self.outgoing.link(id) {
                link.want_snapshot(core.wants_snapshot_lane(id));
                if link.deadline().is_some_and(|deadline| deadline <= now) {
                    link.handle_time(now);
                }
            }
            while let Some(action) = self.outgoing.poll_action(id, now) {
                has_sent |= self.perform(id, action, reactor, now);
            }
            self.outgoing.tell(self.settings.identity.member, id, core)?;
            if self.outgoing.has_become_absent(id, self.is_heard(id)) {
                core.handle_absent(id, now);
            }
        }
        self.outgoing.peers.retain(|_, peer| !peer.is_stopped);
        Ok(has_sent)
    }

    /// Whether anything was given to the ring to send.
    fn perform(
        &mut self,
        id: MemberId,
        action: Action,
        reactor: &mut Reactor,
        now: Duration,
    ) -> bool {
        match action {
            Action::Dial { connection, url } => {
                let timeout = self.dial_timeout();
                self.outgoing.dial((id, connection), &url, timeout, now);
                false
            }
            Action::Send { connection, pieces } => {
                let socket = self.socket_of(id, connection);
                let socket = socket.expect("a link sends over connections that stand");
                reactor.send_vectored(socket, pieces);
                true
            }
            Action::Close(connection) => {
                self.outgoing.dials.retain(|_, dial| *dial != (id, connection));
                if let Some(socket) = self.socket_of(id, connection) {
                    let peer = self.outgoing.peers.get_mut(&id).expect("its socket was found");
                    peer.sockets[connection.lane.place()] = None;
                    self.leave(socket, reactor);
                }
                false
            }
        }
    }

    fn socket_of(&self, id: MemberId, connection: ConnectionId) -> Option<SocketId> {
        let (number, socket) = self.outgoing.peers.get(&id)?.sockets[connection.lane.place()]?;
        (number == connection.number).then_some(socket)
    }

    /// Takes over the connections that stand.
    pub(super) fn finish_dials(&mut self, reactor: &mut Reactor, now: Duration) {
        while let Some(dialed) = self.outgoing.dialer.poll_dialed() {
            // Nobody waits any more for one that was given up: it is dropped, and so closed.
            let Some((id, connection)) = self.outgoing.dials.remove(&dialed.token) else {
                continue;
            };
            let Some(peer) = self.outgoing.peers.get_mut(&id) else { continue };
            match dialed.result {
                Ok(descriptor) => {
                    let socket = reactor.adopt(descriptor);
                    peer.sockets[connection.lane.place()] = Some((connection.number, socket));
                    peer.link.handle_connected(connection, now);
                    self.sit(socket, Tenant::Dialed(id, connection));
                }
                Err(cause) => {
                    log_lines::dial_failed(id, &cause);
                    if cause.kind() == ErrorKind::ConnectionRefused {
                        peer.link.handle_absent(connection, now);
                    } else {
                        peer.link.handle_closed(connection, now);
                    }
                }
            }
        }
    }
}
