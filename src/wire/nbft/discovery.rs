//! Discovery descriptors: the discovery controllers that the firmware asked.

use super::raw::RawDiscovery;
use super::reader::{Heap, Reader};
use super::{Damage, Descriptor, ID_DISCOVERY, VALID};

/// A discovery controller that the firmware asked.
#[derive(Debug, Clone, Copy)]
pub struct Discovery<'a> {
    raw: &'a RawDiscovery,
    uri: &'a str,
    nqn: &'a str,
}

impl<'a> Discovery<'a> {
    pub(super) fn new(raw: &'a RawDiscovery, heap: Heap<'a>) -> Option<Result<Discovery<'a>, Damage>> {
        let reader = Reader { heap, descriptor: Descriptor::Discovery, index: raw.index.into() };
        let view = || {
            reader.id(raw.structure_id, ID_DISCOVERY)?;
            let uri = reader.text("address", raw.address)?;
            Ok(Discovery { raw, uri, nqn: reader.text("NQN", raw.nqn)? })
        };
        (raw.flags & VALID != 0).then(view)
    }

    pub fn index(&self) -> u8 {
        self.raw.index
    }

    pub fn hfi_index(&self) -> u8 {
        self.raw.hfi_index
    }

    /// 0 when no security profile applies.
    pub fn security_index(&self) -> u8 {
        self.raw.security_index
    }

    /// `nvme+tcp://ADDRESS:PORT/`; empty when there is none.
    pub fn uri(&self) -> &'a str {
        self.uri
    }

    /// Empty: the well-known one.
    pub fn nqn(&self) -> &'a str {
        self.nqn
    }
}
