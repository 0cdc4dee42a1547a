//! What a discovery controller has to tell: discovery log page entries and the pages made of them.
//!
//! Facts: NVM Express Base Specification 2.0, sections 5.16.1.1 (Supported Log Pages) and 5.16.1.23 (Discovery Log Page);
//! Linux `include/linux/nvme.h`, `struct nvmf_disc_rsp_page_hdr` and `struct nvmf_disc_rsp_page_entry`.

use std::net::Ipv6Addr;

/// Length of the header of the discovery log page and of each entry, in bytes.
pub const RECORD: usize = 1024;

/// The NQN any discovery controller answers to.
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

pub const TRTYPE_TCP: u8 = 3;
pub const ADRFAM_IPV4: u8 = 1;
pub const ADRFAM_IPV6: u8 = 2;
pub const SUBTYPE_REFERRAL: u8 = 1;
pub const SUBTYPE_NVME: u8 = 2;
pub const SUBTYPE_CURRENT_DISCOVERY: u8 = 3;
pub const EFLAGS_DUPRETINFO: u16 = 1 << 0;
pub const EFLAGS_EPCSD: u16 = 1 << 1;
pub const EFLAGS_NCC: u16 = 1 << 2;

/// A discovery log page entry. Start from one of the constructors, change what the scenario is about:
///
/// ```ignore
/// Entry { treq: 1, ..Entry::io("nqn.2024-01.example:a", "192.0.2.1", "4420") }
/// ```
#[derive(Clone, Debug)]
pub struct Entry {
    pub trtype: u8,
    pub adrfam: u8,
    pub subtype: u8,
    pub treq: u8,
    pub portid: u16,
    pub cntlid: u16,
    pub asqsz: u16,
    pub eflags: u16,
    pub trsvcid: String,
    pub subnqn: String,
    pub traddr: String,
    /// Transport specific address subtype; for tcp, byte 0 is the security type.
    pub tsas: Vec<u8>,
    /// Whether the entry is returned when the host asks for port local entries only.
    pub port_local: bool,
    /// Bytes written over the finished entry: offset and content.
    pub patches: Vec<(usize, Vec<u8>)>,
}

impl Entry {
    /// An I/O subsystem reached over TCP. The address family follows from `traddr`.
    pub fn io(nqn: &str, traddr: &str, trsvcid: &str) -> Self {
        let ipv6 = traddr.parse::<Ipv6Addr>().is_ok();
        Self {
            trtype: TRTYPE_TCP,
            adrfam: if ipv6 { ADRFAM_IPV6 } else { ADRFAM_IPV4 },
            subtype: SUBTYPE_NVME,
            treq: 0,
            portid: 1,
            cntlid: 0xffff,
            asqsz: 32,
            eflags: 0,
            trsvcid: trsvcid.into(),
            subnqn: nqn.into(),
            traddr: traddr.into(),
            tsas: vec![0],
            port_local: false,
            patches: Vec::new(),
        }
    }

    /// A referral to another discovery controller.
    pub fn referral(traddr: &str, trsvcid: &str) -> Self {
        Self { subtype: SUBTYPE_REFERRAL, ..Self::io(DISCOVERY_NQN, traddr, trsvcid) }
    }

    /// The entry of the discovery controller itself, which allows explicit persistent connections and says that other
    /// ports return the same information.
    pub fn this_controller(nqn: &str, traddr: &str, trsvcid: &str) -> Self {
        Self {
            subtype: SUBTYPE_CURRENT_DISCOVERY,
            eflags: EFLAGS_DUPRETINFO | EFLAGS_EPCSD,
            ..Self::io(nqn, traddr, trsvcid)
        }
    }

    /// Marks the entry as port local.
    #[must_use]
    pub fn port_local(self) -> Self {
        Self { port_local: true, ..self }
    }

    /// Puts raw bytes into the finished entry, whatever its fields say; what reaches beyond the entry is cut off.
    #[must_use]
    pub fn patch(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.patches.push((offset, bytes.to_vec()));
        self
    }

    /// The entry as it goes over the wire. Strings too long for their field are cut off, without a terminator.
    pub fn to_bytes(&self) -> [u8; RECORD] {
        let mut entry = [0; RECORD];
        entry[..4].copy_from_slice(&[self.trtype, self.adrfam, self.subtype, self.treq]);
        write(&mut entry, 4, &self.portid.to_le_bytes());
        write(&mut entry, 6, &self.cntlid.to_le_bytes());
        write(&mut entry, 8, &self.asqsz.to_le_bytes());
        write(&mut entry, 10, &self.eflags.to_le_bytes());
        write(&mut entry[..64], 32, self.trsvcid.as_bytes());
        write(&mut entry[..512], 256, self.subnqn.as_bytes());
        write(&mut entry[..768], 512, self.traddr.as_bytes());
        write(&mut entry, 768, &self.tsas);
        for (offset, bytes) in &self.patches {
            write(&mut entry, *offset, bytes);
        }
        entry
    }
}

/// Copies as much of `bytes` to `offset` as fits.
pub fn write(buffer: &mut [u8], offset: usize, bytes: &[u8]) {
    let room = buffer.get_mut(offset..).unwrap_or_default();
    let fits = bytes.len().min(room.len());
    room[..fits].copy_from_slice(&bytes[..fits]);
}

/// The discovery log: its entries and the generation counter, which counts their changes.
#[derive(Default)]
pub struct DiscoveryLog {
    pub generation: u64,
    pub entries: Vec<Entry>,
}

impl DiscoveryLog {
    /// At most `count` records of the log page from the one of index `first` on, the header being the first of all. With
    /// `port_local_only`, of entries marked so. With `numrec`, the header claims that many entries, whatever there are.
    pub fn records(&self, port_local_only: bool, numrec: Option<u64>, first: usize, count: usize) -> Vec<u8> {
        let listed = || self.entries.iter().filter(|entry| entry.port_local || !port_local_only);
        let numrec = numrec.unwrap_or(listed().count() as u64);
        let mut header = [0; RECORD];
        write(&mut header, 0, &self.generation.to_le_bytes());
        write(&mut header, 8, &numrec.to_le_bytes());
        let entries = listed().skip(first.saturating_sub(1)).map(Entry::to_bytes);
        let header = (first == 0).then_some(header);
        header.into_iter().chain(entries).take(count).flatten().collect()
    }
}

/// LID 00h, the supported log pages: LIDs 00h and 70h, the latter with its own bits (bit 0 EXTDLPES, bit 1 PLEOS).
pub fn supported_log_pages(lid_70h: u16) -> Vec<u8> {
    const LSUPP: u32 = 1;
    let mut page = vec![0; 1024];
    write(&mut page, 0, &LSUPP.to_le_bytes());
    let discovery = LSUPP | u32::from(lid_70h) << 16;
    write(&mut page, 0x70 * 4, &discovery.to_le_bytes());
    page
}
