//! How controllers that are not wanted any more leave the kernel, and why some of them stay for a while.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::link::{Link, State, Stay};
use super::{Disposal, Leave, LinkId, Links};
use crate::config::settings::ConnectOptions;
use crate::core::device::{ControllerKind, Device};
use crate::core::note::Note;
use crate::core::tid::{Spelling, TransportId};
use crate::core::{Action, Ticket};
use crate::helper::message::Failure;

/// What is in use is looked at again when the kernel tells that this may have changed. Not all of it does tell: a file system
/// that was unmounted lazily, or in another mount namespace.
const USE_CHECK: Duration = Duration::from_secs(600);

/// Uses change in bursts.
const USE_SETTLES: Duration = Duration::from_secs(1);

impl Links {
    /// No longer wants it. What is connected stays or goes by `disposal`, but what the firmware asked for stays; a connect in
    /// flight is waited for.
    pub fn unwant(&mut self, id: &LinkId, disposal: Disposal) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let disposal = if link.options.of_firmware { Disposal::Keep } else { disposal };
        let is_ours = link.state.device().is_some_and(|device| self.devices.is_owned(device));
        match (&link.state, disposal) {
            (State::Connecting { .. } | State::Disconnecting { .. } | State::Leaving { .. }, _) => {
                link.wanted = Err(disposal);
            }
            // The kernel is still making it for us: it is ours when it comes up.
            (State::AwaitingTwin, _) if self.ours_before.contains_key(id) => {
                link.wanted = Err(disposal);
                self.retries.cancel(id);
            }
            (State::Live { device, .. }, Disposal::Disconnect) if is_ours => {
                let device = device.clone();
                self.let_go(id, &device);
            }
            (State::Live { device, .. }, Disposal::Postpone) if is_ours => {
                let device = device.clone();
                self.postpone(id, &device);
            }
            (State::AwaitingDisconnect { device, why: Stay::Postponed }, Disposal::Disconnect) if is_ours => {
                let device = device.clone();
                self.let_go(id, &device);
            }
            (State::AwaitingDisconnect { .. }, Disposal::Disconnect | Disposal::Postpone) if is_ours => {}
            (state, _) if state.can_adopt() && self.alternates.contains(id) => self.retire(id),
            _ => self.forget(id),
        }
    }

    /// Lets go of what was ours before this process started and nobody wants any more.
    pub fn dispose_of_leftovers(
        &mut self,
        now: Instant,
        kind: ControllerKind,
        disposal: impl Fn(&TransportId) -> Disposal,
    ) {
        let is_leftover = |id: &&LinkId| id.kind == kind && !self.links.contains_key(*id);
        let leftovers: Vec<LinkId> = self.ours_before.keys().filter(is_leftover).cloned().collect();
        for id in leftovers {
            if self.existing(&id).is_none() && !self.devices.may_come_to_serve(&id.tid) {
                self.ours_before.remove(&id);
                continue;
            }
            self.want(now, id.clone(), Rc::default());
            self.unwant(&id, disposal(&id.tid));
        }
    }

    /// Takes down a controller that nobody here wants, although another connected it.
    pub fn condemn(&mut self, name: &str) {
        let Some(device) = self.devices.adoptable(name) else {
            return;
        };
        let spelling = Spelling {
            traddr: &device.traddr,
            trsvcid: &device.trsvcid,
            subsysnqn: &device.subsysnqn,
            host_traddr: &device.host_traddr,
            host_iface: &device.host_iface,
            host_nqn: &device.host_nqn,
        };
        let id = LinkId { kind: device.kind, tid: Rc::new(TransportId::new(device.transport, spelling)) };
        if self.links.contains_key(&id) {
            return;
        }
        self.note(Note::Condemned { id: id.clone(), device: name.to_owned() });
        self.links.insert(id.clone(), Link::new(Rc::new(ConnectOptions::default()), Leave::Free, None));
        self.take_down(&id, name);
    }

    /// Disconnects a link's controller, unless another link is served by it.
    fn let_go(&mut self, id: &LinkId, name: &str) {
        self.take_down(id, name);
        if let Some(Link { state: State::Disconnecting { .. }, failures, complaint, .. }) = self.links.get_mut(id) {
            *failures = 0;
            *complaint = None;
            self.note(Note::Disconnecting { id: id.clone(), device: name.to_owned() });
        }
    }

    /// The same later.
    fn postpone(&mut self, id: &LinkId, name: &str) {
        if self.is_shared(id, name) {
            return self.forget(id);
        }
        if let Some(link) = self.links.get_mut(id) {
            link.wanted = Err(Disposal::Postpone);
            link.complaint = Some("what replaces it is not connected yet".to_owned());
        }
        self.enter(id, State::AwaitingDisconnect { device: name.to_owned(), why: Stay::Postponed });
        self.note(Note::Postponed { id: id.clone(), device: name.to_owned() });
    }

    pub(super) fn is_shared(&self, id: &LinkId, name: &str) -> bool {
        self.devices.served_by(name).any(|other| other != id)
    }

    pub(super) fn take_down(&mut self, id: &LinkId, name: &str) {
        let (Some(device), false) = (self.devices.get(name).cloned(), self.is_shared(id, name)) else {
            return self.forget(id);
        };
        self.begin_disconnect(id, device, State::Disconnecting { device: name.to_owned() });
        if let Some(link) = self.links.get_mut(id) {
            link.wanted = Err(Disposal::Disconnect);
        }
    }

    /// Asks the kernel to take a link's controller down; the link waits for the answer in that state.
    pub(super) fn begin_disconnect(&mut self, id: &LinkId, device: Device, state: State) {
        let ticket = self.next_ticket();
        self.enter(id, state);
        self.disconnecting.insert(ticket, id.clone());
        self.devices.set_leaving(&device.name, Some(ticket));
        self.actions.push_back(Action::Disconnect { ticket, device: Box::new(device) });
    }

    /// The answer to [`Action::Disconnect`].
    pub fn disconnected(&mut self, now: Instant, ticket: Ticket, outcome: Result<(), Failure>) {
        let Some(id) = self.disconnecting.remove(&ticket) else {
            return;
        };
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let (name, wanted, is_left) = match &link.state {
            State::Disconnecting { device } => (device.clone(), link.wanted, false),
            State::Leaving { device, .. } => (device.clone(), link.wanted, true),
            _ => return,
        };
        if let Some(failure) = self.what_keeps(&name, ticket, outcome) {
            match wanted {
                Ok(()) if is_left => self.leaving_failed(&id, &name, failure),
                Ok(()) | Err(Disposal::Keep) => {}
                Err(_) => self.disconnect_failed(now, &id, &name, failure),
            }
        }
        match wanted {
            Ok(()) if is_left => self.left(now, &id),
            Ok(()) => self.seek(now, &id),
            Err(_) if self.is_stuck(&id) => {}
            Err(_) => self.forget(&id),
        }
        self.offer(now, &name);
    }

    /// Why a controller is still there after a disconnect. If it was removed meanwhile, its name may be another's by now.
    fn what_keeps(&mut self, name: &str, ticket: Ticket, outcome: Result<(), Failure>) -> Option<Failure> {
        if !self.devices.is_leaving(name, ticket) {
            return None;
        }
        match outcome {
            Ok(()) | Err(Failure::Gone | Failure::NotThatController) => {
                self.devices.remove(name);
                None
            }
            Err(failure) => {
                self.devices.set_leaving(name, None);
                Some(failure)
            }
        }
    }

    /// The controller is still there, and is tried to be disconnected again unless somebody wants it by then.
    pub(super) fn disconnect_failed(&mut self, now: Instant, id: &LinkId, name: &str, failure: Failure) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.failures = link.failures.saturating_add(1);
        let is_used = matches!(failure, Failure::InUse(_));
        let (why, retry_in) = match is_used {
            true => (Stay::InUse, USE_CHECK),
            false => (Stay::Failed, self.backoff.delay(link.failures)),
        };
        if self.is_news(id, &failure.to_string()) {
            let (id, device) = (id.clone(), name.to_owned());
            self.note(match is_used {
                true => Note::Kept { id, device, failure },
                false => Note::DisconnectFailed { id, device, failure, retry_in },
            });
        }
        self.enter(id, State::AwaitingDisconnect { device: name.to_owned(), why });
        self.retries.set(id.clone(), now + retry_in);
    }

    /// What is kept because it is in use may not be any more.
    pub fn retry_kept(&mut self, now: Instant, concerned: impl Fn(&TransportId) -> bool) {
        let used: Vec<LinkId> =
            self.stuck.values().filter(|id| self.is_used(id) && concerned(&id.tid)).cloned().collect();
        for id in used {
            let soon = now + USE_SETTLES;
            let at = self.retries.get(&id).map_or(soon, |at| at.min(soon));
            self.retries.set(id, at);
        }
    }

    pub(super) fn is_used(&self, id: &LinkId) -> bool {
        let state = self.links.get(id).map(|link| &link.state);
        matches!(state, Some(State::AwaitingDisconnect { why: Stay::InUse, .. }))
    }

    pub(super) fn is_stuck(&self, id: &LinkId) -> bool {
        self.links.get(id).is_some_and(|link| matches!(link.state, State::AwaitingDisconnect { .. }))
    }
}
