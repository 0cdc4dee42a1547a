//! The daemon as D-Bus clients see it: every answer is made from what the state machines hold in memory.
//!
//! The keys and their order are those of nvme-stas. No key or secret is among the data that this module is given.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::bus::avahi::signals::SERVICE_TYPES;
use crate::bus::objects::Description;
use crate::bus::pages::{AllPages, FAILURE_KEY, PARKED_KEY, in_order};
use crate::bus::{ControllerId, EntryText, FinderPage, Objects, PageState, Role};
use crate::config::settings::HostIdentity;
use crate::core::Machine;
use crate::core::announcement::Announcement;
use crate::core::device::ControllerKind;
use crate::core::finder::Step;
use crate::core::links::LinkId;
use crate::core::tid::{TransportId, canonical_address, parse_ip};
use crate::daemon::logger;
use crate::daemon::requests::{FABRICS, Requests};
use crate::kernel::sysfs::Sysfs;
use crate::wire::discovery::EFLAG_NCC;

/// Where a controller has no kernel name.
const NO_DEVICE: &str = "nvme?";

/// What there is to tell beside the state machines.
#[derive(Debug)]
pub struct Facts {
    pub tron: bool,
    pub host_nqn: String,
    pub host_id: String,
    pub has_host_key: bool,
    pub symname: String,
    pub state_file: String,
    /// What is announced in the local network; `None` where that is of no interest.
    pub announcements: Option<BTreeSet<Announcement>>,
    /// What a finder in another process published last.
    pub finder_pages: Vec<FinderPage>,
    pub now: Instant,
    all_log_pages: RefCell<AllPages>,
}

impl Facts {
    pub fn new(now: Instant, state_file: String) -> Facts {
        Facts {
            tron: false,
            host_nqn: String::new(),
            host_id: String::new(),
            has_host_key: false,
            symname: String::new(),
            state_file,
            announcements: None,
            finder_pages: Vec::new(),
            now,
            all_log_pages: RefCell::default(),
        }
    }

    pub fn set_host(&mut self, host: &HostIdentity) {
        self.host_nqn = host.nqn.clone();
        self.host_id = host.id.clone();
        self.has_host_key = host.key.is_some();
        self.symname = host.symname.clone().unwrap_or_default();
    }

    pub fn set_tron(&mut self, on: bool) {
        self.tron = on;
        logger::set_tron(on);
    }
}

/// Whose controller it is.
pub fn role_of(id: &LinkId) -> Role {
    match id.kind {
        ControllerKind::Discovery => Role::Finder,
        ControllerKind::Io => Role::Connector,
    }
}

fn kind_of(role: Role) -> ControllerKind {
    match role {
        Role::Finder => ControllerKind::Discovery,
        Role::Connector => ControllerKind::Io,
    }
}

/// A view of the daemon for the length of a call.
pub struct Published<'a> {
    pub machine: &'a Machine,
    pub requests: &'a Requests,
    pub sysfs: &'a Sysfs,
    pub facts: &'a mut Facts,
}

impl Objects for Published<'_> {
    fn list_controllers(&self, role: Role, detailed: bool) -> Vec<Description> {
        self.ids(role).iter().map(|id| self.describe(id, detailed)).collect()
    }

    fn log_pages(&self, id: &ControllerId) -> Vec<EntryText> {
        self.find(Role::Finder, id).map(|id| self.entries(&id.tid)).unwrap_or_default()
    }

    fn all_log_pages(&self, detailed: bool) -> Rc<str> {
        let finder = self.machine.finder();
        let page = |id: &LinkId| finder.and_then(|finder| finder.page(&id.tid)).cloned();
        let pages = self.ids(Role::Finder).iter().map(|id| (self.describe(id, detailed), page(id))).collect();
        self.facts.all_log_pages.borrow_mut().json(pages)
    }

    fn process_info(&self, role: Role) -> String {
        let facts = &self.facts;
        let mut info = json!({
            "tron": facts.tron,
            "log-level": self.log_level(role),
            "hostnqn": facts.host_nqn,
            "hostid": facts.host_id,
            "hostkey": if facts.has_host_key { "set" } else { "" },
            "symname": facts.symname,
            "last known config file": facts.state_file,
            "config soak timer": "0s [off]",
            "kernel support.TP8013": python_bool(self.requests.knows("discovery")),
            "kernel support.host_iface": python_bool(self.requests.knows("host_iface")),
            "terminator.audit timer": "0s [off]",
        });
        if role == Role::Finder
            && let Value::Object(info) = &mut info
        {
            let services = facts.announcements.iter().flatten().map(|one| (one.to_string(), describe_announced(one)));
            let services = Map::from_iter(services);
            let service_types: &[&str] = if facts.announcements.is_some() { &SERVICE_TYPES } else { &[] };
            let avahi =
                json!({"avahi wake up timer": "0s [off]", "service types": service_types, "services": services});
            info.insert("avahi".to_owned(), avahi);
        }
        info.to_string()
    }

    fn controller_info(&self, role: Role, id: &ControllerId) -> String {
        let description = self.find(role, id).map(|id| self.describe(&id, true)).unwrap_or_default();
        let mut json = Vec::new();
        // A list of strings always serialises.
        let _ = in_order(&description, &mut serde_json::Serializer::new(&mut json));
        String::from_utf8(json).unwrap_or_default()
    }

    fn tron(&self, _: Role) -> bool {
        self.facts.tron
    }

    fn set_tron(&mut self, _: Role, on: bool) {
        self.facts.set_tron(on);
    }

    fn log_level(&self, _: Role) -> String {
        log::max_level().to_string()
    }
}

impl Published<'_> {
    fn ids(&self, role: Role) -> Vec<LinkId> {
        let (kind, links) = (kind_of(role), self.machine.links());
        let ids: BTreeSet<&LinkId> = links.wanted(kind).chain(links.kept(kind)).collect();
        ids.into_iter().cloned().collect()
    }

    /// The controller that a client means; a host NQN that is not given is this host's.
    fn find(&self, role: Role, id: &ControllerId) -> Option<LinkId> {
        let host_nqn = if id.host_nqn.trim().is_empty() { &self.facts.host_nqn } else { &id.host_nqn };
        let tid = ControllerId { host_nqn: host_nqn.clone(), ..id.clone() }.transport_id()?;
        let id = LinkId { kind: kind_of(role), tid: Rc::new(tid) };
        self.machine.links().is_wanted(&id).then_some(id)
    }

    fn entries(&self, tid: &TransportId) -> Vec<EntryText> {
        let page = self.machine.finder().and_then(|finder| finder.page(tid));
        page.into_iter().flat_map(|page| page.entries()).map(EntryText::from).collect()
    }

    fn describe(&self, id: &LinkId, detailed: bool) -> Description {
        let tid = &id.tid;
        let device = self.machine.links().device_of(id);
        let mut description: Description = vec![
            ("transport", tid.transport().as_str().to_owned()),
            ("traddr", tid.traddr().to_owned()),
            ("trsvcid", tid.trsvcid().to_owned()),
            ("subsysnqn", tid.subsysnqn().to_owned()),
            ("host-traddr", tid.host_traddr().to_owned()),
            ("host-iface", tid.host_iface().to_owned()),
            ("host-nqn", tid.host_nqn().to_owned()),
            ("device", device.map_or(NO_DEVICE, |device| &device.name).to_owned()),
        ];
        // A key of ours, and only where there is something to say.
        if let Some(why) = self.machine.links().kept_because(id) {
            description.push(("kept", why.to_owned()));
        }
        if detailed {
            self.add_progress(id, &mut description);
            match id.kind {
                ControllerKind::Discovery => self.add_finder_details(tid, &mut description),
                ControllerKind::Io => self.add_connector_details(tid, &mut description),
            }
            let shown = |attribute| device.map(|device| self.sysfs.attribute(&device.name, attribute));
            let or_empty = Option::unwrap_or_default;
            let host_id = device.map(|device| device.host_id.clone());
            description.extend([
                ("hostid", host_id.unwrap_or_else(|| self.machine.links().host_id_of(tid.host_nqn()))),
                ("hostnqn", tid.host_nqn().to_owned()),
                ("model", or_empty(shown("model"))),
                ("serial", or_empty(shown("serial"))),
                ("dctype", or_empty(shown("dctype"))),
                ("cntrltype", or_empty(device.map(|device| device.cntrltype.clone()))),
                ("connected", python_bool(shown("state").is_some_and(|state| state == "live"))),
            ]);
        }
        description
    }

    fn add_progress(&self, id: &LinkId, description: &mut Description) {
        let (failures, retry_at) = self.machine.links().attempts(id);
        let timer = match retry_at.map(|at| at.saturating_duration_since(self.facts.now).as_secs_f64()) {
            Some(left) => format!("{left:.1}s [{left:.1}s]"),
            None => "0.0s [off]".to_owned(),
        };
        description.extend([("connect attempts", failures.to_string()), ("retry connect timer", timer)]);
        if self.machine.links().device_of(id).is_some() {
            return;
        }
        let no_driver = || (!self.requests.is_ready()).then(|| format!("{FABRICS} does not exist"));
        if let Some(why) = no_driver().or_else(|| self.machine.last_failure(id)) {
            description.push((FAILURE_KEY, why));
        }
    }

    fn add_finder_details(&self, tid: &TransportId, description: &mut Description) {
        let Some(finder) = self.machine.finder() else {
            return;
        };
        let state = finder.page_state(tid);
        let step = finder.step(tid);
        let running = |its: Step, otherwise: &str| if step == Some(its) { "running" } else { otherwise }.to_owned();
        description.extend([
            ("origin", finder.origin(tid).map_or("", |origin| origin.as_str()).to_owned()),
            ("get log page operation", running(Step::Read, "None")),
            ("register operation", running(Step::Register, finder.registration(tid))),
            ("get supported log page operation", running(Step::Inquire, "None")),
            (PageState::KEY, state.as_str().to_owned()),
        ]);
        if let Some(until) = finder.parked_until(tid) {
            let left = until.saturating_duration_since(self.facts.now).as_secs();
            description.push((PARKED_KEY, format!("{left} s")));
        }
    }

    fn add_connector_details(&self, tid: &TransportId, description: &mut Description) {
        let entry = self.entry_of(tid);
        let ncc =
            entry.as_ref().is_some_and(|entry| entry.eflags.parse().is_ok_and(|flags: u16| flags & EFLAG_NCC != 0));
        let dlpe = entry.map(|entry| {
            let pairs = entry.pairs().map(|(key, value)| (key.to_owned(), Value::from(value)));
            Value::Object(Map::from_iter(pairs)).to_string()
        });
        description.extend([("dlpe", dlpe.unwrap_or_default()), ("dlpe.eflags.ncc", python_bool(ncc))]);
    }

    /// The log page entry that a path comes from, in this process or in the finder's.
    fn entry_of(&self, path: &TransportId) -> Option<EntryText> {
        // A link-local address got its zone here.
        let ip = |traddr: &str| parse_ip(traddr).map(|(ip, _)| ip);
        let is_it = |traddr: Option<&str>, subnqn: Option<&str>, trsvcid: Option<&str>| {
            subnqn == Some(path.subsysnqn())
                && trsvcid == Some(path.trsvcid())
                && traddr.is_some_and(|traddr| match path.ip() {
                    Some(its) => ip(traddr) == Some(its),
                    None => canonical_address(path.transport(), traddr) == path.traddr(),
                })
        };
        let connector = self.machine.connector()?;
        let own = self.machine.finder().and_then(|finder| {
            let pages = connector.sources(path).filter_map(|source| finder.page(source));
            pages.flat_map(|page| page.entries()).find(|entry| is_it(entry.traddr(), entry.subnqn(), entry.trsvcid()))
        });
        own.map(EntryText::from).or_else(|| {
            let entries = self.facts.finder_pages.iter().flat_map(|page| &page.entries);
            let mut its = entries.filter(|entry| is_it(Some(&entry.traddr), Some(&entry.subnqn), Some(&entry.trsvcid)));
            its.next().cloned()
        })
    }
}

fn describe_announced(announcement: &Announcement) -> Value {
    let place = announcement.place("");
    json!({
        "transport": place.transport().as_str(),
        "traddr": place.traddr(),
        "trsvcid": place.trsvcid(),
        "host-iface": place.host_iface(),
        "subsysnqn": place.subsysnqn(),
    })
}

/// As nvme-stas writes it.
fn python_bool(value: bool) -> String {
    if value { "True" } else { "False" }.to_owned()
}
