//! The written form of a DH-HMAC-CHAP key, checked before the kernel sees it; and keys in files of their own.
//!
//! The kernel refuses a damaged key with `EINVAL` at connect time and says why only in its own log, so a wrong key is found
//! here, when the file is read. Source: NVM Express Base Specification 2.0, "Secret Representation"; kernel:
//! `nvme_auth_generate_key`, `nvme_auth_extract_key`. What a message says about a key never contains a part of it.

use std::path::Path;

use super::file;
use super::settings::{Secret, path_of};

/// Bytes of CRC-32 after the key.
const CRC_LENGTH: usize = 4;

/// A key as it stands in a configuration file: the key itself, or `file://PATH`. The file is not looked at.
pub(super) fn parse_reference(text: &str) -> Result<Secret, String> {
    match path_of(text) {
        Some(path) if path.starts_with('/') => Ok(Secret::new(text.to_owned())),
        Some(_) => Err("after file:// there has to be a path from the root on, as in file:///etc/nvme/key".to_owned()),
        None if text.starts_with('/') => Err("the name of a key file begins with file://".to_owned()),
        None => parse_dhchap(text),
    }
}

/// The key in a file: its first word. What other users can read is refused: such a file holds nothing but the secret, and
/// its mode is the only thing wrong with it.
///
/// # Errors
/// What is wrong with the file or the key, in words that name the file and no part of the key.
pub fn read_key(path: &Path) -> Result<Secret, String> {
    let at = |why: &str| format!("{}: {why}", path.display());
    let contents = file::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if contents.exposed {
        let path = path.display();
        return Err(format!("the key in {path} is refused because other users can read it; `chmod 600 {path}`"));
    }
    let word = contents.text.split_whitespace().next().ok_or_else(|| at("the file is empty"))?;
    parse_dhchap(word).map_err(|why| at(&why))
}

/// Checks `DHHC-1:hh:BASE64:`, where `hh` is 00 (no transformation), 01, 02 or 03 (SHA-256, 384, 512) and the Base64 part
/// is a key of 32, 48 or 64 bytes followed by its CRC-32, little endian. As in the kernel, `hh` does not fix the length.
///
/// # Errors
/// What is wrong with it, in words that hold no part of it.
pub fn parse_dhchap(text: &str) -> Result<Secret, String> {
    let malformed = |what: &str| Err(format!("the secret is malformed: {what}"));
    let Some(rest) = text.strip_prefix("DHHC-1:") else {
        return malformed("it does not begin with DHHC-1:");
    };
    let Some((hash, rest)) = rest.split_once(':') else {
        return malformed("it is not of the form DHHC-1:hh:BASE64:");
    };
    if !matches!(hash, "00" | "01" | "02" | "03") {
        return malformed("the hash after DHHC-1: is not 00, 01, 02 or 03");
    }
    let Some(encoded) = rest.strip_suffix(':') else {
        return malformed("it does not end with a colon");
    };
    let Some(decoded) = decode_base64(encoded) else {
        return malformed("the part between the colons is not Base64");
    };
    let Some((key, crc)) = decoded.split_last_chunk::<CRC_LENGTH>() else {
        return malformed("it is too short");
    };
    if !matches!(key.len(), 32 | 48 | 64) {
        return malformed(&format!("the key has {} bytes; accepted: 32, 48, 64", key.len()));
    }
    if crc32(key) != u32::from_le_bytes(*crc) {
        return malformed("its CRC does not match, so it was mistyped or cut");
    }
    Ok(Secret::new(text.to_owned()))
}

/// RFC 4648 Base64, padded, without line breaks; `None` for anything else.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut pending, mut bits) = (0u32, 0);
    for digit in digits.bytes() {
        pending = (pending << 6) | u32::from(base64_digit(digit)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((pending >> bits) as u8);
            pending &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

fn base64_digit(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// CRC-32 as in Ethernet (reflected polynomial 0xEDB88320). Keys are short: no table.
fn crc32(bytes: &[u8]) -> u32 {
    let remainder = bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    !remainder
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test with an independent implementation: the bytes 0, 1, 2, … and their CRC-32.
    const KEY_32: &str = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
    const KEY_48: &str = "DHHC-1:02:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vcSEgBQ==:";
    const KEY_64: &str =
        "DHHC-1:03:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P4zODhA=:";

    #[test]
    fn all_three_lengths_are_accepted() {
        for key in [KEY_32, KEY_48, KEY_64] {
            assert_eq!(parse_dhchap(key).unwrap().reveal(), key);
        }
    }

    #[test]
    fn crc_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn base64_follows_rfc_4648() {
        assert_eq!(decode_base64("Zm9vYmFy").unwrap(), b"foobar");
        assert_eq!(decode_base64("Zm9vYg==").unwrap(), b"foob");
        assert_eq!(decode_base64("").unwrap(), b"");
        for bad in ["Zm9", "Zg===", "Z===", "====", "Zm=v", "Zm9v\n", "Zm9*"] {
            assert_eq!(decode_base64(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_single_wrong_character_is_noticed() {
        for at in 0..KEY_32.len() {
            // The hash number may be another valid one: it is not covered by the CRC.
            if at == 9 {
                continue;
            }
            let mut damaged = KEY_32.as_bytes().to_vec();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).unwrap();
            assert!(parse_dhchap(&damaged).is_err(), "{damaged}");
        }
        for end in 0..KEY_32.len() {
            assert!(parse_dhchap(&KEY_32[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn messages_hold_no_part_of_the_secret() {
        for bad in ["hunter2", "DHHC-1:00:hunter2", "DHHC-1:hunter2:", "DHHC-1:00:hunter2=:", "DHHC-1:00:hunter22:"] {
            assert!(!parse_dhchap(bad).unwrap_err().contains("hunter"), "{bad}");
        }
    }
}
