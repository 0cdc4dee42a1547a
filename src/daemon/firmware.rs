//! The firmware's boot tables (NBFT): what they ask for is wanted as if it stood in the configuration, once the network
//! interfaces that they speak of are there.
//!
//! The tables do not change while the system runs; interfaces come, and are given other names. What is bound to one by its name
//! (few are: see `core/nbft/entries.rs`) is wanted by the new one then. `stas boot --network` makes
//! interfaces what they are to be: what is to be done is for [`Interface::next_step`] to say, the helper does it.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use log::Level;

use crate::config::settings::HostIdentity;
use crate::core::host::HostIds;
use crate::core::interface::NetworkInterface;
use crate::core::nbft::{Entries, Interface, Nbft, Obstacle, Reason, Step};
use crate::daemon::boot::Boot;
use crate::daemon::requests::LOOK_AGAIN;
use crate::daemon::settings::Settings;
use crate::helper::message::Failure;
use crate::helper::resolve::RESOLV_CONF;
use crate::kernel::interfaces;
use crate::kernel::nbft::{DIRECTORY, read, read_all};
use crate::wire::nbft::Table;

#[derive(Debug, Default)]
pub struct Firmware {
    nbft: Nbft,
    /// Those that something is to be connected over.
    hfis: Vec<Hfi>,
    /// Nothing is wanted before its interface can be used: `stas boot` has nothing to try before that.
    until_ready: bool,
    /// Of `stas boot --network`.
    set_up: Option<SetUp>,
    /// What was said already.
    told: BTreeSet<String>,
}

#[derive(Debug)]
struct Hfi {
    interface: Interface,
    /// What is to be reached over it.
    targets: BTreeSet<IpAddr>,
    /// Of the interface, if it could be used at some time.
    name: Option<String>,
    /// Why it cannot be used now.
    obstacle: Option<Obstacle>,
    /// A step of its set-up is being taken.
    under_way: bool,
}

/// How interfaces are set up; HFIs have the numbers of their places.
#[derive(Debug, Default)]
struct SetUp {
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
            hfis.iter().for_each(|hfi| name_servers(&hfi.interface));
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
        self.hfis.iter().any(|hfi| hfi.name.is_none())
    }

    /// What is waited for, for each HFI that cannot be used yet.
    pub fn obstacles(&self) -> impl Iterator<Item = (&Interface, &Obstacle)> {
        self.hfis.iter().filter_map(|hfi| Some((&hfi.interface, hfi.obstacle.as_ref()?)))
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
        let mut is_news = false;
        for hfi in &mut self.hfis {
            is_news |= hfi.find(interfaces, self.until_ready);
        }
        let waiting = self.hfis.iter().filter(|hfi| !hfi.under_way);
        let waits =
            |hfi: &Hfi| Some(format!("{} of the boot table waits for {}", hfi.interface, hfi.obstacle.as_ref()?));
        for text in waiting.filter_map(waits).collect::<Vec<_>>() {
            self.tell(Level::Info, text);
        }
        is_news
    }

    /// Finds out what is to be done next for each interface that is to be set up, and that nothing is under way for.
    fn set_up(&mut self, now: Instant, interfaces: &[NetworkInterface]) {
        let Some(SetUp { steps, retry_at }) = &mut self.set_up else {
            return;
        };
        if retry_at.is_some_and(|at| at > now) {
            return;
        }
        *retry_at = None;
        let mut told = Vec::new();
        for (number, hfi) in self.hfis.iter_mut().enumerate().filter(|(_, hfi)| !hfi.under_way) {
            if let Some(step) = hfi.interface.next_step(interfaces, &hfi.targets, number) {
                told.push(format!("{}: {step}", hfi.interface));
                hfi.under_way = true;
                steps.push_back((number, step));
            }
        }
        told.into_iter().for_each(|text| self.tell(Level::Info, text));
    }

    /// A step to be taken now, for the HFI of a number.
    pub fn poll_step(&mut self) -> Option<(usize, Step)> {
        self.set_up.as_mut()?.steps.pop_front()
    }

    /// What became of a step; what is next, [`Firmware::look`] finds out.
    pub fn network_changed(&mut self, now: Instant, number: usize, outcome: Result<(), Failure>) {
        let (Some(set_up), Some(hfi)) = (&mut self.set_up, self.hfis.get_mut(number)) else {
            return;
        };
        hfi.under_way = false;
        if let Err(failure) = outcome {
            set_up.retry_at = now.checked_add(LOOK_AGAIN);
            let text = format!("{}: that failed: {failure}; trying again every second", hfi.interface);
            self.tell(Level::Error, text);
        }
    }

    /// When [`Firmware::look`] wants to be called, if nothing changes before.
    pub fn deadline(&self) -> Option<Instant> {
        self.set_up.as_ref()?.retry_at
    }

    /// What is wanted of what the tables ask for; says what must not be connected.
    pub fn entries(&mut self, settings: &Settings) -> Entries {
        let name_of = |interface: &Interface| self.hfis.iter().find(|hfi| hfi.is(interface))?.name.clone();
        let entries = self.nbft.entries(name_of, settings.configured());
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

impl Hfi {
    fn new(interface: &Interface) -> Hfi {
        Hfi {
            interface: interface.clone(),
            targets: interface.dns.iter().copied().collect(),
            name: None,
            obstacle: None,
            under_way: false,
        }
    }

    /// Whether it is the same, perhaps in another table.
    fn is(&self, other: &Interface) -> bool {
        let key = |one: &Interface| (one.mac, one.vlan, one.address);
        key(&self.interface) == key(other)
    }

    /// Looks for its interface. Whether that has another name than before.
    fn find(&mut self, interfaces: &[NetworkInterface], until_ready: bool) -> bool {
        let found = match until_ready && self.name.is_none() {
            true => self.interface.ready(interfaces),
            // One that was ready may have got another name.
            false => self.interface.find(interfaces).ok_or(Obstacle::NoInterface),
        };
        match found {
            Ok(NetworkInterface { name, .. }) => {
                self.obstacle = None;
                self.name.replace(name.clone()).as_ref() != Some(name)
            }
            Err(obstacle) => {
                self.obstacle = Some(obstacle);
                false
            }
        }
    }
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

fn hfis(nbft: &Nbft) -> Vec<Hfi> {
    let mut hfis: Vec<Hfi> = Vec::new();
    let paths = nbft.paths();
    let paths = paths.iter().map(|path| (path.interface, Some(path.subsystem.traddr)));
    let discovery = nbft.discovery_controllers().map(|(_, hfi, discovery)| (hfi, discovery.traddr.parse().ok()));
    for (interface, target) in paths.chain(discovery) {
        match hfis.iter_mut().find(|hfi| hfi.is(interface)) {
            Some(hfi) => hfi.targets.extend(target),
            None => {
                let mut hfi = Hfi::new(interface);
                hfi.targets.extend(target);
                hfis.push(hfi);
            }
        }
    }
    hfis
}
