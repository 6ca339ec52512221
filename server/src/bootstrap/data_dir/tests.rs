//! The rules of the directory on real directories, below the system's temporary one.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use super::*;

const OURS: Identity = Identity { cluster: ClusterId(0xc1), member: MemberId(0xa1) };
const OTHER: Identity = Identity { cluster: ClusterId(0xc1), member: MemberId(0xb2) };

/// A directory of its own for a test; gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringd-data-dir-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The log's directory: inside the data directory, or on "another disk".
    fn wal(&self, apart: bool) -> Option<PathBuf> {
        apart.then(|| self.0.join("disk/log"))
    }

    fn open(&self, apart: bool) -> Result<DataDir, Failure> {
        let wal = self.wal(apart);
        DataDir::open(&self.data(), wal.as_deref(), || Ok(OURS), &mut Vec::new())
    }

    fn founded(&self, apart: bool) {
        let mut directory = self.open(apart).unwrap();
        fs::write(directory.wal_path().join("1.wal"), "log").unwrap();
        fs::write(directory.path().join("shard"), "store").unwrap();
        directory.seal().unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Everything below a directory: names, contents and all times.
fn picture(path: &Path) -> Vec<String> {
    let metadata = fs::symlink_metadata(path).unwrap();
    let times = [
        (metadata.atime(), metadata.atime_nsec()),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    ];
    let mut lines = vec![format!("{} {} {times:?}", path.display(), metadata.len())];
    if metadata.is_dir() {
        // Asked for before the listing, which may itself touch the access time.
        let mut children: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        children.sort();
        lines.extend(children.iter().flat_map(|child| picture(child)));
    }
    lines
}

fn is_private(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o777 == DIR_MODE
}

#[test]
fn a_member_is_founded_once_and_then_known() {
    for apart in [false, true] {
        let scratch = Scratch::new();
        {
            let mut directory = scratch.open(apart).unwrap();
            assert!(directory.is_new());
            assert_eq!(directory.identity(), OURS);
            assert!(is_private(directory.path()) && is_private(directory.wal_path()));
            directory.seal().unwrap();
            assert!(!directory.is_new());
        }
        let wal = scratch.wal(apart);
        let flags_are_ignored = || panic!("a member with data does not ask who it is");
        let mut notices = Vec::new();
        let again = DataDir::open(&scratch.data(), wal.as_deref(), flags_are_ignored, &mut notices);
        let again = again.unwrap();
        assert!(!again.is_new());
        assert_eq!(again.identity(), OURS);
        assert_eq!(notices, []);
    }
}

#[test]
fn only_one_process_at_a_time_has_the_directories() {
    for apart in [false, true] {
        let scratch = Scratch::new();
        let first = scratch.open(apart).unwrap();
        assert!(matches!(scratch.open(apart), Err(Failure::Locked { .. })));
        drop(first);
        // The lock file is still there, as after a kill, and stops nobody.
        assert!(scratch.data().join(LOCK).exists());
        scratch.open(apart).unwrap();
    }
}

#[test]
fn two_members_cannot_share_a_log_directory() {
    let scratch = Scratch::new();
    let _first = scratch.open(true).unwrap();
    let wal = scratch.wal(true);
    let second = scratch.0.join("second");
    let open = || DataDir::open(&second, wal.as_deref(), || Ok(OTHER), &mut Vec::new());
    assert!(matches!(open(), Err(Failure::Locked { .. })));
    drop(_first);
    scratch.founded(true);
    assert!(matches!(open(), Err(Failure::LogOfAnother { owner: OURS, .. })));
}

#[test]
fn a_directory_of_etcd_is_refused_and_left_as_it_is() {
    for layout in ["member/snap/db", "member/wal/0000000000000000-0000000000000000.wal", "proxy/x"]
    {
        let scratch = Scratch::new();
        let file = scratch.data().join(layout);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "etcd").unwrap();
        let contents = scratch.data().join(layout.split_once('/').unwrap().0);
        // The first picture may move access times; the second is of what stays.
        picture(&contents);
        let before = picture(&contents);
        // An access time this old would move with the next listing.
        let directory = File::open(scratch.data()).unwrap();
        directory.set_times(fs::FileTimes::new().set_accessed(UNIX_EPOCH)).unwrap();
        let failure = scratch.open(true).unwrap_err();
        assert_eq!(directory.metadata().unwrap().accessed().unwrap(), UNIX_EPOCH);
        assert_eq!(picture(&contents), before);
        assert_eq!(fs::read_dir(scratch.data()).unwrap().count(), 1);
        assert!(matches!(failure, Failure::EtcdData { .. }), "{failure}");
        assert!(failure.to_string().contains("is a data directory of etcd"), "{failure}");
        assert!(!scratch.0.join("disk").exists(), "nothing is made elsewhere, either");
    }
}

#[test]
fn a_log_directory_of_etcd_is_refused_before_anything_is_made() {
    let scratch = Scratch::new();
    let wal = scratch.wal(true).unwrap();
    fs::create_dir_all(&wal).unwrap();
    fs::write(wal.join("0000000000000003-000000000000ab12.wal"), "etcd").unwrap();
    assert!(matches!(scratch.open(true), Err(Failure::EtcdData { .. })));
    assert!(!scratch.data().exists());
}

#[test]
fn what_is_not_ours_is_refused() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.data()).unwrap();
    fs::create_dir(scratch.data().join("lost+found")).unwrap();
    scratch.open(false).unwrap();

    let scratch = Scratch::new();
    fs::create_dir(scratch.data()).unwrap();
    fs::write(scratch.data().join("holiday.jpg"), "").unwrap();
    let failure = scratch.open(false).unwrap_err();
    assert!(failure.to_string().contains("holds holiday.jpg"), "{failure}");
    assert_eq!(fs::read_dir(scratch.data()).unwrap().count(), 1);

    let scratch = Scratch::new();
    fs::write(scratch.data(), "a file").unwrap();
    assert!(matches!(scratch.open(false), Err(Failure::Io { .. })));
    assert_eq!(fs::read(scratch.data()).unwrap(), b"a file");

    let scratch = Scratch::new();
    let same = DataDir::open(&scratch.0, Some(&scratch.0), || Ok(OURS), &mut Vec::new());
    assert!(same.is_err());
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
}

#[test]
fn a_refused_identity_makes_nothing() {
    let scratch = Scratch::new();
    let refuse = || Err(Failure::InitialCluster("no".to_owned()));
    assert!(DataDir::open(&scratch.data(), None, refuse, &mut Vec::new()).is_err());
    assert!(!scratch.data().exists());
}

#[test]
fn others_may_read_is_remarked_on_as_etcd_does() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.data()).unwrap();
    fs::set_permissions(scratch.data(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut notices = Vec::new();
    DataDir::open(&scratch.data(), None, || Ok(OURS), &mut notices).unwrap();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].message, "check file permission");
    let path = scratch.data();
    assert_eq!(
        notices[0].fields[0].1,
        format!(
            "directory \"{}\" exist, but the permission is \"drwxr-xr-x\". The recommended \
             permission is \"-rwx------\" to prevent possible unprivileged access to the data",
            path.display()
        )
    );
}

/// The steps that founding a member takes on disk, in order, as the files that each one leaves.
fn founding(data: &Path, wal: &Path, steps: usize) -> bool {
    let text = marker_text(OURS);
    let step: [&dyn Fn(); 9] = [
        &|| fs::create_dir_all(data).unwrap(),
        &|| fs::write(data.join(CREATING), "").unwrap(),
        &|| fs::create_dir_all(wal).unwrap(),
        &|| fs::write(wal.join(CREATING), "").unwrap(),
        &|| {
            fs::write(wal.join("1.wal"), "half").unwrap();
            fs::create_dir(data.join("shards")).unwrap();
            fs::write(data.join("shards/0"), "half").unwrap();
        },
        &|| fs::write(wal.join(MARKER), &text).unwrap(),
        &|| fs::write(data.join(MARKER_DRAFT), &text[..7]).unwrap(),
        &|| fs::write(data.join(MARKER), &text).unwrap(),
        &|| fs::remove_file(data.join(CREATING)).unwrap(),
    ];
    for act in &step[..steps] {
        act();
    }
    steps < step.len()
}

#[test]
fn founding_may_be_cut_anywhere() {
    const SEALED_BY_STEP: usize = 8;
    for apart in [false, true] {
        let mut steps = 0;
        loop {
            let scratch = Scratch::new();
            let wal = scratch.wal(apart).unwrap_or_else(|| scratch.data().join(WAL));
            let more = founding(&scratch.data(), &wal, steps);
            let mut directory = scratch.open(apart).unwrap();
            let is_sealed = steps >= SEALED_BY_STEP;
            assert_eq!(directory.is_new(), !is_sealed, "cut after {steps} steps");
            assert_eq!(wal.join("1.wal").exists(), is_sealed, "cut after {steps} steps");
            assert_eq!(scratch.data().join("shards").exists(), is_sealed);
            if directory.is_new() {
                directory.seal().unwrap();
            }
            assert!(!scratch.data().join(CREATING).exists() && !wal.join(CREATING).exists());
            assert_eq!(look(&scratch.data()).unwrap(), Contents::Member(OURS));
            assert_eq!(look(&wal).unwrap(), Contents::Member(OURS));
            steps += 1;
            if !more {
                break;
            }
        }
    }
}

#[test]
fn a_member_without_its_log_does_not_start_anew() {
    // etcd founds a new log under the old id here: every vote and acknowledgement is forgotten.
    let scratch = Scratch::new();
    scratch.founded(false);
    assert!(matches!(scratch.open(true), Err(Failure::LogMissing { .. })));

    let scratch = Scratch::new();
    scratch.founded(true);
    assert!(matches!(scratch.open(false), Err(Failure::LogMissing { .. })));
    let wal = scratch.wal(true).unwrap();
    fs::remove_dir_all(&wal).unwrap();
    assert!(matches!(scratch.open(true), Err(Failure::LogMissing { .. })));
    assert!(!wal.exists());
}

#[test]
fn a_log_without_its_data_is_not_thrown_away() {
    let scratch = Scratch::new();
    scratch.founded(true);
    fs::remove_dir_all(scratch.data()).unwrap();
    let failure = scratch.open(true).unwrap_err();
    assert!(matches!(failure, Failure::LogOfAnother { owner: OURS, .. }), "{failure}");
    assert!(scratch.wal(true).unwrap().join("1.wal").exists());
}

#[test]
fn a_damaged_marker_is_refused_wherever_it_is_damaged() {
    let scratch = Scratch::new();
    scratch.founded(false);
    let marker = scratch.data().join(MARKER);
    let good = fs::read(&marker).unwrap();
    for cut in 0..good.len() {
        fs::write(&marker, &good[..cut]).unwrap();
        assert!(matches!(scratch.open(false), Err(Failure::MarkerDamaged { .. })), "cut at {cut}");
    }
    for at in 0..good.len() {
        for flip in [1_u8, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            fs::write(&marker, &bytes).unwrap();
            assert!(scratch.open(false).is_err(), "byte {at} with {flip:#x}");
        }
    }
    fs::write(&marker, [&good[..], b"more\n"].concat()).unwrap();
    assert!(matches!(scratch.open(false), Err(Failure::MarkerDamaged { .. })));
    fs::write(&marker, vec![b'x'; 5000]).unwrap();
    assert!(matches!(scratch.open(false), Err(Failure::MarkerDamaged { .. })));
    fs::write(&marker, &good).unwrap();
    scratch.open(false).unwrap();
}

#[test]
fn the_marker_is_frozen() {
    let expected = "ringd format 1\ncluster 00000000000000c1\nmember 00000000000000a1\n";
    assert_eq!(marker_text(OURS), expected);
}

#[test]
fn another_format_is_another_program() {
    let scratch = Scratch::new();
    scratch.founded(false);
    fs::write(scratch.data().join(MARKER), "ringd format 2\nwho knows\n").unwrap();
    let failure = scratch.open(false).unwrap_err();
    assert!(matches!(failure, Failure::FormatUnknown { version: 2, .. }), "{failure}");
}
