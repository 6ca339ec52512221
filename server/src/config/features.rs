//! `--feature-gates`: etcd's eleven switches of single features, two of which stand for groups.
//!
//! A gate is served, or taken with a line that says why it has no effect here. The grammar and its
//! errors are those of the gates that etcd has from Kubernetes.

use super::value::{ValueError, parse_switch};

/// How far a feature is; the groups switch all of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless refused.
    Beta,
}

/// What ringd makes of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateStand {
    /// It does what it says.
    Served,
    /// Either position is taken, for this reason.
    Moot(&'static str),
}

/// One gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// How far it is.
    pub stage: Stage,
    /// What it is when nobody sets it.
    pub default: bool,
    /// What is done with it.
    pub stand: GateStand,
}

const fn gate(name: &'static str, stage: Stage, default: bool, stand: GateStand) -> Gate {
    Gate { name, stage, default, stand }
}

/// In the order in which they are shown. The groups come first, as gates of their own.
#[rustfmt::skip]
pub const GATES: &[Gate] = &[
    gate(ALL_ALPHA, Stage::Alpha, false, GateStand::Served),
    gate(ALL_BETA, Stage::Beta, false, GateStand::Served),
    gate(COMPACT_HASH_CHECK, Stage::Alpha, false, GateStand::Served),
    gate("FastLeaseKeepAlive", Stage::Beta, true,
        GateStand::Moot("a keep-alive never waits for the log")),
    gate(INITIAL_CORRUPT_CHECK, Stage::Alpha, false, GateStand::Served),
    gate(LEASE_CHECKPOINT, Stage::Alpha, false, GateStand::Served),
    gate(LEASE_CHECKPOINT_PERSIST, Stage::Alpha, false,
        GateStand::Moot("what is noted of a lease is durable, as in every cluster from 3.6 on")),
    gate("PriorityRequest", Stage::Alpha, false,
        GateStand::Moot("what is admitted is applied with the next batch")),
    gate(SET_MEMBER_LOCAL_ADDR, Stage::Alpha, false, GateStand::Served),
    gate("StopGRPCServiceOnDefrag", Stage::Alpha, false,
        GateStand::Moot("a defragmentation stops nothing")),
    gate("TxnModeWriteWithSharedBuffer", Stage::Beta, true,
        GateStand::Moot("a transaction reads the tree it writes")),
];

const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";
const COMPACT_HASH_CHECK: &str = "CompactHashCheck";
const INITIAL_CORRUPT_CHECK: &str = "InitialCorruptCheck";
const LEASE_CHECKPOINT: &str = "LeaseCheckpoint";
const SET_MEMBER_LOCAL_ADDR: &str = "SetMemberLocalAddr";
const LEASE_CHECKPOINT_PERSIST: &str = "LeaseCheckpointPersist";

/// The position of every gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    /// What was set, by place in [`GATES`]; the rest is at its default.
    set: [Option<bool>; GATES.len()],
}

impl FeatureGates {
    /// Whether the leader compares the hashes that compactions left on the members.
    pub fn compact_hash_check(&self) -> bool {
        self.is_on(COMPACT_HASH_CHECK)
    }

    /// Whether a member compares its keys with the others' before it serves anybody.
    pub fn initial_corrupt_check(&self) -> bool {
        self.is_on(INITIAL_CORRUPT_CHECK)
    }

    /// Whether the leader writes the remaining time of leases into the log.
    pub fn lease_checkpoint(&self) -> bool {
        self.is_on(LEASE_CHECKPOINT)
    }

    /// Whether what it wrote outlives a restart; etcd asks for it beside the other.
    pub fn lease_checkpoint_persist(&self) -> bool {
        self.is_on(LEASE_CHECKPOINT_PERSIST)
    }

    /// Whether connections to other members leave from an address that this one advertises.
    pub fn set_member_local_addr(&self) -> bool {
        self.is_on(SET_MEMBER_LOCAL_ADDR)
    }

    /// Sets gates from `A=true,B=false`. A group sets all of its stage that are not set by name.
    pub fn set(&mut self, text: &str) -> Result<(), ValueError> {
        let mut named: [Option<bool>; GATES.len()] = [None; GATES.len()];
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = name.trim();
            if !part.contains('=') {
                return Err(ValueError::Text(format!("missing bool value for {name}")));
            }
            let value = value.trim();
            let Ok(position) = parse_switch(value) else {
                let reason = format!("strconv.ParseBool: parsing {value:?}: invalid syntax");
                let text = format!("invalid value of {name}={value}, err: {reason}");
                return Err(ValueError::Text(text));
            };
            let Some(place) = GATES.iter().position(|gate| gate.name == name) else {
                return Err(ValueError::Text(format!("unrecognized feature gate: {name}")));
            };
            named[place] = Some(position);
        }
        for (group, stage) in [(ALL_ALPHA, Stage::Alpha), (ALL_BETA, Stage::Beta)] {
            let Some(position) = named[place_of(group)] else { continue };
            for (place, gate) in GATES.iter().enumerate() {
                if gate.stage == stage && self.set[place].is_none() && named[place].is_none() {
                    named[place] = Some(position);
                }
            }
        }
        for (slot, position) in self.set.iter_mut().zip(named) {
            *slot = position.or(*slot);
        }
        Ok(())
    }

    /// The gates that are not at their default, with their positions.
    pub fn changed(&self) -> impl Iterator<Item = (&'static Gate, bool)> {
        let with_gate = GATES.iter().zip(self.set);
        with_gate.filter_map(|(gate, position)| {
            position.filter(|position| *position != gate.default).map(|position| (gate, position))
        })
    }

    /// All gates with their positions.
    pub fn all(&self) -> impl Iterator<Item = (&'static Gate, bool)> {
        let with_gate = GATES.iter().zip(self.set);
        with_gate.map(|(gate, position)| (gate, position.unwrap_or(gate.default)))
    }

    /// What was set, as etcd shows it.
    pub fn text(&self) -> String {
        let with_gate = GATES.iter().zip(self.set);
        let shown: Vec<String> = with_gate
            .filter_map(|(gate, position)| position.map(|on| format!("{}={on}", gate.name)))
            .collect();
        shown.join(",")
    }

    fn is_on(&self, name: &str) -> bool {
        let place = place_of(name);
        self.set[place].unwrap_or(GATES[place].default)
    }
}

fn place_of(name: &str) -> usize {
    GATES.iter().position(|gate| gate.name == name).expect("only gates of the table are asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Result<FeatureGates, String> {
        let mut gates = FeatureGates::default();
        gates.set(text).map(|()| gates).map_err(|error| error.to_string())
    }

    #[test]
    fn gates_are_read_as_kubernetes_reads_them() {
        let gates = set("LeaseCheckpoint=true, LeaseCheckpointPersist = T ,").unwrap();
        assert!(gates.lease_checkpoint() && gates.lease_checkpoint_persist());
        assert_eq!(gates.text(), "LeaseCheckpoint=true,LeaseCheckpointPersist=true");
        assert!(!set("").unwrap().lease_checkpoint());
        for (text, error) in [
            ("Foo=true", "unrecognized feature gate: Foo"),
            ("LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
            (
                "LeaseCheckpoint=maybe",
                "invalid value of LeaseCheckpoint=maybe, err: strconv.ParseBool: parsing \
                 \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(set(text).unwrap_err(), error);
        }
    }

    #[test]
    fn a_group_sets_what_is_not_set_by_name() {
        let gates = set("AllAlpha=true,LeaseCheckpointPersist=false").unwrap();
        assert!(gates.lease_checkpoint() && !gates.lease_checkpoint_persist());
        let changed: Vec<&str> = gates.changed().map(|(gate, _)| gate.name).collect();
        assert!(changed.contains(&"StopGRPCServiceOnDefrag"));
        assert!(!changed.contains(&"FastLeaseKeepAlive"));
        let gates = set("AllBeta=false").unwrap();
        assert!(gates.changed().any(|(gate, on)| gate.name == "FastLeaseKeepAlive" && !on));
    }

    #[test]
    fn the_table_is_etcds() {
        assert_eq!(GATES.len(), 11);
        assert!(GATES.is_sorted_by_key(|gate| gate.name));
    }
}
