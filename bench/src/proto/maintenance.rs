//! Compaction, and the messages of the Maintenance service.

use super::{Fields, Malformed, Value, write_number};

/// The path of `KV.Compact`.
pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
/// The path of `Maintenance.Defragment`, whose request is empty.
pub const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
/// The path of `Maintenance.Snapshot`, whose request is empty.
pub const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// A database file is made of pages, each a multiple of this; its checksum follows.
const SNAPSHOT_ALIGNMENT_BYTES: u64 = 512;
const SNAPSHOT_CHECKSUM_BYTES: u64 = 32;

/// Appends a `CompactionRequest`; a physical one is answered when the history is gone.
pub fn write_compact(out: &mut Vec<u8>, revision: u64, physical: bool) {
    write_number(out, 1, revision);
    write_number(out, 2, u64::from(physical));
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
