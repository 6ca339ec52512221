//! A database file of etcd, opened to be read and nothing else.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use engine::bbolt::backup::{DigestError, check_digest};
use engine::bbolt::{Bucket, Reader, Source, Walk};

use super::Failure;

/// Whether a digest must vouch for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestRule {
    /// It must be there and fit.
    Needed,
    /// It must fit if it is there.
    Welcome,
    /// It is not looked at.
    Skipped,
}

/// The file's bytes.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size_bytes: u64,
}

impl Source for FileSource {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset_bytes)
    }
}

/// An open database.
pub struct Database {
    path: PathBuf,
    reader: Reader<FileSource>,
}

impl Database {
    /// Opens a database and checks its digest by the rule. Nobody may be writing to it, and nobody
    /// begins to while this is alive: etcd would find the file locked.
    ///
    /// # Errors
    /// It is not there, not vouched for, not a database, or in use.
    pub fn open(path: &Path, rule: DigestRule) -> Result<Self, Failure> {
        let file = File::open(path).map_err(Failure::io("open", path))?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(Failure::Refused(format!("{path} is in use by another process")));
            }
            Err(TryLockError::Error(cause)) => return Err(Failure::io("lock", path)(cause)),
        }
        let size_bytes = file.metadata().map_err(Failure::io("look at", path))?.len();
        let source = FileSource { file, size_bytes };
        if rule != DigestRule::Skipped {
            match check_digest(&source) {
                Ok(()) => {}
                Err(DigestError::Missing) if rule == DigestRule::Welcome => {}
                Err(cause) => return Err(Failure::Digest { path: path.to_owned(), cause }),
            }
        }
        let damage = |cause| Failure::Database { path: path.to_owned(), cause };
        let reader = Reader::open(source).map_err(damage)?;
        Ok(Self { path: path.to_owned(), reader })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its pages.
    pub fn reader(&self) -> &Reader<FileSource> {
        &self.reader
    }

    /// A walk over a bucket, which every database has.
    ///
    /// # Errors
    /// Damage.
    pub fn walk(&self, name: &'static [u8]) -> Result<Walk<'_, FileSource>, Failure> {
        let bucket: Option<Bucket> =
            self.reader.bucket(name).map_err(|cause| self.damage(cause))?;
        match bucket {
            Some(bucket) => Ok(self.reader.walk(&bucket)),
            None => Err(Failure::BucketMissing { path: self.path.clone(), name }),
        }
    }

    /// Damage in its pages.
    pub fn damage(&self, cause: engine::bbolt::ReadError) -> Failure {
        Failure::Database { path: self.path.clone(), cause }
    }

    /// Damage in one of its pairs.
    pub fn broken(&self, cause: engine::bbolt::schema::SchemaError) -> Failure {
        Failure::Schema { path: self.path.clone(), cause }
    }
}
