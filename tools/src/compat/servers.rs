//! The two servers that are compared: real etcd, the reference, and ringd.
//!
//! Both are started with the same name, token and advertised addresses, so that even their ids are
//! equal; only the ports they listen on and their data directories differ. Members of a cluster
//! find each other at unix sockets whose names are relative, so that the same URLs lead elsewhere
//! in each cluster's directory.
//!
//! Invariants:
//! - A process never outlives its [`Server`]: dropping it ends the process by its id and waits.
//! - A data directory is new when its server starts, and gone when the server is.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What etcd logs once clients are served.
const READY_LINE: &str = "ready to serve client requests";
/// The version of a cluster that has none yet.
const NO_VERSION: &str = "not_decided";
/// A page that has not come by then is asked for again.
const VERSION_TIME_MAX: Duration = Duration::from_secs(1);
/// A server that is not ready by then never will be.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// A server that has not stopped by then is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// What either server logs when it cannot listen because somebody else does.
const PORT_TAKEN: &str = "ddress already in use";
const START_ATTEMPTS_MAX: usize = 5;
/// What a failure shows of a log.
const LOG_TAIL_BYTES: usize = 2048;
/// What both advertise to clients; nobody connects there.
const CLIENT_URL: &str = "http://localhost:2379";
/// What both advertise to peers where there are none.
pub const PEER_URL: &str = "http://localhost:2380";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Real etcd, which is right.
    Reference,
    /// Ours.
    Ringd,
}

impl Side {
    /// Both, in the order of every array of two.
    pub const BOTH: [Self; 2] = [Self::Reference, Self::Ringd];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reference => "etcd",
            Self::Ringd => "ringd",
        }
    }
}

/// The executables, and where their data may go.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Real etcd.
    pub etcd: PathBuf,
    /// Ours.
    pub ringd: PathBuf,
    /// A directory for data and logs.
    pub scratch: PathBuf,
    /// How many members each side has; the first is asked, and it does not lead where there are
    /// several.
    pub members: usize,
}

impl Binaries {
    fn path(&self, side: Side) -> &Path {
        match side {
            Side::Reference => &self.etcd,
            Side::Ringd => &self.ringd,
        }
    }
}

/// A running server, or the first of a cluster of them.
pub struct Server {
    child: Child,
    /// The other members, and where their clients would connect.
    others: Vec<(Child, SocketAddr)>,
    directory: PathBuf,
    side: Side,
    /// Where clients connect.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it serves clients.
    pub fn start(binaries: &Binaries, side: Side, args: &[&str]) -> Result<Self, String> {
        Self::start_all(binaries, [side], args).map(|[server]| server)
    }

    /// The same for several at once.
    pub fn start_all<const COUNT: usize>(
        binaries: &Binaries,
        sides: [Side; COUNT],
        args: &[&str],
    ) -> Result<[Self; COUNT], String> {
        let begun = sides.map(|side| Self::begin(binaries, side, args));
        let ready = begun.map(|server| server?.ready_or_begun_again(binaries, args));
        let ready: Result<Vec<Self>, String> = ready.into_iter().collect();
        Ok(ready?.try_into().unwrap_or_else(|_| unreachable!("one server for each side")))
    }

    /// Somebody may take a port between our finding it free and the server's binding it.
    fn ready_or_begun_again(mut self, binaries: &Binaries, args: &[&str]) -> Result<Self, String> {
        for _ in 1..START_ATTEMPTS_MAX {
            match self.wait_until_ready() {
                Ok(()) => return Ok(self),
                Err(_) if self.log().contains(PORT_TAKEN) => {
                    self = Self::begin(binaries, self.side, args)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.wait_until_ready().map(|()| self)
    }

    /// Starts a server on free ports and an empty directory.
    fn begin(binaries: &Binaries, side: Side, args: &[&str]) -> Result<Self, String> {
        let name = side.name();
        let failed = |error: std::io::Error| format!("cannot start {name}: {error}");
        if binaries.members > 1 {
            return Self::begin_cluster(binaries, side, args).map_err(failed);
        }
        // Both listeners are held until both ports are known, so that they differ.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (client, peer) = (free().map_err(failed)?, free().map_err(failed)?);
        let address = client.local_addr().map_err(failed)?;
        let peer_address = peer.local_addr().map_err(failed)?;
        // The port makes the name unlike that of any server that runs beside this one.
        let directory = binaries.scratch.join(format!("{name}-{}", address.port()));
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let log_path = directory.join("log");
        let log = File::create(&log_path).map_err(failed)?;
        drop((client, peer));
        let child = Command::new(binaries.path(side))
            .args(["--name", "member", "--initial-cluster-token", "compared"])
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--listen-client-urls", &format!("http://{address}")])
            .args(["--listen-peer-urls", &format!("http://{peer_address}")])
            .args(["--advertise-client-urls", CLIENT_URL])
            .args(["--initial-advertise-peer-urls", PEER_URL])
            .args(["--initial-cluster", &format!("member={PEER_URL}")])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, others: Vec::new(), directory, side, address })
    }

    /// The same for a cluster.
    fn begin_cluster(
        binaries: &Binaries,
        side: Side,
        args: &[&str],
    ) -> Result<Self, std::io::Error> {
        let binary = binaries.path(side).canonicalize()?;
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listeners = (0..binaries.members).map(|_| free()).collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let name = side.name();
        let directory = binaries.scratch.join(format!("{name}-{}", addresses[0].port()));
        std::fs::create_dir_all(&directory)?;
        let directory = directory.canonicalize()?;
        drop(listeners);
        let url = |place: usize| format!("unix://peer:{}", place + 1);
        let named = |place: usize| match place {
            0 => "member".to_owned(),
            place => format!("member{}", place + 1),
        };
        let initial: Vec<String> =
            (0..binaries.members).map(|place| format!("{}={}", named(place), url(place))).collect();
        let mut children = Vec::new();
        for (place, address) in addresses.iter().enumerate() {
            let log_name = if place == 0 { "log".to_owned() } else { format!("log{place}") };
            let log = File::create(directory.join(log_name))?;
            let child = Command::new(&binary)
                .current_dir(&directory)
                .args(["--name", &named(place), "--initial-cluster-token", "compared"])
                .args(["--data-dir", &format!("data{place}")])
                .args(["--listen-client-urls", &format!("http://{address}")])
                .args(["--advertise-client-urls", &format!("http://localhost:{}", 2379 + place)])
                .args(["--listen-peer-urls", &url(place)])
                .args(["--initial-advertise-peer-urls", &url(place)])
                .args(["--initial-cluster", &initial.join(",")])
                .args(args)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            children.push((child, *address));
        }
        let (child, address) = children.remove(0);
        Ok(Self { child, others: children, directory, side, address })
    }

    /// Where the clients of each member connect, or would.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let others = self.others.iter().map(|(_, address)| *address);
        std::iter::once(self.address).chain(others).collect()
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let name = self.side.name();
        let end = Instant::now() + READY_TIME_MAX;
        let logs: Vec<String> = (1..=self.others.len()).map(|at| format!("log{at}")).collect();
        loop {
            let others_are_ready = logs.iter().all(|name| {
                std::fs::read(self.directory.join(name))
                    .is_ok_and(|log| String::from_utf8_lossy(&log).contains(READY_LINE))
            });
            let is_ready = others_are_ready && self.log().contains(READY_LINE);
            if is_ready && self.has_cluster_version() {
                return Ok(());
            }
            if self.has_ended() || Instant::now() > end {
                return Err(format!("{name} did not become ready:\n{}", self.log_tail()));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Whether the cluster has its version: etcd may serve clients before, and cannot be downgraded
    /// then. Who does not say that there is none yet, for want of such a page, has one.
    fn has_cluster_version(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(VERSION_TIME_MAX))?;
            stream.write_all(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        match ask() {
            Ok(answer) => !String::from_utf8_lossy(&answer).contains(NO_VERSION),
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// Whether the process is gone, which no request may lead to.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what the server has logged.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_TAIL_BYTES);
        let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
        log[start..].to_owned()
    }

    fn log(&self) -> String {
        let bytes = std::fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks the process to end; false if it cannot be asked.
    fn ask_to_end(&self) -> bool {
        // The child has not been waited for, so its id is still its own.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (child, _) in &mut self.others {
            // As above: nobody is left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.has_ended() && self.ask_to_end() {
            let end = Instant::now() + STOP_TIME_MAX;
            while !self.has_ended() && Instant::now() < end {
                std::thread::sleep(POLL_INTERVAL);
            }
        }
        // Nothing is left to tell a failure to: the process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
