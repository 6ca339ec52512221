//! A link with a scripted other side, and with one that fails in every way.

use raft::eraftpb::{Entry, Message, MessageType};

use super::super::frame::{BULK_BODY_SIZE_BYTES_MAX, HEAD_SIZE_BYTES};
use super::super::letter::{SnapshotEnd, SnapshotState};
use super::super::random::Random;
use super::super::receive::{Oneself, Received, Receiver, Standing};
use super::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn link() -> Link {
    seeded(1)
}

fn seeded(seed: u64) -> Link {
    let config = LinkConfig {
        cluster: ClusterId(1),
        from: MemberId(2),
        to: MemberId(3),
        boot_nonce: 4,
        server_version: "v".to_owned(),
        own_urls: Vec::new(),
        dial_timeout: ms(1000),
        stall_timeout: ms(5000),
        backoff_min: ms(20),
        backoff_max: ms(1000),
        seed,
    };
    Link::new(config, vec!["http://a:1".to_owned(), "http://b:1".to_owned()])
}

fn welcome() -> Vec<u8> {
    let member = MemberId(3);
    Welcome { version: 1, member, boot_nonce: 5, server_version: "w".to_owned() }.encode().to_vec()
}

fn raft(kind: MessageType, payload_len: usize) -> Letter {
    let mut message = Message { from: 2, to: 3, ..Message::default() };
    message.set_msg_type(kind);
    if payload_len > 0 {
        message.entries =
            vec![Entry { index: 1, data: vec![1; payload_len].into(), ..Entry::default() }].into();
    }
    Letter::Raft(message)
}

fn dial(link: &mut Link, now: Duration) -> (ConnectionId, String) {
    match link.poll_action(now) {
        Some(Action::Dial { connection, url }) => (connection, url),
        other => panic!("no dial but {other:?}"),
    }
}

fn send(link: &mut Link, now: Duration) -> (ConnectionId, Vec<Bytes>) {
    match link.poll_action(now) {
        Some(Action::Send { connection, pieces }) => (connection, pieces),
        other => panic!("no send but {other:?}"),
    }
}

fn events(link: &mut Link) -> Vec<LinkEvent> {
    std::iter::from_fn(|| link.poll_event()).collect()
}

/// Brings control and bulk up; answers with their connections.
fn bring_up(link: &mut Link, now: Duration) -> [ConnectionId; 2] {
    let connections = [dial(link, now).0, dial(link, now).0];
    for connection in connections {
        link.handle_connected(connection, now);
        let (of, pieces) = send(link, now);
        assert_eq!(of, connection);
        link.handle_sent(connection, pieces.concat().len(), now);
        link.handle_received(connection, &welcome(), now);
    }
    let up = LinkEvent::Up { boot_nonce: 5, server_version: "w".to_owned() };
    assert_eq!(events(link), [up]);
    connections
}

#[test]
fn a_link_comes_up_when_both_lanes_were_welcomed() {
    let mut link = link();
    let (control, url) = dial(&mut link, ms(0));
    assert_eq!((control.lane, url.as_str()), (Lane::Control, "http://a:1"));
    let (bulk, _) = dial(&mut link, ms(0));
    assert_eq!(bulk.lane, Lane::Bulk);
    assert_eq!(link.poll_action(ms(0)), None);
    link.handle_connected(control, ms(1));
    let (_, pieces) = send(&mut link, ms(1));
    let greeting = pieces.concat();
    assert!(greeting.starts_with(&PREFACE));
    let hello = Hello::decode(&greeting[PREFACE.len() + HEAD_SIZE_BYTES..]).unwrap();
    assert_eq!((hello.from, hello.to, hello.lane), (MemberId(2), MemberId(3), Lane::Control));
    link.handle_sent(control, greeting.len(), ms(1));
    link.handle_received(control, &welcome(), ms(2));
    assert!(!link.is_up());
    assert_eq!(events(&mut link), []);
    link.handle_connected(bulk, ms(3));
    for byte in welcome() {
        link.handle_received(bulk, &[byte], ms(3));
    }
    assert_eq!(link.up_since(), Some(ms(3)));
    let up = LinkEvent::Up { boot_nonce: 5, server_version: "w".to_owned() };
    assert_eq!(events(&mut link), [up]);
    link.handle_closed(bulk, ms(4));
    let failed = LinkEvent::Failed { lane: Lane::Bulk, failure: LinkFailure::Lost };
    assert_eq!(events(&mut link), [LinkEvent::Down, failed]);
    assert!(link.poll_unreachable());
    assert!(!link.poll_unreachable());
}

#[test]
fn control_leaves_before_bulk_whatever_came_first() {
    let mut link = link();
    let [control, bulk] = bring_up(&mut link, ms(0));
    for _ in 0..3 {
        assert!(link.push(&raft(MessageType::MsgAppend, 2 << 20)));
    }
    assert!(link.push(&raft(MessageType::MsgHeartbeat, 0)));
    let (first, heartbeat) = send(&mut link, ms(0));
    assert_eq!(first, control);
    assert_eq!(send(&mut link, ms(0)).0, bulk);
    // One send of a connection at a time; control goes on while bulk is under way.
    assert_eq!(link.poll_action(ms(0)), None);
    link.handle_sent(control, heartbeat.concat().len(), ms(0));
    assert!(link.push(&raft(MessageType::MsgHeartbeat, 0)));
    assert_eq!(send(&mut link, ms(0)).0, control);
}

#[test]
fn what_was_sent_in_parts_arrives_whole_and_in_order() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut link = link();
        let [control, bulk] = bring_up(&mut link, ms(0));
        let (mut expected, mut arrived) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for _ in 0..100 {
            let (kind, len_max, lane) = match random.below(2) {
                0 => (MessageType::MsgHeartbeat, 1, 0),
                _ => (MessageType::MsgAppend, 3000, 1),
            };
            let letter = raft(kind, random.below(len_max));
            expected[lane].extend(letter.encode().to_vec());
            assert!(link.push(&letter));
            if random.once_in(2) {
                pump(&mut link, &mut random, [control, bulk], &mut arrived);
            }
        }
        while link.queued_bytes(Lane::Control) + link.queued_bytes(Lane::Bulk) > 0 {
            pump(&mut link, &mut random, [control, bulk], &mut arrived);
        }
        assert!(arrived == expected, "seed {seed}");
        assert!(!link.poll_unreachable(), "seed {seed}");
    }
}

fn pump(
    link: &mut Link,
    random: &mut Random,
    connections: [ConnectionId; 2],
    arrived: &mut [Vec<u8>; 2],
) {
    while let Some(action) = link.poll_action(ms(0)) {
        let Action::Send { connection, pieces } = action else { panic!("{action:?}") };
        let bytes = pieces.concat();
        let count = random.below(bytes.len() + 1);
        arrived[connections.iter().position(|one| *one == connection).unwrap()]
            .extend(&bytes[..count]);
        link.handle_sent(connection, count, ms(0));
        if count == 0 {
            return;
        }
    }
}

#[test]
fn a_full_queue_drops_and_says_so() {
    let mut link = link();
    let [_, bulk] = bring_up(&mut link, ms(0));
    let letter = raft(MessageType::MsgAppend, 1 << 20);
    let mut taken = 0;
    while link.push(&letter) {
        taken += 1;
    }
    assert_eq!(taken, BULK_QUEUE_BYTES_MAX / letter.encode().size_bytes());
    assert!(link.queued_bytes(Lane::Bulk) <= BULK_QUEUE_BYTES_MAX);
    assert!(link.poll_unreachable());
    assert_eq!(link.dropped_letters(), 1);
    // Heartbeats are not concerned.
    assert!(link.push(&raft(MessageType::MsgHeartbeat, 0)));
    assert!(!link.poll_unreachable());
    // What left makes room.
    drop(send(&mut link, ms(0)));
    let (of, pieces) = send(&mut link, ms(0));
    assert_eq!(of, bulk);
    assert!(!link.push(&letter));
    link.handle_sent(bulk, pieces.concat().len(), ms(0));
    assert!(link.push(&letter));
}

#[test]
fn the_largest_frame_passes_an_empty_queue() {
    const _: () = assert!(BULK_BODY_SIZE_BYTES_MAX <= BULK_QUEUE_BYTES_MAX);
    let mut link = link();
    bring_up(&mut link, ms(0));
    assert!(link.push(&raft(MessageType::MsgHeartbeat, CONTROL_QUEUE_BYTES_MAX + 1)));
    assert!(!link.push(&raft(MessageType::MsgHeartbeat, 0)));
}

#[test]
fn votes_wait_for_the_greeting_and_appends_do_not() {
    let mut link = link();
    // Before the first action already: an election may begin before the links were looked at.
    assert!(link.push(&raft(MessageType::MsgRequestPreVote, 0)));
    assert!(!link.push(&raft(MessageType::MsgAppend, 1)));
    assert!(link.poll_unreachable());
    let (control, _) = dial(&mut link, ms(0));
    drop(dial(&mut link, ms(0)));
    link.handle_connected(control, ms(0));
    assert!(link.push(&raft(MessageType::MsgRequestVote, 0)));
    let (_, greeting) = send(&mut link, ms(0));
    link.handle_sent(control, greeting.concat().len(), ms(0));
    assert_eq!(link.poll_action(ms(0)), None);
    link.handle_received(control, &welcome(), ms(0));
    let (_, votes) = send(&mut link, ms(0));
    let expected = [MessageType::MsgRequestPreVote, MessageType::MsgRequestVote]
        .map(|kind| raft(kind, 0).encode().to_vec());
    assert_eq!(votes.concat(), expected.concat());
    // Only so many of them; more are worth nothing when the member comes back.
    let mut link = self::link();
    while link.push(&raft(MessageType::MsgRequestVote, 0)) {}
    assert!(link.queued_bytes(Lane::Control) <= CONTROL_QUEUE_BYTES_EARLY);
}

#[test]
fn failures_are_told_once_and_back_off_over_all_urls() {
    for seed in 0..50 {
        let mut link = seeded(seed);
        let mut now = ms(0);
        let mut waits = Vec::new();
        for attempt in 0..12 {
            let (connection, url) = dial(&mut link, now);
            assert_eq!(connection.lane, Lane::Control);
            assert_eq!(url, ["http://a:1", "http://b:1"][attempt % 2]);
            if attempt == 0 {
                drop(dial(&mut link, now));
            }
            link.handle_closed(connection, now);
            let expected = if attempt == 0 {
                vec![LinkEvent::Failed { lane: Lane::Control, failure: LinkFailure::Dial }]
            } else {
                vec![]
            };
            assert_eq!(events(&mut link), expected, "seed {seed}");
            assert!(
                !link.push(&raft(MessageType::MsgHeartbeat, 0)),
                "nothing waits for a dead link"
            );
            let State::Waiting(until) = link.lanes[0].state else { panic!("it waits") };
            waits.push(until - now);
            now = until;
            link.lanes[1].state = State::Idle;
            link.handle_time(now);
        }
        for (attempt, wait) in (0..).zip(&waits) {
            let longest = (ms(20) * (1 << attempt)).min(ms(1000));
            assert!(*wait > longest / 2 && *wait <= longest, "seed {seed}: {waits:?}");
        }
    }
}

#[test]
fn a_success_ends_the_waiting_and_lets_failures_be_told_again() {
    let mut link = link();
    let (control, _) = dial(&mut link, ms(0));
    link.handle_closed(control, ms(0));
    assert_eq!(events(&mut link).len(), 1);
    drop(dial(&mut link, ms(0)));
    link.handle_time(ms(20));
    let (control, _) = dial(&mut link, ms(20));
    link.handle_connected(control, ms(20));
    drop(send(&mut link, ms(20)));
    link.handle_received(control, &welcome(), ms(20));
    link.handle_closed(control, ms(30));
    let lost = LinkEvent::Failed { lane: Lane::Control, failure: LinkFailure::Lost };
    assert_eq!(events(&mut link), [lost]);
    assert!(link.deadline().unwrap() <= ms(50));
}

#[test]
fn nobody_is_waited_for_for_ever() {
    let mut link = link();
    let (control, _) = dial(&mut link, ms(0));
    let (bulk, _) = dial(&mut link, ms(0));
    assert_eq!(link.deadline(), Some(ms(1000)));
    link.handle_connected(bulk, ms(500));
    drop(send(&mut link, ms(500)));
    link.handle_time(ms(999));
    assert_eq!(link.poll_action(ms(999)), None);
    link.handle_time(ms(1000));
    assert_eq!(link.poll_action(ms(1000)), Some(Action::Close(control)));
    link.handle_time(ms(1500));
    let closed: Vec<Action> = std::iter::from_fn(|| link.poll_action(ms(1500))).collect();
    assert!(closed.contains(&Action::Close(bulk)), "{closed:?}");
    let failures: Vec<LinkEvent> = events(&mut link);
    assert!(
        failures.contains(&LinkEvent::Failed {
            lane: Lane::Control,
            failure: LinkFailure::DialTimeout
        })
    );
    assert!(
        failures
            .contains(&LinkEvent::Failed { lane: Lane::Bulk, failure: LinkFailure::GreetTimeout })
    );
}

#[test]
fn a_member_that_takes_nothing_is_given_up() {
    let mut link = link();
    let [_, bulk] = bring_up(&mut link, ms(0));
    assert_eq!(link.deadline(), None);
    assert!(link.push(&raft(MessageType::MsgAppend, 10_000)));
    drop(send(&mut link, ms(100)));
    assert_eq!(link.deadline(), Some(ms(5100)));
    // Progress is enough, however little.
    link.handle_sent(bulk, 1, ms(5000));
    drop(send(&mut link, ms(5000)));
    link.handle_time(ms(9999));
    assert!(link.is_up());
    link.handle_time(ms(10_000));
    assert!(!link.is_up());
    assert_eq!(link.poll_action(ms(10_000)), Some(Action::Close(bulk)));
    assert!(link.poll_unreachable());
    assert_eq!(link.queued_bytes(Lane::Bulk), 0);
}

#[test]
fn refusals_and_strangers_end_the_connection() {
    let other =
        Welcome { version: 1, member: MemberId(9), boot_nonce: 0, server_version: String::new() };
    let version = Welcome { version: 2, member: MemberId(3), ..other.clone() };
    let garbled = |reason| LinkFailure::Garbled(reason);
    for (answer, failure) in [
        (Refusal::Removed.encode(), LinkFailure::Refused(Refusal::Removed)),
        (Refusal::Unknown.encode(), LinkFailure::Refused(Refusal::Unknown)),
        (other.encode(), LinkFailure::Stranger(MemberId(9))),
        (version.encode(), garbled("it answers in a version that was not offered")),
        (
            raft(MessageType::MsgHeartbeat, 0).encode(),
            garbled("a frame that does not belong there"),
        ),
    ] {
        let mut link = link();
        let (control, _) = dial(&mut link, ms(0));
        drop(dial(&mut link, ms(0)));
        link.handle_connected(control, ms(0));
        link.handle_received(control, &answer.to_vec(), ms(0));
        assert_eq!(events(&mut link), [LinkEvent::Failed { lane: Lane::Control, failure }]);
        assert_eq!(link.poll_action(ms(0)), Some(Action::Close(control)));
        assert!(!failure.to_string().is_empty());
        // What still comes from it changes nothing.
        link.handle_received(control, &welcome(), ms(0));
        link.handle_sent(control, 1, ms(0));
        link.handle_closed(control, ms(0));
        assert_eq!(events(&mut link), []);
    }
}

#[test]
fn nothing_but_acknowledgements_comes_back() {
    let mut link = link();
    let [control, _] = bring_up(&mut link, ms(0));
    link.want_snapshot(true);
    let (snapshot, _) = dial(&mut link, ms(0));
    assert_eq!(snapshot.lane, Lane::Snapshot);
    link.handle_connected(snapshot, ms(0));
    let (_, greeting) = send(&mut link, ms(0));
    link.handle_sent(snapshot, greeting.concat().len(), ms(0));
    link.handle_received(snapshot, &welcome(), ms(0));
    let end = Letter::SnapshotEnd(SnapshotEnd { transfer: 1, chunk_count: 0, size_bytes: 0 });
    assert!(link.push(&end));
    let state = SnapshotState::Taking;
    let acknowledged = SnapshotAcknowledged { transfer: 1, chunk_next: 2, state };
    let bytes = Letter::SnapshotAcknowledged(acknowledged).encode().to_vec();
    for byte in bytes.iter().chain(&bytes) {
        link.handle_received(snapshot, &[*byte], ms(0));
    }
    let told = LinkEvent::Acknowledged(acknowledged);
    assert_eq!(events(&mut link), [LinkEvent::SnapshotUp, told.clone(), told]);
    link.handle_received(control, &bytes, ms(0));
    assert!(!link.is_up());
    events(&mut link);
    link.want_snapshot(false);
    assert_eq!(events(&mut link), [LinkEvent::SnapshotDown]);
    let closed: Vec<Action> = std::iter::from_fn(|| link.poll_action(ms(0))).collect();
    assert_eq!(closed, [Action::Close(control), Action::Close(snapshot)]);
}

#[test]
fn other_urls_are_dialed_at_once_and_a_stopped_link_dials_nothing() {
    let mut link = link();
    let old = bring_up(&mut link, ms(0));
    link.set_urls(vec!["http://a:1".to_owned(), "http://b:1".to_owned()]);
    assert!(link.is_up());
    link.set_urls(vec!["http://c:1".to_owned()]);
    assert!(!link.is_up());
    assert_eq!(link.poll_action(ms(0)), Some(Action::Close(old[0])));
    assert_eq!(link.poll_action(ms(0)), Some(Action::Close(old[1])));
    let (control, url) = dial(&mut link, ms(0));
    assert_eq!(url, "http://c:1");
    assert_eq!(control.number, old[0].number + 1);
    link.stop();
    assert_eq!(link.poll_action(ms(0)), Some(Action::Close(control)));
    assert_eq!(link.poll_action(ms(0)), None);
    assert_eq!(link.deadline(), None);
    assert!(!link.push(&raft(MessageType::MsgHeartbeat, 0)));
}

/// Both ends together under random cuts, losses and times: what arrives is a selection of what was
/// taken, in order, and the link comes up again.
#[test]
fn both_ends_agree_whatever_happens_to_the_connections() {
    for seed in 0..150 {
        let mut random = Random(seed);
        let mut world = World::new(seed);
        for step in 0..400_u64 {
            world.now += ms(random.next() % 20);
            let letter = if random.once_in(2) {
                Letter::Raft(Message { index: step, ..raft_of(MessageType::MsgHeartbeat) })
            } else {
                let mut message = Message { index: step, ..raft_of(MessageType::MsgAppend) };
                let payload = random.bytes(2000).into();
                let entry = Entry { index: message.index + 1, data: payload, ..Entry::default() };
                message.entries = vec![entry].into();
                Letter::Raft(message)
            };
            if random.once_in(3) && world.link.push(&letter) {
                world.taken.push(letter);
            }
            if random.once_in(40) {
                world.lose(&mut random);
            }
            world.pump(&mut random, false);
        }
        for _ in 0..200 {
            world.now += ms(50);
            world.pump(&mut random, true);
        }
        assert!(world.link.is_up(), "seed {seed}");
        let last = raft(MessageType::MsgAppend, 10);
        assert!(world.link.push(&last));
        world.taken.push(last.clone());
        world.pump(&mut random, true);
        assert_eq!(world.heard.last(), Some(&last), "seed {seed}");
        for lane in [Lane::Control, Lane::Bulk] {
            let mut taken = world.taken.iter().filter(|letter| letter.lane() == lane);
            for heard in world.heard.iter().filter(|letter| letter.lane() == lane) {
                assert!(taken.any(|letter| letter == heard), "seed {seed}: {heard:?} out of order");
            }
        }
    }
}

fn raft_of(kind: MessageType) -> Message {
    let Letter::Raft(message) = raft(kind, 0) else { unreachable!() };
    message
}

struct World {
    link: Link,
    now: Duration,
    receivers: Vec<(ConnectionId, Receiver)>,
    taken: Vec<Letter>,
    heard: Vec<Letter>,
}

impl World {
    fn new(seed: u64) -> Self {
        let (taken, heard) = (Vec::new(), Vec::new());
        Self { link: seeded(seed), now: ms(0), receivers: Vec::new(), taken, heard }
    }

    fn lose(&mut self, random: &mut Random) {
        if !self.receivers.is_empty() {
            let (connection, _) = self.receivers.swap_remove(random.below(self.receivers.len()));
            self.link.handle_closed(connection, self.now);
        }
    }

    fn pump(&mut self, random: &mut Random, is_calm: bool) {
        self.link.handle_time(self.now);
        while let Some(action) = self.link.poll_action(self.now) {
            match action {
                Action::Dial { connection, .. } if !is_calm && random.once_in(4) => {
                    self.link.handle_closed(connection, self.now);
                }
                Action::Dial { connection, .. } => {
                    let receiver = Receiver::new(Oneself {
                        cluster: ClusterId(1),
                        member: MemberId(3),
                        boot_nonce: 5,
                        server_version: String::new(),
                    });
                    self.receivers.push((connection, receiver));
                    self.link.handle_connected(connection, self.now);
                }
                Action::Close(connection) => self.receivers.retain(|(id, _)| *id != connection),
                Action::Send { connection, pieces } => {
                    let bytes = pieces.concat();
                    let count = if is_calm { bytes.len() } else { 1 + random.below(bytes.len()) };
                    self.link.handle_sent(connection, count, self.now);
                    self.receive(connection, &bytes[..count]);
                }
            }
        }
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let found = self.receivers.iter_mut().find(|(id, _)| *id == connection);
        let (_, receiver) = found.expect("a send goes over a connection that stands");
        let mut input = bytes;
        let known = |_: MemberId| Standing::Member;
        while let Some(received) = receiver.handle_received(&mut input, &known).unwrap() {
            if let Received::Letter(letter) = received {
                self.heard.push(letter);
            }
        }
        while let Some(output) = receiver.poll_output() {
            self.link.handle_received(connection, &output, self.now);
        }
    }
}

/// A dial that fails for another reason says nothing about the process, nor does one URL of two.
#[test]
fn a_member_is_absent_when_nobody_listens_at_any_of_its_urls() {
    let mut link = link();
    let connections = bring_up(&mut link, ms(0));
    let mut now = ms(0);
    let mut redial = |link: &mut Link, control: ConnectionId| {
        now += ms(2000);
        link.handle_time(now);
        let (mut connection, _) = dial(link, now);
        while connection.lane != control.lane {
            (connection, _) = dial(link, now);
        }
        (connection, now)
    };
    link.handle_closed(connections[0], ms(0));
    assert!(!link.is_absent(), "it is only disconnected");
    let (control, at) = redial(&mut link, connections[0]);
    link.handle_absent(control, at);
    assert!(!link.is_absent(), "it has another URL");
    let (control, at) = redial(&mut link, control);
    link.handle_closed(control, at);
    let (control, at) = redial(&mut link, control);
    link.handle_absent(control, at);
    assert!(!link.is_absent(), "that of the other URL is not known");
    let (control, at) = redial(&mut link, control);
    link.handle_absent(control, at);
    assert!(!link.is_absent(), "the lane for entries is up");
    link.handle_closed(connections[1], at);
    assert!(link.is_absent());
    link.handle_present();
    assert!(!link.is_absent());
    for _ in 0..2 {
        let (control, at) = redial(&mut link, control);
        link.handle_absent(control, at);
    }
    assert!(link.is_absent());
    let (control, at) = redial(&mut link, control);
    assert!(link.is_absent(), "it is dialed");
    link.handle_connected(control, at);
    assert!(!link.is_absent(), "somebody listens");
    link.handle_closed(control, at);
    assert!(!link.is_absent(), "and has to be found gone anew");
}
