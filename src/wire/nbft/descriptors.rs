//! The descriptors of an NBFT. Each view is made by a constructor that follows and checks every reference to the heap; after it,
//! no accessor can fail. A view of a descriptor whose valid bit is not set is `None`: it is reserved.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::raw::{
    HeapRef, RawDiscovery, RawHfi, RawHfiExtended, RawHost, RawSecurity, RawSsns, RawSsnsExtended, RawTcpInfo,
};
use super::reader::{Heap, Reader, or_flaw};
use super::{
    Damage, Descriptor, ID_DISCOVERY, ID_HFI, ID_HFI_EXT_INFO, ID_HFI_TRINFO, ID_HOST, ID_SECURITY, ID_SSNS,
    ID_SSNS_EXT_INFO, Problem, VALID,
};

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

/// HFI transport flags.
const HFI_GLOBAL_ROUTE: u8 = 1 << 1;
const HFI_DHCP: u8 = 1 << 2;
const HFI_AUTOCONF: u8 = 1 << 3;

/// HFI extended information flags: it has a DHCP client identifier.
const HFI_EXT_DHCP_CLIENT: u32 = 1 << 1;

/// SSNS extended information flags: the queue size is the administrator's.
const EXT_ADMIN_ASQSZ: u32 = 1 << 1;

/// Namespace identifier types.
pub const NIDT_EUI64: u8 = 1;
pub const NIDT_NGUID: u8 = 2;
pub const NIDT_UUID: u8 = 3;

/// Why the firmware could not use the namespace (TP8029): what 1.1 appended to the extended information. Zero says nothing.
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

/// What a DHCP server knows an interface by (RFC 4361); little-endian, as it lies in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientId<'a> {
    pub iaid: &'a [u8],
    /// 130 bytes at most (RFC 8415).
    pub duid: &'a [u8],
}

/// Longest DUID in bytes, its type included (RFC 8415, section 11.1).
const DUID_MAX: usize = 130;

/// A host fabric interface, with how it was set up for NVMe/TCP.
#[derive(Debug, Clone, Copy)]
pub struct Hfi<'a> {
    raw: &'a RawHfi,
    info: &'a RawTcpInfo,
    host_name: &'a str,
    client_id: Option<ClientId<'a>>,
    flaw: Option<Damage>,
}

impl<'a> Hfi<'a> {
    pub(super) fn new(raw: &'a RawHfi, heap: Heap<'a>) -> Option<Result<Hfi<'a>, Damage>> {
        let reader = Reader { heap, descriptor: Descriptor::Hfi, index: raw.index.into() };
        (raw.flags & VALID != 0).then(|| Hfi::read(raw, reader))
    }

    fn read(raw: &'a RawHfi, reader: Reader<'a>) -> Result<Hfi<'a>, Damage> {
        const INFO: &str = "transport information";
        reader.id(raw.structure_id, ID_HFI)?;
        reader.tcp(raw.trtype)?;
        let (info, _) = reader.view::<RawTcpInfo>(INFO, raw.transport_info)?;
        if info.structure_id != ID_HFI_TRINFO {
            return Err(reader.damage(INFO, Problem::StructureId(info.structure_id)));
        }
        if info.flags & VALID == 0 {
            return Err(reader.damage(INFO, Problem::NotValid));
        }
        let mut flaw = None;
        if info.hfi_index.get() != u16::from(raw.index) {
            flaw = Some(reader.damage(INFO, Problem::Index(info.hfi_index.get())));
        }
        let host_name = or_flaw(reader.text("host name", info.host_name), &mut flaw);
        let mut client_id = None;
        if info.transport_info_version >= 2 {
            client_id = or_flaw(client_id_of(info.extended, reader), &mut flaw);
        }
        Ok(Hfi { raw, info, host_name, client_id, flaw })
    }

    /// By which others refer to it.
    pub fn index(&self) -> u8 {
        self.raw.index
    }

    pub fn mac(&self) -> [u8; 6] {
        self.info.mac
    }

    /// 0 when there is none.
    pub fn vlan(&self) -> u16 {
        self.info.vlan.get()
    }

    /// PCI Express: segment, bus, device, function.
    pub fn pci(&self) -> (u16, u8, u8, u8) {
        let [function, bus, segment_low, segment_high] = self.info.pci_routing_id.get().to_le_bytes();
        // Since 1.1 the segment has a field of its own, for links in Flit mode.
        let flit = if self.info.transport_info_version >= 2 { self.info.pci_segment } else { 0 };
        let segment = u16::from_le_bytes([segment_low, segment_high]) | u16::from(flit);
        (segment, bus, function >> 3, function & 0b111)
    }

    /// NL_PREFIX_ORIGIN of Windows: 1 manual, 2 well-known, 3 DHCP, 4 router advertisement; firmware leaves anything there.
    pub fn ip_origin(&self) -> u8 {
        self.info.ip_origin
    }

    /// Addresses are IPv6; those of IPv4 are mapped. Nothing: unspecified.
    pub fn address(&self) -> [u8; 16] {
        self.info.address
    }

    /// Bits of the network part, of an IPv4 address counted without the mapping.
    pub fn prefix(&self) -> u8 {
        self.info.prefix
    }

    pub fn gateway(&self) -> [u8; 16] {
        self.info.gateway
    }

    /// 0 when it says nothing.
    pub fn route_metric(&self) -> u16 {
        self.info.route_metric.get()
    }

    pub fn primary_dns(&self) -> [u8; 16] {
        self.info.primary_dns
    }

    pub fn secondary_dns(&self) -> [u8; 16] {
        self.info.secondary_dns
    }

    /// Means something only with [`Hfi::dhcp`].
    pub fn dhcp_server(&self) -> [u8; 16] {
        self.info.dhcp_server
    }

    /// The address is from DHCP.
    pub fn dhcp(&self) -> bool {
        self.info.flags & HFI_DHCP != 0
    }

    /// The address made itself, as by SLAAC (1.1).
    pub fn autoconf(&self) -> bool {
        self.info.flags & HFI_AUTOCONF != 0
    }

    /// The firmware's default route went here.
    pub fn global_route(&self) -> bool {
        self.info.flags & HFI_GLOBAL_ROUTE != 0
    }

    /// Empty when there is none.
    pub fn host_name(&self) -> &'a str {
        self.host_name
    }

    pub fn client_id(&self) -> Option<ClientId<'a>> {
        self.client_id
    }

    /// Something that can be done without is damaged, and left out.
    pub fn flaw(&self) -> Option<Damage> {
        self.flaw
    }
}

fn client_id_of<'a>(place: HeapRef, reader: Reader<'a>) -> Result<Option<ClientId<'a>>, Damage> {
    const EXTENDED: &str = "extended information";
    if place.length.get() == 0 {
        return Ok(None);
    }
    let (extended, _) = reader.view::<RawHfiExtended>(EXTENDED, place)?;
    if extended.structure_id != ID_HFI_EXT_INFO {
        return Err(reader.damage(EXTENDED, Problem::StructureId(extended.structure_id)));
    }
    if extended.index.get() != reader.index {
        return Err(reader.damage(EXTENDED, Problem::Index(extended.index.get())));
    }
    let wanted = u32::from(VALID) | HFI_EXT_DHCP_CLIENT;
    if extended.flags.get() & wanted != wanted {
        return Ok(None);
    }
    let iaid = reader.bytes("DHCP IAID", extended.iaid)?;
    if !matches!(iaid.len(), 0 | 4) {
        return Err(reader.damage("DHCP IAID", Problem::Length(iaid.len())));
    }
    let duid = reader.bytes("DHCP DUID", extended.duid)?;
    if duid.len() > DUID_MAX {
        return Err(reader.damage("DHCP DUID", Problem::Length(duid.len())));
    }
    Ok(Some(ClientId { iaid, duid }))
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

    /// As [`Hfi::flaw`].
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

    /// Security types of NVMe/TCP (`SECTYPE_*` of the discovery log page). An empty list, here and below, restricts nothing.
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
