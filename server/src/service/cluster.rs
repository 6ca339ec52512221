//! The Cluster service: who the members are.
//!
//! Membership is in the store, and so is what members have published of themselves. A member that has
//! published nothing yet has not started, and its name is empty.

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
    let members = node.members_of(view)?.into_iter().map(|member| pb::Member {
        id: member.id.0,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    });
    let response =
        pb::MemberListResponse { header: Some(header.to_proto(0)), members: members.collect() };
    response.encode_raw(out);
    Ok(())
}
