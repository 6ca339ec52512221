//! Two answers, field by field.
//!
//! A comparison walks both messages along their descriptor, so that there is no message it forgets
//! a field of. What may differ stands in `allowed`; a use of an allowance is counted.
//!
//! Invariants:
//! - A field that our .proto files do not know is a difference, even if both sides sent it: we
//!   would not know what we compare.

use std::collections::HashMap;

use bytes::Bytes;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage, Value};

use super::allowed::{ALLOWED, How, SPACE_EITHER};
use super::client::Status;

/// Ids that a server chooses are larger than any that a case chooses.
const CHOSEN_ID_MIN: u64 = 1 << 40;

/// Compares answers and remembers what the two servers call by different numbers.
#[derive(Default)]
pub struct Comparer {
    /// Ids that etcd chose, and what ringd calls the same thing.
    bound: HashMap<u64, u64>,
    /// Whether the members that are asked do not lead.
    pub are_followers: bool,
    /// How often each entry of [`ALLOWED`] was needed.
    pub used: [u64; ALLOWED.len()],
}

impl Comparer {
    /// Forgets the ids of servers that are gone.
    pub fn forget_ids(&mut self) {
        self.bound.clear();
    }

    /// What differs between two statuses, in words.
    pub fn statuses(etcd: &Status, ringd: &Status) -> Option<String> {
        let plain = |text: &str| text.replace(SPACE_EITHER.0, &SPACE_EITHER.1.to_string());
        let is_equal = etcd.code == ringd.code && plain(&etcd.text) == plain(&ringd.text);
        (!is_equal).then(|| {
            let name = |status: &Status| format!("{} {:?}", code_name(status.code), status.text);
            format!("status: etcd {} | ringd {}", name(etcd), name(ringd))
        })
    }

    /// What differs between two messages of one type, a line each.
    pub fn bytes(&mut self, descriptor: &MessageDescriptor, both: [&Bytes; 2]) -> Vec<String> {
        let decode = |bytes: &Bytes| DynamicMessage::decode(descriptor.clone(), bytes.clone());
        match (decode(both[0]), decode(both[1])) {
            (Ok(etcd), Ok(ringd)) => self.messages(&etcd, &ringd),
            (Err(error), _) => vec![format!("etcd's answer is no message: {error}")],
            (_, Err(error)) => vec![format!("ringd's answer is no message: {error}")],
        }
    }

    /// What differs between two decoded messages, a line each.
    pub fn messages(&mut self, etcd: &DynamicMessage, ringd: &DynamicMessage) -> Vec<String> {
        let mut found = Vec::new();
        self.message("", etcd, ringd, &mut found);
        found
    }

    fn message(
        &mut self,
        path: &str,
        etcd: &DynamicMessage,
        ringd: &DynamicMessage,
        found: &mut Vec<String>,
    ) {
        for (name, message) in [("etcd", etcd), ("ringd", ringd)] {
            for field in message.unknown_fields() {
                found.push(format!("{path}: {name} sent the unknown field {}", field.number()));
            }
        }
        let descriptor = etcd.descriptor();
        for field in descriptor.fields() {
            let (has_etcd, has_ringd) = (etcd.has_field(&field), ringd.has_field(&field));
            if !has_etcd && !has_ringd {
                continue;
            }
            let path = match path {
                "" => field.name().to_owned(),
                path => format!("{path}.{}", field.name()),
            };
            let (left, right) = (etcd.get_field(&field), ringd.get_field(&field));
            let is_message = matches!(*left, Value::Message(_));
            if is_message && has_etcd != has_ringd {
                let words = |has| if has { "set" } else { "not set" };
                found.push(format!(
                    "{path}: etcd {} | ringd {}",
                    words(has_etcd),
                    words(has_ringd)
                ));
                continue;
            }
            let before = found.len();
            self.value(&path, &left, &right, found);
            if found.len() > before
                && self.allows(descriptor.full_name(), field.name(), &left, &right)
            {
                found.truncate(before);
            }
        }
    }

    fn value(&mut self, path: &str, etcd: &Value, ringd: &Value, found: &mut Vec<String>) {
        match (etcd, ringd) {
            (Value::Message(etcd), Value::Message(ringd)) => {
                self.message(path, etcd, ringd, found);
            }
            (Value::List(etcd), Value::List(ringd)) => {
                if etcd.len() != ringd.len() {
                    let (etcd, ringd) = (etcd.len(), ringd.len());
                    found.push(format!("{path}: etcd {etcd} elements | ringd {ringd}"));
                }
                for (index, (etcd, ringd)) in etcd.iter().zip(ringd).enumerate() {
                    self.value(&format!("{path}[{index}]"), etcd, ringd, found);
                }
            }
            (Value::Bytes(left), Value::Bytes(right)) if self.same_with_ids(left, right) => {}
            _ if etcd == ringd => {}
            _ => found.push(format!("{path}: etcd {} | ringd {}", shown(etcd), shown(ringd))),
        }
    }

    /// Keys of locks and elections hold the id of a lease in hexadecimal.
    fn same_with_ids(&self, etcd: &Bytes, ringd: &Bytes) -> bool {
        if etcd == ringd {
            return true;
        }
        let etcd = String::from_utf8_lossy(etcd);
        self.bound.iter().any(|(left, right)| {
            etcd.replace(&format!("{left:x}"), &format!("{right:x}")).as_bytes() == ringd.as_ref()
        })
    }

    fn allows(&mut self, message: &str, field: &str, etcd: &Value, ringd: &Value) -> bool {
        for (index, allowed) in ALLOWED.iter().enumerate() {
            if allowed.message == message && allowed.field == field {
                let is_allowed = self.relates(allowed.how, etcd, ringd);
                self.used[index] += u64::from(is_allowed);
                return is_allowed;
            }
        }
        false
    }

    /// Whether two ids may stand for each other from now on: both are such as servers choose.
    fn binds(&mut self, etcd: u64, ringd: u64) -> bool {
        let are_chosen = etcd.min(ringd) >= CHOSEN_ID_MIN;
        if are_chosen {
            self.bound.insert(etcd, ringd);
        }
        are_chosen
    }

    fn relates(&mut self, how: How, etcd: &Value, ringd: &Value) -> bool {
        match how {
            How::Presence => is_set(etcd) == is_set(ringd),
            How::Within(distance) => match (number(etcd), number(ringd)) {
                (Some(etcd), Some(ringd)) => etcd.abs_diff(ringd) <= distance,
                _ => false,
            },
            How::UnorderedOnFollowers if !self.are_followers => false,
            How::Unordered | How::UnorderedOnFollowers => match (etcd, ringd) {
                (Value::List(etcd), Value::List(ringd)) => {
                    let sorted = |list: &[Value]| {
                        let mut shown: Vec<_> = list.iter().map(shown).collect();
                        shown.sort_unstable();
                        shown
                    };
                    sorted(etcd) == sorted(ringd)
                }
                _ => false,
            },
            How::Chosen => match (number(etcd), number(ringd)) {
                (Some(etcd), Some(ringd)) => self.binds(etcd, ringd),
                _ => false,
            },
            How::ChosenInKey => match (id_in_key(etcd), id_in_key(ringd)) {
                (Some((etcd_key, etcd)), Some((ringd_key, ringd))) => {
                    etcd_key == ringd_key && self.binds(etcd, ringd)
                }
                _ => false,
            },
            How::Bound => match (number(etcd), number(ringd)) {
                (Some(etcd), Some(ringd)) => self.bound.get(&etcd) == Some(&ringd),
                _ => false,
            },
        }
    }
}

/// A key up to its last slash, and the id in hexadecimal after it.
fn id_in_key(value: &Value) -> Option<(&str, u64)> {
    let Value::Bytes(key) = value else { return None };
    let (before, id) = std::str::from_utf8(key).ok()?.rsplit_once('/')?;
    Some((before, u64::from_str_radix(id, 16).ok()?))
}

/// A number as its 64 bits, and a negative one far away from every positive one.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::I64(number) => Some(number.cast_unsigned()),
        Value::U64(number) => Some(*number),
        Value::I32(number) => Some(i64::from(*number).cast_unsigned()),
        Value::U32(number) => Some(u64::from(*number)),
        _ => None,
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Bytes(bytes) => !bytes.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::List(list) => !list.is_empty(),
        Value::Bool(bool) => *bool,
        other => number(other) != Some(0),
    }
}

/// A value in a report, cut where nobody reads on.
fn shown(value: &Value) -> String {
    const SHOWN_CHARS_MAX: usize = 200;
    let text = text_of(value);
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}... ({} characters)", &text[..end], text.len()),
        None => text,
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) | Value::EnumNumber(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::String(value) => format!("{value:?}"),
        Value::Bytes(value) => format!("\"{}\"", value.escape_ascii()),
        Value::Message(value) => format!("{{{}}}", value.to_text_format()),
        Value::List(values) => values.iter().map(text_of).collect::<Vec<_>>().join(", "),
        other => format!("{other:?}"),
    }
}

/// gRPC's name of a code.
pub fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    match usize::try_from(code).ok().and_then(|code| NAMES.get(code)) {
        Some(name) => (*name).to_owned(),
        None => "no status,".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::wire::{self, etcdserverpb as pb, mvccpb};
    use super::*;

    fn compared<M: Message>(comparer: &mut Comparer, name: &str, both: [M; 2]) -> Vec<String> {
        let [etcd, ringd] = both.map(|message| Bytes::from(message.encode_to_vec()));
        comparer.bytes(&wire::message(name), [&etcd, &ringd])
    }

    fn header(revision: i64, raft_term: u64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision, raft_term, ..Default::default() })
    }

    fn range(header: Option<pb::ResponseHeader>, keys: &[&str]) -> pb::RangeResponse {
        let kv =
            |key: &&str| mvccpb::KeyValue { key: key.as_bytes().to_vec(), ..Default::default() };
        pb::RangeResponse { header, kvs: keys.iter().map(kv).collect(), ..Default::default() }
    }

    #[test]
    fn every_field_counts_and_is_named() {
        let both = [range(header(3, 1), &["a", "b"]), range(header(4, 1), &["a", "c", "d"])];
        let found = compared(&mut Comparer::default(), "etcdserverpb.RangeResponse", both);
        let expected = [
            "header.revision: etcd 3 | ringd 4",
            "kvs: etcd 2 elements | ringd 3",
            "kvs[1].key: etcd \"b\" | ringd \"c\"",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_allowance_covers_its_relation_only() {
        let mut comparer = Comparer::default();
        let name = "etcdserverpb.RangeResponse";
        assert_eq!(
            compared(&mut comparer, name, [range(header(3, 2), &[]), range(header(3, 5), &[])]),
            [""; 0]
        );
        assert_eq!(comparer.used.iter().sum::<u64>(), 1);
        let without = [range(header(3, 2), &[]), range(header(3, 0), &[])];
        assert_eq!(compared(&mut comparer, name, without), ["header.raft_term: etcd 2 | ringd 0"]);
        let none = [range(header(3, 2), &[]), range(None, &[])];
        assert_eq!(compared(&mut comparer, name, none), ["header: etcd set | ringd not set"]);
    }

    #[test]
    fn an_id_stands_for_another_only_after_both_were_chosen() {
        let mut comparer = Comparer::default();
        let (left, right) = (1 << 50, 1 << 51);
        let kv = |lease| mvccpb::KeyValue { lease, ..Default::default() };
        assert_eq!(compared(&mut comparer, "mvccpb.KeyValue", [kv(left), kv(right)]).len(), 1);
        let grant = |id| pb::LeaseGrantResponse { id, ..Default::default() };
        let name = "etcdserverpb.LeaseGrantResponse";
        assert_eq!(compared(&mut comparer, name, [grant(7), grant(8)]).len(), 1);
        assert_eq!(compared(&mut comparer, name, [grant(left), grant(right)]), [""; 0]);
        assert_eq!(compared(&mut comparer, "mvccpb.KeyValue", [kv(left), kv(right)]), [""; 0]);
        assert_eq!(compared(&mut comparer, "mvccpb.KeyValue", [kv(right), kv(left)]).len(), 1);
    }

    #[test]
    fn an_id_that_was_chosen_for_a_key_stands_for_the_other() {
        use super::super::wire::v3lockpb::LockResponse;
        let mut comparer = Comparer::default();
        let lock = |key: &str| LockResponse { key: key.as_bytes().to_vec(), ..Default::default() };
        let mut locked = |etcd, ringd| {
            compared(&mut comparer, "v3lockpb.LockResponse", [lock(etcd), lock(ringd)]).len()
        };
        assert_eq!(locked("l/4000000000001", "l/4000000000002"), 0);
        assert_eq!(locked("l/4000000000001", "m/4000000000002"), 1);
        assert_eq!(locked("l/7", "l/8"), 1);
        let kv = |lease| mvccpb::KeyValue { lease, ..Default::default() };
        let both = [kv(0x4_0000_0000_0001), kv(0x4_0000_0000_0002)];
        assert_eq!(compared(&mut comparer, "mvccpb.KeyValue", both), [""; 0]);
    }

    #[test]
    fn a_field_we_do_not_know_is_a_difference() {
        // Field 100, a number: 7.
        let bytes = Bytes::from_static(&[0xa0, 0x06, 0x07]);
        let descriptor = wire::message("etcdserverpb.PutResponse");
        let found = Comparer::default().bytes(&descriptor, [&bytes, &bytes]);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
