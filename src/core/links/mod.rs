//! Links: controllers that somebody wants connected, of either kind, and the way each of them gets there.
//!
//! The finder and the connector say *what* is wanted ([`Links::want`], [`Links::unwant`]); this module knows *how*: adopt
//! what the kernel already has, probe the portal, take turns at the kernel, back off, connect again what was lost. It
//! answers with [`LinkChange`]s.
//!
//! ```text
//!                                       ┌──▶ AwaitingTwin ──▶ (seek)
//!   seek ──▶ AwaitingPortal ──▶ Queued ─┴──▶ Connecting ──ok──▶ Live ──removed──▶ (seek, or BackingOff if it flaps)
//!    │             ▲                             │                ▲ └──unwanted──▶ Disconnecting ──▶ forgotten
//!    │             └─ the portal is to blame ────┼──▶ BackingOff ─┼──retry──▶ (seek)                 or wanted again: (seek)
//!    ├──▶ Barred ──no longer excluded──▶ (seek)  │                │
//!    └── the kernel has it already ──────────────┼────────────────┘
//!                                                └── no longer wanted ──▶ forgotten
//! ```
//!
//! A link whose address is a host name waits (Unresolved) until [`names`](super::names) wants another in its place. What is
//! known of such alternates outlives that they are wanted.
//!
//! A controller of the kernel that serves a link is adopted from every state but Connecting and Disconnecting: those wait
//! for the kernel's word. A link that is not wanted any more is forgotten from every other state. A disconnect that fails,
//! or has to wait, is tried again (AwaitingDisconnect, then Disconnecting once more) until it works, the controller goes, or
//! somebody wants it after all. Whoever must not try (any more) is Barred instead of seeking. From Live a link can
//! also be left for a while (Leaving, Parked) and then be sought again: see `parking`.

mod departures;
mod link;
mod parking;
mod portals;
mod steps;
mod turns;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use crate::config::settings::ConnectOptions;
use crate::core::backoff::{BackOff, Hold};
use crate::core::deadlines::Deadlines;
use crate::core::device::Device;
use crate::core::devices::Devices;
use crate::core::exclusion::HostExclusion;
use crate::core::host::HostIds;
pub use crate::core::links::link::{Bar, Disposal, Leave, LinkChange, LinkId, needs_discovery_option};
use crate::core::links::link::{Link, Retired, State, Stay};
use crate::core::links::portals::Portals;
use crate::core::links::turns::{Turns, Ways};
use crate::core::network::Way;
use crate::core::portal::PortalId;
use crate::core::{Action, Ticket};
use crate::helper::message::Failure;

/// Every wanted controller, the portals, and the kernel's controllers.
#[derive(Debug)]
pub struct Links {
    links: BTreeMap<LinkId, Link>,
    /// How many of them are [settled](State::is_settled).
    settled: usize,
    /// One of the others has failed, or cannot be tried.
    troubled: bool,
    devices: Devices,
    portals: Portals,
    turns: Turns,
    ways: Ways,
    retries: Deadlines<LinkId>,
    connecting: BTreeMap<Ticket, LinkId>,
    /// When the kernel was last done with a connect: it works at one at a time.
    last_connect_done: Option<Instant>,
    disconnecting: BTreeMap<Ticket, LinkId>,
    /// By device name: the links in AwaitingDisconnect.
    stuck: BTreeMap<String, LinkId>,
    last_ticket: Ticket,
    /// Links of which one is wanted in the place of another.
    alternates: BTreeSet<LinkId>,
    /// Of those, the ones that were wanted before.
    retired: BTreeMap<LinkId, Retired>,
    /// Links that were ours before this process started, and the inodes of their devices.
    ours_before: BTreeMap<LinkId, u64>,
    /// The kernel can be asked to connect.
    ready: bool,
    host_ids: HostIds,
    /// What was said of them.
    host_complaints: BTreeSet<String>,
    /// What is not to be connected, though it is wanted.
    exclusions: Vec<HostExclusion>,
    backoff: BackOff,
    changes: VecDeque<LinkChange>,
    actions: VecDeque<Action>,
}

// ---- what is wanted ----------------------------------------------------------------------------------------------

impl Links {
    pub fn new(seed: u64) -> Links {
        Links {
            links: BTreeMap::new(),
            settled: 0,
            troubled: false,
            devices: Devices::default(),
            portals: Portals::new(seed.rotate_left(16)),
            turns: Turns::default(),
            ways: Ways::default(),
            retries: Deadlines::default(),
            connecting: BTreeMap::new(),
            last_connect_done: None,
            disconnecting: BTreeMap::new(),
            stuck: BTreeMap::new(),
            last_ticket: 0,
            alternates: BTreeSet::new(),
            retired: BTreeMap::new(),
            ours_before: BTreeMap::new(),
            ready: false,
            host_ids: HostIds::default(),
            host_complaints: BTreeSet::new(),
            exclusions: Vec::new(),
            backoff: BackOff::new(seed),
            changes: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// Wants a controller connected, with these options from the next connect on.
    pub fn want(&mut self, now: Instant, id: LinkId, options: Rc<ConnectOptions>) {
        self.want_within(now, id, options, Leave::Free);
    }

    /// The same, as often as it has leave.
    pub fn want_within(&mut self, now: Instant, id: LinkId, options: Rc<ConnectOptions>, leave: Leave) {
        match self.links.get_mut(&id) {
            Some(link) => {
                let was_wanted = std::mem::replace(&mut link.wanted, Ok(())).is_ok();
                // Who said when it is sought again has forgotten that.
                if let (State::Leaving { comes_back, .. }, false) = (&mut link.state, was_wanted) {
                    *comes_back = true;
                }
                let other_leave = std::mem::replace(&mut link.leave, leave) != leave;
                if other_leave && leave == Leave::Free {
                    link.failures = 0;
                }
                if link.options != options {
                    self.change_options(now, &id, options);
                } else if other_leave && link.state.can_adopt() {
                    self.seek(now, &id);
                }
                if self.is_stuck(&id) {
                    self.seek(now, &id);
                }
            }
            None => {
                let portal = PortalId::of(&id.tid, options.wants_tls());
                if let Some(portal) = &portal {
                    self.portals.join(portal, &id);
                }
                let mut link = Link::new(options, leave, portal.clone());
                let mut retry_at = None;
                if let Some(before) = self.take_retired(&id, portal.as_ref()) {
                    (link.failures, link.complaint, retry_at) = (before.failures, before.complaint, before.retry_at);
                }
                self.links.insert(id.clone(), link);
                match retry_at.filter(|at| *at > now && self.existing(&id).is_none()) {
                    Some(at) => self.retries.set(id, at),
                    None => self.seek(now, &id),
                }
            }
        }
    }

    /// Other options may be what a link needs that did not get connected so far: tried at once.
    fn change_options(&mut self, now: Instant, id: &LinkId, options: Rc<ConnectOptions>) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut link.portal, PortalId::of(&id.tid, options.wants_tls()));
        link.options = options;
        if before != link.portal {
            if let Some(portal) = &before {
                self.portals.leave(portal, id);
            }
            if let Some(portal) = &link.portal {
                self.portals.join(portal, id);
            }
        }
        if link.state.can_adopt() {
            self.seek(now, id);
        }
    }

    /// These links are tried one in the place of another: of each is told when it fails, and what is known of it outlives
    /// that it is wanted, so that its waits go on.
    pub fn set_alternates(&mut self, alternates: BTreeSet<LinkId>) {
        self.alternates = alternates;
        let over: Vec<LinkId> = self.retired.keys().filter(|id| !self.alternates.contains(*id)).cloned().collect();
        for id in over {
            self.take_retired(&id, None);
        }
    }

    /// Whether a link is wanted for an announcement's sake only, and was never connected: it is tried less often.
    pub fn set_tentative(&mut self, id: &LinkId, tentative: bool) {
        if let Some(link) = self.links.get_mut(id) {
            link.tentative = tentative;
        }
    }

    /// There may be an answer by now: tries at once what waits for its time at this place, and starts over with the shortest
    /// wait.
    pub fn hurry(&mut self, now: Instant, id: &LinkId) {
        let is_waiting = |state: &State| matches!(state, State::AwaitingPortal | State::BackingOff);
        for id in self.in_state(id, is_waiting) {
            let Some(Link { state, portal, .. }) = self.links.get(&id) else {
                continue;
            };
            match (state, portal) {
                (State::AwaitingPortal, Some(portal)) if self.portals.hurry(portal) => {
                    self.actions.push_back(Action::Probe(portal.clone()));
                }
                // Anybody can announce an address: what cannot be probed would hold up the host's other connects each time.
                (State::BackingOff, None) if id.tid.transport().is_ip() => {}
                (State::BackingOff, _) => self.hurry_back(now, &id),
                _ => {}
            }
        }
    }

    /// One that held up the host has to wait all the same: see [`Portals::hurry`].
    fn hurry_back(&mut self, now: Instant, id: &LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && !link.portal.as_ref().is_some_and(|portal| self.portals.held_up(portal))
        {
            link.failures = link.failures.min(1);
            self.retry(now, id);
        }
    }

    /// The network changed there: whatever waits for its time is tried at once, and waits start over with the shortest.
    pub fn start_over_where(&mut self, now: Instant, is_there: impl Fn(Way<'_>) -> bool) {
        let probed = self.portals.start_over(false, |portal| is_there(Way::from(portal)));
        self.actions.extend(probed.into_iter().map(Action::Probe));
        self.retired.iter_mut().filter(|(id, _)| is_there(Way::from(&*id.tid))).for_each(|(_, link)| link.start_over());
        let is_concerned = |id: &&LinkId| {
            let state = self.links.get(*id).map(|link| &link.state);
            state == Some(&State::BackingOff) && id.tid.transport().is_ip() && is_there(Way::from(&*id.tid))
        };
        let waiting: Vec<LinkId> = self.retries.keys().filter(is_concerned).cloned().collect();
        for id in waiting {
            self.hurry_back(now, &id);
        }
    }

    /// The administrator asks: whatever waits for its time is tried at once, and waits start over with the shortest.
    pub fn start_over(&mut self, now: Instant) {
        self.actions.extend(self.portals.start_over(true, |_| true).into_iter().map(Action::Probe));
        self.retired.values_mut().for_each(Retired::start_over);
        let mut waiting = Vec::new();
        for (id, link) in &mut self.links {
            link.failures = link.failures.min(if link.state == State::Barred { 0 } else { 1 });
            let is_postponed = matches!(link.state, State::AwaitingDisconnect { why: Stay::Postponed, .. });
            if matches!(link.state, State::BackingOff | State::Barred | State::AwaitingDisconnect { .. })
                && !is_postponed
            {
                waiting.push(id.clone());
            }
        }
        for id in waiting {
            self.retry(now, &id);
        }
    }

    /// Declares a link ours although another process connected it: an earlier run of this program.
    /// `inode`: of the device that it had, see [`Device::inode`].
    pub fn was_ours(&mut self, id: LinkId, inode: u64) {
        self.ours_before.insert(id, inode);
    }

    /// The names under which to connect, from the next connect on.
    pub fn set_host_ids(&mut self, ids: HostIds) {
        self.host_ids = ids;
        self.host_complaints.clear();
    }

    /// What is excluded is not connected any more; what is connected stays so.
    pub fn set_exclusions(&mut self, now: Instant, exclusions: Vec<HostExclusion>) {
        self.exclusions = exclusions;
        let barred = self.links.iter().filter(|(_, link)| link.state == State::Barred);
        let barred: Vec<LinkId> = barred.map(|(id, _)| id.clone()).collect();
        for id in barred {
            self.seek(now, &id);
        }
    }

    /// Whether the kernel can be asked to connect (`/dev/nvme-fabrics` exists and its options are known).
    pub fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }
}

// ---- what happens ------------------------------------------------------------------------------------------------

impl Links {
    /// A kernel controller is connected, or connected again.
    pub fn device_up(&mut self, now: Instant, device: Device) {
        let recycled = self.devices.is_recycled(&device).then(|| device.name.clone());
        let subsysnqn = device.subsysnqn.clone();
        self.update_devices(now, recycled.into_iter().collect(), vec![device]);
        self.retry_kept(now, |kept| kept.subsysnqn() == subsysnqn);
    }

    /// A kernel controller is gone.
    pub fn device_down(&mut self, now: Instant, name: &str) {
        self.update_devices(now, vec![name.to_owned()], vec![]);
    }

    /// The whole of `/sys/class/nvme`, at start or after events were lost.
    pub fn devices_read(&mut self, now: Instant, devices: Vec<Device>) {
        let read: BTreeMap<&str, &Device> = devices.iter().map(|device| (device.name.as_str(), device)).collect();
        let is_gone = |old: &&Device| !read.get(old.name.as_str()).is_some_and(|new| new.is_same_controller(old));
        let gone = self.devices.iter().filter(is_gone).map(|old| old.name.clone()).collect();
        self.update_devices(now, gone, devices);
    }

    /// First all that is known of the kernel is brought up to date, then the links follow.
    fn update_devices(&mut self, now: Instant, gone: Vec<String>, came: Vec<Device>) {
        let (mut lost, mut made) = (Vec::new(), Vec::new());
        for name in gone {
            // Without a name it was being made; whatever became of it, it is that no more.
            made.extend(self.devices.get(&name).filter(|device| device.subsysnqn.is_empty()).cloned());
            if let Some(id) = self.stuck.get(&name).cloned() {
                self.forget(&id);
            }
            lost.extend(self.devices.remove(&name).into_iter().map(|id| (id, name.clone())));
        }
        let names: Vec<String> = came.iter().map(|device| device.name.clone()).collect();
        for device in came {
            self.devices.insert(device);
        }
        for (id, name) in lost {
            self.lose(now, &id, name);
        }
        for name in names {
            self.offer(now, &name);
        }
        for device in made {
            for id in self.awaiting(&device) {
                self.seek(now, &id);
            }
        }
    }

    /// The answer to [`Action::Probe`]; `Err` says in words what is wrong there.
    pub fn probed(&mut self, now: Instant, portal: &PortalId, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                for id in self.portals.answered(now, portal) {
                    self.enqueue(&id);
                }
            }
            Err(why) => {
                self.portal_failed(now, portal, why, Hold::default());
                self.bar_waiting(portal);
            }
        }
    }

    /// The controller of a live link has answered a command.
    pub fn heard(&mut self, now: Instant, id: &LinkId) {
        if let Some(portal) = self.links.get(id).and_then(|link| link.portal.as_ref()) {
            self.portals.heard(now, portal);
        }
    }

    /// The answer to [`Action::Connect`], with the controller as sysfs shows it (`None`: gone already).
    pub fn connected(&mut self, now: Instant, ticket: Ticket, outcome: Result<Option<Device>, Failure>) {
        let Some(id) = self.connecting.remove(&ticket) else {
            return;
        };
        match outcome {
            Ok(Some(device)) if id.may_have_become(&device) => self.connect_succeeded(now, &id, device),
            Ok(Some(device)) => {
                self.device_up(now, device);
                self.connect_failed(now, &id, Failure::NotThatController);
            }
            Ok(None) => self.connect_failed(now, &id, Failure::Gone),
            Err(failure) => self.connect_failed(now, &id, failure),
        }
        self.last_connect_done = Some(now);
        for twin in self.in_state(&id, |state| *state == State::AwaitingTwin) {
            self.seek(now, &twin);
        }
    }

    /// When [`Links::handle_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.retries.next().into_iter().chain(self.portals.deadline()).min()
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        while let Some(id) = self.retries.pop(now) {
            self.retry(now, &id);
        }
        while let Some(portal) = self.portals.pop_due(now) {
            self.actions.push_back(Action::Probe(portal));
        }
    }

    /// What is to be done next. Connects are handed out here, not earlier, so that all that was ready has been heard.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if self.actions.is_empty() {
            self.take_turns(now);
        }
        self.actions.pop_front()
    }

    pub fn poll_change(&mut self) -> Option<LinkChange> {
        self.changes.pop_front()
    }
}
