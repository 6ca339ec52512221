//! How a member without data begins: who it is, and who the others are.
//!
//! etcd's order. The members are named by `--initial-cluster`, by DNS, or by a discovery service; a
//! member that founds a cluster makes sure that it has not been in it before, and one that joins
//! asks the cluster for everybody's ids. This blocks: before the executors run there is nobody to
//! wait.

use std::time::Duration;

use engine::{Identity, MemberId};

use super::Failure;
use super::addresses::Resolve;
use super::cluster::{
    InitialCluster, InitialMember, MinorVersion, RemoteMember, check_versions, cluster_id,
};
use super::discovery::dns_client::DnsClient;
use super::discovery::kv_client::{KvClient, KvClientConfig};
use super::discovery::srv::{SrvLookup, SrvQuestion, find_members};
use super::discovery::{Pause, registry, service};
use super::identity::{SystemResolver, parse_initial_cluster};
use super::remote::{
    BOOTSTRAPPED_TIMEOUT, Found, MEMBERS_TIMEOUT, NOBODY_ANSWERED, fetch_cluster,
    fetch_downgrading, fetch_versions,
};
use crate::config::{ClusterState, Config, ETCD_VERSION, Notice};
use crate::log::Level;

/// What the `Server` header of a member's peer listener begins with. Members of etcd send none, and
/// a cluster of theirs speaks another protocol.
pub const SERVER_NAME: &str = "ringd/";

/// etcd's time for a request besides two elections.
const REQUEST_TIMEOUT_BASE: Duration = Duration::from_secs(5);

/// How the member comes into its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It founds the cluster, with all others that begin with it.
    Founds,
    /// It joins one that runs, whose members told this of themselves.
    Joins(Vec<RemoteMember>),
}

/// Who a member without data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Its own id, and the cluster's.
    pub identity: Identity,
    /// All members, itself among them, in the order of their ids.
    pub members: Vec<InitialMember>,
    /// How it comes into the cluster.
    pub origin: Origin,
}

/// What the decisions need from outside, besides other members.
pub struct Outside<'a, R, S, P> {
    /// Names to addresses.
    pub resolver: &'a mut R,
    /// SRV records.
    pub lookup: &'a mut S,
    /// Time that passes.
    pub clock: &'a mut P,
}

/// Waits, and says why.
#[derive(Debug)]
pub struct Sleeper;

impl Pause for Sleeper {
    fn pause(&mut self, time: Duration, reason: &str) {
        let message = "retry connecting to discovery service";
        crate::log_event!(Warn, message, "reason" => reason, "backoff" => time);
        std::thread::sleep(time);
    }
}

/// Settles who a member without data is, by its flags and whoever they name.
///
/// # Errors
/// The flags do not fit each other, or what others say; in etcd's words.
pub fn begin(config: &Config, notices: &mut Vec<Notice>) -> Result<Beginning, Failure> {
    let lookup = &mut DnsClient::of_this_machine();
    let (resolver, clock) = (&mut SystemResolver, &mut Sleeper);
    begin_with(config, Outside { resolver, lookup, clock }, notices)
}

/// The same with other means of asking.
///
/// # Errors
/// As [`begin`].
pub fn begin_with<R: Resolve, S: SrvLookup, P: Pause>(
    config: &Config,
    outside: Outside<'_, R, S, P>,
    notices: &mut Vec<Notice>,
) -> Result<Beginning, Failure> {
    let Outside { resolver, lookup, clock } = outside;
    let (named, token) = name_members(config, resolver, lookup, notices)?;
    match config.initial_cluster_state {
        ClusterState::New => found(config, &named, &token, (resolver, clock), notices),
        ClusterState::Existing => join(config, &named, &token, resolver, notices),
    }
}

/// The members as the flags or the DNS name them, and the token of their ids.
fn name_members(
    config: &Config,
    resolver: &mut impl Resolve,
    lookup: &mut impl SrvLookup,
    notices: &mut Vec<Notice>,
) -> Result<(InitialCluster, String), Failure> {
    let discovery = &config.discovery;
    let advertised = &config.initial_advertise_peer_urls;
    let of_one = || InitialCluster::of_one(&config.name, advertised);
    if !discovery.endpoints.is_empty() {
        return Ok((of_one(), discovery.token.clone()));
    }
    if !discovery.url.is_empty() {
        return Ok((of_one(), discovery.url.clone()));
    }
    let token = config.initial_cluster_token.clone();
    if discovery.srv.is_empty() {
        return Ok((parse_initial_cluster(&config.initial_cluster)?, token));
    }
    let question = SrvQuestion {
        name: &config.name,
        domain: &discovery.srv,
        service_name: &discovery.srv_name,
        advertised,
    };
    let found = find_members(question, lookup, resolver);
    let failures = found.failures.join("\n");
    if !failures.is_empty() {
        let message = "failed to resolve during SRV discovery".to_owned();
        let fields = vec![("error", failures.clone())];
        notices.push(Notice { level: Level::Warn, message, fields });
    }
    if found.members.is_empty() && !failures.is_empty() {
        let text = format!("error setting up initial cluster: {failures}");
        return Err(Failure::InitialCluster(text));
    }
    for member in &found.members {
        let message = "got bootstrap from DNS for etcd-server".to_owned();
        notices.push(Notice {
            level: Level::Info,
            message,
            fields: vec![("node", member.clone())],
        });
    }
    let cluster = parse_initial_cluster(&found.members.join(","))?;
    if cluster.urls_of(&config.name).is_none() && !cluster.is_empty() {
        return Err(Failure::InitialCluster(format!(
            "error setting up initial cluster: cannot find local etcd member {:?} in SRV records",
            config.name
        )));
    }
    Ok((cluster, token))
}

fn found(
    config: &Config,
    named: &InitialCluster,
    token: &str,
    (resolver, clock): (&mut impl Resolve, &mut impl Pause),
    notices: &mut Vec<Notice>,
) -> Result<Beginning, Failure> {
    let name = &config.name;
    let checked = named.check_founding(name, &config.initial_advertise_peer_urls, resolver);
    checked.map_err(Failure::InitialCluster)?;
    let members = named.members(token).map_err(Failure::InitialCluster)?;
    let own = id_of(&members, name).ok_or_else(|| missing(name))?;
    // Nobody is there yet when a cluster is founded: what cannot be asked is no reason to complain.
    let others = named.remote_urls(name);
    if let Ok(running) = fetch_cluster(&others, BOOTSTRAPPED_TIMEOUT, &mut Vec::new()) {
        running.cluster.check_not_bootstrapped(own).map_err(Failure::InitialCluster)?;
    }
    let members = match discover(config, own, &named.text(), clock)? {
        None => members,
        Some(text) => {
            let found = format!("discovery joined cluster successfully: {text}");
            notices.push(Notice { level: Level::Info, message: found, fields: Vec::new() });
            let cluster = InitialCluster::parse(&text).map_err(Failure::InitialCluster)?;
            cluster.check_discovered().map_err(Failure::InitialCluster)?;
            cluster.members(token).map_err(Failure::InitialCluster)?
        }
    };
    // etcd goes on without itself; a service that lost our registration is a mistake to be told.
    if !members.iter().any(|member| member.id == own) {
        return Err(missing(name));
    }
    let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    let identity = Identity { cluster: cluster_id(&ids), member: own };
    Ok(Beginning { identity, members, origin: Origin::Founds })
}

/// Registers this member with the discovery service that the flags name, if they do.
fn discover(
    config: &Config,
    own: MemberId,
    text: &str,
    clock: &mut impl Pause,
) -> Result<Option<String>, Failure> {
    let discovery = &config.discovery;
    let failure = |reason: String| Failure::Discovery {
        reason: format!("failed to join discovery cluster ({reason})"),
        token: discovery.token.clone(),
        endpoints: discovery.endpoints.clone(),
    };
    if !discovery.url.is_empty() {
        let mut tree = registry::HttpTree::new(&discovery.url).map_err(failure)?;
        let joined = registry::join(&mut tree, clock, own, text);
        return joined.map(Some).map_err(|error| failure(error.to_string()));
    }
    if discovery.endpoints.is_empty() {
        return Ok(None);
    }
    let has_user = !discovery.user.is_empty() && !discovery.password.is_empty();
    let user = has_user.then(|| (discovery.user.clone(), discovery.password.clone()));
    let mut client = KvClient::new(KvClientConfig {
        endpoints: discovery.endpoints.clone(),
        dial_timeout: discovery.dial_timeout,
        request_timeout: discovery.request_timeout,
        user,
    })
    .map_err(failure)?;
    let joined = service::join(&mut client, clock, &discovery.token, own, text);
    joined.map(Some).map_err(|error| failure(error.to_string()))
}

fn join(
    config: &Config,
    named: &InitialCluster,
    token: &str,
    resolver: &mut impl Resolve,
    notices: &mut Vec<Notice>,
) -> Result<Beginning, Failure> {
    let (name, discovery) = (&config.name, &config.discovery);
    let discovers = !discovery.endpoints.is_empty() || !discovery.url.is_empty();
    named.check_joining(name, discovers).map_err(Failure::InitialCluster)?;
    let local = named.members(token).map_err(Failure::InitialCluster)?;
    let (found, members) = find_cluster(named, name, &local, resolver, notices)?;
    let own = id_of(&members, name).ok_or_else(|| missing(name))?;
    let timeout = REQUEST_TIMEOUT_BASE + 2 * Duration::from_millis(config.election_timeout_ms);
    let version = MinorVersion::parse(ETCD_VERSION).expect("our own version is one");
    let versions = fetch_versions(&members, own, timeout, notices);
    let is_downgrading = fetch_downgrading(&members, own, timeout, notices);
    check_versions(&versions, version, is_downgrading).map_err(Failure::InitialCluster)?;
    let learners_max = usize::try_from(config.max_learners).unwrap_or(0);
    found.cluster.check_learners(learners_max).map_err(Failure::InitialCluster)?;
    let identity = Identity { cluster: found.cluster.id, member: own };
    Ok(Beginning { identity, members, origin: Origin::Joins(found.cluster.members) })
}

/// Asks the named members, one after the other, about the cluster that this one joins.
///
/// etcd believes the first that answers. But the change that added this member reaches the others a
/// moment after it was answered, so here who knows another cluster than the flags say is only
/// believed when nobody knows the one they say.
fn find_cluster(
    named: &InitialCluster,
    name: &str,
    local: &[InitialMember],
    resolver: &mut impl Resolve,
    notices: &mut Vec<Notice>,
) -> Result<(Found, Vec<InitialMember>), Failure> {
    let (mut refusal, mut silence) = (None, None);
    for url in named.remote_urls(name) {
        let found = match fetch_cluster(std::slice::from_ref(&url), MEMBERS_TIMEOUT, notices) {
            Ok(found) => found,
            Err(reason) => {
                silence.get_or_insert(reason);
                continue;
            }
        };
        if !found.server.as_deref().unwrap_or_default().starts_with(SERVER_NAME) {
            return Err(Failure::InitialCluster(format!(
                "cluster {:x} is not of ringd: members of another kind cannot be joined. Move its \
                 data with `ringutl import`",
                found.cluster.id.get()
            )));
        }
        match found.cluster.match_members(local, resolver) {
            Ok(members) => return Ok((found, members)),
            Err(reason) => {
                refusal.get_or_insert(reason);
            }
        }
    }
    Err(Failure::InitialCluster(refusal.unwrap_or_else(|| {
        let reason = silence.unwrap_or_else(|| NOBODY_ANSWERED.to_owned());
        format!("cannot fetch cluster info from peer urls: {reason}")
    })))
}

fn id_of(members: &[InitialMember], name: &str) -> Option<MemberId> {
    members.iter().find(|member| member.name == name).map(|member| member.id)
}

fn missing(name: &str) -> Failure {
    Failure::InitialCluster(format!(
        "couldn't find local name {name:?} in the initial cluster configuration"
    ))
}

#[cfg(test)]
mod tests;
