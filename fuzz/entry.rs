//! What each fuzz target does with its input, and what must hold then. No panic is the least of it.
//!
//! Shared by the targets in `fuzz_targets/` and by `tests/corpus.rs`, which runs every committed corpus file through the same
//! functions with any toolchain.

use std::path::Path;
use std::time::{Duration, Instant};

use rustbus::MessageBuilder;
use rustbus::message_builder::DynamicHeader;
use rustbus::wire::ObjectPath;
use stas::bus::avahi::AvahiClient;
use stas::bus::message::{self, Message};
use stas::bus::{BUS_NAME, BUS_PATH, BusEvent};
use stas::config::settings::IpFamily;
use stas::config::{parse_exclusions, parse_source};
use stas::core::device::ControllerKind;
use stas::core::exclusion::HostExclusion;
use stas::core::nbft::{Configured, Nbft};
use stas::core::page::{Contents, Page, is_nqn};
use stas::core::tid::{NQN_MAX, Spelling, Transport, TransportId, canonical_address, is_usable_address};
use stas::helper::message::{ConnectRequest, Failure};
use stas::kernel::{admin, fabrics, sysfs};
use stas::wire::discovery::{Entry, LogPage, MAX_RECORDS};
use stas::wire::dns;
use stas::wire::nbft::{self, Table};
use stas::wire::pdu::{self, Answer};
use stas::wire::rtnetlink;
use stas::wire::supported::SupportedLogPages;
use stas::wire::uevent::{NvmeEvent, Uevent};

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
    let Contents { paths, referrals, complaints } = Contents::of_page(&page, &lister);
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

/// Whatever an entry says, the option string made of it has the options we chose.
fn adds_no_option(trsvcid: &str, nqn: &str, traddr: &str) {
    let traddr = canonical_address(Transport::Tcp, traddr);
    let given = 2 + usize::from(!trsvcid.is_empty()) + usize::from(!traddr.is_empty());
    let request = ConnectRequest {
        nqn: nqn.to_owned(),
        transport: "tcp".to_owned(),
        traddr,
        trsvcid: trsvcid.to_owned(),
        ..ConnectRequest::default()
    };
    if let Ok(options) = fabrics::option_string(&request) {
        assert_eq!(options.split(',').count(), given, "{options:?}");
        assert!(!options.contains(['\n', '\0']));
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

/// What Avahi says in the name of whoever is in the local network, in any order: lines of a verb, a number for the object and
/// arguments, separated by `|`. `raw` is a whole message.
pub fn avahi(data: &[u8]) {
    avahi_announcements(data);
}

/// The same; how many announcements came out of it, one that came twice counted twice.
pub fn avahi_announcements(data: &[u8]) -> usize {
    let mut avahi = Avahi {
        client: AvahiClient::new(interface_name),
        calls: Vec::new(),
        serial: 0,
        now: Instant::now(),
        announced: 0,
    };
    avahi.client.configure(Some(IpFamily::default()), avahi.now);
    avahi.client.joined();
    avahi.check();
    for line in data.split(|byte| *byte == b'\n').take(1000) {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b'|').collect();
        avahi.step(&words);
        avahi.check();
    }
    avahi.announced
}

fn interface_name(index: u32) -> Option<String> {
    (index != 7).then(|| format!("eth{index}"))
}

struct Avahi {
    client: AvahiClient,
    /// Sent and not answered.
    calls: Vec<u32>,
    serial: u32,
    now: Instant,
    announced: usize,
}

impl Avahi {
    fn step(&mut self, words: &[&[u8]]) {
        let text =
            |index: usize| String::from_utf8_lossy(words.get(index).copied().unwrap_or_default()).replace('\0', "");
        let number = |index: usize| text(index).parse::<i32>().unwrap_or_default();
        let path = format!("/o{}", number(1).unsigned_abs());
        let (resolver, browser) = ("org.freedesktop.Avahi.ServiceResolver", "org.freedesktop.Avahi.ServiceBrowser");
        match words.first().copied().unwrap_or_default() {
            b"owner" => {
                let mut signal = MessageBuilder::new().signal(BUS_NAME, "NameOwnerChanged", BUS_PATH).build();
                let owner = if number(1) == 0 { "" } else { ":1.7" };
                signal.body.push_param3("org.freedesktop.Avahi", "", owner).unwrap();
                self.hear(signal, BUS_NAME);
            }
            b"made" if !self.calls.is_empty() => {
                let call = self.calls.remove(0);
                let mut reply = DynamicHeader { serial: Some(call), ..Default::default() }.make_response();
                reply.body.push_param(ObjectPath::new(path.as_str()).unwrap()).unwrap();
                self.hear(reply, ":1.7");
            }
            b"refused" if !self.calls.is_empty() => {
                let header = DynamicHeader { serial: Some(self.calls.remove(0)), ..Default::default() };
                self.hear(message::error(&header, "org.freedesktop.Avahi.Error", &text(1)), ":1.7");
            }
            verb @ (b"new" | b"remove") => {
                let member = if verb == b"new" { "ItemNew" } else { "ItemRemove" };
                let mut signal = MessageBuilder::new().signal(browser, member, path.as_str()).build();
                let (name, service_type) = (text(4), text(5));
                let pushed =
                    signal.body.push_param5(number(2), number(3), name.as_str(), service_type.as_str(), "local");
                pushed.unwrap();
                self.hear(signal, ":1.7");
            }
            b"found" => {
                let mut signal = MessageBuilder::new().signal(resolver, "Found", path.as_str()).build();
                signal.body.push_param5(1i32, 0i32, "name", "type", "local").unwrap();
                let port = text(3).parse::<u16>().unwrap_or_default();
                let txt = words.get(4..).unwrap_or_default();
                signal.body.push_param5("host", 0i32, text(2).as_str(), port, txt).unwrap();
                self.hear(signal, ":1.7");
            }
            b"failure" => {
                for interface in [browser, resolver] {
                    let mut signal = MessageBuilder::new().signal(interface, "Failure", path.as_str()).build();
                    signal.body.push_param(text(2).as_str()).unwrap();
                    self.hear(signal, ":1.7");
                }
            }
            b"done" => {
                let signal = MessageBuilder::new().signal(browser, "AllForNow", path.as_str()).build();
                self.hear(signal, ":1.7");
            }
            b"want" => {
                let wanted = [None, Some(IpFamily::Ipv4), Some(IpFamily::Ipv6), Some(IpFamily::Ipv4Ipv6)];
                self.client.configure(wanted[number(1).unsigned_abs() as usize % wanted.len()], self.now);
            }
            b"pass" => {
                self.now += Duration::from_secs(u64::from(number(1).unsigned_abs() % 1000));
                self.client.handle_deadline(self.now);
            }
            b"raw" => {
                let bytes = words[1..].join(&b'|');
                if let Ok(Some(message)) = message::parse(&bytes) {
                    self.hear(message, ":1.7");
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, mut message: Message, sender: &str) {
        message.dynheader.sender = Some(sender.to_owned());
        self.client.handle(message, self.now);
    }

    fn check(&mut self) {
        let (calls, serial) = (&mut self.calls, &mut self.serial);
        let mut sent = 0;
        let send = |call: &Message| {
            *serial += 1;
            sent += 1;
            if message::expects_reply(call) {
                calls.push(*serial);
            }
            message::encode(call, *serial).map(|_| *serial)
        };
        self.client.send_calls(send).unwrap();
        assert!(sent <= 1024, "{sent} calls at once");
        while let Some(event) = self.client.poll_event() {
            match event {
                BusEvent::Announced(set) => {
                    assert!(set.len() <= 512);
                    self.announced += set.len();
                    for announcement in set {
                        let tid = announcement.transport_id(true, "");
                        adds_no_option(tid.trsvcid(), tid.subsysnqn(), tid.traddr());
                        assert!(is_usable_address(tid.transport(), tid.traddr()), "{tid}");
                    }
                }
                BusEvent::AvahiComplaint(why) => {
                    assert!(why.len() < 1000 && !why.contains(char::is_control), "{why:?}")
                }
                _ => {}
            }
        }
    }
}

/// The host's list of exclusions: none that gives no key, no finding that would spoil a log.
pub fn exclusions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (exclusions, findings) = parse_exclusions(&text, Path::new("x"));
    assert!(exclusions.len() <= text.lines().count());
    for exclusion in exclusions {
        assert!(exclusion.place.starts_with("x:"));
        let keys = HostExclusion { place: String::new(), ..exclusion.clone() };
        assert_ne!(keys, HostExclusion::default());
        let tid = TransportId::new(Transport::Tcp, Spelling { traddr: &exclusion.keys.traddr, ..Spelling::default() });
        std::hint::black_box(exclusion.matches(&tid, ""));
    }
    for finding in findings {
        assert!(!finding.to_string().contains(char::is_control), "{finding}");
    }
}

/// What is said about such a file.
pub fn findings_of_sources(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(data);
    let kinds = [ControllerKind::Discovery, ControllerKind::Io];
    let findings = kinds.into_iter().flat_map(|kind| parse_source(kind, &text, Path::new("x")).1);
    findings.map(|finding| finding.to_string()).collect()
}

/// The files of nvme-cli that name controllers: whatever they say, a controller can only be what our own files could name.
pub fn sources(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for kind in [ControllerKind::Discovery, ControllerKind::Io] {
        let (controllers, findings) = parse_source(kind, &text, Path::new("x"));
        assert!(controllers.len() <= text.lines().count());
        for one in controllers {
            adds_no_option(&one.trsvcid, &one.subsysnqn, &one.traddr);
            let words = [&one.host_traddr, &one.host_iface, &one.host_nqn, &one.host_id];
            assert!(words.iter().all(|word| !word.contains([',', '\n', ' '])), "{one:?}");
            assert!(one.host_id.is_empty() || !one.host_nqn.is_empty());
        }
        for finding in findings {
            let line = finding.to_string();
            assert!(!line.contains(char::is_control), "{line}");
        }
    }
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
