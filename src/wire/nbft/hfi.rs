//! HFI descriptors: the interfaces that the firmware used, with how each was set up.

use super::raw::{HeapRef, RawHfi, RawHfiExtended, RawTcpInfo};
use super::reader::{Heap, Reader, or_flaw};
use super::{Damage, Descriptor, ID_HFI, ID_HFI_EXT_INFO, ID_HFI_TRINFO, Problem, VALID};

/// HFI transport flags.
const HFI_GLOBAL_ROUTE: u8 = 1 << 1;
const HFI_DHCP: u8 = 1 << 2;
const HFI_AUTOCONF: u8 = 1 << 3;

/// HFI extended information flags: it has a DHCP client identifier.
const HFI_EXT_DHCP_CLIENT: u32 = 1 << 1;

/// Longest DUID in bytes, its type included (RFC 8415, section 11.1).
const DUID_MAX: usize = 130;

/// What a DHCP server knows an interface by (RFC 4361); little-endian, as it lies in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientId<'a> {
    pub iaid: &'a [u8],
    /// 130 bytes at most (RFC 8415).
    pub duid: &'a [u8],
}

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

    /// NL_PREFIX_ORIGIN of Windows: 1 manual, 2 well-known, 3 DHCP, 4 router advertisement; firmware leaves anything
    /// there.
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
