//! What the pure parts cost: a discovery log page from its bytes to the paths in it, one event in the state machines by how many
//! controllers they have, and what of that is done again when nothing has changed.
//!
//! For the benchmark: `cargo test --release --test measure -- --ignored --nocapture --test-threads=1` prints rows of a Markdown
//! table, `| figure | measured | compared to | ratio | goal |`, and nothing else that begins with `|`; medians, and ratios within
//! one run.
//!
//! `instructions` (needs valgrind) counts instead of timing, so that it can say on any machine whether something became more work:
//! it fails when a count is more than 5 % above the one in `measure.counts`, which is good for one version of rustc.
//! `UPDATE=1` writes that file anew.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use stas::bus::message;
use stas::config::parse_finder;
use stas::config::settings::{Common, ConnectOptions, ConnectorSettings, ControllerEntry, FinderSettings};
use stas::core::device::{ControllerKind, Device};
use stas::core::links::LinkId;
use stas::core::page::{Contents, Page};
use stas::core::tid::{DISCOVERY_NQN, Spelling, Transport, TransportId};
use stas::core::{Action, Event, Machine, Roles};
use stas::helper::message::Capabilities;
use stas::wire::uevent::Uevent;

const ROUNDS: usize = 21;
/// Entries of one log page.
const ENTRIES: usize = 4000;
const PER_SOURCE: usize = 10_000;

/// In a line of its own: the test harness has begun one with the test's name.
fn begin() {
    println!();
}

fn row(figure: &str, measured: &str, compared_to: &str, ratio: f64, goal: &str) {
    println!("| {figure} | {measured} | {compared_to} | {ratio:.1} × | {goal} |");
}

#[test]
#[ignore = "a benchmark: see above"]
fn pages() {
    begin();
    let bytes: Box<[u8]> = page(0, ENTRIES).into();
    let from = lister();
    let old = Page::new(bytes.clone()).unwrap();
    let known = Contents::of_page(&old, &from);
    let mut changed = bytes.clone();
    changed[1024 * (ENTRIES / 2) + 3] ^= 4;
    let changed = Page::new(changed).unwrap();
    let mut copy = bytes.clone();

    let copying = median(|| black_box(&mut copy).copy_from_slice(black_box(&bytes)));
    let reading = median(|| {
        let contents = Contents::of_page(black_box(&old), &from);
        assert_eq!(contents.paths.len(), ENTRIES);
    });
    let again = median(|| {
        let contents = known.of_next_page(&old, black_box(&changed), &from);
        assert_eq!(contents.paths.len(), ENTRIES);
    });
    let same = Page::new(bytes.clone()).unwrap();
    let comparing = median(|| assert!(black_box(&old) == black_box(&same)));
    for (figure, time, goal) in [
        ("parsed and listed", reading, "≥ 1 million entries/s"),
        ("one entry changed", again, "no unchanged entry is read again"),
        ("nothing changed", comparing, "about memcmp"),
    ] {
        let rate = ENTRIES as f64 / time.as_secs_f64() / 1e6;
        row(
            &format!("log page of {ENTRIES} entries, {figure}"),
            &format!("{time:.0?}, {rate:.2} million entries/s"),
            &format!("memcpy of the bytes, {copying:.0?}"),
            ratio(time, copying),
            goal,
        );
    }
}

#[test]
#[ignore = "a benchmark: see above"]
fn events() {
    begin();
    let mut first = None;
    for count in [100, 10_000, 100_000] {
        let mut world = World::with(count);
        let mut round = 0;
        let took = median(|| {
            for _ in 0..100 {
                round += 7919;
                world.lose_and_return(round % count);
            }
        });
        let event = took / 300;
        let first = *first.get_or_insert(event);
        row(
            &format!("one event in `core/` with {count} controllers"),
            &format!("{event:.2?}"),
            &format!("100 controllers, {first:.2?}"),
            ratio(event, first),
            &format!("≤ {:.1} × (log n)", (count as f64).ln() / 100f64.ln()),
        );
    }
}

// ---- instruction counts ----------------------------------------------------------------------------------------------

/// Sets itself up and hands out what is done over and over.
type Part = fn() -> Box<dyn FnMut()>;

/// What is counted.
const PARTS: [(&str, Part); 6] = [
    ("log page of 1000 entries", || {
        let (page, from) = (Page::new(page(0, 1000).into()).unwrap(), lister());
        Box::new(move || drop(black_box(Contents::of_page(black_box(&page), &from))))
    }),
    ("the same with one entry changed", || {
        let (old, mut bytes, from) = (Page::new(page(0, 1000).into()).unwrap(), page(0, 1000), lister());
        bytes[1024 * 500 + 3] ^= 4;
        let (new, known) = (Page::new(bytes.into()).unwrap(), Contents::of_page(&old, &from));
        Box::new(move || drop(black_box(known.of_next_page(&old, black_box(&new), &from))))
    }),
    ("one of 1000 controllers lost and connected again", || {
        let (mut world, mut round) = (World::with(1000), 0);
        Box::new(move || {
            round += 7919;
            world.lose_and_return(round % 1000);
        })
    }),
    ("uevent", || {
        const UEVENT: &[u8] =
            b"change@/devices/virtual/nvme-fabrics/ctl/nvme0\0ACTION=change\0DEVPATH=/devices/virtual/nvme-fabrics/\
            ctl/nvme0\0SUBSYSTEM=nvme\0NVME_AEN=0x70f002\0NVME_TRTYPE=tcp\0NVME_TRADDR=192.0.2.1\0NVME_TRSVCID=8009\0\
            NVME_HOST_TRADDR=none\0NVME_HOST_IFACE=none\0MAJOR=240\0MINOR=0\0DEVNAME=nvme0\0SEQNUM=4711\0";
        Box::new(|| {
            black_box(Uevent::parse(black_box(UEVENT)).unwrap().nvme_event());
        })
    }),
    ("D-Bus call", || {
        let mut call =
            message::call("org.nvmexpress.staf", "/org/nvmexpress/staf", "org.nvmexpress.staf", "get_all_log_pages");
        call.body.push_param(true).unwrap();
        let bytes = message::encode(&call, 7).unwrap();
        Box::new(move || drop(black_box(message::parse(black_box(&bytes)).unwrap())))
    }),
    ("configuration of 100 controllers", || {
        let controller =
            |number| format!("[[controller]]\ntransport = \"tcp\"\ntraddr = \"192.0.2.{number}\"\nkato = 10\n");
        let text: String = (1..=100).map(controller).collect();
        Box::new(move || drop(black_box(parse_finder(black_box(&text), Path::new("stafd.conf")).unwrap())))
    }),
];

const PART: &str = "STAS_MEASURED_PART";
const TIMES: &str = "STAS_MEASURED_TIMES";

#[test]
#[ignore = "takes valgrind: see above"]
fn instructions() {
    begin();
    const COUNTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/measure.counts");
    let rustc = Command::new("rustc").arg("--version").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap().trim().to_owned();
    let known = std::fs::read_to_string(COUNTS).unwrap_or_default();
    let mut lines = known.lines();
    let update = std::env::var_os("UPDATE").is_some();
    if !update && lines.next() != Some(&rustc) {
        return println!("skipped: measure.counts is not of this toolchain, {rustc}");
    }
    let known: BTreeMap<&str, u64> =
        lines.filter_map(|line| line.split_once('\t')).map(|(count, part)| (part, count.parse().unwrap())).collect();
    let mut written = format!("{rustc}\n");
    let mut grown = Vec::new();
    for (part, _) in PARTS {
        // What is done once, the test harness included, drops out.
        let count = (count_instructions(part, 12) - count_instructions(part, 2)) / 10;
        written += &format!("{count}\t{part}\n");
        let before = known.get(part).copied().unwrap_or(count);
        let ratio = count as f64 / before as f64;
        row(&format!("instructions: {part}"), &count.to_string(), &before.to_string(), ratio, "≤ 1.05 ×");
        if ratio > 1.05 {
            grown.push(part);
        }
    }
    if update {
        std::fs::write(COUNTS, written).unwrap();
    } else {
        assert!(grown.is_empty(), "more instructions than in {COUNTS}: {grown:?}");
    }
}

/// By running this very program under valgrind.
fn count_instructions(part: &str, times: u32) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "counted", "--ignored", "--test-threads=1"])
        .env(PART, part)
        .env(TIMES, times.to_string())
        .output()
        .expect("valgrind is to be installed");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let count = words.lines().find_map(|line| line.split_once("Collected : "));
    count.unwrap_or_else(|| panic!("{words}")).1.trim().parse().unwrap()
}

/// What [`count_instructions`] runs.
#[test]
#[ignore = "part of `instructions`"]
fn counted() {
    let Ok(wanted) = std::env::var(PART) else { return };
    let (_, part) = PARTS.into_iter().find(|(part, _)| *part == wanted).unwrap();
    let times = std::env::var(TIMES).unwrap().parse().unwrap();
    let mut part = part();
    (0..times).for_each(|_| part());
}

fn lister() -> TransportId {
    TransportId::new(Transport::Tcp, Spelling { traddr: "192.0.2.1", trsvcid: "8009", ..Spelling::default() })
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn median(mut what: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            what();
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

/// The state machines of a process with so many I/O controllers, all of them connected.
struct World {
    machine: Machine,
    now: Instant,
    devices: Vec<Device>,
    todo: VecDeque<Event>,
}

impl World {
    fn with(count: usize) -> World {
        let machine = Machine::new(Roles { finder: true, connector: true }, 1);
        let mut world = World { machine, now: Instant::now(), devices: Vec::new(), todo: VecDeque::new() };
        let sources = (0..count.div_ceil(PER_SOURCE)).map(|source| ControllerEntry {
            transport: Transport::Tcp,
            traddr: source_address(source),
            trsvcid: "8009".into(),
            subsysnqn: DISCOVERY_NQN.into(),
            host_traddr: String::new(),
            host_iface: String::new(),
            host_nqn: String::new(),
            host_id: String::new(),
            options: ConnectOptions::default(),
        });
        let common = Common { controllers: sources.collect(), ..Common::default() };
        world.handle(Event::FabricsReady(true));
        world.handle(Event::DevicesRead(Vec::new()));
        world.handle(Event::Configured {
            host_nqn: "nqn.host".into(),
            symname: String::new(),
            finder: Some(Box::new(FinderSettings { common, ..FinderSettings::default() })),
            connector: Some(Box::new(ConnectorSettings::default())),
        });
        let wanted = count;
        world.run(|source| page(source, PER_SOURCE.min(wanted - source * PER_SOURCE)));
        let io =
            world.machine.links().wanted(ControllerKind::Io).filter(|id| world.machine.links().is_live(id)).count();
        assert_eq!(io, count);
        world.devices.retain(|device| device.kind == ControllerKind::Io);
        world
    }

    fn handle(&mut self, event: Event) {
        self.machine.handle(self.now, event);
    }

    /// The kernel loses a controller and it is connected again: it goes, its portal answers, the connect is done.
    fn lose_and_return(&mut self, which: usize) {
        self.now += Duration::from_secs(3600);
        self.handle(Event::DeviceRemoved(self.devices[which].name.clone()));
        let count = self.devices.len();
        self.run(|_| Vec::new());
        // Under another name.
        let device = self.devices.pop().unwrap();
        assert_eq!(self.devices.len(), count);
        self.devices[which] = device;
    }

    /// Does what the machine asks for, until there is nothing.
    fn run(&mut self, page: impl Fn(usize) -> Vec<u8>) {
        loop {
            while let Some(action) = self.machine.poll_action(self.now) {
                self.todo.extend(self.answer(action, &page));
            }
            let Some(event) = self.todo.pop_front() else {
                return;
            };
            if let Event::Connected { outcome: Ok(Some(device)), .. } = &event {
                self.devices.push(device.clone());
            }
            self.handle(event);
        }
    }

    fn answer(&self, action: Action, page: impl Fn(usize) -> Vec<u8>) -> Option<Event> {
        Some(match action {
            Action::Probe(portal) => Event::Probed { portal, outcome: Ok(()) },
            Action::Connect { ticket, id, host_id, .. } => {
                let device = Device { host_id, ..device(&id, &format!("nvme{ticket}")) };
                Event::Connected { ticket, outcome: Ok(Some(device)) }
            }
            Action::Register { ticket, .. } => Event::Registered { ticket, outcome: Ok(false) },
            Action::Inquire { ticket, .. } => {
                Event::Inquired { ticket, outcome: Ok(Capabilities { notices: true, pleo: None, piece: 0 }) }
            }
            Action::ReadLogPage { ticket, device, .. } => {
                let device = self.devices.iter().find(|candidate| candidate.name == device).unwrap();
                let source = (0..).find(|source| source_address(*source) == device.traddr).unwrap();
                Event::PageRead { ticket, outcome: Ok(page(source).into()) }
            }
            _ => return None,
        })
    }
}

fn source_address(source: usize) -> String {
    format!("192.0.2.{}", source + 1)
}

fn device(id: &LinkId, name: &str) -> Device {
    let tid = &id.tid;
    Device {
        kind: id.kind,
        state: "live".into(),
        traddr: tid.traddr().into(),
        trsvcid: tid.trsvcid().into(),
        subsysnqn: tid.subsysnqn().into(),
        host_nqn: tid.host_nqn().into(),
        dctype: "none".into(),
        cntrltype: if id.kind == ControllerKind::Io { "io" } else { "discovery" }.into(),
        ..Device::new(name, tid.transport())
    }
}

/// A log page: four subsystems at each address.
fn page(source: usize, entries: usize) -> Vec<u8> {
    let mut bytes = vec![0; 1024 * (entries + 1)];
    bytes[8..16].copy_from_slice(&(entries as u64).to_le_bytes());
    for (number, record) in bytes[1024..].chunks_mut(1024).enumerate() {
        let (nqn, host) = (format!("nqn.2026-01.example:{source:02}.{number:06}"), number / 4);
        let traddr = format!("10.{source}.{}.{}", host / 250, host % 250 + 1);
        record[..3].copy_from_slice(&[3, 1, 2]);
        record[32..36].copy_from_slice(b"4420");
        record[256..][..nqn.len()].copy_from_slice(nqn.as_bytes());
        record[512..][..traddr.len()].copy_from_slice(traddr.as_bytes());
    }
    bytes
}
