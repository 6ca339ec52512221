//! `--placement`: which core carries which role.
//!
//! Only the grammar. Whether the cores named exist, and what `auto` makes of the machine, is for
//! the runtime to say, which knows the affinity mask and the quota.

use super::value::ValueError;

/// The most cores a list may name: above this it is a slip of the keyboard, not a machine.
pub const CORES_MAX: usize = 1024;

/// What `--placement` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// By the number of cores.
    #[default]
    Auto,
    /// As the operator says. The numbers are the machine's.
    Cores {
        /// The core of sequencer, raft and log.
        log: u16,
        /// The cores that own keys.
        shards: Vec<u16>,
        /// The cores that serve connections.
        frontends: Vec<u16>,
    },
}

impl Placement {
    /// Reads `auto` or all three of `log=`, `shard=` and `frontend=`; lists join by `+`, ranges by
    /// `-`.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let (mut log, mut shards, mut frontends) = (None, None, None);
        for part in text.split(',') {
            let (role, cores) = part.split_once('=').ok_or_else(|| wrong(text))?;
            let slot = match role.trim() {
                "log" => &mut log,
                "shard" => &mut shards,
                "frontend" => &mut frontends,
                _ => return Err(wrong(text)),
            };
            if slot.replace(parse_cores(cores.trim()).ok_or_else(|| wrong(text))?).is_some() {
                return Err(wrong(text));
            }
        }
        match (log.as_deref(), shards, frontends) {
            (Some(&[log]), Some(shards), Some(frontends)) => {
                Ok(Self::Cores { log, shards, frontends })
            }
            _ => Err(wrong(text)),
        }
    }
}

fn parse_cores(text: &str) -> Option<Vec<u16>> {
    let mut cores = Vec::new();
    for part in text.split('+') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || cores.len() + usize::from(last - first) >= CORES_MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    let count = cores.len();
    cores.sort_unstable();
    cores.dedup();
    (cores.len() == count).then_some(cores)
}

fn wrong(text: &str) -> ValueError {
    let shape = "expected auto, or all of log=N,shard=N,frontend=N with lists like 0-1+3";
    ValueError::Text(format!("{shape}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_ranges_and_auto_are_read() {
        assert_eq!(Placement::parse("auto").unwrap(), Placement::Auto);
        assert_eq!(
            Placement::parse("frontend=3+0-1, log=0,shard=2").unwrap(),
            Placement::Cores { log: 0, shards: vec![2], frontends: vec![0, 1, 3] }
        );
    }

    #[test]
    fn half_a_placement_is_none() {
        for text in [
            "",
            "log",
            "log=0",
            "log=0,shard=0",
            "log=0-1,shard=0,frontend=0",
            "log=0,shard=1-0,frontend=0",
            "log=0,shard=0+0,frontend=0",
            "log=0,log=0,shard=0,frontend=0",
            "log=0,shard=,frontend=0",
            "log=0,shard=0,frontend=0,disk=1",
            "log=0,shard=0,frontend=0-65535",
            "log=0,shard=0,frontend=65536",
        ] {
            assert!(Placement::parse(text).is_err(), "{text:?}");
        }
        let most = format!("log=0,shard=0,frontend=0-{}", CORES_MAX - 1);
        assert!(Placement::parse(&most).is_ok());
        let more = format!("log=0,shard=0,frontend=0-{CORES_MAX}");
        assert!(Placement::parse(&more).is_err());
    }
}
