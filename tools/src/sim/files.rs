//! Files that a crash can tear.
//!
//! Each file keeps what is durable, and the writes behind it in their order. A crash keeps, of each
//! write since the last sync, any of its sectors: a disk promises no more. A file system promises
//! little about names as well: a creation holds only once its directory was synced, but creations
//! hold in their order, as a journal keeps them.
//!
//! Invariants:
//! - What was synced stays, whatever the crash, unless rot is asked for.
//! - A reader sees all that was written, synced or not.

use std::collections::BTreeMap;

use super::random::Random;

/// What a disk writes whole or not at all.
const SECTOR_SIZE_BYTES: usize = 512;

/// A write that no sync has covered.
#[derive(Debug, Clone)]
struct Unsynced {
    offset: usize,
    bytes: Vec<u8>,
}

/// A change of a file's length, which a journal keeps in order with the rest.
#[derive(Debug, Clone)]
enum Change {
    Write(Unsynced),
    Resize(usize),
}

/// One file.
#[derive(Debug, Clone, Default)]
pub struct SimFile {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
}

impl SimFile {
    /// What a reader sees.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.current
    }

    /// A write, which makes the file longer where it ends behind it.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.current, offset, bytes);
        self.unsynced.push(Change::Write(Unsynced { offset, bytes: bytes.to_vec() }));
    }

    /// A write that fails: any of its sectors may have been written.
    pub fn write_some(&mut self, offset: usize, bytes: &[u8], random: &mut Random) {
        for (sector, piece) in bytes.chunks(SECTOR_SIZE_BYTES).enumerate() {
            if random.once_in(2) {
                self.write(offset + sector * SECTOR_SIZE_BYTES, piece);
            }
        }
    }

    /// Makes the file longer, with zeros, or shorter.
    pub fn resize(&mut self, size_bytes: usize) {
        self.current.resize(size_bytes, 0);
        self.unsynced.push(Change::Resize(size_bytes));
    }

    /// All that was written is durable.
    pub fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write(write) => put(&mut self.durable, write.offset, &write.bytes),
                Change::Resize(size_bytes) => self.durable.resize(size_bytes, 0),
            }
        }
    }

    /// A byte of what is durable changes by itself; nothing happens to an empty file.
    pub fn rot(&mut self, random: &mut Random) {
        if self.durable.is_empty() {
            return;
        }
        let at = random.place(self.durable.len());
        self.durable[at] ^= 1 << random.below(8);
        self.current[at] = self.durable[at];
    }

    /// The power fails: of what was not synced each sector is kept or not.
    pub fn crash(&mut self, random: &mut Random) {
        let mut kept = std::mem::take(&mut self.durable);
        let last_resize =
            self.unsynced.iter().rposition(|change| matches!(change, Change::Resize(_)));
        // A length is the journal's: the one of any point of it, and none later.
        let resizes = last_resize.map_or(0, |last| random.below(last as u64 + 2));
        for (place, change) in (0..).zip(&self.unsynced) {
            match change {
                Change::Resize(size_bytes) if place < resizes => kept.resize(*size_bytes, 0),
                Change::Resize(_) => {}
                Change::Write(write) => keep_some(&mut kept, write, random),
            }
        }
        self.unsynced.clear();
        self.current.clone_from(&kept);
        self.durable = kept;
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

fn keep_some(kept: &mut Vec<u8>, write: &Unsynced, random: &mut Random) {
    // All, nothing, or any of it: a coin for each sector alone would hardly ever keep a page whole.
    let mode = random.below(3);
    for (sector, piece) in write.bytes.chunks(SECTOR_SIZE_BYTES).enumerate() {
        if mode == 1 || (mode == 2 && random.below(2) == 0) {
            put(kept, write.offset + sector * SECTOR_SIZE_BYTES, piece);
        }
    }
}

/// A directory of files that are known by number.
#[derive(Debug, Clone, Default)]
pub struct SimDirectory {
    /// What a reader sees.
    names: BTreeMap<u64, u64>,
    /// What a crash leaves.
    durable_names: BTreeMap<u64, u64>,
    /// Names that were made, and their files, in their order.
    unsynced: Vec<(u64, u64)>,
    files: BTreeMap<u64, SimFile>,
    inode_next: u64,
}

impl SimDirectory {
    /// A file, to be changed.
    pub fn file_mut(&mut self, name: u64) -> Option<&mut SimFile> {
        self.files.get_mut(self.names.get(&name)?)
    }

    /// The file of a name, which is made if there is none.
    pub fn create(&mut self, name: u64) -> &mut SimFile {
        if !self.names.contains_key(&name) {
            self.inode_next += 1;
            self.names.insert(name, self.inode_next);
            self.files.insert(self.inode_next, SimFile::default());
            self.unsynced.push((name, self.inode_next));
        }
        self.files.get_mut(&self.names[&name]).expect("a name has a file")
    }

    /// Names are durable.
    pub fn sync(&mut self) {
        self.durable_names.clone_from(&self.names);
        self.unsynced.clear();
        self.forget_nameless();
    }

    /// The power fails: of the changes of names since the last sync the first few hold, and of each
    /// file what [`SimFile::crash`] keeps.
    pub fn crash(&mut self, random: &mut Random) {
        let kept = random.place(self.unsynced.len() + 1);
        let mut names = std::mem::take(&mut self.durable_names);
        names.extend(self.unsynced.drain(..).take(kept));
        self.unsynced.clear();
        self.names.clone_from(&names);
        self.durable_names = names;
        self.forget_nameless();
        for file in self.files.values_mut() {
            file.crash(random);
        }
    }

    fn forget_nameless(&mut self) {
        let named: Vec<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_any_of_the_rest() {
        let mut seen = [0; 3];
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut file = SimFile::default();
            file.write(0, &[1; 2048]);
            file.write(0, &[2; 1024]);
            file.sync();
            file.write(512, &[3; 1024]);
            assert_eq!(file.bytes()[512], 3);
            file.crash(&mut random);
            let bytes = file.bytes();
            assert!(bytes[..512].iter().all(|&byte| byte == 2) && bytes[1536..] == [1; 512]);
            let kept = [bytes[512] == 3, bytes[1024] == 3];
            assert_eq!(bytes[512..1024], [if kept[0] { 3 } else { 2 }; 512]);
            seen[usize::from(kept[0]) + usize::from(kept[1])] += 1;
        }
        assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
    }

    #[test]
    fn names_hold_in_their_order_once_synced_for_good() {
        let mut ends = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut directory = SimDirectory::default();
            directory.create(1).write(0, b"one");
            directory.file_mut(1).expect("it was made").sync();
            directory.sync();
            directory.create(2);
            directory.create(3);
            directory.crash(&mut Random::new(seed));
            ends.insert(directory.names.keys().copied().collect::<Vec<_>>());
            assert_eq!(directory.create(1).bytes(), b"one");
        }
        assert_eq!(ends.into_iter().collect::<Vec<_>>(), [vec![1], vec![1, 2], vec![1, 2, 3]]);
    }
}
