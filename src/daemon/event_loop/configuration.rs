//! The settings, put in force: at the start and at each reload. The helper reads the files.

use std::time::Instant;

use super::Daemon;
use crate::config::{Configuration, Exclusions};
use crate::core::exclusion::HostExclusion;
use crate::core::{Action, Event};
use crate::daemon::options::Program;
use crate::helper::message::Failure;

/// Where we are with a reload.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Reload {
    #[default]
    Done,
    /// The files are being read.
    Reading,
    /// The same, and another reload was asked for since.
    ReadAgain,
}

impl Daemon {
    pub(super) fn reload(&mut self) {
        log::info!("reading the configuration again");
        self.manager.reloading();
        if !self.requests.is_ready() {
            self.requests.read_options();
        }
        self.exclusions.look_out();
        self.reload = match self.reload {
            Reload::Done => {
                self.requests.read_configuration();
                Reload::Reading
            }
            Reload::Reading | Reload::ReadAgain => Reload::ReadAgain,
        };
    }

    /// The configuration was read, for a reload.
    pub(super) fn hear_configuration(&mut self, now: Instant, read: Result<Configuration, Failure>) {
        if std::mem::take(&mut self.reload) == Reload::ReadAgain {
            self.requests.read_configuration();
            self.reload = Reload::Reading;
            return;
        }
        let unreadable = |failure| log::error!("the configuration cannot be read: {failure}");
        let read = read.map_err(unreadable).ok().and_then(|mut configuration| {
            let exclusions = std::mem::take(&mut configuration.exclusions);
            Some((self.settings.anew(self.program, configuration)?, exclusions))
        });
        match read {
            Some((settings, exclusions)) => {
                self.settings = settings;
                self.apply_settings();
                self.override_rule();
                self.hear_settings(now, exclusions);
                if let Some(bus) = &mut self.bus {
                    bus.request_names(now);
                    bus.want_announcements(self.settings.announcements(), now);
                }
            }
            None => log::error!(
                "because of the above, the running configuration stays in force; mend that and reload again"
            ),
        }
        self.manager.ready();
    }

    pub(super) fn apply_settings(&mut self) {
        self.facts.set_host(&self.settings.host);
        let announcements = self.facts.announcements.take();
        self.facts.announcements = self.settings.announcements().map(|_| announcements.unwrap_or_default());
        self.facts.set_tron(self.forced_tron || self.settings.tron);
    }

    /// nvme-cli's udev rule is in the way of who finds discovery controllers for as long as the system runs.
    pub(super) fn override_rule(&mut self) {
        if self.program.roles().finder && self.program != Program::Boot && !self.overrides_rule {
            self.requests.override_rule(true);
        }
    }

    /// What no program of this host is to connect, and what the administrator and the firmware want.
    pub(super) fn hear_settings(&mut self, now: Instant, exclusions: Exclusions) {
        self.machine.handle(now, Event::HostExcludes(self.exclusions.take_in(exclusions)));
        self.hear_wishes(now);
    }

    fn hear_wishes(&mut self, now: Instant) {
        let entries = self.firmware.entries(&self.settings);
        let [names, settings] = self.settings.events(entries);
        self.machine.handle(now, names);
        self.machine.handle(now, settings);
    }

    /// Looks whether an interface that the firmware speaks of is there by now, and does what it lacks if that is ours to do.
    pub(super) fn look_for_interfaces(&mut self, now: Instant) {
        if self.firmware.look(now) {
            // One that has another name now is the one by which connections go that were made under the old one.
            self.read_devices(now);
            self.hear_wishes(now);
        }
        while let Some((hfi, step)) = self.firmware.poll_step() {
            self.requests.change_network(hfi, step.requests());
        }
    }

    pub(super) fn read_exclusions(&mut self, now: Instant) {
        if self.exclusions.changed(now) {
            self.requests.read_exclusions();
        }
    }

    /// The exclusions were read, because they changed. Unless they changed again, the connects that waited go on.
    pub(super) fn hear_exclusions(&mut self, now: Instant, read: Result<Exclusions, Failure>) {
        let exclusions = match read {
            Ok(read) => {
                let list = self.exclusions.take_in(read);
                self.machine.handle(now, Event::HostExcludes(list.clone()));
                list
            }
            Err(failure) => {
                log::warn!("what nvme-cli's lists exclude cannot be read: {failure}; what they excluded before counts");
                Vec::new()
            }
        };
        if self.exclusions.were_read(now) {
            self.requests.read_exclusions();
        }
        self.release_connects(now, &exclusions);
    }

    /// Makes the connects that waited long enough, less what is excluded by now.
    pub(super) fn release_connects(&mut self, now: Instant, exclusions: &[HostExclusion]) {
        for connect in self.exclusions.release(now) {
            let Action::Connect { ticket, id, host_id, .. } = &connect else { continue };
            match exclusions.iter().find(|exclusion| exclusion.matches(&id.tid, host_id)) {
                Some(exclusion) => {
                    let failure = Failure::BadField(format!("{} excludes it", exclusion.place));
                    self.machine.handle(now, Event::Connected { ticket: *ticket, outcome: Err(failure) });
                }
                None => self.perform(now, connect),
            }
        }
    }
}
