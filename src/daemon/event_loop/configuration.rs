//! The settings, put in force: at the start and at each reload. The helper reads the files.

use std::time::Instant;

use super::Daemon;
use crate::config::{Configuration, Exclusions};
use crate::core::exclusion::HostExclusion;
use crate::core::{Action, Event};
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
                self.hear_host(now, exclusions);
                self.machine.handle(now, self.settings.event());
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

    /// nvme-cli's udev rule is in the way of who finds discovery controllers.
    pub(super) fn override_rule(&mut self) {
        if self.program.roles().finder && !self.overrides_rule {
            self.requests.override_rule(true);
        }
    }

    /// What concerns all programs of this host that connect: its names, and what none of them is to connect.
    pub(super) fn hear_host(&mut self, now: Instant, exclusions: Exclusions) {
        self.machine.handle(now, Event::HostNamed(self.settings.host_ids.clone()));
        self.machine.handle(now, Event::HostExcludes(self.exclusions.take_in(exclusions)));
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
