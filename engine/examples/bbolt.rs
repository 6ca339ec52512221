//! etcd's database files by hand: the developer's end of `tests/bbolt`.
//!
//! `dump FILE` prints every pair, `check FILE` proves a file sound, `schema FILE` reads every pair
//! as what etcd means by it and writes it again, `write FILE SEED KEYS` makes a backup of an
//! invented store and prints what etcd must answer about it, `leaves FILE COUNT` makes a file with
//! a bucket of so many leaves, each with a large pair, the last but one, and three small ones.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use engine::bbolt::backup::check_digest;
use engine::bbolt::schema::{
    self, Alarm, AlarmKind, Auth, Cluster, Lease, Member, Meta, Pair, Permission, PermissionKind,
    RevisionKey, Role, User, record_from, record_into, record_len,
};
use engine::bbolt::{
    Backup, Envelope, Measure, Reader, Source, Totals, Writer, check::check, front,
};
use engine::{Change, LeaseId, LogIndex, MemberId, Record, Revision, Term};
use sha2::{Digest, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    match arguments[..] {
        ["dump", path] => dump(&Reader::open(Input::open(path)?)?, &mut out)?,
        ["check", path] => {
            let input = Input::open(path)?;
            let summary = check(&Reader::open(&input)?)?;
            if Envelope::of(input.size_bytes()).has_digest {
                check_digest(&input)?;
            }
            writeln!(out, "{summary:?}")?;
        }
        ["schema", path] => read_schema(&Reader::open(Input::open(path)?)?, &mut out)?,
        ["write", path, seed, keys] => {
            let store = Invented::new(seed.parse()?, keys.parse()?);
            store.write(path)?;
            store.print_expected(&mut out)?;
        }
        ["leaves", path, count] => write_leaves(path, count.parse()?)?,
        _ => return Err("dump, check, schema, write or leaves, and a file".into()),
    }
    Ok(out.flush()?)
}

struct Input {
    file: File,
    size_bytes: u64,
}

impl Input {
    fn open(path: &str) -> Result<Self> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self { file, size_bytes })
    }
}

impl Source for Input {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset_bytes)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn dump(reader: &Reader<Input>, out: &mut impl Write) -> Result<()> {
    let mut buckets = reader.buckets();
    while let Some((name, bucket)) = buckets.next_bucket()? {
        writeln!(out, "bucket {}", hex(name))?;
        let mut walk = reader.walk(&bucket);
        while let Some((key, value)) = walk.next_pair()? {
            writeln!(out, "{} {} {}", hex(key), value.len(), digest(value))?;
        }
    }
    Ok(())
}

/// Reads each bucket as etcd means it; the bytes that come out again must be those that went in.
fn read_schema(reader: &Reader<Input>, out: &mut impl Write) -> Result<()> {
    for name in schema::BUCKETS {
        let title = name.escape_ascii();
        let bucket = reader.bucket(name)?.ok_or_else(|| format!("bucket {title} is missing"))?;
        let (mut count, mut facts, mut facts_found) = (0, Facts::default(), Vec::new());
        let mut walk = reader.walk(&bucket);
        while let Some((key, value)) = walk.next_pair()? {
            count += 1;
            let Some(again) = facts.read(name, key, value)? else {
                facts_found.push((key.to_vec(), value.to_vec()));
                continue;
            };
            if again != (key.to_vec(), value.to_vec()) {
                return Err(format!("bucket {title}, key {} came out differently", hex(key)).into());
            }
        }
        if facts.to_pairs() != facts_found {
            return Err(format!("bucket {title} came out differently: {facts:?}").into());
        }
        writeln!(out, "{title} {count}")?;
    }
    Ok(())
}

/// The buckets that hold single facts.
#[derive(Debug, Default)]
struct Facts {
    meta: Meta,
    cluster: Cluster,
    auth: Auth,
}

impl Facts {
    /// A pair read and written again; `None` where it is one of the facts.
    fn read(&mut self, bucket: &[u8], key: &[u8], value: &[u8]) -> Result<Option<Pair>> {
        match bucket {
            schema::META => self.meta.read_pair(key, value)?,
            schema::CLUSTER => self.cluster.read_pair(key, value)?,
            schema::AUTH => self.auth.read_pair(key, value)?,
            _ => return read_again(bucket, key, value).map(Some),
        }
        Ok(None)
    }

    fn to_pairs(&self) -> Vec<Pair> {
        [self.meta.to_pairs(), self.cluster.to_pairs(), self.auth.to_pairs()].concat()
    }
}

fn read_again(bucket: &[u8], key: &[u8], value: &[u8]) -> Result<Pair> {
    Ok(match bucket {
        schema::KEY => {
            let revision = RevisionKey::from_bytes(key)?;
            let record = record_from(key, value)?;
            let mut again = Vec::new();
            record_into(&record, &mut again);
            assert_eq!(again.len(), record_len(&record, record.value.len()));
            (revision.to_bytes()[..revision.size_bytes()].to_vec(), again)
        }
        schema::LEASE => Lease::from_pair(key, value)?.to_pair(),
        schema::ALARM => Alarm::from_pair(key, value)?.to_pair(),
        schema::AUTH_USERS => User::from_pair(key, value)?.to_pair(),
        schema::AUTH_ROLES => Role::from_pair(key, value)?.to_pair(),
        schema::MEMBERS => Member::from_pair(key, value)?.to_pair(),
        schema::MEMBERS_REMOVED => {
            let id = schema::member_id(schema::MEMBERS_REMOVED, key)?;
            (schema::member_key(id), schema::REMOVED.to_vec())
        }
        _ => unreachable!("all buckets are named"),
    })
}

/// Pages go out as they grow, and the front last, which a file that is not sent allows.
fn write_leaves(path: &str, count: u32) -> Result<()> {
    let mut writer = Writer::new();
    let file = File::create(path)?;
    let mut at = front(Totals { page_count: 0, root: 0 }).len() as u64;
    let mut drain = |writer: &mut Writer| -> io::Result<()> {
        while let Some(pages) = writer.poll_pages() {
            file.write_all_at(&pages, at)?;
            at += pages.len() as u64;
        }
        Ok(())
    };
    writer.begin_bucket(schema::KEY)?;
    for number in 0..count {
        let key = |kind| [&number.to_be_bytes()[..], &[kind; 13]].concat();
        for (kind, size_bytes) in [(0, 50), (1, 50), (2, 3750), (3, 50)] {
            writer.add(&key(kind), &vec![kind; size_bytes])?;
        }
        drain(&mut writer)?;
    }
    let totals = writer.finish();
    drain(&mut writer)?;
    Ok(file.write_all_at(&front(totals), 0)?)
}

/// Numbers from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}

/// A version of a key, or its end.
#[derive(Clone)]
struct Version {
    key: Vec<u8>,
    value: Vec<u8>,
    create_revision: Revision,
    version: i64,
    lease: LeaseId,
    is_tombstone: bool,
}

impl Version {
    fn record(&self, change: Change) -> Record<'_> {
        if self.is_tombstone {
            return Record { key: &self.key, ..Record::default() };
        }
        Record {
            key: &self.key,
            value: &self.value,
            create_revision: self.create_revision,
            mod_revision: change.main,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// A store as etcd would have come to it: puts, deletes, leases, a compaction.
struct Invented {
    history: BTreeMap<Change, Version>,
    revision: Revision,
    compacted: Revision,
    leases: Vec<Lease>,
    user: User,
    role: Role,
}

/// Who raised the alarm; no member of the restored cluster.
const ALARMED: MemberId = MemberId(0xabcd);

impl Invented {
    fn new(seed: u64, keys: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let lease =
            |id| Lease { id: LeaseId(id), ttl_seconds: 9000 + id, remaining_ttl_seconds: 0 };
        let leases: Vec<Lease> = (1..40).map(|id| lease(id * 1_000_003)).collect();
        let mut history = BTreeMap::new();
        let mut live: BTreeMap<Vec<u8>, Version> = BTreeMap::new();
        let mut main = Revision::EMPTY_STORE;
        while history.len() < usize::try_from(keys * 2).unwrap_or(usize::MAX) {
            main = main.next();
            let mut touched = BTreeSet::new();
            for _ in 0..=random.below(3) {
                let key = format!("/registry/thing/{:06}", random.below(keys)).into_bytes();
                if !touched.insert(key.clone()) {
                    continue;
                }
                let change = Change { main, sub: i64::try_from(touched.len()).expect("three") - 1 };
                let before = live.remove(&key);
                let is_tombstone = before.is_some() && random.below(4) == 0;
                let version = Version {
                    value: random_value(&mut random),
                    create_revision: before.as_ref().map_or(main, |before| before.create_revision),
                    version: before.map_or(0, |before| before.version) + 1,
                    lease: match random.below(5) {
                        0 => leases[usize::try_from(random.below(39)).expect("39")].id,
                        _ => LeaseId(0),
                    },
                    is_tombstone,
                    key,
                };
                if !is_tombstone {
                    live.insert(version.key.clone(), version.clone());
                }
                history.insert(change, version);
            }
        }
        let compacted = Revision(main.0 / 3);
        compact(&mut history, compacted);
        let kinds = [PermissionKind::Read, PermissionKind::ReadWrite];
        let permission =
            |kind| Permission { kind, key: vec![b'a' + kind as u8], range_end: vec![0] };
        let role = Role { name: b"reader".to_vec(), permissions: kinds.map(permission).to_vec() };
        let roles = vec!["reader".to_owned()];
        let user = User { name: b"u".to_vec(), roles, no_password: Some(true), ..User::default() };
        Self { history, revision: main, compacted, leases, user, role }
    }

    /// Feeds all buckets but `key` from `small`, and that one from `key`.
    fn walk<T>(
        &self,
        target: &mut T,
        begin: impl Fn(&mut T, &[u8]) -> Result<()>,
        small: impl Fn(&mut T, &Pair) -> Result<()>,
        key: impl Fn(&mut T, RevisionKey, &Record<'_>) -> Result<()>,
    ) -> Result<()> {
        for name in schema::BUCKETS {
            begin(target, name)?;
            if name == schema::KEY {
                for (change, version) in &self.history {
                    let is_tombstone = version.is_tombstone;
                    let revision = RevisionKey { change: *change, is_tombstone };
                    key(target, revision, &version.record(*change))?;
                }
            }
            for pair in self.small_bucket(name) {
                small(target, &pair)?;
            }
        }
        Ok(())
    }

    fn small_bucket(&self, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let version = Some("3.7.0".to_owned());
        let pairs = match name {
            schema::ALARM => {
                vec![Alarm { member: ALARMED, kind: AlarmKind::NoSpace }.to_pair()]
            }
            schema::AUTH => Auth { enabled: Some(false), revision: Some(4) }.to_pairs(),
            schema::AUTH_ROLES => vec![self.role.to_pair()],
            schema::AUTH_USERS => vec![self.user.to_pair()],
            schema::CLUSTER => Cluster { version, downgrade: None }.to_pairs(),
            schema::LEASE => self.leases.iter().map(|lease| lease.to_pair()).collect(),
            schema::MEMBERS => {
                let member = Member { id: ALARMED, name: "m".to_owned(), ..Member::default() };
                vec![member.to_pair()]
            }
            schema::META => {
                let meta = Meta {
                    consistent_index: Some(LogIndex(77)),
                    term: Some(Term(3)),
                    conf_state: None,
                    compact_scheduled: Some(self.compacted),
                    compact_finished: Some(self.compacted),
                    storage_version: version,
                };
                meta.to_pairs()
            }
            _ => Vec::new(),
        };
        pairs.into_iter().collect()
    }

    fn write(&self, path: &str) -> Result<()> {
        let mut measure = Measure::new();
        self.walk(
            &mut measure,
            |measure, name| Ok(measure.begin_bucket(name)?),
            |measure, (key, value)| Ok(measure.add(key.len(), value.len())?),
            |measure, key, record| {
                Ok(measure.add(key.size_bytes(), record_len(record, record.value.len()))?)
            },
        )?;
        let mut output = Output {
            backup: Backup::new(measure.finish()),
            file: BufWriter::new(File::create(path)?),
            scratch: Vec::new(),
        };
        self.walk(
            &mut output,
            |output, name| Ok(output.backup.begin_bucket(name)?),
            |output, (key, value)| {
                output.backup.add(key, value)?;
                output.drain()
            },
            |output, key, record| {
                output.scratch.clear();
                record_into(record, &mut output.scratch);
                output.backup.add(&key.to_bytes()[..key.size_bytes()], &output.scratch)?;
                output.drain()
            },
        )?;
        output.backup.finish();
        output.drain()?;
        Ok(output.file.flush()?)
    }

    /// What etcd must answer, in the words of the program that asks.
    fn print_expected(&self, out: &mut impl Write) -> Result<()> {
        writeln!(out, "revision {}", self.revision)?;
        writeln!(out, "compacted {}", self.compacted)?;
        let middle = Revision((self.compacted.0 + self.revision.0) / 2);
        for revision in [self.compacted, middle, self.revision] {
            writeln!(out, "range {revision}")?;
            let mut live = BTreeMap::new();
            for (change, version) in self.history.range(..=Change::last_of(revision)) {
                live.insert(&version.key, (change.main, version));
            }
            for (key, (main, version)) in live {
                if version.is_tombstone {
                    continue;
                }
                let Version { create_revision, version: count, lease, value, .. } = version;
                let (key, value) = (hex(key), digest(value));
                writeln!(out, "kv {key} {create_revision} {main} {count} {lease} {value}")?;
            }
        }
        for lease in &self.leases {
            writeln!(out, "lease {} {}", lease.id, lease.ttl_seconds)?;
        }
        writeln!(out, "alarm {} NOSPACE", ALARMED)?;
        writeln!(out, "user u reader")?;
        for permission in &self.role.permissions {
            let (key, end) = (hex(&permission.key), hex(&permission.range_end));
            writeln!(out, "permission {:?} {key} {end}", permission.kind)?;
        }
        Ok(())
    }
}

fn random_value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(200) {
        0 => 5000 + random.below(40_000),
        1 => 0,
        _ => random.below(400),
    };
    (0..len).map(|_| random.below(256).to_le_bytes()[0]).collect()
}

/// Keeps of each key what a read at the revision sees, and all that came later.
fn compact(history: &mut BTreeMap<Change, Version>, compacted: Revision) {
    let mut seen = BTreeMap::new();
    for (change, version) in history.range(..=Change::last_of(compacted)) {
        seen.insert(version.key.clone(), *change);
    }
    history.retain(|change, version| {
        let is_seen = seen.get(&version.key) == Some(change) && !version.is_tombstone;
        change.main > compacted || is_seen
    });
}

struct Output {
    backup: Backup,
    file: BufWriter<File>,
    scratch: Vec<u8>,
}

impl Output {
    fn drain(&mut self) -> Result<()> {
        while let Some(bytes) = self.backup.poll_bytes() {
            self.file.write_all(&bytes)?;
        }
        Ok(())
    }
}
