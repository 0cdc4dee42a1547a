//! Security profile descriptors.

use super::raw::RawSecurity;
use super::reader::{Heap, Reader};
use super::{Damage, Descriptor, ID_SECURITY, VALID};

/// What a connection has to be protected with.
#[derive(Debug, Clone, Copy)]
pub struct Security<'a> {
    raw: &'a RawSecurity,
    channel_algorithms: &'a [u8],
    auth_protocols: &'a [u8],
    cipher_suites: &'a [u8],
    groups: &'a [u8],
    hashes: &'a [u8],
    keypath: &'a str,
}

impl<'a> Security<'a> {
    pub(super) fn new(raw: &'a RawSecurity, heap: Heap<'a>) -> Option<Result<Security<'a>, Damage>> {
        let reader = Reader { heap, descriptor: Descriptor::Security, index: raw.index.into() };
        (raw.flags.get() & u16::from(VALID) != 0).then(|| Security::read(raw, reader))
    }

    /// Nothing of it can be done without: it may be what forbids something.
    fn read(raw: &'a RawSecurity, reader: Reader<'a>) -> Result<Security<'a>, Damage> {
        reader.id(raw.structure_id, ID_SECURITY)?;
        // A list counts when its bits in the flags are not 0.
        let list = |bits: u16, field, place| match raw.flags.get() & bits {
            0 => Ok(&[][..]),
            _ => reader.bytes(field, place),
        };
        Ok(Security {
            raw,
            auth_protocols: list(0b11 << 3, "list of authentication protocols", raw.auth_protocols)?,
            channel_algorithms: list(0b11 << 7, "list of secure channel algorithms", raw.channel_algorithms)?,
            cipher_suites: list(1 << 9, "list of cipher suites", raw.cipher_suites)?,
            groups: list(1 << 10, "list of key exchange groups", raw.groups)?,
            hashes: list(1 << 11, "list of hash functions", raw.hashes)?,
            keypath: reader.text("key path", raw.keypath)?,
        })
    }

    pub fn index(&self) -> u8 {
        self.raw.index
    }

    /// In-band authentication: 0 not supported, 1 not required, 2 required.
    pub fn authentication(&self) -> u8 {
        (self.raw.flags.get() >> 1) as u8 & 0b11
    }

    /// A secure channel (TLS): as [`Security::authentication`].
    pub fn channel(&self) -> u8 {
        (self.raw.flags.get() >> 5) as u8 & 0b11
    }

    /// Bit 1: the key path is a Redfish host interface URI.
    pub fn secret_type(&self) -> u8 {
        self.raw.secret_type
    }

    /// Where the key is: a URI; empty when it is not said.
    pub fn keypath(&self) -> &'a str {
        self.keypath
    }

    /// Security types of NVMe/TCP (`SECTYPE_*` of the discovery log page). An empty list, here and below, restricts
    /// nothing.
    pub fn channel_algorithms(&self) -> &'a [u8] {
        self.channel_algorithms
    }

    pub fn auth_protocols(&self) -> &'a [u8] {
        self.auth_protocols
    }

    /// IANA's numbers, two bytes each.
    pub fn cipher_suites(&self) -> &'a [u8] {
        self.cipher_suites
    }

    /// Diffie-Hellman groups of DH-HMAC-CHAP.
    pub fn groups(&self) -> &'a [u8] {
        self.groups
    }

    /// Hash functions of DH-HMAC-CHAP.
    pub fn hashes(&self) -> &'a [u8] {
        self.hashes
    }
}
