//! What must hold, found out by other means than `core/` finds it: from what the simulated world knows to have happened.

use std::collections::{BTreeMap, BTreeSet};

use stas::core::device::{ControllerKind, Device};

use crate::script::{Configuration, DISCOVERY, PATHS, Set, members};

/// A key that is in the configuration: nothing but a connect may carry it.
pub const SECRET: &str = "DHHC-1:00:c2ltdWxhdGVkLXNlY3JldA==:";

/// What speaks for each path, as far as the daemon was told.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    /// The last good page of each discovery controller, and with which pinning it was read.
    listed: BTreeMap<usize, (String, Set)>,
    /// Discovery controllers that the configuration named at some time.
    named: BTreeSet<usize>,
}

impl Oracle {
    pub fn page_delivered(&mut self, discovery: usize, host_iface: &str, paths: Set) {
        self.listed.insert(discovery, (host_iface.into(), paths));
    }

    /// What was forgotten speaks for nothing from now on. Not to be called after a reload: whoever pins a controller
    /// differently does not mean to lose the storage behind it.
    pub fn forget(&mut self, is_known: impl Fn(usize, &str) -> bool) {
        self.listed.retain(|discovery, (host_iface, _)| is_known(*discovery, host_iface));
    }

    pub fn configured(&mut self, configuration: &Configuration) {
        self.named.extend(members(configuration.discovery));
        let named = &self.named;
        self.listed.retain(|which, _| !is_dropped(*which, named, configuration));
    }

    /// Whether a disconnect of this controller can be justified.
    pub fn judge(&self, device: &Device, configuration: &Configuration, stopping: bool) -> Result<(), String> {
        match device.kind {
            // The kernel is at it already.
            _ if !device.is_usable() => Ok(()),
            ControllerKind::Io => self.judge_path(device, configuration),
            ControllerKind::Discovery => judge_discovery(device, configuration, stopping),
        }
    }

    fn judge_path(&self, device: &Device, configuration: &Configuration) -> Result<(), String> {
        let path = PATHS.iter().position(|path| *path == (device.subsysnqn.as_str(), device.traddr.as_str())).unwrap();
        let has = |set: Set| set & (1 << path) != 0;
        if !configuration.disconnects {
            return Err("the configuration forbids every disconnect".into());
        }
        let (subsystem, address) = PATHS[path];
        if configuration.excluded.covers(subsystem, address) {
            return Ok(());
        }
        if has(configuration.io) {
            return Err("it is configured".into());
        }
        match self.listed.iter().find(|(_, (_, listed))| has(*listed)) {
            Some((discovery, _)) => Err(format!("{} listed it last", DISCOVERY[*discovery])),
            None => Ok(()),
        }
    }
}

/// By the administrator's word.
fn is_dropped(discovery: usize, named: &BTreeSet<usize>, configuration: &Configuration) -> bool {
    let is_named = members(configuration.discovery).any(|named| named == discovery);
    (named.contains(&discovery) && !is_named) || configuration.excluded.covers("", DISCOVERY[discovery])
}

fn judge_discovery(device: &Device, configuration: &Configuration, stopping: bool) -> Result<(), String> {
    let which = DISCOVERY.iter().position(|traddr| *traddr == device.traddr).unwrap();
    let wanted = members(configuration.discovery).any(|named| named == which)
        && !configuration.excluded.covers(&device.subsysnqn, &device.traddr);
    let outlives = !stopping || configuration.persistent_connections;
    if wanted && outlives { Err("it is configured".into()) } else { Ok(()) }
}
