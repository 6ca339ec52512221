//! What is drawn for a run before it begins: how large it is, and which kinds of trouble it knows.
//!
//! A run in which everything goes wrong at once hides what a run with two kinds of trouble shows:
//! each seed leaves many of them out (Groce, Zhang, Eide, Chen, Regehr: Swarm Testing, 2012).

use super::clients::Habits;
use super::network::Weather;
use super::random::Random;

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A member's process is killed; its machine lives.
    Kill,
    /// A member's power fails.
    Crash,
    /// The power of all members fails at once.
    PowerCut,
    /// The power fails during a start.
    CrashInStart,
    /// A connection breaks.
    Break,
    /// The members are divided in two.
    Divide,
    /// One direction of the network is cut.
    OneWay,
    /// A member does nothing for a while, and its clock goes on.
    Pause,
    /// An operation of a log fails.
    DiskError,
    /// An operation of a store fails.
    StoreError,
    /// A disk is full for a while.
    DiskFull,
    /// A disk is slow for a while.
    DiskSlow,
    /// Bits flip, or writes go elsewhere, on the disk of one member.
    Damage,
    /// Members come and go.
    Members,
    /// Another member is asked to lead.
    Lead,
    /// The leader's disk hangs, and the leader is cut off until there is another one.
    Supplant,
}

const TROUBLES: [Trouble; 16] = [
    Trouble::Kill,
    Trouble::Crash,
    Trouble::PowerCut,
    Trouble::CrashInStart,
    Trouble::Break,
    Trouble::Divide,
    Trouble::OneWay,
    Trouble::Pause,
    Trouble::DiskError,
    Trouble::StoreError,
    Trouble::DiskFull,
    Trouble::DiskSlow,
    Trouble::Damage,
    Trouble::Members,
    Trouble::Lead,
    Trouble::Supplant,
];

/// Less than twice what ten of the largest values take.
const QUOTA_BYTES: u64 = 12 << 20;

/// What a run is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many members.
    pub members: usize,
    /// How many clients.
    pub clients: usize,
    /// How the network is.
    pub weather: Weather,
    /// The kinds of trouble.
    pub troubles: Vec<Trouble>,
    /// Between two of them, at most, in microseconds.
    pub trouble_gap_micros: u64,
    /// How long trouble goes on, in microseconds.
    pub duration_micros: u64,
    /// Clocks go up to so much faster or slower, in a million.
    pub clock_skew: u64,
    /// A checkpoint is due after so many entries.
    pub snapshot_count: u64,
    /// Small, so that a run sees segments end, be made anew and be recycled; but part of one is
    /// what the log has left on a full disk.
    pub segment_size_bytes: u64,
    /// How many applied entries stay in memory for followers that lag.
    pub window_entries: usize,
    /// What they take at most, and how much of the log stays on the disk.
    pub window_size_bytes: usize,
    /// What clients ask.
    pub habits: Habits,
    /// Whether a candidate first asks whether it could win.
    pub pre_vote: bool,
    /// Values that are as large as a request may be, or a good part of that.
    pub large_values: u64,
    /// What a store may hold before writes are refused; a store that comes from another member and
    /// is built beside the old one must not count twice.
    pub quota_bytes: Option<u64>,
    /// Members are removed as long as more than so many are left.
    pub members_min: usize,
    /// A client waits so long at most between two operations, in microseconds.
    pub think_micros: u64,
    /// A write to a disk takes so long at most, in microseconds.
    pub disk_micros: u64,
}

impl Plan {
    /// Draws one.
    #[must_use]
    pub fn draw(random: &mut Random, members: Option<usize>) -> Self {
        let members = members.unwrap_or_else(|| *random.pick(&[3, 3, 3, 5, 5, 4]));
        let mut troubles: Vec<Trouble> =
            TROUBLES.into_iter().filter(|_| random.once_in(3)).collect();
        if troubles.is_empty() {
            troubles.push(*random.pick(&TROUBLES));
        }
        if troubles.contains(&Trouble::Members) {
            // Together they could take a quorum away for ever.
            troubles.retain(|trouble| *trouble != Trouble::Damage);
        }
        let weather = if random.once_in(3) { Weather::FAIR } else { Weather::draw(random) };
        let is_full = troubles.contains(&Trouble::DiskFull);
        let large_values = if random.once_in(8) { random.between(2, 10) } else { 0 };
        let has_quota = large_values > 4 && random.once_in(2);
        Self {
            members,
            clients: usize::try_from(random.between(2, 6)).expect("few"),
            weather,
            troubles,
            trouble_gap_micros: *random.pick(&[500_000, 2_000_000, 5_000_000]),
            duration_micros: random.between(8_000_000, 25_000_000),
            clock_skew: *random.pick(&[0, 0, 1_000, 200_000]),
            snapshot_count: *random.pick(&[3, 20, 100, 10_000]),
            segment_size_bytes: match (large_values, is_full) {
                (1.., _) => 8 << 20,
                (0, true) => 4 << 20,
                (0, false) => *random.pick(&[48 << 10, 256 << 10]),
            },
            window_entries: *random.pick(&[0, 5, 100, 5000]),
            window_size_bytes: *random.pick(&[32 << 10, 1 << 20]),
            habits: Habits {
                // What was compacted leaves holes, by which one store is longer than another.
                compact_once_in: if has_quota { 0 } else { *random.pick(&[0, 20, 100]) },
                lease_once_in: *random.pick(&[0, 0, 0, 2, 5, 5]),
                reads_mostly: random.once_in(3),
            },
            quota_bytes: has_quota.then_some(QUOTA_BYTES),
            pre_vote: !random.once_in(4),
            large_values,
            members_min: *random.pick(&[1, 1, 2]),
            think_micros: *random.pick(&[10_000, 50_000, 300_000]),
            disk_micros: *random.pick(&[200, 2_000, 20_000]),
        }
    }
}
