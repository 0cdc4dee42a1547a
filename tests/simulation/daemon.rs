//! The daemon as the world sees it: the state machines, and what its loop would do around them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stas::config::settings::{
    Common, ConnectOptions, ConnectorSettings, ControllerEntry, DisconnectScope, Exclusion, FinderSettings,
    Persistence, Secret,
};
use stas::core::announcement::{Announcement, Claims};
use stas::core::links::LinkId;
use stas::core::tid::{DISCOVERY_NQN, Transport};
use stas::core::{Action, Event, Legacy, Machine, Roles, Ticket};

use crate::kernel::INTERFACE;
use crate::oracle::SECRET;
use crate::script::{Configuration, DISCOVERY, Exclude, Fault, PATHS, Set, members};

/// How often what tells nothing is asked again.
const POLLING: Duration = Duration::from_secs(300);

pub const HOST: &str = "nqn.host";

/// More than this, without anything happening meanwhile, is a loop that does not end.
const MAX_ACTIONS: usize = 400;

pub struct Daemon {
    pub machine: Machine,
    pub generation: u32,
    pub connects: BTreeMap<Ticket, LinkId>,
    pub disconnects: BTreeMap<Ticket, String>,
    /// Registrations, inquiries and log pages.
    pub commands: BTreeMap<Ticket, Command>,
    pub stopping: bool,
}

/// An admin command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Register,
    Inquire,
    Read,
}

impl Daemon {
    pub fn new(generation: u32, seed: u64, legacy: Vec<Legacy>) -> Daemon {
        let mut machine = Machine::new(Roles { finder: true, connector: true }, seed);
        machine.inherit(legacy);
        Daemon {
            machine,
            generation,
            connects: BTreeMap::new(),
            disconnects: BTreeMap::new(),
            commands: BTreeMap::new(),
            stopping: false,
        }
    }

    /// All that is to be done now.
    pub fn actions(&mut self, now: Instant) -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        while let Some(action) = self.machine.poll_action(now) {
            let text = format!("{action:?}");
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

/// What the loop hands in for these settings.
pub fn configured(configuration: &Configuration) -> Event {
    let exclusion = match configuration.excluded {
        Exclude::Nothing => None,
        Exclude::Subsystem(nqn) => Some(Exclusion { subsysnqn: nqn.into(), ..Exclusion::default() }),
        Exclude::Address(traddr) => Some(Exclusion { traddr: traddr.into(), ..Exclusion::default() }),
    };
    let common =
        |controllers| Common { controllers, exclusions: exclusion.clone().into_iter().collect(), ..Common::default() };
    let discovery = members(configuration.discovery).map(|which| ControllerEntry {
        host_iface: if which == 0 && configuration.pinned { INTERFACE.into() } else { String::new() },
        ..entry(DISCOVERY[which], "8009", DISCOVERY_NQN)
    });
    let io = members(configuration.io).map(|which| entry(PATHS[which].1, "4420", PATHS[which].0));
    let finder = FinderSettings {
        common: common(discovery.collect()),
        persistent_connections: configuration.persistent_connections,
        zeroconf_persistence: configuration.persistence.map_or(Persistence::Forever, Persistence::For),
        polling_interval: POLLING,
        ..FinderSettings::default()
    };
    let scope =
        if configuration.disconnects { DisconnectScope::OnlyStasConnections } else { DisconnectScope::NoDisconnect };
    let connector =
        ConnectorSettings { common: common(io.collect()), disconnect_scope: scope, ..ConnectorSettings::default() };
    Event::Configured {
        host_nqn: HOST.into(),
        symname: String::new(),
        finder: Some(Box::new(finder)),
        connector: Some(Box::new(connector)),
    }
}

fn entry(traddr: &str, trsvcid: &str, subsysnqn: &str) -> ControllerEntry {
    ControllerEntry {
        transport: Transport::Tcp,
        traddr: traddr.into(),
        trsvcid: trsvcid.into(),
        subsysnqn: subsysnqn.into(),
        host_traddr: String::new(),
        host_iface: String::new(),
        host_nqn: String::new(),
        host_id: String::new(),
        options: ConnectOptions { dhchap_secret: Some(Secret::new(SECRET.into())), ..ConnectOptions::default() },
    }
}

pub fn announced(set: Set) -> Event {
    let announcement = |which: usize| {
        let claims = Claims {
            protocol: Some(b"tcp"),
            subsysnqn: None,
            address: DISCOVERY[which],
            port: 8009,
            interface: INTERFACE,
        };
        Announcement::new(claims).unwrap()
    };
    Event::Announced(members(set).map(announcement).collect())
}

/// A discovery log page that lists these paths.
/// With an entry of the controller itself, by which it says that it supports no lasting connection if `declines`.
pub fn page(paths: Set, declines: bool, fault: Option<Fault>) -> Vec<u8> {
    let entries = members(paths).map(|path| (2, PATHS[path])).chain([(3, ("nqn.itself", DISCOVERY[0]))]);
    let mut bytes = vec![0; 1024];
    bytes[8..16].copy_from_slice(&u64::from(paths.count_ones() + 1).to_le_bytes());
    for (subtype, (nqn, traddr)) in entries {
        let mut record = [0; 1024];
        record[..3].copy_from_slice(&[3, 1, subtype]);
        record[10] = if declines { 0 } else { 2 };
        record[32..36].copy_from_slice(b"4420");
        record[256..][..nqn.len()].copy_from_slice(nqn.as_bytes());
        record[512..][..traddr.len()].copy_from_slice(traddr.as_bytes());
        bytes.extend(record);
    }
    match fault {
        Some(Fault::Garbage) => bytes.fill(0xff),
        Some(Fault::Truncated) => bytes[8..16].copy_from_slice(&50u64.to_le_bytes()),
        Some(Fault::Status | Fault::Hangs) | None => {}
    }
    bytes
}

/// How long after the last deed everything has to be as the policy says: the longest back-off, that of an announced
/// controller, with what it may have to wait for.
pub const QUIET: Duration = Duration::from_secs(1500);
