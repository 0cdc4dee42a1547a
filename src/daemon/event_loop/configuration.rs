//! The settings, put in force: at the start and at each reload.

use std::time::Instant;

use super::Daemon;
use crate::core::Event;
use crate::daemon::options::Program;
use crate::daemon::udev::Override;

impl Daemon {
    pub(super) fn reload(&mut self, now: Instant) {
        log::info!("reading the configuration again");
        self.manager.reloading();
        if !self.requests.is_ready() {
            self.requests.read_options();
        }
        match self.paths.reload(&self.settings) {
            Some(settings) => {
                self.settings = settings;
                self.apply_settings();
                self.override_udev();
                self.hear_settings(now);
                if let Some(bus) = &mut self.bus {
                    bus.request_names(now);
                    bus.want_announcements(self.settings.announcements(), now);
                }
            }
            None => log::error!("the running configuration stays in force"),
        }
        self.manager.ready();
    }

    pub(super) fn apply_settings(&mut self) {
        self.facts.set_host(&self.settings.host);
        let announcements = self.facts.announcements.take();
        self.facts.announcements = self.settings.announcements().map(|_| announcements.unwrap_or_default());
        self.facts.set_tron(self.forced_tron || self.settings.tron);
    }

    /// For who finds discovery controllers.
    pub(super) fn override_udev(&mut self) {
        if self.program.roles().finder && self.program != Program::Boot && self.udev.is_none() {
            self.udev = Override::begin();
        }
    }

    /// What the administrator and the firmware want, and what no program of this host is to connect.
    pub(super) fn hear_settings(&mut self, now: Instant) {
        let entries = self.firmware.entries(&self.settings);
        let [names, settings] = self.settings.events(entries);
        self.machine.handle(now, names);
        self.machine.handle(now, Event::HostExcludes(self.exclusions.read()));
        self.machine.handle(now, settings);
    }

    /// Looks whether an interface that the firmware speaks of is there by now, and does what it lacks if that is ours to do.
    pub(super) fn look_for_interfaces(&mut self, now: Instant) {
        if self.firmware.look(now) {
            self.hear_settings(now);
        }
        while let Some((hfi, step)) = self.firmware.poll_step() {
            self.requests.change_network(hfi, step.requests());
        }
    }
}
