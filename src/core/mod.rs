//! The state machines: deterministic logic in the manner of a protocol library. They are handed the time and what happened
//! ([`Event`]), and say what to do ([`Action`]); they have no clock, file, socket or log of their own.
//!
//! - [`finder`] knows which discovery controllers there are and what their log pages say;
//! - [`connector`] knows which I/O controllers should be connected, by the rule in [`evidence`];
//! - [`links`] gets controllers of either kind connected and keeps them so.
//!
//! [`Machine`] holds them together. A process may have either role or both; with both, log pages go from the finder to the
//! connector in memory.

pub mod aging;
pub mod announcement;
pub mod audit;
pub mod backoff;
pub mod connector;
pub mod deadlines;
pub mod device;
pub mod devices;
pub mod evidence;
pub mod exclusion;
pub mod fc_ports;
pub mod finder;
pub mod hearsay;
pub mod host;
pub mod links;
pub mod names;
pub mod nbft;
pub mod network;
pub mod note;
pub mod page;
pub mod policy;
pub mod portal;
pub mod succession;
pub mod terms;
pub mod tid;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::settings::{Common, ConnectOptions, ConnectorSettings, FinderSettings};
use crate::core::announcement::Announcement;
use crate::core::connector::Connector;
use crate::core::device::{ControllerKind, Device};
use crate::core::evidence::Testimony;
use crate::core::exclusion::HostExclusion;
use crate::core::finder::{Finder, Origin, Rules};
use crate::core::hearsay::Hearsay;
use crate::core::host::HostIds;
use crate::core::links::{LinkChange, LinkId, Links};
use crate::core::names::Names;
use crate::core::network::{Changes, NetworkChange};
use crate::core::note::Note;
use crate::core::policy::Policy;
use crate::core::portal::PortalId;
use crate::core::terms::Terms;
use crate::core::tid::TransportId;
use crate::helper::message::{Capabilities, Failure};

/// Tells requests apart.
pub type Ticket = u64;

/// Something that happened.
///
/// What the kernel said before the helper sent a reply has to be handed in before that reply: device names are recycled at
/// once, and a late removal would be taken for that of the new controller. Answers to what was not asked are ignored.
#[derive(Debug)]
pub enum Event {
    /// The settings in force, at start and after each reload; of the roles that this process has.
    Configured {
        host_nqn: String,
        /// The name under which this host registers; may be empty.
        symname: String,
        finder: Option<Box<FinderSettings>>,
        connector: Option<Box<ConnectorSettings>>,
    },
    /// The names of this host; before [`Event::Configured`].
    HostNamed(HostIds),
    /// What no program of this host is to connect of its own accord.
    HostExcludes(Vec<HostExclusion>),
    /// The kernel can be asked to connect, or can no longer be.
    FabricsReady(bool),
    /// All of `/sys/class/nvme`: at start, before [`Event::Configured`], and after events were lost.
    DevicesRead(Vec<Device>),
    /// `NVME_EVENT=connected` or `rediscover`: a controller is connected, or connected again.
    DeviceUp(Device),
    DeviceRemoved(String),
    /// `NVME_AEN=0x70f002`: the log page of this discovery controller changed.
    LogChanged(String),
    /// Answers [`Action::Probe`].
    Probed {
        portal: PortalId,
        outcome: Result<(), String>,
    },
    /// Answers [`Action::Connect`]; without a device if it is gone again already.
    Connected {
        ticket: Ticket,
        outcome: Result<Option<Device>, Failure>,
    },
    /// Answers [`Action::Disconnect`].
    Disconnected {
        ticket: Ticket,
        outcome: Result<(), Failure>,
    },
    /// Answers [`Action::Register`]; `false` if the controller takes no registrations.
    Registered {
        ticket: Ticket,
        outcome: Result<bool, Failure>,
    },
    /// Answers [`Action::Inquire`].
    Inquired {
        ticket: Ticket,
        outcome: Result<Capabilities, Failure>,
    },
    /// Answers [`Action::Resolve`]; `Err` says in words what is wrong.
    Resolved {
        ticket: Ticket,
        outcome: Result<Vec<String>, String>,
    },
    /// Answers [`Action::ReadLogPage`].
    PageRead {
        ticket: Ticket,
        outcome: Result<Box<[u8]>, String>,
    },
    /// What a finder in another process knows: all of its discovery controllers.
    FinderReports(Vec<Report>),
    /// What a finder in another process knows, perhaps not all: one that does not tell whether its pages are current may
    /// have started just now, and be about to find the others.
    FinderMentions(Vec<Report>),
    /// There is no finder any more. That says nothing about storage.
    FinderGone,
    /// What this host uses (mounts, swap, device mapper) has changed.
    UsesChanged,
    /// All discovery controllers that announce themselves now. What is missing here and was there before is withdrawn.
    Announced(BTreeSet<Announcement>),
    /// The network of this host changed. Of interest only while [`Machine::waits_for_network`].
    NetworkChanged(NetworkChange),
    /// The kernel tells of a port of a Fibre Channel target.
    FcPort(Announcement),
    /// Answers [`Action::AskFcPorts`]: all that the kernel told in answer has been handed in, if it could be asked.
    FcPortsTold {
        answered: bool,
    },
    /// The daemon is asked to stop. No connect is started any more.
    Stop,
}

/// What a finder in another process says about one of its discovery controllers.
#[derive(Debug)]
pub struct Report {
    pub source: Rc<TransportId>,
    pub testimony: Testimony,
    /// The discovery controllers that its page refers to.
    pub referrals: BTreeSet<Rc<TransportId>>,
    pub origin: Origin,
    pub connected: bool,
}

/// Something to be done.
#[derive(Debug)]
pub enum Action {
    Probe(PortalId),
    Connect {
        ticket: Ticket,
        id: LinkId,
        options: Rc<ConnectOptions>,
        /// Goes with the host NQN of `id`.
        host_id: String,
    },
    Disconnect {
        ticket: Ticket,
        device: Box<Device>,
    },
    /// Register this host with a discovery controller, if that takes registrations.
    Register {
        ticket: Ticket,
        device: String,
    },
    /// Ask what a discovery controller can do; with `pleo`, also whether it can list the entries of one port only.
    Inquire {
        ticket: Ticket,
        device: String,
        pleo: bool,
    },
    ReadLogPage {
        ticket: Ticket,
        device: String,
        /// Only the entries of the port in use.
        port_local: bool,
    },
    /// Find the addresses of a host name.
    Resolve {
        ticket: Ticket,
        name: Rc<str>,
    },
    /// Answer with [`Event::DevicesRead`].
    ReadDevices,
    /// Have the kernel tell of every port of Fibre Channel targets: [`Event::FcPort`] each, then [`Event::FcPortsTold`].
    AskFcPorts,
    /// Clients want to know.
    Publish(Change),
    /// What must outlive the process changed.
    Save,
    Note(Note),
}

/// A change that clients are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    LogPage {
        tid: Rc<TransportId>,
        device: String,
    },
    DiscoveryControllerRemoved,
    /// A wanted controller, of either kind, is connected: just now, again, or by somebody else before.
    Up {
        id: LinkId,
        device: String,
    },
    /// It is not any more, or is no longer wanted. One follows each `Up`.
    Down {
        id: LinkId,
        device: String,
    },
}

/// What an earlier run of this program leaves to the next about a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legacy {
    pub id: LinkId,
    /// Its connection is one of ours.
    pub ours: bool,
    /// Who listed it, and on what terms.
    pub sources: Vec<Rc<TransportId>>,
    pub terms: Terms,
    /// It is known from an announcement, and has been neither announced nor connected for so long.
    pub unseen: Option<Duration>,
}

/// All state machines of one process.
#[derive(Debug)]
pub struct Machine {
    links: Links,
    finder: Option<Finder>,
    connector: Option<Connector>,
    names: Names,
    settings: Configuration,
    persistent_connections: bool,
    /// What a finder in another process said last.
    hearsay: Hearsay,
    /// The legacy may have changed since it was last saved.
    unsaved: bool,
    /// Of the network.
    network: Changes,
    /// To be published.
    changes: VecDeque<Change>,
}

/// What the administrator wants, host names as they are written.
#[derive(Debug, Default)]
struct Configuration {
    host_nqn: String,
    finder: Option<Box<FinderSettings>>,
    connector: Option<Box<ConnectorSettings>>,
}

/// Which roles a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    pub finder: bool,
    pub connector: bool,
}

impl Machine {
    /// `seed` makes waits differ between hosts.
    pub fn new(roles: Roles, seed: u64) -> Machine {
        Machine {
            links: Links::new(seed),
            finder: roles.finder.then(|| Finder::new(seed.rotate_left(32))),
            connector: roles.connector.then(Connector::default),
            names: Names::new(seed.rotate_left(48)),
            settings: Configuration::default(),
            persistent_connections: true,
            hearsay: Hearsay::default(),
            unsaved: false,
            network: Changes::default(),
            changes: VecDeque::new(),
        }
    }

    /// Takes over from an earlier run; before the first event.
    pub fn inherit(&mut self, legacy: Vec<Legacy>) {
        for Legacy { id, ours, sources, terms, unseen } in legacy {
            match (id.kind, &mut self.finder, &mut self.connector) {
                (ControllerKind::Io, _, Some(connector)) => connector.remember(&id.tid, &sources, terms),
                (ControllerKind::Discovery, Some(finder), _) => {
                    finder.remember_referral(&id.tid, &sources);
                    if let Some(unseen) = unseen {
                        finder.remember(&id.tid, unseen);
                    }
                }
                (ControllerKind::Discovery, None, _) if unseen.is_some() => {
                    self.hearsay.remember(&id.tid, Origin::Discovered);
                }
                (ControllerKind::Discovery, None, _) => self.hearsay.remember(&id.tid, Origin::Referral),
                (ControllerKind::Io, _, None) => {}
            }
            if ours {
                self.links.was_ours(id);
            }
        }
    }

    /// What the next run should know.
    pub fn legacy(&self, now: Instant) -> Vec<Legacy> {
        let nothing = |id: &LinkId| Legacy {
            id: id.clone(),
            ours: false,
            sources: Vec::new(),
            terms: Terms::default(),
            unseen: None,
        };
        let mut legacy: BTreeMap<LinkId, Legacy> = BTreeMap::new();
        let mut about = |id: &LinkId, add: &dyn Fn(&mut Legacy)| {
            add(legacy.entry(id.clone()).or_insert_with(|| nothing(id)));
        };
        for id in self.links.ours() {
            about(id, &|legacy| {
                legacy.ours = true;
            });
        }
        // What is listed but not connected at the moment is still listed, although who listed it may be silent next time.
        if let Some(connector) = &self.connector {
            for id in connector.listed() {
                about(&id, &|legacy| {
                    legacy.sources = connector.sources(&id.tid).cloned().collect();
                    legacy.terms = connector.terms(&id.tid);
                });
            }
        }
        for (id, unseen) in self.finder.iter().flat_map(|finder| finder.worth_remembering(now)) {
            about(&id, &|legacy| legacy.unseen = Some(unseen));
        }
        for (tid, listers) in self.finder.iter().flat_map(Finder::referred) {
            let id = LinkId { kind: ControllerKind::Discovery, tid };
            about(&id, &|legacy| legacy.sources.clone_from(&listers));
        }
        for (tid, origin) in self.hearsay.worth_remembering() {
            let id = LinkId { kind: ControllerKind::Discovery, tid: tid.clone() };
            about(&id, &|legacy| legacy.unseen = (origin == Origin::Discovered).then_some(Duration::ZERO));
        }
        legacy.into_values().collect()
    }

    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Configured { host_nqn, symname, finder, connector } => {
                let rules = finder.as_ref().map(|finder| Rules::new(finder, symname));
                self.configure(now, Configuration { host_nqn, finder, connector });
                if let (Some(finder), Some(rules)) = (&mut self.finder, rules) {
                    finder.set_rules(now, rules, &mut self.links);
                }
            }
            Event::HostNamed(ids) => self.links.set_host_ids(ids),
            Event::HostExcludes(exclusions) => self.links.set_exclusions(now, exclusions),
            Event::Resolved { ticket, outcome } => self.names.resolved(now, ticket, outcome),
            Event::FabricsReady(ready) => self.links.set_ready(ready),
            Event::DevicesRead(devices) => {
                self.links.devices_read(now, devices);
                self.unsaved = true;
                if let Some(finder) = &mut self.finder {
                    finder.all_connected_again();
                }
            }
            Event::DeviceUp(device) => {
                let name = device.name.clone();
                self.links.device_up(now, device);
                self.tell_finder(&name, Finder::connected_again);
            }
            Event::DeviceRemoved(name) => {
                self.links.device_down(now, &name);
                self.unsaved = true;
            }
            Event::LogChanged(name) => self.tell_finder(&name, Finder::read_soon),
            Event::Probed { portal, outcome } => self.links.probed(now, &portal, outcome),
            Event::Connected { ticket, outcome } => self.links.connected(now, ticket, outcome),
            Event::Disconnected { ticket, outcome } => {
                self.links.disconnected(now, ticket, outcome);
                self.unsaved = true;
            }
            Event::PageRead { ticket, outcome } => {
                if let Some(finder) = &mut self.finder {
                    finder.page_read(now, ticket, outcome, &mut self.links);
                }
            }
            Event::Registered { ticket, outcome } => {
                if let Some(finder) = &mut self.finder {
                    finder.registered(now, ticket, outcome);
                }
            }
            Event::Inquired { ticket, outcome } => {
                if let Some(finder) = &mut self.finder {
                    finder.inquired(now, ticket, outcome);
                }
            }
            Event::FinderReports(reports) => {
                self.hear_whole_finder(now, &reports);
                self.hear_finder(now, reports);
            }
            Event::FinderMentions(reports) => self.hear_finder(now, reports),
            Event::FinderGone => {
                self.hearsay.finder_gone();
                self.connector.iter_mut().for_each(Connector::lose_finder);
            }
            Event::UsesChanged => self.links.retry_kept(now, |_| true),
            Event::Announced(announcements) => {
                if let Some(finder) = &mut self.finder {
                    finder.hear_announcements(now, announcements, &mut self.links);
                    self.unsaved = true;
                }
            }
            Event::NetworkChanged(change) => self.network.hear(change),
            Event::FcPort(port) => {
                if let Some(finder) = &mut self.finder {
                    finder.hear_fc_port(now, port, &mut self.links);
                    self.unsaved = true;
                }
            }
            Event::FcPortsTold { answered } => {
                if let Some(finder) = &mut self.finder {
                    finder.fc_ports_told(now, answered, &mut self.links);
                    self.unsaved = true;
                }
            }
            Event::Stop => {
                self.links.set_ready(false);
                if let (Some(finder), false) = (&mut self.finder, self.persistent_connections) {
                    finder.stop(&mut self.links);
                }
            }
        }
        self.settle(now);
    }

    /// When [`Machine::handle_deadline`] wants to be called, if no event comes before.
    pub fn poll_deadline(&self) -> Option<Instant> {
        let finder = self.finder.as_ref().and_then(Finder::deadline);
        let connector = self.connector.as_ref().and_then(Connector::deadline);
        let deadlines = [self.links.deadline(), finder, connector, self.names.deadline(), self.network.deadline()];
        deadlines.into_iter().flatten().min()
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        self.links.handle_deadline(now);
        if let Some(finder) = &mut self.finder {
            finder.handle_deadline(now, &mut self.links);
        }
        if let Some(connector) = &mut self.connector {
            connector.handle_deadline(now, &mut self.links);
        }
        self.names.handle_deadline(now, &mut self.links);
        self.follow_network(now);
        self.settle(now);
    }

    /// What is to be done next; ask until `None`. Ask after all events that are ready have been handled: what concerns the
    /// same controller is done once.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        self.follow_network(now);
        self.links
            .poll_action(now)
            .or_else(|| self.finder.as_mut().and_then(|finder| finder.poll_action(&mut self.links)))
            .or_else(|| self.connector.as_mut().and_then(Connector::poll_action))
            .or_else(|| self.names.poll_action())
            .or_else(|| self.changes.pop_front().map(Action::Publish))
            .inspect(|action| self.unsaved |= matches!(action, Action::Connect { .. }))
            .or_else(|| std::mem::take(&mut self.unsaved).then_some(Action::Save))
    }

    /// Whether a stop may be completed: nothing is still to be disconnected, but what could not be. That may take as long as a connect that is in
    /// flight does, a minute and more.
    pub fn may_stop(&self) -> bool {
        !self.links.is_disconnecting()
    }

    /// Whether a change of the network could help somebody.
    pub fn waits_for_network(&self) -> bool {
        self.links.are_waiting()
    }

    #[cfg(test)]
    fn names_are_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn links(&self) -> &Links {
        &self.links
    }

    pub fn finder(&self) -> Option<&Finder> {
        self.finder.as_ref()
    }

    pub fn connector(&self) -> Option<&Connector> {
        self.connector.as_ref()
    }

    fn configure(&mut self, now: Instant, settings: Configuration) {
        self.settings = settings;
        let named = |kind, common: &Common| {
            let policy = Policy::new(common.clone(), &self.settings.host_nqn);
            policy.named().map(|tid| LinkId { kind, tid: Rc::new(tid) }).collect::<BTreeSet<_>>()
        };
        let finder = self.settings.finder.as_ref().filter(|_| self.finder.is_some());
        let connector = self.settings.connector.as_ref().filter(|_| self.connector.is_some());
        let discovery = finder.map(|settings| named(ControllerKind::Discovery, &settings.common));
        let io = connector.map(|settings| named(ControllerKind::Io, &settings.common));
        self.names.configure(discovery.into_iter().chain(io).flatten().collect(), &mut self.links);
        self.names.take_change();
        self.apply(now, true);
        self.links.start_over(now);
    }

    /// Puts the settings in force with the addresses that names have now: because the administrator asks, or names changed.
    fn apply(&mut self, now: Instant, is_reload: bool) {
        let policy = |kind, common: &Common, names: &mut Names, links: &Links| {
            let mut policy = Policy::new(common.clone(), &self.settings.host_nqn);
            if !is_reload {
                policy.say_nothing_again();
            }
            names.expand(now, kind, policy, links)
        };
        let finder = self.settings.finder.as_ref().filter(|_| self.finder.is_some());
        let finder_policy =
            finder.map(|settings| policy(ControllerKind::Discovery, &settings.common, &mut self.names, &self.links));
        let connector = self.settings.connector.as_ref().filter(|_| self.connector.is_some());
        let connector_policy =
            connector.map(|settings| policy(ControllerKind::Io, &settings.common, &mut self.names, &self.links));
        self.links.set_alternates(self.names.alternates());
        let before: BTreeSet<_> = self.finder.iter().flat_map(Finder::controllers).cloned().collect();
        if let (Some(finder), Some(settings), Some(policy)) = (&mut self.finder, &self.settings.finder, finder_policy) {
            self.persistent_connections = settings.persistent_connections;
            finder.configure(now, policy, settings.zeroconf_persistence, &mut self.links);
        }
        if let (Some(connector), Some(settings), Some(policy)) =
            (&mut self.connector, &self.settings.connector, connector_policy)
        {
            let rules = connector::Rules {
                policy,
                scope: settings.disconnect_scope,
                trtypes: settings.disconnect_trtypes.clone(),
                attempts_on_ncc: settings.connect_attempts_on_ncc,
            };
            connector.configure(now, rules, &mut self.links);
        }
        if let (Some(finder), Some(connector)) = (&self.finder, &mut self.connector) {
            let sources: BTreeSet<_> = finder.controllers().cloned().collect();
            if is_reload || sources != before {
                let is_announced = |source: &TransportId| finder.origin(source) == Some(Origin::Discovered);
                connector.hear_all_sources(now, sources, is_announced, &mut self.links);
            }
        }
        self.unsaved = true;
    }

    /// That a controller is not there is the administrator's word, unless the finder forgot it by itself.
    fn hear_whole_finder(&mut self, now: Instant, reports: &[Report]) {
        let Some(connector) = &mut self.connector else {
            return;
        };
        for source in self.hearsay.hear(reports) {
            connector.hear(now, &source, Testimony::Forgotten, &mut self.links);
        }
        let sources: BTreeSet<_> = reports.iter().map(|report| report.source.clone()).collect();
        let announced = reports.iter().filter(|report| report.origin == Origin::Discovered);
        let announced: BTreeSet<_> = announced.map(|report| report.source.clone()).collect();
        connector.hear_all_sources(now, sources, |source| announced.contains(source), &mut self.links);
    }

    fn hear_finder(&mut self, now: Instant, reports: Vec<Report>) {
        let Some(connector) = &mut self.connector else {
            return;
        };
        for Report { source, testimony, .. } in reports {
            connector.hear(now, &source, testimony, &mut self.links);
        }
        self.unsaved = true;
    }

    /// What waits for its time is tried at once where the network changed.
    fn follow_network(&mut self, now: Instant) {
        if let Some(changes) = self.network.take(now) {
            self.links.start_over_where(now, |way| changes.iter().any(|change| change.concerns(way)));
            self.names.hurry(&mut self.links);
        }
    }

    /// Something about a kernel controller, for the discovery controllers that it is.
    fn tell_finder(&mut self, device: &str, what: fn(&mut Finder, &Rc<TransportId>)) {
        if let Some(finder) = &mut self.finder {
            for id in self.links.served_by(device).filter(|id| id.kind == ControllerKind::Discovery) {
                what(finder, &id.tid);
            }
        }
    }

    /// Carries what one part has to say to the others.
    fn settle(&mut self, now: Instant) {
        loop {
            self.follow_links(now);
            if self.names.take_change() {
                self.apply(now, false);
            } else if self.finder.as_mut().is_some_and(|finder| finder.follow_referrals(now, &mut self.links)) {
                self.unsaved = true;
            } else {
                break;
            }
        }
        if let (Some(finder), Some(connector)) = (&mut self.finder, &mut self.connector)
            && finder.take_roster_change()
        {
            let is_announced = |source: &TransportId| finder.origin(source) == Some(Origin::Discovered);
            connector.follow_sources(finder.controllers().cloned().collect(), is_announced);
        }
        if let Some(finder) = &mut self.finder {
            while let Some((source, testimony)) = finder.poll_testimony() {
                if let Some(connector) = &mut self.connector {
                    connector.hear(now, &source, testimony, &mut self.links);
                    self.unsaved = true;
                }
            }
        }
        if let Some(connector) = &mut self.connector {
            connector.review(now, &self.links);
        }
    }

    /// Tells of the links what concerns the others.
    fn follow_links(&mut self, now: Instant) {
        while let Some(change) = self.links.poll_change() {
            self.unsaved = true;
            let (id, device) = match change {
                LinkChange::Up { id, device } => {
                    self.names.link_up(&id, &self.links);
                    self.changes.push_back(Change::Up { id: id.clone(), device: device.clone() });
                    (id, Some(device))
                }
                LinkChange::Down { id, device } => {
                    self.names.link_down(now, &id, &mut self.links);
                    self.changes.push_back(Change::Down { id: id.clone(), device });
                    (id, None)
                }
                LinkChange::Failed { id } => {
                    self.names.link_failed(now, &id, &mut self.links);
                    continue;
                }
            };
            if let (ControllerKind::Io, Some(_), Some(connector)) = (id.kind, &device, &mut self.connector) {
                connector.link_up(now, &id.tid, &mut self.links);
            }
            match (device, &mut self.finder) {
                (Some(device), Some(finder)) if id.kind == ControllerKind::Discovery => {
                    finder.link_up(&id.tid, device, &mut self.links);
                }
                (None, Some(finder)) if id.kind == ControllerKind::Discovery => {
                    finder.link_down(now, &id.tid, &mut self.links);
                }
                _ => {}
            }
        }
    }
}
