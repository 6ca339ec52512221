//! The discovery service as etcd's API has it, over a connection for each call; blocks.
//!
//! Invariants:
//! - Every call but a watch ends in time: connecting and the request have their own limits.
//! - Endpoints are asked in turn: the next call goes to the next one when one cannot be reached.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use prost::Message;

use super::super::http::{Stream, connect};
use super::grpc_call::{Call, CallEvent, REQUEST_BYTES_MAX};
use super::service::{Entry, KvService};
use crate::config::{Url, parse_urls};
use crate::service::proto::etcdserverpb as pb;

const READ_BYTES: usize = 16 << 10;
/// How long a watch may be silent: then the list is read again, in case that the other end is gone.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(60);
/// What a call says whose time is over.
const SILENT: &str = "context deadline exceeded";
/// A range's end for all keys that begin so: the prefix with its last byte raised.
const BYTE_LAST: u8 = 0xff;

/// How the service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvClientConfig {
    /// `--discovery-endpoints`.
    pub endpoints: Vec<String>,
    /// `--discovery-dial-timeout`.
    pub dial_timeout: Duration,
    /// `--discovery-request-timeout`.
    pub request_timeout: Duration,
    /// `--discovery-user` and `--discovery-password`, if it wants to know.
    pub user: Option<(String, String)>,
}

/// The client.
#[derive(Debug)]
pub struct KvClient {
    endpoints: Vec<Url>,
    next: usize,
    config: KvClientConfig,
    token: Option<String>,
}

impl KvClient {
    /// For these endpoints: `host:port`, `http://host:port` or `unix:///path`.
    ///
    /// # Errors
    /// One is none of these, or wants TLS.
    pub fn new(config: KvClientConfig) -> Result<Self, String> {
        let mut endpoints = Vec::new();
        for endpoint in &config.endpoints {
            let has_scheme = endpoint.contains("://") || endpoint.starts_with("unix:");
            let text = if has_scheme { endpoint.clone() } else { format!("http://{endpoint}") };
            let urls = parse_urls(&text).map_err(|error| error.to_string())?;
            if let Some(url) = urls.iter().find(|url| url.scheme.is_secure()) {
                return Err(format!(
                    "--discovery-endpoints {url} needs TLS, which ringd does not speak yet"
                ));
            }
            endpoints.extend(urls);
        }
        if endpoints.is_empty() {
            return Err("etcdclient: no available endpoints".to_owned());
        }
        Ok(Self { endpoints, next: 0, config, token: None })
    }

    fn endpoint(&self) -> &Url {
        &self.endpoints[self.next % self.endpoints.len()]
    }

    /// A call with one answer.
    fn call<A: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
    ) -> Result<A, String> {
        let deadline = Instant::now() + self.config.request_timeout;
        let answered = self.exchange(path, request, Some(deadline), &mut |_| false);
        let answer = answered?.ok_or("the server closed the call without an answer")?;
        A::decode(&answer[..]).map_err(|error| format!("the answer cannot be read: {error}"))
    }

    /// Sends a request and hands on what comes, until that wants no more. Answers with the last
    /// message of a call that ended well, or that was handed on last.
    fn exchange(
        &mut self,
        path: &str,
        request: &impl Message,
        deadline: Option<Instant>,
        wants_more: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, String> {
        let exchanged = self.exchange_once(path, request, deadline, wants_more);
        if exchanged.is_err() {
            self.next = self.next.wrapping_add(1);
        }
        exchanged
    }

    fn exchange_once(
        &self,
        path: &str,
        request: &impl Message,
        deadline: Option<Instant>,
        wants_more: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, String> {
        let request = request.encode_to_vec();
        if request.len() > REQUEST_BYTES_MAX {
            return Err("the request is too long".to_owned());
        }
        let endpoint = self.endpoint();
        let unavailable = |error: &dyn std::fmt::Display| {
            format!("rpc error: code = Unavailable desc = {endpoint}: {error}")
        };
        let dialed = Instant::now() + self.config.dial_timeout;
        let mut stream = connect(endpoint, dialed).map_err(|error| unavailable(&error))?;
        let host = if endpoint.scheme.is_unix() { "localhost" } else { endpoint.authority() };
        let metadata: Vec<(&str, &str)> =
            self.token.iter().map(|token| ("token", token.as_str())).collect();
        let is_unary = deadline.is_some();
        let mut call = Call::new(host, path, &metadata, &request, is_unary);
        let mut last = None;
        loop {
            let until = deadline.unwrap_or_else(|| Instant::now() + WATCH_SILENCE_MAX);
            let bytes = transfer(&mut stream, &call.take_output(), until)
                .map_err(|error| unavailable(&error))?;
            call.handle_bytes(&bytes).map_err(|error| unavailable(&error))?;
            while let Some(event) = call.poll_event() {
                match event {
                    CallEvent::Message(message) => {
                        if !is_unary && !wants_more(&message) {
                            stream.close();
                            return Ok(Some(message));
                        }
                        last = Some(message);
                    }
                    CallEvent::Ended(ended) if ended.code == 0 => return Ok(last),
                    CallEvent::Ended(ended) => return Err(ended.message),
                }
            }
        }
    }

    /// Gets a token for the user, if there is one and it was not got before.
    fn authenticate(&mut self) -> Result<(), String> {
        let Some((name, password)) = self.config.user.clone() else { return Ok(()) };
        if self.token.is_none() {
            let request = pb::AuthenticateRequest { name, password };
            let answer: pb::AuthenticateResponse =
                self.call("/etcdserverpb.Auth/Authenticate", &request)?;
            self.token = Some(answer.token);
        }
        Ok(())
    }

    /// A call, which is made with another token the next time if it fails: tokens run out.
    fn authenticated<A>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<A, String>,
    ) -> Result<A, String> {
        self.authenticate()?;
        let answer = call(self);
        if answer.is_err() {
            self.token = None;
        }
        answer
    }

    fn range(&mut self, key: &str, range_end: Vec<u8>) -> Result<pb::RangeResponse, String> {
        let request = pb::RangeRequest {
            key: key.to_owned().into(),
            range_end: range_end.into(),
            ..pb::RangeRequest::default()
        };
        self.authenticated(|client| client.call("/etcdserverpb.KV/Range", &request))
    }
}

impl KvService for KvClient {
    fn get(&mut self, key: &str) -> Result<Option<String>, String> {
        let answer = self.range(key, Vec::new())?;
        Ok(answer.kvs.first().map(|kv| text(&kv.value)))
    }

    fn list(&mut self, prefix: &str) -> Result<(Vec<Entry>, i64), String> {
        let answer = self.range(prefix, prefix_end(prefix))?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let entries = answer.kvs.iter().map(|kv| Entry {
            key: text(&kv.key),
            value: text(&kv.value),
            create_revision: kv.create_revision,
        });
        Ok((entries.collect(), revision))
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..pb::PutRequest::default()
        };
        let put = |client: &mut Self| client.call("/etcdserverpb.KV/Put", &request);
        let _answer: pb::PutResponse = self.authenticated(put)?;
        Ok(())
    }

    fn watch(
        &mut self,
        prefix: &str,
        revision_first: i64,
        handle: &mut dyn FnMut(Vec<Entry>) -> bool,
    ) -> Result<(), String> {
        let create = pb::WatchCreateRequest {
            key: prefix.to_owned().into(),
            range_end: prefix_end(prefix).into(),
            start_revision: revision_first,
            ..pb::WatchCreateRequest::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
        };
        let mut failure = None;
        let mut wants_more = |message: &[u8]| match pb::WatchResponse::decode(message) {
            Ok(response) if response.canceled => {
                failure = Some(format!("the watch was cancelled: {}", response.cancel_reason));
                false
            }
            Ok(response) => {
                let events = response.events.iter().filter_map(|event| event.kv.as_ref());
                let entries: Vec<Entry> = events
                    .map(|kv| Entry {
                        key: text(&kv.key),
                        value: text(&kv.value),
                        create_revision: kv.create_revision,
                    })
                    .collect();
                handle(entries)
            }
            Err(error) => {
                failure = Some(format!("the answer cannot be read: {error}"));
                false
            }
        };
        let watched = self.authenticated(|client| {
            client.exchange("/etcdserverpb.Watch/Watch", &request, None, &mut wants_more)
        });
        match (failure, watched) {
            (Some(failure), _) => Err(failure),
            (None, Err(failure)) if failure.ends_with(SILENT) => Ok(()),
            (None, Err(failure)) => Err(failure),
            (None, Ok(_)) => Ok(()),
        }
    }
}

/// Sends what is to be sent, and takes what comes next.
fn transfer(stream: &mut Stream, output: &[u8], until: Instant) -> Result<Vec<u8>, String> {
    let wrapped = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => SILENT.to_owned(),
        _ => error.to_string(),
    };
    stream.limit(until).and_then(|()| stream.write_all(output)).map_err(wrapped)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        stream.limit(until).map_err(wrapped)?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err("the connection was closed".to_owned()),
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(wrapped(error)),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < BYTE_LAST {
            end.push(last + 1);
            return end;
        }
    }
    // All keys from here on.
    vec![0]
}

#[cfg(test)]
mod tests;
