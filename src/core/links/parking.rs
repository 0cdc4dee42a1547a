//! Links that are wanted, but left for a while: their controllers do not support lasting connections.

use std::time::Instant;

use super::link::{Link, State};
use super::{LinkId, Links};
use crate::core::note::Note;
use crate::core::{Action, Ticket};
use crate::helper::message::Failure;

impl Links {
    /// Leaves a controller until [`Links::unpark`]: disconnects it, unless another link is served by it. `false`, and nothing
    /// is done, if the connection is not ours.
    pub fn park(&mut self, id: &LinkId) -> bool {
        let Some(device) =
            self.links.get(id).and_then(|link| link.state.live()).and_then(|name| self.devices.get(name))
        else {
            return false;
        };
        let device = device.clone();
        if !self.devices.is_owned(&device.name) {
            return false;
        }
        if let Some(link) = self.links.get_mut(id) {
            link.was_parked = true;
        }
        if self.devices.served_by(&device.name).any(|other| other != id) {
            self.enter(id, State::Parked);
            return true;
        }
        let ticket = self.next_ticket();
        self.enter(id, State::Leaving { device: device.name.clone(), comes_back: false });
        self.disconnecting.insert(ticket, id.clone());
        self.devices.set_leaving(&device.name, Some(ticket));
        self.actions.push_back(Action::Disconnect { ticket, device: Box::new(device) });
        true
    }

    /// Connects it again.
    pub fn unpark(&mut self, now: Instant, id: &LinkId) {
        match self.links.get_mut(id).map(|link| &mut link.state) {
            Some(State::Leaving { comes_back, .. }) => *comes_back = true,
            Some(State::Parked) => self.seek(now, id),
            _ => {}
        }
    }

    /// The answer to the disconnect of a link in Leaving. If that did not work, the controller is found when it is wanted
    /// again, and left once more.
    pub(super) fn left(&mut self, now: Instant, id: &LinkId, ticket: Ticket, outcome: Result<(), Failure>) {
        let Some(Link { state: State::Leaving { device, comes_back }, wanted, .. }) = self.links.get(id) else {
            return;
        };
        let (name, comes_back, wanted) = (device.clone(), *comes_back, wanted.is_ok());
        let still_there = self.devices.is_leaving(&name, ticket);
        match outcome {
            Err(failure) if still_there && !matches!(failure, Failure::Gone | Failure::NotThatController) => {
                self.devices.set_leaving(&name, None);
                if !wanted {
                    self.disconnect_failed(now, id, &name, failure);
                } else if self.is_news(id, &failure.to_string()) {
                    self.note(Note::LeavingFailed { id: id.clone(), device: name.clone(), failure });
                }
            }
            _ if still_there => {
                self.devices.remove(&name);
            }
            _ => {}
        }
        match wanted {
            true if comes_back => self.seek(now, id),
            true => self.enter(id, State::Parked),
            false if self.is_stuck(id) => {}
            false => self.forget(id),
        }
        self.offer(now, &name);
    }
}
