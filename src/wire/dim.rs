//! The data of a Discovery Information Management command (DIM): how a host registers with a discovery controller.
//!
//! Layout and names: NVM Express Base Specification, "Discovery Information Management command" (TP8010). Positions as in
//! libnvme's `struct nvmf_dim_data` and `struct nvmf_ext_die`; the values that the specification leaves to the host (what EID
//! and EVER hold) are those that libnvme sends, so that a fabric's administrator sees a host in one way.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Task (command dword 10).
pub const TASK_REGISTER: u32 = 0;

/// ENTFMT: extended entries.
const EXTENDED: u16 = 2;
/// ETYPE.
const HOST: u16 = 1;
/// EKTYPE: the one value that is defined.
const KEY_TYPE: u16 = 0x5f;
/// Types of extended attributes.
const HOST_ID: u16 = 1;
const SYMBOLIC_NAME: u16 = 2;

/// What a host says of itself. Text that is longer than its field is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration<'a> {
    pub host_nqn: &'a str,
    /// As in the Connect command: the UUID's digits in the order in which they are written.
    pub host_id: [u8; 16],
    /// May be empty: then there is no such attribute. At most [`SYMNAME_MAX`] bytes count.
    pub symbolic_name: &'a str,
    /// The machine's name.
    pub name: &'a str,
    /// Its operating system.
    pub version: &'a str,
    /// As in a discovery log page entry, of the address registered.
    pub trtype: u8,
    pub adrfam: u8,
    /// Empty: the controller takes the address that it sees us come from.
    pub traddr: &'a str,
}

/// Longest symbolic name in bytes.
pub const SYMNAME_MAX: usize = 256;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    tdl: U32,
    reserved4: [u8; 4],
    nument: U64,
    entfmt: U16,
    etype: U16,
    portlcl: u8,
    reserved21: u8,
    ektype: U16,
    eid: [u8; 256],
    ename: [u8; 256],
    ever: [u8; 64],
    reserved600: [u8; 424],
}

/// Extended discovery information entry. What describes a subsystem's port is zero for a host.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    trtype: u8,
    adrfam: u8,
    reserved2: [u8; 254],
    nqn: [u8; 256],
    traddr: [u8; 256],
    tsas: [u8; 256],
    tel: U32,
    numexat: U16,
    reserved1030: [u8; 2],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AttributeHeader {
    exattype: U16,
    exatlen: U16,
}

impl Registration<'_> {
    /// The data to send: one entry for the one address.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut attributes = attribute(HOST_ID, &self.host_id);
        let symbolic_name = self.symbolic_name.as_bytes();
        let symbolic_name = symbolic_name.get(..SYMNAME_MAX).unwrap_or(symbolic_name);
        if !symbolic_name.is_empty() {
            attributes.extend(attribute(SYMBOLIC_NAME, symbolic_name));
        }
        let mut entry = Entry::new_zeroed();
        entry.trtype = self.trtype;
        entry.adrfam = self.adrfam;
        fill(&mut entry.nqn, self.host_nqn);
        fill(&mut entry.traddr, self.traddr);
        entry.tel = length(size_of::<Entry>() + attributes.len());
        entry.numexat = U16::new(1 + u16::from(!symbolic_name.is_empty()));

        let mut header = Header::new_zeroed();
        header.tdl = length(size_of::<Header>() + size_of::<Entry>() + attributes.len());
        header.nument = U64::new(1);
        header.entfmt = U16::new(EXTENDED);
        header.etype = U16::new(HOST);
        header.ektype = U16::new(KEY_TYPE);
        fill(&mut header.eid, self.host_nqn);
        fill(&mut header.ename, self.name);
        fill(&mut header.ever, self.version);
        [header.as_bytes(), entry.as_bytes(), &attributes].concat()
    }
}

/// With its value padded with spaces to a multiple of four bytes, which its length counts.
fn attribute(exattype: u16, value: &[u8]) -> Vec<u8> {
    let padded = value.len().next_multiple_of(4);
    let exatlen = U16::new(u16::try_from(padded).unwrap_or(u16::MAX));
    let header = AttributeHeader { exattype: U16::new(exattype), exatlen };
    let mut bytes = [header.as_bytes(), value].concat();
    bytes.resize(size_of::<AttributeHeader>() + padded, b' ');
    bytes
}

fn length(bytes: usize) -> U32 {
    U32::new(u32::try_from(bytes).unwrap_or(u32::MAX))
}

fn fill(field: &mut [u8], text: &str) {
    for (byte, value) in field.iter_mut().zip(text.bytes()) {
        *byte = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRATION: Registration<'_> = Registration {
        host_nqn: "nqn.h",
        host_id: [0xf0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        symbolic_name: "rack1",
        name: "host",
        version: "Linux 6.12",
        trtype: 3,
        adrfam: 1,
        traddr: "192.0.2.1",
    };

    #[test]
    fn the_layout_is_the_specifications() {
        let bytes = REGISTRATION.to_bytes();
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let text =
            |at: usize, length: usize| std::str::from_utf8(&bytes[at..at + length]).unwrap().trim_end_matches('\0');
        assert_eq!(bytes.len(), 1024 + 1032 + 20 + 12);
        assert_eq!((usize::from(word(0)), word(2), word(8)), (bytes.len(), 0, 1), "TDL, NUMENT");
        assert_eq!((word(16), word(18), bytes[20], word(22)), (2, 1, 0, 0x5f), "ENTFMT, ETYPE, PORTLCL, EKTYPE");
        assert_eq!((text(24, 256), text(280, 256), text(536, 64)), ("nqn.h", "host", "Linux 6.12"));
        assert_eq!(bytes[1024..1026], [3, 1]);
        assert!(bytes[1026..1280].iter().chain(&bytes[1792..2048]).all(|byte| *byte == 0));
        assert_eq!((text(1280, 256), text(1536, 256)), ("nqn.h", "192.0.2.1"));
        assert_eq!((word(2048), word(2052)), (1032 + 20 + 12, 2), "TEL, NUMEXAT");
        assert_eq!((word(2056), word(2058), &bytes[2060..2076]), (1, 16, &REGISTRATION.host_id[..]));
        assert_eq!((word(2076), word(2078), &bytes[2080..]), (2, 8, &b"rack1   "[..]));
    }

    #[test]
    fn a_host_without_a_symbolic_name_has_no_such_attribute() {
        let bytes = Registration { symbolic_name: "", ..REGISTRATION }.to_bytes();
        assert_eq!((bytes.len(), bytes[2052]), (1024 + 1032 + 20, 1));
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = "x".repeat(300);
        let registration = Registration {
            host_nqn: &long,
            name: &long,
            version: &long,
            traddr: &long,
            symbolic_name: &long,
            ..REGISTRATION
        };
        let bytes = registration.to_bytes();
        assert_eq!(bytes.len(), 1024 + 1032 + 20 + 4 + SYMNAME_MAX);
        assert_eq!((bytes[600], bytes[1024], bytes[1792]), (0, 3, 0));
    }
}
