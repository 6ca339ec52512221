//! What the services tell about this member and do not decide: the node keeps it up to date.

use engine::ids::{ClusterId, LogIndex, MemberId, Term};

use super::wire::Header;

/// A member as raft and the bootstrap know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberEntry {
    /// Its id.
    pub id: MemberId,
    /// Where its peers find it.
    pub peer_urls: Vec<String>,
    /// It receives the log and has no vote.
    pub learner: bool,
}

/// The state of the member and its cluster, as the core that answers knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// The cluster's id.
    pub cluster_id: ClusterId,
    /// This member's id.
    pub member_id: MemberId,
    /// The current term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// The last committed entry that this core has heard of.
    pub committed: LogIndex,
    /// All members, by id in ascending order.
    pub members: Vec<MemberEntry>,
    /// What `Status` says about the quota.
    pub quota_bytes: i64,
    /// This member is a learner.
    pub learner: bool,
}

impl NodeState {
    /// The header of this member's answers, without a revision.
    pub fn header(&self) -> Header {
        Header {
            cluster_id: self.cluster_id.0,
            member_id: self.member_id.0,
            revision: 0,
            raft_term: self.term.0,
        }
    }
}
