//! What a host asks for: submission queue entries, told apart and their fields named.
//!
//! Facts: NVM Express Base Specification 2.0, sections 3.3.3 (entries), 5 (admin commands) and 6 (Fabrics commands);
//! Linux `include/linux/nvme.h`.

const FABRICS: u8 = 0x7f;

/// The kinds of command a discovery controller tells apart. The two log pages it has are kinds of their own, because
/// scenarios want them to fail separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Connect,
    PropertyGet,
    PropertySet,
    Identify,
    KeepAlive,
    SetFeatures,
    GetFeatures,
    AsynchronousEventRequest,
    /// Get Log Page, LID 00h.
    SupportedLogPages,
    /// Get Log Page, LID 70h.
    DiscoveryLogPage,
    /// Get Log Page, any other LID.
    OtherLogPage,
    /// Discovery Information Management, DIM.
    DiscoveryInformationManagement,
    /// Any other admin opcode or Fabrics command type.
    Other,
}

/// A status as a host's software sees it: DNR in bit 14, status code type in bits 10:8, status code in bits 7:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    pub const SUCCESS: Self = Self(0x0);
    pub const INVALID_OPCODE: Self = Self(0x01);
    pub const INVALID_FIELD: Self = Self(0x02);
    pub const INTERNAL_ERROR: Self = Self(0x06);
    pub const COMMAND_SEQUENCE_ERROR: Self = Self(0x0c);
    pub const AER_LIMIT_EXCEEDED: Self = Self(0x105);
    pub const CONNECT_CONTROLLER_BUSY: Self = Self(0x181);
    pub const CONNECT_INVALID_PARAMETERS: Self = Self(0x182);
    pub const CONNECT_INVALID_HOST: Self = Self(0x184);

    /// The same with Do Not Retry set.
    pub const fn dnr(self) -> Self {
        Self(self.0 | 1 << 14)
    }

    /// As it stands in a completion queue entry, above the phase bit.
    pub fn wire(self) -> u16 {
        self.0 << 1
    }
}

/// A submission queue entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sqe([u8; 64]);

impl Sqe {
    /// The entry at the beginning of `bytes`, `None` when they are too few.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self)
    }

    pub fn opcode(&self) -> u8 {
        self.0[0]
    }

    pub fn cid(&self) -> u16 {
        self.u16_at(2)
    }

    /// The Fabrics command type, `None` for any command that is not a Fabrics command.
    pub fn fctype(&self) -> Option<u8> {
        (self.opcode() == FABRICS).then_some(self.0[4])
    }

    /// Command dword `index`, 0 to 15.
    pub fn cdw(&self, index: usize) -> u32 {
        self.u32_at(index * 4)
    }

    /// Length of the data that goes with the command, from its SGL descriptor.
    pub fn data_length(&self) -> usize {
        self.u32_at(32) as usize
    }

    /// Whether the host has data for us that it wants to be asked for by R2T: a transport SGL data block descriptor
    /// (the other kind, 01h, says the data is in the capsule), and a command that transfers from host to controller.
    pub fn wants_r2t(&self) -> bool {
        let direction = self.fctype().unwrap_or(self.opcode()) & 0b11;
        direction == 0b01 && self.0[39] == 0x5a && self.data_length() > 0
    }

    pub fn kind(&self) -> Kind {
        match (self.opcode(), self.fctype()) {
            (_, Some(0x00)) => Kind::PropertySet,
            (_, Some(0x01)) => Kind::Connect,
            (_, Some(0x04)) => Kind::PropertyGet,
            (_, Some(_)) => Kind::Other,
            (0x02, _) => match self.0[40] {
                0x00 => Kind::SupportedLogPages,
                0x70 => Kind::DiscoveryLogPage,
                _ => Kind::OtherLogPage,
            },
            (0x06, _) => Kind::Identify,
            (0x09, _) => Kind::SetFeatures,
            (0x0a, _) => Kind::GetFeatures,
            (0x0c, _) => Kind::AsynchronousEventRequest,
            (0x18, _) => Kind::KeepAlive,
            (0x21, _) => Kind::DiscoveryInformationManagement,
            _ => Kind::Other,
        }
    }

    /// The fields of Get Log Page, `None` for other commands.
    pub fn log_read(&self) -> Option<LogRead> {
        let numd = self.cdw(10) >> 16 | self.cdw(11) << 16;
        (self.opcode() == 0x02).then(|| LogRead {
            lid: self.0[40],
            lsp: self.0[41] & 0x7f,
            rae: self.0[41] & 0x80 != 0,
            offset: self.u64_at(48),
            length: (u64::from(numd) + 1) * 4,
        })
    }

    /// The 64-bit value of Property Set.
    pub fn property_value(&self) -> u64 {
        self.u64_at(48)
    }

    /// The queue a Connect is for.
    pub fn connect_qid(&self) -> u16 {
        self.u16_at(42)
    }

    /// The task of a DIM command: 0 register, 1 deregister, 2 update.
    pub fn dim_task(&self) -> u8 {
        self.0[40] & 0xf
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from(self.u16_at(at)) | u32::from(self.u16_at(at + 2)) << 16
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }
}

impl std::fmt::Debug for Sqe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} (opcode {:#04x})", self.kind(), self.opcode())
    }
}

/// What a Get Log Page asks for; lengths and offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRead {
    pub lid: u8,
    /// Log specific parameter; for LID 70h bit 0 is EXTDLPE, bit 1 PLEO, bit 2 ALLSUBE.
    pub lsp: u8,
    /// Retain Asynchronous Event: this read does not clear the event.
    pub rae: bool,
    pub offset: u64,
    pub length: u64,
}

/// LSP bit of LID 70h: port local entries only.
pub const LSP_PLEO: u8 = 1 << 1;

/// Who connects to what: the data of a Connect command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectData {
    pub hostid: [u8; 16],
    pub subsysnqn: String,
    pub hostnqn: String,
}

impl ConnectData {
    /// `None` when `data` is shorter than the specification's 1024 bytes.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let data: &[u8; 1024] = data.first_chunk()?;
        Some(Self { hostid: *data.first_chunk()?, subsysnqn: text(&data[256..512]), hostnqn: text(&data[512..768]) })
    }
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}
