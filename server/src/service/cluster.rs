//! The Cluster service: who the members are.
//!
//! Membership comes from the node (it is raft's and the bootstrap's to know); names and clients'
//! URLs are what members have published into the store. A member that has published nothing yet
//! has not started, and its name is empty.

use engine::answer::ReadError;
use engine::view::View;
use prost::Message;

use super::node_state::NodeState;
use super::proto::etcdserverpb as pb;
use super::wire::Header;

/// Appends the answer to `MemberList`. Answers of this service carry no revision.
pub(super) fn put_member_list(
    out: &mut Vec<u8>,
    header: Header,
    node: &NodeState,
    view: &View,
) -> Result<(), ReadError> {
    let published = view.members()?;
    let members = node.members.iter().map(|member| {
        let attributes = published.iter().find(|attributes| attributes.id == member.id);
        pb::Member {
            id: member.id.0,
            name: attributes.map_or_else(String::new, |attributes| attributes.name.clone()),
            peer_ur_ls: member.peer_urls.clone(),
            client_ur_ls: attributes.map_or_else(Vec::new, |found| found.client_urls.clone()),
            is_learner: member.learner,
        }
    });
    let response =
        pb::MemberListResponse { header: Some(header.to_proto(0)), members: members.collect() };
    response.encode_raw(out);
    Ok(())
}
