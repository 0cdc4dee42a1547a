//! What a daemon is told, in its own words: settings, announcements, exclusions, log pages.

use std::time::Duration;

use stas::config::settings::{
    Common, ConnectOptions, ConnectorSettings, ControllerEntry, DisconnectScope, Exclusion, FinderSettings,
    Persistence, Secret,
};
use stas::core::Event;
use stas::core::announcement::{Announcement, Claims};
use stas::core::exclusion::HostExclusion;
use stas::core::tid::{DISCOVERY_NQN, Transport};

use crate::kernel::{INTERFACE, reported_nqn};
use crate::oracle::SECRET;
use crate::script::{Configuration, DISCOVERY, Exclude, Fault, NAME, PATHS, Scope, Set, members};

/// How often what tells nothing is asked again.
const POLLING: Duration = Duration::from_secs(300);

pub const HOST: &str = "nqn.host";

/// What the loop hands in for these settings.
pub fn configured(configuration: &Configuration) -> Event {
    let exclusions: Vec<Exclusion> = keys(configuration.excluded).into_iter().collect();
    let common = |controllers| Common { controllers, exclusions: exclusions.clone(), ..Common::default() };
    let discovery = members(configuration.discovery).map(|which| {
        let traddr = if which == 1 && configuration.by_name { NAME } else { DISCOVERY[which] };
        let host_iface = if which == 0 && configuration.pinned { INTERFACE.into() } else { String::new() };
        ControllerEntry { host_iface, ..entry(traddr, "8009", DISCOVERY_NQN) }
    });
    let io = members(configuration.io).map(|which| entry(PATHS[which].1, "4420", PATHS[which].0));
    let finder = FinderSettings {
        common: common(discovery.collect()),
        persistent_connections: configuration.persistent_connections,
        zeroconf_persistence: configuration.persistence.map_or(Persistence::Forever, Persistence::For),
        polling_interval: POLLING,
        ..FinderSettings::default()
    };
    let scope = match configuration.scope {
        Scope::Ours => DisconnectScope::OnlyStasConnections,
        Scope::All => DisconnectScope::AllConnectionsMatchingDisconnectTrtypes,
        Scope::Nothing => DisconnectScope::NoDisconnect,
    };
    let connector =
        ConnectorSettings { common: common(io.collect()), disconnect_scope: scope, ..ConnectorSettings::default() };
    Event::Configured {
        host_nqn: HOST.into(),
        symname: String::new(),
        finder: Some(Box::new(finder)),
        connector: Some(Box::new(connector)),
    }
}

fn keys(exclude: Exclude) -> Option<Exclusion> {
    match exclude {
        Exclude::Nothing => None,
        Exclude::Everything => Some(Exclusion { transport: Some(Transport::Tcp), ..Exclusion::default() }),
        Exclude::Subsystem(nqn) => Some(Exclusion { subsysnqn: nqn.into(), ..Exclusion::default() }),
        Exclude::Address(traddr) => Some(Exclusion { traddr: traddr.into(), ..Exclusion::default() }),
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

/// The host's list of exclusions.
pub fn host_excludes(exclude: Exclude) -> Event {
    let exclusion = |keys| HostExclusion { keys, ..HostExclusion::default() };
    Event::HostExcludes(keys(exclude).map(exclusion).into_iter().collect())
}

/// A discovery log page with these paths and referrals, and with an entry of the controller itself, by which it says that it
/// supports no lasting connection if `declines`. Every other one calls those that it refers to by their own names.
pub fn page(which: usize, paths: Set, refers: Set, declines: bool, fault: Option<Fault>) -> Vec<u8> {
    let name_of = |to: usize| if which == 0 { reported_nqn(DISCOVERY[to]) } else { DISCOVERY_NQN };
    let paths = members(paths).map(|path| (2, b"4420", PATHS[path]));
    let referrals = members(refers).map(|to| (1, b"8009", (name_of(to), DISCOVERY[to])));
    let entries: Vec<_> = paths.chain(referrals).chain([(3, b"8009", ("nqn.itself", DISCOVERY[which]))]).collect();
    let mut bytes = vec![0; 1024];
    bytes[8..16].copy_from_slice(&(entries.len() as u64).to_le_bytes());
    for (subtype, trsvcid, (nqn, traddr)) in entries {
        let mut record = [0; 1024];
        record[..3].copy_from_slice(&[3, 1, subtype]);
        record[10] = if declines { 0 } else { 2 };
        record[32..36].copy_from_slice(trsvcid);
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
