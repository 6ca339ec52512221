//! Who belongs to the cluster and what it can do: the buckets `members` and `cluster`, and raft's
//! configuration. All of it is JSON.

use super::super::json::{self, Json};
use super::{CLUSTER, MEMBERS, META, Pair, SchemaError, SchemaRule, broken, present, text};
use crate::ids::MemberId;

/// In [`CLUSTER`]: a version.
const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// In [`CLUSTER`]: JSON.
const CLUSTER_DOWNGRADE: &[u8] = b"downgrade";

/// Who votes and who learns, as raft knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// The voters.
    pub voters: Vec<MemberId>,
    /// The learners.
    pub learners: Vec<MemberId>,
    /// The voters of the configuration that is being left.
    pub voters_outgoing: Vec<MemberId>,
    /// The voters that become learners once it is left.
    pub learners_next: Vec<MemberId>,
    /// Whether it is left without being told.
    pub auto_leave: Option<bool>,
}

impl ConfState {
    pub(super) fn to_json(&self) -> String {
        let mut out = String::from("{");
        let lists = [
            ("voters", &self.voters),
            ("learners", &self.learners),
            ("voters_outgoing", &self.voters_outgoing),
            ("learners_next", &self.learners_next),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            name_into(name, &mut out);
            json::list_into(list, |id, out| out.push_str(&id.to_string()), &mut out);
        }
        if let Some(auto_leave) = self.auto_leave {
            name_into("auto_leave", &mut out);
            out.push_str(if auto_leave { "true" } else { "false" });
        }
        out.push('}');
        out
    }

    pub(super) fn from_json(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let object = Object::parse(META, key, value)?;
        let id = |json: &Json| json.as_u64().map(MemberId);
        let list = |name| object.get(name, |json| json.as_list(id));
        Ok(Self {
            voters: list("voters")?.unwrap_or_default(),
            learners: list("learners")?.unwrap_or_default(),
            voters_outgoing: list("voters_outgoing")?.unwrap_or_default(),
            learners_next: list("learners_next")?.unwrap_or_default(),
            auto_leave: object.get("auto_leave", Json::as_bool)?,
        })
    }
}

/// A pair of [`MEMBERS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The id.
    pub id: MemberId,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Whether it only learns.
    pub is_learner: bool,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

impl Member {
    /// As etcd keeps it.
    #[must_use]
    pub fn to_pair(&self) -> Pair {
        let mut out = String::from("{");
        let url_into = |url: &String, out: &mut String| json::text_into(url, out);
        name_into("id", &mut out);
        out.push_str(&self.id.to_string());
        name_into("peerURLs", &mut out);
        json::list_into(&self.peer_urls, url_into, &mut out);
        if self.is_learner {
            name_into("isLearner", &mut out);
            out.push_str("true");
        }
        if !self.name.is_empty() {
            name_into("name", &mut out);
            json::text_into(&self.name, &mut out);
        }
        if !self.client_urls.is_empty() {
            name_into("clientURLs", &mut out);
            json::list_into(&self.client_urls, url_into, &mut out);
        }
        out.push('}');
        (member_key(self.id), out.into_bytes())
    }

    /// The inverse of [`Member::to_pair`].
    pub fn from_pair(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let id = member_id(MEMBERS, key)?;
        let object = Object::parse(MEMBERS, key, value)?;
        let urls = |name| object.get(name, |json| json.as_list(Json::as_text));
        let member = Self {
            id: MemberId(object.get("id", Json::as_u64)?.unwrap_or_default()),
            peer_urls: urls("peerURLs")?.unwrap_or_default(),
            is_learner: object.get("isLearner", Json::as_bool)?.unwrap_or_default(),
            name: object.get("name", Json::as_text)?.unwrap_or_default(),
            client_urls: urls("clientURLs")?.unwrap_or_default(),
        };
        if member.id != id {
            return Err(broken(MEMBERS, key, SchemaRule::ValueOfAnother));
        }
        Ok(member)
    }
}

/// A member's key in [`MEMBERS`] and [`super::MEMBERS_REMOVED`].
#[must_use]
pub fn member_key(id: MemberId) -> Vec<u8> {
    format!("{:x}", id.0).into_bytes()
}

/// The inverse of [`member_key`]; the bucket only names it in an error.
pub fn member_id(bucket: &'static [u8], key: &[u8]) -> Result<MemberId, SchemaError> {
    let is_hex = key.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(key).ok().filter(|_| is_hex);
    let id = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    id.map(MemberId).ok_or_else(|| broken(bucket, key, SchemaRule::KeyId))
}

/// The cluster's versions: the bucket [`CLUSTER`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// What all members can do.
    pub version: Option<String>,
    /// The downgrade that is under way, or was.
    pub downgrade: Option<Downgrade>,
}

/// A downgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downgrade {
    /// Where to; empty for none.
    pub target_version: String,
    /// Whether it is under way.
    pub enabled: bool,
}

impl Cluster {
    /// The bucket's pairs, in order.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<Pair> {
        let downgrade = self.downgrade.as_ref().map(|downgrade| {
            let mut out = String::from("{");
            name_into("target-version", &mut out);
            json::text_into(&downgrade.target_version, &mut out);
            name_into("enabled", &mut out);
            out.push_str(if downgrade.enabled { "true}" } else { "false}" });
            out.into_bytes()
        });
        let version = self.version.clone().map(String::into_bytes);
        present([(CLUSTER_VERSION, version), (CLUSTER_DOWNGRADE, downgrade)])
    }

    /// Takes in one of the bucket's pairs. Unknown keys are passed over, as etcd does.
    pub fn read_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), SchemaError> {
        if key == CLUSTER_VERSION {
            self.version = Some(text(CLUSTER, key, value)?);
        } else if key == CLUSTER_DOWNGRADE {
            let object = Object::parse(CLUSTER, key, value)?;
            let target_version = object.get("target-version", Json::as_text)?.unwrap_or_default();
            let enabled = object.get("enabled", Json::as_bool)?.unwrap_or_default();
            self.downgrade = Some(Downgrade { target_version, enabled });
        }
        Ok(())
    }
}

/// A JSON object, and the pair it came from.
struct Object<'a> {
    bucket: &'static [u8],
    key: &'a [u8],
    json: Json,
}

impl<'a> Object<'a> {
    fn parse(bucket: &'static [u8], key: &'a [u8], value: &[u8]) -> Result<Self, SchemaError> {
        let json = Json::parse(value).filter(|json| matches!(json, Json::Object(_)));
        let json = json.ok_or_else(|| broken(bucket, key, SchemaRule::ValueJson))?;
        Ok(Self { bucket, key, json })
    }

    /// A member, if there is one; it must be what is asked for.
    fn get<T>(
        &self,
        name: &str,
        read: impl Fn(&Json) -> Option<T>,
    ) -> Result<Option<T>, SchemaError> {
        let Some(json) = self.json.get(name) else { return Ok(None) };
        let value = read(json);
        value.map(Some).ok_or_else(|| broken(self.bucket, self.key, SchemaRule::ValueJson))
    }
}

/// Appends a member's name, with what parts it from the member before.
fn name_into(name: &str, out: &mut String) {
    if !out.ends_with('{') {
        out.push(',');
    }
    json::text_into(name, out);
    out.push(':');
}
