//! The network between the members: a switch that loses, delays and cuts what passes through it.
//!
//! Each member's namespace has a VXLAN device whose only remote end is a socket of this process. A
//! frame comes in as a datagram, and goes out to the member whose number ends its hardware address,
//! or not. The members' own TCP does the rest: what it makes of loss and delay is what it makes of
//! them anywhere. What lost: the kernel's own emulation (netem), which many kernels come without,
//! and relays of TCP, which acknowledge for a member that is out of reach.
//!
//! Invariants:
//! - Datagrams wait in one queue of bounded length; what finds it full is lost.
//! - Threads end when the switch is dropped.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sim::random::Random;

/// Where the members' devices and the switch talk. Each talks on an address of its own, so that
/// drills do not meet.
pub const PORT: u16 = 24_789;
/// What all members' hardware addresses begin with: locally administered, of one machine.
const HARDWARE_PREFIX: [u8; 5] = [0x02, 0x72, 0x64, 0, 0];
const VXLAN_HEADER_BYTES: usize = 8;
const ETHERNET_HEADER_BYTES: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const TCP: u8 = 6;
/// Larger than any frame of the devices.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// A second of a busy cluster; a real queue is shorter.
const WAITING_MAX: usize = 100_000;
/// How soon a thread sees that it is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the network does to frames.
#[derive(Debug, Clone)]
pub struct Weather {
    /// By sender and receiver: whether nothing arrives.
    cut: Vec<Vec<bool>>,
    /// How many of a million frames are lost.
    pub loss_per_million: u32,
    /// How long a frame is under way at least, and at most.
    pub delay: (Duration, Duration),
}

impl Weather {
    fn fair(members: usize) -> Self {
        let cut = vec![vec![false; members]; members];
        Self { cut, loss_per_million: 0, delay: (Duration::ZERO, Duration::ZERO) }
    }

    /// Lets nothing pass from some members to others.
    pub fn cut(&mut self, from: &[usize], to: &[usize]) {
        for &sender in from {
            for &receiver in to {
                self.cut[sender][receiver] = true;
            }
        }
    }

    /// What becomes of a frame: how long it takes, unless it is lost.
    fn fate(&self, from: usize, to: usize, random: &mut Random) -> Option<Duration> {
        if self.cut[from][to] || random.happens(self.loss_per_million) {
            return None;
        }
        let (least, most) = self.delay;
        let spread = u64::try_from((most - least).as_micros()).expect("a delay is short");
        Some(least + Duration::from_micros(random.below(spread + 1)))
    }
}

/// A datagram that is under way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Instant,
    /// Those of one moment keep their order.
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BinaryHeap<Reverse<Waiting>>,
    count: u64,
}

struct Shared {
    /// By member: the socket that is its device's remote end, and the device's address.
    ports: Vec<(UdpSocket, SocketAddrV4)>,
    weather: Mutex<Weather>,
    queue: Mutex<Queue>,
    is_due: Condvar,
    is_over: AtomicBool,
}

/// A running switch.
pub struct Switch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The hardware address of a member's device.
pub fn hardware_address(place: usize) -> String {
    let [a, b, c, d, e] = HARDWARE_PREFIX;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{:02x}", place + 1)
}

impl Switch {
    /// Starts a switch between devices; for each its remote end, and itself.
    pub fn start(ends: &[(Ipv4Addr, Ipv4Addr)], seed: u64) -> std::io::Result<Self> {
        let mut ports = Vec::new();
        for &(remote, device) in ends {
            let socket = UdpSocket::bind((remote, PORT))?;
            socket.set_read_timeout(Some(LOOK_INTERVAL))?;
            ports.push((socket, SocketAddrV4::new(device, PORT)));
        }
        let shared = Arc::new(Shared {
            weather: Mutex::new(Weather::fair(ports.len())),
            ports,
            queue: Mutex::default(),
            is_due: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        let mut random = Random::new(seed);
        let mut threads = Vec::new();
        for place in 0..ends.len() {
            let (shared, random) = (Arc::clone(&shared), random.split(place as u64));
            threads.push(std::thread::spawn(move || shared.receive(place, random)));
        }
        let delayer = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || delayer.deliver()));
        Ok(Self { shared, threads })
    }

    /// The weather, to be changed.
    pub fn weather(&self) -> MutexGuard<'_, Weather> {
        held(&self.shared.weather)
    }

    /// All passes again.
    pub fn clear(&self) {
        *self.weather() = Weather::fair(self.shared.ports.len());
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.is_due.notify_all();
        for thread in self.threads.drain(..) {
            // It panics only where an invariant is broken, and that was printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn receive(&self, from: usize, mut random: Random) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !self.is_over.load(Ordering::Relaxed) {
            let Ok((size, _)) = self.ports[from].0.recv_from(&mut buffer) else { continue };
            let datagram = &mut buffer[..size];
            let Some(to) = receiver_of(datagram).filter(|&to| to < self.ports.len()) else {
                continue;
            };
            let Some(delay) = held(&self.weather).fate(from, to, &mut random) else { continue };
            complete_checksum(&mut datagram[VXLAN_HEADER_BYTES..]);
            if delay.is_zero() {
                self.send(to, datagram);
                continue;
            }
            let mut queue = held(&self.queue);
            if queue.waiting.len() < WAITING_MAX {
                queue.count += 1;
                let (due, number) = (Instant::now() + delay, queue.count);
                queue.waiting.push(Reverse(Waiting { due, number, to, bytes: datagram.to_vec() }));
                self.is_due.notify_one();
            }
        }
    }

    /// Sends what was delayed when its time has come.
    fn deliver(&self) {
        let mut queue = held(&self.queue);
        while !self.is_over.load(Ordering::Relaxed) {
            let now = Instant::now();
            let next = queue.waiting.peek().map(|Reverse(next)| next.due);
            match next {
                Some(due) if due <= now => {
                    let Reverse(next) = queue.waiting.pop().expect("it was just looked at");
                    drop(queue);
                    self.send(next.to, &next.bytes);
                    queue = held(&self.queue);
                }
                next => {
                    let wait = next.map_or(LOOK_INTERVAL, |due| (due - now).min(LOOK_INTERVAL));
                    let waited = self.is_due.wait_timeout(queue, wait);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn send(&self, to: usize, datagram: &[u8]) {
        let (socket, address) = &self.ports[to];
        // A datagram that cannot be sent is one that the network has lost.
        let _ = socket.send_to(datagram, address);
    }
}

/// Every state that a lock guards here is whole between any two statements.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which member a frame is for; what is for all is for nobody, since all addresses are known.
fn receiver_of(datagram: &[u8]) -> Option<usize> {
    let frame = datagram.get(VXLAN_HEADER_BYTES..)?;
    let address = frame.get(..6)?;
    let number = usize::from(*address.strip_prefix(&HARDWARE_PREFIX)?.first()?);
    number.checked_sub(1)
}

/// Devices of one machine leave the checksum of what they send to hardware that is not there, and
/// nobody finds out as long as the kernel passes the frame on itself. We bring it in from outside,
/// where the receiver looks at it.
fn complete_checksum(frame: &mut [u8]) {
    if frame.get(ETHERNET_HEADER_BYTES - IPV4.len()..ETHERNET_HEADER_BYTES) != Some(&IPV4) {
        return;
    }
    let packet = &mut frame[ETHERNET_HEADER_BYTES..];
    let Some(&[first, _, long, short]) = packet.first_chunk() else { return };
    let (header, total) = (usize::from(first & 15) * 4, u16::from_be_bytes([long, short]).into());
    if packet.get(9) != Some(&TCP) || header < 20 {
        return;
    }
    let mut sum: u32 = u32::from(TCP);
    let addresses = packet.get(12..20).map_or(0, sum_of_words);
    let Some(segment) = packet.get_mut(header..total) else { return };
    let Some(checksum) = segment.get_mut(16..18) else { return };
    checksum.fill(0);
    sum += u32::try_from(segment.len()).expect("a packet says its length in two bytes");
    sum += addresses + sum_of_words(segment);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = u16::try_from(sum).expect("it was folded");
    segment[16..18].copy_from_slice(&(!folded).to_be_bytes());
}

fn sum_of_words(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words.map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(number: u8) -> Vec<u8> {
        let mut bytes = vec![0; VXLAN_HEADER_BYTES];
        bytes.extend(HARDWARE_PREFIX);
        bytes.push(number);
        bytes
    }

    #[test]
    fn a_frame_goes_to_the_member_that_its_address_names() {
        assert_eq!(receiver_of(&datagram(3)), Some(2));
        assert_eq!(receiver_of(&datagram(0)), None);
        assert_eq!(receiver_of(&datagram(3)[..12]), None);
        assert_eq!(receiver_of(&[0xff; 40]), None, "what is for all");
        assert_eq!(hardware_address(2), "02:72:64:00:00:03");
    }

    #[test]
    fn the_checksum_of_a_segment_is_made_whole() {
        // A SYN from 127.0.0.1:51400 to port 80, with a checksum as a device leaves it.
        let packet = [
            0x45, 0, 0, 0x28, 0, 1, 0, 0, 0x40, 6, 0x7c, 0xcd, 127, 0, 0, 1, 127, 0, 0, 1, //
            0xc8, 0xc8, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0xff, 0xff, 0, 0,
        ];
        let mut frame = [&[0; 12][..], &IPV4, &packet].concat();
        complete_checksum(&mut frame);
        let segment = &frame[ETHERNET_HEADER_BYTES + 20..];
        let mut sum = sum_of_words(segment) + sum_of_words(&packet[12..20]) + 6 + 20;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff, "a receiver adds all up, the checksum included");
        // What is no TCP over IPv4, or cut off, stays as it is.
        for cut in 0..frame.len() - 1 {
            let mut short = frame[..cut].to_vec();
            complete_checksum(&mut short);
            assert_eq!(short, frame[..cut]);
        }
    }

    #[test]
    fn a_cut_is_one_way_and_loss_takes_its_share() {
        let mut weather = Weather::fair(3);
        let mut random = Random::new(1);
        weather.cut(&[0], &[1, 2]);
        assert_eq!(weather.fate(0, 1, &mut random), None);
        assert_eq!(weather.fate(1, 0, &mut random), Some(Duration::ZERO));
        weather.loss_per_million = 200_000;
        weather.delay = (Duration::from_millis(5), Duration::from_millis(9));
        let fates: Vec<_> = (0..10_000).map(|_| weather.fate(1, 2, &mut random)).collect();
        let lost = fates.iter().filter(|fate| fate.is_none()).count();
        assert!((1800..2200).contains(&lost), "{lost} of 10,000 were lost");
        let within = Duration::from_millis(5)..=Duration::from_millis(9);
        assert!(fates.iter().flatten().all(|delay| within.contains(delay)));
    }
}
