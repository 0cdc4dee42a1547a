//! The finder: which discovery controllers there are, and what their log pages say.
//!
//! It wants its discovery controllers connected ([`Links`] does that), reads the log page of each when it is connected
//! and whenever it says that something changed, and keeps the last good one. What it learns goes out as [`Testimony`].
//!
//! Here is which controllers there are and why; `announced` has those that come and go with announcements, `referrals`
//! those that others list. `session` is what is done with a controller once it is connected, `reading` what is read
//! from it, `parking` when it is left in between, `shared` what two names of one controller have in common.

mod announced;
mod parking;
mod reading;
mod referrals;
mod session;
mod shared;

pub use reading::PageState;
use reading::Reading;
use referrals::Bounded;
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
use crate::core::fc_ports::FcPorts;
use crate::core::links::{Disposal, LinkId, Links};
use crate::core::page::{Contents, Page};
use crate::core::policy::Policy;
use crate::core::tid::{Transport, TransportId};
use crate::core::{Action, Change, Ticket};

/// How a discovery controller became known. Where there are several reasons, the first of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By the administrator; what the firmware left (NBFT) counts as configured.
    Configured,
    /// Announced in the local network.
    Discovered,
    /// Listed by another discovery controller.
    Referral,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Configured => "configured",
            Origin::Discovered => "discovered",
            Origin::Referral => "referral",
        }
    }

    pub fn parse(word: &str) -> Option<Origin> {
        [Origin::Configured, Origin::Discovered, Origin::Referral].into_iter().find(|origin| origin.as_str() == word)
    }
}

/// A wanted discovery controller.
#[derive(Debug)]
struct Discovery {
    origin: Origin,
    /// It was connected before: more than an announcement speaks for it.
    proven: bool,
    page: Option<Rc<Page>>,
    /// What its entries lead to.
    contents: Contents,
    fresh: bool,
    /// The other discovery controllers that it listed last.
    referrals: BTreeSet<Rc<TransportId>>,
    device: Option<String>,
    session: Session,
    /// The NQN that it reported when it was last connected.
    calls_itself: Option<String>,
    reading: Option<Reading>,
    /// It was parked, and that was said.
    parked_before: bool,
    failures: u32,
    /// The last failure that was reported.
    complaint: Option<String>,
    /// What was reported of the page's entries.
    entry_complaints: BTreeSet<Rc<str>>,
}

/// Decides which discovery controllers are wanted, and keeps what each of them lists.
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
    /// What the kernel told of counts as announced.
    fc_ports: FcPorts,
    /// Controllers came or went, without the administrator's word.
    roster_changed: bool,
    /// What is referred to may have changed since referrals were last followed.
    astray: bool,
    /// The bounds that keep us from following some.
    bounded: Bounded,
    /// There were too many, and that was said.
    crowded: bool,
    aging: Aging,
    /// Known from an earlier run, and for how long they had been out of sight, until the first configuration.
    remembered: BTreeMap<Rc<TransportId>, Duration>,
    /// By lister: the referrals known from an earlier run, until the first configuration.
    remembered_referrals: BTreeMap<Rc<TransportId>, BTreeSet<Rc<TransportId>>>,
    /// All of these.
    known_before: BTreeSet<Rc<TransportId>>,
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
            fc_ports: FcPorts::default(),
            roster_changed: false,
            astray: false,
            bounded: Bounded::default(),
            crowded: false,
            aging: Aging::default(),
            remembered: BTreeMap::new(),
            remembered_referrals: BTreeMap::new(),
            known_before: BTreeSet::new(),
        }
    }

    /// Takes a new configuration in force. Controllers that it no longer contains or admits are let go: the
    /// administrator says so. What was announced before is not contained in it, and stays; so does what those that stay
    /// refer to.
    pub fn configure(&mut self, now: Instant, policy: Policy, persistence: Persistence, links: &mut Links) {
        self.policy = policy;
        self.aging.set_persistence(persistence);
        self.announced = self.all_announced();
        self.fc_ports.ask();
        let (wanted, refused) = self.policy.configured();
        self.actions.extend(refused.into_iter().map(Action::Note));
        let others: Vec<_> = self.controllers.keys().filter(|tid| !wanted.contains_key(*tid)).cloned().collect();
        // What is wanted first, so that it can take over a connection that is let go otherwise.
        for (tid, options) in wanted {
            self.enter(&tid, Origin::Configured);
            self.set_origin(&tid, Origin::Configured);
            self.aging.see(&tid);
            links.want(now, link_id(&tid), options);
            links.set_tentative(&link_id(&tid), false);
        }
        let is_spared = |tid: &TransportId| self.policy.awaits_addresses() && self.policy.admits(tid).is_ok();
        let others = others.into_iter().filter(|tid| !is_spared(tid));
        let (discovered, dropped): (Vec<_>, Vec<_>) = others.partition(|tid| self.is_discovered(tid));
        for tid in &discovered {
            self.set_origin(tid, Origin::Discovered);
        }
        for tid in dropped {
            self.set_origin(&tid, Origin::Referral);
            self.aging.see(&tid);
        }
        for tid in self.announced.clone().into_iter().chain(discovered) {
            self.discover(now, &tid, links);
        }
        for (tid, unseen) in std::mem::take(&mut self.remembered) {
            self.bring_back(now, &tid, unseen, links);
        }
        self.follow_configuration(now, links);
        self.remembered_referrals.clear();
        self.known_before.clear();
        if !self.policy.awaits_addresses() {
            links.dispose_of_leftovers(now, ControllerKind::Discovery, |_| Disposal::Disconnect);
        }
    }

    /// Whether a controller that is not configured is wanted for an announcement's sake.
    fn is_discovered(&self, tid: &Rc<TransportId>) -> bool {
        let was_discovered = self.is_announced(tid) && self.policy.admits(tid).is_ok();
        was_discovered || self.announced.contains(tid)
    }

    /// The controller of this transport id; if it is new, of this origin.
    fn enter(&mut self, tid: &Rc<TransportId>, origin: Origin) -> &mut Discovery {
        self.controllers.entry(tid.clone()).or_insert_with(|| {
            self.roster_changed = true;
            let referrals = self.remembered_referrals.remove(tid).unwrap_or_default();
            Discovery { referrals, ..Discovery::new(origin) }
        })
    }

    /// Clients are told of another origin, as of a new page: it tells what it means if the controller goes.
    fn set_origin(&mut self, tid: &Rc<TransportId>, origin: Origin) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        if std::mem::replace(&mut discovery.origin, origin) != origin {
            self.astray = true;
            let device = discovery.device.clone().unwrap_or_default();
            self.actions.push_back(Action::Publish(Change::LogPage { tid: tid.clone(), device }));
        }
    }

    fn drop_controller(&mut self, tid: &Rc<TransportId>, links: &mut Links) {
        self.forget_reading(tid);
        self.polls.cancel(tid);
        self.aging.see(tid);
        self.controllers.remove(tid);
        self.roster_changed = true;
        self.astray = true;
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
            let name = links.device(&device).map(|device| device.subsysnqn.clone());
            self.astray |= discovery.calls_itself != name;
            discovery.calls_itself = name;
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
        if let Some(discovery) = self.controllers.get_mut(tid)
            && !discovery.session.is_parked()
        {
            self.polls.cancel(tid);
            self.turn_stale(tid);
            // Perhaps its port is there no more.
            if tid.transport() == Transport::Fc {
                self.fc_ports.ask();
            }
            self.look_for(now, tid, links);
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

    /// Whether controllers came or went since this was asked last, without the administrator's word.
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
        if self.fc_ports.poll_question() {
            return Some(Action::AskFcPorts);
        }
        while let Some(tid) = self.due.pop_first() {
            let tid = self.reader_for(&tid);
            if self.step(&tid).is_none()
                && let Some(action) = self.take_step(tid, links)
            {
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

    /// Whether it is known from an announcement only.
    pub fn is_announced(&self, tid: &TransportId) -> bool {
        self.origin(tid) == Some(Origin::Discovered)
    }

    /// Discovered controllers that the next run should know of, and for how long each has been out of sight.
    pub fn worth_remembering(&self, now: Instant) -> impl Iterator<Item = (LinkId, Duration)> {
        let known = self.controllers.iter().filter(|(_, known)| known.origin == Origin::Discovered && known.proven);
        known.map(move |(tid, _)| (link_id(tid), self.aging.age(now, tid)))
    }

    pub fn page(&self, tid: &TransportId) -> Option<&Rc<Page>> {
        self.controllers.get(tid)?.page.as_ref()
    }

    pub fn page_state(&self, tid: &TransportId) -> PageState {
        match self.controllers.get(tid) {
            Some(Discovery { page: Some(_), fresh: true, .. }) => PageState::Fresh,
            Some(Discovery { page: Some(_), fresh: false, .. }) => PageState::Stale,
            _ => PageState::None,
        }
    }

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
            contents: Contents::default(),
            fresh: false,
            referrals: BTreeSet::new(),
            device: None,
            session: Session::default(),
            calls_itself: None,
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
