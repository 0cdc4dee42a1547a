//! Memory that never has to be read back from a disk, and no more of it than is needed.
//!
//! On a host whose root file system, or swap space, is on the storage that we attach, the kernel may drop pages of the program
//! itself when memory is short. If the paths are lost then, reading one back waits for what only the program brings back. So
//! on such a host all pages are locked (mlockall(2)); elsewhere that would be a waste.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
#[cfg(target_env = "gnu")]
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::stat::{major, minor};

/// From this size on, in bytes, a block has pages of its own, which go back to the kernel with it; and so many free bytes at the end of
/// the heap may stay. glibc would begin at four times that, and take more with every large block that it has seen.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 32 << 10;

const SYS: &str = "/sys";
const PROGRAM: &str = "/proc/self/exe";

/// What is no longer needed is given back to the kernel soon. To be called before there is much.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it only sets a number. If it fails nothing changes.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(parameter, LARGE)
        };
    }
}

/// Locks what the process has and will have, if the program may lie on storage that is attached by now. A forked process has
/// to do it again. To be called with all privileges.
pub fn lock_if_needed() -> Result<(), Errno> {
    let number = fs::metadata(PROGRAM).map(|metadata| metadata.dev());
    let sys = Path::new(SYS);
    if !has_connections(sys) || number.is_ok_and(|number| is_on_local_disk(sys, number)) {
        return Ok(());
    }
    // What is allocated later is locked, too. When the privileges are given up, no limit must be left that could refuse it.
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
}

/// Kernel: drivers/nvme/host/fabrics.c, `nvmf_device`, whose children all fabrics controllers are.
fn has_connections(sys: &Path) -> bool {
    let children = fs::read_dir(sys.join("class/nvme-fabrics/ctl")).into_iter().flatten().flatten();
    children
        .filter_map(|child| child.file_name().into_string().ok())
        .any(|name| super::sysfs::number_of(&name).is_some())
}

/// Whether a device surely is neither an NVMe namespace nor put together from other devices. Some file systems have device
/// numbers that stand for no block device: what is behind them is not known.
fn is_on_local_disk(sys: &Path, number: u64) -> bool {
    let Ok(device) = fs::canonicalize(sys.join(format!("dev/block/{}:{}", major(number), minor(number)))) else {
        return false;
    };
    let is_part_of = |word: &str| device.iter().any(|part| part.to_string_lossy().starts_with(word));
    // `slaves` of a partition's disk, too.
    let is_made_of_others = device
        .ancestors()
        .take(2)
        .any(|place| fs::read_dir(place.join("slaves")).is_ok_and(|mut slaves| slaves.next().is_some()));
    !is_part_of("nvme") && !is_made_of_others
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::makedev;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_surely_is_a_local_disk_counts_as_one() {
        let sys = std::env::temp_dir().join(format!("stas-memory-{}", std::process::id()));
        let devices = [
            (8, 1, "pci0/block/sda/sda1", true),
            (252, 0, "pci0/virtio0/block/vda", true),
            (259, 1, "virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p1", false),
            (254, 0, "virtual/block/dm-0", false),
        ];
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        for (major, minor, place, _) in devices {
            let place = sys.join("devices").join(place);
            fs::create_dir_all(place.join("slaves")).unwrap();
            symlink(&place, sys.join(format!("dev/block/{major}:{minor}"))).unwrap();
        }
        fs::create_dir(sys.join("devices/virtual/block/dm-0/slaves/vda")).unwrap();
        let is_local = |major, minor| is_on_local_disk(&sys, makedev(major, minor));
        let found = devices.map(|(major, minor, ..)| is_local(major, minor));
        let unknown = is_local(0, 42);

        let before = has_connections(&sys);
        fs::create_dir_all(sys.join("class/nvme-fabrics/ctl/power")).unwrap();
        let nothing = has_connections(&sys);
        fs::create_dir(sys.join("class/nvme-fabrics/ctl/nvme1")).unwrap();
        let one = has_connections(&sys);
        fs::remove_dir_all(&sys).unwrap();

        assert_eq!(found, devices.map(|(.., is_local)| is_local));
        assert!(!unknown);
        assert_eq!([before, nothing, one], [false, false, true]);
    }
}
