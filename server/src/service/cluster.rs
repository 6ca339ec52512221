//! The Cluster service: who the members are, and how that changes.
//!
//! Members are replicated state. A store that was made before it kept them says nothing of them:
//! then the node's own word counts, with the names and clients' URLs that were published. A member
//! that has published nothing yet has not started, and its name is empty.

use engine::Member;
use engine::answer::{Answer, Outcome, ReadError};
use engine::ids::MemberId;
use engine::view::View;
use prost::Message;

use super::method::Method;
use super::node_state::NodeState;
use super::proto::etcdserverpb as pb;
use super::status::Refusal;
use super::wire::Header;

/// What a client wants to change. Its URLs are as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberAsk {
    /// A new member, found there.
    Add {
        /// Where.
        peer_urls: Vec<String>,
        /// Whether it has no vote at first.
        is_learner: bool,
    },
    /// A member less.
    Remove(MemberId),
    /// A member is found elsewhere.
    Update {
        /// Which.
        id: MemberId,
        /// Where.
        peer_urls: Vec<String>,
    },
    /// A learner gets a vote.
    Promote(MemberId),
}

/// Reads a request to change the members.
pub(super) fn decode_change(method: Method, message: &[u8]) -> Result<MemberAsk, Refusal> {
    Ok(match method {
        Method::MemberAdd => {
            let request = pb::MemberAddRequest::decode(message)?;
            let (peer_urls, is_learner) = (request.peer_ur_ls, request.is_learner);
            MemberAsk::Add { peer_urls, is_learner }
        }
        Method::MemberRemove => {
            MemberAsk::Remove(MemberId(pb::MemberRemoveRequest::decode(message)?.id))
        }
        Method::MemberUpdate => {
            let request = pb::MemberUpdateRequest::decode(message)?;
            MemberAsk::Update { id: MemberId(request.id), peer_urls: request.peer_ur_ls }
        }
        Method::MemberPromote => {
            MemberAsk::Promote(MemberId(pb::MemberPromoteRequest::decode(message)?.id))
        }
        _ => return Err(Refusal::Unimplemented(method)),
    })
}

/// The members as this view and the node know them.
fn members_of(node: &NodeState, view: &View) -> Result<Vec<pb::Member>, ReadError> {
    let to_proto = |member: Member| pb::Member {
        id: member.id.0,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    };
    if view.knows_members()? {
        return Ok(view.cluster_members()?.into_iter().map(to_proto).collect());
    }
    let published = view.members()?;
    let members = node.members.iter().map(|member| {
        let attributes = published.iter().find(|attributes| attributes.id == member.id);
        to_proto(Member {
            id: member.id,
            peer_urls: member.peer_urls.clone(),
            is_learner: member.learner,
            name: attributes.map_or_else(String::new, |found| found.name.clone()),
            client_urls: attributes.map_or_else(Vec::new, |found| found.client_urls.clone()),
        })
    });
    Ok(members.collect())
}

/// Appends the answer to `MemberList`. Answers of this service carry no revision.
pub(super) fn put_member_list(
    out: &mut Vec<u8>,
    header: Header,
    node: &NodeState,
    view: &View,
) -> Result<(), ReadError> {
    let members = members_of(node, view)?;
    let response = pb::MemberListResponse { header: Some(header.to_proto(0)), members };
    response.encode_raw(out);
    Ok(())
}

/// Appends the answer to a change of the members that was applied: who they are now.
pub(super) fn put_change(
    out: &mut Vec<u8>,
    (method, id): (Method, MemberId),
    answer: &Answer,
    node: &NodeState,
    view: &View,
) -> Result<(), Refusal> {
    if let Outcome::Rejected(rejection) = answer.outcome {
        return Err(Refusal::Rejected(rejection));
    }
    let members = members_of(node, view).map_err(|_| Refusal::Corrupt)?;
    let header = Some(node.header().to_proto(0));
    match method {
        Method::MemberAdd => {
            let member = members.iter().find(|member| member.id == id.0).cloned();
            pb::MemberAddResponse { header, member, members }.encode_raw(out);
        }
        Method::MemberRemove => pb::MemberRemoveResponse { header, members }.encode_raw(out),
        Method::MemberUpdate => pb::MemberUpdateResponse { header, members }.encode_raw(out),
        _ => pb::MemberPromoteResponse { header, members }.encode_raw(out),
    }
    Ok(())
}
