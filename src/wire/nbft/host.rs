//! Host descriptor: who the firmware was to the storage.

use super::raw::RawHost;
use super::reader::{Heap, Reader};
use super::{Damage, Descriptor, ID_HOST, VALID};

/// Who the firmware was to the storage.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    raw: &'a RawHost,
    nqn: &'a str,
}

impl<'a> Host<'a> {
    pub(super) fn new(raw: &'a RawHost, heap: Heap<'a>) -> Option<Result<Host<'a>, Damage>> {
        let reader = Reader { heap, descriptor: Descriptor::Host, index: 0 };
        let view = || {
            reader.id(raw.structure_id, ID_HOST)?;
            Ok(Host { raw, nqn: reader.text("NQN", raw.nqn)? })
        };
        (raw.flags & VALID != 0).then(view)
    }

    /// Empty when there is none.
    pub fn nqn(&self) -> &'a str {
        self.nqn
    }

    /// The host identifier, its bytes in the order in which they went to the storage.
    pub fn id(&self) -> [u8; 16] {
        self.raw.host_id
    }

    /// The administrator's choice, and no default of the firmware.
    pub fn id_configured(&self) -> bool {
        self.raw.flags & (1 << 1) != 0
    }

    /// As [`Host::id_configured`].
    pub fn nqn_configured(&self) -> bool {
        self.raw.flags & (1 << 2) != 0
    }

    /// Which of several tables tells who this machine is: 0 not said, 1 not this one, 2 this one.
    pub fn primary(&self) -> u8 {
        (self.raw.flags >> 3) & 0b11
    }
}
