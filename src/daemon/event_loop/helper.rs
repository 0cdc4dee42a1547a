//! The helper process: what it answers, and another one in its place if it dies.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::Interest;
use mio::unix::SourceFd;

use super::{Daemon, HELPER};
use crate::daemon::requests::{Answer, LOOK_AGAIN};

/// Helpers that live shorter than this, so many in a row, cannot live here at all: starting more would help nobody.
const HELPER_LIFE: Duration = Duration::from_secs(1);
const SHORT_LIVES: u32 = 5;

impl Daemon {
    pub(super) fn register_helper(&self) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&self.requests.as_raw_fd()), HELPER, interest)
    }

    pub(super) fn handle_replies(&mut self, now: Instant) {
        while let Some(answer) = self.requests.poll_answer(now, &self.sysfs, &mut self.claims) {
            match answer {
                Answer::Event(event) => self.machine.handle(now, *event),
                Answer::Network { hfi, outcome } => {
                    self.firmware.network_changed(now, hfi, outcome);
                    self.look_for_interfaces(now);
                }
            }
        }
    }

    /// What was asked of the old helper may have been done or not: sysfs tells.
    pub(super) fn replace_helper(&mut self, now: Instant) -> Result<(), String> {
        let had_failed = self.start_helper_at.take().is_some();
        if !had_failed {
            log::error!("the helper process died; starting another one");
        }
        if let Err(error) = self.requests.restart().and_then(|()| self.register_helper()) {
            if !had_failed {
                log::error!("the helper process cannot be started again: {error}; trying again");
            }
            self.start_helper_at = now.checked_add(LOOK_AGAIN);
            return Ok(());
        }
        let was_short = now.saturating_duration_since(self.helper_started) < HELPER_LIFE;
        self.short_lives = if was_short { self.short_lives.saturating_add(1) } else { 0 };
        if self.short_lives >= SHORT_LIVES {
            return Err("the helper process dies as soon as it is started; see the kernel log".to_owned());
        }
        self.helper_started = now;
        self.read_devices(now);
        self.handle_replies(now);
        if !self.requests.is_ready() {
            self.requests.read_options();
        }
        Ok(())
    }
}
