//! Signals: SIGHUP reloads, SIGTERM and SIGINT stop, SIGCHLD may tell that the helper died.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Daemon;
use crate::core::Event;

/// How long a stop waits for discovery connections that are to go with the daemon.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

impl Daemon {
    pub(super) fn handle_signals(&mut self, now: Instant) -> Result<(), String> {
        while let Some(info) = self.signals.read_signal().map_err(|errno| format!("signals: {errno}"))? {
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGHUP) => self.reload(),
                Some(Signal::SIGCHLD) if self.requests.has_died() => self.replace_helper(now)?,
                Some(Signal::SIGCHLD) => self.requests.mind_reserve(),
                Some(Signal::SIGTERM | Signal::SIGINT) => self.stop(now),
                _ => {}
            }
        }
        Ok(())
    }

    fn stop(&mut self, now: Instant) {
        log::info!("stopping; I/O connections stay");
        self.manager.stopping();
        self.ready_by = None;
        self.machine.handle(now, Event::Stop);
        self.stop_by = Some(now + STOP_PATIENCE);
        if self.overrides_rule {
            self.requests.override_rule(false);
        }
    }
}
