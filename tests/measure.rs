//! What the pure parts cost, for the benchmark (`tests/bench`): a discovery log page from its bytes to the paths in it, and one
//! event in the state machines by how many controllers they have. Lines of a Markdown table, with ratios within one run.

use std::collections::VecDeque;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stas::config::settings::{Common, ConnectOptions, ConnectorSettings, ControllerEntry, FinderSettings};
use stas::core::device::{ControllerKind, Device};
use stas::core::links::LinkId;
use stas::core::page::{Contents, Page};
use stas::core::tid::{DISCOVERY_NQN, Spelling, Transport, TransportId};
use stas::core::{Action, Event, Machine, Roles};
use stas::helper::message::Capabilities;

const ROUNDS: usize = 21;
/// Entries of one log page.
const ENTRIES: usize = 4000;
const PER_SOURCE: usize = 10_000;

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn pages() {
    let bytes: Box<[u8]> = page(0, ENTRIES).into();
    let from =
        TransportId::new(Transport::Tcp, Spelling { traddr: "192.0.2.1", trsvcid: "8009", ..Spelling::default() });
    let old = Page::new(bytes.clone()).unwrap();
    let copying = median(|| drop(black_box(black_box(&bytes).clone())));
    let reading = |bytes: &[u8]| {
        let page = Page::new(bytes.into()).unwrap();
        let contents = Contents::of_page(&page, &from);
        assert_eq!(contents.paths.len(), ENTRIES);
    };
    let reading = median(|| reading(black_box(&bytes)));
    let comparing = median(|| assert!(black_box(&old) == black_box(&Page::new(bytes.clone()).unwrap())));
    let rate = |time: Duration| ENTRIES as f64 / time.as_secs_f64() / 1e6;
    println!(
        "| log page of {ENTRIES} entries: bytes to paths | memcpy of the bytes, {copying:.0?} | {reading:.0?} | {:.1} × | ≥ 1 million entries/s: {:.2} |",
        ratio(reading, copying),
        rate(reading)
    );
    println!(
        "| the same page once more: seen to be the same | memcpy of the bytes, {copying:.0?} | {comparing:.0?} | {:.1} × | {:.1} million entries/s |",
        ratio(comparing, copying),
        rate(comparing)
    );
}

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn events() {
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
        println!(
            "| one event in `core/` with {count} controllers | 100 controllers, {first:.2?} | {event:.2?} | {:.1} × | log n: {:.1} × |",
            ratio(event, first),
            (count as f64).ln() / 100f64.ln()
        );
    }
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
    let (tid, none): (&Rc<TransportId>, _) = (&id.tid, String::new);
    Device {
        name: name.into(),
        transport: tid.transport(),
        kind: id.kind,
        state: "live".into(),
        traddr: tid.traddr().into(),
        trsvcid: tid.trsvcid().into(),
        subsysnqn: tid.subsysnqn().into(),
        host_traddr: none(),
        host_iface: none(),
        src_addr: none(),
        src_iface: none(),
        host_nqn: tid.host_nqn().into(),
        host_id: none(),
        dctype: "none".into(),
        cntrltype: if id.kind == ControllerKind::Io { "io" } else { "discovery" }.into(),
        model: none(),
        serial: none(),
        kato: None,
        owner: None,
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
