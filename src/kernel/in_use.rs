//! Whether this host uses the disks that a controller leads to: taking away what is mounted, swapped to or held by another
//! block device would be an outage.
//!
//! A disk is used when it, or a partition of it, is mounted (`/proc/self/mountinfo`), is swapped to (`/proc/swaps`), has
//! holders (device mapper with LVM, md; `holders/` in sysfs), belongs to a btrfs, or cannot be opened exclusively. The last
//! covers whatever else the kernel knows of: other mount namespaces, ZFS, lazily unmounted file systems. Programs that
//! merely have it open do not count.
//!
//! With native multipath a disk stays as long as another live controller of its subsystem leads to it (kernel:
//! drivers/nvme/host/multipath.c; `nvme2c3n1` is the path to `nvme2n1` by way of `nvme3`). Two disconnects must not each
//! rely on the other's path, so whoever relies on another path holds a lock until its own is gone. What cannot be examined
//! counts as used. May wait for that lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{major, minor};
use nix::unistd::{ForkResult, fork, pipe2};

use crate::helper::message::Failure;
use crate::kernel::sysfs::number_of;

/// Where to look.
#[derive(Debug)]
pub struct Host {
    sys: PathBuf,
    proc: PathBuf,
    dev: PathBuf,
    claim: Claim,
}

/// How long a disk that is free may take to say so. In milliseconds.
const CLAIM_TIMEOUT: u16 = 1000;

/// Opens the disk of this path and device number exclusively.
type Claim = fn(&Path, &str) -> io::Result<()>;

/// As long as it lives, nobody else relies on a path of the same subsystem that is about to go.
pub type Lock = Option<Flock<File>>;

impl Host {
    /// This machine.
    pub fn this() -> Host {
        Host { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into(), claim: claim_in_time }
    }

    /// Whether the controller `nvmeN` can be taken away; [`Failure::InUse`] says what uses it.
    pub fn may_lose(&self, controller: &str) -> Result<Lock, Failure> {
        let examine = || -> io::Result<Result<Lock, String>> {
            let disks = self.disks_of(controller)?;
            let mut used = Vec::new();
            for disk in disks {
                if let Some(how) = self.use_of(&disk.name)? {
                    used.push((disk, how));
                }
            }
            if used.is_empty() {
                return Ok(Ok(None));
            }
            let subsystem = self.subsystem_of(controller)?;
            let lock = match &subsystem {
                Some(path) => {
                    Some(Flock::lock(File::open(path)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?)
                }
                None => None,
            };
            for (disk, how) in used {
                let others = match (&subsystem, disk.is_multipath) {
                    (Some(subsystem), true) => self.has_other_path(subsystem, controller, &disk.name)?,
                    _ => false,
                };
                if !others {
                    return Ok(Err(format!("/dev/{how}")));
                }
            }
            Ok(Ok(lock))
        };
        match examine() {
            Ok(outcome) => outcome.map_err(Failure::InUse),
            Err(error) => Err(Failure::InUse(format!("whether its disks are in use cannot be told: {error}"))),
        }
    }

    /// The disks that a controller leads to.
    fn disks_of(&self, controller: &str) -> io::Result<Vec<Disk>> {
        let names = names_in(&self.sys.join("class/nvme").join(controller))?;
        Ok(names.iter().filter_map(|name| Disk::of_path(name)).collect())
    }

    fn subsystem_of(&self, controller: &str) -> io::Result<Option<PathBuf>> {
        let class = self.sys.join("class/nvme-subsystem");
        let paths = names_in(&class)?.into_iter().map(|name| class.join(name));
        Ok(paths.into_iter().find(|path| path.join(controller).exists()))
    }

    /// Whether a live controller other than this one leads to a disk.
    fn has_other_path(&self, subsystem: &Path, controller: &str, disk: &str) -> io::Result<bool> {
        for other in names_in(subsystem)?.iter().filter(|name| number_of(name).is_some() && *name != controller) {
            let directory = subsystem.join(other);
            let is_live = read(&directory.join("state"))?.is_some_and(|state| state == "live");
            for name in names_in(&directory)?.iter().filter(|_| is_live) {
                let leads_there = Disk::of_path(name).is_some_and(|path| path.is_multipath && path.name == disk);
                let ana_state = || read(&directory.join(name).join("ana_state"));
                if leads_there && ana_state()?.is_none_or(|state| matches!(&*state, "optimized" | "non-optimized")) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// What a disk, or a partition of it, is used for, beginning with its name; `None` if nothing uses it.
    fn use_of(&self, disk: &str) -> io::Result<Option<String>> {
        let block = self.sys.join("class/block");
        let Some(number) = read(&block.join(disk).join("dev"))? else {
            return Ok(None);
        };
        let partitions = names_in(&block.join(disk))?;
        let partitions = partitions.into_iter().filter(|name| block.join(disk).join(name).join("partition").exists());
        for name in partitions.chain([disk.to_owned()]) {
            let Some(number) = read(&block.join(&name).join("dev"))? else {
                continue;
            };
            let how = match self.mount_of(&name, &number)? {
                Some(place) => Some(format!("is mounted on {place}")),
                None if self.is_swap(&name)? => Some("is swap space".to_owned()),
                None => match self.holder_of(&name)? {
                    Some(holder) => Some(format!("is used by {holder}")),
                    None if self.is_in_btrfs(&name)? => Some("is part of a btrfs".to_owned()),
                    None => None,
                },
            };
            if let Some(how) = how {
                return Ok(Some(format!("{name} {how}")));
            }
        }
        match (self.claim)(&self.dev.join(disk), &number) {
            Ok(()) => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                Ok(Some(format!("{disk} is in use, perhaps in another mount namespace")))
            }
            Err(_) if !block.join(disk).exists() => Ok(None),
            Err(error) => Err(io::Error::new(error.kind(), format!("/dev/{disk}: {error}"))),
        }
    }

    /// Where a block device is mounted. Some file systems show a device number of their own, so the name counts as well.
    fn mount_of(&self, name: &str, number: &str) -> io::Result<Option<String>> {
        let mounts = fs::read(self.proc.join("self/mountinfo"))?;
        Ok(place_of(&String::from_utf8_lossy(&mounts), name, number))
    }

    fn is_swap(&self, name: &str) -> io::Result<bool> {
        // A kernel without swap has no such file.
        let swaps = read(&self.proc.join("swaps"))?.unwrap_or_default();
        Ok(swaps.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{name}"))))
    }

    fn holder_of(&self, name: &str) -> io::Result<Option<String>> {
        let holders = names_in(&self.sys.join("class/block").join(name).join("holders"))?;
        let Some(holder) = holders.first() else {
            return Ok(None);
        };
        let mapped = read(&self.sys.join("class/block").join(holder).join("dm/name"))?;
        Ok(Some(mapped.map_or_else(|| holder.clone(), |mapped| format!("{holder} ({mapped})"))))
    }

    fn is_in_btrfs(&self, name: &str) -> io::Result<bool> {
        let btrfs = self.sys.join("fs/btrfs");
        Ok(names_in(&btrfs)?.iter().any(|id| btrfs.join(id).join("devices").join(name).exists()))
    }
}

/// A disk that a controller leads to.
#[derive(Debug, PartialEq, Eq)]
struct Disk {
    name: String,
    is_multipath: bool,
}

impl Disk {
    /// By the name that it has among the controller's: `nvme2c3n1` is a path to `nvme2n1`, and `nvme2n1` is itself.
    fn of_path(name: &str) -> Option<Disk> {
        let (first, namespace) = name.strip_prefix("nvme")?.rsplit_once('n')?;
        let (subsystem, controller) = first.split_once('c').map_or((first, None), |(first, rest)| (first, Some(rest)));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_disk = is_number(namespace) && is_number(subsystem) && controller.is_none_or(is_number);
        is_disk.then(|| Disk { name: format!("nvme{subsystem}n{namespace}"), is_multipath: controller.is_some() })
    }
}

/// The same in a process of its own, which may have to wait: for somebody who looks for partitions, and that on a disk whose
/// last path is lost, until ctrl_loss_tmo. Whoever has the disk exclusively is seen before that (kernel: block/bdev.c,
/// `bd_prepare_to_claim`), so that no answer means that nobody has.
fn claim_in_time(path: &Path, number: &str) -> io::Result<()> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the helper's children have a single thread.
    #[allow(unsafe_code)]
    match unsafe { fork() }? {
        ForkResult::Child => {
            let failure = claim(path, number).err();
            let errno = failure.map_or(0, |error| error.raw_os_error().unwrap_or(Errno::EINVAL as i32));
            let _ = File::from(writer).write_all(&errno.to_ne_bytes());
            // SAFETY: `_exit` has no preconditions; what the parent had set up is not this process' to take down.
            unsafe { nix::libc::_exit(0) }
        }
        ForkResult::Parent { .. } => {
            drop(writer);
            if poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::from(CLAIM_TIMEOUT))? == 0 {
                return Ok(());
            }
            let mut errno = [0; 4];
            File::from(reader).read_exact(&mut errno)?;
            match i32::from_ne_bytes(errno) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

fn claim(path: &Path, number: &str) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags((OFlag::O_EXCL | OFlag::O_NONBLOCK).bits()).open(path)?;
    let metadata = file.metadata()?;
    let found = format!("{}:{}", major(metadata.rdev()), minor(metadata.rdev()));
    if !metadata.file_type().is_block_device() || found != number {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("is not block device {number}")));
    }
    Ok(())
}

/// The names in a directory, in order; none if there is no such directory.
fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().to_str().map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// `None` if there is no such file, or none any more.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Err(error) if is_gone(&error) => Ok(None),
        bytes => Ok(Some(String::from_utf8_lossy(&bytes?).trim().to_owned())),
    }
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::ENOENT, Errno::ENODEV, Errno::ENXIO, Errno::ENOTDIR].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
}

/// Where proc(5)'s `mountinfo` has a device mounted: each line has id, parent, major:minor, root, mount point, options, optional
/// fields, "-", type, source, ….
pub fn place_of(mounts: &str, name: &str, number: &str) -> Option<String> {
    let source = format!("/dev/{name}");
    let place = |line: &str| {
        let mut words = line.split(' ').skip(2);
        let (number_of_mount, place) = (words.next()?, words.nth(1)?);
        let source_of_mount = words.skip_while(|word| *word != "-").nth(2)?;
        (number_of_mount == number || source_of_mount == source).then(|| unescape(place))
    };
    mounts.lines().find_map(place)
}

/// Spaces and the like are written `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    // What is shown must not steer a terminal.
    String::from_utf8_lossy(&bytes).chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A machine with a multipathed disk nvme0n1 behind nvme1 and nvme2, and nothing that uses it.
    struct Machine(PathBuf, Host);

    impl Machine {
        fn new() -> Machine {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("stas-in-use-{}-{number}", std::process::id()));
            let [sys, proc, dev] = ["sys", "proc", "dev"].map(|name| root.join(name));
            let machine = Machine(root, Host { sys, proc, dev, claim: |_, _| Ok(()) });
            for name in ["nvme1", "nvme2"] {
                let number = &name[4..];
                for place in [format!("class/nvme/{name}"), format!("class/nvme-subsystem/nvme-subsys0/{name}")] {
                    machine.write(&format!("sys/{place}/state"), "live\n");
                    machine.write(&format!("sys/{place}/nvme0c{number}n1/ana_state"), "optimized\n");
                }
            }
            machine.write("sys/class/block/nvme0n1/dev", "259:0\n");
            machine.write("sys/class/block/nvme0n1/nvme0n1p1/partition", "1\n");
            machine.write("sys/class/block/nvme0n1p1/dev", "259:1\n");
            machine.write("proc/self/mountinfo", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n");
            machine
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn mount(&self, line: &str) {
            self.write("proc/self/mountinfo", &format!("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}\n"));
        }

        /// Leaves one path to the disk.
        fn lose_nvme2(&self) {
            self.write("sys/class/nvme-subsystem/nvme-subsys0/nvme2/state", "connecting\n");
        }

        /// Whether nvme1 may be lost while it is the last path, and with another.
        fn verdict(&self) -> Result<(), String> {
            let may_lose = |host: &Host| host.may_lose("nvme1").map(drop).map_err(|failure| failure.to_string());
            let with_another = may_lose(&self.1);
            self.lose_nvme2();
            let last = may_lose(&self.1);
            assert!(with_another.is_ok() || last == with_another, "{with_another:?} {last:?}");
            last
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_nothing_uses_may_go() {
        let machine = Machine::new();
        assert!(machine.1.may_lose("nvme1").unwrap().is_none());
        assert_eq!(machine.verdict(), Ok(()));
        assert!(machine.1.may_lose("nvme77").is_ok(), "it is gone already");
    }

    #[test]
    fn uses_are_found_and_named() {
        let uses: [(&str, &str, &str); 8] = [
            ("proc/self/mountinfo", "30 22 259:0 / /data rw - ext4 /dev/root rw\n", "/dev/nvme0n1 is mounted on /data"),
            ("proc/self/mountinfo", "30 22 259:1 / / rw - xfs /dev/x rw\n", "/dev/nvme0n1p1 is mounted on /"),
            (
                "proc/self/mountinfo",
                "30 22 0:40 /sub /my\\040data rw shared:7 master:1 - btrfs /dev/nvme0n1 rw\n",
                "/dev/nvme0n1 is mounted on /my data",
            ),
            ("proc/swaps", "Filename Type Size\n/dev/nvme0n1p1  partition  4096\n", "/dev/nvme0n1p1 is swap space"),
            ("sys/class/block/nvme0n1/holders/md0", "", "/dev/nvme0n1 is used by md0"),
            ("sys/class/block/nvme0n1p1/holders/dm-0", "", "/dev/nvme0n1p1 is used by dm-0"),
            ("sys/fs/btrfs/some-id/devices/nvme0n1", "", "/dev/nvme0n1 is part of a btrfs"),
            ("proc/self/mountinfo/x", "", "whether its disks are in use cannot be told: Is a directory (os error 21)"),
        ];
        for (path, contents, expected) in uses {
            let machine = Machine::new();
            if path.ends_with("/x") {
                fs::remove_file(machine.0.join("proc/self/mountinfo")).unwrap();
            }
            machine.write(path, contents);
            assert_eq!(machine.verdict(), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_holder_is_called_by_its_name() {
        let machine = Machine::new();
        machine.write("sys/class/block/nvme0n1/holders/dm-0", "");
        machine.write("sys/class/block/dm-0/dm/name", "vg-data\n");
        assert_eq!(machine.verdict(), Err("/dev/nvme0n1 is used by dm-0 (vg-data)".to_owned()));
    }

    #[test]
    fn what_cannot_be_claimed_is_used() {
        let errors: [(Claim, &str); 2] = [
            (|_, _| Err(Errno::EBUSY.into()), "/dev/nvme0n1 is in use, perhaps in another mount namespace"),
            (
                |_, _| Err(Errno::ENOENT.into()),
                "whether its disks are in use cannot be told: /dev/nvme0n1: No such file or directory (os error 2)",
            ),
        ];
        for (claim, expected) in errors {
            let mut machine = Machine::new();
            machine.1.claim = claim;
            assert_eq!(machine.verdict(), Err(expected.to_owned()));
        }
        assert!(super::claim(Path::new("/dev/null"), "1:3").is_err(), "no block device");
    }

    #[test]
    fn another_path_has_to_lead_to_that_disk() {
        let mount = "30 22 259:0 / /data rw - ext4 /dev/nvme0n1 rw";
        let other = "sys/class/nvme-subsystem/nvme-subsys0/nvme2";
        let spoils: [fn(&Machine, &str); 4] = [
            |machine, other| machine.write(&format!("{other}/state"), "deleting\n"),
            |machine, other| machine.write(&format!("{other}/nvme0c2n1/ana_state"), "inaccessible\n"),
            |machine, other| fs::remove_dir_all(machine.0.join(other).join("nvme0c2n1")).unwrap(),
            |machine, other| fs::remove_dir_all(machine.0.join(other)).unwrap(),
        ];
        for spoil in spoils {
            let machine = Machine::new();
            machine.mount(mount);
            assert!(machine.1.may_lose("nvme1").is_ok_and(|lock| lock.is_some()));
            spoil(&machine, other);
            assert!(machine.1.may_lose("nvme1").is_err());
        }
    }

    #[test]
    fn without_native_multipath_every_path_is_the_last() {
        let machine = Machine::new();
        let place = machine.0.join("sys/class/nvme/nvme1");
        fs::rename(place.join("nvme0c1n1"), place.join("nvme0n1")).unwrap();
        machine.mount("30 22 259:0 / /data rw - ext4 /dev/nvme0n1 rw");
        assert!(machine.1.may_lose("nvme1").is_err());
    }

    #[test]
    fn who_relies_on_another_path_keeps_others_from_relying_on_its_own() {
        let machine = Machine::new();
        machine.mount("30 22 259:0 / /data rw - ext4 /dev/nvme0n1 rw");
        let lock = machine.1.may_lose("nvme1").unwrap().unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| machine.1.may_lose("nvme2").map(drop));
            // The first one is gone before it lets go of the lock.
            machine.write("sys/class/nvme-subsystem/nvme-subsys0/nvme1/state", "deleting\n");
            drop(lock);
            assert!(second.join().unwrap().is_err());
        });
    }

    #[test]
    fn names_of_disks() {
        let disk = |name| Disk::of_path(name).map(|disk| (disk.name, disk.is_multipath));
        assert_eq!(disk("nvme2c3n14"), Some(("nvme2n14".into(), true)));
        assert_eq!(disk("nvme2n14"), Some(("nvme2n14".into(), false)));
        for name in ["nvme2", "nvme2n", "nvme2c3", "nvme2cn1", "ng2n1", "nvme2n1p1", "hwmon3", "state", "nvme"] {
            assert_eq!(disk(name), None, "{name}");
        }
    }
}
