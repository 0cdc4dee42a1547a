//! How the descriptors lie in the table. Fields whose name begins with `reserved` and an offset are reserved there.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// A place in the heap; nothing when the length is 0.
#[derive(Debug, Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct HeapRef {
    pub offset: U32,
    pub length: U16,
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    pub signature: [u8; 4],
    pub length: U32,
    pub major_revision: u8,
    pub checksum: u8,
    pub oem_id: [u8; 6],
    pub oem_table_id: [u8; 8],
    pub oem_revision: U32,
    pub creator_id: U32,
    pub creator_revision: U32,
    pub heap_offset: U32,
    pub heap_length: U32,
    pub driver_signature: HeapRef,
    pub minor_revision: u8,
    pub reserved: [u8; 13],
}

/// Where a list of descriptors is: `version` is theirs.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ListRef {
    pub offset: U32,
    pub length: U16,
    pub version: u8,
    pub count: u8,
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Control {
    pub structure_id: u8,
    pub major_revision: u8,
    pub minor_revision: u8,
    pub reserved3: u8,
    pub length: U16,
    pub flags: u8,
    pub reserved7: u8,
    pub host: HeapRef,
    pub host_version: u8,
    pub reserved15: u8,
    pub hfis: ListRef,
    pub ssns: ListRef,
    pub security: ListRef,
    pub discovery: ListRef,
    pub reserved48: [u8; 16],
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHost {
    pub structure_id: u8,
    pub flags: u8,
    pub host_id: [u8; 16],
    pub nqn: HeapRef,
    pub reserved: [u8; 8],
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHfi {
    pub structure_id: u8,
    pub index: u8,
    pub flags: u8,
    pub trtype: u8,
    pub reserved4: [u8; 12],
    pub transport_info: HeapRef,
    pub reserved22: [u8; 10],
}

/// HFI Transport Info Descriptor, NVMe/TCP.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawTcpInfo {
    pub structure_id: u8,
    pub version: u8,
    pub trtype: u8,
    pub transport_info_version: u8,
    pub hfi_index: U16,
    pub flags: u8,
    pub pci_routing_id: U32,
    pub mac: [u8; 6],
    pub vlan: U16,
    pub ip_origin: u8,
    pub address: [u8; 16],
    pub prefix: u8,
    pub gateway: [u8; 16],
    pub reserved: u8,
    pub route_metric: U16,
    pub primary_dns: [u8; 16],
    pub secondary_dns: [u8; 16],
    pub dhcp_server: [u8; 16],
    pub host_name: HeapRef,
    /// From here on since 1.1.
    pub extended: HeapRef,
    pub pci_segment: u8,
    pub reserved117: [u8; 11],
}

/// HFI Transport Info Extended Information Descriptor (1.1).
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawHfiExtended {
    pub structure_id: u8,
    pub version: u8,
    pub index: U16,
    pub flags: U32,
    pub iaid: HeapRef,
    pub duid: HeapRef,
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawSsns {
    pub structure_id: u8,
    pub index: U16,
    pub flags: U16,
    pub trtype: u8,
    pub transport_flags: U16,
    pub discovery_index: u8,
    pub reserved9: u8,
    pub traddr: HeapRef,
    pub trsvcid: HeapRef,
    pub port_id: U16,
    pub nsid: U32,
    pub nidt: u8,
    pub nid: [u8; 16],
    pub security_index: u8,
    pub primary_hfi: u8,
    pub reserved47: u8,
    pub secondary_hfis: HeapRef,
    pub nqn: HeapRef,
    pub extended: HeapRef,
    pub reserved66: [u8; 62],
}

/// SSNS Extended Information Descriptor, as of 1.0.
#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawSsnsExtended {
    pub structure_id: u8,
    pub version: u8,
    pub ssns_index: U16,
    pub flags: U32,
    pub cntlid: U16,
    pub asqsz: U16,
    pub dhcp_root_path: HeapRef,
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawSecurity {
    pub structure_id: u8,
    pub index: u8,
    pub flags: U16,
    pub secret_type: u8,
    pub reserved5: u8,
    pub channel_algorithms: HeapRef,
    pub auth_protocols: HeapRef,
    pub cipher_suites: HeapRef,
    pub groups: HeapRef,
    pub hashes: HeapRef,
    pub keypath: HeapRef,
    pub reserved42: [u8; 22],
}

#[derive(Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawDiscovery {
    pub structure_id: u8,
    pub flags: u8,
    pub index: u8,
    pub hfi_index: u8,
    pub security_index: u8,
    pub reserved5: u8,
    pub address: HeapRef,
    pub nqn: HeapRef,
    pub reserved18: [u8; 14],
}
