//! The bus between a finder and a connector in two processes. Messages arrive in the order in which they were sent, or are
//! lost together when the bus goes away. Around the state machines is what `stas::bus::finder_client` and the loop do.

use stas::bus::{ControllerId, EntryText, FinderPage};
use stas::core::evidence::Testimony;
use stas::core::{Change, Report};
use stas::daemon::reports::reports;

use super::performing::set_of;
use super::*;

#[derive(Default)]
pub(super) struct Bus {
    is_away: bool,
    /// Counts the times that it went away.
    epoch: u32,
    last_arrival: Duration,
    /// The lives that are connected to it.
    finder: Option<u32>,
    connector: Option<u32>,
    client: Client,
}

/// What the connector knows of the finder.
#[derive(Default)]
struct Client {
    owner: Option<u32>,
    is_asked: bool,
    pages_wanted: bool,
    /// It tells how far its pages are evidence.
    finder_is_ours: bool,
}

#[derive(Debug)]
pub(super) enum Message {
    /// A process is connected, and serves.
    Joins(u32),
    /// Who has the finder's name.
    Owner(Option<u32>),
    Changed,
    Question(u32),
    Answer(u32, Vec<FinderPage>),
}

impl World {
    fn send_message(&mut self, message: Message) {
        let latency = self.chance.latency("bus");
        let Some(bus) = self.bus.as_mut().filter(|bus| !bus.is_away) else { return };
        bus.last_arrival = bus.last_arrival.max(self.now + latency);
        let (at, epoch) = (bus.last_arrival, bus.epoch);
        self.happen_at(at, Happening::Message { epoch, message });
    }

    pub(super) fn publish(&mut self, generation: u32, change: &Change) {
        let is_signal = matches!(change, Change::LogPage { .. } | Change::DiscoveryControllerRemoved);
        if is_signal && self.bus.as_ref().is_some_and(|bus| bus.finder == Some(generation)) {
            self.send_message(Message::Changed);
        }
    }

    pub(super) fn join_bus(&mut self, generation: u32) {
        self.send_message(Message::Joins(generation));
    }

    /// A process is gone.
    pub(super) fn part_bus(&mut self, generation: u32) {
        let Some(bus) = &mut self.bus else { return };
        if bus.connector == Some(generation) {
            bus.connector = None;
            bus.client = Client::default();
        } else if bus.finder == Some(generation) {
            bus.finder = None;
            self.send_message(Message::Owner(None));
        }
    }

    pub(super) fn bus_goes_away(&mut self, time: Duration) {
        let Some(bus) = self.bus.as_mut().filter(|bus| !bus.is_away) else { return };
        bus.is_away = true;
        bus.epoch += 1;
        bus.finder = None;
        let connector = bus.connector.take();
        let client = std::mem::take(&mut bus.client);
        if let (Some(connector), Some(_)) = (connector, client.owner) {
            self.hand_in(connector, Event::FinderGone);
        }
        self.happen_in(time, Happening::BusBack);
    }

    pub(super) fn bus_is_back(&mut self) {
        if let Some(bus) = &mut self.bus {
            bus.is_away = false;
        }
        self.generations().into_iter().for_each(|generation| self.join_bus(generation));
    }

    pub(super) fn message_arrives(&mut self, epoch: u32, message: Message) {
        if self.bus.as_ref().is_none_or(|bus| bus.epoch != epoch) {
            return;
        }
        match message {
            Message::Joins(generation) => self.joins(generation),
            Message::Owner(owner) => self.hear_owner(owner),
            Message::Changed => {
                if let Some(client) = self.client().filter(|client| client.owner.is_some()) {
                    client.pages_wanted = true;
                }
            }
            Message::Question(generation) => {
                if let Some(process) = self.process_of(generation) {
                    let pages = self.pages_of(process);
                    self.send_message(Message::Answer(generation, pages));
                }
            }
            Message::Answer(generation, pages) => {
                if let Some(client) = self.client().filter(|client| client.owner == Some(generation)) {
                    client.is_asked = false;
                    client.finder_is_ours |= pages.iter().any(|page| page.state.is_some());
                    let is_all = client.finder_is_ours;
                    self.hear_finder(pages, is_all);
                }
            }
        }
        self.ask_finder();
    }

    fn client(&mut self) -> Option<&mut Client> {
        self.bus.as_mut().filter(|bus| bus.connector.is_some()).map(|bus| &mut bus.client)
    }

    fn joins(&mut self, generation: u32) {
        let (Some(process), Some(bus)) = (self.process_of(generation), &mut self.bus) else { return };
        match self.processes[process].roles.finder {
            true => bus.finder = Some(generation),
            false => bus.connector = Some(generation),
        }
        let owner = bus.finder;
        self.send_message(Message::Owner(owner));
    }

    fn hear_owner(&mut self, owner: Option<u32>) {
        let Some(client) = self.client().filter(|client| client.owner != owner) else { return };
        let before = std::mem::replace(client, Client { owner, pages_wanted: owner.is_some(), ..Client::default() });
        let connector = self.bus.as_ref().and_then(|bus| bus.connector);
        if let (Some(_), Some(connector)) = (before.owner, connector) {
            self.hand_in(connector, Event::FinderGone);
        }
    }

    fn ask_finder(&mut self) {
        if let Some(client) = self.client()
            && client.pages_wanted
            && !client.is_asked
            && let Some(owner) = client.owner
        {
            client.pages_wanted = false;
            client.is_asked = true;
            self.send_message(Message::Question(owner));
        }
    }

    /// What `get_all_log_pages` answers.
    fn pages_of(&self, process: usize) -> Vec<FinderPage> {
        let Some(daemon) = &self.processes[process].daemon else { return Vec::new() };
        let (Some(finder), links) = (daemon.machine.finder(), daemon.machine.links()) else { return Vec::new() };
        let page = |id: &LinkId| {
            let is_live =
                |device: &Device| self.kernel.device(number_of(&device.name)).is_some_and(|now| now.state == "live");
            FinderPage {
                id: ControllerId::from(&*id.tid),
                connected: Some(links.device_of(id).is_some_and(is_live)),
                origin: finder.origin(&id.tid).unwrap_or(stas::core::finder::Origin::Configured),
                state: Some(finder.page_state(&id.tid)),
                entries: finder
                    .page(&id.tid)
                    .into_iter()
                    .flat_map(|page| page.entries())
                    .map(EntryText::from)
                    .collect(),
            }
        };
        links.wanted(ControllerKind::Discovery).map(page).collect()
    }

    fn hear_finder(&mut self, pages: Vec<FinderPage>, is_all: bool) {
        let Some(connector) = self.bus.as_ref().and_then(|bus| bus.connector) else { return };
        let heard = reports(&pages);
        if is_all {
            let known = heard.iter().filter_map(|report| discovery_at(report.source.traddr())).collect();
            self.oracle.hear_of(&known);
        }
        for report in &heard {
            self.note_report(connector, report);
        }
        self.hand_in(connector, if is_all { Event::FinderReports(heard) } else { Event::FinderMentions(heard) });
    }

    fn note_report(&mut self, connector: u32, report: &Report) {
        let Some(which) = discovery_at(report.source.traddr()) else { return };
        let (Testimony::Fresh(paths) | Testimony::Stale(paths)) = &report.testimony else { return };
        let said = Said {
            paths: paths
                .keys()
                .filter_map(|tid| path_at(tid.subsysnqn(), tid.traddr()))
                .fold(0, |set, path| set | 1 << path),
            refers: set_of(report.referrals.iter().map(|tid| tid.traddr())),
        };
        match report.testimony {
            Testimony::Fresh(_) => {
                self.oracle.page_delivered(which, said, &self.configuration);
                if let Some(daemon) = self.daemon_of(connector) {
                    daemon.heard.insert(which);
                }
            }
            _ => self.oracle.old_page_delivered(which, said),
        }
    }
}
