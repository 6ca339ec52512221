//! Alarms: what a cluster says about itself, and what it refuses while it does.
//!
//! An alarm names a kind and a member, is raised and lowered through the log, and stands in the
//! `system` tree of shard 0. Nobody lowers one but whoever is told to.
//!
//! Invariants:
//! - An alarm stands once: raising it again changes nothing and is answered alike.
//! - The [`AlarmGate`] is what the tree says; it changes with it, in log order, so that every
//!   member refuses the same commands.

use crate::answer::{Outcome, ReadError, Rejection};
use crate::command::{AlarmAction, AlarmRef, Command};
use crate::ids::MemberId;
use crate::page::{PageFault, Pages};
use crate::store::{self, ShardRoots};
use crate::system;
use crate::tree::Cursor;
use crate::working::Working;

/// The wire's number of an alarm's kind; one that nobody knows is kept as it came, as in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlarmKind(pub i32);

impl AlarmKind {
    /// None of them: it cannot be raised.
    pub const NONE: Self = Self(0);
    /// A member's store is over its quota.
    pub const NO_SPACE: Self = Self(1);
    /// A member's store does not hold what the others hold.
    pub const CORRUPT: Self = Self(2);
}

/// An alarm that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// What it says.
    pub kind: AlarmKind,
    /// Of which member.
    pub member: MemberId,
}

/// What the alarms that stand refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AlarmGate {
    no_space: bool,
    corrupt: bool,
}

impl AlarmGate {
    pub(crate) fn load<P: Pages>(pages: &P, roots: &ShardRoots) -> Result<Self, ReadError> {
        let stands = |kind| -> Result<bool, ReadError> {
            let first = first_from(pages, roots, kind)?;
            Ok(first.is_some_and(|alarm| alarm.kind == kind))
        };
        let no_space = stands(AlarmKind::NO_SPACE)?;
        Ok(Self { no_space, corrupt: stands(AlarmKind::CORRUPT)? })
    }

    /// Why a command is refused, if it is. What only serves the cluster itself never is.
    pub(crate) fn refusal_of(self, command: &Command<'_>) -> Option<Rejection> {
        if self == Self::default() {
            return None;
        }
        let stores = match command {
            Command::Put(_) | Command::LeaseGrant(_) => true,
            Command::Txn(table) => table.has_put(),
            Command::DeleteRange(_) | Command::Compact(_) | Command::LeaseRevoke(_) => false,
            Command::MemberPublish(_)
            | Command::ClusterVersionSet(_)
            | Command::LeaseCheckpoint(_)
            | Command::Alarm(_)
            | Command::Downgrade(_)
            | Command::MemberAdd(_)
            | Command::MemberRemove(_)
            | Command::MemberPromote(_)
            | Command::MemberUpdate(_) => return None,
        };
        self.refusal_of_storing().filter(|refusal| stores || *refusal == Rejection::Corrupt)
    }

    /// Why a command that stores something is refused, if it is.
    pub(crate) fn refusal_of_storing(self) -> Option<Rejection> {
        if self.corrupt {
            Some(Rejection::Corrupt)
        } else {
            self.no_space.then_some(Rejection::NoSpace)
        }
    }
}

/// The key of an alarm in the `system` tree; kind and member follow, big endian.
pub(crate) const ALARM: &[u8] = b"alarm/";
const SUFFIX_SIZE_BYTES: usize = 12;

pub(crate) fn alarm_key(alarm: Alarm) -> Vec<u8> {
    [ALARM, &alarm.kind.0.to_be_bytes(), &alarm.member.0.to_be_bytes()].concat()
}

pub(crate) fn alarm_of(suffix: &[u8]) -> Option<Alarm> {
    let suffix: &[u8; SUFFIX_SIZE_BYTES] = suffix.try_into().ok()?;
    let (kind, member) = suffix.split_first_chunk::<4>()?;
    let kind = AlarmKind(i32::from_be_bytes(*kind));
    Some(Alarm { kind, member: MemberId(u64::from_be_bytes(member.try_into().ok()?)) })
}

/// The alarms that stand, by kind, then by member; the roots are those of shard 0.
pub(crate) fn list<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    out: &mut Vec<Alarm>,
) -> Result<(), ReadError> {
    let mut cursor = Cursor::new(pages, roots.system);
    cursor.seek(ALARM)?;
    while let Some((key, _)) = cursor.next()? {
        let Some(suffix) = key.strip_prefix(ALARM) else { break };
        let Some(alarm) = alarm_of(suffix) else {
            return Err(store::damaged(pages, roots.system, "alarm").into());
        };
        out.push(alarm);
    }
    Ok(())
}

/// The first alarm of a kind, or of the next one that has any. How many stand is up to clients,
/// and so whoever wants to know of few must not walk all.
fn first_from<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    kind: AlarmKind,
) -> Result<Option<Alarm>, ReadError> {
    let mut cursor = Cursor::new(pages, roots.system);
    cursor.seek(&alarm_key(Alarm { kind, member: MemberId(0) }))?;
    let Some((key, _)) = cursor.next()? else { return Ok(None) };
    let Some(suffix) = key.strip_prefix(ALARM) else { return Ok(None) };
    match alarm_of(suffix) {
        Some(alarm) => Ok(Some(alarm)),
        None => Err(store::damaged(pages, roots.system, "alarm").into()),
    }
}

/// An alarm of each kind that has any, of `kinds_max` kinds at most.
pub(crate) fn list_kinds<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    kinds_max: usize,
) -> Result<Vec<Alarm>, ReadError> {
    let (mut alarms, mut kind) = (Vec::new(), AlarmKind::NONE);
    while alarms.len() < kinds_max
        && let Some(alarm) = first_from(pages, roots, kind)?
    {
        alarms.push(alarm);
        // As they stand in the tree: those below zero behind the others.
        kind = AlarmKind(alarm.kind.0.wrapping_add(1));
        if kind == AlarmKind::NONE {
            break;
        }
    }
    Ok(alarms)
}

/// Whether an alarm stands; the roots are those of shard 0.
pub(crate) fn stands<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    alarm: Alarm,
) -> Result<bool, PageFault> {
    Ok(system::get(pages, roots, &alarm_key(alarm))?.is_some())
}

/// Takes over an alarm that stood in another store.
pub(crate) fn import(alarm: Alarm, working: &mut Working) -> Result<(), ReadError> {
    system::put(&mut working.shards[0], &alarm_key(alarm), &[])?;
    let shard = &working.shards[0];
    working.alarms = AlarmGate::load(&shard.file, &shard.roots)?;
    Ok(())
}

/// Raises or lowers an alarm.
pub(crate) fn apply(change: AlarmRef, working: &mut Working) -> Result<Outcome, ReadError> {
    let AlarmRef { action, alarm } = change;
    let key = alarm_key(alarm);
    let stood = stands(&working.shards[0].file, &working.shards[0].roots, alarm)?;
    let told = match action {
        AlarmAction::Raise | AlarmAction::RaiseForQuota if alarm.kind == AlarmKind::NONE => false,
        AlarmAction::Raise | AlarmAction::RaiseForQuota => {
            if !stood {
                system::put(&mut working.shards[0], &key, &[])?;
            }
            true
        }
        AlarmAction::Lower => {
            if stood {
                system::remove(&mut working.shards[0], &key)?;
            }
            stood
        }
    };
    let shard = &working.shards[0];
    working.alarms = AlarmGate::load(&shard.file, &shard.roots)?;
    Ok(match action {
        AlarmAction::RaiseForQuota => Outcome::Rejected(Rejection::NoSpace),
        AlarmAction::Raise | AlarmAction::Lower => Outcome::Alarm(told.then_some(alarm)),
    })
}
