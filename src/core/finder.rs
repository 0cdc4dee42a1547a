//! The finder: which discovery controllers there are, and what their log pages say.
//!
//! It wants its discovery controllers connected ([`Links`] does that), reads the log page of each when it is connected and
//! whenever it says that something changed, and keeps the last good one. What it learns goes out as [`Testimony`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::settings::Persistence;
use crate::core::aging::Aging;
use crate::core::announcement::Announcement;
use crate::core::backoff::BackOff;
use crate::core::deadlines::Deadlines;
use crate::core::device::ControllerKind;
use crate::core::evidence::Testimony;
use crate::core::links::{Disposal, LinkId, Links};
use crate::core::note::Note;
use crate::core::page::{self, Page};
use crate::core::policy::Policy;
use crate::core::tid::TransportId;
use crate::core::{Action, Change, Ticket};

/// Of the entries that a page gets wrong, so many are named in the log.
const MAX_COMPLAINTS: usize = 5;

/// Discovery controllers known from announcements, which anybody in the local network can make.
const MAX_DISCOVERED: usize = 256;

/// After the start, discovery controllers known from before have so long to be announced or connected again.
const GRACE: Duration = Duration::from_secs(60);

/// How a discovery controller became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Configured,
    /// Announced in the local network.
    Discovered,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Configured => "configured",
            Origin::Discovered => "discovered",
        }
    }
}

/// How much a log page is worth as evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// Never read: that nothing is there says nothing.
    None,
    /// The last good one; it could not be read again since something happened.
    Stale,
    /// Read whole since its controller was connected, and no change was reported after it.
    Fresh,
}

/// A wanted discovery controller.
#[derive(Debug)]
struct Discovery {
    origin: Origin,
    /// It was connected before: more than an announcement speaks for it.
    proven: bool,
    page: Option<Page>,
    fresh: bool,
    device: Option<String>,
    reading: Option<Reading>,
    failures: u32,
    /// The last failure that was reported.
    complaint: Option<String>,
    /// What was reported of the page's entries.
    entry_complaints: BTreeSet<String>,
}

/// A Get Log Page that is under way.
#[derive(Debug)]
struct Reading {
    ticket: Ticket,
    /// Something changed meanwhile: read once more.
    again: bool,
}

#[derive(Debug)]
pub struct Finder {
    policy: Policy,
    controllers: BTreeMap<Rc<TransportId>, Discovery>,
    in_flight: BTreeMap<Ticket, Rc<TransportId>>,
    /// To be read as soon as all that happened has been heard.
    due: BTreeSet<Rc<TransportId>>,
    retries: Deadlines<Rc<TransportId>>,
    backoff: BackOff,
    actions: VecDeque<Action>,
    testimonies: VecDeque<(Rc<TransportId>, Testimony)>,
    /// What is announced, and the controllers that this stands for under the configuration in force.
    announcements: BTreeSet<Announcement>,
    announced: BTreeSet<Rc<TransportId>>,
    /// Announced controllers came or went.
    roster_changed: bool,
    /// There were too many, and that was said.
    crowded: bool,
    aging: Aging,
    /// Known from an earlier run, and for how long they had been out of sight, until the first configuration.
    remembered: BTreeMap<Rc<TransportId>, Duration>,
}

impl Finder {
    pub fn new(seed: u64) -> Finder {
        Finder {
            policy: Policy::default(),
            controllers: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            due: BTreeSet::new(),
            retries: Deadlines::default(),
            backoff: BackOff::new(seed),
            actions: VecDeque::new(),
            testimonies: VecDeque::new(),
            announcements: BTreeSet::new(),
            announced: BTreeSet::new(),
            roster_changed: false,
            crowded: false,
            aging: Aging::default(),
            remembered: BTreeMap::new(),
        }
    }

    /// A discovery controller that an earlier run knew from an announcement, and for how long it had been out of sight then.
    pub fn remember(&mut self, tid: &Rc<TransportId>, unseen: Duration) {
        self.remembered.insert(tid.clone(), unseen);
    }

    /// Takes a new configuration in force. Controllers that it no longer contains or admits are let go: the administrator
    /// says so. What was announced before is not contained in it, and stays.
    pub fn configure(&mut self, now: Instant, policy: Policy, persistence: Persistence, links: &mut Links) {
        self.policy = policy;
        self.aging.set_persistence(persistence);
        self.announced = self.policy.announced(&self.announcements);
        let (wanted, refused) = self.policy.configured();
        self.actions.extend(refused.into_iter().map(Action::Note));
        let before: Vec<_> = self.controllers.keys().filter(|tid| !wanted.contains_key(*tid)).cloned().collect();
        // What is wanted first, so that it can take over a connection that is let go otherwise.
        for (tid, options) in wanted {
            let discovery = self.controllers.entry(tid.clone()).or_insert_with(|| Discovery::new(Origin::Configured));
            discovery.origin = Origin::Configured;
            self.aging.see(&tid);
            links.want(now, link_id(&tid), options);
            links.set_tentative(&link_id(&tid), false);
        }
        let (kept, dropped): (Vec<_>, Vec<_>) = before.into_iter().partition(|tid| self.outlives_configuration(tid));
        for tid in &kept {
            if let Some(discovery) = self.controllers.get_mut(tid) {
                discovery.origin = Origin::Discovered;
            }
        }
        for tid in self.announced.clone().into_iter().chain(kept) {
            self.discover(now, &tid, links);
        }
        for tid in dropped {
            self.drop_controller(&tid, links);
        }
        for (tid, unseen) in std::mem::take(&mut self.remembered) {
            self.bring_back(now, &tid, unseen, links);
        }
        links.dispose_of_leftovers(now, ControllerKind::Discovery, Disposal::Disconnect);
    }

    /// Whether a controller that is not configured stays all the same.
    fn outlives_configuration(&self, tid: &Rc<TransportId>) -> bool {
        let was_discovered = self.origin(tid) == Some(Origin::Discovered) && self.policy.admits(tid).is_ok();
        was_discovered || self.announced.contains(tid)
    }

    /// Takes in all that is announced now.
    pub fn hear_announcements(&mut self, now: Instant, announcements: BTreeSet<Announcement>, links: &mut Links) {
        self.announcements = announcements;
        let announced = self.policy.announced(&self.announcements);
        let before = std::mem::replace(&mut self.announced, announced.clone());
        for tid in announced.difference(&before) {
            self.discover(now, tid, links);
            links.hurry(&link_id(tid));
        }
        for tid in before.difference(&announced) {
            self.look_for(now, tid, links);
        }
    }

    /// Wants a controller that is or was announced, if it is not configured.
    fn discover(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        let discovered = self.controllers.values().filter(|other| other.origin == Origin::Discovered).count();
        let id = link_id(tid);
        let discovery = match self.controllers.get_mut(tid) {
            Some(Discovery { origin: Origin::Configured, .. }) => return,
            Some(discovery) => discovery,
            None if discovered >= MAX_DISCOVERED => {
                if !std::mem::replace(&mut self.crowded, true) {
                    self.actions.push_back(Action::Note(Note::TooManyAnnounced { limit: MAX_DISCOVERED }));
                }
                return;
            }
            None => {
                self.actions.push_back(Action::Note(Note::Announced { id: id.clone() }));
                self.roster_changed = true;
                self.controllers.entry(tid.clone()).or_insert_with(|| Discovery::new(Origin::Discovered))
            }
        };
        let tentative = !discovery.proven;
        links.want(now, id.clone(), Rc::new(self.policy.options().clone()));
        links.set_tentative(&id, tentative);
        self.look_for(now, tid, links);
    }

    /// A controller from an earlier run: it has to be announced or connected within some time.
    fn bring_back(&mut self, now: Instant, tid: &Rc<TransportId>, unseen: Duration, links: &mut Links) {
        if self.controllers.contains_key(tid) || self.policy.admits(tid).is_err() {
            return;
        }
        self.controllers.insert(tid.clone(), Discovery { proven: true, ..Discovery::new(Origin::Discovered) });
        let spared_until = now.checked_add(GRACE).unwrap_or(now);
        self.aging.resume(tid, now.checked_sub(unseen).unwrap_or(now), spared_until);
        links.want(now, link_id(tid), Rc::new(self.policy.options().clone()));
    }

    /// Sees whether a discovered controller still is announced or connected. One for which nothing but its announcement
    /// ever spoke goes with that; others are kept for some time.
    fn look_for(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        let Some(Discovery { origin: Origin::Discovered, proven, device, .. }) = self.controllers.get(tid) else {
            return;
        };
        if device.is_some() || self.announced.contains(tid) {
            self.aging.see(tid);
        } else if *proven {
            if self.aging.lose_sight(now, tid) && self.aging.span() != Some(Duration::ZERO) {
                let note = Note::OutOfSight { id: link_id(tid), leaves_in: self.aging.span() };
                self.actions.push_back(Action::Note(note));
            }
        } else {
            self.roster_changed = true;
            self.drop_controller(tid, links);
        }
    }

    fn forget_aged(&mut self, tid: &Rc<TransportId>, links: &mut Links) {
        self.actions.push_back(Action::Note(Note::Forgotten { id: link_id(tid) }));
        self.testimonies.push_back((tid.clone(), Testimony::Forgotten));
        self.roster_changed = true;
        self.drop_controller(tid, links);
    }

    fn drop_controller(&mut self, tid: &Rc<TransportId>, links: &mut Links) {
        self.forget_reading(tid);
        self.aging.see(tid);
        self.controllers.remove(tid);
        links.unwant(&link_id(tid), Disposal::Disconnect);
        self.actions.push_back(Action::Publish(Change::DiscoveryControllerRemoved));
    }

    /// Lets go of the discovery connections when the daemon stops, if they are not to outlive it.
    pub fn stop(&mut self, links: &mut Links) {
        for tid in self.controllers.keys() {
            links.unwant(&link_id(tid), Disposal::Disconnect);
        }
    }

    pub fn link_up(&mut self, tid: &Rc<TransportId>, device: String, links: &mut Links) {
        if let Some(discovery) = self.controllers.get_mut(tid) {
            discovery.device = Some(device);
            discovery.proven = true;
            links.set_tentative(&link_id(tid), false);
            self.aging.see(tid);
            self.read_soon(tid);
        }
    }

    /// The cached page stays, but is no evidence against anything any more.
    pub fn link_down(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        self.forget_reading(tid);
        if let Some(discovery) = self.controllers.get_mut(tid) {
            discovery.device = None;
            self.turn_stale(tid);
            self.look_for(now, tid, links);
        }
    }

    /// Something may have changed at this discovery controller.
    pub fn read_soon(&mut self, tid: &Rc<TransportId>) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        match &mut discovery.reading {
            Some(reading) => reading.again = true,
            None if discovery.device.is_some() => {
                self.due.insert(tid.clone());
            }
            None => {}
        }
    }

    /// Events were lost: every page may have changed.
    pub fn read_all_soon(&mut self) {
        let all: Vec<_> = self.controllers.keys().cloned().collect();
        for tid in all {
            self.read_soon(&tid);
        }
    }

    /// The answer to [`Action::ReadLogPage`]. `Err` says in words what went wrong.
    pub fn page_read(&mut self, now: Instant, ticket: Ticket, outcome: Result<Box<[u8]>, String>) {
        let Some(tid) = self.in_flight.remove(&ticket) else {
            return;
        };
        let Some(discovery) = self.controllers.get_mut(&tid) else {
            return;
        };
        let again = discovery.reading.take().is_some_and(|reading| reading.again);
        let outcome = outcome.and_then(|bytes| Page::new(bytes).map_err(|error| error.to_string()));
        match outcome {
            Ok(page) => self.accept_page(&tid, page),
            Err(why) => self.page_failed(now, &tid, why),
        }
        if again {
            self.read_soon(&tid);
        }
    }

    fn accept_page(&mut self, tid: &Rc<TransportId>, page: Page) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        self.retries.cancel(tid);
        let changed = discovery.page.as_ref() != Some(&page);
        let news = changed || !discovery.fresh;
        let device = discovery.device.clone().unwrap_or_default();
        let (paths, complaints) = page::paths(&page, tid);
        let read = Note::PageRead {
            id: link_id(tid),
            device: device.clone(),
            entries: page.entries().len(),
            genctr: page.genctr(),
        };
        discovery.failures = 0;
        discovery.complaint = None;
        discovery.fresh = true;
        discovery.page = Some(page);
        self.complain(tid, complaints);
        if changed {
            self.actions.push_back(Action::Note(read));
        }
        if news {
            self.actions.push_back(Action::Publish(Change::LogPage { tid: tid.clone(), device }));
        }
        self.testimonies.push_back((tid.clone(), Testimony::Fresh(paths)));
    }

    fn page_failed(&mut self, now: Instant, tid: &Rc<TransportId>, why: String) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        discovery.failures = discovery.failures.saturating_add(1);
        if discovery.complaint.as_ref() != Some(&why) {
            discovery.complaint = Some(why.clone());
            self.actions.push_back(Action::Note(Note::PageFailed {
                id: link_id(tid),
                device: discovery.device.clone().unwrap_or_default(),
                why,
                keeps: discovery.page.is_some(),
            }));
        }
        let delay = self.backoff.delay(discovery.failures);
        self.retries.set(tid.clone(), now + delay);
        self.turn_stale(tid);
    }

    fn turn_stale(&mut self, tid: &Rc<TransportId>) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        if std::mem::take(&mut discovery.fresh) {
            let device = discovery.device.clone().unwrap_or_default();
            self.actions.push_back(Action::Publish(Change::LogPage { tid: tid.clone(), device }));
        }
    }

    /// Reports what is wrong with a page's entries, once, and not without bound.
    fn complain(&mut self, tid: &Rc<TransportId>, complaints: BTreeSet<String>) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        let fresh: Vec<_> = complaints.difference(&discovery.entry_complaints).collect();
        for why in fresh.iter().take(MAX_COMPLAINTS) {
            let note = Note::EntryIgnored { from: (**tid).clone(), why: (*why).clone() };
            self.actions.push_back(Action::Note(note));
        }
        let more = fresh.len().saturating_sub(MAX_COMPLAINTS);
        if more > 0 {
            self.actions.push_back(Action::Note(Note::EntriesIgnored { from: (**tid).clone(), more }));
        }
        discovery.entry_complaints = complaints;
    }

    fn forget_reading(&mut self, tid: &Rc<TransportId>) {
        self.due.remove(tid);
        self.retries.cancel(tid);
        if let Some(reading) = self.controllers.get_mut(tid).and_then(|discovery| discovery.reading.take()) {
            self.in_flight.remove(&reading.ticket);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.retries.next().into_iter().chain(self.aging.deadline()).min()
    }

    pub fn handle_deadline(&mut self, now: Instant, links: &mut Links) {
        while let Some(tid) = self.aging.pop(now) {
            self.forget_aged(&tid, links);
        }
        while let Some(tid) = self.retries.pop(now) {
            self.read_soon(&tid);
        }
    }

    /// Whether announced controllers came or went since this was asked last.
    pub fn take_roster_change(&mut self) -> bool {
        std::mem::take(&mut self.roster_changed)
    }

    pub fn poll_testimony(&mut self) -> Option<(Rc<TransportId>, Testimony)> {
        self.testimonies.pop_front()
    }

    pub fn poll_action(&mut self, links: &mut Links) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        while let Some(tid) = self.due.pop_first() {
            if let Some(discovery) = self.controllers.get_mut(&tid)
                && let Some(device) = discovery.device.clone()
            {
                let ticket = links.next_ticket();
                discovery.reading = Some(Reading { ticket, again: false });
                self.retries.cancel(&tid);
                self.in_flight.insert(ticket, tid);
                return Some(Action::ReadLogPage { ticket, device });
            }
        }
        None
    }

    // ---- what others ask -----------------------------------------------------------------------------------------

    pub fn knows(&self, tid: &TransportId) -> bool {
        self.controllers.contains_key(tid)
    }

    pub fn controllers(&self) -> impl Iterator<Item = &Rc<TransportId>> {
        self.controllers.keys()
    }

    pub fn origin(&self, tid: &TransportId) -> Option<Origin> {
        self.controllers.get(tid).map(|discovery| discovery.origin)
    }

    /// Discovered controllers that the next run should know of, and for how long each has been out of sight.
    pub fn worth_remembering(&self, now: Instant) -> impl Iterator<Item = (LinkId, Duration)> {
        let known = self.controllers.iter().filter(|(_, known)| known.origin == Origin::Discovered && known.proven);
        known.map(move |(tid, _)| (link_id(tid), self.aging.age(now, tid)))
    }

    pub fn page(&self, tid: &TransportId) -> Option<&Page> {
        self.controllers.get(tid)?.page.as_ref()
    }

    pub fn page_state(&self, tid: &TransportId) -> PageState {
        match self.controllers.get(tid) {
            Some(Discovery { page: Some(_), fresh: true, .. }) => PageState::Fresh,
            Some(Discovery { page: Some(_), fresh: false, .. }) => PageState::Stale,
            _ => PageState::None,
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.controllers.is_empty()
            && self.in_flight.is_empty()
            && self.due.is_empty()
            && self.retries.next().is_none()
            && self.testimonies.is_empty()
            && self.aging.deadline().is_none()
    }

    pub fn is_reading(&self, tid: &TransportId) -> bool {
        self.controllers.get(tid).is_some_and(|discovery| discovery.reading.is_some())
    }
}

impl Discovery {
    fn new(origin: Origin) -> Discovery {
        Discovery {
            origin,
            proven: false,
            page: None,
            fresh: false,
            device: None,
            reading: None,
            failures: 0,
            complaint: None,
            entry_complaints: BTreeSet::new(),
        }
    }
}

fn link_id(tid: &Rc<TransportId>) -> LinkId {
    LinkId { kind: ControllerKind::Discovery, tid: tid.clone() }
}
