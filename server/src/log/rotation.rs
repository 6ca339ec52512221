//! A log file that starts anew when it is full.
//!
//! Names and rules are those of the library that etcd uses: the full file is renamed to
//! `name-2006-01-02T15-04-05.000.ext` beside it, a file that grows over its size with the next line
//! is full, and old files beyond a count or an age go, or are compressed, in the background.
//!
//! Invariants:
//! - A line is in one file, whole.
//! - Only files of our own naming are ever removed.
//! - When a new file cannot be opened, lines go on into the old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::civil_from_days;

const MEBIBYTE: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(86_400);
const FILE_MODE: u32 = 0o600;
const COMPRESSED: &str = ".gz";
/// `2006-01-02T15-04-05.000`.
const STAMP_LEN: usize = 23;

/// When a file is full, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// So many MiB fill a file.
    pub size_mebibytes_max: u64,
    /// Old files go after so many days; 0 is never.
    pub age_days_max: u64,
    /// So many old files stay; 0 is all.
    pub backups_max: u64,
    /// Whether old files are compressed.
    pub compress: bool,
}

/// The file that is written, and how much it holds.
pub struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size_bytes: u64,
}

impl RotatingFile {
    /// Goes on with the file that is there, or begins one.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = options().append(true).open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), rotation, file, size_bytes })
    }

    /// Writes a line; to a new file, when the present one has no room for it.
    pub fn write(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let size_bytes_max = self.rotation.size_mebibytes_max.saturating_mul(MEBIBYTE);
        let len = line.len() as u64;
        if len > size_bytes_max {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        if self.size_bytes > 0 && self.size_bytes + len > size_bytes_max {
            // Where it cannot be done, this line and all that follow go on where they went.
            let _ = self.rotate(now);
        }
        self.file.write_all(line)?;
        self.size_bytes += len;
        Ok(())
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let full = backup_path(&self.path, now);
        let is_renamed = match fs::rename(&self.path, &full) {
            Ok(()) => true,
            // Somebody moved it away, and it is theirs now: what follows needs a new one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        match options().append(true).open(&self.path) {
            Ok(file) => {
                // A file that somebody else has put there counts with what it holds.
                self.size_bytes = file.metadata().map_or(0, |metadata| metadata.len());
                self.file = file;
            }
            Err(error) => {
                if is_renamed {
                    // The file at hand is open under whatever name; it gets its own back.
                    fs::rename(&full, &self.path)?;
                }
                return Err(error);
            }
        }
        let (path, rotation) = (self.path.clone(), self.rotation);
        // Compressing takes seconds that no line may wait for. Two at once find each file once: one
        // of them removes it, and the other then misses it.
        let tidy = move || drop(tidy_up(&path, rotation, now));
        std::thread::Builder::new().name("log-files".to_owned()).spawn(tidy).map(drop)
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(FILE_MODE);
    options
}

fn stem_and_extension(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rfind('.') {
        Some(dot) => (format!("{}-", &name[..dot]), name[dot..].to_owned()),
        None => (format!("{name}-"), String::new()),
    }
}

fn backup_path(path: &Path, now: SystemTime) -> PathBuf {
    let (stem, extension) = stem_and_extension(path);
    path.with_file_name(format!("{stem}{}{extension}", stamp(now)))
}

fn stamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{millis:03}")
}

/// The stamp in the name of an old file of `path`, and whether it is compressed.
fn backup_stamp<'a>(path: &Path, name: &'a str) -> Option<(&'a str, bool)> {
    let (stem, extension) = stem_and_extension(path);
    let (name, is_compressed) = match name.strip_suffix(COMPRESSED) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let stamp = name.strip_prefix(&stem)?.strip_suffix(&extension)?;
    let is_stamp = stamp.len() == STAMP_LEN
        && stamp.bytes().zip(b"dddd-dd-ddTdd-dd-dd.ddd").all(|(byte, pattern)| match pattern {
            b'd' => byte.is_ascii_digit(),
            _ => byte == *pattern,
        });
    is_stamp.then_some((stamp, is_compressed))
}

/// Removes what is too much or too old, and compresses the rest.
fn tidy_up(path: &Path, rotation: Rotation, now: SystemTime) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let mut old = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some((stamp, is_compressed)) = backup_stamp(path, &name) {
            old.push((stamp.to_owned(), is_compressed, directory.join(&name)));
        }
    }
    // The newest first; stamps sort as their times do.
    old.sort_unstable_by(|a, b| b.0.cmp(&a.0));
    let age_max = DAY.saturating_mul(u32::try_from(rotation.age_days_max).unwrap_or(u32::MAX));
    let oldest = now.checked_sub(age_max).filter(|_| rotation.age_days_max > 0).map(stamp);
    let mut kept: Option<String> = None;
    let mut kept_count = 0;
    for (stamp, is_compressed, file) in old {
        // A file may be there compressed and not: a process that ended in between left both.
        if kept.as_ref() != Some(&stamp) {
            kept_count += 1;
            kept = Some(stamp.clone());
        }
        let too_many = rotation.backups_max > 0 && kept_count > rotation.backups_max;
        let too_old = oldest.as_ref().is_some_and(|oldest| stamp < *oldest);
        if too_many || too_old {
            fs::remove_file(&file)?;
        } else if rotation.compress && !is_compressed {
            compress(&file)?;
        }
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    let target = options().write(true).truncate(true).open(&name)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ringd-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const KEEP_ALL: Rotation =
        Rotation { size_mebibytes_max: 1, age_days_max: 0, backups_max: 0, compress: false };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_full_file_is_put_aside_under_the_time() {
        let directory = Directory::new("rotate");
        let path = directory.0.join("a.b.log");
        let mut file = RotatingFile::open(&path, KEEP_ALL).unwrap();
        let half = vec![b'x'; 512 * 1024];
        file.write(&half, at(0)).unwrap();
        file.write(&half, at(0)).unwrap();
        assert_eq!(directory.names(), ["a.b.log"], "exactly full is not too full");
        file.write(b"line\n", at(1_000_000_000)).unwrap();
        assert_eq!(directory.names(), ["a.b-2001-09-09T01-46-40.000.log", "a.b.log"]);
        assert_eq!(fs::read(&path).unwrap(), b"line\n");
        let backup = directory.0.join("a.b-2001-09-09T01-46-40.000.log");
        assert_eq!(fs::metadata(backup).unwrap().len(), MEBIBYTE);
        // A line that fits in no file is not written at all.
        assert!(file.write(&vec![0; 1024 * 1024 + 1], at(0)).is_err());
        // The next life goes on with the file.
        drop(file);
        let mut file = RotatingFile::open(&path, KEEP_ALL).unwrap();
        file.write(b"more\n", at(0)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"line\nmore\n");
    }

    /// Found by a reviewer: renaming failed from then on, and lines went into the moved file
    /// without any bound.
    #[test]
    fn a_file_that_was_moved_away_is_begun_anew_when_it_would_be_full() {
        let directory = Directory::new("moved");
        let (path, moved) = (directory.0.join("m.log"), directory.0.join("moved"));
        let mut file = RotatingFile::open(&path, KEEP_ALL).unwrap();
        let half = vec![b'x'; 512 * 1024];
        file.write(&half, at(0)).unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write(&half, at(0)).unwrap();
        file.write(b"line\n", at(0)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"line\n");
        assert_eq!(fs::metadata(&moved).unwrap().len(), MEBIBYTE);
        assert_eq!(directory.names(), ["m.log", "moved"]);
    }

    #[test]
    fn old_files_go_by_count_and_age_and_nothing_else_goes() {
        let directory = Directory::new("tidy");
        let path = directory.0.join("r.log");
        let foreign = ["r.log", "r-notes.log", "r-2001-09-09T01-46-40.000.txt", "s.log"];
        for name in foreign {
            fs::write(directory.0.join(name), name).unwrap();
        }
        let backups: Vec<PathBuf> =
            (0..4).map(|day| backup_path(&path, at(1_000_000_000 + day * 86_400))).collect();
        let fill = || backups.iter().for_each(|backup| fs::write(backup, "old").unwrap());
        let left = || backups.iter().filter(|backup| backup.exists()).count();
        let now = at(1_000_000_000 + 3 * 86_400 + 1);
        fill();
        tidy_up(&path, KEEP_ALL, now).unwrap();
        assert_eq!(left(), 4);
        tidy_up(&path, Rotation { backups_max: 2, ..KEEP_ALL }, now).unwrap();
        assert!(backups[2].exists() && backups[3].exists() && left() == 2);
        fill();
        tidy_up(&path, Rotation { age_days_max: 1, ..KEEP_ALL }, now).unwrap();
        assert!(backups[3].exists() && left() == 1);
        for name in foreign {
            assert_eq!(fs::read_to_string(directory.0.join(name)).unwrap(), name);
        }
        tidy_up(&path, Rotation { compress: true, ..KEEP_ALL }, now).unwrap();
        assert_eq!(left(), 0);
        let packed = File::open(format!("{}.gz", backups[3].display())).unwrap();
        let mut text = String::new();
        GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
        // What is compressed counts as the file it was.
        tidy_up(&path, Rotation { backups_max: 1, compress: true, ..KEEP_ALL }, now).unwrap();
        assert_eq!(directory.names().len(), foreign.len() + 1);
    }
}
