//! Clusters as they are founded and joined: who the members are, what ids they have, and whether
//! the flags agree with what is there. etcd's rules, in its order, with its texts.
//!
//! Everything here is pure: names are resolved through [`Resolve`], and what other members say is
//! handed in.
//!
//! Invariants:
//! - Ids are a function of the flags alone, the same on each member, and the same as etcd's.
//! - Members are in the order of their ids, as etcd lists them.

use std::collections::BTreeMap;

use engine::{ClusterId, Member, MemberId};
use sha1::{Digest, Sha1};

use super::addresses::{Resolve, compare};
use crate::config::{Url, parse_urls, texts};

/// The id of a founding member: its peer URLs in order, then the cluster's token, hashed.
pub fn member_id(peer_urls: &[Url], token: &str) -> MemberId {
    MemberId(hash_of_member(peer_urls, token, ""))
}

/// The id of a member that is added to a running cluster, at this moment in seconds since 1970.
pub fn member_id_at(peer_urls: &[Url], unix_seconds: i64) -> MemberId {
    MemberId(hash_of_member(peer_urls, "", &unix_seconds.to_string()))
}

fn hash_of_member(peer_urls: &[Url], token: &str, moment: &str) -> u64 {
    let mut texts: Vec<&str> = peer_urls.iter().map(Url::as_str).collect();
    texts.sort_unstable();
    let mut hash = Sha1::new();
    for text in texts {
        hash.update(text);
    }
    hash.update(token);
    hash.update(moment);
    first_word(hash)
}

/// The id of a cluster: the ids of its founding members in order, hashed.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut sorted: Vec<u64> = members.iter().map(|member| member.get()).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for member in sorted {
        hash.update(member.to_be_bytes());
    }
    ClusterId(first_word(hash))
}

fn first_word(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let (word, _) = digest.split_first_chunk::<8>().expect("a SHA-1 has twenty bytes");
    u64::from_be_bytes(*word)
}

/// A member of a cluster that is founded or joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its id.
    pub id: MemberId,
    /// Its name, as `--initial-cluster` has it.
    pub name: String,
    /// Where the others reach it, sorted.
    pub peer_urls: Vec<Url>,
}

impl InitialMember {
    /// The member as the store of a cluster that begins with it has it.
    #[must_use]
    pub fn into_member(self) -> Member {
        let Self { id, name, peer_urls } = self;
        Member { id, name, peer_urls: texts(&peer_urls), ..Member::default() }
    }
}

/// The members that flags name: `name=url,name=url,...`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster {
    /// The URLs of each name, sorted; one that is named twice is there twice.
    urls: BTreeMap<String, Vec<Url>>,
}

impl InitialCluster {
    /// Reads `--initial-cluster`. A name may come several times, with one URL each time.
    ///
    /// # Errors
    /// What etcd says of a URL that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut urls: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, url) = part.split_once('=').unwrap_or((part, ""));
            let parsed = parse_urls(url).map_err(|error| error.to_string())?;
            urls.entry(name.to_owned()).or_default().extend(parsed);
        }
        for urls in urls.values_mut() {
            urls.sort_by(|left, right| left.as_str().cmp(right.as_str()));
        }
        Ok(Self { urls })
    }

    /// The cluster of one member that discovery begins with.
    #[must_use]
    pub fn of_one(name: &str, peer_urls: &[Url]) -> Self {
        let mut peer_urls = peer_urls.to_vec();
        peer_urls.sort_by(|left, right| left.as_str().cmp(right.as_str()));
        Self { urls: BTreeMap::from([(name.to_owned(), peer_urls)]) }
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.urls.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.urls.keys().map(String::as_str)
    }

    /// The URLs of a member, if it is named.
    #[must_use]
    pub fn urls_of(&self, name: &str) -> Option<&[Url]> {
        self.urls.get(name).map(Vec::as_slice)
    }

    /// The members as etcd writes them in its texts, and as discovery registers them.
    #[must_use]
    pub fn text(&self) -> String {
        let of_member = |(name, urls): (&String, &Vec<Url>)| {
            urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
        };
        let mut pairs: Vec<String> = self.urls.iter().flat_map(of_member).collect();
        pairs.sort_unstable();
        pairs.join(",")
    }

    /// The members with their ids, in the order of these.
    ///
    /// # Errors
    /// Two members come to one id, which only the same URLs do; or an id that nobody may have.
    pub fn members(&self, token: &str) -> Result<Vec<InitialMember>, String> {
        let mut members: BTreeMap<u64, InitialMember> = BTreeMap::new();
        for (name, urls) in &self.urls {
            let id = member_id(urls, token);
            if id.0 == 0 {
                return Err("cannot use 0 as member id".to_owned());
            }
            let member = InitialMember { id, name: name.clone(), peer_urls: urls.clone() };
            if members.contains_key(&id.0) {
                return Err(format!(
                    "member exists with identical ID {}",
                    shown(id, urls.iter().map(Url::as_str), false, name, &[])
                ));
            }
            members.insert(id.0, member);
        }
        Ok(members.into_values().collect())
    }

    fn has_duplicate_url(&self) -> bool {
        let mut seen: Vec<&str> = self.urls.values().flatten().map(Url::as_str).collect();
        seen.sort_unstable();
        seen.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// etcd's checks of a member that founds a cluster.
    ///
    /// # Errors
    /// The first that fails.
    pub fn check_founding(
        &self,
        name: &str,
        advertised: &[Url],
        resolver: &mut impl Resolve,
    ) -> Result<(), String> {
        let own = self.check_name(name)?;
        check_advertised(name, own, advertised, resolver)?;
        self.check_duplicates()
    }

    /// etcd's checks of a member that joins a cluster, before it asks that.
    ///
    /// # Errors
    /// The first that fails.
    pub fn check_joining(&self, name: &str, discovers: bool) -> Result<(), String> {
        self.check_name(name)?;
        self.check_duplicates()?;
        if discovers {
            let reason = "discovery URL should not be set when joining existing initial cluster";
            return Err(reason.to_owned());
        }
        Ok(())
    }

    /// The same check for what discovery found.
    ///
    /// # Errors
    /// A URL is there twice.
    pub fn check_discovered(&self) -> Result<(), String> {
        if self.has_duplicate_url() {
            return Err(format!("discovery cluster {} has duplicate url", self.text()));
        }
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<&[Url], String> {
        self.urls_of(name).ok_or_else(|| {
            format!("couldn't find local name {name:?} in the initial cluster configuration")
        })
    }

    fn check_duplicates(&self) -> Result<(), String> {
        if self.has_duplicate_url() {
            return Err(format!("initial cluster {} has duplicate url", self.text()));
        }
        Ok(())
    }

    /// The peer URLs of all members but this one, in order: whom to ask about the cluster.
    #[must_use]
    pub fn remote_urls(&self, name: &str) -> Vec<Url> {
        let others = self.urls.iter().filter(|(other, _)| other.as_str() != name);
        let mut urls: Vec<Url> = others.flat_map(|(_, urls)| urls.clone()).collect();
        urls.sort_by(|left, right| left.as_str().cmp(right.as_str()));
        urls
    }
}

/// Both lists of this member's peer URLs must lead to the same places.
fn check_advertised(
    name: &str,
    in_cluster: &[Url],
    advertised: &[Url],
    resolver: &mut impl Resolve,
) -> Result<(), String> {
    let Err(difference) = compare(advertised, in_cluster, resolver) else { return Ok(()) };
    let without = |list: &[Url], other: &[Url]| {
        let is_missing = |url: &&Url| !other.iter().any(|one| one.as_str() == url.as_str());
        let mut missing: Vec<String> =
            list.iter().filter(is_missing).map(ToString::to_string).collect();
        missing.dedup();
        missing
    };
    let joined = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
    let missing = without(in_cluster, advertised);
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(|url| format!("{name}={url}")).collect();
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} \
             ({difference})",
            missing.join(","),
            joined(advertised)
        ));
    }
    let own = InitialCluster::of_one(name, advertised).text();
    let missing = without(advertised, in_cluster);
    if !missing.is_empty() {
        return Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={own}",
            missing.join(",")
        ));
    }
    Err(format!(
        "failed to resolve {} to match --initial-cluster={own} ({difference})",
        joined(advertised)
    ))
}

/// A member as a running cluster tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteMember {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where the others reach it. Texts: another member's word for it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it is a learner.
    pub is_learner: bool,
}

/// A running cluster, as one of its members tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCluster {
    /// Its id.
    pub id: ClusterId,
    /// Its members, in the order of their ids.
    pub members: Vec<RemoteMember>,
}

impl RemoteCluster {
    /// Whether this member has been in the cluster before: it lost its data, and may not vote again
    /// as if it had not voted.
    ///
    /// # Errors
    /// It has.
    pub fn check_not_bootstrapped(&self, member: MemberId) -> Result<(), String> {
        let known = self.members.iter().find(|known| known.id == member);
        match known {
            Some(known) if !known.client_urls.is_empty() => {
                Err(format!("member {:x} has already been bootstrapped", member.get()))
            }
            _ => Ok(()),
        }
    }

    /// Finds the members that flags name among those of the cluster, by their peer URLs, and takes
    /// the cluster's ids for them.
    ///
    /// # Errors
    /// They are not the same members.
    pub fn match_members(
        &self,
        local: &[InitialMember],
        resolver: &mut impl Resolve,
    ) -> Result<Vec<InitialMember>, String> {
        let wrapped =
            |reason: String| format!("error validating peerURLs {}: {reason}", self.shown());
        if local.len() != self.members.len() {
            return Err(wrapped("member count is unequal".to_owned()));
        }
        let mut matched: BTreeMap<u64, InitialMember> = BTreeMap::new();
        for remote in &self.members {
            let urls = parse_each(&remote.peer_urls);
            let mut last = String::new();
            let found = local.iter().find(|member| {
                let compared = match &urls {
                    Ok(urls) => compare(urls, &member.peer_urls, resolver),
                    Err(error) => Err(error.clone()),
                };
                compared.map_err(|error| last = error).is_ok()
            });
            let Some(member) = found else {
                return Err(wrapped(format!(
                    "PeerURLs: no match found for existing member ({:x}, [{}]), last resolver \
                     error ({last})",
                    remote.id.get(),
                    remote.peer_urls.join(" ")
                )));
            };
            matched.insert(remote.id.get(), InitialMember { id: remote.id, ..member.clone() });
        }
        Ok(matched.into_values().collect())
    }

    /// Whether the cluster has no more learners than this member would allow.
    ///
    /// # Errors
    /// It has.
    pub fn check_learners(&self, learners_max: usize) -> Result<(), String> {
        let learners = self.members.iter().filter(|member| member.is_learner).count();
        if learners > learners_max {
            return Err("membership: too many learner members in cluster".to_owned());
        }
        Ok(())
    }

    /// The cluster as Go shows it.
    fn shown(&self) -> String {
        let members = self.members.iter().map(|member| {
            let urls = member.peer_urls.iter().map(String::as_str);
            shown(member.id, urls, member.is_learner, &member.name, &member.client_urls)
        });
        let members = members.collect::<Vec<_>>().join(" ");
        format!("{{ClusterID:{:x} Members:[{members}] RemovedMemberIDs:[]}}", self.id.get())
    }
}

fn parse_each(texts: &[String]) -> Result<Vec<Url>, String> {
    let mut urls = Vec::with_capacity(texts.len());
    for text in texts {
        let parsed = parse_urls(text);
        urls.extend(parsed.map_err(|_| format!("failed to parse string to URL: {text:?}"))?);
    }
    Ok(urls)
}

/// A member as Go shows it.
fn shown<'a>(
    id: MemberId,
    peer_urls: impl Iterator<Item = &'a str>,
    is_learner: bool,
    name: &str,
    client_urls: &[String],
) -> String {
    format!(
        "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{is_learner}}} \
         Attributes:{{Name:{name} ClientURLs:[{}]}}}}",
        id.get(),
        peer_urls.collect::<Vec<_>>().join(" "),
        client_urls.join(" ")
    )
}

/// A version without its patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MinorVersion {
    /// The first number.
    pub major: u64,
    /// The second.
    pub minor: u64,
}

impl MinorVersion {
    /// Reads `3.7.1`; the patch is checked and left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (numbers, _) = text.split_once(['-', '+']).unwrap_or((text, ""));
        let mut parts = numbers.split('.').map(|part| part.parse::<u64>().ok());
        let (major, minor, _patch) = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(Self { major, minor })
    }
}

/// The oldest cluster that etcd 3.7 joins.
const CLUSTER_VERSION_MIN: MinorVersion = MinorVersion { major: 3, minor: 0 };

/// Whether a member of version `own` may join a cluster whose members answered so, `None` for those
/// that could not be asked: one at least has to fit, and none may not.
///
/// # Errors
/// It may not.
pub fn check_versions(
    cluster_versions: &[Option<String>],
    own: MinorVersion,
    is_downgrading: bool,
) -> Result<(), String> {
    let (min, max) = if is_downgrading {
        let next = MinorVersion { minor: own.minor + 1, ..own };
        (next, next)
    } else {
        (CLUSTER_VERSION_MIN, own)
    };
    let known = cluster_versions.iter().flatten().filter_map(|text| MinorVersion::parse(text));
    let mut fits = false;
    for version in known {
        fits = (min..=max).contains(&version);
        if !fits {
            break;
        }
    }
    if fits { Ok(()) } else { Err("incompatible with current running cluster".to_owned()) }
}

#[cfg(test)]
mod founded;
#[cfg(test)]
mod tests;
