//! The registry in which the programs of a host note who manages which NVMe-oF controller: nvme-cli 3, nvme-discoverd and
//! nvme-stas keep it, so that `nvme disconnect-all` and their likes leave alone what is not theirs.
//!
//! A controller has a directory `/run/nvme/registry/nvmeN` with a file for each attribute: `owner`, and `seqnum`, which is
//! `/sys/kernel/uevent_seqnum` as of the entry. Device numbers are recycled at once, and libnvme's udev rule removes an entry
//! only for a `remove` event of a higher number. An entry appears and goes in one step, by renaming; names that begin with a
//! dot are none. No entry means that nobody manages it. Source: libnvme 3, design/REGISTRY.md and registry.c.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::kernel::sysfs::number_of;

pub const DIRECTORY: &str = "/run/nvme/registry";

/// The kernel's count of uevents.
pub const SEQNUM: &str = "/sys/kernel/uevent_seqnum";

/// Nobody has a longer name than this, in bytes, and nobody stamps with a longer number.
const ATTRIBUTE_MAX: u64 = 256;

/// The directory, wherever it is.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// `root` is [`DIRECTORY`], except in tests.
    pub fn new(root: impl Into<PathBuf>) -> Registry {
        Registry { root: root.into() }
    }

    /// Who manages the controller `nvmeN`.
    pub fn owner(&self, device: &str) -> Option<String> {
        self.read(device, "owner")
    }

    /// The stamp of an entry.
    pub fn stamp(&self, device: &str) -> Option<String> {
        self.read(device, "seqnum")
    }

    /// Every `nvmeN` with an entry.
    pub fn devices(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_device(name)).collect()
    }

    /// Notes who manages a controller, in place of whatever is noted about it, and gives the stamp.
    pub fn claim(&self, device: &str, owner: &str) -> io::Result<String> {
        let stamp = fs::read_to_string(SEQNUM).unwrap_or_default().trim().to_owned();
        let made = self.hidden(device, "tmp");
        // Most often nothing is in the way.
        if fs::create_dir(&made).is_err() {
            fs::create_dir_all(&self.root)?;
            discard(&made);
            fs::create_dir(&made)?;
        }
        let attributes = [("seqnum", stamp.as_str()), ("owner", owner)];
        let filled = attributes
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .try_for_each(|(attribute, value)| fs::write(made.join(attribute), format!("{value}\n")));
        let place = || fs::rename(&made, self.root.join(device));
        let placed = filled.and_then(|()| place().or_else(|_| self.remove(device).and_then(|()| place())));
        if placed.is_err() {
            discard(&made);
        }
        placed.map(|()| stamp)
    }

    /// Removes the entry of a controller, if there is one.
    pub fn remove(&self, device: &str) -> io::Result<()> {
        let trash = self.hidden(device, "trash");
        discard(&trash);
        match fs::rename(self.root.join(device), &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => outcome?,
        }
        discard(&trash);
        Ok(())
    }

    /// Two of us may be at it, hence the process id.
    fn hidden(&self, device: &str, what: &str) -> PathBuf {
        self.root.join(format!(".{device}.{what}.{}", std::process::id()))
    }

    fn read(&self, device: &str, attribute: &str) -> Option<String> {
        if !is_device(device) {
            return None;
        }
        let mut bytes = Vec::new();
        let file = File::open(self.root.join(device).join(attribute)).ok()?;
        file.take(ATTRIBUTE_MAX).read_to_end(&mut bytes).ok()?;
        value_of(&bytes)
    }
}

/// What the file of an attribute says, fit for a log line; nothing if it is empty.
pub fn value_of(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\n', '\r']).replace(char::is_control, "?");
    Some(text).filter(|text| !text.is_empty())
}

fn is_device(name: &str) -> bool {
    number_of(name).is_some()
}

/// What cannot be removed is hidden all the same.
fn discard(directory: &Path) {
    let _ = fs::remove_dir_all(directory);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn with_registry(name: &str, test: impl FnOnce(&Registry, &Path)) {
        let root = std::env::temp_dir().join(format!("stas-registry-{}-{name}", std::process::id()));
        test(&Registry::new(root.join("nvme/registry")), &root.join("nvme/registry"));
        fs::remove_dir_all(root).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_entry_is_as_libnvme_writes_it() {
        with_registry("format", |registry, root| {
            let stamp = registry.claim("nvme3", "stas").unwrap();
            assert!(stamp.parse::<u64>().is_ok(), "{stamp}");
            let entry = root.join("nvme3");
            assert_eq!(fs::read_to_string(entry.join("owner")).unwrap(), "stas\n");
            assert_eq!(fs::read_to_string(entry.join("seqnum")).unwrap(), format!("{stamp}\n"));
            assert_eq!([mode(&entry), mode(&entry.join("owner")), mode(&entry.join("seqnum"))], [0o755, 0o644, 0o644]);
            assert_eq!(fs::read_dir(root).unwrap().count(), 1, "nothing is left behind");
            assert_eq!((registry.owner("nvme3").as_deref(), registry.stamp("nvme3")), (Some("stas"), Some(stamp)));
        });
    }

    #[test]
    fn a_claim_replaces_what_was_noted_about_an_earlier_controller() {
        with_registry("replace", |registry, root| {
            fs::create_dir_all(root.join("nvme3")).unwrap();
            fs::write(root.join("nvme3/owner"), "nbft\n").unwrap();
            fs::write(root.join("nvme3/note"), "an old one\n").unwrap();
            assert_eq!(registry.owner("nvme3").as_deref(), Some("nbft"));
            registry.claim("nvme3", "stas").unwrap();
            assert!(!root.join("nvme3/note").exists());
            assert_eq!(registry.owner("nvme3").as_deref(), Some("stas"));
        });
    }

    #[test]
    fn a_removed_entry_leaves_nothing() {
        with_registry("remove", |registry, root| {
            registry.claim("nvme3", "stas").unwrap();
            registry.remove("nvme3").unwrap();
            registry.remove("nvme3").unwrap();
            assert_eq!((registry.owner("nvme3"), fs::read_dir(root).unwrap().count()), (None, 0));
        });
    }

    #[test]
    fn what_is_no_entry_is_not_read() {
        with_registry("odd", |registry, root| {
            fs::create_dir_all(root.join(".nvme1.tmp.abc")).unwrap();
            fs::create_dir_all(root.join("nvme2")).unwrap();
            fs::write(root.join("nvme2/owner"), "").unwrap();
            fs::write(root.join("owner"), "stas\n").unwrap();
            assert_eq!(registry.devices(), ["nvme2"]);
            assert_eq!([registry.owner("nvme2"), registry.owner("."), registry.owner("../x")], [None, None, None]);
            assert_eq!(Registry::new("/nonexistent").devices(), Vec::<String>::new());
        });
    }

    #[test]
    fn where_nothing_can_be_written_there_is_an_error() {
        with_registry("blocked", |registry, root| {
            fs::create_dir_all(root.parent().unwrap()).unwrap();
            fs::write(root, "a file").unwrap();
            assert!(registry.claim("nvme3", "stas").is_err());
        });
    }
}
