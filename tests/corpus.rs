//! The fuzz targets' corpora, without a fuzzer: every committed file goes through its target.
//!
//! Those of bytes are made here, so that each can be understood: `STAS_WRITE_SEEDS=1 cargo test --test corpus` writes them. Those
//! of text can be read as they are.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/entry/mod.rs"]
mod entry;

#[path = "build/nbft.rs"]
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use stas::bus::message::{self, Message};
use stas::core::Legacy;
use stas::core::device::ControllerKind;
use stas::core::links::LinkId;
use stas::core::terms::Terms;
use stas::core::tid::{DISCOVERY_NQN, Spelling, Transport, TransportId};
use stas::daemon::state_file::StateFile;
use stas::helper::message::{Capabilities, ConnectRequest, Failure, Reply, Request};
use stas::helper::packet::encode;

type Seeds = BTreeMap<&'static str, Vec<u8>>;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Runs a target on its committed files, after checking that each seed is among them as it is made here.
fn run(target: &str, seeds: Seeds, entry: fn(&[u8])) {
    let directory = corpus(target);
    if std::env::var_os("STAS_WRITE_SEEDS").is_some() {
        fs::create_dir_all(&directory).unwrap();
        seeds.iter().for_each(|(name, bytes)| fs::write(directory.join(name), bytes).unwrap());
    }
    for (name, bytes) in &seeds {
        assert!(fs::read(directory.join(name)).unwrap() == *bytes, "{target}/{name} is not what is made here");
    }
    for file in fs::read_dir(&directory).unwrap() {
        entry(&fs::read(file.unwrap().path()).unwrap());
    }
}

#[test]
fn log_page() {
    run("log_page", log_page_seeds(), entry::log_page);
}

#[test]
fn supported() {
    let page = |bits: u32| {
        let mut page = vec![0; 1024];
        page[0x70 * 4..][..4].copy_from_slice(&bits.to_le_bytes());
        page
    };
    let seeds = Seeds::from([
        ("nothing", page(0)),
        ("pleo", page(0x0002_0001)),
        ("extended", page(0x0001_0001)),
        ("all", vec![0xff; 1024]),
        ("short", vec![0xff; 1023]),
        ("long", vec![0; 2048]),
    ]);
    run("supported", seeds, entry::supported);
}

#[test]
fn uevent() {
    run("uevent", uevent_seeds(), entry::uevent);
}

#[test]
fn avahi() {
    run("avahi", avahi_seeds(), entry::avahi);
    let announced = [("found", 1), ("link-local", 1), ("nonsense", 0), ("removed", 1), ("restarted", 1), ("early", 1)];
    for (name, announced) in announced {
        assert_eq!(entry::avahi_announcements(&avahi_seeds()[name]), announced, "{name}");
    }
}

#[test]
fn nbft() {
    run("nbft", nbft_seeds(), entry::nbft);
}

#[test]
fn rtnetlink() {
    run("rtnetlink", rtnetlink_seeds(), entry::rtnetlink);
    let interesting = [("link", 1), ("address", 1), ("address6", 1), ("default-route", 1), ("both", 2), ("cut", 1)];
    for (name, messages) in interesting {
        assert_eq!(entry::rtnetlink_messages(&rtnetlink_seeds()[name]), messages, "{name}");
    }
}

#[test]
fn dns() {
    run("dns", dns_seeds(), entry::dns);
}

#[test]
fn pdu() {
    run("pdu", pdu_seeds(), entry::pdu);
}

#[test]
fn exclusions() {
    run("exclusions", exclusions_seeds(), entry::exclusions);
}

#[test]
fn sources() {
    run("sources", sources_seeds(), entry::sources);
    for finding in sources_seeds().values().flat_map(|seed| entry::findings_of_sources(seed)) {
        assert!(!finding.contains("hunter2"), "a key is repeated: {finding}");
    }
}

#[test]
fn txt() {
    run("txt", Seeds::new(), entry::txt);
}

#[test]
fn calls() {
    run("calls", calls_seeds(), entry::calls);
    assert_eq!(entry::calls_answered(&calls_seeds()["one-after-the-other"]), 6);
}

#[test]
fn finder() {
    run("finder", Seeds::new(), entry::finder);
    for (name, connects) in [("ours", 2), ("nvme-stas", 2), ("moves", 1), ("nonsense", 0)] {
        assert_eq!(entry::finder_connects(&fs::read(corpus("finder").join(name)).unwrap()), connects, "{name}");
    }
}

#[test]
fn settings() {
    run("settings", Seeds::new(), entry::settings);
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("etc/stas");
    for file in fs::read_dir(shipped).unwrap() {
        entry::settings(&fs::read(file.unwrap().path()).unwrap());
    }
}

#[test]
fn host() {
    run("host", Seeds::new(), entry::host);
}

#[test]
fn state() {
    run("state", state_seeds(), entry::state);
}

#[test]
fn helper() {
    run("helper", helper_seeds(), entry::helper);
}

fn header(genctr: u64, numrec: u64, recfmt: u16) -> Vec<u8> {
    let mut bytes = [&genctr.to_le_bytes()[..], &numrec.to_le_bytes(), &recfmt.to_le_bytes()].concat();
    bytes.resize(1024, 0);
    bytes
}

/// `numbers` are trtype, adrfam, subtype, treq, portid, cntlid, asqsz, eflags as they lie in the entry.
fn log_entry(numbers: [u8; 12], trsvcid: &[u8], subnqn: &[u8], traddr: &[u8], sectype: u8) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    for (at, value) in [(0, &numbers[..]), (32, trsvcid), (256, subnqn), (512, traddr), (768, &[sectype])] {
        bytes[at..at + value.len()].copy_from_slice(value);
    }
    bytes
}

fn log_page_seeds() -> Seeds {
    let discovery = b"nqn.2014-08.org.nvmexpress.discovery";
    let tcp =
        log_entry([3, 1, 2, 4, 1, 0, 0xff, 0xff, 32, 0, 0, 0], b"4420", b"nqn.2014-08.org.example:a", b"192.0.2.1", 0);
    let tcp6 =
        log_entry([3, 2, 2, 1, 2, 0, 0xff, 0xff, 32, 0, 4, 0], b"4420", b"nqn.2014-08.org.example:b", b"fe80::1", 2);
    let rdma = log_entry(
        [1, 1, 2, 0, 3, 0, 0xff, 0xff, 32, 0, 0, 0],
        b"4420",
        b"nqn.2014-08.org.example:c",
        b"198.51.100.1",
        0,
    );
    let fc_address = b"nn-0x10001100ab000001:pn-0x20001100ab000001";
    let fc =
        log_entry([2, 4, 2, 0, 4, 0, 0xff, 0xff, 32, 0, 0, 0], b"none", b"nqn.2014-08.org.example:d", fc_address, 0);
    let referral = log_entry([3, 1, 1, 0, 5, 0, 0xff, 0xff, 32, 0, 0, 0], b"8009", discovery, b"192.0.2.2", 0);
    let current = log_entry([3, 1, 3, 0, 1, 0, 0xff, 0xff, 32, 0, 3, 0], b"8009", discovery, b"192.0.2.3", 0);
    let padded = log_entry([3, 1, 2, 0, 1, 0, 0xff, 0xff, 32, 0, 0, 0], &[b' '; 32], &[b'n'; 256], &[b' '; 256], 0);
    let option = log_entry([3, 1, 2, 0, 1, 0, 0xff, 0xff, 32, 0, 0, 0], b"1,tls", b"nqn.x\n", b"1.2.3.4,hostnqn=x", 0);
    let with = |page: Vec<u8>, tail: &[u8]| [&page[..], tail].concat();
    let one = [header(7, 1, 0), tcp.clone()].concat();
    // TEL and NUMEXAT follow the first entry, and only then comes the second one.
    let mut extended = [header(8, 2, 0), tcp.clone(), vec![8, 4, 0, 0, 0, 0, 0, 0], tcp.clone()].concat();
    extended[18] = 1;
    extended.resize(4096, 0);
    Seeds::from([
        ("empty", header(1, 0, 0)),
        ("one-tcp", one.clone()),
        ("all-transports", [header(9, 4, 0), tcp.clone(), tcp6.clone(), rdma, fc].concat()),
        ("referral-and-current", [header(2, 2, 0), referral, current].concat()),
        ("padded-unterminated", [header(3, 1, 0), padded].concat()),
        ("text-with-options", [header(4, 1, 0), option].concat()),
        ("entry-of-ff", [header(5, 2, 0), vec![0xff; 1024], tcp.clone()].concat()),
        ("two-pieces", [header(6, 5, 0), tcp.repeat(5)].concat()),
        ("numrec-too-large", header(1, u64::MAX, 0)),
        ("numrec-at-the-bound", header(1, 16384, 0)),
        ("cut-entry", [header(1, 2, 0), tcp, tcp6[..100].to_vec()].concat()),
        ("unknown-recfmt", header(1, 0, 1)),
        ("extended", extended),
        // The bytes at the end are moods of the controller, see `fuzz/entry.rs`.
        ("generation-changes", with(one.clone(), &[0, 0, 4, 0])),
        ("numrec-changes", with(one.clone(), &[0, 0, 5, 0])),
        ("short-piece", with(one.clone(), &[3, 0])),
        ("command-fails", with(one, &[1, 0, 0])),
    ])
}

fn uevent_seeds() -> Seeds {
    let message = |action: &str, devpath: &str, pairs: &str| {
        let pairs = pairs.replace(' ', "\0");
        format!("{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0{pairs}\0SEQNUM=4711\0").into_bytes()
    };
    let nvme0 = "/devices/virtual/nvme-fabrics/ctl/nvme0";
    let rest = "MAJOR=240 MINOR=0 DEVNAME=nvme0 NVME_TRTYPE=tcp NVME_TRADDR=192.0.2.1 NVME_TRSVCID=8009 \
                NVME_HOST_TRADDR=none NVME_HOST_IFACE=none";
    let controller = |action, what: &str| message(action, nvme0, &format!("SUBSYSTEM=nvme {what}{rest}"));
    let mut cut = controller("change", "NVME_EVENT=connected ");
    cut.truncate(150);
    Seeds::from([
        ("added", controller("add", "")),
        ("removed", controller("remove", "")),
        ("connected", controller("change", "NVME_EVENT=connected ")),
        ("rediscover", controller("change", "NVME_EVENT=rediscover ")),
        ("log-page-changed", controller("change", "NVME_AEN=0x70f002 ")),
        ("other-aen", controller("change", "NVME_AEN=0x040002 ")),
        ("subsystem", message("add", "/devices/virtual/nvme-subsystem/nvme-subsys0", "SUBSYSTEM=nvme-subsystem")),
        ("pcie", message("add", "/devices/pci0000:00/0000:00:04.0/nvme/nvme1", "SUBSYSTEM=nvme DEVNAME=nvme1")),
        (
            "fabrics-device",
            message(
                "add",
                "/devices/virtual/misc/nvme-fabrics",
                "SUBSYSTEM=misc MAJOR=10 MINOR=122 DEVNAME=nvme-fabrics",
            ),
        ),
        (
            "fc-discovery",
            message(
                "change",
                "/devices/virtual/fc/fc_udev_device",
                "SUBSYSTEM=fc FC_EVENT=nvmediscovery NVMEFC_HOST_TRADDR=nn-0x1:pn-0x2 NVMEFC_TRADDR=nn-0x3:pn-0x4",
            ),
        ),
        ("namespace", message("add", &format!("{nvme0}/nvme0n1"), "SUBSYSTEM=block DEVTYPE=disk DEVNAME=nvme0n1")),
        ("cut", cut),
        ("libudev", b"libudev\0\xfe\xed\xca\xfe\0\0\0\x28".to_vec()),
    ])
}

fn sources_seeds() -> Seeds {
    let file = |text: &str| text.as_bytes().to_vec();
    let path = "controller = transport=tcp;traddr=192.0.2.1;host-iface=eth0;queue-size=;ctrl-loss-tmo=-1\n";
    let host =
        "[Host]\nhostnqn = nqn.h\nhostid = f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f\ntls = yes\ntls-key-identity = x\n";
    let fabrics = format!(
        "[Discovery Controller Defaults]\nkeep-alive-tmo = 45\n[I/O Controller Defaults]\nhdr-digest = on\n{host}\
         [Discovery Controller]\npersistent = auto\n{path}[Subsystem]\nnqn = nqn.a\nkxchap-secret = hunter2\n{path}{path}"
    );
    Seeds::from([
        (
            "long-options",
            file("# c\n--transport=tcp --traddr=192.0.2.1 --trsvcid=8009 --host-iface=eth0 --persistent\n"),
        ),
        ("short-options", file("-t rdma -a 192.0.2.2 -w 192.0.2.3 -q nqn.h -k 0 -l -1 -gG -Q64 -S hunter2 -I=x\n")),
        ("abbreviated", file("--tra=tcp --trans tcp --trad ::1 --host_traddr none --nqn a,b --fast\n-\n--\n-=\n")),
        ("sections", fabrics.clone().into_bytes()),
        ("mistakes", file("x\n[\n[Subsystem]\ncontroller\ncontroller=;=;a\n[Host]\n[Host]\n[later]\nnqn=\u{1b}\n=\n")),
        ("not-utf-8", [fabrics.as_bytes(), b"nqn = \xff\n"].concat()),
    ])
}

fn exclusions_seeds() -> Seeds {
    let list = |text: &str| text.as_bytes().to_vec();
    Seeds::from([
        (
            "all-keys",
            list(
                "# a list\n\n[exclusions]\nexclusion = transport=tcp;traddr=192.0.2.1;trsvcid=4420;nqn=nqn.a;\
            host-traddr=192.0.2.2;host-iface=eth0;hostnqn=nqn.h;hostid=f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f\n",
            ),
        ),
        (
            "two-sections",
            list("[later]\nx=1\n[ exclusions ]\nexclusion=nqn=nqn.a\n[exclusions]\nexclusion=traddr=::1;\n"),
        ),
        (
            "mistakes",
            list(
                "exclusion=nqn=a\n[exclusions]\nexclusion\nexclusion=;\nexclusion=nqn=\nexclusion=x=\u{1b}\n[exclusions\n",
            ),
        ),
        ("not-utf-8", b"[exclusions]\nexclusion = nqn=\xff\xfe\n".to_vec()),
    ])
}

/// As a machine with little-endian numbers has them.
fn rtnetlink_seeds() -> Seeds {
    let padded = |mut bytes: Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let message = |kind: u16, body: &[u8]| {
        let length = 16 + body.len() as u32;
        padded([&length.to_le_bytes()[..], &kind.to_le_bytes(), &[0; 10], body].concat())
    };
    let attribute = |kind: u16, value: &[u8]| {
        padded([&(4 + value.len() as u16).to_le_bytes()[..], &kind.to_le_bytes(), value].concat())
    };
    let link = |family| {
        let header = [family, 0, 1, 0, 2, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0];
        message(16, &[&header[..], &attribute(3, b"eth0\0")].concat())
    };
    let address = |family, ip: &[u8], flags: u32| {
        let header = [family, 24, 0x80, 0, 2, 0, 0, 0];
        let rest = [attribute(1, ip), attribute(3, b"eth0\0"), attribute(8, &flags.to_le_bytes())].concat();
        message(20, &[&header[..], &rest].concat())
    };
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let route = |bits| message(24, &[2, bits, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
    let vlan = {
        let id = attribute(2, &attribute(1, &100u16.to_le_bytes()));
        let info = attribute(18, &[attribute(1, b"vlan\0"), id].concat());
        let header = [0, 0, 1, 0, 3, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0];
        let attributes = [attribute(3, b"eth0.100\0"), attribute(1, &[2, 0, 0, 0, 0, 1]), attribute(5, &[2, 0, 0, 0])];
        message(16, &[&header[..], &attributes.concat(), &info].concat())
    };
    let refusal = {
        let body = [&(-22i32).to_le_bytes()[..], &[20, 0, 0, 0], &[0; 12], &attribute(1, b"why\0")].concat();
        let mut bytes = message(2, &body);
        bytes[6..8].copy_from_slice(&0x300u16.to_le_bytes());
        bytes
    };
    let both = [link(0), address(2, &[192, 0, 2, 1], 0x80)].concat();
    let cut = both[..both.len() - 1].to_vec();
    Seeds::from([
        ("link", link(0)),
        ("bridge-port", link(7)),
        ("address", address(2, &[192, 0, 2, 1], 0x80)),
        ("address6", address(10, &link_local, 0x80)),
        ("tentative", address(10, &link_local, 0x40)),
        ("address-too-short", address(10, &link_local[..7], 0x80)),
        ("default-route", route(0)),
        ("other-route", route(24)),
        ("both", both),
        ("cut", cut),
        ("zero-length", vec![0; 64]),
        ("attribute-of-zero-length", message(16, &[0; 40])),
        ("vlan", vlan),
        ("refusal", refusal),
    ])
}

/// Without the identifier, which the fuzz target puts before it.
fn dns_seeds() -> Seeds {
    let message = |rcode: u8, answers: u8, records: &[u8]| {
        let header = [0x81, 0x80 | rcode, 0, 1, 0, answers, 0, 0, 0, 0];
        [&header[..], b"\x05array\x07example\x03org\0\0\x01\0\x01", records].concat()
    };
    let a = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x08\x05other\xc0\x12";
    let of_alias = [b"\x05other\xc0\x12", &a[2..]].concat();
    Seeds::from([
        ("address", message(0, 1, &a)),
        ("two-addresses", message(0, 2, &[a, a].concat())),
        ("alias", message(0, 2, &[&alias[..], &of_alias].concat())),
        ("no-such-name", message(3, 0, &[])),
        ("server-failure", message(2, 0, &[])),
        ("cut", message(0, 9, &a[..9])),
        ("endless-name", message(0, 0xff, &[1; 300])),
        ("pointer-to-itself", message(0, 1, &[0xc0, 28, 0, 1])),
        ("a-name", b"array.example.org".to_vec()),
    ])
}

fn pdu_seeds() -> Seeds {
    let pdu = |start: &[u8], length: usize| {
        let mut bytes = start.to_vec();
        bytes.resize(length, 0);
        bytes
    };
    Seeds::from([
        ("ic-resp", pdu(&[1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0], 128)),
        ("ic-resp-other-version", pdu(&[1, 0, 128, 0, 128, 0, 0, 0, 1, 0], 128)),
        ("ic-req", pdu(&[0, 0, 128, 0, 128], 128)),
        ("term-req", pdu(&[3, 0, 24, 0, 24, 0, 0, 0, 6], 24)),
        ("half", pdu(&[1, 0, 128, 0, 128], 64)),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("tls-alert", vec![0x15, 3, 3, 0, 2, 2, 10]),
        ("nothing", vec![]),
    ])
}

fn nbft_seeds() -> Seeds {
    use tables::{DISCOVERY_NQN, Discovery, Extended, Hfi, Security, Ssns, Table, ip, seal};
    let everything = Table {
        minor_revision: 1,
        hfis: vec![
            Hfi { host_name: "host".to_owned(), client_id: Some((vec![1; 4], vec![4; 18])), ..Hfi::default() },
            Hfi { index: 2, vlan: 100, flags: 7, address: ip("2001:db8::2"), prefix: 64, ..Hfi::default() },
        ],
        ssns: vec![
            Ssns {
                discovery: 1,
                secondary_hfis: vec![2],
                extended: Some(Extended {
                    cntlid: 7,
                    asqsz: 32,
                    dhcp_root_path: Some("nvme+tcp://192.0.2.1:4420/nqn.2026-01.example:root/1".to_owned()),
                    diagnostics: Some([2, 1, 30, 0, 3]),
                }),
                ..Ssns::default()
            },
            Ssns { index: 2, flags: 5, security: 1, trflags: 7, traddr: ip("2001:db8::1"), hfi: 2, ..Ssns::default() },
        ],
        security: vec![Security { keypath: "/redfish/v1/Keys".to_owned(), ..Security::default() }],
        discovery: vec![Discovery::default(), Discovery { index: 2, security: 1, ..Discovery::default() }],
        ..Table::default()
    };
    let attempt = Ssns { nqn: DISCOVERY_NQN.to_owned(), flags: 0x141, nsid: 0, discovery: 1, ..Ssns::default() };
    let empty = Table { hfis: vec![], ssns: vec![], ..Table::default() };
    let many = Table { ssns: vec![Ssns { secondary_hfis: vec![1; 300], ..Ssns::default() }; 20], ..Table::default() };
    let mut outside = Table::default().bytes();
    outside[tables::HFIS + 16] = 0xff;
    Seeds::from([
        ("one-path", Table::default().bytes()),
        ("everything", everything.bytes()),
        ("attempt", Table { ssns: vec![attempt], discovery: vec![Discovery::default()], ..Table::default() }.bytes()),
        ("empty", empty.bytes()),
        ("many", many.bytes()),
        ("outside-heap", seal(outside)),
        ("cut", Table::default().bytes()[..200].to_vec()),
    ])
}

fn avahi_seeds() -> Seeds {
    let start = "made|0\nowner|1\nmade|1\nmade|2\n";
    let item = "new|1|2|0|dc|_nvme-disc._tcp\n";
    let found = "found|3|192.0.2.1|8009|p=tcp|NQN=nqn.2026-01.example:dc\n";
    let resolved = |rest: &str| format!("{start}{item}made|3\n{rest}").into_bytes();
    // Each signal comes before its object has a name.
    let early = format!("made|0\nowner|1\n{item}made|1\nmade|2\n{found}made|3\n");
    Seeds::from([
        ("found", resolved(found)),
        ("link-local", resolved("found|3|fe80::1|8009|P=ROCE|nqn=\n")),
        ("nonsense", resolved("found|3|fe80::1%eth0|0|p=\u{1b}|nqn=nqn.a,b|=|\u{fffd}\n")),
        ("removed", resolved(&format!("{found}remove|1|2|0|dc|_nvme-disc._tcp\n{found}"))),
        ("fails", resolved("failure|3|Timeout\nmade|4\nfailure|4|Timeout\npass|60\nmade|5\n")),
        ("browser-fails", resolved(&format!("{found}failure|1|\u{7}\npass|60\nmade|6\nmade|7\n"))),
        ("restarted", resolved(&format!("{found}owner|0\nowner|1\nmade|1\nmade|2\ndone|1\ndone|2\npass|12\n"))),
        ("switched-off", resolved(&format!("{found}want|0\nwant|1\nmade|1\nmade|2\n"))),
        ("early", early.into_bytes()),
        ("raw", b"made|0\nowner|1\nraw|l\x04\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec()),
    ])
}

fn calls_seeds() -> Seeds {
    let call = |role: &str, interface: &str, member: &str| {
        let name = format!("org.nvmexpress.{role}");
        message::call(&name, &format!("/org/nvmexpress/{role}"), &interface.replace('*', &name), member)
    };
    let frame = |message: &Message| message::encode(message, 7).unwrap();
    let mut list = call("stac", "*", "list_controllers");
    list.body.push_param(true).unwrap();
    let mut pages = call("staf", "*", "get_log_pages");
    pages.body.push_params(&["tcp", "192.0.2.1", "8009", "nqn.d", "", "eth0", "nqn.h"]).unwrap();
    let mut get = call("staf", "org.freedesktop.DBus.Properties", "Get");
    get.body.push_params(&["org.nvmexpress.staf.debug", "tron"]).unwrap();
    let mut set = call("staf", "org.freedesktop.DBus.Properties", "Set");
    set.body.push_params(&["org.nvmexpress.staf.debug", "tron"]).unwrap();
    set.body.push_variant(true).unwrap();
    let info = call("staf", "*.debug", "process_info");
    let introspect = call("stac", "org.freedesktop.DBus.Introspectable", "Introspect");
    let ping = call("stac", "org.freedesktop.DBus.Peer", "Ping");
    let all = [&list, &pages, &get, &set, &info, &introspect, &ping].map(frame).concat();
    let mut owner = list.dynheader.make_response();
    owner.dynheader.response_serial = Some(1);
    owner.body.push_param(":1.7").unwrap();
    Seeds::from([
        ("list-controllers", frame(&list)),
        ("get-log-pages", frame(&pages)),
        ("set-tron", frame(&set)),
        ("one-after-the-other", all),
        ("answer", frame(&owner)),
        ("handshake", b"\0AUTH EXTERNAL 31303030\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n".to_vec()),
        ("handshake-without-identity", b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_vec()),
        ("handshake-refused", b"\0AUTH ANONYMOUS\r\nAUTH EXTERNAL 30\r\nCANCEL\r\n".to_vec()),
    ])
}

fn state_seeds() -> Seeds {
    let tid = |traddr, trsvcid, subsysnqn| {
        let spelling = Spelling { traddr, trsvcid, subsysnqn, host_iface: "eth0", ..Spelling::default() };
        Rc::new(TransportId::new(Transport::Tcp, spelling))
    };
    let [one, other] = ["192.0.2.1", "fe80::2%eth0"].map(|traddr| tid(traddr, "8009", DISCOVERY_NQN));
    let path = Legacy {
        id: LinkId { kind: ControllerKind::Io, tid: tid("192.0.2.9", "4420", "nqn.a") },
        ours: true,
        inode: 0,
        sources: vec![one.clone(), other.clone()],
        terms: Terms { needs_tls: true, ..Terms::default() },
        unseen: None,
    };
    let controller = |tid: &Rc<TransportId>, unseen| Legacy {
        id: LinkId { kind: ControllerKind::Discovery, tid: tid.clone() },
        ours: unseen == Some(Duration::ZERO),
        inode: 0,
        sources: Vec::new(),
        terms: Terms::default(),
        unseen,
    };
    let referral = Legacy { sources: vec![one.clone()], ..controller(&other, None) };
    let write = |legacy: &[Legacy]| StateFile::new(&PathBuf::new()).write(legacy).into_bytes();
    Seeds::from([
        ("nothing", write(&[])),
        ("listed", write(&[path.clone(), referral])),
        ("announced", write(&[path, controller(&one, Some(Duration::ZERO))])),
    ])
}

fn helper_seeds() -> Seeds {
    let connect = ConnectRequest {
        nqn: "nqn.a".to_owned(),
        transport: "tcp".to_owned(),
        traddr: "192.0.2.9".to_owned(),
        trsvcid: "4420".to_owned(),
        hostnqn: "nqn.h".to_owned(),
        keep_alive_tmo: Some(30),
        ctrl_loss_tmo: Some(-1),
        tls: true,
        dhchap_secret: "hunter2".to_owned(),
        ..ConnectRequest::default()
    };
    let smuggled = ConnectRequest { traddr: "192.0.2.9,hostnqn=x".to_owned(), ..connect.clone() };
    let request = |request| encode(1, &Request::Connect(Box::new(request))).unwrap();
    let reply = |reply: &Reply| encode(1, reply).unwrap();
    Seeds::from([
        ("connect", request(connect)),
        ("smuggled", request(smuggled)),
        ("resolve", encode(2, &Request::Resolve("array".to_owned())).unwrap()),
        ("connected", reply(&Reply::Connected { instance: 3, cntlid: 17 })),
        ("capabilities", reply(&Reply::Capabilities(Capabilities { notices: true, pleo: Some(false), piece: 4096 }))),
        ("log-page", reply(&Reply::LogPage { bytes: u64::MAX })),
        ("failed", reply(&Reply::Failed(Failure::InUse("/dev/nvme1n1 is mounted on /data".to_owned())))),
    ])
}
