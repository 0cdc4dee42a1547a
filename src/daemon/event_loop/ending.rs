//! When the loop ends: when it was asked to, and `stas boot` when what it waits for is there, or in vain.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::Daemon;
use crate::core::device::ControllerKind;
use crate::daemon::goal::Ended;
use crate::daemon::requests::FABRICS;
use crate::kernel::disks::{BLOCK, Disk, disks};
use crate::kernel::sysfs::FC_DISCOVERY;

impl Daemon {
    pub(super) fn ended(&mut self, now: Instant) -> Option<Ended> {
        if self.stop_by.is_some_and(|by| by <= now || (self.machine.may_stop() && !self.overrides_rule)) {
            return Some(Ended::Stopped);
        }
        self.goal.as_ref()?;
        if !self.firmware.asks() && !self.settings.names_any() && !Path::new(FC_DISCOVERY).exists() {
            log::info!("neither a boot table of the firmware nor the configuration names anything to connect");
            return Some(Ended::NothingToDo);
        }
        if self.will_hear_of_a_connection() {
            return None;
        }
        let goal = self.goal.as_mut()?;
        let links = self.machine.links();
        let firmware = &self.firmware;
        let subsystems = || match firmware.subsystems() {
            named if !named.is_empty() => named,
            _ => links.wanted(ControllerKind::Io).map(|id| id.tid.subsysnqn().to_owned()).collect::<BTreeSet<_>>(),
        };
        // Not what somebody else connected, and nobody here wants.
        let is_reached = |nqn: &str| {
            let mut paths = links.wanted(ControllerKind::Io).filter(|id| id.tid.subsysnqn() == nqn).peekable();
            paths.peek().is_none() || paths.any(|id| links.is_live(id))
        };
        let ended = goal.judge(now, subsystems, is_reached)?;
        if ended == Ended::TooLate {
            self.explain_delay();
        }
        Some(ended)
    }

    /// Whether the kernel has connected what it is about to tell us of. That is to be noted as the firmware's before the boot goes
    /// on: the disk may be there before that.
    fn will_hear_of_a_connection(&self) -> bool {
        let mut connecting = self.machine.links().connecting().peekable();
        if connecting.peek().is_none() {
            return false;
        }
        let there = self.sysfs.controllers().unwrap_or_default();
        connecting.any(|id| there.iter().any(|device| device.serves(&id.tid, id.kind)))
    }

    /// What keeps what is wanted from being connected, a line for each; and the disks that are there, under whatever names.
    fn explain_delay(&self) {
        if !self.requests.is_ready() {
            log::error!("{FABRICS} is not there, or cannot be read: is the nvme-fabrics module loaded?");
        }
        for (hfi, obstacle) in self.firmware.obstacles() {
            log::error!("{hfi} of the boot table still waits for {obstacle}");
        }
        let links = self.machine.links();
        for id in [ControllerKind::Discovery, ControllerKind::Io].into_iter().flat_map(|kind| links.wanted(kind)) {
            match links.device_of(id) {
                Some(device) if links.is_live(id) => log::error!("{id}: connected as {}", device.name),
                _ => {
                    let why = self.machine.last_failure(id);
                    log::error!("{id}: {}", why.as_deref().unwrap_or("not connected yet"));
                }
            }
        }
        for Disk { name, subsysnqn, ids } in disks(Path::new(BLOCK)) {
            log::error!("/dev/{name} is there, a disk of {subsysnqn}: {}", ids.join(" "));
        }
    }
}
