//! The ACPI tables that the firmware left: `/sys/firmware/acpi/tables` (kernel: drivers/acpi/sysfs.c).
//!
//! One table is called `NBFT`; of several, each has a number behind it, from 1. Only root may read them (mode 0400).

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Where they are.
pub const DIRECTORY: &str = "/sys/firmware/acpi/tables";

/// Longest table in bytes. Firmware in use reserves 100 KiB.
const SIZE_MAX: u64 = 1 << 20;
/// More tables than any machine has.
const COUNT_MAX: usize = 16;

/// The NBFTs of a directory by name, in the order of their numbers, each with its bytes or why they cannot be read. None is no
/// error, and neither is a machine without ACPI.
///
/// # Errors
/// The directory itself cannot be read.
pub fn read_all(directory: &Path) -> io::Result<Vec<(String, io::Result<Vec<u8>>)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
    names.retain(|name| name.strip_prefix("NBFT").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())));
    names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    names.truncate(COUNT_MAX);
    Ok(names.into_iter().map(|name| (name.clone(), read(&directory.join(name)))).collect())
}

/// A table, or a copy of one.
///
/// # Errors
/// It cannot be read, or is too long for a table.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = File::open(path)?.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if length as u64 > SIZE_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it has more than {SIZE_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_in_the_order_of_their_numbers() {
        let directory = std::env::temp_dir().join(format!("stas-nbft-{}", std::process::id()));
        fs::create_dir_all(directory.join("NBFT3")).unwrap();
        for name in ["NBFT10", "NBFT2", "NBFT", "NBFTX", "IBFT", "aNBFT"] {
            fs::write(directory.join(name), name).unwrap();
        }
        let long = File::create(directory.join("NBFT4")).unwrap();
        long.set_len(SIZE_MAX + 1).unwrap();
        let found = read_all(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["NBFT", "NBFT2", "NBFT3", "NBFT4", "NBFT10"]);
        assert_eq!(found[1].1.as_ref().unwrap(), b"NBFT2");
        assert!(found[2].1.is_err() && found[3].1.is_err());
        assert!(read_all(&directory).unwrap().is_empty(), "no directory, no tables");
    }
}
