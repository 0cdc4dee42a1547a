//! What must hold, at a step and once the world is at rest.

use super::*;

impl World {
    /// One daemon never has the same place connected twice. What an earlier one had asked for when it was killed may come
    /// through later; the kernel alone could prevent that.
    pub(super) fn check_duplicate(&self, connect: &Connect) -> Result<(), String> {
        let is_twin = |other: &&Controller| {
            let ours = other.era.is_some() && other.era == connect.era;
            ours && other.is_usable() && !self.doomed.contains(&other.serial) && other.id.is_same_place(&connect.id)
        };
        match self.kernel.controllers.values().find(is_twin) {
            Some(_) => Err(format!("{} is connected a second time", connect.id)),
            None => Ok(()),
        }
    }

    /// Whether another controller does what this one does.
    pub(super) fn has_other(&self, device: &Device) -> bool {
        self.kernel.controllers.iter().any(|(number, other)| {
            let same = (other.nqn(), other.id.tid.traddr()) == (device.subsysnqn.as_str(), device.traddr.as_str());
            same && other.is_usable() && *number != number_of(&device.name)
        })
    }

    /// With the world at rest, what is connected is what the policy says.
    pub(super) fn check_policy(&self) -> Result<(), String> {
        let excluded = self.configuration.excluded;
        let serves = |kind, traddr: &str, nqn: &str| {
            self.kernel.controllers.values().any(|one| {
                let same = one.id.kind == kind && one.id.tid.traddr() == traddr && (nqn.is_empty() || one.nqn() == nqn);
                same && one.state == State::Live
            })
        };
        let mut paths = self.configuration.io;
        for which in members(self.configuration.discovery | self.announced) {
            if !excluded.covers("", DISCOVERY[which]) {
                if !serves(ControllerKind::Discovery, DISCOVERY[which], "") && !self.nature[which].is_polled() {
                    return Err(format!("discovery controller {} is not connected", DISCOVERY[which]));
                }
                paths |= self.listed[which];
            }
        }
        for (nqn, traddr) in members(paths).map(|path| PATHS[path]) {
            if !excluded.covers(nqn, traddr) && !serves(ControllerKind::Io, traddr, nqn) {
                return Err(format!("{nqn} at {traddr} is not connected"));
            }
        }
        let listed_by_somebody = self.listed.iter().fold(paths, |all, listed| all | listed);
        for controller in self.kernel.controllers.values().filter(|one| one.era.is_some() && !self.leniency) {
            let (nqn, traddr) = (controller.nqn(), controller.id.tid.traddr());
            if let Some(path) = path_of(&controller.id)
                && (listed_by_somebody & (1 << path) == 0 || excluded.covers(nqn, traddr))
            {
                return Err(format!("{nqn} at {traddr} is still connected"));
            }
        }
        Ok(())
    }
}
