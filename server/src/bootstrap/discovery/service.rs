//! `--discovery-endpoints`: members register with an etcd or a ringd under a token, and wait until
//! so many have as the token's size says.
//!
//! The keys and values are etcd's, so that members of both kinds could use one service; and so are
//! the rules: the first registrations count, by the revisions that made them, and whoever comes too
//! late is told that the cluster is full.

use engine::MemberId;

use super::super::cluster::InitialCluster;
use super::{Pause, pause_before};

const PREFIX: &str = "/_etcd/registry";

/// A key of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The revision that made it.
    pub create_revision: i64,
}

/// The service.
pub trait KvService {
    /// The value of a key.
    ///
    /// # Errors
    /// The service's, as text.
    fn get(&mut self, key: &str) -> Result<Option<String>, String>;

    /// All keys that begin so, and the revision at which they stand so.
    ///
    /// # Errors
    /// The service's, as text.
    fn list(&mut self, prefix: &str) -> Result<(Vec<Entry>, i64), String>;

    /// Writes a key.
    ///
    /// # Errors
    /// The service's, as text.
    fn put(&mut self, key: &str, value: &str) -> Result<(), String>;

    /// Waits for changes of keys that begin so, from a revision on, and hands each batch of them to
    /// `handle` until that answers `false`, or until there were none for long.
    ///
    /// # Errors
    /// The service's, as text.
    fn watch(
        &mut self,
        prefix: &str,
        revision_first: i64,
        handle: &mut dyn FnMut(Vec<Entry>) -> bool,
    ) -> Result<(), String>;
}

/// Why nobody was found, in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryError {
    /// The token has no size.
    SizeNotFound,
    /// Its size is no number above zero.
    BadSize,
    /// So many have registered before.
    Full,
    /// What the others registered are no members.
    InvalidUrl,
}

impl std::fmt::Display for DiscoveryError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::SizeNotFound => "discovery: size key not found",
            Self::BadSize => "discovery: size key is bad",
            Self::Full => "discovery: cluster is full",
            Self::InvalidUrl => "discovery: invalid peer URL",
        })
    }
}

impl std::error::Error for DiscoveryError {}

/// What is known of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Registered {
    /// In the order of their registration.
    members: Vec<Entry>,
    size: usize,
    revision: i64,
}

/// Registers a member (`name=url,...`) under a token, and waits for the others.
///
/// # Errors
/// Only what waiting cannot mend; a service that cannot be reached is asked again and again.
pub fn join(
    service: &mut impl KvService,
    clock: &mut impl Pause,
    token: &str,
    member: MemberId,
    text: &str,
) -> Result<String, DiscoveryError> {
    let own_key = format!("{}/{:x}", members_prefix(token), member.get());
    check(service, clock, token, &own_key)?;
    let mut retries = 0;
    while let Err(error) = service.put(&own_key, text) {
        retries += 1;
        clock.pause(pause_before(retries), &format!("register member itself: {error}"));
    }
    let mut registered = check(service, clock, token, &own_key)?;
    let mut retries = 0;
    while registered.members.len() < registered.size {
        let revision_first = registered.revision + 1;
        let size = registered.size;
        let members = &mut registered.members;
        let watched =
            service.watch(&members_prefix(token), revision_first, &mut |entries: Vec<Entry>| {
                for entry in entries {
                    add(members, token, &entry);
                }
                members.len() < size
            });
        if registered.members.len() >= registered.size {
            break;
        }
        if let Err(error) = watched {
            retries += 1;
            clock.pause(pause_before(retries), &format!("waiting for other members: {error}"));
        }
        // What the watch missed may be compacted by now; the list has it.
        registered = check(service, clock, token, &own_key)?;
    }
    initial_cluster(&registered)
}

/// Looks at the token until that succeeds.
fn check(
    service: &mut impl KvService,
    clock: &mut impl Pause,
    token: &str,
    own_key: &str,
) -> Result<Registered, DiscoveryError> {
    let mut retries = 0;
    loop {
        match look(service, token) {
            Ok(looked) => {
                let registered = looked?;
                let mut first = registered.members.iter().take(registered.size);
                let is_full = registered.members.len() >= registered.size;
                if is_full && !first.any(|member| member.key == own_key) {
                    return Err(DiscoveryError::Full);
                }
                return Ok(registered);
            }
            Err(error) => {
                retries += 1;
                clock.pause(pause_before(retries), &format!("cluster status check: {error}"));
            }
        }
    }
}

/// The outer error may pass; the inner one does not.
fn look(
    service: &mut impl KvService,
    token: &str,
) -> Result<Result<Registered, DiscoveryError>, String> {
    let Some(size) = service.get(&size_key(token))? else {
        return Ok(Err(DiscoveryError::SizeNotFound));
    };
    let size = size.parse::<i64>().ok().filter(|size| *size > 0);
    let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else {
        return Ok(Err(DiscoveryError::BadSize));
    };
    let (entries, revision) = service.list(&members_prefix(token))?;
    let mut members = Vec::new();
    for entry in entries {
        add(&mut members, token, &entry);
    }
    Ok(Ok(Registered { members, size, revision }))
}

/// Adds what is a registration, and was not known.
fn add(members: &mut Vec<Entry>, token: &str, entry: &Entry) {
    let key = entry.key.trim().to_owned();
    let value = entry.value.trim().to_owned();
    let is_known = members.iter().any(|member| member.key == key);
    // A deletion has no value, and something else no equals sign.
    if is_known || !key.starts_with(&members_prefix(token)) || !value.contains('=') {
        return;
    }
    members.push(Entry { key, value, ..*entry });
    members.sort_by_key(|member| member.create_revision);
}

fn initial_cluster(registered: &Registered) -> Result<String, DiscoveryError> {
    let first = registered.members.iter().take(registered.size);
    let text = first.map(|member| member.value.as_str()).collect::<Vec<_>>().join(",");
    match InitialCluster::parse(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(DiscoveryError::InvalidUrl),
    }
}

fn size_key(token: &str) -> String {
    format!("{}/_config/size", cluster_prefix(token))
}

fn members_prefix(token: &str) -> String {
    format!("{}/members", cluster_prefix(token))
}

/// Go's `path.Join`: a token is a path like any other.
fn cluster_prefix(token: &str) -> String {
    let mut parts = Vec::new();
    for part in PREFIX.split('/').chain(token.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
pub(in crate::bootstrap) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    /// Notes the pauses instead of making them.
    #[derive(Default)]
    pub struct Noted(pub Vec<u64>);

    impl Pause for Noted {
        fn pause(&mut self, time: Duration, _reason: &str) {
            self.0.push(time.as_secs());
        }
    }

    /// A service in memory; others register while it is watched.
    #[derive(Default)]
    struct Memory {
        keys: BTreeMap<String, (String, i64)>,
        revision: i64,
        /// What still fails, by turns.
        failures: u32,
        /// Who comes while we wait, one batch after the other.
        coming: Vec<Vec<(&'static str, &'static str)>>,
    }

    impl Memory {
        fn with(keys: &[(&str, &str)]) -> Self {
            let mut memory = Self::default();
            for (key, value) in keys {
                memory.set(key, value);
            }
            memory
        }

        fn set(&mut self, key: &str, value: &str) -> Entry {
            self.revision += 1;
            let entry = self.keys.entry(key.to_owned()).or_insert((String::new(), self.revision));
            value.clone_into(&mut entry.0);
            let create_revision = entry.1;
            Entry { key: key.to_owned(), value: value.to_owned(), create_revision }
        }

        fn fail(&mut self) -> Result<(), String> {
            if self.failures == 0 {
                return Ok(());
            }
            self.failures -= 1;
            Err("unavailable".to_owned())
        }
    }

    impl KvService for Memory {
        fn get(&mut self, key: &str) -> Result<Option<String>, String> {
            self.fail()?;
            Ok(self.keys.get(key).map(|(value, _)| value.clone()))
        }

        fn list(&mut self, prefix: &str) -> Result<(Vec<Entry>, i64), String> {
            let found = self.keys.iter().filter(|(key, _)| key.starts_with(prefix));
            let entries = found.map(|(key, (value, create_revision))| Entry {
                key: key.clone(),
                value: value.clone(),
                create_revision: *create_revision,
            });
            Ok((entries.collect(), self.revision))
        }

        fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
            self.fail()?;
            self.set(key, value);
            Ok(())
        }

        fn watch(
            &mut self,
            _prefix: &str,
            revision_first: i64,
            handle: &mut dyn FnMut(Vec<Entry>) -> bool,
        ) -> Result<(), String> {
            assert_eq!(revision_first, self.revision + 1);
            while !self.coming.is_empty() {
                let batch = self.coming.remove(0);
                if batch.is_empty() {
                    return Err("the watch broke".to_owned());
                }
                let batch = batch.into_iter().map(|(key, value)| self.set(key, value)).collect();
                if !handle(batch) {
                    return Ok(());
                }
            }
            panic!("it waits for ever");
        }
    }

    const SIZE: &str = "/_etcd/registry/t/_config/size";

    fn join_as(service: &mut Memory, member: u64) -> (Result<String, DiscoveryError>, Vec<u64>) {
        let mut clock = Noted::default();
        let text = format!("n{member:x}=http://10.0.0.{member}:1");
        let joined = join(service, &mut clock, "t", MemberId(member), &text);
        (joined, clock.0)
    }

    #[test]
    fn members_wait_for_each_other_and_agree_on_the_order() {
        let mut service = Memory::with(&[(SIZE, "3")]);
        service.coming = vec![
            vec![("/_etcd/registry/t/members/b", "nb=http://10.0.0.11:1")],
            vec![("/_etcd/registry/t/members/a", "na=http://10.0.0.10:1,na=http://10.0.0.10:2")],
        ];
        let expected = "nc=http://10.0.0.12:1,nb=http://10.0.0.11:1,na=http://10.0.0.10:1,\
                        na=http://10.0.0.10:2";
        assert_eq!(join_as(&mut service, 12), (Ok(expected.to_owned()), vec![]));
        let own = &service.keys["/_etcd/registry/t/members/c"];
        assert_eq!(own.0, "nc=http://10.0.0.12:1");
        // Whoever comes again finds the same; whoever comes late finds it full.
        assert_eq!(join_as(&mut service, 12).0, Ok(expected.to_owned()));
        assert_eq!(join_as(&mut service, 13).0, Err(DiscoveryError::Full));
        assert!(!service.keys.contains_key("/_etcd/registry/t/members/d"));
    }

    #[test]
    fn what_is_no_registration_does_not_count() {
        let mut service = Memory::with(&[
            (SIZE, "2"),
            ("/_etcd/registry/t/members/1", "no member"),
            ("/_etcd/registry/u/members/2", "n=http://10.0.0.2:1"),
        ]);
        service.coming = vec![
            vec![("/_etcd/registry/t/members/5", "")],
            vec![],
            vec![
                ("/_etcd/registry/t/members/3", "n3=http://10.0.0.3:1"),
                ("/_etcd/registry/t/members/4", "n4=http://10.0.0.4:1"),
            ],
        ];
        let (joined, pauses) = join_as(&mut service, 9);
        assert_eq!(joined, Ok("n9=http://10.0.0.9:1,n3=http://10.0.0.3:1".to_owned()));
        assert_eq!(pauses, [2]);
    }

    #[test]
    fn a_token_without_a_size_is_refused() {
        for (size, expected) in [
            (None, DiscoveryError::SizeNotFound),
            (Some("x"), DiscoveryError::BadSize),
            (Some("0"), DiscoveryError::BadSize),
            (Some("-1"), DiscoveryError::BadSize),
        ] {
            let keys: Vec<(&str, &str)> = size.map(|size| (SIZE, size)).into_iter().collect();
            assert_eq!(join_as(&mut Memory::with(&keys), 1), (Err(expected), vec![]));
        }
        let mut service = Memory::with(&[(SIZE, "2")]);
        service.coming = vec![vec![("/_etcd/registry/t/members/5", "n5=nonsense")]];
        assert_eq!(join_as(&mut service, 1).0, Err(DiscoveryError::InvalidUrl));
    }

    #[test]
    fn a_service_that_fails_is_asked_again_ever_later() {
        let mut service = Memory::with(&[(SIZE, "1")]);
        service.failures = 10;
        let (joined, pauses) = join_as(&mut service, 1);
        assert_eq!(joined, Ok("n1=http://10.0.0.1:1".to_owned()));
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
    }

    #[test]
    fn tokens_are_paths() {
        for (token, expected) in [
            ("t", "/_etcd/registry/t"),
            ("/a//b/", "/_etcd/registry/a/b"),
            ("a/../b", "/_etcd/registry/b"),
        ] {
            assert_eq!(cluster_prefix(token), expected);
        }
    }
}
