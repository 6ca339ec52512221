//! A member as a process: started, watched through its log, stopped or killed.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::json::{Object, parse_object};

/// What has not happened by then never will.
pub const WAIT_MAX: Duration = Duration::from_secs(120);

const SERVING: &str = "serving client traffic insecurely; this is strongly discouraged!";

/// The arguments every member gets: ports that the system picks, and fixed addresses to the
/// outside, so that the ids are the same at each start.
pub fn arguments(data_dir: &Path) -> Vec<String> {
    let data_dir = data_dir.to_str().expect("test directories have plain names");
    let mut list = vec!["--name", "m", "--data-dir", data_dir];
    list.extend(["--listen-client-urls", "http://127.0.0.1:0"]);
    list.extend(["--listen-peer-urls", "http://127.0.0.1:0"]);
    list.extend(["--advertise-client-urls", "http://localhost:2379"]);
    list.iter().map(|&text| text.to_owned()).collect()
}

/// The binary, without anything of the environment that it might take for its own.
pub fn ringd() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_ringd")))
}

/// The binary on a directory, under limits that a shell sets.
pub fn limited(limits: &str, data_dir: &Path) -> Command {
    let script = format!("{limits}; exec \"$0\" \"$@\"");
    let mut command = without_settings(Command::new("sh"));
    command.args(["-c", &script, env!("CARGO_BIN_EXE_ringd")]).args(arguments(data_dir));
    command
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running member. Dropping it kills the process.
pub struct Member {
    child: Child,
    lines: Receiver<String>,
    /// What its log has said so far.
    log: Vec<String>,
}

impl Member {
    /// Starts one on a directory and waits until it serves.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// The same with more arguments.
    pub fn start_with(data_dir: &Path, more: &[&str]) -> Self {
        let mut member = Self::spawn(ringd().args(arguments(data_dir)).args(more));
        member.wait_for(SERVING);
        member
    }

    /// Starts one with a limit on the size of files, as a full disk gives it. The signal that goes
    /// with the limit is ignored, as a full disk sends none.
    pub fn start_limited(data_dir: &Path, file_size_bytes_max: u64) -> Self {
        let blocks = file_size_bytes_max / 512;
        let limits = format!("trap '' XFSZ; ulimit -f {blocks}");
        let mut member = Self::spawn(&mut limited(&limits, data_dir));
        member.wait_for(SERVING);
        member
    }

    /// Starts a process and waits for nothing.
    pub fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self::watch(command.spawn().unwrap())
    }

    fn watch(mut child: Child) -> Self {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, log: Vec::new() }
    }

    /// Waits until clients are served.
    pub fn wait_until_serving(&mut self) {
        self.wait_for(SERVING);
    }

    /// Waits for a message in the log; ends the test when the process ends first.
    pub fn wait_for(&mut self, message: &str) -> Object {
        self.wait_for_or_end(message).unwrap_or_else(|| {
            let status = self.child.wait().unwrap();
            panic!("{status} without {message:?} in\n{}", self.log_text());
        })
    }

    fn wait_for_or_end(&mut self, message: &str) -> Option<Object> {
        let end = Instant::now() + WAIT_MAX;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let object = parse_object(&line);
                    self.log.push(line);
                    match object {
                        Ok(object) if object.get("msg").is_some_and(|msg| msg == message) => {
                            return Some(object);
                        }
                        _ => {}
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {message:?} in\n{}", self.log_text()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        let mut lines = self.log.iter().rev().filter_map(|line| parse_object(line).ok());
        let line = lines.find(|line| line["msg"] == SERVING).expect("it serves");
        let address: SocketAddr = line["address"].parse().unwrap();
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
        address
    }

    /// A connection of its own.
    pub fn connect(&self) -> Client {
        Client::connect(self.address()).expect("a member that serves is connected to")
    }

    /// A connection, unless the process ends before it serves.
    pub fn connect_if_served(&mut self) -> Option<Client> {
        self.wait_for_or_end(SERVING)?;
        Client::connect(self.address()).ok()
    }

    /// Sends a signal by name, as `kill` does.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
    }

    /// Kills it: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {}", self.log_text());
    }

    /// Waits for its end: how, and its whole log.
    pub fn end(mut self) -> (ExitStatus, Vec<String>) {
        let end = Instant::now() + WAIT_MAX;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end of\n{}", self.log_text()),
            }
        }
        let status = self.child.wait().unwrap();
        (status, std::mem::take(&mut self.log))
    }

    pub fn log_text(&self) -> String {
        self.log.join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A start that is expected to be refused.
pub struct Refused {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Refused {
    /// Runs a command to its end.
    pub fn run(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let out = thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        });
        let member = Member::watch(child);
        let (status, log) = member.end();
        let stdout = out.join().unwrap().unwrap();
        Self { code: status.code(), stdout, stderr: log.join("\n") }
    }

    /// Runs a member on a directory.
    pub fn start(data_dir: &Path) -> Self {
        Self::run(ringd().args(arguments(data_dir)))
    }

    /// The one fatal line: what it says is wrong.
    pub fn fatal(&self) -> String {
        let lines = self.stderr.lines().map(|line| parse_object(line).expect(line));
        let fatal: Vec<Object> = lines.filter(|line| line["level"] == "fatal").collect();
        assert_eq!(fatal.len(), 1, "{}", self.stderr);
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        fatal[0]["error"].clone()
    }
}
