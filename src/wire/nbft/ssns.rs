//! SSNS descriptors: the namespaces, the way to each, and why the firmware could not use it.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::raw::{RawSsns, RawSsnsExtended};
use super::reader::{Heap, Reader, or_flaw};
use super::{Damage, Descriptor, ID_SSNS, ID_SSNS_EXT_INFO, Problem, VALID};

/// SSNS flags.
const SSNS_NON_BOOTABLE: u16 = 1 << 1;
const SSNS_USE_SECURITY: u16 = 1 << 2;
const SSNS_DHCP_ROOT_PATH: u16 = 1 << 3;
const SSNS_EXTENDED_INFO: u16 = 1 << 4;
const SSNS_DISCOVERED: u16 = 1 << 6;
/// Two bits: 0 says nothing, 1 available, 2 unavailable.
const SSNS_AVAILABILITY_SHIFT: u16 = 7;

/// SSNS transport specific flags; the others mean nothing without the first.
const TRFLAG_VALID: u16 = 1 << 0;
const TRFLAG_HEADER_DIGEST: u16 = 1 << 1;
const TRFLAG_DATA_DIGEST: u16 = 1 << 2;

/// SSNS extended information flags: the queue size is the administrator's.
const EXT_ADMIN_ASQSZ: u32 = 1 << 1;

/// Namespace identifier types.
pub const NIDT_EUI64: u8 = 1;
pub const NIDT_NGUID: u8 = 2;
pub const NIDT_UUID: u8 = 3;

/// Why the firmware could not use the namespace (TP8029): what 1.1 appended to the extended information. Zero says
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Diagnostics {
    naed: u8,
    cipeec: u8,
    cto: U16,
    nceec: u8,
}

impl Diagnostics {
    /// Namespace Availability Enhanced Diagnostic.
    pub fn naed(&self) -> u8 {
        self.naed
    }

    /// Connect Invalid Parameters Extended Error Code.
    pub fn cipeec(&self) -> u8 {
        self.cipeec
    }

    /// Network and Connection Extended Error Code.
    pub fn nceec(&self) -> u8 {
        self.nceec
    }

    /// Seconds that the firmware waited for the connection; FFFFh when it did not say.
    pub fn cto(&self) -> u16 {
        self.cto.get()
    }
}

/// A namespace of a subsystem, and the way to it.
#[derive(Debug, Clone, Copy)]
pub struct Ssns<'a> {
    raw: &'a RawSsns,
    traddr: [u8; 16],
    trsvcid: &'a str,
    nqn: &'a str,
    secondary_hfis: &'a [u8],
    extended: Option<Extended<'a>>,
    flaw: Option<Damage>,
}

#[derive(Debug, Clone, Copy)]
struct Extended<'a> {
    raw: &'a RawSsnsExtended,
    diagnostics: Option<&'a Diagnostics>,
    dhcp_root_path: &'a str,
}

impl<'a> Ssns<'a> {
    pub(super) fn new(raw: &'a RawSsns, heap: Heap<'a>) -> Option<Result<Ssns<'a>, Damage>> {
        let reader = Reader { heap, descriptor: Descriptor::Ssns, index: raw.index.get() };
        (raw.flags.get() & u16::from(VALID) != 0).then(|| Ssns::read(raw, reader))
    }

    fn read(raw: &'a RawSsns, reader: Reader<'a>) -> Result<Ssns<'a>, Damage> {
        reader.id(raw.structure_id, ID_SSNS)?;
        reader.tcp(raw.trtype)?;
        let traddr = reader.bytes("transport address", raw.traddr)?;
        let traddr =
            traddr.try_into().map_err(|_| reader.damage("transport address", Problem::Length(traddr.len())))?;
        let nqn = reader.text("subsystem NQN", raw.nqn)?;
        if nqn.is_empty() {
            return Err(reader.damage("subsystem NQN", Problem::Missing));
        }
        let trsvcid = reader.text("transport service id", raw.trsvcid)?;
        let mut flaw = None;
        let secondary_hfis = or_flaw(reader.bytes("list of secondary HFIs", raw.secondary_hfis), &mut flaw);
        let mut extended = None;
        if raw.flags.get() & SSNS_EXTENDED_INFO != 0 {
            extended = or_flaw(extended_of(raw, reader, &mut flaw), &mut flaw);
        }
        Ok(Ssns { raw, traddr, trsvcid, nqn, secondary_hfis, extended, flaw })
    }

    pub fn index(&self) -> u16 {
        self.raw.index.get()
    }

    fn flag(&self, flag: u16) -> bool {
        self.raw.flags.get() & flag != 0
    }

    /// Not for booting from, but for something later in the boot.
    pub fn non_bootable(&self) -> bool {
        self.flag(SSNS_NON_BOOTABLE)
    }

    /// It was found by a discovery controller, and not configured.
    pub fn discovered(&self) -> bool {
        self.flag(SSNS_DISCOVERED)
    }

    /// The firmware did not reach it, or did not try.
    pub fn unavailable(&self) -> bool {
        (self.raw.flags.get() >> SSNS_AVAILABILITY_SHIFT) & 0b11 == 2
    }

    /// An IPv6 address, or an IPv4 address mapped into one.
    pub fn traddr(&self) -> [u8; 16] {
        self.traddr
    }

    /// The port, as text; empty when there is none.
    pub fn trsvcid(&self) -> &'a str {
        self.trsvcid
    }

    /// NQN of the subsystem; never empty.
    pub fn nqn(&self) -> &'a str {
        self.nqn
    }

    /// Port of the NVM subsystem.
    pub fn port_id(&self) -> u16 {
        self.raw.port_id.get()
    }

    /// 0 when the namespace is known only by [`Ssns::nid`].
    pub fn nsid(&self) -> u32 {
        self.raw.nsid.get()
    }

    /// Its type, `NIDT_*` or 0, and its value: of an EUI-64, the first 8 bytes.
    pub fn nid(&self) -> (u8, [u8; 16]) {
        (self.raw.nidt, self.raw.nid)
    }

    pub fn header_digest(&self) -> bool {
        self.transport_flag(TRFLAG_HEADER_DIGEST)
    }

    pub fn data_digest(&self) -> bool {
        self.transport_flag(TRFLAG_DATA_DIGEST)
    }

    fn transport_flag(&self, flag: u16) -> bool {
        let wanted = TRFLAG_VALID | flag;
        self.raw.transport_flags.get() & wanted == wanted
    }

    /// The index of the discovery descriptor that it was found by; 0 when it was not.
    pub fn discovery_index(&self) -> u8 {
        self.raw.discovery_index
    }

    /// Whether a security profile applies: the flag says so, or an index is there, which without the flag would be 0.
    pub fn secured(&self) -> bool {
        self.flag(SSNS_USE_SECURITY) || self.raw.security_index != 0
    }

    /// Means something only with [`Ssns::secured`].
    pub fn security_index(&self) -> u8 {
        self.raw.security_index
    }

    pub fn primary_hfi(&self) -> u8 {
        self.raw.primary_hfi
    }

    /// Indices of further interfaces. Some firmware repeats the primary one, or pads with 0.
    pub fn secondary_hfis(&self) -> &'a [u8] {
        self.secondary_hfis
    }

    /// The controller that the firmware was connected to; 0 when it does not say.
    pub fn cntlid(&self) -> u16 {
        self.extended.map_or(0, |extended| extended.raw.cntlid.get())
    }

    /// Entries of the admin submission queue, where the administrator chose them; else 0.
    pub fn admin_asqsz(&self) -> u16 {
        let chosen =
            |extended: Extended<'_>| (extended.raw.flags.get() & EXT_ADMIN_ASQSZ != 0).then_some(extended.raw.asqsz);
        self.extended.and_then(chosen).map_or(0, U16::get)
    }

    /// The root path that DHCP gave and that this descriptor was made from; empty when it was not.
    pub fn dhcp_root_path(&self) -> &'a str {
        self.extended.map_or("", |extended| extended.dhcp_root_path)
    }

    pub fn diagnostics(&self) -> Option<&'a Diagnostics> {
        self.extended.and_then(|extended| extended.diagnostics)
    }

    /// As [`Hfi::flaw`](super::Hfi::flaw).
    pub fn flaw(&self) -> Option<Damage> {
        self.flaw
    }
}

fn extended_of<'a>(
    ssns: &'a RawSsns,
    reader: Reader<'a>,
    flaw: &mut Option<Damage>,
) -> Result<Option<Extended<'a>>, Damage> {
    const EXTENDED: &str = "extended information";
    let (raw, rest) = reader.view::<RawSsnsExtended>(EXTENDED, ssns.extended)?;
    if raw.structure_id != ID_SSNS_EXT_INFO {
        return Err(reader.damage(EXTENDED, Problem::StructureId(raw.structure_id)));
    }
    if raw.ssns_index != ssns.index {
        return Err(reader.damage(EXTENDED, Problem::Index(raw.ssns_index.get())));
    }
    if raw.flags.get() & u32::from(VALID) == 0 {
        return Err(reader.damage(EXTENDED, Problem::NotValid));
    }
    let mut dhcp_root_path = "";
    if ssns.flags.get() & SSNS_DHCP_ROOT_PATH != 0 {
        dhcp_root_path = or_flaw(reader.text("DHCP root path", raw.dhcp_root_path), flaw);
    }
    let diagnostics = Diagnostics::ref_from_prefix(rest).ok().map(|(diagnostics, _)| diagnostics);
    Ok(Some(Extended { raw, diagnostics, dhcp_root_path }))
}
