//! The helper process: what it answers, and the one in reserve in its place if it dies.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::Interest;
use mio::unix::SourceFd;

use super::{Daemon, HELPER};
use crate::daemon::requests::{LOOK_AGAIN, Outcome};
use crate::helper::message::Failure;

/// Helpers that live shorter than this, so many in a row, cannot live here at all: more of them would help nobody.
const HELPER_LIFE: Duration = Duration::from_secs(1);
const SHORT_LIVES: u32 = 5;

impl Daemon {
    pub(super) fn register_helper(&self) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&self.requests.as_raw_fd()), HELPER, interest)
    }

    pub(super) fn handle_replies(&mut self, now: Instant) {
        loop {
            let known = |name: &str| self.machine.links().device(name).cloned();
            let Some(outcome) = self.requests.poll_outcome(now, &self.sysfs, known, &mut self.claims) else {
                return;
            };
            match outcome {
                Outcome::Event(event) => self.machine.handle(now, event),
                Outcome::Network { hfi, outcome } => {
                    self.firmware.network_changed(now, hfi, outcome);
                    self.look_for_interfaces(now);
                }
                Outcome::Configuration(read) => self.hear_configuration(now, read),
                Outcome::Exclusions(read) => self.hear_exclusions(now, read),
                // At the end it is enough to have been heard.
                Outcome::Rule(overridden) => self.overrides_rule = overridden && self.stop_by.is_none(),
                Outcome::Reserve(made) => self.hear_of_reserve(now, made),
            }
        }
    }

    /// What was asked of the helper that died may have been done or not: sysfs tells.
    pub(super) fn replace_helper(&mut self, now: Instant) -> Result<(), String> {
        log::error!("the helper process died; the one in reserve takes its place");
        let gone = |error| format!("the helper process cannot be replaced: {error}; only a new start can help");
        self.requests.take_over().and_then(|()| self.register_helper()).map_err(gone)?;
        let was_short = now.saturating_duration_since(self.helper_started) < HELPER_LIFE;
        self.short_lives = if was_short { self.short_lives.saturating_add(1) } else { 0 };
        if self.short_lives >= SHORT_LIVES {
            return Err("the helper process dies as soon as it is started; see the kernel log".to_owned());
        }
        self.helper_started = now;
        self.requests.mind_reserve();
        self.read_devices(now);
        self.handle_replies(now);
        if !self.requests.is_ready() {
            self.requests.read_options();
        }
        Ok(())
    }

    fn hear_of_reserve(&mut self, now: Instant, made: Result<(), Failure>) {
        let had_failed = self.make_reserve_at.take().is_some();
        match made {
            // It may have died before we knew it.
            Ok(()) => self.requests.mind_reserve(),
            Err(failure) => {
                if !had_failed {
                    log::error!("the helper process in reserve cannot be started again: {failure}; trying again");
                }
                self.make_reserve_at = now.checked_add(LOOK_AGAIN);
            }
        }
    }
}
