//! A UUID that is this host's and stays so: from what identifies the machine, where it has something.
//!
//! The same sources as nvme-cli, nvme-stas and UEFI boot firmware use, so that storage that knows the host by the name one of
//! them made knows it by ours. Sources: libnvme `nvmf_hostnqn_generate`; NVM Express Boot Specification, "Host NQN"; DMTF
//! DSP0134 (SMBIOS), "System — UUID"; machine-id(5).

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::config::identity::check_id;

/// The key under which a machine id becomes a host UUID; that of nvme-stas.
const APPLICATION: &[u8] = b"$nvmexpress.org$";

/// Left in place by makers of boards: as good as none, since many machines have it.
const NOBODYS: [&str; 1] = ["03000200-0400-0500-0006-000700080009"];

/// Where a UUID comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The SMBIOS table.
    Firmware,
    DeviceTree,
    MachineId,
    /// Nothing identifies this machine: the next call makes another one.
    Random,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Firmware => "firmware",
            Origin::DeviceTree => "device tree",
            Origin::MachineId => "machine id",
            Origin::Random => "chance",
        })
    }
}

/// The UUID of the machine whose files are below `root`, in lower case.
///
/// # Errors
/// When a source is there and cannot be read: root would get another answer.
pub fn host_uuid(root: &Path) -> Result<(String, Origin), String> {
    if let Some(uuid) = source(root, "sys/class/dmi/id/product_uuid")?.as_deref().and_then(usable) {
        return Ok((wire_order(&uuid), Origin::Firmware));
    }
    for file in ["proc/device-tree/ibm,partition-uuid", "proc/device-tree/vm,uuid"] {
        if let Some(uuid) = source(root, file)?.as_deref().and_then(usable) {
            return Ok((uuid, Origin::DeviceTree));
        }
    }
    if let Some(uuid) = source(root, "etc/machine-id")?.as_deref().and_then(of_machine_id) {
        return Ok((uuid, Origin::MachineId));
    }
    let random = source(root, "proc/sys/kernel/random/uuid")?.as_deref().and_then(usable);
    random.map(|uuid| (uuid, Origin::Random)).ok_or_else(|| "the kernel gives no random UUID".to_owned())
}

fn source(root: &Path, file: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(root.join(file)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(format!("/{file} cannot be read; run this as root"))
        }
        // Not there, or firmware that stored something else than text.
        Err(_) => Ok(None),
    }
}

fn usable(text: &str) -> Option<String> {
    // Device tree strings end in NUL.
    let uuid = check_id(text.trim_matches(|c: char| c.is_whitespace() || c == '\0')).ok()?;
    (!NOBODYS.contains(&uuid.as_str())).then_some(uuid)
}

/// The bytes as the SMBIOS table has them, which is how the boot firmware writes its host NQN. The kernel shows the first
/// three fields in the host's order (`dmi_save_uuid`).
fn wire_order(uuid: &str) -> String {
    let swapped = |field: &str| {
        let bytes: Vec<&str> = (0..field.len()).step_by(2).rev().filter_map(|at| field.get(at..at + 2)).collect();
        bytes.concat()
    };
    let fields: Vec<String> = (0..)
        .zip(uuid.split('-'))
        .map(|(number, field)| if number < 3 { swapped(field) } else { field.to_owned() })
        .collect();
    fields.join("-")
}

/// A machine id must not be shown to others: its keyed hash is. As nvme-stas and systemd do it, so that the result is a
/// version 4 UUID.
fn of_machine_id(text: &str) -> Option<String> {
    let id = u128::from_str_radix(text.trim(), 16).ok().filter(|id| text.trim().len() == 32 && *id != 0)?;
    Some(uuid_of_hash(&hmac_sha256::HMAC::mac(id.to_be_bytes(), APPLICATION)))
}

/// The first 128 bits as a UUID of version 4.
pub fn uuid_of_hash(hash: &[u8; 32]) -> String {
    let first: [u8; 16] = hash.first_chunk().copied().unwrap_or_default();
    let version = (u128::from_be_bytes(first) & !(0xf << 76)) | (4 << 76);
    let variant = (version & !(0b11 << 62)) | (0b10 << 62);
    let hex = format!("{variant:032x}");
    let fields = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default());
    fields.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    /// Calls `test` with a directory that has these files.
    fn with_files<T>(files: &[(&str, &str)], test: impl FnOnce(&Path) -> T) -> T {
        let root = Scratch::new();
        for (file, text) in files.iter().chain(&[("proc/sys/kernel/random/uuid", RANDOM)]) {
            root.file(file, text, 0o644);
        }
        test(&root)
    }

    const RANDOM: &str = "0f1e2d3c-4b5a-4697-8879-6a5b4c3d2e1f\n";
    const DMI: (&str, &str) = ("sys/class/dmi/id/product_uuid", "4C4C4544-0035-5910-804A-B4C04F4A4E33\n");
    const TREE: (&str, &str) = ("proc/device-tree/vm,uuid", "11111111-2222-3333-4444-555555555555\0");
    const MACHINE: (&str, &str) = ("etc/machine-id", "0123456789abcdef0123456789abcdef\n");

    #[test]
    fn the_most_lasting_source_counts() {
        let uuid = |files: &[_]| with_files(files, |root| host_uuid(root).unwrap());
        let (firmware, origin) = uuid(&[DMI, TREE, MACHINE]);
        assert_eq!((firmware.as_str(), origin), ("44454c4c-3500-1059-804a-b4c04f4a4e33", Origin::Firmware));
        assert_eq!(uuid(&[TREE, MACHINE]), (TREE.1.trim_matches('\0').to_owned(), Origin::DeviceTree));
        assert_eq!(uuid(&[MACHINE]).1, Origin::MachineId);
        assert_eq!(uuid(&[]), (RANDOM.trim().to_owned(), Origin::Random));
    }

    #[test]
    fn a_machine_id_gives_what_nvme_stas_makes_of_it() {
        // hmac.new(b'$nvmexpress.org$', uuid.UUID(id).bytes, sha256).digest()[:16] as UUID of version 4, by Python.
        assert_eq!(of_machine_id(MACHINE.1).unwrap(), "f2782346-4809-484a-9a8b-952a04b57ba4");
        assert_eq!(of_machine_id("uninitialized\n"), None);
        assert_eq!(of_machine_id(""), None);
    }

    #[test]
    fn what_stands_for_no_host_is_passed_over() {
        for nobody in [
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
            "Not Settable",
        ] {
            let files = [(DMI.0, nobody)];
            let (_, origin) = with_files(&files, |root| host_uuid(root).unwrap());
            assert_eq!(origin, Origin::Random, "{nobody}");
        }
    }
}
