//! The steps that a link takes, as the diagram in [`links`](super) shows them.

use std::time::{Duration, Instant};

use super::link::{Bar, Leave, Link, Retired, State};
use super::{LinkChange, LinkId, Links};
use crate::core::backoff::Hold;
use crate::core::device::{ControllerKind, Device};
use crate::core::exclusion::HostExclusion;
use crate::core::note::Note;
use crate::core::portal::{PortalId, blames_portal};
use crate::core::tid::Transport;
use crate::core::{Action, Ticket};
use crate::helper::message::Failure;

/// The kernel makes connects wait for each other. One more than it works at keeps it busy while we learn of the outcome.
const MAX_CONNECTING: usize = 2;

/// A connection that the kernel gives up sooner than this counts as a failure, so that we do not connect in circles.
const FLAPPING: Duration = Duration::from_secs(5);

/// A Fibre Channel controller may be in the making, in the background, for as long as ctrl_loss_tmo. Others at its address
/// wait so long to see whether it is what they want.
const MAKING: Duration = Duration::from_secs(30);

impl Links {
    /// Starts on the way to a connection: with what the kernel has, else at the portal.
    pub(super) fn seek(&mut self, now: Instant, id: &LinkId) {
        if id.tid.is_name() {
            return self.enter(id, State::Unresolved);
        }
        if let Some(device) = self.existing(id) {
            let name = device.name.clone();
            return self.adopt(now, id, &name);
        }
        if self.is_being_made(id) {
            self.enter(id, State::AwaitingTwin);
            if self.is_wanted(id) && id.tid.transport() == Transport::Fc {
                self.retries.set(id.clone(), now + MAKING);
            }
            return;
        }
        // What was ours is gone: should somebody else connect it, it is theirs.
        if !self.devices.may_come_to_serve(&id.tid) {
            self.ours_before.remove(id);
        }
        if self.links.get(id).is_some_and(|link| link.wanted.is_err()) {
            return self.forget(id);
        }
        if let Some(bar) = self.barred(id) {
            return self.bar(id, bar);
        }
        match self.links.get(id).and_then(|link| link.portal.clone()) {
            Some(portal) if !self.portals.is_open(now, &portal) => {
                self.enter(id, State::AwaitingPortal);
                if self.portals.ask(&portal) {
                    self.actions.push_back(Action::Probe(portal));
                }
            }
            _ => self.enqueue(id),
        }
    }

    /// What the kernel has for a link. A discovery controller that we connected in an earlier run counts by whatever name it
    /// reports: see [`LinkId::may_have_become`].
    pub(super) fn existing(&self, id: &LinkId) -> Option<&Device> {
        let was_ours = id.kind == ControllerKind::Discovery && self.ours_before.contains_key(id);
        let made_for = || was_ours.then(|| self.devices.made_for(&id.tid)).flatten();
        self.serving(id).or_else(made_for)
    }

    /// The controller that serves a link already and is to stay. One without keep alive is about to go, or would not notice that
    /// its peer is gone: it counts only for who wants it so, or made it.
    fn serving(&self, id: &LinkId) -> Option<&Device> {
        self.devices.serving(&id.tid, id.kind).find(|device| self.can_rely_on(id, device))
    }

    fn can_rely_on(&self, id: &LinkId, device: &Device) -> bool {
        let wants_none = || self.links.get(id).is_some_and(|link| link.options.kato == Some(0));
        !device.is_passing() || wants_none() || self.ours_before.contains_key(id)
    }

    /// Whether the kernel is making what may serve a link, and that is worth waiting for. An I/O controller of Fibre Channel
    /// may be in the making for minutes, and the kernel refuses to make it twice: only for one of our own is it.
    fn is_being_made(&self, id: &LinkId) -> bool {
        let is_patient = self.links.get(id).is_none_or(|link| !link.impatient);
        let is_slow = id.kind == ControllerKind::Io && id.tid.transport() == Transport::Fc;
        let is_worth_it = is_patient && (!is_slow || self.ours_before.contains_key(id));
        is_worth_it && self.devices.may_come_to_serve(&id.tid)
    }

    /// What speaks against trying to connect it.
    fn barred(&self, id: &LinkId) -> Option<Bar> {
        let host_id = || self.host_ids.id_of(id.tid.host_nqn());
        let excludes = |exclusion: &&HostExclusion| {
            // Few name a host id, and to find it may take a hash.
            let host_id = if exclusion.host_id.is_empty() { String::new() } else { host_id() };
            exclusion.matches(&id.tid, &host_id)
        };
        match self.links.get(id)?.leave {
            Leave::NoTls => Some(Bar::NoTls),
            Leave::Attempts(limit) if self.failures(id) >= limit => Some(Bar::Attempts(limit)),
            Leave::Attempts(_) | Leave::Free => {
                self.exclusions.iter().find(excludes).map(|exclusion| Bar::Excluded(exclusion.place.clone()))
            }
        }
    }

    /// Stops trying.
    fn bar(&mut self, id: &LinkId, bar: Bar) {
        self.enter(id, State::Barred);
        if self.is_news(id, &bar.to_string()) {
            self.note(Note::Barred { id: id.clone(), bar });
        }
    }

    pub(super) fn enqueue(&mut self, id: &LinkId) {
        let Some(link) = self.links.get(id) else {
            return;
        };
        let portal_failures = link.portal.as_ref().map_or(0, |portal| self.portals.failures(portal));
        let failures = link.failures.saturating_add(portal_failures);
        // Where only an announcement speaks for a controller, it comes after all others.
        let failures = failures.saturating_add(u32::from(link.tentative));
        // Discovery controllers lead to more than themselves, and share a name.
        let ways_before = if id.kind == ControllerKind::Io { self.ways.count(id) } else { 0 };
        let turn = self.turns.join(id.clone(), failures, ways_before);
        self.enter(id, State::Queued { turn });
    }

    /// Sends to the kernel whose turn it is, as far as there is room, if it still makes sense by now.
    pub(super) fn take_turns(&mut self, now: Instant) {
        while self.ready
            && let Some((turn, id)) = self.turns.first()
        {
            let room = if turn.is_suspect() { 1 } else { MAX_CONNECTING };
            if self.connecting.len() >= room {
                return;
            }
            let id = id.clone();
            if self.connecting.values().any(|other| other.is_same_place(&id)) {
                self.enter(&id, State::AwaitingTwin);
            } else if self.should_connect(now, &id) {
                self.start_connect(now, id);
            } else {
                self.seek(now, &id);
            }
        }
    }

    /// The kernel still lacks it, and its portal's answer is still believed.
    fn should_connect(&self, now: Instant, id: &LinkId) -> bool {
        let portal = self.links.get(id).and_then(|link| link.portal.as_ref());
        self.serving(id).is_none()
            && !self.is_being_made(id)
            && self.barred(id).is_none()
            && portal.is_none_or(|portal| self.portals.is_open(now, portal))
    }

    fn start_connect(&mut self, now: Instant, id: LinkId) {
        let ticket = self.next_ticket();
        self.enter(&id, State::Connecting { since: now });
        let (host_id, complaint) = self.host_ids.choose(id.tid.host_nqn(), self.devices.iter());
        if let Some(complaint) = complaint.filter(|complaint| self.host_complaints.insert(complaint.clone())) {
            self.note(Note::HostId(complaint));
        }
        if let Some(link) = self.links.get(&id) {
            self.connecting.insert(ticket, id.clone());
            self.actions.push_back(Action::Connect { ticket, options: link.options.clone(), id, host_id });
        }
    }

    pub(super) fn connect_succeeded(&mut self, now: Instant, id: &LinkId, device: Device) {
        let name = device.name.clone();
        let Some(Link { portal, wanted, was_parked, failures, .. }) = self.links.get(id) else {
            return;
        };
        let wanted = *wanted;
        let failures = portal.as_ref().map_or(0, |portal| self.portals.failures(portal)).max(*failures);
        let is_routine = *was_parked && failures == 0;
        let waiting = portal.clone().map(|portal| self.portals.proved(now, &portal));
        for id in waiting.into_iter().flatten() {
            self.enqueue(&id);
        }
        self.device_up(now, device);
        if !self.is_of_firmware(id) {
            self.devices.own(&name);
        }
        self.go_live(now, id, &name);
        if !is_routine {
            self.note(Note::Connected { id: id.clone(), device: name });
        }
        if let Err(disposal) = wanted {
            self.unwant(id, disposal);
        }
    }

    pub(super) fn connect_failed(&mut self, now: Instant, id: &LinkId, failure: Failure) {
        let Some(Link { state: State::Connecting { since }, wanted: Ok(()), .. }) = self.links.get(id) else {
            return self.forget(id);
        };
        // Until the kernel was done with the one before, this one was held up itself.
        let began = self.last_connect_done.into_iter().fold(*since, Instant::max);
        let others_wait = !self.connecting.is_empty() || !self.turns.is_empty();
        let hold = Hold { time: now.saturating_duration_since(began), others_wait };
        if failure.is_already_connected() {
            self.actions.push_back(Action::ReadDevices);
        }
        if let Some(device) = self.serving(id) {
            let name = device.name.clone();
            return self.adopt(now, id, &name);
        }
        self.charge(now, id, &failure, hold);
    }

    /// Finds out whom to blame for a failed connect, the portal or this controller, and has them wait.
    ///
    /// A failure that held up every connect of the host is both's, so that the controllers behind a portal do not hold up
    /// the host one after the other; unless another was connected there since this one failed before.
    fn charge(&mut self, now: Instant, id: &LinkId, failure: &Failure, hold: Hold) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let failed_before = link.failures > 0;
        link.failures = link.failures.saturating_add(1);
        let (failures, why, held_up) = (link.failures, failure.to_string(), hold.is_long());
        let others_do = |portal: &PortalId| failed_before && self.portals.failures(portal) == 0;
        let is_portals = |portal: &PortalId| blames_portal(failure) || (held_up && !others_do(portal));
        let blamed = link.portal.clone().filter(is_portals);
        if let Some(portal) = &blamed {
            self.portal_failed(now, portal, why.clone(), hold);
            if let Some(bar) = self.barred(id) {
                return self.bar(id, bar);
            }
            if !held_up {
                return self.enter(id, State::AwaitingPortal);
            }
        }
        let retry_in = self.backoff.delay_after_connect(failures, hold);
        if blamed.is_none() && self.is_news(id, &why) {
            self.note(Note::ConnectFailed { id: id.clone(), why, retry_in });
        }
        if let Some(bar) = self.barred(id) {
            return self.bar(id, bar);
        }
        self.enter(id, State::BackingOff);
        self.retries.set(id.clone(), now + retry_in);
        if blamed.is_none() {
            self.tell_failure(id);
        }
    }

    /// Of those that others are tried in place of.
    fn tell_failure(&mut self, id: &LinkId) {
        if self.alternates.contains(id) {
            self.changes.push_back(LinkChange::Failed { id: id.clone() });
        }
    }

    /// Whether this is not what was reported last.
    pub(super) fn is_news(&mut self, id: &LinkId, why: &str) -> bool {
        let complaint = self.links.get_mut(id).map(|link| link.complaint.replace(why.to_owned()));
        complaint.is_some_and(|before| before.as_deref() != Some(why))
    }

    /// Links behind it that are queued already will see that at their turn.
    pub(super) fn portal_failed(&mut self, now: Instant, portal: &PortalId, why: String, hold: Hold) {
        self.troubled = true;
        let is_unconnected =
            |id: &&LinkId| self.links.get(id).is_some_and(|link| !matches!(link.state, State::Live { .. }));
        if !self.alternates.is_empty() {
            let failed: Vec<LinkId> = self.portals.members(portal).filter(is_unconnected).cloned().collect();
            failed.iter().for_each(|id| self.tell_failure(id));
        }
        let is_tentative = |id: &LinkId| self.links.get(id).is_some_and(|link| link.tentative);
        let tentative = self.portals.members(portal).all(is_tentative);
        let Some(retry_in) = self.portals.failed(now, portal, &why, hold, tentative) else {
            return;
        };
        let is_unconnected =
            |id: &&LinkId| self.links.get(id).is_some_and(|link| !matches!(link.state, State::Live { .. }));
        let waiting = self.portals.members(portal).filter(is_unconnected).count();
        self.note(Note::Unreachable { portal: portal.clone(), why, waiting, retry_in });
    }

    /// A portal did not answer: who waited there may have used up its leave by that.
    pub(super) fn bar_waiting(&mut self, portal: &PortalId) {
        let waits = |id: &LinkId| self.links.get(id).is_some_and(|link| link.state == State::AwaitingPortal);
        let waiting = self.portals.members(portal).filter(|id| waits(id));
        let barred: Vec<_> = waiting.filter_map(|id| Some((id.clone(), self.barred(id)?))).collect();
        for (id, bar) in barred {
            self.bar(&id, bar);
        }
    }

    /// Lets every link adopt this controller that it serves.
    pub(super) fn offer(&mut self, now: Instant, name: &str) {
        let Some(device) = self.devices.adoptable(name) else {
            return;
        };
        let seekers = self.in_state(&LinkId::of_device(device), State::can_adopt);
        let is_served = |id: &LinkId| device.serves(&id.tid, id.kind) && self.can_rely_on(id, device);
        let mut served: Vec<LinkId> = seekers.into_iter().filter(is_served).collect();
        // Who wants it first, so that it is in use when those adopt it that only wait to let it go.
        served.sort_by_key(|id| !self.is_wanted(id));
        for id in served {
            self.adopt(now, &id, name);
        }
    }

    fn adopt(&mut self, now: Instant, id: &LinkId, device: &str) {
        // Somebody else may have taken it over since, or made it anew while nothing of ours ran.
        let inode = self.devices.get(device).map_or(0, |device| device.inode);
        if self.ours_before.get(id).is_some_and(|before| *before == inode || *before == 0) {
            self.devices.own(device);
        }
        self.go_live(now, id, device);
        if let Some(Link { wanted: Err(disposal), .. }) = self.links.get(id) {
            let disposal = *disposal;
            return self.unwant(id, disposal);
        }
        self.note(Note::Adopted { id: id.clone(), device: device.to_owned() });
    }

    fn go_live(&mut self, now: Instant, id: &LinkId, device: &str) {
        self.ours_before.remove(id);
        self.enter(id, State::Live { device: device.to_owned(), since: now });
        // Another link wanted it disconnected: that is over now.
        if let Some(other) = self.stuck.get(device).cloned() {
            self.forget(&other);
        }
        if let Some(link) = self.links.get_mut(id) {
            link.complaint = None;
            link.impatient = false;
        }
    }

    /// The kernel gave up the controller that served a link.
    pub(super) fn lose(&mut self, now: Instant, id: &LinkId, name: String) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let State::Live { since, .. } = link.state else {
            return;
        };
        let flapped = now.saturating_duration_since(since) < FLAPPING;
        link.failures = if flapped { link.failures.saturating_add(1) } else { 0 };
        let failures = link.failures;
        self.enter(id, State::BackingOff);
        let must_wait = flapped && self.serving(id).is_none();
        let retry_in = must_wait.then(|| self.backoff.delay(failures));
        self.note(Note::Lost { id: id.clone(), device: name, retry_in });
        match retry_in {
            Some(wait) => {
                self.retries.set(id.clone(), now + wait);
                self.tell_failure(id);
            }
            None => self.seek(now, id),
        }
    }

    /// The wait of a link is over.
    pub(super) fn retry(&mut self, now: Instant, id: &LinkId) {
        match self.links.get(id).map(|link| &link.state) {
            Some(State::AwaitingDisconnect { device, .. }) => {
                let device = device.clone();
                match self.may_be_needed(&device) {
                    true => self.retries.set(id.clone(), now + self.backoff.delay(1)),
                    false => self.take_down(id, &device),
                }
            }
            Some(State::AwaitingTwin) => {
                if let Some(link) = self.links.get_mut(id) {
                    link.impatient = true;
                }
                self.seek(now, id);
            }
            _ => self.seek(now, id),
        }
    }

    /// Whether a link that this controller would serve is being connected: should that fail, there would be nothing left.
    fn may_be_needed(&self, name: &str) -> bool {
        self.devices.adoptable(name).is_some_and(|device| {
            let connecting =
                self.in_state(&LinkId::of_device(device), |state| matches!(state, State::Connecting { .. }));
            connecting.iter().any(|id| self.is_wanted(id) && device.serves(&id.tid, id.kind))
        })
    }

    pub(super) fn forget(&mut self, id: &LinkId) {
        self.enter(id, State::BackingOff);
        self.ours_before.remove(id);
        if let Some(Link { portal: Some(portal), .. }) = self.links.remove(id) {
            self.portals.leave(&portal, id);
        }
        self.forgive();
    }

    /// Another is wanted in the place of an alternate: what is known of it is kept.
    pub(super) fn retire(&mut self, id: &LinkId) {
        let retry_at = self.retries.get(id);
        self.enter(id, State::BackingOff);
        self.ours_before.remove(id);
        if let Some(Link { portal, failures, complaint, .. }) = self.links.remove(id) {
            self.retired.insert(id.clone(), Retired { portal, failures, complaint, retry_at });
        }
        self.forgive();
    }

    /// It is wanted again, through this portal, or of no interest any more.
    pub(super) fn take_retired(&mut self, id: &LinkId, portal: Option<&PortalId>) -> Option<Retired> {
        let retired = self.retired.remove(id)?;
        if let Some(left) = retired.portal.as_ref().filter(|left| Some(*left) != portal) {
            self.portals.leave(left, id);
        }
        Some(retired)
    }

    /// The one place where a link changes its state, so that what is kept by state elsewhere cannot go astray.
    pub(super) fn enter(&mut self, id: &LinkId, state: State) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let portal = link.portal.as_ref();
        let (is_settled, was_settled) = (state.is_settled(), link.state.is_settled());
        self.settled = self.settled.saturating_add(usize::from(is_settled)).saturating_sub(usize::from(was_settled));
        self.troubled |= matches!(state, State::BackingOff | State::Unresolved | State::Barred);
        match (link.state.is_way(), state.is_way()) {
            (false, true) => self.ways.add(id),
            (true, false) => self.ways.remove(id),
            _ => {}
        }
        match std::mem::replace(&mut link.state, state) {
            State::AwaitingPortal => portal.into_iter().for_each(|portal| self.portals.stop_waiting(portal, id)),
            State::Queued { turn } => self.turns.leave(turn),
            State::BackingOff | State::AwaitingTwin => self.retries.cancel(id),
            State::AwaitingDisconnect { device, .. } => {
                self.retries.cancel(id);
                self.stuck.remove(&device);
            }
            State::Live { device, .. } => {
                self.devices.stop_serving(&device, id);
                self.changes.push_back(LinkChange::Down { id: id.clone(), device });
            }
            State::Barred
            | State::Unresolved
            | State::Connecting { .. }
            | State::Disconnecting { .. }
            | State::Leaving { .. }
            | State::Parked => {}
        }
        match &link.state {
            State::AwaitingPortal => portal.into_iter().for_each(|portal| self.portals.wait(portal, id)),
            State::Live { device, .. } => {
                self.devices.serve(device, id);
                self.changes.push_back(LinkChange::Up { id: id.clone(), device: device.clone() });
            }
            State::AwaitingDisconnect { device, .. } => {
                self.stuck.insert(device.clone(), id.clone());
            }
            _ => {}
        }
        self.forgive();
    }

    /// With everything connected there is no trouble left.
    fn forgive(&mut self) {
        self.troubled &= self.links.len() > self.settled;
    }

    /// The links that wait for what becomes of a controller that was being made, of either kind and of any subsystem.
    pub(super) fn awaiting(&self, device: &Device) -> Vec<LinkId> {
        let first_of = |kind| LinkId { kind, ..LinkId::of_device(device) };
        let at_address = |first: LinkId| {
            let from_here = self.links.range(first.clone()..);
            from_here.take_while(move |(id, _)| id.is_same_address(&first))
        };
        let links = [ControllerKind::Io, ControllerKind::Discovery].into_iter().map(first_of).flat_map(at_address);
        links.filter(|(_, link)| link.state == State::AwaitingTwin).map(|(id, _)| id.clone()).collect()
    }

    /// The links at the same place as `id` whose state is such.
    pub(super) fn in_state(&self, id: &LinkId, is_such: impl Fn(&State) -> bool) -> Vec<LinkId> {
        let place = self.links.range(id.first_of_place()..).take_while(|(other, _)| other.is_same_place(id));
        place.filter(|(_, link)| is_such(&link.state)).map(|(other, _)| other.clone()).collect()
    }

    /// Requests of the whole machine are told apart by their tickets.
    pub fn next_ticket(&mut self) -> Ticket {
        self.last_ticket = self.last_ticket.wrapping_add(1);
        self.last_ticket
    }

    pub(super) fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }
}
