//! The finder: which discovery controllers there are, and what their log pages say.
//!
//! It wants its discovery controllers connected ([`Links`] does that), reads the log page of each when it is connected and
//! whenever it says that something changed, and keeps the last good one. What it learns goes out as [`Testimony`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

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

/// How a discovery controller became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Configured,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Configured => "configured",
        }
    }
}

/// How much a log page is worth as evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// Never read.
    None,
    /// The last good one; it could not be read again since something happened.
    Stale,
    Fresh,
}

/// A wanted discovery controller.
#[derive(Debug)]
struct Discovery {
    origin: Origin,
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
        }
    }

    /// Takes a new configuration in force. Controllers that it no longer contains are let go: the administrator says so.
    pub fn configure(&mut self, now: Instant, policy: Policy, links: &mut Links) {
        self.policy = policy;
        let (wanted, refused) = self.policy.configured();
        self.actions.extend(refused.into_iter().map(Action::Note));
        let dropped: Vec<_> = self.controllers.keys().filter(|tid| !wanted.contains_key(*tid)).cloned().collect();
        // What is wanted first, so that it can take over a connection that is let go otherwise.
        for (tid, options) in wanted {
            self.controllers.entry(tid.clone()).or_insert_with(|| Discovery::new(Origin::Configured));
            links.want(now, link_id(&tid), options);
        }
        for tid in dropped {
            self.drop_controller(&tid, links);
        }
        links.dispose_of_leftovers(now, ControllerKind::Discovery, Disposal::Disconnect);
    }

    fn drop_controller(&mut self, tid: &Rc<TransportId>, links: &mut Links) {
        self.forget_reading(tid);
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

    pub fn link_up(&mut self, tid: &Rc<TransportId>, device: String) {
        if let Some(discovery) = self.controllers.get_mut(tid) {
            discovery.device = Some(device);
            self.read_soon(tid);
        }
    }

    /// The cached page stays, but is no evidence against anything any more.
    pub fn link_down(&mut self, tid: &Rc<TransportId>) {
        self.forget_reading(tid);
        if let Some(discovery) = self.controllers.get_mut(tid) {
            discovery.device = None;
            self.turn_stale(tid);
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
        self.retries.next()
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        while let Some(tid) = self.retries.pop(now) {
            self.read_soon(&tid);
        }
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
    }

    pub fn is_reading(&self, tid: &TransportId) -> bool {
        self.controllers.get(tid).is_some_and(|discovery| discovery.reading.is_some())
    }
}

impl Discovery {
    fn new(origin: Origin) -> Discovery {
        Discovery {
            origin,
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
