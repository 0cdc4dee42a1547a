//! The firmware's boot tables (NBFT): what they ask for is wanted as if it stood in the configuration, once the network
//! interfaces that they speak of are there.
//!
//! The tables do not change while the system runs; interfaces come, and are given other names. `stas boot --network` makes
//! them what they are to be: what is to be done is for [`Interface::next_step`] to say, the helper does it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use log::Level;

use crate::config::settings::HostIdentity;
use crate::core::host::HostIds;
use crate::core::interface::{Mac, NetworkInterface};
use crate::core::nbft::{Entries, Interface, Nbft, Obstacle, Reason, Step};
use crate::daemon::boot::Boot;
use crate::daemon::requests::LOOK_AGAIN;
use crate::daemon::settings::Settings;
use crate::helper::message::Failure;
use crate::kernel::interfaces;
use crate::kernel::nbft::{DIRECTORY, read, read_all};
use crate::wire::nbft::Table;

const RESOLV_CONF: &str = "/etc/resolv.conf";

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
    /// Of `stas boot --network`.
    set_up: Option<SetUp>,
    /// What was said already.
    told: BTreeSet<String>,
}

/// The interfaces that are being set up, by the numbers of their HFIs.
#[derive(Debug, Default)]
struct SetUp {
    under_way: BTreeSet<usize>,
    /// Steps to be taken.
    steps: VecDeque<(usize, Step)>,
    /// When to try again what failed.
    retry_at: Option<Instant>,
}

impl Firmware {
    /// Reads the tables, and says what is wrong with them.
    pub fn read(boot: Option<&Boot>) -> Firmware {
        let tables = match boot.map_or(&[][..], |boot| &boot.tables) {
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
        let set_up = boot.filter(|boot| boot.network).map(|_| SetUp::default());
        let hfis = hfis(&nbft);
        if set_up.is_some() {
            hfis.iter().for_each(name_servers);
        }
        Firmware { hfis, nbft, until_ready: boot.is_some(), set_up, ..Firmware::default() }
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
    pub fn look(&mut self, now: Instant) -> bool {
        if self.hfis.is_empty() {
            return false;
        }
        match interfaces::read() {
            Ok(interfaces) => {
                self.set_up(now, &interfaces);
                self.find(&interfaces)
            }
            Err(refusal) => {
                self.tell(Level::Error, format!("the network interfaces of this host cannot be read: {refusal}"));
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
                Err(obstacle) if self.is_under_way(&hfi) => {
                    self.obstacles.insert(key(&hfi), obstacle);
                }
                Err(obstacle) => {
                    self.tell(Level::Info, format!("{hfi} of the boot table waits for {obstacle}"));
                    self.obstacles.insert(key(&hfi), obstacle);
                }
            }
        }
        self.names != before
    }

    /// Finds out what is to be done next for each interface that is to be set up, and that nothing is under way for.
    fn set_up(&mut self, now: Instant, interfaces: &[NetworkInterface]) {
        let Some(SetUp { under_way, steps, retry_at }) = &mut self.set_up else {
            return;
        };
        if retry_at.is_some_and(|at| at > now) {
            return;
        }
        *retry_at = None;
        for (number, hfi) in self.hfis.iter().enumerate().filter(|(number, _)| !under_way.contains(number)) {
            let step = hfi.next_step(interfaces, &targets(&self.nbft, hfi), number);
            steps.extend(step.map(|step| (number, step)));
        }
        under_way.extend(steps.iter().map(|(number, _)| *number));
        let told = steps.iter().filter_map(|(number, step)| Some(format!("{}: {step}", self.hfis.get(*number)?)));
        for text in told.collect::<Vec<_>>() {
            self.tell(Level::Info, text);
        }
    }

    fn is_under_way(&self, hfi: &Interface) -> bool {
        let number = self.hfis.iter().position(|other| key(other) == key(hfi));
        self.set_up.as_ref().zip(number).is_some_and(|(set_up, number)| set_up.under_way.contains(&number))
    }

    /// A step to be taken now, for the HFI of a number.
    pub fn poll_step(&mut self) -> Option<(usize, Step)> {
        self.set_up.as_mut()?.steps.pop_front()
    }

    /// What became of a step; what is next, [`Firmware::look`] finds out.
    pub fn network_changed(&mut self, now: Instant, number: usize, outcome: Result<(), Failure>) {
        let Some(set_up) = &mut self.set_up else {
            return;
        };
        set_up.under_way.remove(&number);
        if let (Err(failure), Some(hfi)) = (outcome, self.hfis.get(number)) {
            set_up.retry_at = now.checked_add(LOOK_AGAIN);
            let text = format!("{hfi}: that failed: {failure}; trying again every second");
            self.tell(Level::Error, text);
        }
    }

    /// When [`Firmware::look`] wants to be called, if nothing changes before.
    pub fn deadline(&self) -> Option<Instant> {
        self.set_up.as_ref()?.retry_at
    }

    /// What is wanted of what the tables ask for; says what must not be connected.
    pub fn entries(&mut self, settings: &Settings) -> Entries {
        let entries = self.nbft.entries(|hfi| self.names.get(&key(hfi)).cloned(), settings.configured());
        for refused in &entries.refused {
            self.tell(Level::Error, refused.clone());
        }
        entries
    }

    /// Says it, the first time.
    fn tell(&mut self, level: Level, text: String) {
        if !self.told.contains(&text) {
            log::log!(level, "{text}");
            self.told.insert(text);
        }
    }
}

fn key(hfi: &Interface) -> Key {
    (hfi.mac, hfi.vlan, hfi.address)
}

/// Host names of discovery controllers can be resolved only if there is somebody to ask. To be called before the process is
/// confined.
fn name_servers(hfi: &Interface) {
    let lines: String = hfi.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    if !lines.is_empty()
        && !Path::new(RESOLV_CONF).exists()
        && let Err(error) = fs::write(RESOLV_CONF, lines)
    {
        log::warn!("{RESOLV_CONF}: cannot be written: {error}; host names will not be resolved");
    }
}

/// What is to be reached over an HFI.
fn targets(nbft: &Nbft, hfi: &Interface) -> BTreeSet<IpAddr> {
    let paths = nbft.paths();
    let here = |other: &Interface| key(other) == key(hfi);
    let subsystems = paths.iter().filter(|path| here(path.interface)).map(|path| path.subsystem.traddr);
    let discovery = nbft.discovery_controllers().filter(|(_, interface, _)| here(interface));
    let discovery = discovery.filter_map(|(_, _, discovery)| discovery.traddr.parse().ok());
    subsystems.chain(discovery).chain(hfi.dns.iter().copied()).collect()
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
