//! The few protobuf messages of etcd's v3 API that the harness speaks, by hand.
//!
//! Requests are appended to the caller's buffer. Answers are read in place: a decoded message
//! borrows the received bytes, and repeated fields are walked again each time they are asked for,
//! so that reading an answer allocates nothing.
//!
//! Invariants:
//! - Fields that hold their default value are left out, as every proto3 encoder does.
//! - Unknown fields are skipped; malformed bytes give [`Malformed`], never a panic.

mod lease;
mod maintenance;

#[cfg(test)]
pub use lease::answers as lease_answers;
pub use lease::{
    LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_LEASES, LEASE_REVOKE, LeaseAnswer, read_lease_ids,
    write_lease_grant, write_lease_id, write_put_with_lease,
};
pub use maintenance::{
    COMPACT, DEFRAGMENT, HASH_KV, SNAPSHOT, STATUS, SnapshotSizes, StatusAnswer, read_hash_kv,
    write_compact, write_hash_kv,
};

/// The path of `KV.Range`.
pub const RANGE: &str = "/etcdserverpb.KV/Range";
/// The path of `KV.Put`.
pub const PUT: &str = "/etcdserverpb.KV/Put";
/// The path of `KV.Txn`.
pub const TXN: &str = "/etcdserverpb.KV/Txn";
/// The path of `KV.DeleteRange`.
pub const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
/// The path of `Watch.Watch`.
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The server's bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a `RangeRequest` asks for, as far as the harness asks.
#[derive(Clone, Copy, Default)]
pub struct RangeRequest<'a> {
    /// The first key.
    pub key: &'a [u8],
    /// The key after the last, empty for a single key.
    pub range_end: &'a [u8],
    /// How many keys at most, 0 for all.
    pub limit: u64,
    /// The revision to read at, 0 for the newest.
    pub revision: u64,
    /// Whether the answer may be a stale one.
    pub serializable: bool,
}

/// Appends a `RangeRequest`.
pub fn write_range(out: &mut Vec<u8>, request: &RangeRequest<'_>) {
    write_bytes(out, 1, request.key);
    write_bytes(out, 2, request.range_end);
    write_number(out, 3, request.limit);
    write_number(out, 4, request.revision);
    write_number(out, 7, u64::from(request.serializable));
}

/// Appends a `PutRequest`.
pub fn write_put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    write_bytes(out, 1, key);
    write_bytes(out, 2, value);
}

/// Appends a `DeleteRangeRequest`.
pub fn write_delete_range(out: &mut Vec<u8>, key: &[u8], range_end: &[u8]) {
    write_bytes(out, 1, key);
    write_bytes(out, 2, range_end);
}

/// Appends a `TxnRequest` that puts if the key's `mod_revision` is still the given one, and reads
/// the key otherwise.
pub fn write_txn_update(out: &mut Vec<u8>, key: &[u8], mod_revision: u64, value: &[u8]) {
    // Compare: result EQUAL (0) is the default; target MOD is 2; the union's number is written even
    // when it is 0, for its presence says which member of the union is meant.
    let mut compare = Vec::with_capacity(key.len() + 16);
    write_number(&mut compare, 2, 2);
    write_bytes(&mut compare, 3, key);
    write_tag(&mut compare, 6, 0);
    write_varint(&mut compare, mod_revision);
    write_bytes(out, 1, &compare);
    write_put_operation(out, key, value);
    let mut range = Vec::with_capacity(key.len() + 8);
    write_bytes(&mut range, 1, key);
    let mut operation = Vec::with_capacity(range.len() + 8);
    write_bytes(&mut operation, 1, &range);
    write_bytes(out, 3, &operation);
}

/// Appends one put to a `TxnRequest`'s success branch.
pub fn write_put_operation(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let mut put = Vec::with_capacity(key.len() + value.len() + 16);
    write_put(&mut put, key, value);
    let mut operation = Vec::with_capacity(put.len() + 8);
    write_bytes(&mut operation, 2, &put);
    write_bytes(out, 2, &operation);
}

/// Appends a `WatchRequest` that creates a watch.
pub fn write_watch_create(
    out: &mut Vec<u8>,
    key: &[u8],
    range_end: &[u8],
    start_revision: u64,
    watch_id: u64,
) {
    let mut create = Vec::new();
    write_bytes(&mut create, 1, key);
    write_bytes(&mut create, 2, range_end);
    write_number(&mut create, 3, start_revision);
    write_number(&mut create, 7, watch_id);
    // The union's member is written even if it were empty.
    write_bytes(out, 1, &create);
}

/// An answer to a put or a deletion: its header's revision and, of a deletion, the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteAnswer {
    /// The header's revision.
    pub revision: u64,
    /// `deleted` of a `DeleteRangeResponse`.
    pub deleted: u64,
}

impl WriteAnswer {
    /// Reads the answer.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(header)) => answer.revision = header_revision(header)?,
                (2, Value::Number(deleted)) => answer.deleted = deleted,
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// A `RangeResponse`.
#[derive(Clone, Copy, Debug)]
pub struct RangeAnswer<'a> {
    /// The header's revision.
    pub revision: u64,
    /// How many keys the range holds, whatever the limit.
    pub count: u64,
    /// Whether the limit cut the answer.
    pub more: bool,
    body: &'a [u8],
}

impl<'a> RangeAnswer<'a> {
    /// Reads everything but the keys, which are checked to be well-framed.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut answer = Self { revision: 0, count: 0, more: false, body: bytes };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(header)) => answer.revision = header_revision(header)?,
                (3, Value::Number(more)) => answer.more = more != 0,
                (4, Value::Number(count)) => answer.count = count,
                _ => {}
            }
        }
        Ok(answer)
    }

    /// The keys and values.
    pub fn kvs(&self) -> impl Iterator<Item = Result<KeyValue<'a>, Malformed>> + use<'a> {
        messages(self.body, 2).map(|kv| KeyValue::read(kv?))
    }
}

/// A `KeyValue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision that created the key.
    pub create_revision: u64,
    /// The revision that wrote the value.
    pub mod_revision: u64,
    /// How often the key was written since its creation.
    pub version: u64,
    /// The value.
    pub value: &'a [u8],
    /// The lease that the key is attached to, 0 for none.
    pub lease: u64,
}

impl<'a> KeyValue<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut kv = Self::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(key)) => kv.key = key,
                (2, Value::Number(revision)) => kv.create_revision = revision,
                (3, Value::Number(revision)) => kv.mod_revision = revision,
                (4, Value::Number(version)) => kv.version = version,
                (5, Value::Bytes(value)) => kv.value = value,
                (6, Value::Number(lease)) => kv.lease = lease,
                _ => {}
            }
        }
        Ok(kv)
    }
}

/// A `TxnResponse` to [`write_txn_update`] or to a transaction of puts.
#[derive(Clone, Copy, Debug)]
pub struct TxnAnswer<'a> {
    /// The header's revision.
    pub revision: u64,
    /// Whether the comparisons held.
    pub succeeded: bool,
    body: &'a [u8],
}

/// One operation's answer inside a transaction.
#[derive(Clone, Copy, Debug)]
pub enum OperationAnswer<'a> {
    /// To a range.
    Range(RangeAnswer<'a>),
    /// To a put.
    Put,
    /// To anything else: never asked for.
    Other,
}

impl<'a> TxnAnswer<'a> {
    /// Reads everything but the operations' answers.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut answer = Self { revision: 0, succeeded: false, body: bytes };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(header)) => answer.revision = header_revision(header)?,
                (2, Value::Number(succeeded)) => answer.succeeded = succeeded != 0,
                _ => {}
            }
        }
        Ok(answer)
    }

    /// The operations' answers, in order.
    pub fn responses(
        &self,
    ) -> impl Iterator<Item = Result<OperationAnswer<'a>, Malformed>> + use<'a> {
        messages(self.body, 3).map(|operation| {
            let mut fields = Fields(operation?);
            Ok(match fields.next()? {
                Some((1, Value::Bytes(range))) => OperationAnswer::Range(RangeAnswer::read(range)?),
                Some((2, Value::Bytes(put))) => {
                    WriteAnswer::read(put)?;
                    OperationAnswer::Put
                }
                _ => OperationAnswer::Other,
            })
        })
    }
}

/// A `WatchResponse`.
#[derive(Clone, Copy, Debug)]
pub struct WatchAnswer<'a> {
    /// The header's revision.
    pub revision: u64,
    /// The watch that the answer is for.
    pub watch_id: u64,
    /// The answer to a creation.
    pub created: bool,
    /// The watch is over.
    pub canceled: bool,
    body: &'a [u8],
}

impl<'a> WatchAnswer<'a> {
    /// Reads everything but the events.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut answer =
            Self { revision: 0, watch_id: 0, created: false, canceled: false, body: bytes };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(header)) => answer.revision = header_revision(header)?,
                (2, Value::Number(watch_id)) => answer.watch_id = watch_id,
                (3, Value::Number(created)) => answer.created = created != 0,
                (4, Value::Number(canceled)) => answer.canceled = canceled != 0,
                _ => {}
            }
        }
        Ok(answer)
    }

    /// The events: whether it is a deletion, and the key.
    pub fn events(
        &self,
    ) -> impl Iterator<Item = Result<(bool, KeyValue<'a>), Malformed>> + use<'a> {
        messages(self.body, 11).map(|event| {
            let mut deleted = false;
            let mut kv = KeyValue::default();
            let mut fields = Fields(event?);
            while let Some((number, value)) = fields.next()? {
                match (number, value) {
                    (1, Value::Number(kind)) => deleted = kind == 1,
                    (2, Value::Bytes(bytes)) => kv = KeyValue::read(bytes)?,
                    _ => {}
                }
            }
            Ok((deleted, kv))
        })
    }
}

fn header_revision(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut revision = 0;
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        if let (3, Value::Number(number)) = (number, value) {
            revision = number;
        }
    }
    Ok(revision)
}

/// The submessages with one field number.
fn messages(body: &[u8], wanted: u64) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    let mut fields = Fields(body);
    std::iter::from_fn(move || {
        loop {
            match fields.next() {
                Ok(Some((number, Value::Bytes(bytes)))) if number == wanted => {
                    return Some(Ok(bytes));
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    fields = Fields(&[]);
                    return Some(Err(error));
                }
            }
        }
    })
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message that are still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err(Malformed),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(number);
            }
        }
        Err(Malformed)
    }
}

fn write_number(out: &mut Vec<u8>, field: u64, number: u64) {
    if number != 0 {
        write_tag(out, field, 0);
        write_varint(out, number);
    }
}

fn write_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        write_tag(out, field, 2);
        write_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn write_tag(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    write_varint(out, field << 3 | wire_type);
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Answers as a server would send them, for the tests of those that read them.
#[cfg(test)]
pub mod answers {
    use super::*;

    /// A `ResponseHeader` as field 1.
    pub fn header(revision: u64) -> Vec<u8> {
        let mut header = Vec::new();
        write_number(&mut header, 1, u64::MAX);
        write_number(&mut header, 2, 77);
        write_number(&mut header, 3, revision);
        write_number(&mut header, 4, 2);
        let mut out = Vec::new();
        write_bytes(&mut out, 1, &header);
        out
    }

    /// A `KeyValue`.
    pub fn key_value(kv: &KeyValue<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_bytes(&mut out, 1, kv.key);
        write_number(&mut out, 2, kv.create_revision);
        write_number(&mut out, 3, kv.mod_revision);
        write_number(&mut out, 4, kv.version);
        write_bytes(&mut out, 5, kv.value);
        write_number(&mut out, 6, kv.lease);
        out
    }

    /// A `RangeResponse`.
    pub fn range(revision: u64, kvs: &[KeyValue<'_>], more: bool, count: u64) -> Vec<u8> {
        let mut out = header(revision);
        for kv in kvs {
            write_bytes(&mut out, 2, &key_value(kv));
        }
        write_number(&mut out, 3, u64::from(more));
        write_number(&mut out, 4, count);
        out
    }

    /// A `TxnResponse` with one operation of the given field number.
    pub fn txn(revision: u64, succeeded: bool, field: u64, operation: &[u8]) -> Vec<u8> {
        let mut out = header(revision);
        write_number(&mut out, 2, u64::from(succeeded));
        let mut response = Vec::new();
        write_bytes(&mut response, field, operation);
        write_bytes(&mut out, 3, &response);
        out
    }

    /// A `WatchResponse` with puts as its events.
    pub fn watch(revision: u64, watch_id: u64, created: bool, kvs: &[KeyValue<'_>]) -> Vec<u8> {
        let mut out = header(revision);
        write_number(&mut out, 2, watch_id);
        write_number(&mut out, 3, u64::from(created));
        for kv in kvs {
            let mut event = Vec::new();
            write_bytes(&mut event, 2, &key_value(kv));
            write_bytes(&mut out, 11, &event);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_bytes_that_other_encoders_give() {
        let mut put = Vec::new();
        write_put(&mut put, b"k", &[b'v'; 200]);
        assert_eq!(put[..6], [0x0a, 1, b'k', 0x12, 0xc8, 0x01]);
        assert_eq!(put.len(), 6 + 200);

        let mut range = Vec::new();
        let request = RangeRequest {
            key: b"a",
            range_end: b"b",
            limit: 500,
            revision: 3,
            serializable: true,
        };
        write_range(&mut range, &request);
        let expected = [0x0a, 1, b'a', 0x12, 1, b'b', 0x18, 0xf4, 0x03, 0x20, 0x03, 0x38, 0x01];
        assert_eq!(range, expected);

        let mut txn = Vec::new();
        write_txn_update(&mut txn, b"k", 0, b"v");
        let expected = [
            0x0a, 7, 0x10, 2, 0x1a, 1, b'k', 0x30, 0, // the comparison, its 0 included
            0x12, 8, 0x12, 6, 0x0a, 1, b'k', 0x12, 1, b'v', // the put
            0x1a, 5, 0x0a, 3, 0x0a, 1, b'k', // the range
        ];
        assert_eq!(txn, expected);

        let mut watch = Vec::new();
        write_watch_create(&mut watch, b"a", b"b", 0, 300);
        assert_eq!(watch, [0x0a, 9, 0x0a, 1, b'a', 0x12, 1, b'b', 0x38, 0xac, 0x02]);
    }

    #[test]
    fn answers_survive_the_round_trip() {
        let kv = KeyValue {
            key: b"key",
            create_revision: 4,
            mod_revision: 300,
            version: 9,
            value: b"value",
            lease: 77,
        };
        let bytes = answers::range(300, &[kv, kv], true, 7);
        let range = RangeAnswer::read(&bytes).unwrap();
        assert_eq!((range.revision, range.count, range.more), (300, 7, true));
        assert_eq!(range.kvs().collect::<Result<Vec<_>, _>>(), Ok(vec![kv, kv]));

        let put = WriteAnswer::read(&answers::header(9)).unwrap();
        assert_eq!(put, WriteAnswer { revision: 9, deleted: 0 });

        let bytes = answers::txn(12, true, 2, &answers::header(12));
        let txn = TxnAnswer::read(&bytes).unwrap();
        assert!(txn.succeeded && txn.revision == 12);
        let first = txn.responses().next().unwrap().unwrap();
        assert!(matches!(first, OperationAnswer::Put));

        let bytes = answers::watch(300, 5, false, &[kv]);
        let watch = WatchAnswer::read(&bytes).unwrap();
        assert_eq!((watch.watch_id, watch.created, watch.canceled), (5, false, false));
        assert_eq!(watch.events().collect::<Result<Vec<_>, _>>(), Ok(vec![(false, kv)]));
    }

    #[test]
    fn malformed_answers_are_refused_and_never_panic() {
        let kv = KeyValue { key: b"key", value: b"value", mod_revision: 3, ..KeyValue::default() };
        let whole = answers::range(3, &[kv], true, 1);
        for cut in 0..whole.len() {
            if let Ok(range) = RangeAnswer::read(&whole[..cut]) {
                let _ = range.kvs().count();
            }
        }
        assert!(RangeAnswer::read(&whole[..whole.len() - 1]).is_err());
        assert!(WriteAnswer::read(&[0x0b]).is_err(), "groups are no part of proto3");
        assert!(WriteAnswer::read(&[0xff; 11]).is_err(), "a varint of eleven bytes");
        assert!(WriteAnswer::read(&[0x0a, 0xff, 0x01]).is_err(), "a length beyond the end");
    }
}
