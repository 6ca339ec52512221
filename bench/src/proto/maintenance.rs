//! Compaction, and the messages of the Maintenance service.

use super::{Fields, Malformed, Value, write_number};

/// The path of `KV.Compact`.
pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
/// The path of `Maintenance.Defragment`, whose request is empty.
pub const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
/// The path of `Maintenance.Snapshot`, whose request is empty.
pub const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// The path of `Maintenance.HashKV`.
pub const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
/// The path of `Maintenance.Status`, whose request is empty.
pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// A database file is made of pages, each a multiple of this; its checksum follows.
const SNAPSHOT_ALIGNMENT_BYTES: u64 = 512;
const SNAPSHOT_CHECKSUM_BYTES: u64 = 32;

/// Appends a `CompactionRequest`; a physical one is answered when the history is gone.
pub fn write_compact(out: &mut Vec<u8>, revision: u64, physical: bool) {
    write_number(out, 1, revision);
    write_number(out, 2, u64::from(physical));
}

/// A `StatusResponse`, as far as the harness asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusAnswer {
    /// Who answered.
    pub member_id: u64,
    /// The newest revision of who answered.
    pub revision: u64,
    /// Whom the member follows, 0 for nobody.
    pub leader_id: u64,
    /// The raft term.
    pub raft_term: u64,
}

impl StatusAnswer {
    /// Reads the answer.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(header)) => {
                    let mut fields = Fields(header);
                    while let Some((number, value)) = fields.next()? {
                        match (number, value) {
                            (2, Value::Number(id)) => answer.member_id = id,
                            (3, Value::Number(revision)) => answer.revision = revision,
                            _ => {}
                        }
                    }
                }
                (4, Value::Number(id)) => answer.leader_id = id,
                (6, Value::Number(term)) => answer.raft_term = term,
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Appends a `HashKVRequest`.
pub fn write_hash_kv(out: &mut Vec<u8>, revision: u64) {
    write_number(out, 1, revision);
}

/// The hash and the compacted revision of a `HashKVResponse`.
pub fn read_hash_kv(bytes: &[u8]) -> Result<(u64, u64), Malformed> {
    let (mut hash, mut compact_revision) = (0, 0);
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (2, Value::Number(number)) => hash = number,
            (3, Value::Number(revision)) => compact_revision = revision,
            _ => {}
        }
    }
    Ok((hash, compact_revision))
}

/// The sizes in a stream of `SnapshotResponse`s. Each says how much of the file is still to come;
/// after the last of it comes the checksum, in a message of its own. The content is counted and
/// dropped; the first thing that is wrong is kept for the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotSizes {
    /// How much of the file has come.
    received_bytes: u64,
    /// How much of the file is to come, once some of it has.
    remaining_bytes: Option<u64>,
    /// The checksum has come.
    complete: bool,
    wrong: Option<String>,
}

impl SnapshotSizes {
    /// Takes the next message.
    pub fn handle_message(&mut self, bytes: &[u8]) {
        if let Err(text) = self.take(bytes) {
            self.wrong.get_or_insert(text);
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (remaining_bytes, blob_bytes) =
            read_snapshot(bytes).map_err(|_| "a part of a snapshot is malformed".to_owned())?;
        let wrong = |what: &str| {
            Err(format!("{blob_bytes} bytes of a snapshot came, {remaining_bytes} left: {what}"))
        };
        match self.remaining_bytes {
            _ if self.complete => wrong("its checksum had come already"),
            Some(0) if blob_bytes == SNAPSHOT_CHECKSUM_BYTES && remaining_bytes == 0 => {
                self.complete = true;
                Ok(())
            }
            Some(0) => wrong("a checksum was expected"),
            Some(before) if before != remaining_bytes + blob_bytes => {
                wrong(&format!("{before} were left before"))
            }
            _ => {
                self.received_bytes += blob_bytes;
                self.remaining_bytes = Some(remaining_bytes);
                Ok(())
            }
        }
    }

    /// The size of the file, after the stream has ended well.
    pub fn finish(self) -> Result<u64, String> {
        if let Some(text) = self.wrong {
            return Err(text);
        }
        let size = self.received_bytes;
        if !self.complete {
            return Err(format!("a snapshot ended after {size} bytes, without its checksum"));
        }
        if size == 0 || !size.is_multiple_of(SNAPSHOT_ALIGNMENT_BYTES) {
            return Err(format!("a snapshot of {size} bytes is not made of pages"));
        }
        Ok(size)
    }
}

/// `remaining_bytes` and the length of `blob`.
fn read_snapshot(bytes: &[u8]) -> Result<(u64, u64), Malformed> {
    let (mut remaining_bytes, mut blob_bytes) = (0, 0);
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (2, Value::Number(remaining)) => remaining_bytes = remaining,
            (3, Value::Bytes(blob)) => blob_bytes = blob.len() as u64,
            _ => {}
        }
    }
    Ok((remaining_bytes, blob_bytes))
}

#[cfg(test)]
mod tests {
    use super::super::{answers, write_bytes};
    use super::*;

    fn part(remaining_bytes: u64, blob: &[u8]) -> Vec<u8> {
        let mut out = answers::header(5);
        write_number(&mut out, 2, remaining_bytes);
        write_bytes(&mut out, 3, blob);
        out
    }

    #[test]
    fn a_compaction_has_the_bytes_that_other_encoders_give() {
        let mut compact = Vec::new();
        write_compact(&mut compact, 300, true);
        assert_eq!(compact, [0x08, 0xac, 0x02, 0x10, 1]);
        compact.clear();
        write_compact(&mut compact, 3, false);
        assert_eq!(compact, [0x08, 3]);
    }

    #[test]
    fn a_status_names_the_leader() {
        let mut header = Vec::new();
        write_number(&mut header, 1, 7);
        write_number(&mut header, 2, 1 << 63);
        write_number(&mut header, 3, 300);
        write_number(&mut header, 4, 5);
        let mut out = Vec::new();
        write_bytes(&mut out, 1, &header);
        write_bytes(&mut out, 2, b"3.7.1");
        write_number(&mut out, 4, 9);
        write_number(&mut out, 6, 5);
        let expected =
            StatusAnswer { member_id: 1 << 63, revision: 300, leader_id: 9, raft_term: 5 };
        assert_eq!(StatusAnswer::read(&out), Ok(expected));
        assert_eq!(StatusAnswer::read(&[0x0a, 9]), Err(Malformed));
    }

    #[test]
    fn a_hash_is_read_with_the_compacted_revision() {
        let mut out = Vec::new();
        write_hash_kv(&mut out, 3);
        assert_eq!(out, [0x08, 3]);
        let mut out = answers::header(5);
        write_number(&mut out, 2, u64::from(u32::MAX));
        write_number(&mut out, 3, 4);
        assert_eq!(read_hash_kv(&out), Ok((u64::from(u32::MAX), 4)));
    }

    fn size(parts: &[Vec<u8>]) -> Result<u64, String> {
        let mut sizes = SnapshotSizes::default();
        for part in parts {
            sizes.handle_message(part);
        }
        sizes.finish()
    }

    #[test]
    fn a_snapshot_is_counted_to_its_checksum() {
        let file = [part(512, &[1; 512]), part(0, &[2; 512])];
        let checksum = part(0, &[3; 32]);
        assert!(size(&file).is_err(), "the checksum is missing");
        let whole = [file.as_slice(), std::slice::from_ref(&checksum)].concat();
        assert_eq!(size(&whole), Ok(1024));
        assert!(size(&[whole, vec![checksum]].concat()).is_err(), "it comes once");
    }

    #[test]
    fn a_snapshot_with_a_hole_is_caught() {
        let checksum = part(0, &[3; 32]);
        assert!(size(&[]).is_err());
        let hole = [part(544, &[1; 512]), part(0, &[2; 512]), checksum.clone()];
        assert!(size(&hole).is_err(), "32 bytes are missing");
        assert!(size(&[part(0, &[1; 512]), vec![0x1a, 9], checksum.clone()]).is_err());
        assert!(size(&[part(0, &[1; 512]), part(0, &[1; 31])]).is_err(), "a short checksum");
        assert!(size(&[part(0, &[1; 1000]), checksum]).is_err(), "no number of pages");
    }
}
