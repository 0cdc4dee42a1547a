//! The one timer: set to the earliest moment that anybody waits for.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};

use super::Daemon;
use crate::bus::SystemBus;
use crate::daemon::goal::Goal;

impl Daemon {
    pub(super) fn arm_timer(&mut self, now: Instant) -> io::Result<()> {
        let deadline = self.next_deadline();
        if deadline == self.armed {
            return Ok(());
        }
        match deadline {
            Some(at) => {
                // Zero would switch the timer off.
                let wait = at.saturating_duration_since(now).max(Duration::from_nanos(1));
                let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
                self.timer.set(expiration, TimerSetTimeFlags::empty())?;
            }
            None => self.timer.unset()?,
        }
        self.armed = deadline;
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let bus = self.bus.as_ref().and_then(SystemBus::deadline);
        let others = [
            self.probes.deadline(),
            self.requests.deadline(),
            bus,
            self.manager.deadline(),
            self.ready_by,
            self.read_devices_at,
            self.make_reserve_at,
            self.exclusions.deadline(),
            self.state_file.deadline(),
            self.claims.deadline(),
            self.private.deadline(),
            self.stop_by,
            self.goal.as_ref().and_then(Goal::deadline),
            self.firmware.deadline(),
        ];
        self.machine.poll_deadline().into_iter().chain(others.into_iter().flatten()).min()
    }

    pub(super) fn handle_timer(&mut self, now: Instant) {
        // Reading makes the timer readable again at its next expiry; how often it expired does not matter.
        let _ = self.timer.wait();
        self.armed = None;
        self.machine.handle_deadline(now);
        self.probes.handle_deadline(now);
        self.requests.handle_deadline(now);
        self.manager.handle_deadline(now);
        self.handle_replies(now);
        if self.firmware.deadline().is_some_and(|at| at <= now) {
            self.look_for_interfaces(now);
        }
        if self.read_devices_at.is_some_and(|at| at <= now) {
            self.read_devices(now);
        }
        if self.state_file.deadline().is_some_and(|at| at <= now) {
            self.state_file.save(now, false, || self.machine.legacy(now));
        }
        self.claims.settle(now, true);
        self.private.handle_deadline(now);
        if self.ready_by.is_some_and(|by| by <= now) {
            log::warn!("D-Bus: the bus does not answer; going on without it until it does");
            self.awaited_names.clear();
        }
        if let Some(bus) = &mut self.bus {
            bus.handle_deadline(now);
        }
        if self.make_reserve_at.is_some_and(|at| at <= now) {
            self.requests.mind_reserve();
        }
        self.release_connects(now, &[]);
    }
}
