//! The health checks: what is asked, in which order, and how the answer reads.
//!
//! Reads are calls through the same door as everybody's, so a check fails where a client would.
//!
//! Invariants:
//! - The checks of a request are made one after the other, each once.

use std::collections::VecDeque;

use super::answer::ERROR_FIELDS;
use super::json::{Escape, put_string};
use super::link::{Link, LinkEvent};
use super::query;
use super::route::{Check, LIVEZ, Page, READYZ};

/// A range over one key, which need not be there, without values: linearizable, and serializable.
/// etcd asks for the empty key, which is refused at the door that our call goes through.
const READ: &[u8] = b"\x0a\x01\0\x18\x01\x40\x01";
const READ_SERIALIZABLE: &[u8] = b"\x0a\x01\0\x18\x01\x38\x01\x40\x01";
const RANGE_PATH: &str = "/etcdserverpb.KV/Range";

/// A kind of alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// The quota is used up.
    NoSpace,
    /// The store is damaged.
    Corrupt,
    /// Another one.
    Other(i32),
}

impl AlarmKind {
    /// What clients call it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::NoSpace => "NOSPACE".into(),
            Self::Corrupt => "CORRUPT".into(),
            Self::Other(number) => number.to_string(),
        }
    }
}

/// What the owner knows of the member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Alarms that are raised, with the members that raised them.
    pub alarms: Vec<(u64, AlarmKind)>,
    /// A leader is known.
    pub has_leader: bool,
    /// This member has no vote.
    pub is_learner: bool,
    /// The server's version.
    pub server_version: &'static str,
    /// The cluster's, once it has one.
    pub cluster_version: Option<String>,
    /// The store's, once it has one.
    pub storage_version: Option<String>,
}

impl Facts {
    /// What `/version` answers.
    #[must_use]
    pub fn version_json(&self) -> Vec<u8> {
        let cluster = self.cluster_version.as_deref().unwrap_or("not_decided");
        let storage = self.storage_version.as_deref().unwrap_or("unknown");
        let mut out = b"{\"etcdserver\":".to_vec();
        put_string(&mut out, self.server_version, Escape::Html);
        out.extend_from_slice(b",\"etcdcluster\":");
        put_string(&mut out, cluster, Escape::Html);
        out.extend_from_slice(b",\"storage\":");
        put_string(&mut out, storage, Escape::Html);
        out.push(b'}');
        out
    }
}

/// What etcd writes into its log about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A request for an unknown host was rejected.
    HostRejected(String),
    /// A page was asked for with another method.
    MethodNotAllowed(String),
    /// `/health` is false because of this alarm.
    AlarmRaised(u64, AlarmKind),
    /// `/health` is false because there is no leader.
    NoLeader,
    /// `/health` is false because the read failed.
    ReadFailed(String),
    /// `/health` was false: the answer.
    HealthFalse(String),
    /// A check of this path failed, for these reasons.
    CheckFailed(String, String),
    /// Checks that were to be left out are none.
    UnknownChecks(Vec<String>),
    /// `/health` was answered.
    HealthAnswered(bool),
    /// A check of `/livez` or `/readyz` was made.
    CheckMade(&'static str, Check, bool),
}

impl Notice {
    /// Whether the log is to have a line of it.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        !matches!(self, Self::HealthAnswered(_) | Self::CheckMade(..))
    }
}

/// What is asked.
#[derive(Debug)]
enum Question {
    Health { excluded: Vec<String>, serializable: bool },
    Checks { kind: &'static str, left: VecDeque<Check>, verbose: bool },
}

/// An answer.
#[derive(Debug)]
pub struct CheckResult {
    /// The HTTP status.
    pub status: u16,
    /// The fields.
    pub fields: Vec<(&'static str, &'static str)>,
    /// The fields behind the date.
    pub late: Vec<(&'static str, &'static str)>,
    /// The body.
    pub body: String,
}

/// The checks of one request.
#[derive(Debug)]
pub struct Checks {
    path: String,
    question: Question,
    /// `None` until the owner has told.
    facts: Option<Facts>,
    reading: bool,
    lines: String,
    has_failed: bool,
    /// `/health`: why not, once it is known; the empty reason means that all is well.
    reason: Option<String>,
}

impl Checks {
    /// The checks of a page.
    #[must_use]
    pub fn new(page: Page, path: String, query: &str, notices: &mut Vec<Notice>) -> Self {
        let query = query::parse(query);
        let mut excluded: Vec<String> = query
            .iter()
            .filter(|(name, value)| name == "exclude" && !value.is_empty())
            .map(|(_, value)| value.clone())
            .collect();
        let verbose = query.iter().any(|(name, _)| name == "verbose");
        let (kind, all, only) = match page {
            Page::Livez(only) => ("livez", LIVEZ, only),
            Page::Readyz(only) => ("readyz", READYZ, only),
            _ => ("", &[][..], None),
        };
        let question = if kind.is_empty() {
            let first = query.iter().find(|(name, _)| name == "serializable");
            let serializable = first.is_some_and(|(_, value)| value == "true");
            Question::Health { excluded, serializable }
        } else {
            let left = match only {
                Some(check) => VecDeque::from([check]),
                None => {
                    let kept = |check: &&Check| !excluded.iter().any(|name| name == check.name());
                    let left = all.iter().filter(kept).copied().collect();
                    excluded.retain(|name| !all.iter().any(|check| check.name() == name));
                    excluded.sort_unstable();
                    excluded.dedup();
                    if !excluded.is_empty() {
                        notices.push(Notice::UnknownChecks(excluded));
                    }
                    left
                }
            };
            Question::Checks { kind, left, verbose }
        };
        let (lines, reason) = (String::new(), None);
        Self { path, question, facts: None, reading: false, lines, has_failed: false, reason }
    }

    /// The owner told what it knows.
    pub fn handle_facts(&mut self, facts: &Facts, notices: &mut Vec<Notice>) {
        self.facts = Some(facts.clone());
        let Question::Health { excluded, serializable } = &self.question else { return };
        let raised = facts.alarms.iter().find(|(_, kind)| !excluded.contains(&kind.name()));
        if let Some(&(member, kind)) = raised {
            notices.push(Notice::AlarmRaised(member, kind));
            self.reason = Some(match kind {
                AlarmKind::NoSpace | AlarmKind::Corrupt => format!("ALARM {}", kind.name()),
                AlarmKind::Other(_) => "ALARM UNKNOWN".into(),
            });
        } else if !serializable && !facts.has_leader {
            notices.push(Notice::NoLeader);
            self.reason = Some("RAFT NO LEADER".into());
        }
    }

    /// Whether it is a read that is being made, and not one that this member answers alone.
    pub fn awaits_others(&self) -> bool {
        let is_serializable = match &self.question {
            Question::Health { serializable, .. } => *serializable,
            Question::Checks { left, .. } => left.front() == Some(&Check::SerializableRead),
        };
        self.reading && !is_serializable
    }

    /// Makes the next check; `false` if nothing came of it.
    pub fn step(&mut self, link: &mut Link, notices: &mut Vec<Notice>) -> bool {
        let Some(facts) = &self.facts else { return false };
        if self.reading {
            let mut ended = None;
            while let Some(event) = link.poll_event() {
                if let LinkEvent::Ended(end) = event {
                    ended = Some(end);
                }
            }
            link.release();
            let Some(ended) = ended else { return false };
            self.reading = false;
            let failure = (ended.code != 0).then_some(ended.message);
            self.handle_read(failure, notices);
            return true;
        }
        let serializable = match &self.question {
            Question::Health { .. } if self.reason.is_some() => return false,
            Question::Health { serializable, .. } => *serializable,
            Question::Checks { left, .. } => {
                let Some(check) = left.front() else { return false };
                let failure = match check {
                    Check::SerializableRead | Check::LinearizableRead => None,
                    Check::DataCorruption => {
                        let is_raised =
                            facts.alarms.iter().any(|(_, kind)| *kind == AlarmKind::Corrupt);
                        Some(is_raised.then_some("alarm activated: CORRUPT"))
                    }
                    Check::NonLearner => {
                        Some(facts.is_learner.then_some("not supported for learner"))
                    }
                };
                if let Some(failure) = failure {
                    self.handle_read(failure.map(str::to_owned), notices);
                    return true;
                }
                *check == Check::SerializableRead
            }
        };
        link.begin(RANGE_PATH, &[]);
        link.send(if serializable { READ_SERIALIZABLE } else { READ });
        link.close_send();
        self.reading = true;
        true
    }

    fn handle_read(&mut self, failure: Option<String>, notices: &mut Vec<Notice>) {
        match &mut self.question {
            Question::Health { .. } => {
                self.reason = Some(match failure {
                    None => String::new(),
                    Some(text) => {
                        notices.push(Notice::ReadFailed(text.clone()));
                        format!("RANGE ERROR:{text}")
                    }
                });
            }
            Question::Checks { kind, left, .. } => {
                let check = left.pop_front().expect("it was being made");
                notices.push(Notice::CheckMade(kind, check, failure.is_none()));
                let name = check.name();
                self.lines.push_str(&match &failure {
                    None => format!("[+]{name} ok\n"),
                    Some(text) => format!("[-]{name} failed: {text}\n"),
                });
                self.has_failed |= failure.is_some();
            }
        }
    }

    /// The answer, once all checks were made.
    pub fn poll_result(&mut self, notices: &mut Vec<Notice>) -> Option<CheckResult> {
        self.facts.as_ref()?;
        match &self.question {
            Question::Health { .. } => {
                let reason = self.reason.take()?;
                let is_healthy = reason.is_empty();
                let mut body = format!("{{\"health\":\"{is_healthy}\",\"reason\":").into_bytes();
                put_string(&mut body, &reason, Escape::Html);
                body.push(b'}');
                let mut body = String::from_utf8(body).expect("JSON of texts is text");
                notices.push(Notice::HealthAnswered(is_healthy));
                if is_healthy {
                    let late = vec![("Content-Type", "text/plain; charset=utf-8")];
                    return Some(CheckResult { status: 200, fields: Vec::new(), late, body });
                }
                notices.push(Notice::HealthFalse(body.clone()));
                body.push('\n');
                let fields = ERROR_FIELDS.to_vec();
                Some(CheckResult { status: 503, fields, late: Vec::new(), body })
            }
            Question::Checks { left, verbose, .. } => {
                if !left.is_empty() || self.reading {
                    return None;
                }
                let mut body = std::mem::take(&mut self.lines);
                let fields = ERROR_FIELDS.to_vec();
                if self.has_failed {
                    let path = self.path.clone();
                    notices.push(Notice::CheckFailed(path, body.clone()));
                    body.push('\n');
                    return Some(CheckResult { status: 503, fields, late: Vec::new(), body });
                }
                if !verbose {
                    body.clear();
                }
                body.push_str("ok\n");
                Some(CheckResult { status: 200, fields, late: Vec::new(), body })
            }
        }
    }
}
