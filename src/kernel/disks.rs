//! The disks that NVMe namespaces are, as `/sys/class/block` shows them (kernel: drivers/nvme/host/sysfs.c, `nvme_ns_attrs`).
//!
//! With native multipath a disk belongs to the subsystem, and is there as soon as one path to it can be used; without, it
//! belongs to a controller. Either has the subsystem's NQN.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// Where the kernel shows block devices.
pub const BLOCK: &str = "/sys/class/block";

/// A namespace of an NVMe subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `nvme0n1`.
    pub name: String,
    pub subsysnqn: String,
    /// UUID, NGUID and EUI-64, as far as it has them, each in [`plain`] digits.
    pub ids: Vec<String>,
}

/// Every disk of NVMe that has a size, by `/sys/class/block` or a directory that looks like it.
pub fn disks(block: &Path) -> Vec<Disk> {
    let entries = fs::read_dir(block).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| is_namespace(name));
    names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    names.into_iter().filter_map(|name| disk(&block.join(&name), name)).collect()
}

fn disk(path: &Path, name: String) -> Option<Disk> {
    let read = |attribute: &str| fs::read_to_string(path.join(attribute)).unwrap_or_default().trim().to_owned();
    let mut ids: Vec<String> = ["uuid", "nguid", "eui", "wwid"].iter().filter_map(|id| plain(&read(id))).collect();
    ids.dedup();
    has_size(path).then(|| Disk { name, subsysnqn: read("device/subsysnqn"), ids })
}

/// `nvme1n2`, but neither `nvme1` nor the `nvme1c3n2` that stands for one path to it.
pub fn is_namespace(name: &str) -> bool {
    let numbers = name.strip_prefix("nvme").and_then(|rest| rest.split_once('n'));
    numbers.is_some_and(|(subsystem, id)| {
        [subsystem, id].iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// The digits of a UUID, NGUID or EUI-64 in any of its spellings; `None` when it is none, or says nothing.
pub fn plain(id: &str) -> Option<String> {
    let id = id.to_ascii_lowercase();
    let digits = ["uuid.", "eui.", "urn:uuid:"].iter().find_map(|prefix| id.strip_prefix(prefix)).unwrap_or(&id);
    let digits: String = digits.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let is_id = matches!(digits.len(), 16 | 32) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && digits.bytes().any(|byte| byte != b'0')).then_some(digits)
}

/// Whether a path leads to a block device that has a size. Nothing is opened: that may wait for the storage.
pub fn is_disk(path: &Path) -> bool {
    device(path).is_some_and(|device| has_size(&device))
}

/// The NQN of the subsystem that a block device, or the disk that it is a part of, belongs to.
pub fn subsystem_of(path: &Path) -> Option<String> {
    let device = fs::canonicalize(device(path)?).ok()?;
    let is_disk = |place: &&Path| place.file_name().is_some_and(|name| name.to_str().is_some_and(is_namespace));
    let disk = device.ancestors().find(is_disk)?;
    Some(fs::read_to_string(disk.join("device/subsysnqn")).ok()?.trim().to_owned())
}

/// Where sysfs shows a block device.
fn device(path: &Path) -> Option<PathBuf> {
    let metadata = fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_block_device())?;
    let number = metadata.rdev();
    Some(PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number))))
}

fn has_size(device: &Path) -> bool {
    let size = fs::read_to_string(device.join("size")).unwrap_or_default();
    size.trim().parse::<u64>().is_ok_and(|sectors| sectors > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_by_their_digits() {
        let uuid = "abababab-abab-abab-abab-abababababab";
        for spelling in [uuid, &format!("uuid.{uuid}"), &uuid.to_uppercase(), "eui.abababababababababababababababab"] {
            assert_eq!(plain(spelling).as_deref(), Some("abababababababababababababababab"), "{spelling}");
        }
        assert_eq!(plain("01 23 45 67 89 AB CD EF").as_deref(), Some("0123456789abcdef"));
        for none in ["", "nvme.1234", "00000000-0000-0000-0000-000000000000", "abab"] {
            assert_eq!(plain(none), None, "{none}");
        }
    }

    #[test]
    fn disks_are_namespaces_that_have_a_size() {
        let root = std::env::temp_dir().join(format!("stas-disks-{}", std::process::id()));
        let add = |name: &str, attributes: &[(&str, &str)]| {
            for (attribute, value) in attributes.iter().chain(&[("device/subsysnqn", "nqn.a")]) {
                let path = root.join(name).join(attribute);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{value}\n")).unwrap();
            }
        };
        add("nvme0n1", &[("size", "8192"), ("wwid", "uuid.abababab-abab-abab-abab-abababababab")]);
        add("nvme0c0n1", &[("size", "8192")]);
        add("nvme0n2", &[("size", "0")]);
        add("sda", &[("size", "8192")]);
        let found = disks(&root);
        fs::remove_dir_all(&root).unwrap();
        let ids = vec!["abababababababababababababababab".to_owned()];
        assert_eq!(found, [Disk { name: "nvme0n1".into(), subsysnqn: "nqn.a".into(), ids }]);
        assert!(disks(&root).is_empty());
        assert!(!is_disk(Path::new("/dev/null")) && !is_disk(Path::new("/nonexistent")));
    }
}
