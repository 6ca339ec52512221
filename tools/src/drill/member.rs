//! A member's process: started, stopped, held up, killed.
//!
//! Invariants:
//! - A process never outlives its [`Member`]: dropping it ends the process by its id, and waits as
//!   long as it has nothing to wait for itself.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A member that has not stopped so long after it was asked to is stuck.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
/// The same of one that was killed and waits for nothing but the processor.
const KILL_TIME_MAX: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// What a failure shows of a log.
const LOG_TAIL_BYTES: usize = 3000;

/// How a member is started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The executable.
    pub binary: PathBuf,
    /// All its arguments.
    pub args: Vec<String>,
    /// The network namespace it lives in.
    pub namespace: Option<String>,
    /// Where its clients connect.
    pub client: SocketAddr,
    /// Where it writes what happens.
    pub log: PathBuf,
}

/// What a process holds in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident now.
    pub resident_kib: u64,
    /// That no file backs.
    pub anonymous_kib: u64,
    /// The most that was ever resident.
    pub peak_kib: u64,
}

/// A member.
pub struct Member {
    /// How it is started.
    pub spec: Spec,
    child: Option<Child>,
    /// A process that was killed and cannot end yet, because it waits for a disk.
    dying: Option<Child>,
    /// Whether it may end by itself, because its disk is full.
    pub may_end: bool,
    /// What it logged last before it did.
    pub last_words: Option<String>,
    peak_kib: u64,
}

impl Member {
    /// One that does not run yet.
    #[must_use]
    pub const fn new(spec: Spec) -> Self {
        Self { spec, child: None, dying: None, may_end: false, last_words: None, peak_kib: 0 }
    }

    /// Starts it; answers with its process id.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self) -> Result<u32, String> {
        assert!(self.child.is_none(), "{} runs already", self.spec.name);
        if let Some(mut dying) = self.dying.take()
            && !has_ended(&mut dying, STOP_TIME_MAX)
        {
            return Err(format!("{} does not end although it was killed", self.spec.name));
        }
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", self.spec.name);
        let log = File::options().create(true).append(true).open(&self.spec.log).map_err(failed)?;
        let mut command = match &self.spec.namespace {
            None => Command::new(&self.spec.binary),
            Some(namespace) => {
                // It becomes the member, so that the child's id is the member's.
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}")).arg(&self.spec.binary);
                command
            }
        };
        let child = command
            .args(&self.spec.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let pid = child.id();
        self.child = Some(child);
        Ok(pid)
    }

    /// Whether it was started and not ended by us.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended, if it did by itself; from then on it is not started.
    pub fn poll_end(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    fn signal(&mut self, signal: Signal) {
        let Some(child) = &self.child else { return };
        // It has not been waited for, so its id is still its own; if it has just ended, then
        // `poll_end` is who tells.
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Lets it do nothing.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        if let Some(memory) = self.memory() {
            self.peak_kib = self.peak_kib.max(memory.peak_kib);
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            if !has_ended(&mut child, KILL_TIME_MAX) {
                self.dying = Some(child);
            }
        }
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// It does not.
    pub fn stop(&mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        let is_over = self.child.as_mut().is_none_or(|child| has_ended(child, STOP_TIME_MAX));
        if !is_over {
            return Err(format!("{} does not end on SIGTERM", self.spec.name));
        }
        self.child = None;
        Ok(())
    }

    /// What it holds in memory; the peak is that of all processes it ever was.
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        let pid = self.child.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Memory {
            resident_kib: field("VmRSS:")?,
            anonymous_kib: field("RssAnon:")?,
            peak_kib: field("VmHWM:")?.max(self.peak_kib),
        })
    }

    /// The end of what it has logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.spec.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }

    /// The last line that tells of trouble, or the last one of all.
    #[must_use]
    pub fn last_line(&self) -> String {
        let tail = self.log_tail();
        let is_grave = |line: &&str| ["fatal", "panic"].iter().any(|word| line.contains(word));
        let grave = tail.lines().rev().find(is_grave);
        grave.or_else(|| tail.lines().last()).unwrap_or_default().to_owned()
    }
}

/// Whether a process ends in time.
fn has_ended(child: &mut Child, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => std::thread::sleep(POLL_INTERVAL),
            outcome => return !matches!(outcome, Ok(None)),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
