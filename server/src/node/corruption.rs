//! What the members' hashes say about each other: etcd's corruption checks.
//!
//! Members that have applied the same entries hold the same keys, so equal revisions under equal
//! compactions must hash alike. The leader asks the others and raises the CORRUPT alarm of whoever
//! differs, as etcd's `corruptionChecker` does: periodically at its own revision, and for the
//! hashes that compactions left behind.
//!
//! Invariants:
//! - What cannot be compared accuses nobody: a member that is behind, compacted elsewhere, or
//!   silent.
//! - Of members that differ it is the majority that is believed. Where there is none all are
//!   suspect: the alarm names member 0.

use std::collections::BTreeMap;

use engine::ids::{MemberId, Revision};
use engine::{KeyValueHash, Rejection};

use crate::config::Notice;
use crate::log::Level;
use crate::peer::letter::HashTold;

/// The whole cluster, to the alarm.
const EVERYBODY: MemberId = MemberId(0);

/// The hashes of compactions that were not yet compared, newest first.
#[must_use]
pub fn unchecked(hashes: &[KeyValueHash], checked: Revision) -> Vec<KeyValueHash> {
    let mut left: Vec<_> = hashes.iter().filter(|hash| hash.revision > checked).copied().collect();
    left.sort_unstable_by_key(|hash| std::cmp::Reverse(hash.revision));
    left
}

/// What a periodic check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whose alarm is to be raised.
    pub accused: Vec<MemberId>,
    /// Whether every member was compared.
    pub is_complete: bool,
    /// For the log.
    pub notices: Vec<Notice>,
}

/// Judges what the others told at the leader's revision, between two hashes of the leader's own
/// with a read index between them.
///
/// A second hash at the same place that differs accuses the leader itself. Only the first who is
/// found is accused, as in etcd: the next check finds the next.
#[must_use]
pub fn judge_periodic(
    leader: MemberId,
    (first, second): (&KeyValueHash, &KeyValueHash),
    told: &[(MemberId, HashTold)],
) -> Judgement {
    let mut accused = Vec::new();
    let mut notices = Vec::new();
    let mut accuse = |member, message: &str, fields| {
        accused.push(member);
        notices.push(note(Level::Warn, message, fields));
    };
    let is_same_place = (first.revision, first.compacted) == (second.revision, second.compacted);
    if is_same_place && first.hash != second.hash {
        accuse(leader, "found hash mismatch", both(first, second));
    }
    let mut compared = 0;
    for &(member, told) in told {
        let HashTold::Hash(peer) = told else { continue };
        compared += 1;
        let fields = |own: Vec<(&'static str, String)>| {
            let peer_id = ("follower-peer-id", id(member));
            own.into_iter().chain([peer_id]).collect()
        };
        if peer.current > second.current {
            let own = vec![
                ("leader-revision", second.current.0.to_string()),
                ("follower-revision", peer.current.0.to_string()),
            ];
            let message = "revision from follower must be less than or equal to leader's";
            accuse(member, message, fields(own));
        }
        let compacted = |leader: Revision| {
            vec![
                ("leader-compact-revision", leader.0.to_string()),
                ("follower-compact-revision", peer.compacted.0.to_string()),
            ]
        };
        if peer.compacted > second.compacted {
            let message = "compact revision from follower must be less than or equal to leader's";
            accuse(member, message, fields(compacted(second.compacted)));
        }
        if peer.compacted == first.compacted && peer.hash != first.hash {
            let mut own = compacted(first.compacted);
            own.push(("leader-hash", first.hash.to_string()));
            own.push(("follower-hash", peer.hash.to_string()));
            let message = "same compact revision then hashes must match";
            accuse(member, message, fields(own));
        }
    }
    let counted = vec![("number-of-peers-checked", compared.to_string())];
    notices.push(note(Level::Info, "finished peer corruption check", counted));
    accused.truncate(1);
    Judgement { accused, is_complete: compared == told.len(), notices }
}

/// Judges what the others told at the revision of a compaction whose hash the leader remembers.
#[must_use]
pub fn judge_compaction(
    leader: MemberId,
    own: &KeyValueHash,
    told: &[(MemberId, HashTold)],
) -> Judgement {
    let mut notices = Vec::new();
    let mut by_hash = BTreeMap::from([(own.hash, vec![leader])]);
    let mut compared = 0;
    for &(member, told) in told {
        let reason = match told {
            HashTold::Hash(peer) if peer.compacted == own.compacted => {
                compared += 1;
                by_hash.entry(peer.hash).or_default().push(member);
                continue;
            }
            HashTold::Hash(peer) => format!(
                "the peer's CompactRevision {} doesn't match leader's CompactRevision {}",
                peer.compacted.0, own.compacted.0
            ),
            HashTold::Rejected(_) | HashTold::Nothing => "no response".to_owned(),
        };
        let fields = vec![("leader-id", id(leader)), ("peer-id", id(member)), ("reason", reason)];
        notices.push(note(Level::Warn, "Skipped peer's hash", fields));
    }
    let is_complete = compared == told.len();
    let mut accused = Vec::new();
    if by_hash.len() > 1 {
        let member_count = told.len() + 1;
        let quorum = member_count / 2 + 1;
        let believed = by_hash.iter().find(|(_, members)| members.len() >= quorum);
        match believed.map(|(hash, _)| *hash) {
            Some(hash) => drop(by_hash.remove(&hash)),
            None => {
                accused.push(EVERYBODY);
                let message = "Detected compaction hash mismatch but cannot identify the corrupted \
                               members, so intentionally set the memberID as 0";
                notices.push(note(Level::Error, message, of_leader(leader, own)));
            }
        }
        let has_quorum = accused.is_empty();
        for (hash, members) in by_hash {
            let ids: Vec<String> = members.iter().map(|&member| id(member)).collect();
            let mut fields = of_leader(leader, own);
            fields.push(("peer-hash", hash.to_string()));
            fields.push(("peer-ids", ids.join(",")));
            fields.push(("quorum-exist", has_quorum.to_string()));
            notices.push(note(Level::Error, "Detected compaction hash mismatch", fields));
            if has_quorum {
                accused.extend(members);
            }
        }
    } else {
        let mut fields = vec![("number-of-peers-checked", compared.to_string())];
        let message = if is_complete {
            "successfully checked hash on whole cluster"
        } else {
            fields.push(("number-of-peers", told.len().to_string()));
            "skipped revision in compaction hash check; was not able to check all peers"
        };
        fields.push(("revision", own.revision.0.to_string()));
        fields.push(("compactRevision", own.compacted.0.to_string()));
        let level = if is_complete { Level::Info } else { Level::Warn };
        notices.push(note(level, message, fields));
    }
    Judgement { accused, is_complete, notices }
}

/// What one other member told a member that asks before it begins to serve; whether they differ
/// where they must not.
#[must_use]
pub fn judge_initial(
    own: &KeyValueHash,
    member: MemberId,
    told: HashTold,
) -> (bool, Option<Notice>) {
    let fields = |more: Vec<(&'static str, String)>| {
        let own = [
            ("local-member-revision", own.revision.0.to_string()),
            ("local-member-compact-revision", own.compacted.0.to_string()),
            ("local-member-hash", own.hash.to_string()),
            ("remote-peer-id", id(member)),
        ];
        own.into_iter().chain(more).collect()
    };
    let warn = |message, more| Some(note(Level::Warn, message, fields(more)));
    match told {
        HashTold::Hash(peer) if peer.hash == own.hash => (false, None),
        HashTold::Hash(peer) => {
            let more = vec![
                ("remote-peer-revision", peer.current.0.to_string()),
                ("remote-peer-compact-revision", peer.compacted.0.to_string()),
                ("remote-peer-hash", peer.hash.to_string()),
            ];
            if peer.compacted == own.compacted {
                (true, warn("found different hash values from remote peer", more))
            } else {
                (false, warn("found different compact revision values from remote peer", more))
            }
        }
        HashTold::Rejected(Rejection::FutureRevision) => {
            (false, warn("cannot fetch hash from slow remote peer", Vec::new()))
        }
        HashTold::Rejected(_) => {
            let message = "cannot fetch hash from remote peer; local member is behind";
            (false, warn(message, Vec::new()))
        }
        // Whoever asked has said why.
        HashTold::Nothing => (false, None),
    }
}

fn note(level: Level, message: &str, fields: Vec<(&'static str, String)>) -> Notice {
    Notice { level, message: message.to_owned(), fields }
}

fn id(member: MemberId) -> String {
    format!("{:x}", member.0)
}

fn of_leader(leader: MemberId, own: &KeyValueHash) -> Vec<(&'static str, String)> {
    vec![
        ("leader-id", id(leader)),
        ("leader-revision", own.revision.0.to_string()),
        ("leader-compact-revision", own.compacted.0.to_string()),
        ("leader-hash", own.hash.to_string()),
    ]
}

/// The two hashes of one member that should be one.
fn both(first: &KeyValueHash, second: &KeyValueHash) -> Vec<(&'static str, String)> {
    vec![
        ("revision-1", first.revision.0.to_string()),
        ("compact-revision-1", first.compacted.0.to_string()),
        ("hash-1", first.hash.to_string()),
        ("revision-2", second.revision.0.to_string()),
        ("compact-revision-2", second.compacted.0.to_string()),
        ("hash-2", second.hash.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: MemberId = MemberId(1);

    fn hash(hash: u32, revision: i64, compacted: i64, current: i64) -> KeyValueHash {
        let [revision, compacted, current] = [revision, compacted, current].map(Revision);
        KeyValueHash { hash, revision, compacted, current }
    }

    fn told(hashes: &[KeyValueHash]) -> Vec<(MemberId, HashTold)> {
        let told = |(place, hash): (usize, &KeyValueHash)| {
            (MemberId(place as u64 + 2), HashTold::Hash(*hash))
        };
        hashes.iter().enumerate().map(told).collect()
    }

    #[test]
    fn a_member_that_differs_at_the_leaders_revision_is_accused() {
        let (first, second) = (hash(7, 10, 3, 10), hash(8, 12, 3, 12));
        let judge =
            |peers: &[KeyValueHash]| judge_periodic(LEADER, (&first, &second), &told(peers));
        let good = hash(7, 10, 3, 11);
        // What is the same, and what cannot be compared because it was compacted before.
        for peers in [&[good, good][..], &[good, hash(9, 10, 2, 10)]] {
            assert_eq!(judge(peers).accused, [], "{peers:?}");
        }
        let cases = [hash(9, 10, 3, 10), hash(7, 10, 4, 10), hash(7, 10, 3, 13)];
        for bad in cases {
            assert_eq!(judge(&[good, bad]).accused, [MemberId(3)], "{bad:?}");
        }
        assert_eq!(judge(&[cases[0], cases[0]]).accused, [MemberId(2)], "one at a time");
    }

    #[test]
    fn a_leader_that_differs_from_itself_is_accused() {
        let (first, second) = (hash(7, 10, 3, 10), hash(8, 10, 3, 10));
        assert_eq!(judge_periodic(LEADER, (&first, &second), &[]).accused, [LEADER]);
    }

    #[test]
    fn those_who_say_nothing_are_not_accused_but_counted() {
        let own = hash(7, 10, 3, 10);
        let future = HashTold::Rejected(Rejection::FutureRevision);
        let peers = [(MemberId(2), HashTold::Nothing), (MemberId(3), future)];
        let judged = judge_periodic(LEADER, (&own, &own), &peers);
        assert_eq!((judged.accused, judged.is_complete), (Vec::new(), false));
        let judged = judge_compaction(LEADER, &own, &peers);
        assert_eq!((judged.accused, judged.is_complete), (Vec::new(), false));
    }

    #[test]
    fn the_majority_of_a_compaction_is_believed() {
        let own = hash(7, 10, 3, 10);
        let of = |hash_of_it| hash(hash_of_it, 10, 3, 20);
        let judge = |hashes: &[u32]| {
            let peers: Vec<_> = hashes.iter().map(|&hash| of(hash)).collect();
            judge_compaction(LEADER, &own, &told(&peers)).accused
        };
        assert_eq!(judge(&[7, 7]), []);
        assert_eq!(judge(&[7, 9]), [MemberId(3)]);
        assert_eq!(judge(&[9, 9]), [LEADER]);
        assert_eq!(judge(&[8, 9]), [EVERYBODY]);
        assert_eq!(judge(&[9]), [EVERYBODY], "two members that differ");
        assert_eq!(judge(&[7, 7, 8, 9]), [MemberId(4), MemberId(5)]);
        // Another compaction before it is another hash.
        let elsewhere = told(&[of(7), hash(9, 10, 2, 20)]);
        let judged = judge_compaction(LEADER, &own, &elsewhere);
        assert_eq!((judged.accused, judged.is_complete), (Vec::new(), false));
    }

    #[test]
    fn compactions_are_compared_from_the_newest_on_and_once() {
        let hashes = [4, 6, 9].map(|revision| hash(1, revision, 0, 20));
        let revisions = |checked| {
            let left = unchecked(&hashes, Revision(checked));
            left.iter().map(|hash| hash.revision.0).collect::<Vec<_>>()
        };
        assert_eq!(revisions(0), [9, 6, 4]);
        assert_eq!(revisions(6), [9]);
        assert!(revisions(9).is_empty());
    }

    #[test]
    fn a_start_stops_only_for_what_can_be_compared() {
        let own = hash(7, 10, 3, 10);
        let judge = |told| judge_initial(&own, MemberId(2), told).0;
        assert!(judge(HashTold::Hash(hash(8, 10, 3, 12))));
        for told in [
            HashTold::Hash(hash(7, 10, 3, 12)),
            HashTold::Hash(hash(8, 10, 4, 12)),
            HashTold::Rejected(Rejection::Compacted),
            HashTold::Rejected(Rejection::FutureRevision),
            HashTold::Nothing,
        ] {
            assert!(!judge(told), "{told:?}");
        }
    }
}
