//! Processes of ours, and what their loops do around the state machines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::Instant;

use stas::core::links::LinkId;
use stas::core::{Action, Legacy, Machine, Roles, Ticket};
use stas::daemon::state_file::{self, StateFile};

use crate::kernel::Uevent;
use crate::oracle::{Oracle, SECRET};
use crate::script::{Configuration, Exclude};

/// More than this, without anything happening meanwhile, is a loop that does not end.
const MAX_ACTIONS: usize = 400;

/// `stas run`, or one of `stafd` and `stacd`: running or not.
pub struct Process {
    pub roles: Roles,
    pub daemon: Option<Daemon>,
    /// Counts the helpers: what was asked of one that died may be carried out all the same.
    pub era: u32,
    pub disk: Disk,
    pub read_only: bool,
    /// Uevents that were not read yet; more were lost.
    pub uevents: VecDeque<Uevent>,
    pub deaf: bool,
}

/// What survives the daemon, and what was known when it was written.
#[derive(Clone, Default)]
pub struct Disk {
    pub legacy: Vec<Legacy>,
    pub oracle: Oracle,
}

/// One life of a process.
pub struct Daemon {
    pub machine: Machine,
    pub generation: u32,
    pub connects: BTreeMap<Ticket, LinkId>,
    pub disconnects: BTreeMap<Ticket, String>,
    /// Registrations, inquiries and log pages.
    pub commands: BTreeMap<Ticket, Command>,
    pub resolves: BTreeSet<Ticket>,
    pub stopping: bool,
    /// As it was read last.
    pub configuration: Configuration,
    pub host_excluded: Exclude,
    /// The discovery controllers whose pages were read in this life.
    pub heard: BTreeSet<usize>,
}

/// An admin command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Register,
    Inquire,
    Read,
}

impl Process {
    pub fn new(finder: bool, connector: bool) -> Process {
        Process {
            roles: Roles { finder, connector },
            daemon: None,
            era: 0,
            disk: Disk::default(),
            read_only: false,
            uevents: VecDeque::new(),
            deaf: false,
        }
    }

    /// Begins a life, with what the file of the one before says.
    pub fn start(&mut self, generation: u32, era: u32, seed: u64, configuration: Configuration) -> Result<(), String> {
        let text = StateFile::new(Path::new("")).write(&self.disk.legacy);
        if text.contains(SECRET) {
            return Err(format!("a secret is in the state file: {text}"));
        }
        let legacy = state_file::parse(text.as_bytes()).map_err(|error| format!("{error}: {text}"))?;
        let mut machine = Machine::new(self.roles, seed);
        machine.inherit(legacy);
        self.era = era;
        self.read_only = false;
        self.uevents.clear();
        self.daemon = Some(Daemon {
            machine,
            generation,
            connects: BTreeMap::new(),
            disconnects: BTreeMap::new(),
            commands: BTreeMap::new(),
            resolves: BTreeSet::new(),
            stopping: false,
            configuration,
            host_excluded: Exclude::Nothing,
            heard: BTreeSet::new(),
        });
        Ok(())
    }
}

impl Daemon {
    /// All that is to be done now.
    pub fn actions(&mut self, now: Instant) -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        while let Some(action) = self.machine.poll_action(now) {
            let mut text = format!("{action:?}");
            if let Action::Note(note) = &action {
                text = note.to_string();
            }
            if text.contains(SECRET) {
                return Err(format!("a secret got out: {text}"));
            }
            actions.push(action);
            if actions.len() > MAX_ACTIONS {
                return Err("actions without end".into());
            }
        }
        Ok(actions)
    }
}
