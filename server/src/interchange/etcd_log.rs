//! etcd's log, read in order: segments, frames, records.
//!
//! A segment is a row of frames: eight bytes, little endian, whose low 56 bits are the size of a
//! record and whose highest byte is 0x80 plus the padding behind it, or zero without one; then the
//! record (a protobuf of type, checksum and data) and the padding. Zeros end a segment. The
//! checksum is Castagnoli's, carried on over the data of all records; the first record of a segment
//! repeats it.
//!
//! Nothing is repaired and nothing is written. A crash of etcd leaves two kinds of marks in the
//! last segment, both of which etcd cuts off when it starts: a frame of which whole sectors are
//! still zero, and one that the file is too short for. There the log ends. Anything else is damage,
//! told by file and offset.
//!
//! Invariant: memory holds one record; no size in a file is believed beyond what the file holds.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::service::wire::{Fields, Value};

/// What a sector of a disk holds; a frame that was torn by a crash lacks some.
const SECTOR_BYTES: u64 = 512;
const FRAME_HEAD_BYTES: u64 = 8;

const TYPE_METADATA: u64 = 1;
const TYPE_ENTRY: u64 = 2;
const TYPE_STATE: u64 = 3;
const TYPE_CHECKSUM: u64 = 4;
const TYPE_SNAPSHOT: u64 = 5;

/// A rule that a log breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRule {
    /// There is no segment.
    NoSegment,
    /// A segment is missing before this one.
    SegmentMissing,
    /// The frame's head makes no sense.
    FrameHead,
    /// The file ends inside the frame.
    CutShort,
    /// The record is not the message it should be.
    Record,
    /// The record's checksum is not that of its data.
    Checksum,
    /// The record is of a type that etcd does not have.
    Type,
}

impl fmt::Display for LogRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoSegment => "there is no segment",
            Self::SegmentMissing => "the segment before it is missing",
            Self::FrameHead => "the head of the frame makes no sense",
            Self::CutShort => "the file ends inside the frame",
            Self::Record => "the record is not the message it should be",
            Self::Checksum => "the checksum of the record does not fit its data",
            Self::Type => "the record is of an unknown type",
        })
    }
}

/// An entry of raft's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub index: u64,
    /// The term of who proposed it.
    pub term: u64,
    /// What it changes.
    pub kind: EntryKind,
    /// The request or the change.
    pub data: Vec<u8>,
}

/// What an entry changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// The store.
    #[default]
    Normal,
    /// The members.
    ConfChange,
}

/// What a log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRecord {
    /// Whose log it is.
    Owner {
        /// The cluster.
        cluster: u64,
        /// The member.
        member: u64,
    },
    /// An entry; it takes the place of all from its index on.
    Entry(LogEntry),
    /// Up to where entries are committed.
    Commit(u64),
    /// Entries up to this one were taken over with a database.
    Snapshot(u64),
}

/// A log being read.
pub struct EtcdLog {
    /// The segments that were not begun, the next one last.
    rest: Vec<PathBuf>,
    segment: Option<Segment>,
    checksum: u32,
    /// Where the last frame was torn.
    torn: Option<(PathBuf, u64)>,
}

struct Segment {
    path: PathBuf,
    file: BufReader<File>,
    size_bytes: u64,
    /// Where the next frame begins.
    offset: u64,
}

struct RawRecord {
    kind: u64,
    checksum: u32,
    data: Vec<u8>,
}

impl EtcdLog {
    /// The log in a directory.
    ///
    /// # Errors
    /// There is none, or a segment is missing in it.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let mut segments = Vec::new();
        let entries = fs::read_dir(directory).map_err(Failure::io("list", directory))?;
        for entry in entries {
            let path = entry.map_err(Failure::io("list", directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(sequence) = sequence_of(&name) {
                segments.push((sequence, path));
            }
        }
        segments.sort_unstable();
        if segments.is_empty() {
            return Err(Failure::log(directory, 0, LogRule::NoSegment));
        }
        for pair in segments.windows(2) {
            if pair[0].0 + 1 != pair[1].0 {
                return Err(Failure::log(&pair[1].1, 0, LogRule::SegmentMissing));
            }
        }
        let rest = segments.into_iter().rev().map(|(_, path)| path).collect();
        Ok(Self { rest, segment: None, checksum: 0, torn: None })
    }

    /// Where the last frame was torn by a crash, once the log was read to its end.
    #[must_use]
    pub fn torn(&self) -> Option<&(PathBuf, u64)> {
        self.torn.as_ref()
    }

    /// The next record that tells something; `None` at the log's end.
    ///
    /// # Errors
    /// Damage, by file and offset.
    pub fn next(&mut self) -> Result<Option<LogRecord>, Failure> {
        loop {
            let Some(segment) = &mut self.segment else {
                let Some(path) = self.rest.pop() else { return Ok(None) };
                self.segment = Some(Segment::open(path)?);
                continue;
            };
            let offset = segment.offset;
            let frame = match segment.next()? {
                Next::Frame(frame) => frame,
                Next::Cut if self.rest.is_empty() => {
                    self.torn = Some((segment.path.clone(), offset));
                    self.segment = None;
                    continue;
                }
                Next::Cut => return Err(Failure::log(&segment.path, offset, LogRule::CutShort)),
                Next::End => {
                    self.segment = None;
                    continue;
                }
            };
            let damage = |rule| Failure::log(&segment.path, offset, rule);
            match follow(&mut self.checksum, frame.record) {
                Ok(None) => {}
                Ok(Some(record)) => return Ok(Some(record)),
                // A sound frame may hold a sector of zeros, too, so that is asked last.
                Err(rule) if rule != LogRule::Type && frame.has_blank_sector => {
                    if !self.rest.is_empty() {
                        return Err(damage(rule));
                    }
                    self.torn = Some((segment.path.clone(), offset));
                    self.segment = None;
                }
                Err(rule) => return Err(damage(rule)),
            }
        }
    }
}

/// Carries the checksum on over a record, and says what it tells.
fn follow(checksum: &mut u32, record: Option<RawRecord>) -> Result<Option<LogRecord>, LogRule> {
    let record = record.ok_or(LogRule::Record)?;
    if record.kind == TYPE_CHECKSUM {
        // A log whose first segments were released begins with the sum of what is gone.
        if *checksum != 0 && record.checksum != *checksum {
            return Err(LogRule::Checksum);
        }
        *checksum = record.checksum;
        return Ok(None);
    }
    let sum = crc32c::crc32c_append(*checksum, &record.data);
    if record.checksum != sum {
        return Err(LogRule::Checksum);
    }
    *checksum = sum;
    understand(&record)
}

/// What follows in a segment.
enum Next {
    Frame(Frame),
    /// The file ends inside of a frame.
    Cut,
    /// Zeros, or the file's end.
    End,
}

/// A frame as it lies there.
struct Frame {
    /// `None` if it is not the message it should be.
    record: Option<RawRecord>,
    has_blank_sector: bool,
}

impl Segment {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let file = File::open(&path).map_err(Failure::io("open", &path))?;
        let size_bytes = file.metadata().map_err(Failure::io("look at", &path))?.len();
        Ok(Self { path, file: BufReader::new(file), size_bytes, offset: 0 })
    }

    fn next(&mut self) -> Result<Next, Failure> {
        let damage = |rule| Failure::log(&self.path, self.offset, rule);
        let left = self.size_bytes - self.offset;
        if left < FRAME_HEAD_BYTES {
            return Ok(if left == 0 { Next::End } else { Next::Cut });
        }
        let mut head = [0; 8];
        self.file.read_exact(&mut head).map_err(Failure::io("read", &self.path))?;
        let head = u64::from_le_bytes(head);
        if head == 0 {
            return Ok(Next::End);
        }
        let (flags, record_bytes) = (head >> 56, head & ((1 << 56) - 1));
        let padding_bytes = flags & 7;
        if !matches!(flags, 0 | 0x80..=0x87) || record_bytes == 0 {
            return Err(damage(LogRule::FrameHead));
        }
        if record_bytes + padding_bytes > left - FRAME_HEAD_BYTES {
            return Ok(Next::Cut);
        }
        let len = |bytes: u64| usize::try_from(bytes).map_err(|_| damage(LogRule::FrameHead));
        let (frame_len, record_len) = (len(record_bytes + padding_bytes)?, len(record_bytes)?);
        let mut bytes = vec![0; frame_len];
        self.file.read_exact(&mut bytes).map_err(Failure::io("read", &self.path))?;
        let has_blank_sector = has_blank_sector(&bytes, self.offset + FRAME_HEAD_BYTES);
        self.offset += FRAME_HEAD_BYTES + record_bytes + padding_bytes;
        Ok(Next::Frame(Frame { record: parse_record(&bytes[..record_len]), has_blank_sector }))
    }
}

/// Whether a sector's share of a frame is all zeros.
fn has_blank_sector(bytes: &[u8], offset: u64) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let room = SECTOR_BYTES - (offset + at as u64) % SECTOR_BYTES;
        let end = bytes.len().min(at + usize::try_from(room).expect("a sector is small"));
        if bytes[at..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = end;
    }
    false
}

fn parse_record(bytes: &[u8]) -> Option<RawRecord> {
    let mut record = RawRecord { kind: 0, checksum: 0, data: Vec::new() };
    let mut fields = Fields::of(bytes);
    while let Some(field) = fields.next().ok()? {
        match field {
            (1, Value::Varint(number)) => record.kind = number,
            (2, Value::Varint(number)) => record.checksum = u32::try_from(number).ok()?,
            (3, Value::Bytes(data)) => record.data = data.to_vec(),
            _ => {}
        }
    }
    Some(record)
}

/// What a record tells; a vote alone tells nothing that is taken over.
fn understand(record: &RawRecord) -> Result<Option<LogRecord>, LogRule> {
    let numbers = |wanted: [u64; 2]| {
        let mut found = [0, 0];
        let mut fields = Fields::of(&record.data);
        while let Some(field) = fields.next().ok()? {
            if let (number, Value::Varint(value)) = field
                && let Some(place) = wanted.iter().position(|wanted| *wanted == number)
            {
                found[place] = value;
            }
        }
        Some(found)
    };
    let record = match record.kind {
        TYPE_METADATA => {
            numbers([2, 1]).map(|[cluster, member]| Some(LogRecord::Owner { cluster, member }))
        }
        TYPE_ENTRY => parse_entry(&record.data).map(|entry| Some(LogRecord::Entry(entry))),
        TYPE_STATE => numbers([3, 3]).map(|[commit, _]| Some(LogRecord::Commit(commit))),
        TYPE_SNAPSHOT => numbers([1, 1]).map(|[index, _]| Some(LogRecord::Snapshot(index))),
        _ => return Err(LogRule::Type),
    };
    record.ok_or(LogRule::Record)
}

fn parse_entry(bytes: &[u8]) -> Option<LogEntry> {
    let mut entry = LogEntry::default();
    let mut fields = Fields::of(bytes);
    while let Some(field) = fields.next().ok()? {
        match field {
            (1, Value::Varint(0)) => {}
            (1, Value::Varint(1)) => entry.kind = EntryKind::ConfChange,
            (1, _) => return None,
            (2, Value::Varint(term)) => entry.term = term,
            (3, Value::Varint(index)) => entry.index = index,
            (4, Value::Bytes(data)) => entry.data = data.to_vec(),
            _ => {}
        }
    }
    Some(entry)
}

/// The number of a segment: sixteen hexadecimal digits, as many for its first entry.
fn sequence_of(name: &str) -> Option<u64> {
    let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
    let is_number = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    (is_number(sequence) && is_number(index)).then(|| u64::from_str_radix(sequence, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0000000000000000-0000000000000000.wal";
    const SECOND: &str = "0000000000000001-0000000000000003.wal";

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("ringd-log-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// The entries of the log in it, and where it is torn.
        fn read(&self) -> Result<(Vec<u64>, Option<u64>), String> {
            let mut log = EtcdLog::open(&self.0).map_err(|failure| failure.to_string())?;
            let mut entries = Vec::new();
            while let Some(record) = log.next().map_err(|failure| failure.to_string())? {
                let LogRecord::Entry(entry) = record else { continue };
                entries.push(entry.index);
            }
            Ok((entries, log.torn().map(|(_, offset)| *offset)))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn put_uint64(out: &mut Vec<u8>, field: u8, mut number: u64) {
        out.push(field << 3);
        while number >= 0x80 {
            out.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        out.push(number.to_le_bytes()[0]);
    }

    fn put_short(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
        out.extend_from_slice(&[field << 3 | 2, u8::try_from(bytes.len()).unwrap()]);
        out.extend_from_slice(bytes);
    }

    fn put_record(out: &mut Vec<u8>, kind: u64, checksum: u32, data: &[u8]) {
        let mut record = Vec::new();
        put_uint64(&mut record, 1, kind);
        put_uint64(&mut record, 2, checksum.into());
        put_short(&mut record, 3, data);
        let padding = (8 - record.len() % 8) % 8;
        let flags = if padding > 0 { 0x80 | padding as u64 } else { 0 };
        out.extend((flags << 56 | record.len() as u64).to_le_bytes());
        out.extend(record);
        out.resize(out.len() + padding, 0);
    }

    /// A segment that goes on from a checksum, with these entries; and where each frame begins.
    fn segment(checksum: &mut u32, entries: &[u64]) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut begins) = (Vec::new(), Vec::new());
        put_record(&mut out, TYPE_CHECKSUM, *checksum, b"");
        for &index in entries {
            begins.push(out.len());
            let mut data = Vec::new();
            put_uint64(&mut data, 3, index);
            put_short(&mut data, 4, b"a request of some length");
            *checksum = crc32c::crc32c_append(*checksum, &data);
            put_record(&mut out, TYPE_ENTRY, *checksum, &data);
        }
        (out, begins)
    }

    /// Found by a reviewer: etcd cuts such an end off and starts, and here it was refused.
    #[test]
    fn a_last_segment_that_ends_inside_a_frame_ends_before_it() {
        let directory = Directory::new("cut");
        let mut checksum = 0;
        let (first, _) = segment(&mut checksum, &[1, 2]);
        let (second, begins) = segment(&mut checksum, &[3, 4]);
        fs::write(directory.0.join(FIRST), &first).unwrap();
        let last = begins[1];
        for len in last..=second.len() {
            fs::write(directory.0.join(SECOND), &second[..len]).unwrap();
            let expected = if len == second.len() {
                (vec![1, 2, 3, 4], None)
            } else {
                (vec![1, 2, 3], (len > last).then_some(last as u64))
            };
            assert_eq!(directory.read(), Ok(expected), "{len}");
        }
        // The same in a segment that others follow is damage.
        fs::write(directory.0.join(SECOND), &second).unwrap();
        fs::write(directory.0.join(FIRST), &first[..first.len() - 1]).unwrap();
        let refused = directory.read().unwrap_err();
        assert!(refused.contains(&LogRule::CutShort.to_string()), "{refused}");
        // And so is a wrong checksum, wherever it stands.
        let mut wrong = second.clone();
        let data = second.windows(7).rposition(|part| part == b"request").unwrap();
        wrong[data] ^= 1;
        fs::write(directory.0.join(FIRST), &first).unwrap();
        fs::write(directory.0.join(SECOND), &wrong).unwrap();
        let refused = directory.read().unwrap_err();
        assert!(refused.contains(&LogRule::Checksum.to_string()), "{refused}");
    }
}
