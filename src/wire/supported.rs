//! The supported log pages (log page identifier 00h), as far as they tell what can be asked of the discovery log page.
//!
//! Layout: NVM Express Base Specification, "Supported Log Pages" (one LID Supported and Effects data structure for each
//! identifier), and for LID 70h its LID Specific Parameter, from TP8010.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::discovery;

/// Log page identifier.
pub const LID: u8 = 0x00;
/// Bytes of the page.
pub const SIZE: usize = size_of::<SupportedLogPages>();

/// Bits of the LID Specific Parameter of the discovery log page: extended entries, and entries of the port in use only, can be
/// asked for.
const EXTDLPES: u32 = 1 << 16;
const PLEOS: u32 = 1 << 17;

/// The log page: an entry of flags for each log page identifier.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SupportedLogPages {
    entries: [U32; 256],
}

impl SupportedLogPages {
    /// Views a page; `None` when the bytes are too few. Further bytes are ignored.
    pub fn new(bytes: &[u8]) -> Option<&SupportedLogPages> {
        SupportedLogPages::ref_from_prefix(bytes).ok().map(|(page, _)| page)
    }

    /// Whether entries of the port in use only can be asked for.
    pub fn has_pleo(&self) -> bool {
        self.discovery() & PLEOS != 0
    }

    /// Whether extended entries can be asked for.
    pub fn has_extended_entries(&self) -> bool {
        self.discovery() & EXTDLPES != 0
    }

    fn discovery(&self) -> u32 {
        self.entries.get(usize::from(discovery::LID)).map_or(0, |entry| entry.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(discovery: u32) -> Vec<u8> {
        let mut page = vec![0; 1024];
        page[0x70 * 4..][..4].copy_from_slice(&discovery.to_le_bytes());
        page
    }

    #[test]
    fn the_bits_of_the_discovery_log_page_count() {
        let read = |discovery| {
            let page = page(discovery);
            let view = SupportedLogPages::new(&page).unwrap();
            (view.has_pleo(), view.has_extended_entries())
        };
        assert_eq!(read(0x0001), (false, false));
        assert_eq!(read(0x0001_0001), (false, true));
        assert_eq!(read(0x0002_0001), (true, false));
        assert_eq!(read(0xffff_ffff), (true, true));
    }

    #[test]
    fn what_is_too_short_is_no_page() {
        assert_eq!(SupportedLogPages::new(&[0xff; 1023]), None);
        assert!(SupportedLogPages::new(&[0; 2000]).is_some_and(|page| !page.has_pleo()));
    }
}
