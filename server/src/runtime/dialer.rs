//! The dialer: connects to other members without holding up a core.
//!
//! Names are looked up by the system's resolver, which blocks for as long as it likes, so each dial
//! has a thread of its own for as long as it takes. Members that are dialed are few, and each waits
//! longer after every failure.
//!
//! Invariants:
//! - Each dial is reported once, and the core is woken for it.
//! - A connection that is handed over blocks as far as its flags say: the ring arms a poll for such
//!   a socket, and would hand `EAGAIN` through for one that does not.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use super::wake::Waker;
use crate::config::Url;

/// Dials that may be under way at once. A resolver that hangs keeps its thread; more than a few of
/// those help nobody.
const DIALS_MAX: usize = 64;
/// Bytes that nobody acknowledges for so long mean that the way is gone, as etcd's own time-outs of
/// its peer connections have it. The kernel's own patience is a quarter of an hour.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// A silent connection is probed so often.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// The stack of a thread that connects and ends.
const STACK_BYTES: usize = 512 << 10;

/// How a dial ended.
#[derive(Debug)]
pub struct Dialed {
    /// As passed to [`Dialer::dial`].
    pub token: u64,
    /// The connection, or why there is none.
    pub result: io::Result<OwnedFd>,
}

/// Starts dials and gathers how they ended.
#[derive(Debug)]
pub struct Dialer {
    under_way: usize,
    report: mpsc::Sender<Dialed>,
    ended: mpsc::Receiver<Dialed>,
    waker: Waker,
    from: Option<IpAddr>,
}

impl Dialer {
    /// `waker` is called after each dial. Connections leave from the address `from`, or from one
    /// that the system chooses.
    #[must_use]
    pub fn new(waker: Waker, from: Option<IpAddr>) -> Self {
        let (report, ended) = mpsc::channel();
        Self { under_way: 0, report, ended, waker, from }
    }

    /// Connects to a URL's place within `timeout`.
    pub fn dial(&mut self, token: u64, url: Url, timeout: Duration) {
        self.under_way += 1;
        let refuse = |cause| {
            let dialed = Dialed { token, result: Err(cause) };
            self.report.send(dialed).expect("the other end is held here, too");
            self.waker.wake();
        };
        if self.under_way > DIALS_MAX {
            return refuse(io::Error::other("too many connections are being made"));
        }
        let (report, waker, from) = (self.report.clone(), self.waker.clone(), self.from);
        let thread = std::thread::Builder::new().name("peer-dial".into()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            let result = connect(&url, from, timeout);
            // A core that has ended wants no connection any more.
            if report.send(Dialed { token, result }).is_ok() {
                waker.wake();
            }
        });
        if let Err(cause) = spawned {
            refuse(cause);
        }
    }

    /// The next dial that ended.
    pub fn poll_dialed(&mut self) -> Option<Dialed> {
        if self.under_way == 0 {
            return None;
        }
        let dialed = self.ended.try_recv().ok()?;
        self.under_way -= 1;
        Some(dialed)
    }
}

fn connect(url: &Url, from: Option<IpAddr>, timeout: Duration) -> io::Result<OwnedFd> {
    if url.scheme.is_secure() {
        return Err(io::Error::other("TLS is not spoken yet"));
    }
    if url.scheme.is_unix() {
        return UnixStream::connect(&url.host).map(OwnedFd::from);
    }
    let deadline = Instant::now() + timeout;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    let is_refused = |cause: &io::Error| cause.kind() == io::ErrorKind::ConnectionRefused;
    let mut has_failed_otherwise = false;
    for address in url.authority().to_socket_addrs()? {
        match connect_to(address, from, deadline) {
            Ok(stream) => return Ok(stream.into()),
            // That nobody listens is said only if it is so at all addresses.
            Err(cause) if is_refused(&cause) && has_failed_otherwise => {}
            Err(cause) => {
                has_failed_otherwise = !is_refused(&cause);
                last = cause;
            }
        }
    }
    Err(last)
}

fn connect_to(
    address: SocketAddr,
    from: Option<IpAddr>,
    deadline: Instant,
) -> io::Result<TcpStream> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&address.into(), left)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::config::parse_urls;
    use crate::runtime::reactor::{Event, Reactor};

    fn url(text: &str) -> Url {
        parse_urls(text).unwrap().remove(0)
    }

    /// Waits, as a core does, until a dial has ended; a minute without it fails the test.
    fn dialed(reactor: &mut Reactor, dialer: &mut Dialer) -> Dialed {
        for _ in 0..600 {
            if let Some(dialed) = dialer.poll_dialed() {
                return dialed;
            }
            reactor.wait(Duration::from_millis(100)).unwrap();
            while reactor.poll_event().is_some() {}
        }
        panic!("the dial did not end");
    }

    #[test]
    fn a_dial_wakes_the_core_with_a_connection_that_its_ring_can_use() {
        let mut reactor = Reactor::new().unwrap();
        let mut dialer = Dialer::new(Waker::new(reactor.eventfd()).unwrap(), None);
        let path = std::env::temp_dir().join(format!("ringd-dialer-{}", std::process::id()));
        drop(std::fs::remove_file(&path));
        let unix = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp_url = format!("http://localhost:{}", tcp.local_addr().unwrap().port());
        let unix_url = format!("unix://{}", path.display());
        for (token, text) in [(7, &tcp_url), (8, &unix_url)] {
            dialer.dial(token, url(text), Duration::from_secs(60));
            let dialed = dialed(&mut reactor, &mut dialer);
            assert_eq!(dialed.token, token);
            let socket = reactor.adopt(dialed.result.unwrap());
            // Nothing has come yet: a socket that does not block would end here.
            reactor.wait(Duration::from_millis(10)).unwrap();
            let mut served: Box<dyn ReadWrite> = if token == 7 {
                Box::new(tcp.accept().unwrap().0)
            } else {
                Box::new(unix.accept().unwrap().0)
            };
            served.write_all(b"x").unwrap();
            reactor.send(socket, b"y".to_vec());
            let mut has_received = false;
            while !has_received {
                reactor.wait(Duration::from_millis(100)).unwrap();
                while let Some(event) = reactor.poll_event() {
                    assert!(!matches!(event, Event::Closed { .. } | Event::HalfClosed { .. }));
                    if let Event::Received { received, .. } = event {
                        assert_eq!(reactor.received(&received), b"x");
                        reactor.recycle(received);
                        has_received = true;
                    }
                }
            }
            let mut byte = [0];
            served.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"y");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_dial_leaves_from_the_address_that_it_is_told() {
        let mut reactor = Reactor::new().unwrap();
        let from: IpAddr = "127.0.0.2".parse().unwrap();
        let waker = Waker::new(reactor.eventfd()).unwrap();
        let mut dialer = Dialer::new(waker, Some(from));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!("http://{}", listener.local_addr().unwrap());
        dialer.dial(1, url(&text), Duration::from_secs(60));
        assert!(dialed(&mut reactor, &mut dialer).result.is_ok());
        assert_eq!(listener.accept().unwrap().1.ip(), from);
    }

    trait ReadWrite: Read + Write {}
    impl<T: Read + Write> ReadWrite for T {}

    #[test]
    fn a_dial_that_fails_is_told_as_well() {
        let mut reactor = Reactor::new().unwrap();
        let mut dialer = Dialer::new(Waker::new(reactor.eventfd()).unwrap(), None);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = format!("http://{closed}");
        for text in [&*refused, "unix:///nowhere/at/all", "https://127.0.0.1:1"] {
            dialer.dial(1, url(text), Duration::from_secs(60));
            assert!(dialed(&mut reactor, &mut dialer).result.is_err(), "{text}");
        }
        assert_eq!(dialer.under_way, 0);
    }
}
