//! What must hold, at a step and once the world is at rest.

use std::path::Path;

use stas::core::tid::DISCOVERY_NQN;
use stas::daemon::state_file::StateFile;

use super::*;
use crate::oracle::SECRET;

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

    /// No wanted path is taken down without evidence.
    pub(super) fn check_disconnect(&self, process: usize, device: &Device) -> Result<(), String> {
        let Some(daemon) = &self.processes[process].daemon else { return Ok(()) };
        // An old state file may claim what somebody else has connected since.
        let connected_by = self.kernel.controllers.get(&number_of(&device.name));
        let is_ours = self.leniency || connected_by.is_none_or(|one| one.era.is_some());
        let which = DISCOVERY.iter().position(|traddr| *traddr == device.traddr);
        match self.oracle.judge(device, daemon, is_ours) {
            Err(_) if which.is_some_and(|which| self.nature[which].is_polled()) || self.has_other(device) => Ok(()),
            Err(why) => Err(format!("{} {} is disconnected although {why}", device.name, device.subsysnqn)),
            Ok(()) => Ok(()),
        }
    }

    /// Whether another controller does what this one does.
    fn has_other(&self, device: &Device) -> bool {
        self.kernel.controllers.iter().any(|(number, other)| {
            let same = (other.nqn(), other.id.tid.traddr()) == (device.subsysnqn.as_str(), device.traddr.as_str());
            same && other.is_usable() && *number != number_of(&device.name)
        })
    }

    /// With the world at rest, what is connected is what the policy says.
    pub(super) fn check_policy(&self) -> Result<(), String> {
        let wanted = self.wanted_discovery();
        for which in members(wanted) {
            if !self.serves(ControllerKind::Discovery, DISCOVERY[which], "") && !self.nature[which].is_polled() {
                return Err(format!("discovery controller {} is not connected", DISCOVERY[which]));
            }
        }
        let may_connect = |path: &usize| {
            let (nqn, traddr) = PATHS[*path];
            !self.configuration.excluded.covers(nqn, traddr) && !self.host_excluded.covers(nqn, traddr)
        };
        let paths = members(wanted).fold(self.configuration.io, |paths, which| paths | self.listed[which].paths);
        for (nqn, traddr) in members(paths).filter(may_connect).map(|path| PATHS[path]) {
            if !self.serves(ControllerKind::Io, traddr, nqn) {
                return Err(format!("{nqn} at {traddr} is not connected"));
            }
        }
        let listed = self.listed.iter().fold(paths, |all, listed| all | listed.paths);
        let is_unwanted = |path: &usize| {
            let (nqn, traddr) = PATHS[*path];
            listed & (1 << *path) == 0 || self.configuration.excluded.covers(nqn, traddr)
        };
        // Who may not be connected cannot take anything back.
        let is_silenced = DISCOVERY.iter().any(|traddr| self.host_excluded.covers("", traddr));
        let is_lenient = self.leniency || is_silenced;
        let ours = self.kernel.controllers.values().filter(|one| one.era.is_some() && !is_lenient);
        for path in ours.filter_map(|one| path_of(&one.id)).filter(is_unwanted) {
            if !self.oracle.may_be_abandoned(path) {
                return Err(format!("{} at {} is still connected", PATHS[path].0, PATHS[path].1));
            }
        }
        if self.may_audit() {
            let all = self.kernel.controllers.values().filter_map(|one| path_of(&one.id));
            if let Some(path) = all.into_iter().find(|path| listed & (1 << path) == 0) {
                return Err(format!("nobody lists {} at {}, and it is still connected", PATHS[path].0, PATHS[path].1));
            }
        }
        Ok(())
    }

    /// The discovery controllers that are wanted beyond doubt, and may be connected.
    fn wanted_discovery(&self) -> Set {
        let is_admitted = |which: &usize| {
            let is_covered = |exclude: Exclude| exclude.covers(DISCOVERY_NQN, DISCOVERY[*which]);
            !is_covered(self.configuration.excluded) && !is_covered(self.host_excluded)
        };
        let is_certain = |which: &usize| !self.oracle.is_elsewhere(*which, &self.configuration);
        let configured = members(self.configuration.discovery).filter(is_certain);
        let mut frontier: Vec<usize> = configured.chain(members(self.announced)).filter(is_admitted).collect();
        let mut wanted = 0;
        while let Some(which) = frontier.pop() {
            if wanted & (1 << which) == 0 {
                wanted |= 1 << which;
                frontier.extend(members(self.listed[which].refers).filter(is_admitted));
            }
        }
        wanted
    }

    fn serves(&self, kind: ControllerKind, traddr: &str, nqn: &str) -> bool {
        self.kernel.controllers.values().any(|one| {
            let same = one.id.kind == kind && one.id.tid.traddr() == traddr && (nqn.is_empty() || one.nqn() == nqn);
            same && one.state == State::Live
        })
    }

    /// Whether strays have to go: if every discovery controller there is can be asked, beyond doubt.
    fn may_audit(&self) -> bool {
        let is_known = self.host_excluded == Exclude::Nothing && !self.configuration.by_name;
        self.configuration.scope == Scope::All && is_known && self.bus.is_none()
    }

    /// What anybody can read holds no secret.
    pub(super) fn check_published(&self) -> Result<(), String> {
        for process in &self.processes {
            let Some(daemon) = &process.daemon else { continue };
            let legacy = daemon.machine.legacy(self.instant());
            let told = StateFile::new(Path::new("")).write(&legacy);
            if told.contains(SECRET) {
                return Err(format!("a secret is told: {told}"));
            }
        }
        Ok(())
    }

    /// When nothing is wanted any more, memory holds nothing, and the kernel nothing of ours.
    pub(super) fn check_nothing_left(&mut self) -> Result<(), String> {
        let leniency = self.leniency;
        // From a finder that was restarted, and has nothing to tell of, a connector cannot know that there is nothing.
        let keeps = |process: &Process| {
            let daemon = process.daemon.as_ref().filter(|_| process.roles.finder || !leniency)?;
            (!daemon.machine.is_empty()).then(|| format!("{:#?}", daemon.machine))
        };
        if let Some(kept) = self.processes.iter().find_map(keeps) {
            self.tell(|| kept);
            return Err("something is kept in memory, and nothing is wanted".into());
        }
        // A connector that hears first that its finder has forgotten somebody keeps what that one listed.
        let is_lenient = self.leniency || self.bus.is_some();
        let ours = self.kernel.controllers.values().filter(|one| one.era.is_some() && !is_lenient);
        for path in ours.filter_map(|one| path_of(&one.id)) {
            if !self.oracle.may_be_abandoned(path) {
                return Err(format!("{} at {} is still connected", PATHS[path].0, PATHS[path].1));
            }
        }
        Ok(())
    }
}
