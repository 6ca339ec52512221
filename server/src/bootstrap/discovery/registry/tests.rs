//! Members against a small registry of our own, over HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::super::super::http::test_server::answer;
use super::super::service::tests::Noted;
use super::*;

/// The registry's keys below `/t`, with the count that made them.
#[derive(Default)]
struct Keys {
    keys: BTreeMap<String, (String, u64)>,
    count: u64,
    /// Answers with 503 that come first.
    failures: u32,
}

type Shared = Arc<(Mutex<Keys>, Condvar)>;

/// A registry: each connection has a thread of its own, because some of them wait.
fn registry(size: Option<&str>) -> (String, Shared) {
    let mut keys = Keys::default();
    if let Some(size) = size {
        keys.count = 1;
        keys.keys.insert("_config/size".to_owned(), (size.to_owned(), 1));
    }
    let shared: Shared = Arc::new((Mutex::new(keys), Condvar::new()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::clone(&shared);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, shared) = (stream.unwrap(), Arc::clone(&served));
            thread::spawn(move || {
                use std::io::Write;
                let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
                let asked = super::super::super::http::test_server::read_request(&mut reader);
                let Some((method, target, body)) = asked else { return };
                drop(stream.write_all(&serve(&shared, &method, &target, &body)));
            });
        }
    });
    (format!("http://{address}/t"), shared)
}

fn serve(shared: &Shared, method: &str, target: &str, body: &str) -> Vec<u8> {
    let (lock, changed) = &**shared;
    let mut keys = lock.lock().unwrap();
    if keys.failures > 0 {
        keys.failures -= 1;
        return answer(503, "", "busy");
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.strip_prefix("/t").unwrap().trim_start_matches('/');
    let error = |status, code: u64| {
        answer(status, "", &format!("{{\"errorCode\":{code},\"message\":\"x\",\"index\":1}}"))
    };
    if method == "PUT" {
        assert_eq!(query, "prevExist=false");
        if keys.keys.contains_key(path) {
            return error(412, KEY_EXISTS);
        }
        let value = decoded(body.strip_prefix("value=").unwrap());
        keys.count += 1;
        let count = keys.count;
        keys.keys.insert(path.to_owned(), (value, count));
        changed.notify_all();
        return answer(201, "", "{\"action\":\"create\"}");
    }
    if let Some(first) = query.strip_prefix("recursive=true&wait=true&waitIndex=") {
        let first: u64 = first.parse().unwrap();
        drop(changed.wait_while(keys, |keys| keys.count < first).unwrap());
        return answer(200, "", "{\"action\":\"create\",\"node\":{}}");
    }
    let headers = format!("X-Etcd-Index: {}\r\n", keys.count);
    if path.is_empty() {
        let members = keys.keys.iter().filter(|(key, _)| !key.starts_with("_config"));
        let members = members.map(|(key, (value, created))| {
            format!("{{\"key\":\"/t/{key}\",\"value\":\"{value}\",\"createdIndex\":{created}}}")
        });
        let mut nodes: Vec<String> = members.collect();
        nodes.push("{\"key\":\"/t/_config\",\"dir\":true}".to_owned());
        let body = format!("{{\"node\":{{\"dir\":true,\"nodes\":[{}]}}}}", nodes.join(","));
        return answer(200, &headers, &body);
    }
    match keys.keys.get(path) {
        Some((value, _)) => {
            answer(200, &headers, &format!("{{\"node\":{{\"value\":\"{value}\"}}}}"))
        }
        None => error(404, KEY_NOT_FOUND),
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first == b'%' {
            let digits = str::from_utf8(&behind[..2]).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn join_as(url: &str, member: u64) -> (Result<String, RegistryError>, Vec<u64>) {
    let mut clock = Noted::default();
    let text = format!("n{member:x}=http://10.0.0.{member}:1");
    let joined = join(&mut HttpTree::new(url).unwrap(), &mut clock, MemberId(member), &text);
    (joined, clock.0)
}

#[test]
fn members_wait_for_each_other_and_agree_on_the_order() {
    let (url, shared) = registry(Some("3"));
    let waiting: Vec<_> = (1..=3)
        .map(|member| {
            let url = url.clone();
            // One after the other, so that the order is known; each but the last waits.
            let joining = thread::spawn(move || join_as(&url, member));
            let (lock, changed) = &*shared;
            let keys = lock.lock().unwrap();
            drop(changed.wait_while(keys, |keys| keys.count < 1 + member).unwrap());
            joining
        })
        .collect();
    let expected = "n1=http://10.0.0.1:1,n2=http://10.0.0.2:1,n3=http://10.0.0.3:1";
    for joining in waiting {
        assert_eq!(joining.join().unwrap(), (Ok(expected.to_owned()), vec![]));
    }
    assert_eq!(join_as(&url, 4).0, Err(RegistryError::Full));
    assert_eq!(join_as(&url, 2).0, Err(RegistryError::DuplicateId));
}

#[test]
fn a_token_without_a_size_is_refused() {
    for (size, expected) in [
        (None, RegistryError::SizeNotFound),
        (Some("x"), RegistryError::BadSize),
        (Some("0"), RegistryError::BadSize),
    ] {
        let (url, _) = registry(size);
        assert_eq!(join_as(&url, 1), (Err(expected), vec![]));
    }
}

#[test]
fn two_members_of_one_name_are_refused() {
    let (url, _) = registry(Some("2"));
    let mut tree = HttpTree::new(&url).unwrap();
    tree.create("9", "n1=http://10.0.0.9:1").unwrap();
    assert_eq!(join_as(&url, 1).0, Err(RegistryError::DuplicateName));
    let (url, _) = registry(Some("2"));
    let mut tree = HttpTree::new(&url).unwrap();
    tree.create("9", "nonsense").unwrap();
    assert_eq!(join_as(&url, 1).0, Err(RegistryError::InvalidUrl));
}

#[test]
fn a_service_that_is_not_well_is_asked_again() {
    let (url, shared) = registry(Some("1"));
    shared.0.lock().unwrap().failures = 3;
    let expected = "n1=http://10.0.0.1:1".to_owned();
    assert_eq!(join_as(&url, 1), (Ok(expected), vec![2, 4, 8]));
}

#[test]
fn what_is_no_registry_is_said() {
    let url = super::super::super::http::test_server::serve(|_| answer(200, "", "<html>"));
    let (joined, pauses) = join_as(&format!("{url}/t"), 1);
    let Err(RegistryError::BadEndpoint(_)) = joined else { panic!("{joined:?}") };
    assert!(pauses.is_empty());
}

#[test]
fn urls_name_a_service_and_a_token() {
    for (text, expected) in [
        ("http://a:1/t", Some(("http://a:1", "/t"))),
        ("http://a/x/t/", Some(("http://a:80", "/x/t"))),
        ("http://[::1]/t", Some(("http://[::1]:80", "/t"))),
        ("http://[::1]:4/t", Some(("http://[::1]:4", "/t"))),
        ("https://a/t", None),
        ("http://a:1", None),
        ("http://a:1/", None),
        ("a:1/t", None),
        ("http://a:1/t?x=y", None),
        ("http://a:1/t t", None),
        ("http://a:1/t\r\nX: y", None),
    ] {
        let tree = HttpTree::new(text);
        let found = tree.as_ref().ok().map(|tree| (tree.url.as_str(), tree.path.as_str()));
        assert_eq!(found, expected, "{text:?}");
    }
}
