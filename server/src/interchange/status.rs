//! What a database file says about itself: etcdutl's numbers.

use std::collections::HashSet;
use std::path::Path;

use engine::bbolt::check;
use engine::bbolt::check::Summary;
use engine::bbolt::schema::{self, Meta, RevisionKey};
use sha1::{Digest, Sha1};

use super::Failure;
use super::input::{Database, DigestRule};

/// What `snapshot status` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The hash of all buckets, their keys and values.
    pub hash: u32,
    /// The last revision.
    pub revision: i64,
    /// Keys that live.
    pub total_key: u64,
    /// The pages' size.
    pub total_size: u64,
    /// The version of the schema; empty before 3.6.
    pub version: String,
}

/// Looks at a backup or at a stopped etcd's database. All pages are proved sound first.
///
/// # Errors
/// Damage.
pub fn status(path: &Path) -> Result<Status, Failure> {
    let database = Database::open(path, DigestRule::Skipped)?;
    check::check(database.reader()).map_err(|cause| database.damage(cause))?;
    let reader = database.reader();
    let mut status =
        Status { total_size: reader.page_count() * reader.page_size_bytes(), ..Status::default() };
    // Of a key its digest is kept: sixteen bytes, however long the keys are.
    let mut live: HashSet<[u8; 16]> = HashSet::new();
    let mut meta = Meta::default();
    let mut buckets = reader.buckets();
    while let Some((name, bucket)) =
        buckets.next_bucket().map_err(|cause| database.damage(cause))?
    {
        status.hash = crc32c::crc32c_append(status.hash, name);
        let (is_key, is_meta) = (name == schema::KEY, name == schema::META);
        let mut pairs = reader.walk(&bucket);
        while let Some((key, value)) = pairs.next_pair().map_err(|cause| database.damage(cause))? {
            status.hash = crc32c::crc32c_append(status.hash, key);
            status.hash = crc32c::crc32c_append(status.hash, value);
            if is_meta && key == schema::META_STORAGE_VERSION {
                meta.read_pair(key, value).map_err(|cause| database.broken(cause))?;
            }
            if is_key {
                let revision =
                    RevisionKey::from_bytes(key).map_err(|cause| database.broken(cause))?;
                let record =
                    schema::record_from(key, value).map_err(|cause| database.broken(cause))?;
                status.revision = revision.change.main.0;
                let digest = Sha1::digest(record.key);
                let digest = *digest.first_chunk().expect("a SHA-1 has twenty bytes");
                if revision.is_tombstone {
                    live.remove(&digest);
                } else {
                    live.insert(digest);
                }
            }
        }
    }
    status.total_key = live.len() as u64;
    status.version = meta.storage_version.unwrap_or_default();
    Ok(status)
}

/// Proves a file sound: its digest if it carries one, all its pages, and each pair of its buckets.
///
/// # Errors
/// The first damage that was found.
pub fn check(path: &Path) -> Result<Summary, Failure> {
    let database = Database::open(path, DigestRule::Welcome)?;
    check::check(database.reader()).map_err(|cause| database.damage(cause))
}
