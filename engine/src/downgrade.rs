//! Downgrades: a cluster agrees to speak an earlier version, so that members of it may join.
//!
//! The target stands in the `system` tree of shard 0 while the downgrade is on. The cluster's
//! version follows it by a command of its own.
//!
//! Invariant: a downgrade goes one minor version back and no further, whoever asks.

use crate::answer::{Outcome, ReadError, Rejection};
use crate::page::{PageFault, Pages};
use crate::store::{self, ShardRoots};
use crate::system;
use crate::working::Working;

/// The key of the target in the `system` tree.
pub(crate) const DOWNGRADE: &[u8] = b"downgrade";

/// The version of a cluster: the third part of its text says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterVersion {
    /// The first part.
    pub major: i64,
    /// The second part.
    pub minor: i64,
}

impl ClusterVersion {
    /// Reads the text a cluster's version is stored as; `None` for any other.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let (minor, _patch) = rest.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// The version one minor before.
    #[must_use]
    pub fn one_before(self) -> Self {
        Self { minor: self.minor.saturating_sub(1), ..self }
    }
}

impl std::fmt::Display for ClusterVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.0", self.major, self.minor)
    }
}

/// The target of the downgrade that is on; the roots are those of shard 0.
pub(crate) fn target<P: Pages>(pages: &P, roots: &ShardRoots) -> Result<Option<String>, ReadError> {
    let Some(bytes) = system::get(pages, roots, DOWNGRADE)? else { return Ok(None) };
    match std::str::from_utf8(bytes) {
        Ok(target) => Ok(Some(target.to_owned())),
        Err(_) => Err(store::damaged(pages, roots.system, "target of a downgrade").into()),
    }
}

/// Whether a downgrade to this version may begin; answers with the cluster's version.
pub(crate) fn check<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
    wanted: &str,
) -> Result<ClusterVersion, ReadError> {
    let version = version_of(pages, roots)?.ok_or(Rejection::ClusterVersionUnknown)?;
    if ClusterVersion::from_text(wanted) != Some(version.one_before()) {
        return Err(Rejection::InvalidDowngradeTarget.into());
    }
    match target(pages, roots)? {
        Some(_) => Err(Rejection::DowngradeInProcess.into()),
        None => Ok(version),
    }
}

fn version_of<P: Pages>(
    pages: &P,
    roots: &ShardRoots,
) -> Result<Option<ClusterVersion>, ReadError> {
    let text = system::cluster_version(pages, roots)?;
    Ok(text.as_deref().and_then(ClusterVersion::from_text))
}

/// Takes over a downgrade that was on in another store.
pub(crate) fn import(target: &str, working: &mut Working) -> Result<(), PageFault> {
    system::put(&mut working.shards[0], DOWNGRADE, target.as_bytes())
}

/// Begins a downgrade, or ends one. Ending what is not on does nothing.
pub(crate) fn apply(wanted: Option<&str>, working: &mut Working) -> Result<Outcome, ReadError> {
    let shard = &mut working.shards[0];
    match wanted {
        Some(wanted) => match check(&shard.file, &shard.roots, wanted) {
            Ok(_) => system::put(shard, DOWNGRADE, wanted.as_bytes())?,
            Err(ReadError::Rejection(rejection)) => return Ok(Outcome::Rejected(rejection)),
            Err(fault) => return Err(fault),
        },
        None => system::remove(shard, DOWNGRADE)?,
    }
    Ok(match version_of(&shard.file, &shard.roots)? {
        Some(version) => Outcome::Downgrade { version },
        None => Outcome::Rejected(Rejection::ClusterVersionUnknown),
    })
}
