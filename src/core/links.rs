//! Links: controllers that somebody wants connected, of either kind, and the way each of them gets there.
//!
//! The finder and the connector say *what* is wanted ([`Links::want`], [`Links::unwant`]); this module knows *how*: adopt
//! what the kernel already has, probe the portal, take turns at the kernel, back off, connect again what was lost. It
//! answers with [`LinkChange`]s.
//!
//! ```text
//!   want ──▶ AwaitingPortal ──probe──▶ Queued ──turn──▶ Connecting ──ok──▶ Live ──removed──▶ (from the start)
//!     │            ▲                                        │                ▲
//!     │            └── portal or link deadline ◀── BackingOff (failed)       │
//!     └── the kernel has it already ─────────────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::settings::ConnectOptions;
use crate::core::backoff::BackOff;
use crate::core::deadlines::Deadlines;
use crate::core::device::{ControllerKind, Device};
use crate::core::devices::Devices;
use crate::core::note::Note;
use crate::core::portal::{Answer, Portal, PortalId};
use crate::core::tid::{DISCOVERY_NQN, Spelling, TransportId};
use crate::core::{Action, Ticket};
use crate::helper::message::Failure;

/// The kernel makes connects wait for each other. One more than it works at keeps it busy while we learn of the outcome.
const MAX_CONNECTING: usize = 2;

/// A connect that fails later than this held up all others of the host.
const HELD_UP: Duration = Duration::from_secs(1);

/// A connection that the kernel gives up sooner than this counts as a failure, so that we do not connect in circles.
const FLAPPING: Duration = Duration::from_secs(5);

/// A wanted controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId {
    pub kind: ControllerKind,
    pub tid: Rc<TransportId>,
}

/// What happened to a link.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkChange {
    Up { id: LinkId, device: String },
    Down { id: LinkId, device: String },
}

/// What becomes of the connection when its link is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposal {
    /// Disconnected if it is ours.
    Disconnect,
    Keep,
}

/// What to do when a deadline fires.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retry {
    Portal(PortalId),
    Link(LinkId),
}

#[derive(Debug)]
enum State {
    /// Waits for its portal to answer.
    AwaitingPortal,
    /// Its portal answers; waits for its turn at the kernel.
    Queued {
        turn: Turn,
    },
    Connecting {
        since: Instant,
    },
    /// `owned`: we may take it down.
    Live {
        device: String,
        owned: bool,
        since: Instant,
    },
    /// Failed although its portal answers, or has none.
    BackingOff,
    Disconnecting {
        device: String,
    },
}

/// The order in which links go to the kernel: those that failed before come last, for they may hold up the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    suspect: bool,
    number: u64,
}

#[derive(Debug)]
struct Link {
    state: State,
    options: Rc<ConnectOptions>,
    /// `Err` once the link is unwanted but the kernel is not done with it.
    wanted: Result<(), Disposal>,
    /// In a row.
    failures: u32,
    /// The last failure that was reported.
    complaint: Option<String>,
}

/// Every wanted controller, the portals, and the kernel's controllers.
#[derive(Debug)]
pub struct Links {
    links: BTreeMap<LinkId, Link>,
    portals: BTreeMap<PortalId, Portal>,
    devices: Devices,
    /// Which links a kernel controller serves.
    served: BTreeMap<String, BTreeSet<LinkId>>,
    queue: BTreeSet<(Turn, LinkId)>,
    in_flight: BTreeMap<Ticket, LinkId>,
    /// Of those, the connects.
    connecting: usize,
    next_turn: u64,
    next_ticket: Ticket,
    /// Links that were ours before this process started.
    ours_before: BTreeSet<LinkId>,
    /// The kernel can be asked to connect.
    ready: bool,
    retries: Deadlines<Retry>,
    backoff: BackOff,
    changes: VecDeque<LinkChange>,
    actions: VecDeque<Action>,
}

impl Links {
    pub fn new(seed: u64) -> Links {
        Links {
            links: BTreeMap::new(),
            portals: BTreeMap::new(),
            devices: Devices::default(),
            served: BTreeMap::new(),
            queue: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            connecting: 0,
            next_turn: 0,
            next_ticket: 0,
            ours_before: BTreeSet::new(),
            ready: false,
            retries: Deadlines::default(),
            backoff: BackOff::new(seed),
            changes: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    // ---- what is wanted ------------------------------------------------------------------------------------------

    /// Wants a controller connected, with these options from the next connect on.
    pub fn want(&mut self, now: Instant, id: LinkId, options: Rc<ConnectOptions>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.wanted = Ok(());
            let moves = link.options.tls != options.tls && link.state.can_adopt();
            if moves {
                self.leave_queue(&id);
                self.leave_portal(&id);
            }
            if let Some(link) = self.links.get_mut(&id) {
                link.options = options;
            }
            if moves {
                self.join_portal(&id);
                self.seek(now, &id);
            }
            return;
        }
        let link = Link { state: State::BackingOff, options, wanted: Ok(()), failures: 0, complaint: None };
        self.links.insert(id.clone(), link);
        self.join_portal(&id);
        self.seek(now, &id);
    }

    /// No longer wants it. What is connected stays or goes by `disposal`; a connect in flight is waited for.
    pub fn unwant(&mut self, id: &LinkId, disposal: Disposal) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        match link.state {
            State::Connecting { .. } | State::Disconnecting { .. } => link.wanted = Err(disposal),
            State::Live { owned, .. } if owned && disposal == Disposal::Disconnect => self.take_down(id),
            State::Live { .. } | State::AwaitingPortal | State::Queued { .. } | State::BackingOff => self.forget(id),
        }
    }

    /// Declares a link ours although another process connected it: an earlier run of this program.
    pub fn was_ours(&mut self, id: LinkId) {
        self.ours_before.insert(id);
    }

    /// Lets go of what was ours before this process started and nobody wants any more.
    pub fn dispose_of_leftovers(&mut self, now: Instant, kind: ControllerKind, disposal: Disposal) {
        let leftovers: Vec<LinkId> =
            self.ours_before.iter().filter(|id| id.kind == kind && !self.links.contains_key(id)).cloned().collect();
        for id in leftovers {
            if self.devices.serving(&id.tid, id.kind).is_some() {
                self.want(now, id.clone(), Rc::default());
                self.unwant(&id, disposal);
            }
            self.ours_before.remove(&id);
        }
    }

    /// Whether the kernel can be asked to connect (`/dev/nvme-fabrics` exists and its options are known).
    pub fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }

    // ---- what happens --------------------------------------------------------------------------------------------

    /// A kernel controller is connected, or connected again.
    pub fn device_up(&mut self, now: Instant, device: Device) {
        let unserved: Vec<LinkId> = self
            .candidates(&device)
            .filter(|(id, link)| link.state.can_adopt() && device.serves(&id.tid, id.kind))
            .map(|(id, _)| id.clone())
            .collect();
        let (name, usable) = (device.name.clone(), device.is_usable());
        self.devices.insert(device);
        if usable {
            for id in unserved {
                self.adopt(now, &id, &name);
            }
        }
    }

    /// A kernel controller is gone.
    pub fn device_down(&mut self, now: Instant, name: &str) {
        self.devices.remove(name);
        for id in self.served.remove(name).unwrap_or_default() {
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            let State::Live { since, .. } = link.state else {
                continue; // being disconnected: the helper's reply ends that
            };
            let flapped = now.saturating_duration_since(since) < FLAPPING;
            link.state = State::BackingOff;
            link.failures = if flapped { link.failures.saturating_add(1) } else { 0 };
            let failures = link.failures;
            self.changes.push_back(LinkChange::Down { id: id.clone(), device: name.to_owned() });
            self.note(Note::Lost { id: id.clone(), device: name.to_owned() });
            if flapped {
                self.retries.set(Retry::Link(id.clone()), now + self.backoff.delay(failures));
            } else {
                self.seek(now, &id);
            }
        }
    }

    /// The whole of `/sys/class/nvme`, at start or after events were lost.
    pub fn devices_read(&mut self, now: Instant, devices: Vec<Device>) {
        let read: BTreeMap<&str, &Device> = devices.iter().map(|device| (device.name.as_str(), device)).collect();
        let stays = |old: &Device| read.get(old.name.as_str()).is_some_and(|new| new.is_same_controller(old));
        let gone: Vec<String> = self.devices.iter().filter(|old| !stays(old)).map(|old| old.name.clone()).collect();
        for name in gone {
            self.device_down(now, &name);
        }
        for device in devices {
            self.device_up(now, device);
        }
    }

    /// The answer to [`Action::Probe`]; `Err` says in words what is wrong there.
    pub fn probed(&mut self, now: Instant, portal_id: &PortalId, outcome: Result<(), String>) {
        let Some(portal) = self.portals.get_mut(portal_id) else {
            return;
        };
        match outcome {
            Ok(()) => {
                portal.answered(now);
                for id in self.awaiting(portal_id) {
                    self.enqueue(&id);
                }
            }
            Err(why) => self.portal_failed(now, portal_id, why, Duration::ZERO),
        }
    }

    /// The answer to [`Action::Connect`], with the controller as sysfs shows it (`None`: gone already).
    pub fn connected(&mut self, now: Instant, ticket: Ticket, outcome: Result<Option<Device>, Failure>) {
        let Some(id) = self.in_flight.remove(&ticket) else {
            return;
        };
        self.connecting = self.connecting.saturating_sub(1);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let State::Connecting { since } = link.state else {
            return;
        };
        match outcome {
            Ok(Some(device)) => self.connect_succeeded(now, &id, device),
            _ if link.wanted.is_err() => self.forget(&id),
            Ok(None) => self.connect_failed(now, &id, Failure::Gone, Duration::ZERO),
            Err(failure) => self.connect_failed(now, &id, failure, now.saturating_duration_since(since)),
        }
    }

    /// The answer to [`Action::Disconnect`].
    pub fn disconnected(&mut self, now: Instant, ticket: Ticket, outcome: Result<(), Failure>) {
        let Some(id) = self.in_flight.remove(&ticket) else {
            return;
        };
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let State::Disconnecting { device } = &link.state else {
            return;
        };
        let (device, wanted) = (device.clone(), link.wanted.is_ok());
        if let Err(failure) = outcome
            && self.devices.get(&device).is_some()
        {
            self.note(Note::DisconnectFailed { id: id.clone(), device, failure });
        }
        match wanted {
            true => {
                self.ours_before.insert(id.clone());
                self.seek(now, &id);
            }
            false => self.forget(&id),
        }
    }

    /// When [`Links::handle_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.retries.next()
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        while let Some(retry) = self.retries.pop(now) {
            match retry {
                Retry::Link(id) => self.seek(now, &id),
                Retry::Portal(id) if self.awaiting(&id).is_empty() => self.reset_portal(&id),
                Retry::Portal(id) => self.probe(&id),
            }
        }
    }

    /// What is to be done next. Connects are handed out here, not earlier, so that all that was ready has been heard.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        self.actions.pop_front().or_else(|| self.next_connect(now))
    }

    pub fn poll_change(&mut self) -> Option<LinkChange> {
        self.changes.pop_front()
    }

    /// Something was heard from a controller behind this link's portal.
    pub fn heard_from(&mut self, now: Instant, id: &LinkId) {
        if let Some(portal) = self.portal_of(id).and_then(|id| self.portals.get_mut(&id))
            && portal.answer != Answer::Asked
            && portal.failures == 0
        {
            portal.answered(now);
        }
    }

    // ---- what others ask -----------------------------------------------------------------------------------------

    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.get(name)
    }

    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter()
    }

    /// The links that a kernel controller serves.
    pub fn served_by(&self, device: &str) -> impl Iterator<Item = &LinkId> {
        self.served.get(device).into_iter().flatten()
    }

    /// Every wanted controller of a kind.
    pub fn wanted(&self, kind: ControllerKind) -> impl Iterator<Item = &LinkId> {
        self.links.iter().filter(move |(id, link)| id.kind == kind && link.wanted.is_ok()).map(|(id, _)| id)
    }

    pub fn is_wanted(&self, id: &LinkId) -> bool {
        self.links.get(id).is_some_and(|link| link.wanted.is_ok())
    }

    /// The kernel controller that serves a link.
    pub fn device_of(&self, id: &LinkId) -> Option<&Device> {
        match &self.links.get(id)?.state {
            State::Live { device, .. } | State::Disconnecting { device } => self.devices.get(device),
            _ => None,
        }
    }

    /// Failures in a row, and when the next attempt is due if that is by time.
    pub fn attempts(&self, id: &LinkId) -> (u32, Option<Instant>) {
        let Some(link) = self.links.get(id) else {
            return (0, None);
        };
        let portal = self.portal_of(id);
        let portal_failures = portal.as_ref().and_then(|id| self.portals.get(id)).map_or(0, |portal| portal.failures);
        let retry_at = self
            .retries
            .get(&Retry::Link(id.clone()))
            .or_else(|| portal.and_then(|portal| self.retries.get(&Retry::Portal(portal))));
        match link.state {
            State::Live { .. } => (0, None),
            _ => (link.failures.saturating_add(portal_failures), retry_at),
        }
    }

    /// The links that are ours, connected or still remembered from an earlier run.
    pub fn ours(&self) -> impl Iterator<Item = &LinkId> {
        let live = self.links.iter().filter(|(_, link)| matches!(link.state, State::Live { owned: true, .. }));
        live.map(|(id, _)| id).chain(&self.ours_before)
    }

    /// Whether helper requests of ours are still unanswered.
    pub fn is_disconnecting(&self) -> bool {
        self.in_flight.len() > self.connecting
    }

    // ---- the steps -----------------------------------------------------------------------------------------------

    /// Starts on the way to a connection: with what the kernel has, else at the portal.
    fn seek(&mut self, now: Instant, id: &LinkId) {
        self.retries.cancel(&Retry::Link(id.clone()));
        if let Some(device) = self.devices.serving(&id.tid, id.kind) {
            let name = device.name.clone();
            return self.adopt(now, id, &name);
        }
        let Some(portal_id) = self.portal_of(id) else {
            return self.enqueue(id);
        };
        self.set_state(id, State::AwaitingPortal);
        match self.portals.get(&portal_id).map(|portal| portal.answer) {
            Some(Answer::Yes { until }) if until > now => self.enqueue(id),
            Some(Answer::Yes { .. } | Answer::Unknown) => self.probe(&portal_id),
            Some(Answer::Asked | Answer::No) | None => {}
        }
    }

    fn probe(&mut self, portal_id: &PortalId) {
        if let Some(portal) = self.portals.get_mut(portal_id) {
            portal.answer = Answer::Asked;
            self.retries.cancel(&Retry::Portal(portal_id.clone()));
            self.actions.push_back(Action::Probe(portal_id.clone()));
        }
    }

    fn enqueue(&mut self, id: &LinkId) {
        let portal = self.portal_of(id).and_then(|portal| self.portals.get(&portal));
        let portal_failed = portal.is_some_and(|portal| portal.failures > 0);
        let number = self.next_turn;
        if let Some(link) = self.links.get_mut(id) {
            let turn = Turn { suspect: portal_failed || link.failures > 0, number };
            link.state = State::Queued { turn };
            self.queue.insert((turn, id.clone()));
            self.next_turn = number.wrapping_add(1);
        }
    }

    fn next_connect(&mut self, now: Instant) -> Option<Action> {
        if !self.ready {
            return None;
        }
        loop {
            let (turn, id) = self.queue.first()?;
            let room = if turn.suspect { 1 } else { MAX_CONNECTING };
            if self.connecting >= room {
                return None;
            }
            if self.in_flight.values().any(|other| is_same_place(other, id)) {
                return None;
            }
            let (_, id) = self.queue.pop_first()?;
            // The kernel may have got it meanwhile: by somebody else, or by a link that differs in its pinning only.
            if self.devices.serving(&id.tid, id.kind).is_some() {
                self.seek(now, &id);
            } else {
                return self.start_connect(now, id);
            }
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
        }
    }

    fn start_connect(&mut self, now: Instant, id: LinkId) -> Option<Action> {
        let ticket = self.next_ticket();
        let link = self.links.get_mut(&id)?;
        link.state = State::Connecting { since: now };
        self.connecting += 1;
        self.in_flight.insert(ticket, id.clone());
        Some(Action::Connect { ticket, options: link.options.clone(), id })
    }

    fn connect_succeeded(&mut self, now: Instant, id: &LinkId, device: Device) {
        let name = device.name.clone();
        if let Some(portal) = self.portal_of(id).and_then(|id| self.portals.get_mut(&id)) {
            portal.proved(now);
        }
        self.device_up(now, device);
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let disposal = link.wanted;
        self.go_live(now, id, &name, true);
        self.note(Note::Connected { id: id.clone(), device: name });
        if let Err(disposal) = disposal {
            self.unwant(id, disposal);
        }
    }

    /// A quick refusal concerns this controller alone; a slow failure held up every connect of the host, so that the whole
    /// portal has to wait. Either way the portal's answer is no longer believed.
    fn connect_failed(&mut self, now: Instant, id: &LinkId, failure: Failure, held: Duration) {
        if failure.is_already_connected() {
            self.actions.push_back(Action::ReadDevices);
        }
        let portal_id = self.portal_of(id);
        if let Some(portal_id) = &portal_id
            && held >= HELD_UP
        {
            self.set_state(id, State::AwaitingPortal);
            self.recall_queued(portal_id);
            return self.portal_failed(now, portal_id, failure.to_string(), held);
        }
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.failures = link.failures.saturating_add(1);
        link.state = State::BackingOff;
        let why = failure.to_string();
        let delay = self.backoff.delay_after_connect(link.failures, held);
        if link.complaint.as_ref() != Some(&why) {
            link.complaint = Some(why.clone());
            self.note(Note::ConnectFailed { id: id.clone(), why, retry_in: delay });
        }
        self.retries.set(Retry::Link(id.clone()), now + delay);
        if let Some(portal_id) = &portal_id {
            self.recall_queued(portal_id);
            match self.awaiting(portal_id).is_empty() {
                true => self.reset_portal(portal_id),
                false => self.probe(portal_id),
            }
        }
    }

    fn portal_failed(&mut self, now: Instant, portal_id: &PortalId, why: String, held: Duration) {
        let Some(portal) = self.portals.get_mut(portal_id) else {
            return;
        };
        let news = portal.fail(&why);
        let (failures, waiting) = (portal.failures, portal.members.len());
        let delay = self.backoff.delay_after_connect(failures, held);
        if news {
            self.note(Note::Unreachable { portal: portal_id.clone(), why, waiting, retry_in: delay });
        }
        self.retries.set(Retry::Portal(portal_id.clone()), now + delay);
    }

    /// Takes the links behind a portal out of the queue again: it has to answer anew first.
    fn recall_queued(&mut self, portal_id: &PortalId) {
        let members = self.portals.get(portal_id).map(|portal| portal.members.clone()).unwrap_or_default();
        for id in members {
            if let Some(Link { state: State::Queued { turn }, .. }) = self.links.get(&id) {
                self.queue.remove(&(*turn, id.clone()));
                self.set_state(&id, State::AwaitingPortal);
            }
        }
    }

    fn adopt(&mut self, now: Instant, id: &LinkId, device: &str) {
        let owned = self.ours_before.remove(id);
        self.go_live(now, id, device, owned);
        self.note(Note::Adopted { id: id.clone(), device: device.to_owned() });
    }

    fn go_live(&mut self, now: Instant, id: &LinkId, device: &str, owned: bool) {
        self.leave_queue(id);
        self.retries.cancel(&Retry::Link(id.clone()));
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.state = State::Live { device: device.to_owned(), owned, since: now };
        link.complaint = None;
        self.served.entry(device.to_owned()).or_default().insert(id.clone());
        self.changes.push_back(LinkChange::Up { id: id.clone(), device: device.to_owned() });
    }

    /// Disconnects a link's controller, unless another wanted link is served by it: that one inherits it.
    fn take_down(&mut self, id: &LinkId) {
        let Some(Link { state: State::Live { device, .. }, .. }) = self.links.get(id) else {
            return;
        };
        let name = device.clone();
        let heir = self.served_by(&name).find(|other| *other != id).cloned();
        if let Some(heir) = heir {
            if let Some(Link { state: State::Live { owned, .. }, .. }) = self.links.get_mut(&heir) {
                *owned = true;
            }
            return self.forget(id);
        }
        let Some(device) = self.devices.get(&name).cloned() else {
            return self.forget(id);
        };
        let ticket = self.next_ticket();
        if let Some(link) = self.links.get_mut(id) {
            link.state = State::Disconnecting { device: name.clone() };
            link.wanted = Err(Disposal::Disconnect);
        }
        self.in_flight.insert(ticket, id.clone());
        self.note(Note::Disconnecting { id: id.clone(), device: name });
        self.actions.push_back(Action::Disconnect { ticket, device: Box::new(device) });
    }

    fn forget(&mut self, id: &LinkId) {
        self.leave_queue(id);
        self.retries.cancel(&Retry::Link(id.clone()));
        self.leave_portal(id);
        self.ours_before.remove(id);
        if let Some(Link { state: State::Live { device, .. } | State::Disconnecting { device }, .. }) =
            self.links.remove(id)
            && let Some(served) = self.served.get_mut(&device)
        {
            served.remove(id);
            if served.is_empty() {
                self.served.remove(&device);
            }
        }
    }

    // ---- small helpers -------------------------------------------------------------------------------------------

    /// The links that `device` might serve: those at its address, and for I/O controllers of its subsystem.
    fn candidates<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = (&'a LinkId, &'a Link)> {
        let subsysnqn = match device.kind {
            ControllerKind::Io => device.subsysnqn.as_str(),
            ControllerKind::Discovery => "",
        };
        let spelling = Spelling { traddr: &device.traddr, trsvcid: &device.trsvcid, subsysnqn, ..Spelling::default() };
        let first = LinkId { kind: device.kind, tid: Rc::new(TransportId::new(device.transport, spelling)) };
        self.links.range(first..).take_while(move |(id, _)| {
            id.kind == device.kind
                && id.tid.transport() == device.transport
                && id.tid.traddr() == device.traddr
                && id.tid.trsvcid() == device.trsvcid
                && (device.kind == ControllerKind::Discovery || id.tid.subsysnqn() == device.subsysnqn)
        })
    }

    /// The members of a portal that wait for its answer.
    fn awaiting(&self, portal_id: &PortalId) -> Vec<LinkId> {
        let members = self.portals.get(portal_id).into_iter().flat_map(|portal| &portal.members);
        members
            .filter(|id| self.links.get(id).is_some_and(|link| matches!(link.state, State::AwaitingPortal)))
            .cloned()
            .collect()
    }

    fn portal_of(&self, id: &LinkId) -> Option<PortalId> {
        PortalId::of(&id.tid, self.links.get(id)?.options.tls == Some(true))
    }

    fn join_portal(&mut self, id: &LinkId) {
        if let Some(portal_id) = self.portal_of(id) {
            self.portals.entry(portal_id).or_default().members.insert(id.clone());
        }
    }

    fn leave_portal(&mut self, id: &LinkId) {
        let Some(portal_id) = self.portal_of(id) else {
            return;
        };
        let Some(portal) = self.portals.get_mut(&portal_id) else {
            return;
        };
        portal.members.remove(id);
        if portal.members.is_empty() {
            self.portals.remove(&portal_id);
            self.retries.cancel(&Retry::Portal(portal_id));
        }
    }

    /// Nobody waits for this portal's answer now; whoever needs it next asks.
    fn reset_portal(&mut self, portal_id: &PortalId) {
        if let Some(portal) = self.portals.get_mut(portal_id)
            && portal.answer != Answer::Asked
        {
            portal.answer = Answer::Unknown;
        }
    }

    fn leave_queue(&mut self, id: &LinkId) {
        if let Some(Link { state: State::Queued { turn }, .. }) = self.links.get(id) {
            self.queue.remove(&(*turn, id.clone()));
        }
    }

    fn set_state(&mut self, id: &LinkId, state: State) {
        if let Some(link) = self.links.get_mut(id) {
            link.state = state;
        }
    }

    /// Requests of the whole machine are told apart by their tickets.
    pub fn next_ticket(&mut self) -> Ticket {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.next_ticket
    }

    fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }
}

impl State {
    /// Not connected, and nothing under way that would connect it.
    fn can_adopt(&self) -> bool {
        matches!(self, State::AwaitingPortal | State::Queued { .. } | State::BackingOff)
    }
}

/// Whether two links could end up at the same kernel controller, differing only in their pinning or in the name by which
/// they ask for a discovery controller.
fn is_same_place(a: &LinkId, b: &LinkId) -> bool {
    let place = |id: &LinkId| (id.kind, id.tid.transport());
    place(a) == place(b)
        && a.tid.traddr() == b.tid.traddr()
        && a.tid.trsvcid() == b.tid.trsvcid()
        && (a.kind == ControllerKind::Discovery || a.tid.subsysnqn() == b.tid.subsysnqn())
}

/// Whether a discovery controller is asked for by a name of its own (TP8013), which the kernel has to be told.
pub fn needs_discovery_option(id: &LinkId) -> bool {
    id.kind == ControllerKind::Discovery && id.tid.subsysnqn() != DISCOVERY_NQN
}
