//! The state machines under a virtual clock: events go in, actions are collected and answered by hand.
//!
//! [`World`] also checks, after every event, what must hold whatever happens: no second connect at one place, no more
//! connects in flight than allowed, no disconnect of what is still used or was never ours, no deadline that has passed.

mod adoption;
mod announced;
mod audit;
mod connecting;
mod evidence;
mod fc_ports;
mod firmware;
mod host;
mod hurry;
mod kept;
mod names;
mod pages;
mod parking;
mod referrals;
mod replacing;
mod session;
mod terms;
pub mod walk;
mod withdrawal;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::config::settings::{
    Common, ConnectOptions, ConnectorSettings, ControllerEntry, DisconnectScope, Exclusion, FinderSettings, IpFamily,
    Persistence, Persistent,
};
use crate::core::device::{ControllerKind, Device};
use crate::core::evidence::Testimony;
use crate::core::exclusion::HostExclusion;
use crate::core::host::HostIds;
use crate::core::links::LinkId;
use crate::core::portal::PortalId;
use crate::core::terms::{Listing, Terms};
use crate::core::tid::{DISCOVERY_NQN, Spelling, Transport, TransportId};
use crate::core::{Action, Change, Event, Legacy, Machine, Roles, Ticket};
use crate::helper::message::{Capabilities, Failure};

const HOST: &str = "nqn.host";
const DC: &str = "192.0.2.1";
/// What it lists, as [`World::page`] has it.
const PATH: &str = "nqn.a@192.0.2.9";
const SELF_ENTRY: &str = "nqn.dc1@192.0.2.1";
const POLLING: Duration = Duration::from_secs(900);
const BOTH: Roles = Roles { finder: true, connector: true };
const CONNECTOR: Roles = Roles { finder: false, connector: true };

/// A machine, its clock, and what it asked for that is not answered yet.
struct World {
    machine: Machine,
    now: Instant,
    settings: Settings,
    probes: Vec<PortalId>,
    connects: Vec<(Ticket, LinkId)>,
    /// Of the last connect.
    options: Rc<ConnectOptions>,
    disconnects: Vec<(Ticket, Device)>,
    page_reads: Vec<(Ticket, String)>,
    /// Registrations and inquiries that were asked for, for those tests that answer themselves.
    registers: Vec<(Ticket, String)>,
    inquiries: Vec<(Ticket, String)>,
    /// Otherwise they are answered at once: registrations are not offered, and this is what a controller can do.
    by_hand: bool,
    can: Capabilities,
    /// Whether the last page was asked for with the entries of one port only.
    port_local: bool,
    resolves: Vec<(Ticket, Rc<str>)>,
    device_reads: usize,
    fc_questions: usize,
    published: Vec<Change>,
    notes: Vec<String>,
    saves: usize,
    /// What the host excludes.
    excluded: Vec<HostExclusion>,
    /// Of the last connect.
    host_id: String,
    /// Kernel controllers that we connected or inherited.
    ours: BTreeSet<String>,
}

/// What the configuration files say.
#[derive(Clone)]
struct Settings {
    discovery: Vec<ControllerEntry>,
    io: Vec<ControllerEntry>,
    exclusions: Vec<Exclusion>,
    scope: DisconnectScope,
    attempts_on_ncc: Option<u32>,
    /// Of all I/O controllers.
    options: ConnectOptions,
    persistent_connections: bool,
    ignore_iface: bool,
    ip_family: IpFamily,
    persistence: Persistence,
    pleo: bool,
    persistent: Persistent,
    symname: String,
}

impl World {
    /// Both roles, nothing configured, the kernel ready.
    fn new() -> World {
        World::with_roles(BOTH)
    }

    fn with_roles(roles: Roles) -> World {
        let settings = Settings {
            discovery: Vec::new(),
            io: Vec::new(),
            exclusions: Vec::new(),
            scope: DisconnectScope::OnlyStasConnections,
            attempts_on_ncc: None,
            options: ConnectOptions::default(),
            persistent_connections: true,
            ignore_iface: false,
            ip_family: IpFamily::default(),
            persistence: Persistence::Forever,
            pleo: true,
            persistent: Persistent::Auto,
            symname: String::new(),
        };
        let mut world = World {
            machine: Machine::new(roles, 42),
            now: Instant::now(),
            settings,
            probes: Vec::new(),
            connects: Vec::new(),
            options: Rc::default(),
            disconnects: Vec::new(),
            page_reads: Vec::new(),
            registers: Vec::new(),
            inquiries: Vec::new(),
            by_hand: false,
            can: Capabilities { notices: true, pleo: None, piece: 0 },
            port_local: false,
            resolves: Vec::new(),
            device_reads: 0,
            fc_questions: 0,
            published: Vec::new(),
            notes: Vec::new(),
            saves: 0,
            excluded: Vec::new(),
            host_id: String::new(),
            ours: BTreeSet::new(),
        };
        world.event(Event::FabricsReady(true));
        world
    }

    /// With a discovery controller at [`DC`] that is connected as nvme0; its first page is asked for.
    fn with_discovery() -> World {
        let mut world = World::new();
        world.settings.discovery = vec![entry(DC, "")];
        world.configure();
        world.connect(DC, "nvme0");
        world
    }

    /// The same with [`PATH`] listed and, for a minute, connected as nvme1.
    fn with_path() -> World {
        let mut world = World::with_discovery();
        world.page(&[PATH]);
        world.connect("192.0.2.9", "nvme1");
        world.pass_secs(60);
        world
    }

    // ---- events ----------------------------------------------------------------------------------------------------

    fn event(&mut self, event: Event) {
        self.machine.handle(self.now, event);
        self.collect();
    }

    fn configure(&mut self) {
        // As the configuration's reader completes them.
        let complete = |entry: &ControllerEntry, trsvcid: &str, subsysnqn: &str| {
            let or = |given: &str, value: &str| if value.is_empty() { given.to_owned() } else { value.to_owned() };
            let trsvcid = if entry.transport.is_ip() { or(trsvcid, &entry.trsvcid) } else { String::new() };
            ControllerEntry { trsvcid, subsysnqn: or(subsysnqn, &entry.subsysnqn), ..entry.clone() }
        };
        let common = |controllers: &[ControllerEntry], trsvcid, subsysnqn| Common {
            controllers: controllers.iter().map(|entry| complete(entry, trsvcid, subsysnqn)).collect(),
            exclusions: self.settings.exclusions.clone(),
            ignore_iface: self.settings.ignore_iface,
            ip_family: self.settings.ip_family,
            ..Common::default()
        };
        let finder = FinderSettings {
            common: common(&self.settings.discovery, "8009", DISCOVERY_NQN),
            pleo: self.settings.pleo,
            zeroconf: false,
            persistent_connections: self.settings.persistent_connections,
            zeroconf_persistence: self.settings.persistence,
            persistent: self.settings.persistent,
            polling_interval: POLLING,
        };
        let connector = ConnectorSettings {
            common: Common { options: self.settings.options.clone(), ..common(&self.settings.io, "4420", "") },
            disconnect_scope: self.settings.scope,
            disconnect_trtypes: vec![Transport::Tcp],
            disconnect_in_use: false,
            connect_attempts_on_ncc: self.settings.attempts_on_ncc,
        };
        let host_nqn = HOST.to_owned();
        let (finder, connector) = (Some(Box::new(finder)), Some(Box::new(connector)));
        let symname = self.settings.symname.clone();
        self.event(Event::Configured { host_nqn, symname, finder, connector });
    }

    /// The host's list excludes these subsystems.
    fn exclude(&mut self, nqns: &[&str]) {
        let exclusion = |nqn: &&str| HostExclusion {
            keys: Exclusion { subsysnqn: (*nqn).into(), ..Exclusion::default() },
            place: "/etc/nvme/exclusions.conf:3".into(),
            ..HostExclusion::default()
        };
        self.excluded = nqns.iter().map(exclusion).collect();
        self.event(Event::HostExcludes(self.excluded.clone()));
    }

    /// An earlier run left these controllers connected as ours.
    fn inherit(&mut self, legacy: Vec<Legacy>, devices: Vec<Device>) {
        self.ours.extend(devices.iter().map(|device| device.name.clone()));
        self.machine.inherit(legacy);
        self.event(Event::DevicesRead(devices));
    }

    fn answer_probe(&mut self, traddr: &str) {
        let portal = self.take_probe(traddr);
        self.event(Event::Probed { portal, outcome: Ok(()) });
    }

    fn fail_probe(&mut self, traddr: &str) {
        let portal = self.take_probe(traddr);
        self.event(Event::Probed { portal, outcome: Err("silence".into()) });
    }

    fn take_probe(&mut self, traddr: &str) -> PortalId {
        let index = self.probes.iter().position(|portal| portal.traddr == traddr);
        self.probes.remove(index.unwrap_or_else(|| panic!("no probe of {traddr} in {:?}", self.probes)))
    }

    /// The oldest connect in flight succeeds.
    fn connect_ok(&mut self, name: &str) {
        let (ticket, id) = self.connects.remove(0);
        self.ours.insert(name.to_owned());
        self.event(Event::Connected { ticket, outcome: Ok(Some(serving(&id, name))) });
    }

    fn connect_fails(&mut self, errno: Errno) {
        let (ticket, _) = self.connects.remove(0);
        self.event(Event::Connected { ticket, outcome: Err(Failure::from(errno)) });
    }

    /// All the way, from the probe if there is one: an earlier answer may still be believed.
    fn connect(&mut self, traddr: &str, name: &str) {
        self.let_through(traddr);
        assert_eq!(self.connecting(), [traddr]);
        self.connect_ok(name);
    }

    fn let_through(&mut self, traddr: &str) {
        if self.probing().contains(&traddr) {
            self.answer_probe(traddr);
        }
    }

    fn disconnect_fails(&mut self, failure: Failure) {
        let (ticket, _) = self.disconnects.remove(0);
        self.event(Event::Disconnected { ticket, outcome: Err(failure) });
    }

    fn disconnect_ok(&mut self) {
        let (ticket, device) = self.disconnects.remove(0);
        self.removed(&device.name);
        self.event(Event::Disconnected { ticket, outcome: Ok(()) });
    }

    fn removed(&mut self, name: &str) {
        self.ours.remove(name);
        self.event(Event::DeviceRemoved(name.into()));
    }

    fn up(&mut self, device: &Device) {
        self.event(Event::DeviceUp(device.clone()));
    }

    fn aen(&mut self, name: &str) {
        self.event(Event::LogChanged(name.into()));
    }

    /// The oldest page read is answered with entries like `nqn.a@192.0.2.9`.
    fn page(&mut self, entries: &[&str]) {
        self.page_read(Ok(page(entries).into()));
    }

    /// The oldest page read is answered with these entries, and one of the controller itself that does not claim to
    /// support lasting connections.
    fn declining_page(&mut self, entries: &[&str]) {
        let mut bytes = page(&[&[SELF_ENTRY], entries].concat());
        bytes[1024 + 2] = 3;
        self.page_read(Ok(bytes.into()));
    }

    fn registered(&mut self, outcome: Result<bool, Failure>) {
        let (ticket, _) = self.registers.remove(0);
        self.event(Event::Registered { ticket, outcome });
    }

    fn inquired(&mut self, outcome: Result<Capabilities, Failure>) {
        let (ticket, _) = self.inquiries.remove(0);
        self.event(Event::Inquired { ticket, outcome });
    }

    /// The page read from this controller is answered with such entries.
    fn page_of(&mut self, device: &str, entries: &[&str]) {
        let index = self.page_reads.iter().position(|(_, of)| of == device);
        let (ticket, _) = self.page_reads.remove(index.unwrap_or_else(|| panic!("no read of {device}")));
        self.event(Event::PageRead { ticket, outcome: Ok(page(entries).into()) });
    }

    fn page_read(&mut self, outcome: Result<Box<[u8]>, String>) {
        let (ticket, _) = self.page_reads.remove(0);
        self.event(Event::PageRead { ticket, outcome });
    }

    /// Lets time pass, with every deadline on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.machine.poll_deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline.max(self.now);
            self.machine.handle_deadline(self.now);
            let next = self.machine.poll_deadline();
            assert!(next.is_none_or(|next| next > self.now), "a deadline that comes back at once");
            self.collect();
        }
        self.now = end;
    }

    /// Lets time pass until something is due.
    fn pass_to_deadline(&mut self) {
        let deadline = self.machine.poll_deadline().unwrap();
        self.pass(deadline.saturating_duration_since(self.now));
    }

    fn pass_secs(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    // ---- what it asks for ------------------------------------------------------------------------------------------

    fn collect(&mut self) {
        while let Some(action) = self.machine.poll_action(self.now) {
            match action {
                Action::Probe(portal) => self.probes.push(portal),
                Action::Connect { ticket, id, options, host_id } => {
                    self.host_id = host_id;
                    self.options = options;
                    self.connects.push((ticket, id));
                    self.check_connects();
                }
                Action::Disconnect { ticket, device } => {
                    self.check_disconnect(&device);
                    self.disconnects.push((ticket, *device));
                }
                Action::Register { ticket, device } if self.by_hand => self.registers.push((ticket, device)),
                Action::Register { ticket, .. } => {
                    self.machine.handle(self.now, Event::Registered { ticket, outcome: Ok(false) });
                }
                Action::Inquire { ticket, device, .. } if self.by_hand => self.inquiries.push((ticket, device)),
                Action::Inquire { ticket, .. } => {
                    self.machine.handle(self.now, Event::Inquired { ticket, outcome: Ok(self.can) });
                }
                Action::ReadLogPage { ticket, device, how } => {
                    self.page_reads.push((ticket, device));
                    self.port_local = how.port_local;
                }
                Action::Resolve { ticket, name } => self.resolves.push((ticket, name)),
                Action::ReadDevices => self.device_reads += 1,
                Action::AskFcPorts => self.fc_questions += 1,
                Action::Publish(change) => self.published.push(change),
                Action::Save => self.saves += 1,
                Action::Note(note) => self.notes.push(note.to_string()),
            }
        }
    }

    fn check_connects(&self) {
        let (_, last) = self.connects.last().unwrap();
        assert!(self.connects.len() <= 2, "{:?}", self.connects);
        assert!(
            !self.excluded.iter().any(|exclusion| exclusion.matches(&last.tid, &self.host_id)),
            "{last} is excluded"
        );
        assert!(
            self.connects.iter().rev().skip(1).all(|(_, other)| !other.is_same_place(last)),
            "two connects at the same place: {:?}",
            self.connects
        );
        let devices = self.machine.links().devices();
        let serving =
            devices.filter(|device| device.is_usable() && !device.is_passing() && device.serves(&last.tid, last.kind));
        let leaving = |device: &Device| self.disconnects.iter().any(|(_, other)| other.name == device.name);
        assert_eq!(serving.filter(|device| !leaving(device)).count(), 0, "{last} is connected already");
    }

    fn check_disconnect(&self, device: &Device) {
        let is_audited = self.settings.scope == DisconnectScope::AllConnectionsMatchingDisconnectTrtypes;
        assert!(is_audited || self.ours.contains(&device.name), "{} is not ours", device.name);
        let mut served = self.machine.links().served_by(&device.name);
        assert_eq!(served.next(), None, "{} is still used", device.name);
    }

    /// The addresses of the connects in flight, oldest first.
    fn connecting(&self) -> Vec<&str> {
        self.connects.iter().map(|(_, id)| id.tid.traddr()).collect()
    }

    /// The names of the controllers that are being disconnected.
    fn disconnecting(&self) -> Vec<&str> {
        self.disconnects.iter().map(|(_, device)| device.name.as_str()).collect()
    }

    /// The addresses that are being probed, in order.
    fn probing(&self) -> Vec<&str> {
        let mut probing: Vec<&str> = self.probes.iter().map(|portal| portal.traddr.as_str()).collect();
        probing.sort();
        probing
    }

    fn device_of(&self, id: &LinkId) -> Option<&str> {
        self.machine.links().device_of(id).map(|device| device.name.as_str())
    }

    #[track_caller]
    fn assert_nothing_to_do(&self) {
        assert_eq!((self.probing(), self.connecting(), self.disconnecting()), (vec![], vec![], vec![]));
        assert_eq!((&self.page_reads, &self.registers, &self.inquiries), (&vec![], &vec![], &vec![]));
    }
}

// ---- builders ----------------------------------------------------------------------------------------------------

/// A `controller` line: `nqn` may be empty for a discovery controller.
fn entry(traddr: &str, nqn: &str) -> ControllerEntry {
    ControllerEntry {
        transport: Transport::Tcp,
        traddr: traddr.into(),
        trsvcid: String::new(),
        subsysnqn: nqn.into(),
        host_traddr: String::new(),
        host_iface: String::new(),
        host_nqn: String::new(),
        host_id: String::new(),
        options: ConnectOptions::default(),
    }
}

fn via(host_iface: &str, entry: ControllerEntry) -> ControllerEntry {
    ControllerEntry { host_iface: host_iface.into(), ..entry }
}

/// The discovery controller at this address.
fn dc(traddr: &str) -> LinkId {
    link(ControllerKind::Discovery, traddr, "8009", DISCOVERY_NQN, "")
}

/// The I/O controller that `nqn.a@192.0.2.9` stands for, `nqn.a@192.0.2.9%eth0` if pinned to an interface.
fn io(path: &str) -> LinkId {
    let (nqn, traddr) = path.split_once('@').unwrap();
    let (traddr, iface) = traddr.split_once('%').unwrap_or((traddr, ""));
    link(ControllerKind::Io, traddr, "4420", nqn, iface)
}

fn link(kind: ControllerKind, traddr: &str, trsvcid: &str, subsysnqn: &str, host_iface: &str) -> LinkId {
    let spelling = Spelling { traddr, trsvcid, subsysnqn, host_iface, host_traddr: "", host_nqn: HOST };
    LinkId { kind, tid: Rc::new(TransportId::new(Transport::Tcp, spelling)) }
}

/// The kernel controller that a connect of this link makes.
fn serving(id: &LinkId, name: &str) -> Device {
    Device {
        kind: id.kind,
        state: "live".into(),
        traddr: id.tid.traddr().into(),
        trsvcid: id.tid.trsvcid().into(),
        subsysnqn: id.tid.subsysnqn().into(),
        host_traddr: id.tid.host_traddr().into(),
        host_iface: id.tid.host_iface().into(),
        src_addr: "192.0.2.200".into(),
        src_iface: if id.tid.host_iface().is_empty() { "eth0" } else { id.tid.host_iface() }.into(),
        host_nqn: id.tid.host_nqn().into(),
        kato: (id.kind == ControllerKind::Discovery).then_some(30),
        ..Device::new(name, id.tid.transport())
    }
}

/// A discovery log page with entries like `nqn.a@192.0.2.9` for NVM subsystems, `>192.0.2.2` and `>nqn.x@192.0.2.2` for
/// referrals, `=192.0.2.1` for the discovery controller itself.
fn page(entries: &[&str]) -> Vec<u8> {
    page_on_terms(&entries.iter().map(|entry| (*entry, 0, 0)).collect::<Vec<_>>())
}

/// The same with TREQ and EFLAGS.
fn page_on_terms(entries: &[(&str, u8, u8)]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[8..16].copy_from_slice(&(entries.len() as u64).to_le_bytes());
    for (entry, treq, eflags) in entries {
        let (subtype, trsvcid, entry) = match (entry.strip_prefix('>'), entry.strip_prefix('=')) {
            (Some(entry), _) => (1, b"8009", entry),
            (_, Some(entry)) => (3, b"8009", entry),
            _ => (2, b"4420", *entry),
        };
        let (nqn, traddr) = entry.split_once('@').unwrap_or((DISCOVERY_NQN, entry));
        let mut record = [0; 1024];
        record[3] = *treq;
        record[10] = *eflags;
        record[..3].copy_from_slice(&[3, 1, subtype]);
        record[32..36].copy_from_slice(trsvcid);
        record[256..][..nqn.len()].copy_from_slice(nqn.as_bytes());
        record[512..][..traddr.len()].copy_from_slice(traddr.as_bytes());
        bytes.extend(record);
    }
    bytes
}

fn fresh(paths: &[&str]) -> Testimony {
    Testimony::Fresh(paths.iter().map(|path| (io(path).tid, Terms::default())).collect::<Listing>().into())
}

fn stale(paths: &[&str]) -> Testimony {
    Testimony::Stale(paths.iter().map(|path| (io(path).tid, Terms::default())).collect::<Listing>().into())
}
