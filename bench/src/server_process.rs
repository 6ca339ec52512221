//! A server under test, alone or a member of a cluster: started on free loopback ports and a data
//! directory of its own, watched through /proc, stopped or killed.
//!
//! Every server of etcd's v3 API takes the same flags, so both sides of a comparison are started
//! alike, with everything else at its default.
//!
//! Invariants:
//! - A server never outlives its [`Server`]: dropping it kills the process and waits for it.
//! - Figures are those of the whole process: all its threads, io_uring's kernel workers included.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::blocking::Blocking;
use crate::failure::Failure;
use crate::proto;

/// What etcd logs once clients are served.
const READY_LINE: &str = "ready to serve client requests";
/// A server that is not ready by then never will be.
const READY_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a clean stop may take before it is a failure.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a process may take from closing its sockets to its end.
const EXIT_TIME_MAX: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// What a failure shows of the server's log.
const LOG_TAIL_BYTES: u64 = 2048;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// The executable.
    pub binary: PathBuf,
    /// Arguments beside those that say where.
    pub args: Vec<String>,
    /// The member's name.
    pub name: String,
    /// The names and peer URLs of all members.
    pub initial_cluster: String,
    /// The data directory, which also outlives a kill.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub client_address: SocketAddr,
    /// Where peers connect, or would.
    pub peer_address: SocketAddr,
}

impl ServerSpec {
    /// A server on ports that are free now and on a data directory that does not exist yet.
    pub fn new(binary: &Path, args: &[String], data_dir: &Path) -> Result<Self, Failure> {
        let specs = Self::all(binary, args, &[("default".to_owned(), data_dir.to_owned())])?;
        Ok(specs.into_iter().next().expect("one name gives one server"))
    }

    /// The founders of a cluster, m1 and so on, with their data directories in `dir`.
    pub fn cluster(
        binary: &Path,
        args: &[String],
        dir: &Path,
        members: usize,
    ) -> Result<Vec<Self>, Failure> {
        let place = |number: usize| (format!("m{number}"), dir.join(format!("m{number}")));
        Self::all(binary, args, &(1..=members).map(place).collect::<Vec<_>>())
    }

    fn all(
        binary: &Path,
        args: &[String],
        places: &[(String, PathBuf)],
    ) -> Result<Vec<Self>, Failure> {
        let failed = || Failure::of("find a free port");
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        // All listeners are held until all ports are known, so that they differ.
        let mut held = Vec::new();
        let mut specs = Vec::new();
        for (name, data_dir) in places {
            if data_dir.exists() {
                return Err(Failure::new(format!("{} exists already", data_dir.display())));
            }
            let (client, peer) = (free().map_err(failed())?, free().map_err(failed())?);
            specs.push(Self {
                binary: binary.to_owned(),
                args: args.to_vec(),
                name: name.clone(),
                initial_cluster: String::new(),
                data_dir: data_dir.clone(),
                client_address: client.local_addr().map_err(failed())?,
                peer_address: peer.local_addr().map_err(failed())?,
            });
            held.extend([client, peer]);
        }
        let urls = specs.iter().map(|spec| format!("{}=http://{}", spec.name, spec.peer_address));
        let initial_cluster = urls.collect::<Vec<_>>().join(",");
        for spec in &mut specs {
            spec.initial_cluster.clone_from(&initial_cluster);
        }
        Ok(specs)
    }

    /// Removes the data directory and the log of a server that is gone.
    pub fn remove(&self) -> Result<(), Failure> {
        let dir = &self.data_dir;
        std::fs::remove_dir_all(dir).map_err(Failure::of(format!("remove {}", dir.display())))?;
        let log = self.log_path();
        std::fs::remove_file(&log).map_err(Failure::of(format!("remove {}", log.display())))
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }
}

/// A running server.
pub struct Server {
    child: Child,
    spec: ServerSpec,
    /// Where this process's part of the log begins.
    log_start: u64,
    exited: Option<ExitStatus>,
}

impl Server {
    /// Starts the process without waiting for it.
    pub fn spawn(spec: &ServerSpec) -> Result<Self, Failure> {
        let log_path = spec.log_path();
        let failed = || Failure::of(format!("open {}", log_path.display()));
        let log = File::options().create(true).append(true).open(&log_path).map_err(failed())?;
        let log_start = log.metadata().map_err(failed())?.len();
        let errors = log.try_clone().map_err(failed())?;
        let client_url = format!("http://{}", spec.client_address);
        let peer_url = format!("http://{}", spec.peer_address);
        let child = Command::new(&spec.binary)
            .args(["--data-dir".as_ref(), spec.data_dir.as_os_str()])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--name", &spec.name, "--initial-cluster", &spec.initial_cluster])
            .args(&spec.args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(Failure::of(format!("start {}", spec.binary.display())))?;
        Ok(Self { child, spec: spec.clone(), log_start, exited: None })
    }

    /// Starts the process and waits until it says that it serves clients.
    pub fn start(spec: &ServerSpec) -> Result<Self, Failure> {
        let mut server = Self::spawn(spec)?;
        server.wait_ready()?;
        Ok(server)
    }

    /// Waits until the process says that it serves clients. A founder says so only once enough
    /// others are there.
    pub fn wait_ready(&mut self) -> Result<(), Failure> {
        let path = self.spec.log_path();
        let failed = || Failure::of(format!("read {}", path.display()));
        let mut log = File::open(&path).map_err(failed())?;
        log.seek(SeekFrom::Start(self.log_start)).map_err(failed())?;
        let mut text = Vec::new();
        let end = Instant::now() + READY_TIME_MAX;
        loop {
            log.read_to_end(&mut text).map_err(failed())?;
            if text.windows(READY_LINE.len()).any(|window| window == READY_LINE.as_bytes()) {
                return Ok(());
            }
            if let Some(status) = self.poll_exit()? {
                return Err(self.failure(&format!("exited with {status} instead of serving")));
            }
            if Instant::now() > end {
                return Err(self.failure("did not get ready"));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// The client address as an endpoint.
    pub fn endpoint(&self) -> String {
        self.spec.client_address.to_string()
    }

    /// Waits until a linearizable get of a key is answered with that key.
    pub fn wait_for_key(&mut self, key: &[u8]) -> Result<(), Failure> {
        let mut request = Vec::new();
        proto::write_range(&mut request, &proto::RangeRequest { key, ..Default::default() });
        let end = Instant::now() + READY_TIME_MAX;
        let mut client = None;
        loop {
            // A connection that was refused, or a call before there is a leader, is tried again.
            let answer = match client.take() {
                Some(client) => Ok(client),
                None => Blocking::connect(self.spec.client_address, Duration::from_secs(10)),
            }
            .and_then(|mut connected| {
                let answer = connected.call(proto::RANGE, &request)?;
                client = Some(connected);
                Ok(answer)
            });
            if let Ok(answer) = answer {
                let count = proto::RangeAnswer::read(&answer).map(|answer| answer.count);
                return match count {
                    Ok(1) => Ok(()),
                    _ => Err(self.failure("lost a key that it had acknowledged")),
                };
            }
            if let Some(status) = self.poll_exit()? {
                return Err(self.failure(&format!("exited with {status} instead of serving")));
            }
            if Instant::now() > end {
                return Err(self.failure("did not answer"));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Result<Usage, Failure> {
        Usage::read(self.child.id())
    }

    /// Ends the process without warning, as a power cut would end it but for the page cache.
    pub fn kill(&mut self) -> Result<(), Failure> {
        if self.poll_exit()?.is_none() {
            self.child.kill().map_err(Failure::of("kill the server"))?;
            let status = self.child.wait().map_err(Failure::of("wait for the server"))?;
            self.exited = Some(status);
        }
        Ok(())
    }

    /// Asks the process to end and waits for it.
    pub fn stop(mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the kernel gave the child a positive number");
        if self.poll_exit()?.is_none() {
            kill_process(pid, Signal::TERM).map_err(Failure::of("stop the server"))?;
        }
        match self.wait_exit(STOP_TIME_MAX)? {
            Some(_) => Ok(()),
            None => Err(self.failure("did not stop on SIGTERM")),
        }
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<Option<ExitStatus>, Failure> {
        let end = Instant::now() + limit;
        loop {
            let status = self.poll_exit()?;
            if status.is_some() || Instant::now() > end {
                return Ok(status);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn poll_exit(&mut self) -> Result<Option<ExitStatus>, Failure> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().map_err(Failure::of("look at the server"))?;
        }
        Ok(self.exited)
    }

    /// A failure of a call, with the end of the server's log if it was the server that ended.
    pub fn explain(&mut self, failure: Failure) -> Failure {
        // A process that dies closes its sockets before it can be waited for.
        match self.wait_exit(EXIT_TIME_MAX) {
            Ok(Some(status)) => self.failure(&format!("exited with {status} ({failure})")),
            _ => failure,
        }
    }

    /// A failure that shows the end of the server's log.
    pub fn failure(&self, what: &str) -> Failure {
        let path = self.spec.log_path();
        let tail = File::open(&path).and_then(|mut log| {
            let start = log.metadata()?.len().saturating_sub(LOG_TAIL_BYTES).max(self.log_start);
            log.seek(SeekFrom::Start(start))?;
            let mut tail = Vec::new();
            log.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        });
        let tail = tail.unwrap_or_else(|error| error.to_string());
        let binary = self.spec.binary.display();
        Failure::new(format!("{binary} {what}; the end of {}:\n{tail}", path.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is left to tell the failure to: the process may be gone already.
        let _ = self.kill();
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Resident memory that no file backs.
    pub anonymous_bytes: u64,
    /// What the process caused to be written to disks.
    pub written_bytes: u64,
}

impl Usage {
    fn read(pid: u32) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::read_to_string(&path).map_err(Failure::of(format!("read {path}")))
        };
        let memory = read("smaps_rollup")?;
        let ticks = cpu_ticks(&read("stat")?)
            .ok_or_else(|| Failure::new("/proc/PID/stat has another form"))?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Self {
            cpu: Duration::from_secs_f64(ticks as f64 / per_second as f64),
            rss_bytes: field(&memory, "Rss:").unwrap_or(0) * 1024,
            anonymous_bytes: field(&memory, "Anonymous:").unwrap_or(0) * 1024,
            written_bytes: field(&read("io")?, "write_bytes:").unwrap_or(0),
        })
    }
}

/// The CPU time that all cores have spent on anything since the machine started.
pub fn machine_cpu() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/stat").map_err(Failure::of("read /proc/stat"))?;
    let ticks = busy_ticks(&stat).ok_or_else(|| Failure::new("/proc/stat has another form"))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// User, nice, system, interrupt and soft interrupt ticks of /proc/stat: all but waiting and what a
/// hypervisor took.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|text| text.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupt, soft_interrupt, ..] = ticks[..] else {
        return None;
    };
    Some(user + nice + system + interrupt + soft_interrupt)
}

/// User and system ticks of a line of /proc/PID/stat. The second field is the name in parentheses
/// and may itself hold anything, so that counting begins after the last of them.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The blocks that a directory's files occupy, in bytes.
pub fn allocated_bytes(path: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let failed = || Failure::of(format!("measure {}", path.display()));
    let mut total = 0;
    for entry in std::fs::read_dir(path).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let metadata = entry.metadata().map_err(failed())?;
        total += metadata.blocks() * 512;
        if metadata.is_dir() {
            total += allocated_bytes(&entry.path())?;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn founders_know_each_other_and_share_no_port() {
        let specs = ServerSpec::cluster(Path::new("x"), &[], Path::new("nowhere"), 3).unwrap();
        let addresses = specs.iter().flat_map(|spec| [spec.client_address, spec.peer_address]);
        assert_eq!(addresses.collect::<std::collections::HashSet<_>>().len(), 6);
        for spec in &specs {
            assert_eq!(spec.initial_cluster, specs[0].initial_cluster);
            let mine = format!("{}=http://{}", spec.name, spec.peer_address);
            assert!(spec.initial_cluster.split(',').any(|each| each == mine), "{mine}");
            assert_eq!(spec.data_dir, Path::new("nowhere").join(&spec.name));
        }
    }

    #[test]
    fn ticks_are_read_behind_any_name() {
        let stat = "42 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 77 23 0 0 20 0 1";
        assert_eq!(cpu_ticks(stat), Some(100));
        assert_eq!(cpu_ticks("42 (etcd) S 1"), None);
    }

    #[test]
    fn idle_time_is_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 99 0 0\ncpu0 1"), Some(31));
        assert_eq!(busy_ticks("cpu  1 2"), None);
    }

    #[test]
    fn fields_are_found_by_name() {
        let text = "Rss:   100 kB\nAnonymous:      20 kB\n";
        assert_eq!(field(text, "Anonymous:"), Some(20));
        assert_eq!(field(text, "Swap:"), None);
    }

    #[test]
    fn our_own_usage_can_be_read() {
        let usage = Usage::read(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.anonymous_bytes <= usage.rss_bytes);
    }
}
