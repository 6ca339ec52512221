//! `--discovery URL`: the older registry, a tree of keys over HTTP.
//!
//! etcd gave it up, but services of its kind are still run: the URL's last part is the cluster's
//! token, under which `_config/size` says how many members there are and each member writes itself
//! once. As in the newer service the first registrations count, and the text that comes out is that
//! of `--initial-cluster`.
//!
//! What is decided stands behind [`Tree`]; [`HttpTree`] asks over HTTP, and blocks.

use std::time::Duration;

use engine::MemberId;

use super::super::cluster::InitialCluster;
use super::super::http::{Answer, FORM, Request, ask};
use super::super::json::Json;
use super::{Pause, pause_before};
use crate::config::{Url, parse_urls};

/// What the service says of a key that it does not have, and of one that it has.
const KEY_NOT_FOUND: u64 = 100;
const KEY_EXISTS: u64 = 105;
/// How long a question may take, and how long is waited for a change.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const WAIT_TIMEOUT: Duration = Duration::from_secs(300);

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The last part of its key.
    pub name: String,
    /// Its value.
    pub value: String,
    /// When it was made, in the service's count.
    pub created: u64,
}

/// What can go wrong with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// There is no such key.
    NotFound,
    /// There is one already.
    Exists,
    /// It may pass: the service cannot be reached, or is not well.
    Unavailable(String),
    /// What answers is no such service, or says no for good.
    Refused(String),
}

/// The service's keys below a token.
pub trait Tree {
    /// The value of `_config/size`.
    ///
    /// # Errors
    /// See [`TreeError`].
    fn size(&mut self) -> Result<String, TreeError>;

    /// All registrations, and the service's count.
    ///
    /// # Errors
    /// See [`TreeError`].
    fn list(&mut self) -> Result<(Vec<Node>, u64), TreeError>;

    /// Registers a name that must not be there.
    ///
    /// # Errors
    /// See [`TreeError`].
    fn create(&mut self, name: &str, value: &str) -> Result<(), TreeError>;

    /// Waits until something has changed behind this count, or for long.
    ///
    /// # Errors
    /// See [`TreeError`].
    fn wait(&mut self, count: u64) -> Result<(), TreeError>;
}

/// Why nobody was found, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryError {
    /// The URL names no token, or what was registered are no members.
    InvalidUrl,
    /// The token has no size.
    SizeNotFound,
    /// Its size is no number above zero.
    BadSize,
    /// So many have registered before.
    Full,
    /// This member has registered before.
    DuplicateId,
    /// Two members have one name.
    DuplicateName,
    /// What answers is no such service.
    BadEndpoint(String),
}

impl std::fmt::Display for RegistryError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::InvalidUrl => "discovery: invalid URL",
            Self::SizeNotFound => "discovery: size key not found",
            Self::BadSize => "discovery: size key is bad",
            Self::Full => "discovery: cluster is full",
            Self::DuplicateId => "discovery: found duplicate id",
            Self::DuplicateName => "discovery: found duplicate name",
            Self::BadEndpoint(reason) => {
                return write!(formatter, "discovery: bad discovery endpoint ({reason})");
            }
        };
        formatter.write_str(text)
    }
}

impl std::error::Error for RegistryError {}

struct Registered {
    nodes: Vec<Node>,
    size: usize,
    count: u64,
}

/// Registers a member (`name=url,...`), and waits for the others.
///
/// # Errors
/// Only what waiting cannot mend.
pub fn join(
    tree: &mut impl Tree,
    clock: &mut impl Pause,
    member: MemberId,
    text: &str,
) -> Result<String, RegistryError> {
    let own = format!("{:x}", member.get());
    check(tree, clock, &own)?;
    match tree.create(&own, text) {
        Ok(()) => {}
        Err(TreeError::Exists) => return Err(RegistryError::DuplicateId),
        // Whether it was written is not known, and written twice it would be refused: as in etcd,
        // whoever meets this begins again.
        Err(TreeError::Unavailable(reason) | TreeError::Refused(reason)) => {
            return Err(RegistryError::BadEndpoint(reason));
        }
        Err(TreeError::NotFound) => {
            return Err(RegistryError::BadEndpoint("the token's directory is gone".to_owned()));
        }
    }
    let mut retries = 0;
    loop {
        let registered = check(tree, clock, &own)?;
        if registered.nodes.len() >= registered.size {
            return initial_cluster(&registered);
        }
        match tree.wait(registered.count) {
            Ok(()) => retries = 0,
            Err(TreeError::Unavailable(reason)) => {
                retries += 1;
                clock.pause(pause_before(retries), &format!("waiting for other nodes: {reason}"));
            }
            Err(error) => return Err(bad_endpoint(error)),
        }
    }
}

fn bad_endpoint(error: TreeError) -> RegistryError {
    RegistryError::BadEndpoint(match error {
        TreeError::NotFound => "Key not found".to_owned(),
        TreeError::Exists => "Key already exists".to_owned(),
        TreeError::Unavailable(reason) | TreeError::Refused(reason) => reason,
    })
}

/// Looks at the token until that succeeds.
fn check(
    tree: &mut impl Tree,
    clock: &mut impl Pause,
    own: &str,
) -> Result<Registered, RegistryError> {
    let mut retries = 0;
    let mut retry = |error: TreeError| match error {
        TreeError::Unavailable(reason) => {
            retries += 1;
            clock.pause(pause_before(retries), &format!("cluster status check: {reason}"));
            Ok(())
        }
        error => Err(bad_endpoint(error)),
    };
    loop {
        let size = match tree.size() {
            Ok(size) => size,
            Err(TreeError::NotFound) => return Err(RegistryError::SizeNotFound),
            Err(error) => {
                retry(error)?;
                continue;
            }
        };
        let size = size.parse::<usize>().ok().filter(|size| *size > 0);
        let size = size.ok_or(RegistryError::BadSize)?;
        let (mut nodes, count) = match tree.list() {
            Ok(listed) => listed,
            Err(error) => {
                retry(error)?;
                continue;
            }
        };
        nodes.sort_by_key(|node| node.created);
        nodes.dedup_by(|left, right| left.name == right.name);
        let is_first = nodes.iter().take(size).any(|node| node.name == own);
        if nodes.len() >= size && !is_first {
            return Err(RegistryError::Full);
        }
        nodes.truncate(size);
        return Ok(Registered { nodes, size, count });
    }
}

fn initial_cluster(registered: &Registered) -> Result<String, RegistryError> {
    let values: Vec<&str> = registered.nodes.iter().map(|node| node.value.as_str()).collect();
    let text = values.join(",");
    let cluster = InitialCluster::parse(&text).map_err(|_| RegistryError::InvalidUrl)?;
    if cluster.len() != registered.size {
        return Err(RegistryError::DuplicateName);
    }
    Ok(text)
}

/// The service over HTTP.
#[derive(Debug)]
pub struct HttpTree {
    url: Url,
    /// The token's path, with a slash before it and none behind.
    path: String,
}

impl HttpTree {
    /// For `http://host:port/some/path/token`.
    ///
    /// # Errors
    /// The text is no such URL.
    pub fn new(text: &str) -> Result<Self, String> {
        let invalid = |reason: &str| format!("--discovery {text:?}: {reason}");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("it is no URL"))?;
        let (authority, path) = rest.split_once('/').ok_or_else(|| invalid("it names no token"))?;
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(invalid("it names no token"));
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%\"<>".contains(&byte);
        if !path.bytes().all(is_plain) {
            return Err(invalid("its path has more than a path's plain characters"));
        }
        if scheme != "http" {
            return Err(invalid("ringd speaks plain HTTP to it, and nothing else yet"));
        }
        // A URL of a service may leave its port out, other than a member's.
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let port = if has_port { "" } else { ":80" };
        let urls = parse_urls(&format!("{scheme}://{authority}{port}"));
        let mut urls = urls.map_err(|error| invalid(&error.to_string()))?;
        Ok(Self { url: urls.remove(0), path: format!("/{path}") })
    }

    fn ask(&self, request: Request<'_>) -> Result<(Answer, Json), TreeError> {
        let answer = ask(&self.url, request).map_err(TreeError::Unavailable)?;
        if answer.status >= 500 {
            let reason = format!("the service answers with {}", answer.status);
            return Err(TreeError::Unavailable(reason));
        }
        let json = Json::parse(&answer.body);
        let json = json.map_err(|error| {
            TreeError::Refused(format!("the service answers with {}: {error}", answer.status))
        })?;
        match json.get("errorCode").and_then(Json::unsigned) {
            Some(KEY_NOT_FOUND) => Err(TreeError::NotFound),
            Some(KEY_EXISTS) => Err(TreeError::Exists),
            Some(code) => {
                let message = json.get("message").and_then(Json::text).unwrap_or_default();
                Err(TreeError::Refused(format!("{code}: {message}")))
            }
            None if (200..300).contains(&answer.status) => Ok((answer, json)),
            None => Err(TreeError::Refused(format!("the service answers with {}", answer.status))),
        }
    }

    fn get(&self, target: &str, timeout: Duration) -> Result<(Answer, Json), TreeError> {
        self.ask(Request { method: "GET", target, body: None, fields: &[], timeout })
    }
}

impl Tree for HttpTree {
    fn size(&mut self) -> Result<String, TreeError> {
        let target = format!("{}/_config/size", self.path);
        let (_, json) = self.get(&target, ASK_TIMEOUT)?;
        let value = json.get("node").and_then(|node| node.get("value")).and_then(Json::text);
        let value = value.ok_or_else(|| TreeError::Refused("the size has no value".to_owned()))?;
        Ok(value.to_owned())
    }

    fn list(&mut self) -> Result<(Vec<Node>, u64), TreeError> {
        let (answer, json) = self.get(&self.path, ASK_TIMEOUT)?;
        let count = answer.header("x-etcd-index").and_then(|count| count.parse().ok());
        let listed = json.get("node").and_then(|node| node.get("nodes")).and_then(Json::list);
        let mut nodes = Vec::new();
        for node in listed.unwrap_or_default() {
            let key = node.get("key").and_then(Json::text).unwrap_or_default();
            let name = key.rsplit('/').next().unwrap_or_default().to_owned();
            // The token's own settings are a directory beside the members.
            if name.is_empty() || name == "_config" {
                continue;
            }
            let value = node.get("value").and_then(Json::text).unwrap_or_default().to_owned();
            let created = node.get("createdIndex").and_then(Json::unsigned).unwrap_or_default();
            nodes.push(Node { name, value, created });
        }
        let newest = nodes.iter().map(|node| node.created).max().unwrap_or_default();
        Ok((nodes, count.unwrap_or(newest)))
    }

    fn create(&mut self, name: &str, value: &str) -> Result<(), TreeError> {
        let target = format!("{}/{name}?prevExist=false", self.path);
        let form = format!("value={}", form_encoded(value));
        let body = Some((FORM, form.as_str()));
        let request =
            Request { method: "PUT", target: &target, body, fields: &[], timeout: ASK_TIMEOUT };
        self.ask(request).map(drop)
    }

    fn wait(&mut self, count: u64) -> Result<(), TreeError> {
        let next = count.saturating_add(1);
        let target = format!("{}?recursive=true&wait=true&waitIndex={next}", self.path);
        match self.get(&target, WAIT_TIMEOUT) {
            Ok(_) => Ok(()),
            // Silence for so long, an empty answer, or a count that the service has forgotten: look
            // again.
            Err(TreeError::Unavailable(reason)) if reason == "context deadline exceeded" => Ok(()),
            Err(TreeError::Refused(reason)) if reason.starts_with("401: ") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A value of a form (`application/x-www-form-urlencoded`).
fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
