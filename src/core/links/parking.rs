//! Links that are wanted, but left for a while: their controllers do not support lasting connections.

use std::time::Instant;

use super::link::State;
use super::{LinkId, Links};
use crate::core::note::Note;
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
        if self.is_shared(id, &device.name) {
            self.enter(id, State::Parked);
        } else {
            let leaving = State::Leaving { device: device.name.clone(), comes_back: false };
            self.begin_disconnect(id, device, leaving);
        }
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

    /// The disconnect of a link in Leaving is over.
    pub(super) fn left(&mut self, now: Instant, id: &LinkId) {
        match self.links.get(id).map(|link| &link.state) {
            Some(State::Leaving { comes_back: true, .. }) => self.seek(now, id),
            _ => self.enter(id, State::Parked),
        }
    }

    /// It did not work: the controller is found when it is wanted again, and left once more.
    pub(super) fn leaving_failed(&mut self, id: &LinkId, name: &str, failure: Failure) {
        if self.is_news(id, &failure.to_string()) {
            self.note(Note::LeavingFailed { id: id.clone(), device: name.to_owned(), failure });
        }
    }
}
