//! Changes of the members that clients ask for: from a request to a command of its own.

use std::time::Duration;

use engine::FrameWriter;
use engine::command::{MemberAddRef, MemberUpdateRef};

use super::{Desk, Request, status};
use crate::bootstrap;
use crate::config::{Url, parse_urls, texts};
use crate::frontend::grpc;
use crate::node::calls::{Call, Timeouts, Waiting};
use crate::service::cluster::MemberAsk;
use crate::service::status::{ClusterRefusal, Refusal};

const BAD_URLS: Refusal = Refusal::Cluster(ClusterRefusal::BadMemberUrls);

impl Desk {
    pub(super) fn change_members(
        &mut self,
        connection: &mut grpc::Connection,
        request: Request,
        ask: MemberAsk,
        timeouts: Timeouts,
        now: Duration,
    ) {
        let Request { socket, stream, method, .. } = request;
        let (mut writer, mut frame) = (FrameWriter::new(), Vec::new());
        let id = match ask {
            MemberAsk::Remove(id) => {
                writer.push_member_remove(&mut frame, id);
                id
            }
            MemberAsk::Promote(id) => {
                writer.push_member_promote(&mut frame, id);
                id
            }
            // etcd looks at the URLs and keeps them as they came.
            MemberAsk::Update { id, peer_urls } => {
                if urls_of(&peer_urls).is_none() {
                    return connection.finish(stream, &status(BAD_URLS));
                }
                let update = MemberUpdateRef { id, peer_urls: &peer_urls };
                writer.push_member_update(&mut frame, &update);
                id
            }
            MemberAsk::Add { peer_urls, is_learner } => {
                let Some(urls) = urls_of(&peer_urls) else {
                    return connection.finish(stream, &status(BAD_URLS));
                };
                let seconds = i64::try_from(self.wall_clock.as_secs()).unwrap_or(i64::MAX);
                let id = bootstrap::cluster::member_id_at(&urls, seconds);
                let learners_max = self.config.learners_max;
                let peer_urls = texts(&urls);
                let add = MemberAddRef { id, peer_urls: &peer_urls, is_learner, learners_max };
                writer.push_member_add(&mut frame, &add);
                id
            }
        };
        let call = Call { socket, stream, waiting: Waiting::Change(method, id) };
        let slot = self.calls.insert(call, frame.len(), now, timeouts);
        self.ask.changes.push((slot, frame));
    }
}

/// The URLs in etcd's order, if there are any and all are URLs.
fn urls_of(texts: &[String]) -> Option<Vec<Url>> {
    // What stands in one text is one URL.
    if texts.is_empty() || texts.iter().any(|text| text.contains(',')) {
        return None;
    }
    parse_urls(&texts.join(",")).ok()
}
