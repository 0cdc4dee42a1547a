//! What must hold, found out by other means than `core/` finds it: from what the simulated world knows to have happened.

use std::collections::{BTreeMap, BTreeSet};

use stas::core::device::{ControllerKind, Device};

use crate::daemon::Daemon;
use crate::script::{Configuration, DISCOVERY, NAME, PATHS, Scope, Set, members};

/// A key that is in the configuration: nothing but a connect may carry it.
pub const SECRET: &str = "DHHC-1:00:c2ltdWxhdGVkLXNlY3JldA==:";

/// What speaks for each path, as far as the process was told that connects them.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    /// The last good page of each discovery controller.
    listed: BTreeMap<usize, Said>,
    /// Discovery controllers that the configuration named at some time.
    named: Set,
    /// Those that announced themselves at some time.
    announced: Set,
    /// Those that others referred to at some time.
    referred: Set,
    /// Some are pinned to the interface and some are not: who is referred to by both is known twice, and so are its paths,
    /// each with a fate of its own.
    is_split: bool,
    /// The name that the configuration may use stood for these at some time.
    renamed: Set,
    /// Paths that were listed by controllers which are not known any more, without having taken anything back.
    abandoned: Set,
    /// The same of those of which a finder in another process did not say whether the administrator dropped them.
    perhaps_abandoned: Set,
}

/// The discovery controller at an address. As long as its name has none, it is known by that.
pub fn discovery_at(traddr: &str) -> Option<usize> {
    if traddr == NAME { Some(1) } else { DISCOVERY.iter().position(|known| *known == traddr) }
}

/// What a page said.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    pub paths: Set,
    pub refers: Set,
}

impl Oracle {
    /// What was saved is all that the next life knows.
    pub fn start_from(&mut self, saved: &Oracle) {
        self.listed.clone_from(&saved.listed);
        self.abandoned = saved.abandoned;
        self.perhaps_abandoned = saved.perhaps_abandoned;
    }

    pub fn page_delivered(&mut self, discovery: usize, said: Said, configuration: &Configuration) {
        let referred = self.listed.values().fold(self.announced, |referred, said| referred | said.refers);
        // One that the administrator dropped may stay until its successors are there, and counts no more.
        if self.is_dropped(discovery, configuration) && referred & (1 << discovery) == 0 {
            self.listed.remove(&discovery);
            return;
        }
        self.take_up(said.paths);
        self.referred |= said.refers;
        self.listed.insert(discovery, said);
    }

    /// A page that is not known to be current may add, and takes nothing back.
    pub fn old_page_delivered(&mut self, discovery: usize, said: Said) {
        self.take_up(said.paths);
        self.referred |= said.refers;
        let known = self.listed.entry(discovery).or_insert(Said { paths: 0, refers: 0 });
        known.paths |= said.paths;
        known.refers |= said.refers;
    }

    /// What was forgotten speaks for nothing from now on, and nothing that is `connected` is taken down for that.
    pub fn forget(&mut self, configuration: &Configuration, connected: Set, is_known: impl Fn(usize) -> bool) {
        // One that the administrator dropped may have stayed until its successors were there.
        let dropped: Vec<usize> = (0..DISCOVERY.len()).filter(|which| self.is_dropped(*which, configuration)).collect();
        let before = self.paths();
        self.listed.retain(|which, _| !dropped.contains(which) || is_known(*which));
        self.perhaps_abandoned |= before & !self.paths();
        let before = self.paths();
        self.listed.retain(|discovery, _| is_known(*discovery));
        let forgotten = before & !self.paths() & !configuration.io;
        // Who is called by a name refers to nobody before that is resolved: it may only look like it.
        if !configuration.by_name {
            self.abandoned |= forgotten & connected;
        }
        self.perhaps_abandoned |= forgotten;
    }

    /// The same by the word of a finder in another process: it may have been the administrator's.
    pub fn hear_of(&mut self, known: &BTreeSet<usize>) {
        let before = self.paths();
        self.listed.retain(|discovery, _| known.contains(discovery));
        self.perhaps_abandoned |= before & !self.paths();
    }

    pub fn announced(&mut self, announced: Set) {
        self.announced |= announced;
        self.is_split |= announced != 0;
    }

    pub fn renamed(&mut self, addresses: Set) {
        self.renamed |= addresses;
    }

    /// The administrator speaks. With whom he drops goes what they refer to.
    pub fn configured(&mut self, configuration: &Configuration) {
        self.named |= configuration.discovery;
        self.is_split |= configuration.pinned;
        self.take_up(configuration.io);
        let dropped: BTreeSet<usize> =
            (0..DISCOVERY.len()).filter(|which| self.is_dropped(*which, configuration)).collect();
        self.listed.retain(|which, _| !dropped.contains(which));
        let mut reached = self.announced | configuration.discovery;
        loop {
            let listers = self.listed.iter().filter(|(which, _)| reached & (1 << **which) != 0);
            let further = listers.fold(reached, |reached, (_, said)| reached | said.refers);
            if further == reached {
                break;
            }
            reached = further;
        }
        self.listed.retain(|which, _| reached & (1 << which) != 0);
    }

    /// By the administrator's word.
    fn is_dropped(&self, which: usize, configuration: &Configuration) -> bool {
        let has = |set: Set| set & (1 << which) != 0;
        let is_named = has(configuration.discovery) && !self.is_elsewhere(which, configuration);
        let was_named = has(self.named) || has(self.renamed);
        (was_named && !is_named) || configuration.excluded.covers("", DISCOVERY[which])
    }

    /// Whether it is called by a name that stood for others.
    pub fn is_elsewhere(&self, which: usize, configuration: &Configuration) -> bool {
        which == 1 && configuration.by_name && self.renamed & !(1 << which) != 0
    }

    /// Somebody wants them again.
    fn take_up(&mut self, paths: Set) {
        self.abandoned &= !paths;
        self.perhaps_abandoned &= !paths;
    }

    /// Whether it may rightly stay connected, although nobody lists it.
    pub fn may_be_abandoned(&self, path: usize) -> bool {
        (self.abandoned | self.perhaps_abandoned) & (1 << path) != 0
    }

    fn paths(&self) -> Set {
        self.listed.values().fold(0, |paths, said| paths | said.paths)
    }

    /// Whether a disconnect of this controller can be justified.
    pub fn judge(&self, device: &Device, daemon: &Daemon, is_ours: bool) -> Result<(), String> {
        match device.kind {
            // The kernel is at it already.
            _ if !device.is_usable() => Ok(()),
            ControllerKind::Io => self.judge_path(device, daemon, is_ours),
            ControllerKind::Discovery => self.judge_discovery(device, daemon),
        }
    }

    fn judge_path(&self, device: &Device, daemon: &Daemon, is_ours: bool) -> Result<(), String> {
        let path = PATHS.iter().position(|path| *path == (device.subsysnqn.as_str(), device.traddr.as_str())).unwrap();
        let has = |set: Set| set & (1 << path) != 0;
        let configuration = &daemon.configuration;
        let (subsystem, address) = PATHS[path];
        if configuration.scope == Scope::Nothing {
            return Err("the configuration forbids every disconnect".into());
        }
        if !is_ours && configuration.scope != Scope::All {
            return Err("somebody else connected it".into());
        }
        if is_ours && configuration.excluded.covers(subsystem, address) {
            return Ok(());
        }
        if has(configuration.io) && !configuration.excluded.covers(subsystem, address) {
            return Err("it is configured".into());
        }
        if !is_ours {
            let is_unheard = |which: &usize| {
                let is_excluded = configuration.excluded.covers("", DISCOVERY[*which]);
                !is_excluded && !self.is_elsewhere(*which, configuration) && !daemon.heard.contains(which)
            };
            if let Some(which) = members(configuration.discovery).find(is_unheard) {
                return Err(format!("somebody else connected it, and {} was not heard", DISCOVERY[which]));
            }
        }
        if has(self.abandoned) && configuration.scope == Scope::Ours && !self.is_split {
            return Err("those that listed it were only forgotten".into());
        }
        let counts = |which: usize| !self.is_split || self.referred & (1 << which) == 0;
        match self.listed.iter().find(|(which, said)| has(said.paths) && counts(**which)) {
            Some(_) if configuration.excluded.covers(subsystem, address) => Ok(()),
            Some((discovery, _)) => Err(format!("{} listed it last", DISCOVERY[*discovery])),
            None => Ok(()),
        }
    }

    fn judge_discovery(&self, device: &Device, daemon: &Daemon) -> Result<(), String> {
        let configuration = &daemon.configuration;
        let which = DISCOVERY.iter().position(|traddr| *traddr == device.traddr).unwrap();
        // Who it is that is called by a name may not be known yet.
        let wanted = members(configuration.discovery).any(|named| named == which)
            && !(which == 1 && configuration.by_name)
            && !configuration.excluded.covers(&device.subsysnqn, &device.traddr);
        let outlives = !daemon.stopping || configuration.persistent_connections;
        if wanted && outlives { Err("it is configured".into()) } else { Ok(()) }
    }
}
