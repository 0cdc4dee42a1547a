//! Keys in the kernel's keyrings by what they are called: connect strings take serial numbers only.
//!
//! `/proc/keys` lists the keys that its reader may see, to root the NVMe keyring and all in it (kernel: security/keys/proc.c,
//! `proc_keys_show`; drivers/nvme/common/keyring.c). The keys themselves are not in it.

use std::fs::File;
use std::io::{self, Read};

const KEYS: &str = "/proc/keys";

/// A line is less than 200 bytes: more keys than any host has.
const LIST_MAX: u64 = 16 << 20;

/// What kind of key is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// A pre-shared key of TLS, as `nvme gen-tls-key` and `nvme check-tls-key` put it into the keyring.
    Psk,
    Keyring,
}

impl KeyType {
    fn as_str(self) -> &'static str {
        match self {
            KeyType::Psk => "psk",
            KeyType::Keyring => "keyring",
        }
    }
}

/// The serial number of a key, decimal: of the number that `name` is (decimal, or hexadecimal with `0x`), or of the key
/// of that description. `None`: there is no such key.
pub fn serial_of(name: &str, kind: KeyType) -> io::Result<Option<String>> {
    if let Some(serial) = parse_serial(name) {
        return Ok(Some(serial.to_string()));
    }
    let mut list = Vec::new();
    File::open(KEYS)?.take(LIST_MAX).read_to_end(&mut list)?;
    Ok(find(&String::from_utf8_lossy(&list), name, kind).map(|serial| serial.to_string()))
}

fn parse_serial(name: &str) -> Option<i32> {
    match name.strip_prefix("0x") {
        Some(digits) => i32::from_str_radix(digits, 16).ok(),
        None => name.parse().ok(),
    }
    .filter(|serial| *serial > 0)
}

/// Columns: serial number, flags, usage, time to expiry, permissions, uid, gid, type, description. After the description come
/// a colon and what the type says of the key. A key that is revoked or expired is none.
fn find(list: &str, name: &str, kind: KeyType) -> Option<i32> {
    list.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (serial, flags) = (columns.next()?, columns.next()?);
        let expiry = columns.nth(1)?;
        let found = columns.nth(3)?;
        let after_type = line.split_once(&format!(" {} ", kind.as_str()))?.1;
        let description = after_type.trim().rsplit_once(": ").map_or(after_type.trim(), |(description, _)| description);
        let is_usable = flags.starts_with('I') && !flags.contains(['R', 'D', 'N', 'i']) && expiry != "expd";
        let is_it = found == kind.as_str() && description == name && is_usable;
        is_it.then(|| i32::from_str_radix(serial, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on Linux 6.12, but for the expired one.
    const KEYS: &str = "\
        04a1b2c3 I------     1 perm 1f030000     0     0 keyring   .dns_resolver: empty\n\
        0a9b8c7d I------     3 perm 1f0f0000     0     0 keyring   .nvme: 2\n\
        1b2c3d4e I--Q---     1 expd 3b010000     0     0 psk       NVMe1R01 nqn.h nqn.old AAAA=: 32\n\
        2c3d4e5f I--Q---     1 perm 3b010000     0     0 psk       NVMe1R01 nqn.h nqn.s BBBB=: 32\n\
        3d4e5f60 I--Q---     2 perm 1f3f0000     0 65534 keyring   _uid.0: empty\n\
        4e5f6071 I--Q---     2 perm 3f010000     0     0 user      nqn.s: 3\n";

    #[test]
    fn keys_are_found_by_type_and_description() {
        assert_eq!(find(KEYS, ".nvme", KeyType::Keyring), Some(0x0a9b8c7d));
        assert_eq!(find(KEYS, "_uid.0", KeyType::Keyring), Some(0x3d4e5f60));
        assert_eq!(find(KEYS, "NVMe1R01 nqn.h nqn.s BBBB=", KeyType::Psk), Some(0x2c3d4e5f));
        for (name, kind) in [
            (".nvme", KeyType::Psk),
            (".nvm", KeyType::Keyring),
            ("nqn.s", KeyType::Psk),
            ("NVMe1R01 nqn.h nqn.old AAAA=", KeyType::Psk),
            ("", KeyType::Psk),
        ] {
            assert_eq!(find(KEYS, name, kind), None, "{name}");
        }
        for end in 0..KEYS.len() {
            find(&KEYS[..end], ".nvme", KeyType::Keyring);
        }
    }

    #[test]
    fn numbers_are_serial_numbers() {
        assert_eq!(serial_of("0x2c3d4e5f", KeyType::Psk).unwrap().as_deref(), Some("742215263"));
        assert_eq!(serial_of("42", KeyType::Keyring).unwrap().as_deref(), Some("42"));
        assert_eq!((parse_serial("0"), parse_serial("-1"), parse_serial("0xffffffff")), (None, None, None));
    }
}
