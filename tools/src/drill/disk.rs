//! A disk for each member: a file system in a file, which can be filled up, slowed down and held
//! up.
//!
//! A full disk is a real one: blocks are taken until the file system has none. A slow one is the
//! kernel's own limit on writes of the member's control group, which counts what io_uring submits
//! as well. One that is held up is frozen: whoever writes waits.
//!
//! Invariants:
//! - A disk is thawed, unmounted and removed when it is dropped, or else by a later drill
//!   ([`super::leftovers`]).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::shell::{run, run_line};

/// What all control groups of drills begin with.
pub const GROUP_PREFIX: &str = "ringd-drill-";
/// Where control groups of the first kind are, and of the second.
pub const GROUPS: [&str; 2] = ["/sys/fs/cgroup/blkio", "/sys/fs/cgroup"];
/// Segments of a log, and a store that has grown with every disk that was full; the file under it
/// has only the blocks that were written.
const SIZE_BYTES: u64 = 1536 << 20;
/// Blocks are taken in pieces so large at first, and so small at last.
const TAKEN_BYTES_MAX: u64 = 64 << 20;
const TAKEN_BYTES_MIN: u64 = 4096;
const UNMOUNT_ATTEMPTS_MAX: usize = 20;
const UNMOUNT_INTERVAL: Duration = Duration::from_millis(100);

/// A limit on the writes of a member.
struct Throttle {
    group: PathBuf,
    /// The device as the kernel names it in numbers.
    device: String,
    is_second_kind: bool,
}

/// A mounted disk.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    throttle: Option<Throttle>,
    is_frozen: bool,
}

impl Disk {
    /// Makes a disk of this name in a directory.
    ///
    /// # Errors
    /// That cannot be done here.
    pub fn make(directory: &Path, name: &str) -> Result<Self, String> {
        let disk = Self {
            image: directory.join(format!("{name}.disk")),
            mount: directory.join(name),
            throttle: None,
            is_frozen: false,
        };
        let failed = |error: std::io::Error| format!("disk {name}: {error}");
        let image = File::create(&disk.image).map_err(failed)?;
        image.set_len(SIZE_BYTES).map_err(failed)?;
        std::fs::create_dir_all(&disk.mount).map_err(failed)?;
        let (image, mount) = (disk.image.as_os_str(), disk.mount.as_os_str());
        // Nothing is kept for root, who runs the members here.
        run("mkfs.ext4", &["-q".as_ref(), "-m".as_ref(), "0".as_ref(), image])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), image, mount])?;
        Ok(disk)
    }

    /// Makes ready for slowing it down.
    ///
    /// # Errors
    /// The kernel limits nobody's writes here.
    pub fn prepare_throttle(&mut self) -> Result<(), String> {
        let args = ["-n", "-o", "MAJ:MIN"].map(AsRef::as_ref);
        let device = run("findmnt", &[&args[..], &[self.mount.as_os_str()]].concat())?;
        let (device, pid) = (device.trim().to_owned(), std::process::id());
        let name = self.mount.file_name().expect("it has the member's name").to_string_lossy();
        let is_second_kind = Path::new(GROUPS[1]).join("cgroup.controllers").exists();
        let groups = Path::new(GROUPS[usize::from(is_second_kind)]);
        let failed = |error: std::io::Error| format!("control group: {error}");
        if is_second_kind {
            std::fs::write(groups.join("cgroup.subtree_control"), "+io").map_err(failed)?;
        }
        let group = groups.join(format!("{GROUP_PREFIX}{pid}-{name}"));
        std::fs::create_dir(&group).map_err(failed)?;
        let throttle = Throttle { group, device, is_second_kind };
        let outcome = throttle.set(None).map_err(failed);
        self.throttle = Some(throttle);
        outcome
    }

    /// Where a member's data may go.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.mount
    }

    /// The member is this process from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take_process(&self, pid: u32) -> Result<(), String> {
        let Some(throttle) = &self.throttle else { return Ok(()) };
        std::fs::write(throttle.group.join("cgroup.procs"), pid.to_string())
            .map_err(|error| format!("control group: {error}"))
    }

    /// Allows the member so many writes a second, or as many as it likes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit_writes(&self, writes_per_second: Option<u64>) -> Result<(), String> {
        let throttle = self.throttle.as_ref().expect("only disks that have one are slowed down");
        throttle.set(writes_per_second).map_err(|error| format!("slow disk: {error}"))
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Takes all blocks that are left.
    ///
    /// # Errors
    /// It fails for another reason than that there are none.
    pub fn fill(&self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("full disk: {error}");
        let file = File::create(self.filler()).map_err(failed)?;
        let (mut size, mut end) = (TAKEN_BYTES_MAX, 0);
        while size >= TAKEN_BYTES_MIN {
            match fallocate(&file, FallocateFlags::empty(), end, size) {
                Ok(()) => end += size,
                Err(Errno::NOSPC) => size /= 2,
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    /// Gives them back.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn free(&self) -> Result<(), String> {
        std::fs::remove_file(self.filler()).map_err(|error| format!("full disk: {error}"))
    }

    /// Lets nothing be written any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn freeze(&mut self) -> Result<(), String> {
        run("fsfreeze", &["-f".as_ref(), self.mount.as_os_str()])?;
        self.is_frozen = true;
        Ok(())
    }

    /// Whether whoever writes waits: he cannot even be killed.
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Lets what waits be written.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn thaw(&mut self) -> Result<(), String> {
        if self.is_frozen {
            run("fsfreeze", &["-u".as_ref(), self.mount.as_os_str()])?;
        }
        self.is_frozen = false;
        Ok(())
    }
}

impl Throttle {
    fn set(&self, writes_per_second: Option<u64>) -> std::io::Result<()> {
        let device = &self.device;
        let (file, text) = if self.is_second_kind {
            let limit = writes_per_second.map_or("max".to_owned(), |limit| limit.to_string());
            ("io.max", format!("{device} wiops={limit}"))
        } else {
            let limit = writes_per_second.unwrap_or(0);
            ("blkio.throttle.write_iops_device", format!("{device} {limit}"))
        };
        std::fs::write(self.group.join(file), text)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        remove(&self.mount);
        // Whatever is not there need not be removed.
        let _ = std::fs::remove_file(&self.image);
        if let Some(throttle) = &self.throttle {
            let _ = std::fs::remove_dir(&throttle.group);
        }
    }
}

/// Unmounts a disk, whatever state it is in.
pub fn remove(mount: &Path) {
    // It is frozen or not, and mounted or not: what does not apply fails, and may.
    let _ = run("fsfreeze", &["-u".as_ref(), mount.as_os_str()]);
    for _ in 0..UNMOUNT_ATTEMPTS_MAX {
        // A process that was killed may still be on its way out.
        if run("umount", &[mount.as_os_str()]).is_ok() {
            break;
        }
        std::thread::sleep(UNMOUNT_INTERVAL);
    }
    let _ = std::fs::remove_dir(mount);
}

/// Whether the programs that disks are made with are there.
///
/// # Errors
/// Which are not.
pub fn look_for_programs() -> Result<(), String> {
    for program in ["mkfs.ext4 -V", "mount --version", "findmnt --version", "fsfreeze --version"] {
        run_line(program)?;
    }
    Ok(())
}
