//! [`Machine`]: everything that one process decides, held together. What one part has to say it carries to the others.
//!
//! `configuration` has what the administrator says, `legacy` what goes from one run to the next.

mod configuration;
mod legacy;

pub use legacy::Legacy;

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use configuration::Configuration;

use crate::core::connector::Connector;
use crate::core::device::ControllerKind;
use crate::core::evidence::Testimony;
use crate::core::finder::{Finder, Origin};
use crate::core::hearsay::Hearsay;
use crate::core::links::{LinkChange, LinkId, Links};
use crate::core::names::Names;
use crate::core::network::Changes;
use crate::core::tid::TransportId;
use crate::core::{Action, Change, Event, Report};

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
    /// For good.
    stopping: bool,
    /// Of the network.
    network: Changes,
    /// To be published.
    changes: VecDeque<Change>,
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
            stopping: false,
            network: Changes::default(),
            changes: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Configured { host_nqn, symname, finder, connector } => {
                self.configure(now, Configuration { host_nqn, finder, connector }, symname);
            }
            Event::HostNamed(ids) => self.links.set_host_ids(ids),
            Event::HostExcludes(exclusions) => self.links.set_exclusions(now, exclusions),
            Event::Resolved { ticket, outcome } => self.names.resolved(now, ticket, outcome),
            Event::FabricsReady(ready) => self.links.set_ready(ready && !self.stopping),
            Event::DevicesRead(devices) => {
                self.links.devices_read(now, devices);
                self.unsaved = true;
                self.for_finder(|finder, _| finder.all_connected_again());
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
                self.for_finder(|finder, links| finder.page_read(now, ticket, outcome, links));
            }
            Event::Registered { ticket, outcome } => {
                self.for_finder(|finder, _| finder.registered(now, ticket, outcome));
            }
            Event::Inquired { ticket, outcome } => {
                self.for_finder(|finder, _| finder.inquired(now, ticket, outcome));
            }
            Event::FinderReports(reports) => self.hear_finder(now, reports, true),
            Event::FinderMentions(reports) => self.hear_finder(now, reports, false),
            Event::FinderGone => {
                self.hearsay.finder_gone();
                self.connector.iter_mut().for_each(Connector::lose_finder);
            }
            Event::UsesChanged => self.links.retry_kept(now, |_| true),
            Event::Announced(all) => {
                self.unsaved |= self.for_finder(|finder, links| finder.hear_announcements(now, all, links));
            }
            Event::NetworkChanged(change) => self.network.hear(change),
            Event::FcPort(port) => {
                self.unsaved |= self.for_finder(|finder, links| finder.hear_fc_port(now, port, links));
            }
            Event::FcPortsTold { answered } => {
                self.unsaved |= self.for_finder(|finder, links| finder.fc_ports_told(now, answered, links));
            }
            Event::Stop => {
                self.stopping = true;
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

    /// What is to be done next; ask until `None`. Ask after all events that are ready have been handled: what concerns
    /// the same controller is done once.
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

    /// Whether a stop may be completed: nothing is still to be disconnected, but what could not be. That may take as
    /// long as a connect that is in flight does, a minute and more.
    pub fn may_stop(&self) -> bool {
        !self.links.is_disconnecting()
    }

    /// Whether a change of the network could help somebody.
    pub fn waits_for_network(&self) -> bool {
        self.links.are_waiting()
    }

    /// Whether nothing is kept but the settings and what the kernel has: as it has to be, sooner or later, once nothing is
    /// wanted any more. For those who test that memory does not grow.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
            && self.links.is_empty()
            && self.finder.as_ref().is_none_or(Finder::is_empty)
            && self.connector.as_ref().is_none_or(Connector::is_empty)
    }

    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Why a controller is not connected, by the last failure that was told.
    pub fn last_failure(&self, id: &LinkId) -> Option<String> {
        let of_name = || self.names.complaint(id.tid.traddr()).map(|why| format!("not resolved: {why}"));
        self.links.complaint(id).map(str::to_owned).or_else(of_name)
    }

    pub fn finder(&self) -> Option<&Finder> {
        self.finder.as_ref()
    }

    pub fn connector(&self) -> Option<&Connector> {
        self.connector.as_ref()
    }

    /// Takes in what a finder in another process says. If that `is_all`, it is the administrator's word that a controller is
    /// not there, unless the finder forgot it by itself. All of it is noted before anything is done: a path may have moved from
    /// one page to another.
    fn hear_finder(&mut self, now: Instant, reports: Vec<Report>, is_all: bool) {
        let Some(connector) = &mut self.connector else {
            return;
        };
        let mut verdicts = Vec::new();
        if is_all {
            for source in self.hearsay.hear(&reports) {
                verdicts.push(connector.note(&source, Testimony::Forgotten));
            }
            let sources: BTreeSet<_> = reports.iter().map(|report| report.source.clone()).collect();
            let announced = reports.iter().filter(|report| report.origin == Origin::Discovered);
            let announced: BTreeSet<_> = announced.map(|report| report.source.clone()).collect();
            verdicts.push(connector.note_all_sources(sources, |source| announced.contains(source)));
        }
        for Report { source, testimony, .. } in reports {
            verdicts.push(connector.note(&source, testimony));
        }
        connector.carry_out(now, &verdicts, &mut self.links);
        self.unsaved = true;
    }

    /// What waits for its time is tried at once where the network changed.
    fn follow_network(&mut self, now: Instant) {
        if let Some(changes) = self.network.take(now) {
            self.links.start_over_where(now, |way| changes.iter().any(|change| change.concerns(way)));
            self.names.hurry(&mut self.links);
        }
    }

    /// What is for the finder alone; whether this process has one.
    fn for_finder(&mut self, what: impl FnOnce(&mut Finder, &mut Links)) -> bool {
        self.finder.as_mut().map(|finder| what(finder, &mut self.links)).is_some()
    }

    /// Something about a kernel controller, for the discovery controllers that it is.
    fn tell_finder(&mut self, device: &str, what: fn(&mut Finder, &Rc<TransportId>)) {
        if let Some(finder) = &mut self.finder {
            for id in self.links.served_by(device).filter(|id| id.kind == ControllerKind::Discovery) {
                what(finder, &id.tid);
            }
        }
    }

    /// Carries what one part has to say to the others, until none has. What discovery controllers say comes before other
    /// addresses of names, which are the administrator's word: what somebody has taken back was not dropped.
    fn settle(&mut self, now: Instant) {
        loop {
            self.follow_links(now);
            if self.finder.as_mut().is_some_and(|finder| finder.follow_referrals(now, &mut self.links))
                || self.follow_finder(now)
            {
                self.unsaved = true;
            } else if self.names.take_change() {
                self.apply(now, false);
            } else {
                break;
            }
        }
        if let Some(connector) = &mut self.connector {
            connector.review(now, &self.links);
        }
    }

    /// Tells the connector, if there is one, what the finder has to say; whether it was told anything. As with a finder in
    /// another process, all of it is noted before anything is done.
    fn follow_finder(&mut self, now: Instant) -> bool {
        let Some(finder) = &mut self.finder else {
            return false;
        };
        let testimonies: Vec<_> = std::iter::from_fn(|| finder.poll_testimony()).collect();
        let Some(connector) = &mut self.connector else {
            return false;
        };
        if finder.take_roster_change() {
            let sources = finder.controllers().cloned().collect();
            connector.follow_sources(sources, |source| finder.is_announced(source));
        }
        let verdicts: Vec<_> =
            testimonies.into_iter().map(|(source, testimony)| connector.note(&source, testimony)).collect();
        connector.carry_out(now, &verdicts, &mut self.links);
        !verdicts.is_empty()
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
            match (id.kind, device) {
                (ControllerKind::Io, Some(_)) => {
                    if let Some(connector) = &mut self.connector {
                        connector.link_up(now, &id.tid, &mut self.links);
                    }
                }
                (ControllerKind::Io, None) => {}
                (ControllerKind::Discovery, Some(device)) => {
                    self.for_finder(|finder, links| finder.link_up(&id.tid, device, links));
                }
                (ControllerKind::Discovery, None) => {
                    self.for_finder(|finder, links| finder.link_down(now, &id.tid, links));
                }
            }
        }
    }
}
