//! What other machines, the kernel and the firmware wrote.

use stas::core::nbft::{Configured, Nbft};
use stas::core::page::{Contents, Page, is_nqn};
use stas::core::tid::{NQN_MAX, Spelling, Transport, TransportId, canonical_address, is_usable_address};
use stas::helper::message::Failure;
use stas::kernel::{admin, sysfs};
use stas::wire::discovery::{Entry, LogPage, MAX_RECORDS};
use stas::wire::dns;
use stas::wire::nbft::{self, Table};
use stas::wire::pdu::{self, Answer};
use stas::wire::rtnetlink;
use stas::wire::supported::SupportedLogPages;
use stas::wire::uevent::{NvmeEvent, Uevent};

use super::adds_no_option;

/// A discovery log page: viewed as a whole, then read piece by piece from a controller that misbehaves.
pub fn log_page(data: &[u8]) {
    match LogPage::new(data) {
        Ok(page) => {
            assert!(page.numrec() <= MAX_RECORDS && page.entries().len() as u64 == page.numrec());
            page.entries().iter().for_each(entry);
            leads_somewhere(data);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    read_from_hostile_controller(data);
}

/// Whatever a page refers to, it is an address that can be asked for, reached as the page was.
fn leads_somewhere(data: &[u8]) {
    let lister = Spelling { traddr: "fe80::1%eth0", trsvcid: "8009", host_iface: "eth0", ..Spelling::default() };
    let lister = TransportId::new(Transport::Tcp, lister);
    let Ok(page) = Page::new(data.into()) else { panic!("it was a page a moment ago") };
    let Contents { paths, referrals, complaints, .. } = Contents::of_page(&page, &lister);
    assert!(paths.len() + referrals.len() + complaints.len() <= page.entries().len());
    for tid in paths.keys().chain(&referrals) {
        assert!(is_usable_address(tid.transport(), tid.traddr()), "{tid}");
        assert!(is_nqn(tid.subsysnqn()) && matches!(tid.host_iface(), "" | "eth0"), "{tid}");
        assert_eq!(canonical_address(tid.transport(), tid.traddr()), tid.traddr());
    }
}

fn entry(entry: &Entry) {
    let numbers = [entry.trtype(), entry.adrfam(), entry.subtype(), entry.treq(), entry.sectype()];
    let words = [entry.portid(), entry.cntlid(), entry.asqsz(), entry.eflags()];
    std::hint::black_box((numbers, words));
    let texts = [entry.trsvcid(), entry.subnqn(), entry.traddr()];
    for text in texts.into_iter().flatten() {
        assert!(!text.chars().any(char::is_control) && text.len() <= 256);
    }
    if let [Some(trsvcid), Some(nqn), Some(traddr)] = texts {
        adds_no_option(trsvcid, nqn, traddr);
    }
}

/// The input is the page; read from its end, its bytes also tell how each command misbehaves.
fn read_from_hostile_controller(data: &[u8]) {
    let mut page = data.to_vec();
    let mut moods = data.iter().rev();
    let mut commands: u64 = 0;
    let mut last_rae = true;
    let result = admin::read_whole_page(
        || 4096,
        |offset, piece, rae| {
            commands += 1;
            last_rae = rae;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(page.len());
            let rest = &page[from..];
            let mut length = rest.len().min(piece.len());
            match moods.next() {
                Some(1) => return Err(Failure::NvmeStatus(0x4002)),
                Some(2) => return Err(Failure::Interrupted),
                Some(3) => length /= 2,
                // The page changes under our hands: generation counter, or number of entries, or an entry.
                Some(&change @ (4..=7)) => {
                    let at = [0, 8, 16, 1500][usize::from(change) - 4];
                    if let Some(byte) = page.get_mut(at) {
                        *byte = byte.wrapping_add(1);
                    }
                }
                _ => {}
            }
            piece[..length].copy_from_slice(&page[from..][..length]);
            Ok(())
        },
    );
    assert!(commands <= 1 + 8 * (2 + MAX_RECORDS / 4), "{commands} commands");
    if let Ok(page) = result {
        let view = LogPage::new(&page).expect("what was read is a page");
        assert_eq!(page.len() as u64, 1024 * (1 + view.numrec()));
        assert!(!last_rae, "the event would never come again");
    }
}

/// The supported log pages.
pub fn supported(data: &[u8]) {
    match SupportedLogPages::new(data) {
        Some(page) => {
            let bits = data[0x70 * 4 + 2];
            assert_eq!((page.has_extended_entries(), page.has_pleo()), (bits & 1 != 0, bits & 2 != 0));
        }
        None => assert!(data.len() < 1024),
    }
}

/// A kernel uevent.
pub fn uevent(data: &[u8]) {
    let uevent = match Uevent::parse(data) {
        Ok(uevent) => uevent,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(data.last(), Some(&0));
    assert_eq!(uevent.get("ACTION"), Some(uevent.action()));
    assert_eq!(uevent.get("DEVPATH"), Some(uevent.devpath()));
    assert_eq!(uevent.get("SUBSYSTEM"), Some(uevent.subsystem()));
    assert_eq!(uevent.get("SEQNUM").and_then(|value| value.parse().ok()), Some(uevent.seqnum()));
    std::hint::black_box(uevent.devname());
    match uevent.nvme_event() {
        NvmeEvent::Controller { device, .. } => {
            assert_eq!(uevent.subsystem(), "nvme");
            assert!(device.starts_with("nvme") && !device.contains('/'));
            std::hint::black_box(sysfs::number_of(device));
        }
        NvmeEvent::FabricsDevice => assert_eq!(uevent.subsystem(), "misc"),
        NvmeEvent::FcDiscovery { .. } => assert_eq!(uevent.subsystem(), "fc"),
        NvmeEvent::None => {}
    }
}

/// A datagram of the kernel's about the network.
pub fn rtnetlink(data: &[u8]) {
    assert!(rtnetlink_messages(data) <= data.len() / 16, "more messages than there is room for");
}

/// The same; how many messages of interest there were.
pub fn rtnetlink_messages(data: &[u8]) -> usize {
    for answer in rtnetlink::dump::answers(data) {
        if let rtnetlink::dump::Answer::Link(link) = answer {
            assert!(link.name.len() < data.len() && link.address.len() < data.len());
        }
    }
    let requests: usize = rtnetlink::request::split(data).map(<[u8]>::len).sum();
    assert!(requests <= data.len(), "more requests than there is room for");
    rtnetlink::messages(data).count()
}

/// What a name server answers: the question's identifier, question and length are taken as they come.
pub fn dns(data: &[u8]) {
    let query = dns::query(0x1234, "array.example.org", dns::Kind::A).expect("a name");
    for message in [data.to_vec(), [&query[..2], data].concat()] {
        if let Some(dns::Answer::Addresses(addresses)) = dns::answer(&query, &message) {
            assert!(addresses.len() <= message.len() / 15 && addresses.iter().all(|ip| ip.is_ipv4()));
        }
    }
    let name = String::from_utf8_lossy(data);
    if let Some(query) = dns::query(1, &name, dns::Kind::Aaaa) {
        assert!(query.len() <= 12 + 255 + 4);
        assert_eq!(dns::answer(&query, &query), None);
    }
}

/// What a port answers to an NVMe/TCP ICReq: a verdict, once reached, stays.
pub fn pdu(data: &[u8]) {
    let mut verdict = Answer::Incomplete;
    for end in 0..=data.len().min(2 * pdu::IC_SIZE) {
        let answer = pdu::answer(&data[..end]);
        assert!(verdict == Answer::Incomplete || answer == verdict, "{verdict:?} became {answer:?}");
        verdict = answer;
    }
    assert!(data.len() < pdu::IC_SIZE || verdict != Answer::Incomplete);
}

/// A boot table of the firmware; as it is, and with a checksum made right, for the fuzzer would not find it.
pub fn nbft(data: &[u8]) {
    boot_table(data);
    let mut sealed = data.to_vec();
    let length = data.get(4..8).and_then(|length| length.try_into().ok()).map_or(0, u32::from_le_bytes);
    let sum = data.iter().take(length as usize).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = sealed.get_mut(9) {
        *checksum = checksum.wrapping_sub(sum);
    }
    boot_table(&sealed);
}

fn boot_table(data: &[u8]) {
    let table = match Table::new(data) {
        Ok(table) => table,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(nbft::FRAME_SIZE <= table.length() && table.length() <= data.len());
    let clean = |text: &str| assert!(!text.chars().any(char::is_control), "{text:?}");
    let mut asked = Nbft::default();
    asked.add("NBFT", &table);
    asked.add("NBFT2", &table);
    for table in &asked.tables {
        clean(&table.oem);
        table.remarks.iter().for_each(|remark| clean(remark));
        table.rejected.iter().for_each(|rejected| clean(&rejected.why.to_string()));
        for interface in &table.interfaces {
            assert!(interface.prefix.is_none_or(|prefix| prefix <= 128) && interface.vlan != Some(0));
            interface.host_name.iter().for_each(|name| clean(name));
        }
        for subsystem in &table.subsystems {
            assert!(subsystem.hfis.iter().all(|hfi| table.interface(*hfi).is_some()));
        }
    }
    let paths = asked.paths();
    assert!(paths.len() <= 1024);
    for (at, path) in paths.iter().enumerate() {
        // What comes before it has no lower priority, and the second table adds nothing.
        assert!(at == 0 || paths[at - 1].primary || !path.primary);
        assert!(path.namespaces.len() >= 2 || paths.len() == 1024);
    }
    let keyless = Configured { finder: None, connector: None, host_key: false };
    let entries = asked.entries(|_| Some("eth0".to_owned()), keyless);
    assert!(entries.io.len() <= paths.len());
    for entry in entries.io.iter().chain(&entries.discovery) {
        assert!(entry.subsysnqn.len() <= NQN_MAX && entry.host_nqn.len() <= NQN_MAX && entry.options.of_firmware);
        adds_no_option(&entry.trsvcid, &entry.subsysnqn, &entry.traddr);
    }
    for entry in &entries.io {
        assert!(is_usable_address(Transport::Tcp, &entry.traddr), "{entry:?}");
    }
    entries.refused.iter().for_each(|why| clean(why));
}
