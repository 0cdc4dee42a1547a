//! The finder: which discovery controllers there are, and what their log pages say.
//!
//! It wants its discovery controllers connected ([`Links`] does that), reads the log page of each when it is connected and
//! whenever it says that something changed, and keeps the last good one. What it learns goes out as [`Testimony`].
//!
//! Here is which controllers there are and why; `announced` has those that come and go with announcements, `session` what is
//! done with a controller once it is connected, `reading` what is read from it, `parking` when it is left in between.

mod announced;
mod parking;
mod reading;
mod session;

pub use reading::PageState;
use reading::Reading;
use session::Session;
pub use session::{Rules, Step};

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
use crate::core::page::Page;
use crate::core::policy::Policy;
use crate::core::tid::TransportId;
use crate::core::{Action, Change, Ticket};

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

/// A wanted discovery controller.
#[derive(Debug)]
struct Discovery {
    origin: Origin,
    /// It was connected before: more than an announcement speaks for it.
    proven: bool,
    page: Option<Page>,
    fresh: bool,
    device: Option<String>,
    session: Session,
    reading: Option<Reading>,
    /// It was parked, and that was said.
    parked_before: bool,
    failures: u32,
    /// The last failure that was reported.
    complaint: Option<String>,
    /// What was reported of the page's entries.
    entry_complaints: BTreeSet<String>,
}

#[derive(Debug)]
pub struct Finder {
    policy: Policy,
    controllers: BTreeMap<Rc<TransportId>, Discovery>,
    in_flight: BTreeMap<Ticket, Rc<TransportId>>,
    /// To be read as soon as all that happened has been heard.
    due: BTreeSet<Rc<TransportId>>,
    retries: Deadlines<Rc<TransportId>>,
    /// When those are read again that do not tell of changes; of one that is awaited, when that is over.
    polls: Deadlines<Rc<TransportId>>,
    rules: Rules,
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
            polls: Deadlines::default(),
            rules: Rules::default(),
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
        links.dispose_of_leftovers(now, ControllerKind::Discovery, |_| Disposal::Disconnect);
    }

    /// Whether a controller that is not configured stays all the same.
    fn outlives_configuration(&self, tid: &Rc<TransportId>) -> bool {
        let was_discovered = self.origin(tid) == Some(Origin::Discovered) && self.policy.admits(tid).is_ok();
        was_discovered || self.announced.contains(tid)
    }

    fn drop_controller(&mut self, tid: &Rc<TransportId>, links: &mut Links) {
        self.forget_reading(tid);
        self.polls.cancel(tid);
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
            self.begin_session(tid);
        }
    }

    /// The cached page stays, but is no evidence against anything any more; unless it was we who left.
    pub fn link_down(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        self.forget_reading(tid);
        if let Some(discovery) = self.controllers.get_mut(tid) {
            discovery.device = None;
            if !discovery.session.is_parked() {
                self.polls.cancel(tid);
                self.turn_stale(tid);
                self.look_for(now, tid, links);
            }
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.retries.next().into_iter().chain(self.polls.next()).chain(self.aging.deadline()).min()
    }

    pub fn handle_deadline(&mut self, now: Instant, links: &mut Links) {
        while let Some(tid) = self.aging.pop(now) {
            self.forget_aged(&tid, links);
        }
        while let Some(tid) = self.retries.pop(now) {
            self.read_soon(&tid);
        }
        while let Some(tid) = self.polls.pop(now) {
            self.poll_due(now, &tid, links);
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
            if let Some(action) = self.take_step(tid, links) {
                return Some(action);
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
            && self.polls.next().is_none()
            && self.testimonies.is_empty()
            && self.aging.deadline().is_none()
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
            session: Session::default(),
            reading: None,
            parked_before: false,
            failures: 0,
            complaint: None,
            entry_complaints: BTreeSet::new(),
        }
    }
}

fn link_id(tid: &Rc<TransportId>) -> LinkId {
    LinkId { kind: ControllerKind::Discovery, tid: tid.clone() }
}
