//! What a discovery controller says it is: Identify Controller data and the properties.
//!
//! The values are what the Linux host driver needs to bring a discovery controller to `live`: SGLs supported, ICDOFF 0,
//! the CNTLID of the Connect, MAXCMD not 0, an OAES bit for discovery log changes so that it enables the event.
//!
//! Facts: NVM Express Base Specification 2.0, sections 3.1.3 (properties) and 5.17.2.1 (Identify Controller); Linux
//! `include/linux/nvme.h`, `struct nvme_id_ctrl`, and the checks in `drivers/nvme/host/core.c` and `tcp.c`.

use super::log::{DISCOVERY_NQN, write};

/// Version 2.0.
const VERSION: u32 = 0x0002_0000;
/// Queue entries allowed, also reported as MAXCMD.
const QUEUE_DEPTH: u16 = 128;
/// Asynchronous Event Requests a host may have waiting.
pub const AER_LIMIT: usize = 4;
/// The bit for discovery log page changes, in OAES and in the Asynchronous Event Configuration feature.
pub const DISCOVERY_LOG_CHANGE: u32 = 1 << 31;

/// DCTYPE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DcType {
    #[default]
    NotReported = 0,
    /// Direct discovery controller.
    Ddc = 1,
    /// Central discovery controller.
    Cdc = 2,
}

/// What may differ between one discovery controller and another.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The unique discovery NQN reported as SUBNQN; without one, the well-known NQN is reported. Connects to the
    /// well-known NQN are accepted either way.
    pub unique_nqn: Option<String>,
    pub dctype: DcType,
    /// CNTRLTYPE: 1 I/O, 2 discovery, 3 administrative.
    pub cntrltype: u8,
    /// Maximum data transfer size as a power of two of 4096 bytes, 0 for no limit. Longer log page reads are refused.
    pub mdts: u8,
    /// Whether OAES offers discovery log page change notices.
    pub notices: bool,
    /// Bytes written over the finished Identify Controller data: offset and content.
    pub patches: Vec<(usize, Vec<u8>)>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            unique_nqn: None,
            dctype: DcType::NotReported,
            cntrltype: 2,
            mdts: 0,
            notices: true,
            patches: Vec::new(),
        }
    }
}

impl Identity {
    /// Whether a Connect to this NQN is for us.
    pub fn answers_to(&self, nqn: &str) -> bool {
        nqn == DISCOVERY_NQN || self.unique_nqn.as_deref() == Some(nqn)
    }

    /// The Identify Controller data of controller `cntlid`.
    pub fn identify_controller(&self, cntlid: u16) -> Vec<u8> {
        let mut id = vec![0; 4096];
        let mut field = |at, bytes: &[u8]| write(&mut id, at, bytes);
        field(4, b"SIMULATOR           "); // SN
        field(24, b"stas discovery controller simulator     "); // MN
        field(64, b"1       "); // FR
        field(77, &[self.mdts]);
        field(78, &cntlid.to_le_bytes());
        field(80, &VERSION.to_le_bytes());
        let oaes = if self.notices { DISCOVERY_LOG_CHANGE } else { 0 };
        field(92, &oaes.to_le_bytes());
        field(111, &[self.cntrltype]);
        field(259, &[AER_LIMIT as u8 - 1]); // AERL, zero-based
        field(261, &[1 << 2 | 1 << 5]); // LPA: extended data, supported log pages
        field(320, &10_u16.to_le_bytes()); // KAS: keep alive in seconds
        field(512, &[0x66, 0x44]); // SQES, CQES
        field(514, &QUEUE_DEPTH.to_le_bytes()); // MAXCMD
        field(536, &(1_u32 | 1 << 20).to_le_bytes()); // SGLS: supported, offsets too
        let nqn = self.unique_nqn.as_deref().unwrap_or(DISCOVERY_NQN);
        field(768, nqn.as_bytes());
        field(1792, &((64 + 8192) / 16_u32).to_le_bytes()); // IOCCSZ
        field(1796, &1_u32.to_le_bytes()); // IORCSZ
        field(1803, &[1]); // MSDBD
        field(1806, &[self.dctype as u8]);
        for (offset, bytes) in &self.patches {
            field(*offset, bytes);
        }
        id
    }
}

/// The properties of one controller; CAP and VS are fixed, CSTS follows CC.
#[derive(Default)]
pub struct Properties {
    cc: u32,
}

impl Properties {
    /// The property at `offset`, `None` where there is none.
    pub fn get(&self, offset: u32) -> Option<u64> {
        match offset {
            0x00 => Some(capabilities()),
            0x08 => Some(VERSION.into()),
            0x14 => Some(self.cc.into()),
            0x1c => Some(self.status().into()),
            _ => None,
        }
    }

    /// Sets CC, the only property a host may set here; `None` for any other.
    pub fn set(&mut self, offset: u32, value: u64) -> Option<()> {
        (offset == 0x14).then(|| self.cc = value as u32)
    }

    /// CSTS: RDY as soon as CC.EN, shutdown complete as soon as CC.SHN asks for it.
    fn status(&self) -> u32 {
        let ready = self.cc & 1;
        let shutdown = if self.cc & (0b11 << 14) != 0 { 0b10 << 2 } else { 0 };
        ready | shutdown
    }
}

/// CAP: MQES (zero-based), CQR, TO of 7.5 s, the NVM command set.
fn capabilities() -> u64 {
    u64::from(QUEUE_DEPTH - 1) | 1 << 16 | 15 << 24 | 1 << 37
}
