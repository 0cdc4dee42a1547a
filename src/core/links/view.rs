//! What others may ask of the links.

use std::time::Instant;

use super::link::State;
use super::{LinkId, Links};
use crate::core::device::{ControllerKind, Device};

impl Links {
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.get(name)
    }

    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter()
    }

    /// The host id that goes with a host NQN.
    pub fn host_id_of(&self, nqn: &str) -> String {
        self.host_ids.id_of(nqn)
    }

    /// The links that a kernel controller serves.
    pub fn served_by(&self, device: &str) -> impl Iterator<Item = &LinkId> {
        self.devices.served_by(device)
    }

    /// Every wanted controller of a kind.
    pub fn wanted(&self, kind: ControllerKind) -> impl Iterator<Item = &LinkId> {
        self.links.iter().filter(move |(id, link)| id.kind == kind && link.wanted.is_ok()).map(|(id, _)| id)
    }

    pub fn is_wanted(&self, id: &LinkId) -> bool {
        self.links.get(id).is_some_and(|link| link.wanted.is_ok())
    }

    /// Whether the firmware's boot table asks for it.
    pub fn is_of_firmware(&self, id: &LinkId) -> bool {
        self.links.get(id).is_some_and(|link| link.options.of_firmware)
    }

    pub fn is_live(&self, id: &LinkId) -> bool {
        self.links.get(id).is_some_and(|link| matches!(link.state, State::Live { .. }))
    }

    /// What the kernel is asked to connect now.
    pub fn connecting(&self) -> impl Iterator<Item = &LinkId> {
        self.connecting.values()
    }

    /// The kernel controller that serves a link, or did until we began to disconnect it.
    pub fn device_of(&self, id: &LinkId) -> Option<&Device> {
        self.devices.get(self.links.get(id)?.state.device()?)
    }

    /// [`Device::inode`] of what is ours, now or still remembered from an earlier run.
    pub fn inode_of(&self, id: &LinkId) -> u64 {
        let before = || self.ours_before.get(id).copied();
        self.device_of(id).map(|device| device.inode).or_else(before).unwrap_or(0)
    }

    /// Failures in a row, and when the next attempt is due if that is by time.
    pub fn attempts(&self, id: &LinkId) -> (u32, Option<Instant>) {
        let Some(link) = self.links.get(id) else {
            return (0, None);
        };
        let failures = self.failures(id);
        match link.state {
            State::Live { .. } => (0, None),
            State::BackingOff | State::AwaitingDisconnect { .. } => (failures, self.retries.get(id)),
            State::AwaitingPortal => (failures, link.portal.as_ref().and_then(|portal| self.portals.retry_at(portal))),
            _ => (failures, None),
        }
    }

    /// Its own, or those of its portal.
    pub(super) fn failures(&self, id: &LinkId) -> u32 {
        let Some(link) = self.links.get(id) else {
            return 0;
        };
        link.failures.max(link.portal.as_ref().map_or(0, |portal| self.portals.failures(portal)))
    }

    /// Why the controller at an address is not connected, by the last failure that was told.
    pub fn complaint(&self, id: &LinkId) -> Option<&str> {
        let link = self.links.get(id)?;
        let portals = || link.portal.as_ref().and_then(|portal| self.portals.complaint(portal));
        link.complaint.as_deref().or_else(portals)
    }

    /// Why a controller is still there that is not wanted; `None` if it is wanted, or about to go.
    pub fn kept_because(&self, id: &LinkId) -> Option<&str> {
        let link = self.links.get(id)?;
        let is_there = link.state.device().is_some() && link.wanted.is_err();
        link.complaint.as_deref().filter(|_| is_there)
    }

    /// Controllers of a kind that are still there although they are not wanted.
    pub fn kept(&self, kind: ControllerKind) -> impl Iterator<Item = &LinkId> {
        let all = self.stuck.values().chain(self.disconnecting.values());
        all.filter(move |id| id.kind == kind && self.kept_because(id).is_some())
    }

    /// Whether something is kept because this host uses it.
    pub fn keeps_what_is_used(&self) -> bool {
        self.stuck.values().any(|id| self.is_used(id))
    }

    /// The links of a kind that are unwanted and still concern the kernel.
    pub fn unwanted(&self, kind: ControllerKind) -> impl Iterator<Item = &LinkId> {
        self.links.iter().filter(move |(id, link)| id.kind == kind && link.wanted.is_err()).map(|(id, _)| id)
    }

    /// The I/O controllers that nobody here wants, whoever connected them, but for what the host boots from.
    pub fn strays(&self) -> impl Iterator<Item = &Device> {
        let is_stray = |device: &&Device| {
            let at_place = || self.in_state(&LinkId::of_device(device), |_| true);
            device.kind == ControllerKind::Io
                && !device.subsysnqn.is_empty()
                && !device.is_of_firmware()
                && self.devices.adoptable(&device.name).is_some()
                && at_place().iter().all(|id| !device.serves(&id.tid, id.kind))
        };
        self.devices.iter().filter(is_stray)
    }

    /// The links that are ours: connected by us, being connected (the kernel will do it even if we are killed now), or still
    /// remembered from an earlier run.
    pub fn ours(&self) -> impl Iterator<Item = &LinkId> {
        let ours = self.links.iter().filter(|(_, link)| match &link.state {
            State::Connecting { .. } => !link.options.of_firmware,
            state => state.device().is_some_and(|device| self.devices.is_owned(device)),
        });
        ours.map(|(id, _)| id).chain(self.ours_before.keys())
    }

    /// Whether any controller has to wait for its connection.
    pub fn are_waiting(&self) -> bool {
        self.troubled && self.links.len() > self.settled
    }

    /// Whether the kernel has what a link would ask for.
    pub fn has_device_for(&self, id: &LinkId) -> bool {
        self.existing(id).is_some()
    }

    /// Whether something is to be disconnected that still is not: at once, or as soon as its connect is done. What could
    /// not be disconnected and waits for the next try does not count.
    pub fn is_disconnecting(&self) -> bool {
        let mut unwanted = self.connecting.values().filter(|id| !self.is_wanted(id));
        !self.disconnecting.is_empty() || unwanted.next().is_some()
    }

    /// Whether nothing at all is kept, but what the kernel has.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
            && self.portals.is_empty()
            && self.turns.is_empty()
            && self.retries.next().is_none()
            && self.connecting.is_empty()
            && self.disconnecting.is_empty()
            && self.stuck.is_empty()
            && self.retired.is_empty()
            && self.ours_before.is_empty()
            && self.changes.is_empty()
            && self.actions.is_empty()
            && self.devices.iter().all(|device| self.served_by(&device.name).next().is_none())
    }
}
