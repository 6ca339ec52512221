//! The messages of the Lease service, and a put that attaches its key to a lease.

use super::{Fields, Malformed, Value, header_revision, messages, write_number};

/// The path of `Lease.LeaseGrant`.
pub const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
/// The path of `Lease.LeaseRevoke`.
pub const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
/// The path of `Lease.LeaseKeepAlive`.
pub const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
/// The path of `Lease.LeaseLeases`.
pub const LEASE_LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";

/// Appends a `LeaseGrantRequest`.
pub fn write_lease_grant(out: &mut Vec<u8>, id: u64, ttl_seconds: u64) {
    write_number(out, 1, ttl_seconds);
    write_number(out, 2, id);
}

/// Appends a `LeaseRevokeRequest` or a `LeaseKeepAliveRequest`: both hold the id alone.
pub fn write_lease_id(out: &mut Vec<u8>, id: u64) {
    write_number(out, 1, id);
}

/// Appends a `PutRequest` that attaches the key to a lease.
pub fn write_put_with_lease(out: &mut Vec<u8>, key: &[u8], value: &[u8], lease: u64) {
    super::write_put(out, key, value);
    write_number(out, 3, lease);
}

/// A `LeaseGrantResponse` or a `LeaseKeepAliveResponse`: they have the same fields, but for an
/// error text that no server fills in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// The header's revision.
    pub revision: u64,
    /// The lease.
    pub id: u64,
    /// How long it lives from now on; 0 when there is no such lease any more.
    pub ttl_seconds: u64,
}

impl LeaseAnswer {
    /// Reads the answer.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(header)) => answer.revision = header_revision(header)?,
                (2, Value::Number(id)) => answer.id = id,
                (3, Value::Number(ttl_seconds)) => answer.ttl_seconds = ttl_seconds,
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// The ids in a `LeaseLeasesResponse`.
pub fn read_lease_ids(bytes: &[u8]) -> Result<Vec<u64>, Malformed> {
    let id_of = |status| {
        let mut id = 0;
        let mut fields = Fields(status);
        while let Some((number, value)) = fields.next()? {
            if let (1, Value::Number(number)) = (number, value) {
                id = number;
            }
        }
        Ok(id)
    };
    messages(bytes, 2).map(|status| id_of(status?)).collect()
}

/// Answers as a server would send them.
#[cfg(test)]
pub mod answers {
    use super::super::write_bytes;
    use super::*;

    /// A `LeaseGrantResponse` or a `LeaseKeepAliveResponse`.
    pub fn lease(revision: u64, id: u64, ttl_seconds: u64) -> Vec<u8> {
        let mut out = super::super::answers::header(revision);
        write_number(&mut out, 2, id);
        write_number(&mut out, 3, ttl_seconds);
        out
    }

    /// A `LeaseLeasesResponse`.
    pub fn leases(revision: u64, ids: &[u64]) -> Vec<u8> {
        let mut out = super::super::answers::header(revision);
        for &id in ids {
            let mut status = Vec::new();
            write_number(&mut status, 1, id);
            write_bytes(&mut out, 2, &status);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_bytes_that_other_encoders_give() {
        let mut grant = Vec::new();
        write_lease_grant(&mut grant, 300, 5);
        assert_eq!(grant, [0x08, 5, 0x10, 0xac, 0x02]);
        let mut put = Vec::new();
        write_put_with_lease(&mut put, b"k", b"v", 7);
        assert_eq!(put, [0x0a, 1, b'k', 0x12, 1, b'v', 0x18, 7]);
        let mut revoke = Vec::new();
        write_lease_id(&mut revoke, 7);
        assert_eq!(revoke, [0x08, 7]);
    }

    #[test]
    fn answers_survive_the_round_trip() {
        let answer = LeaseAnswer::read(&answers::lease(9, 300, 5)).unwrap();
        assert_eq!(answer, LeaseAnswer { revision: 9, id: 300, ttl_seconds: 5 });
        assert_eq!(read_lease_ids(&answers::leases(9, &[3, 300])), Ok(vec![3, 300]));
        assert_eq!(read_lease_ids(&answers::leases(9, &[])), Ok(vec![]));
        assert!(LeaseAnswer::read(&[0x0a, 0xff]).is_err());
        assert!(read_lease_ids(&[0x12, 9]).is_err());
    }
}
