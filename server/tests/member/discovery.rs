//! A member as a discovery service, and one that is discovered by it.

use std::thread;
use std::time::Duration;

use server::bootstrap::discovery::Pause;
use server::bootstrap::discovery::kv_client::{KvClient, KvClientConfig};
use server::bootstrap::discovery::service::{DiscoveryError, KvService, join};

use crate::directory::Directory;
use crate::member::{Member, arguments, ringd};

struct NoPause;

impl Pause for NoPause {
    fn pause(&mut self, _time: Duration, reason: &str) {
        panic!("the service is there: {reason}");
    }
}

fn client(member: &Member) -> KvClient {
    KvClient::new(KvClientConfig {
        endpoints: vec![member.address().to_string()],
        dial_timeout: Duration::from_secs(60),
        request_timeout: Duration::from_secs(60),
        user: None,
    })
    .unwrap()
}

#[test]
fn members_that_register_at_once_agree_on_who_founds_the_cluster() {
    let directory = Directory::new("discovery");
    let member = Member::start(&directory.join("data"));
    client(&member).put("/_etcd/registry/t/_config/size", "3").unwrap();
    let joining: Vec<_> = (1..=5_u64)
        .map(|id| {
            let mut client = client(&member);
            thread::spawn(move || {
                let text = format!("n{id}=http://10.0.0.{id}:1");
                (text.clone(), join(&mut client, &mut NoPause, "t", id.into(), &text))
            })
        })
        .collect();
    let joined: Vec<_> = joining.into_iter().map(|joining| joining.join().unwrap()).collect();
    let first = joined.iter().find_map(|(_, joined)| joined.clone().ok()).expect("some are first");
    assert_eq!(first.split(',').count(), 3, "{first}");
    for (text, joined) in joined {
        let expected =
            if first.contains(&text) { Ok(first.clone()) } else { Err(DiscoveryError::Full) };
        assert_eq!(joined, expected, "{text}");
    }
}

#[test]
fn a_member_is_discovered_by_another() {
    let directory = Directory::new("discovered");
    let service = Member::start(&directory.join("service"));
    let mut client = client(&service);
    client.put("/_etcd/registry/t/_config/size", "1").unwrap();
    let endpoint = service.address().to_string();
    let flags = ["--discovery-endpoints", &endpoint, "--discovery-token", "t"];
    let data_dir = directory.join("data");
    let member = Member::start_with(&data_dir, &flags);
    let (entries, _) = client.list("/_etcd/registry/t/members").unwrap();
    let values: Vec<&str> = entries.iter().map(|entry| entry.value.as_str()).collect();
    assert_eq!(values, ["m=http://localhost:2380"]);
    member.kill();
    // With data the flags do not count: nobody is asked any more.
    service.kill();
    drop(Member::start_with(&data_dir, &flags));
}

#[test]
fn a_token_that_is_used_up_is_refused() {
    let directory = Directory::new("used-token");
    let service = Member::start(&directory.join("service"));
    let mut client = client(&service);
    client.put("/_etcd/registry/t/_config/size", "1").unwrap();
    client.put("/_etcd/registry/t/members/1", "other=http://10.0.0.1:1").unwrap();
    let endpoint = service.address().to_string();
    let data_dir = directory.join("data");
    let mut command = ringd();
    command.args(arguments(&data_dir));
    command.args(["--discovery-endpoints", &endpoint, "--discovery-token", "t"]);
    let mut member = Member::spawn(&mut command);
    let line = member.wait_for("failed to bootstrap; discovery token was already used");
    assert_eq!(line["error"], "failed to join discovery cluster (discovery: cluster is full)");
    assert_eq!(line["discovery-token"], "t");
    assert!(!data_dir.exists(), "a refused start made a directory");
}
