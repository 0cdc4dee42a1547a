//! What the state machines ask for is done: by the helper, the network, the bus, a file or the log.

use std::time::Instant;

use super::Daemon;
use crate::bus::ControllerId;
use crate::bus::signal::Signal;
use crate::core::device::{ControllerKind, FIRMWARE, US};
use crate::core::finder::Finder;
use crate::core::{Action, Change};
use crate::daemon::publish::role_of;

impl Daemon {
    pub(super) fn act(&mut self, now: Instant) {
        let mut acted = false;
        while let Some(action) = self.machine.poll_action(now) {
            acted = true;
            self.perform(now, action);
            // What failed before it got as far as the helper or the network.
            self.handle_replies(now);
            self.handle_probes(now);
        }
        if acted {
            self.uses.watch(self.machine.links().keeps_what_is_used(), self.poll.registry());
            self.claims.settle(now, self.is_connecting());
            self.tell_status();
        }
    }

    fn is_connecting(&self) -> bool {
        self.machine.links().connecting().next().is_some()
    }

    pub(super) fn perform(&mut self, now: Instant, action: Action) {
        match action {
            Action::Probe(portal) => self.probes.start(now, portal, self.poll.registry()),
            connect @ Action::Connect { .. } if self.exclusions.are_awaited(now) => self.exclusions.hold(connect),
            Action::Connect { ticket, id, options, host_id } => {
                log::debug!("{id}: connecting");
                // What a boot finds by way of the firmware's discovery controllers is the firmware's, too.
                let is_firmwares = options.of_firmware || (self.goal.is_some() && self.firmware.asks());
                let owner = if is_firmwares { FIRMWARE } else { US };
                self.requests.connect((ticket, owner), &id, &options, host_id, self.settings.host.key.as_ref());
            }
            Action::Disconnect { ticket, device } => {
                self.requests.disconnect(ticket, &device, self.settings.disconnects_in_use());
            }
            Action::Register { ticket, device } => {
                log::debug!("{device}: registering this host");
                self.requests.register(ticket, self.machine.links().device(&device), &self.settings.host);
            }
            Action::Inquire { ticket, device, pleo } => {
                self.requests.inquire(ticket, self.machine.links().device(&device), pleo);
            }
            Action::ReadLogPage { ticket, device, how } => {
                log::debug!("{device}: reading the discovery log page");
                self.requests.read_log_page(ticket, self.machine.links().device(&device), how);
            }
            Action::Resolve { ticket, name } => {
                log::debug!("{name}: resolving");
                self.requests.resolve(ticket, &name);
            }
            Action::ReadDevices => self.read_devices(now),
            Action::AskFcPorts => self.requests.ask_fc_ports(),
            Action::Publish(change) => self.publish(now, change),
            Action::Save => self.state_file.save(now, self.is_connecting(), || self.machine.legacy(now)),
            Action::Note(note) => log::log!(note.level(), "{note}"),
        }
    }

    fn publish(&mut self, now: Instant, change: Change) {
        self.claims.follow(&change, self.machine.links());
        let signal = match change {
            Change::LogPage { tid, device } => Signal::LogPagesChanged { id: ControllerId::from(&*tid), device },
            Change::DiscoveryControllerRemoved => Signal::DcRemoved,
            Change::Up { id, device } => {
                Signal::ControllerUp { role: role_of(&id), id: ControllerId::from(&*id.tid), device }
            }
            Change::Down { id, device } => {
                Signal::ControllerDown { role: role_of(&id), id: ControllerId::from(&*id.tid), device }
            }
        };
        self.emit(now, &signal);
    }

    pub(super) fn emit(&mut self, now: Instant, signal: &Signal) {
        self.private.emit(signal);
        if let Some(bus) = &mut self.bus {
            bus.emit(signal, now);
        }
    }

    pub(super) fn tell_status(&mut self) {
        if !self.manager.wants_status() {
            return;
        }
        let links = self.machine.links();
        let count = |kind, what: &str| {
            let (mut wanted, mut connected) = (0, 0);
            for id in links.wanted(kind) {
                wanted += 1;
                connected += usize::from(links.is_live(id));
            }
            format!("{connected} of {wanted} {what} connected")
        };
        let roles = self.program.roles();
        let parked = self.machine.finder().map_or(0, Finder::parked);
        let parked = if parked > 0 { format!(" ({parked} parked)") } else { String::new() };
        let finder = roles.finder.then(|| count(ControllerKind::Discovery, "discovery controllers") + &parked);
        let connector = roles.connector.then(|| count(ControllerKind::Io, "I/O controllers"));
        let parts: Vec<String> = finder.into_iter().chain(connector).collect();
        self.manager.status(parts.join(", "));
    }
}
