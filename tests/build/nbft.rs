//! Builds NVMe Boot Firmware Tables: for unit tests, for the fuzz corpus, and for the firmware of scenarios' machines.
//!
//! What a field's type allows can be written, nonsense too. What no field allows is done to the bytes, and [`seal`] makes the
//! checksum right again. Layout: NVM Express Boot Specification, "NVMe Boot Firmware Table (NBFT)".
#![allow(dead_code, reason = "nobody needs all of it")]

use std::net::{IpAddr, Ipv6Addr};

#[derive(Debug, Clone)]
pub struct Table {
    pub minor_revision: u8,
    pub host: Host,
    pub hfis: Vec<Hfi>,
    pub ssns: Vec<Ssns>,
    pub security: Vec<Security>,
    pub discovery: Vec<Discovery>,
}

#[derive(Debug, Clone)]
pub struct Host {
    /// Valid, id configured, NQN configured; 8 not primary, 16 primary.
    pub flags: u8,
    pub id: [u8; 16],
    pub nqn: String,
}

#[derive(Debug, Clone)]
pub struct Hfi {
    pub index: u8,
    pub mac: [u8; 6],
    pub vlan: u16,
    pub address: IpAddr,
    pub prefix: u8,
    pub gateway: IpAddr,
    pub route_metric: u16,
    pub dns: [IpAddr; 2],
    pub dhcp_server: IpAddr,
    pub host_name: String,
    /// Valid, default route, DHCP, autoconfigured.
    pub flags: u8,
    pub ip_origin: u8,
    pub pci: u32,
    /// IAID and DUID: then the transport information is that of 1.1.
    pub client_id: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone)]
pub struct Ssns {
    pub index: u16,
    /// Valid 1, non-bootable 2, secured 4, DHCP root path 8, extended information 16, discovered 64, available 128,
    /// unavailable 256.
    pub flags: u16,
    /// Valid 1, header digest 2, data digest 4.
    pub trflags: u16,
    pub discovery: u8,
    pub traddr: IpAddr,
    pub trsvcid: String,
    pub nsid: u32,
    pub nidt: u8,
    pub nid: [u8; 16],
    pub security: u8,
    pub hfi: u8,
    pub secondary_hfis: Vec<u8>,
    pub nqn: String,
    /// Sets the flag too.
    pub extended: Option<Extended>,
}

#[derive(Debug, Clone, Default)]
pub struct Extended {
    pub cntlid: u16,
    pub asqsz: u16,
    /// Sets the flag too.
    pub dhcp_root_path: Option<String>,
    /// naed, cipeec, cto (two bytes), nceec: then it is that of 1.1.
    pub diagnostics: Option<[u8; 5]>,
}

#[derive(Debug, Clone)]
pub struct Security {
    pub index: u8,
    /// Valid 1, authentication not required 2, required 4, TLS not required 0x20, required 0x40.
    pub flags: u16,
    pub secret_type: u8,
    pub keypath: String,
}

#[derive(Debug, Clone)]
pub struct Discovery {
    pub index: u8,
    pub hfi: u8,
    pub security: u8,
    pub uri: String,
    pub nqn: String,
}

pub const NO_ADDRESS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

impl Default for Table {
    /// One interface and one subsystem behind it.
    fn default() -> Self {
        Table {
            minor_revision: 0,
            host: Host::default(),
            hfis: vec![Hfi::default()],
            ssns: vec![Ssns::default()],
            security: vec![],
            discovery: vec![],
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Host {
            flags: 7,
            id: *b"\xa1\xb2\xc3\xd4\xe5\xf6\x47\x08\x89\x0a\x0b\x0c\x0d\x0e\x0f\x10",
            nqn: "nqn.2014-08.org.nvmexpress:uuid:a1b2c3d4-e5f6-4708-890a-0b0c0d0e0f10".to_owned(),
        }
    }
}

impl Default for Hfi {
    fn default() -> Self {
        Hfi {
            index: 1,
            mac: [0x52, 0x54, 0, 0, 0, 1],
            vlan: 0,
            address: ip("192.0.2.10"),
            prefix: 24,
            gateway: NO_ADDRESS,
            route_metric: 0,
            dns: [NO_ADDRESS; 2],
            dhcp_server: NO_ADDRESS,
            host_name: String::new(),
            flags: 1,
            ip_origin: 1,
            pci: 0x28,
            client_id: None,
        }
    }
}

impl Default for Ssns {
    fn default() -> Self {
        Ssns {
            index: 1,
            flags: 1,
            trflags: 0,
            discovery: 0,
            traddr: ip("192.0.2.1"),
            trsvcid: "4420".to_owned(),
            nsid: 1,
            nidt: 3,
            nid: [0xab; 16],
            security: 0,
            hfi: 1,
            secondary_hfis: vec![],
            nqn: "nqn.2026-01.example:root".to_owned(),
            extended: None,
        }
    }
}

impl Default for Security {
    fn default() -> Self {
        Security { index: 1, flags: 0x45, secret_type: 0, keypath: String::new() }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        let uri = "nvme+tcp://192.0.2.1:8009/".to_owned();
        Discovery { index: 1, hfi: 1, security: 0, uri, nqn: DISCOVERY_NQN.to_owned() }
    }
}

/// Panics when it is none.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Where things are in the tables made here.
pub const CONTROL: usize = 64;
pub const HOST: usize = 128;
pub const HFIS: usize = 160;

const HFI_SIZE: usize = 32;
const SSNS_SIZE: usize = 128;
const SECURITY_SIZE: usize = 64;
const DISCOVERY_SIZE: usize = 32;

impl Table {
    pub fn bytes(&self) -> Vec<u8> {
        let ssns = HFIS + self.hfis.len() * HFI_SIZE;
        let security = ssns + self.ssns.len() * SSNS_SIZE;
        let discovery = security + self.security.len() * SECURITY_SIZE;
        let heap_offset = discovery + self.discovery.len() * DISCOVERY_SIZE;
        let mut heap = Heap { offset: heap_offset, bytes: vec![] };

        let mut fixed = Bytes::default();
        fixed.put(b"NBFT").u32(0).put(&[1, 0]).put(b"STAS  ").put(b"TABLE   ").u32(1).u32(0).u32(0);
        fixed.u32(heap_offset).u32(0).reference(&mut heap, b"").put(&[self.minor_revision]).zeros(13);

        let list = |bytes: &mut Bytes, offset: usize, size: usize, count: usize| {
            bytes.u32(offset).u16(size).put(&[1, u8::try_from(count).unwrap()]);
        };
        fixed.put(&[1, 1, self.minor_revision, 0]).u16(64).put(&[1, 0]).u32(HOST).u16(32).put(&[1, 0]);
        list(&mut fixed, HFIS, HFI_SIZE, self.hfis.len());
        list(&mut fixed, ssns, SSNS_SIZE, self.ssns.len());
        list(&mut fixed, security, SECURITY_SIZE, self.security.len());
        list(&mut fixed, discovery, DISCOVERY_SIZE, self.discovery.len());
        fixed.zeros(16);

        fixed.put(&[2, self.host.flags]).put(&self.host.id);
        fixed.reference(&mut heap, self.host.nqn.as_bytes()).zeros(8);
        self.hfis.iter().for_each(|hfi| hfi.put(&mut fixed, &mut heap));
        self.ssns.iter().for_each(|ssns| ssns.put(&mut fixed, &mut heap));
        for security in &self.security {
            fixed.put(&[5, security.index]).u16(security.flags.into()).put(&[security.secret_type, 0]).zeros(5 * 6);
            fixed.reference(&mut heap, security.keypath.as_bytes()).zeros(22);
        }
        for discovery in &self.discovery {
            fixed.put(&[6, 1, discovery.index, discovery.hfi, discovery.security, 0]);
            fixed.reference(&mut heap, discovery.uri.as_bytes());
            fixed.reference(&mut heap, discovery.nqn.as_bytes()).zeros(14);
        }

        assert_eq!(fixed.0.len(), heap_offset);
        let mut table = [fixed.0, heap.bytes].concat();
        let (length, heap_length) = (table.len(), table.len() - heap_offset);
        table[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        table[40..44].copy_from_slice(&(heap_length as u32).to_le_bytes());
        seal(table)
    }
}

/// Makes the checksum right.
pub fn seal(mut table: Vec<u8>) -> Vec<u8> {
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = table[9].wrapping_sub(sum);
    table
}

impl Hfi {
    fn put(&self, fixed: &mut Bytes, heap: &mut Heap) {
        let mut extended = Bytes::default();
        if let Some((iaid, duid)) = &self.client_id {
            extended.put(&[10, 1]).u16(self.index.into()).u32(3).reference(heap, iaid).reference(heap, duid);
        }
        let mut info = Bytes::default();
        info.put(&[7, 1, 3, 1 + u8::from(self.client_id.is_some())]).u16(self.index.into()).put(&[self.flags]);
        info.u32(self.pci as usize).put(&self.mac).u16(self.vlan.into()).put(&[self.ip_origin]);
        info.address(self.address).put(&[self.prefix]).address(self.gateway).put(&[0]).u16(self.route_metric.into());
        info.address(self.dns[0]).address(self.dns[1]).address(self.dhcp_server);
        info.reference(heap, self.host_name.as_bytes()).reference(heap, &extended.0).zeros(12);
        fixed.put(&[3, self.index, 1, 3]).zeros(12).reference(heap, &info.0).zeros(10);
    }
}

impl Ssns {
    fn put(&self, fixed: &mut Bytes, heap: &mut Heap) {
        let mut flags = self.flags;
        let mut extended = Bytes::default();
        if let Some(info) = &self.extended {
            flags |= 16 | if info.dhcp_root_path.is_some() { 8 } else { 0 };
            let root_path = info.dhcp_root_path.clone().unwrap_or_default();
            extended.put(&[9, 1]).u16(self.index.into()).u32(3).u16(info.cntlid.into()).u16(info.asqsz.into());
            extended
                .reference(heap, root_path.as_bytes())
                .put(info.diagnostics.as_ref().map_or(&[][..], |bytes| bytes));
        }
        let mut traddr = Bytes::default();
        traddr.address(self.traddr);
        fixed.put(&[4]).u16(self.index.into()).u16(flags.into()).put(&[3]).u16(self.trflags.into());
        fixed.put(&[self.discovery, 0]).reference(heap, &traddr.0).reference(heap, self.trsvcid.as_bytes());
        fixed.u16(0).u32(self.nsid as usize).put(&[self.nidt]).put(&self.nid).put(&[self.security, self.hfi, 0]);
        fixed.reference(heap, &self.secondary_hfis).reference(heap, self.nqn.as_bytes());
        fixed.reference(heap, &extended.0).zeros(62);
    }
}

struct Heap {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn u16(&mut self, number: usize) -> &mut Self {
        self.put(&u16::try_from(number).unwrap().to_le_bytes())
    }

    fn u32(&mut self, number: usize) -> &mut Self {
        self.put(&u32::try_from(number).unwrap().to_le_bytes())
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.put(&vec![0; count])
    }

    fn address(&mut self, address: IpAddr) -> &mut Self {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        self.put(&address.octets())
    }

    /// Puts the object into the heap, a NUL behind it as firmware does, and the reference here.
    fn reference(&mut self, heap: &mut Heap, object: &[u8]) -> &mut Self {
        if object.is_empty() {
            return self.zeros(6);
        }
        let offset = heap.offset + heap.bytes.len();
        heap.bytes.extend(object);
        heap.bytes.push(0);
        self.u32(offset).u16(object.len())
    }
}
