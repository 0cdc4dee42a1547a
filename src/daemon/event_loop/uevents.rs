//! What the kernel tells of its controllers: uevents as they come, and all of sysfs at the start and after any were
//! lost.

use std::io;
use std::time::Instant;

use super::Daemon;
use crate::core::Event;
use crate::core::announcement::Announcement;
use crate::daemon::requests::{FABRICS, LOOK_AGAIN};
use crate::daemon::{udev, uses};
use crate::kernel::netlink::{MESSAGE_MAX, Received};
use crate::kernel::sysfs::CLASS;
use crate::wire::uevent::{ControllerEvent, NvmeEvent, Uevent};

impl Daemon {
    /// Takes in all uevents that are there. `Err` when no more will come.
    pub(super) fn drain_uevents(&mut self, now: Instant) -> Result<(), String> {
        let mut buffer = [0; MESSAGE_MAX];
        let mut lost = false;
        loop {
            match self.uevents.recv(&mut buffer).map_err(|error| format!("netlink: {error}"))? {
                Received::Nothing => break,
                Received::Overflow | Received::Truncated => lost = true,
                Received::Forged => log::debug!("a netlink message that is not the kernel's was ignored"),
                Received::Event(message) => match Uevent::parse(message) {
                    Ok(uevent) => {
                        lost |= self.handle_uevent(&uevent, now).is_err();
                        self.hand_over(&uevent, now);
                    }
                    // Other devices may have names that are not text; that is no concern of ours.
                    Err(error) if !concerns_nvme(message) => log::debug!("{error}"),
                    Err(error) => {
                        log::warn!("{error}");
                        lost = true;
                    }
                },
            }
        }
        if lost {
            if self.lost_uevents.is_due(now) {
                log::warn!("uevents were lost; reading all controllers again");
            }
            self.read_devices(now);
        }
        Ok(())
    }

    /// What a uevent says, with what sysfs shows at this moment. Fails if it cannot be read.
    fn handle_uevent(&mut self, uevent: &Uevent<'_>, now: Instant) -> io::Result<()> {
        match uevent.nvme_event() {
            NvmeEvent::Controller { device, event } => return self.handle_controller(device, event, now),
            NvmeEvent::FabricsDevice => {
                log::info!("{FABRICS} is there");
                self.requests.read_options();
            }
            NvmeEvent::FcDiscovery { traddr, host_traddr } => {
                log::debug!("uevent: Fibre Channel port {traddr} seen from {host_traddr}");
                if let Some(port) = Announcement::fc_port(traddr, host_traddr) {
                    self.machine.handle(now, Event::FcPort(port));
                }
            }
            NvmeEvent::None if uses::may_end_use(uevent) => self.machine.handle(now, Event::UsesChanged),
            NvmeEvent::None => {}
        }
        Ok(())
    }

    fn handle_controller(&mut self, device: &str, event: ControllerEvent, now: Instant) -> io::Result<()> {
        log::debug!("uevent: {device}: {event:?}");
        match event {
            ControllerEvent::Connected => {
                // `None`: it is gone already, and its removal is the next thing we hear.
                if let Some(device) = self.sysfs.controller(device)? {
                    self.machine.handle(now, Event::DeviceUp(device));
                }
            }
            ControllerEvent::Removed => {
                self.machine.handle(now, Event::DeviceRemoved(device.to_owned()));
                self.claims.drop_gone(self.machine.links());
            }
            ControllerEvent::DiscoveryLogChanged => self.machine.handle(now, Event::LogChanged(device.to_owned())),
            // Connected follows it at once (`nvme_start_ctrl` in drivers/nvme/host/core.c), and what is done with a controller that
            // is connected again is to be done once.
            ControllerEvent::Rediscover => {}
            ControllerEvent::Added | ControllerEvent::OtherAen(_) | ControllerEvent::Other => {}
        }
        Ok(())
    }

    /// A discovery controller that is not ours has news: starts what nvme-cli's udev rule would have started.
    fn hand_over(&mut self, uevent: &Uevent<'_>, now: Instant) {
        let unit = self.overrides_rule.then(|| udev::unit_for(uevent, &self.machine, &self.sysfs)).flatten();
        if let (Some(unit), Some(bus)) = (unit, &mut self.bus) {
            let what = if bus.restart_unit(&unit, now) { "starting" } else { "without a bus we cannot start" };
            log::info!("a discovery controller that is not ours has news; {what} {unit}");
        }
    }

    pub(super) fn read_devices(&mut self, now: Instant) {
        let had_failed = self.read_devices_at.take().is_some();
        match self.sysfs.controllers() {
            Ok(devices) => {
                self.machine.handle(now, Event::DevicesRead(devices));
                self.claims.drop_gone(self.machine.links());
            }
            Err(error) => {
                if !had_failed {
                    log::error!("{CLASS}: cannot be read: {error}; controllers may be unknown to us; trying again");
                }
                self.read_devices_at = now.checked_add(LOOK_AGAIN);
            }
        }
    }
}

/// Whether an event that cannot be read may have been about a controller.
fn concerns_nvme(message: &[u8]) -> bool {
    message.windows(4).any(|bytes| bytes == b"nvme")
}
