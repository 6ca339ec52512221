//! What the headers of a request say: which call, and whether it is one at all.
//!
//! The checks and their order are grpc-go's, for a client must not be able to tell the difference.
//!
//! Invariants:
//! - Fields that no service reads are dropped here.

use std::rc::Rc;
use std::time::Duration;

use super::super::http2::HeaderList;
use super::method::{Method, MethodId, MethodKind, MethodTable};
use super::quote::quoted;
use super::status::{Code, Status};

/// A shorter time is over before grpc-go has begun a call.
const TIMEOUT_MIN: Duration = Duration::from_micros(1);
/// Go's longest duration, at which grpc-go cuts a longer timeout off.
const TIMEOUT_MAX: Duration = Duration::from_nanos(i64::MAX as u64);

/// The request fields that etcd's services look at; of a repeated one, the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `token`: who calls, as clientv3 says it.
    pub token: Option<Box<[u8]>>,
    /// `authorization`: the same as HTTP says it.
    pub authorization: Option<Box<[u8]>>,
    /// `hasleader`: `true` asks to fail when there is no leader.
    pub has_leader: Option<Box<[u8]>>,
    /// `client-api-version`: counted by version; must be UTF-8, which the service checks.
    pub client_api_version: Option<Box<[u8]>>,
}

/// How the messages of a call are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    Identity,
    /// By gzip, where a message's flag says so.
    Gzip,
}

/// What stands behind `application/grpc` and is given back in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subtype {
    None,
    Proto,
    Other(Rc<[u8]>),
}

/// A request that is a call.
#[derive(Clone, Debug)]
pub(super) struct RequestHead {
    pub(super) method: MethodId,
    pub(super) kind: MethodKind,
    pub(super) timeout: Option<Duration>,
    pub(super) metadata: Rc<Metadata>,
    pub(super) encoding: Encoding,
    pub(super) subtype: Subtype,
}

/// A request that is none: the answer to it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) http_status: &'static str,
    pub(super) subtype: Subtype,
    pub(super) status: Status,
}

/// What the fields are read into.
struct Fields<'h> {
    path: &'h [u8],
    method: &'h [u8],
    subtype: Option<Subtype>,
    content_type_wrong: &'h [u8],
    encoding: &'h [u8],
    timeout: Option<Duration>,
    error: Option<String>,
    authorities: usize,
    hosts: usize,
    metadata: [Option<&'h [u8]>; 4],
}

/// Reads a request's headers. `last` is the metadata of an earlier request, shared if equal.
pub(super) fn parse(
    list: &HeaderList,
    methods: &MethodTable,
    last: &Rc<Metadata>,
) -> Result<RequestHead, Refusal> {
    let fields = read_fields(list);
    let subtype = fields.subtype.clone().unwrap_or(Subtype::None);
    let refuse =
        |http_status, status| Err(Refusal { http_status, subtype: subtype.clone(), status });
    if fields.hosts > 1 {
        let text = format!(
            "num values of :authority: {}, num values of host: {}, both must only have 1 value as \
             per HTTP/2 spec",
            fields.authorities, fields.hosts
        );
        return refuse("400", Status::new(Code::Internal, text));
    }
    if fields.subtype.is_none() {
        let text =
            format!("invalid gRPC request content-type {}", quoted(fields.content_type_wrong));
        return refuse("415", Status::new(Code::InvalidArgument, text));
    }
    if let Some(text) = fields.error {
        return refuse("400", Status::new(Code::Internal, text));
    }
    if fields.method != b"POST" {
        let text = format!(
            "Received a HEADERS frame with :method {} which should be POST",
            quoted(fields.method)
        );
        return refuse("405", Status::new(Code::Internal, text));
    }
    if fields.timeout.is_some_and(|timeout| timeout < TIMEOUT_MIN) {
        return refuse("200", Status::new(Code::DeadlineExceeded, "context deadline exceeded"));
    }
    let Method { id, kind, .. } = match methods.find(fields.path) {
        Ok(method) => *method,
        Err(status) => return refuse("200", status),
    };
    let encoding = match fields.encoding {
        b"" | b"identity" => Encoding::Identity,
        b"gzip" => Encoding::Gzip,
        other => {
            let text =
                format!("grpc: Decompressor is not installed for grpc-encoding {}", quoted(other));
            return refuse("200", Status::new(Code::Unimplemented, text));
        }
    };
    let metadata = share_metadata(fields.metadata, last);
    Ok(RequestHead { method: id, kind, timeout: fields.timeout, metadata, encoding, subtype })
}

fn read_fields(list: &HeaderList) -> Fields<'_> {
    let mut fields = Fields {
        path: b"",
        method: b"",
        subtype: None,
        content_type_wrong: b"",
        encoding: b"",
        timeout: None,
        error: None,
        authorities: 0,
        hosts: 0,
        metadata: [None; 4],
    };
    for (name, value) in list.iter() {
        match name {
            b":path" => fields.path = value,
            b":method" => fields.method = value,
            b":authority" => fields.authorities += 1,
            b"host" => fields.hosts += 1,
            b"content-type" => match subtype(value) {
                Some(subtype) => fields.subtype = Some(subtype),
                None => fields.content_type_wrong = value,
            },
            b"grpc-encoding" => fields.encoding = value,
            b"grpc-timeout" => match timeout(value) {
                Ok(timeout) => fields.timeout = Some(timeout),
                Err(text) => fields.error = Some(format!("malformed grpc-timeout: {text}")),
            },
            b"token" => first(&mut fields.metadata[0], value),
            b"authorization" => first(&mut fields.metadata[1], value),
            b"hasleader" => first(&mut fields.metadata[2], value),
            b"client-api-version" => first(&mut fields.metadata[3], value),
            // Those of gRPC's own as well, as far as grpc-go hands them to services.
            _ if name.ends_with(b"-bin") => {
                if let Some(at) = base64_error(value) {
                    fields.error = Some(format!(
                        "malformed binary metadata {} in header {}: illegal base64 data at input \
                         byte {at}",
                        quoted(value),
                        quoted(name)
                    ));
                }
            }
            _ => {}
        }
    }
    fields
}

fn first<'h>(place: &mut Option<&'h [u8]>, value: &'h [u8]) {
    place.get_or_insert(value);
}

/// Clients send the same metadata with every call, so the last one usually does; this also spares
/// the owner from looking at a token twice.
fn share_metadata(found: [Option<&[u8]>; 4], last: &Rc<Metadata>) -> Rc<Metadata> {
    let known = [
        last.token.as_deref(),
        last.authorization.as_deref(),
        last.has_leader.as_deref(),
        last.client_api_version.as_deref(),
    ];
    if found == known {
        return Rc::clone(last);
    }
    let [token, authorization, has_leader, client_api_version] =
        found.map(|value| value.map(Box::from));
    Rc::new(Metadata { token, authorization, has_leader, client_api_version })
}

/// The part of a gRPC content type behind `application/grpc`; `None` if it is another type.
fn subtype(content_type: &[u8]) -> Option<Subtype> {
    let rest = content_type.strip_prefix(b"application/grpc")?;
    match rest.split_first() {
        None => Some(Subtype::None),
        Some((b'+' | b';', b"")) => Some(Subtype::None),
        Some((b'+' | b';', b"proto")) => Some(Subtype::Proto),
        Some((b'+' | b';', other)) => Some(Subtype::Other(other.into())),
        Some(_) => None,
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout(value: &[u8]) -> Result<Duration, String> {
    if value.len() < 2 {
        return Err(format!("transport: timeout string is too short: {}", quoted(value)));
    }
    if value.len() > 9 {
        return Err(format!("transport: timeout string is too long: {}", quoted(value)));
    }
    let (digits, unit) = value.split_at(value.len() - 1);
    let unit_nanos: u64 = match unit {
        b"H" => 3_600_000_000_000,
        b"M" => 60_000_000_000,
        b"S" => 1_000_000_000,
        b"m" => 1_000_000,
        b"u" => 1_000,
        b"n" => 1,
        _ => return Err(format!("transport: timeout unit is not recognized: {}", quoted(value))),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(format!("strconv.ParseUint: parsing {}: invalid syntax", quoted(digits)));
    }
    let count = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let nanos = count.checked_mul(unit_nanos);
    Ok(nanos.map_or(TIMEOUT_MAX, Duration::from_nanos).min(TIMEOUT_MAX))
}

/// Where a value stops being base64, with padding or without.
fn base64_error(value: &[u8]) -> Option<usize> {
    let padding = if value.len().is_multiple_of(4) {
        value.iter().rev().take(2).take_while(|byte| **byte == b'=').count()
    } else {
        0
    };
    let digits = &value[..value.len() - padding];
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits
        .iter()
        .position(|byte| !legal(byte))
        .or_else(|| (digits.len() % 4 == 1).then(|| digits.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_go_reads_them() {
        let good: [(&[u8], Duration); 8] = [
            (b"1H", Duration::from_secs(3600)),
            (b"2M", Duration::from_secs(120)),
            (b"3S", Duration::from_secs(3)),
            (b"4m", Duration::from_millis(4)),
            (b"5u", Duration::from_micros(5)),
            (b"6n", Duration::from_nanos(6)),
            (b"0S", Duration::ZERO),
            (b"99999999H", TIMEOUT_MAX),
        ];
        for (value, expected) in good {
            assert_eq!(timeout(value), Ok(expected));
        }
        // Each text was recorded from etcd 3.7.1.
        let bad: [(&[u8], &str); 8] = [
            (b"", "transport: timeout string is too short: \"\""),
            (b"1", "transport: timeout string is too short: \"1\""),
            (b"123456789S", "transport: timeout string is too long: \"123456789S\""),
            (b"5X", "transport: timeout unit is not recognized: \"5X\""),
            (b"aS", "strconv.ParseUint: parsing \"a\": invalid syntax"),
            (b"-1S", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
            (b"+1S", "strconv.ParseUint: parsing \"+1\": invalid syntax"),
            (b"1_0S", "strconv.ParseUint: parsing \"1_0\": invalid syntax"),
        ];
        for (value, text) in bad {
            assert_eq!(timeout(value), Err(text.to_owned()));
        }
    }

    #[test]
    fn content_types_are_told_apart() {
        assert_eq!(subtype(b"application/grpc"), Some(Subtype::None));
        assert_eq!(subtype(b"application/grpc+"), Some(Subtype::None));
        assert_eq!(subtype(b"application/grpc+proto"), Some(Subtype::Proto));
        assert_eq!(subtype(b"application/grpc;a=b"), Some(Subtype::Other((*b"a=b").into())));
        assert_eq!(subtype(b"application/grpc-web"), None);
        assert_eq!(subtype(b"Application/grpc"), None);
        assert_eq!(subtype(b"text/html"), None);
    }

    #[test]
    fn base64_is_checked_with_and_without_padding() {
        let cases: [(&[u8], Option<usize>); 8] = [
            (b"", None),
            (b"AAAA", None),
            (b"AA==", None),
            (b"AA", None),
            (b"AAAAA", Some(4)),
            (b"!!!", Some(0)),
            (b"AA=", Some(2)),
            (b"A===", Some(1)),
        ];
        for (value, at) in cases {
            assert_eq!(base64_error(value), at, "{value:?}");
        }
    }
}
