//! The firmware's boot tables (NBFT): what they ask for is wanted as if it stood in the configuration, once the network
//! interfaces that they speak of are there.
//!
//! The tables do not change while the system runs; interfaces come, and are given other names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config::settings::HostIdentity;
use crate::core::host::HostIds;
use crate::core::interface::{Mac, NetworkInterface};
use crate::core::nbft::{Entries, Interface, Nbft, Obstacle, Reason};
use crate::daemon::settings::Settings;
use crate::kernel::interfaces;
use crate::kernel::nbft::{DIRECTORY, read, read_all};
use crate::wire::nbft::Table;

/// What makes two HFIs of different tables the same.
type Key = (Mac, Option<u16>, Option<IpAddr>);

#[derive(Debug, Default)]
pub struct Firmware {
    nbft: Nbft,
    /// Those that something is to be connected over.
    hfis: Vec<Interface>,
    /// Nothing is wanted before its interface can be used: `stas boot` has nothing to try before that.
    until_ready: bool,
    /// The names of the interfaces, of those that could be used at some time.
    names: BTreeMap<Key, String>,
    obstacles: BTreeMap<Key, Obstacle>,
    /// What was said already.
    told: BTreeSet<String>,
}

impl Firmware {
    /// From these copies of tables, or else this machine's tables; says what is wrong with them.
    pub fn read(files: &[PathBuf], until_ready: bool) -> Firmware {
        let tables = match files {
            [] => read_all(Path::new(DIRECTORY)).unwrap_or_else(|error| {
                log::error!("{DIRECTORY}: cannot be read: {error}; what the firmware asks for is not known");
                Vec::new()
            }),
            files => files.iter().map(|file| (file.display().to_string(), read(file))).collect(),
        };
        let mut nbft = Nbft::default();
        for (name, bytes) in tables {
            match bytes.map_err(|error| error.to_string()) {
                Ok(bytes) => match Table::new(&bytes) {
                    Ok(table) => nbft.add(&name, &table),
                    Err(damage) => log::error!("{name}: the boot table is damaged, ignored: {damage}"),
                },
                Err(why) => log::error!("{name}: the boot table cannot be read: {why}"),
            }
        }
        for table in &nbft.tables {
            for rejected in table.rejected.iter().filter(|rejected| rejected.why != Reason::DiscoveryNqn) {
                log::warn!("{}: {} is not used: {}", table.name, rejected.what, rejected.why);
            }
        }
        Firmware { hfis: hfis(&nbft), nbft, until_ready, ..Firmware::default() }
    }

    /// Whether the tables ask for anything.
    pub fn asks(&self) -> bool {
        !self.hfis.is_empty()
    }

    /// The NQNs of the subsystems to boot from.
    pub fn subsystems(&self) -> BTreeSet<String> {
        let bootable = self.nbft.tables.iter().flat_map(|table| &table.subsystems).filter(|one| !one.non_bootable);
        bootable.map(|one| one.subsysnqn.clone()).collect()
    }

    /// Who this host was to the storage when it was booted.
    pub fn host(&self) -> Option<HostIdentity> {
        let host = self.nbft.host()?;
        let id = host.id.clone().unwrap_or_else(|| HostIds::default().id_of(&host.nqn));
        Some(HostIdentity { nqn: host.nqn.clone(), id, key: None, symname: None })
    }

    /// Whether something is not wanted yet because of its interface.
    pub fn is_waiting(&self) -> bool {
        self.hfis.iter().any(|hfi| !self.names.contains_key(&key(hfi)))
    }

    /// What is waited for, for each HFI that cannot be used yet.
    pub fn obstacles(&self) -> impl Iterator<Item = (&Interface, &Obstacle)> {
        self.hfis.iter().filter_map(|hfi| Some((hfi, self.obstacles.get(&key(hfi))?)))
    }

    /// Looks for the interfaces. Whether [`Firmware::entries`] has others than before.
    pub fn look(&mut self) -> bool {
        if self.hfis.is_empty() {
            return false;
        }
        match interfaces::read() {
            Ok(interfaces) => self.find(&interfaces),
            Err(refusal) => {
                self.tell(format!("the network interfaces of this host cannot be read: {refusal}"));
                false
            }
        }
    }

    fn find(&mut self, interfaces: &[NetworkInterface]) -> bool {
        let before = self.names.clone();
        for hfi in self.hfis.clone() {
            let ready = match self.until_ready && !self.names.contains_key(&key(&hfi)) {
                true => hfi.ready(interfaces),
                // One that was ready may have got another name.
                false => hfi.find(interfaces).ok_or(Obstacle::NoInterface),
            };
            match ready {
                Ok(interface) => {
                    self.obstacles.remove(&key(&hfi));
                    self.names.insert(key(&hfi), interface.name.clone());
                }
                Err(obstacle) => {
                    self.tell(format!("{hfi} of the boot table waits for {obstacle}"));
                    self.obstacles.insert(key(&hfi), obstacle);
                }
            }
        }
        self.names != before
    }

    /// What is wanted of what the tables ask for; says what must not be connected.
    pub fn entries(&mut self, settings: &Settings) -> Entries {
        let entries = self.nbft.entries(|hfi| self.names.get(&key(hfi)).cloned(), settings.configured());
        for refused in &entries.refused {
            self.tell(refused.clone());
        }
        entries
    }

    fn tell(&mut self, text: String) {
        if !self.told.contains(&text) {
            log::warn!("{text}");
            self.told.insert(text);
        }
    }
}

fn key(hfi: &Interface) -> Key {
    (hfi.mac, hfi.vlan, hfi.address)
}

fn hfis(nbft: &Nbft) -> Vec<Interface> {
    let mut hfis: Vec<Interface> = Vec::new();
    let paths = nbft.paths();
    let used = paths.iter().map(|path| path.interface).chain(nbft.discovery_controllers().map(|(_, hfi, _)| hfi));
    for hfi in used {
        if !hfis.iter().any(|earlier| key(earlier) == key(hfi)) {
            hfis.push(hfi.clone());
        }
    }
    hfis
}
