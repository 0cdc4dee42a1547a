//! What is done to the host in one run: a list of deeds, made from a seed before the run begins.

use std::time::Duration;

use nix::errno::Errno;

use crate::chance::Chance;

/// The discovery controllers of the simulated network. The last reports an NQN of its own (TP8013).
pub const DISCOVERY: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
/// Its I/O controllers: subsystem and address.
pub const PATHS: [(&str, &str); 6] = [
    ("nqn.s0", "192.0.2.11"),
    ("nqn.s0", "192.0.2.12"),
    ("nqn.s1", "192.0.2.11"),
    ("nqn.s1", "192.0.2.12"),
    ("nqn.s2", "192.0.2.11"),
    ("nqn.s2", "192.0.2.12"),
];
/// Every address.
pub const ADDRESSES: [&str; 5] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.11", "192.0.2.12"];

/// By this name the configuration may call the second discovery controller.
pub const NAME: &str = "dc.example.org";

/// A set of discovery controllers, paths or subsystems, a bit for each.
pub type Set = u8;

pub fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..8).filter(move |bit| set & (1 << bit) != 0)
}

/// What answers at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Answers,
    Refuses,
    Silent,
    /// Up to the Initialize Connection Response, and not further.
    Stalls,
}

/// What comes of reading a log page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Status,
    /// For a minute, until the kernel resets the controller.
    Hangs,
    Garbage,
    Truncated,
}

/// What the name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// These discovery controllers.
    Addresses(Set),
    Fails,
}

/// What may be disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Ours,
    /// What others connected as well, if nobody lists it.
    All,
    Nothing,
}

/// What the configuration files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    pub discovery: Set,
    /// The second discovery controller is called by its name.
    pub by_name: bool,
    /// The first discovery controller is pinned to an interface.
    pub pinned: bool,
    pub io: Set,
    pub excluded: Exclude,
    pub scope: Scope,
    pub persistent_connections: bool,
    /// Announced discovery controllers outlive their announcement for so long; for ever if `None`.
    pub persistence: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclude {
    Nothing,
    Everything,
    Subsystem(&'static str),
    Address(&'static str),
}

impl Exclude {
    pub fn covers(self, subsystem: &str, address: &str) -> bool {
        match self {
            Exclude::Nothing => false,
            Exclude::Everything => true,
            Exclude::Subsystem(nqn) => nqn == subsystem,
            Exclude::Address(traddr) => traddr == address,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A discovery controller lists other paths and refers to others from now on; `cut`: what nobody lists any more is cut
    /// off and refused.
    Relist {
        discovery: usize,
        paths: Set,
        refers: Set,
        cut: bool,
    },
    Reach {
        address: &'static str,
        reach: Reach,
    },
    Announce(Set),
    Reload(Configuration),
    /// What no program of the host is to connect.
    HostExclude(Exclude),
    /// SIGKILL, and another start some time later. Processes are counted round.
    Kill {
        process: usize,
        down: Duration,
    },
    /// SIGTERM, and another start some time later.
    Stop {
        process: usize,
        down: Duration,
    },
    /// From now on the state file cannot be written, until the next start.
    ReadOnly {
        process: usize,
    },
    /// The netlink socket overflows.
    LoseUevents {
        process: usize,
        time: Duration,
    },
    RepeatUevents,
    HelperDies {
        process: usize,
    },
    BusGone {
        time: Duration,
    },
    /// The interface, and with it all that is behind it.
    Link {
        up: bool,
    },
    /// Interfaces and addresses that lead nowhere come and go.
    LinksComeAndGo {
        times: u32,
    },
    Rename(Lookup),
    /// Which subsystems' disks are mounted.
    Mount(Set),
    ForeignConnect {
        discovery: bool,
        which: usize,
    },
    ForeignDisconnect {
        nth: usize,
    },
    Misread {
        discovery: usize,
        fault: Fault,
        times: u32,
    },
    FailConnects {
        errno: Errno,
        times: u32,
    },
    FailDisconnects {
        times: u32,
    },
    FabricsGone {
        process: usize,
        time: Duration,
    },
}

/// A deed and how long after the one before.
pub type Step = (Duration, Deed);

pub fn write(seed: u64) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    let length = 4 + chance.below("length", 28);
    let mut script = vec![
        (Duration::ZERO, relist(&mut chance, 0, false)),
        (Duration::ZERO, Deed::Reload(configuration(&mut chance))),
    ];
    for _ in 0..length {
        let gap = gap(&mut chance);
        script.push((gap, deed(&mut chance)));
    }
    script
}

fn gap(chance: &mut Chance) -> Duration {
    let most = *chance.pick("gap", &[10, 100, 100, 1000, 1000, 5000, 20_000, 120_000, 900_000, 5_000_000]);
    Duration::from_millis(chance.below("gap", most))
}

fn set(chance: &mut Chance, size: usize) -> Set {
    (0..size).filter(|_| chance.one_in("member", 2)).fold(0, |set, bit| set | 1 << bit)
}

fn relist(chance: &mut Chance, discovery: usize, cut: bool) -> Deed {
    let refers = if chance.one_in("refers", 3) { set(chance, DISCOVERY.len()) } else { 0 };
    Deed::Relist { discovery, paths: set(chance, PATHS.len()), refers, cut }
}

fn deed(chance: &mut Chance) -> Deed {
    let which = chance.below("which", 64) as usize;
    let times = 1 + chance.below("times", 4) as u32;
    let time = Duration::from_millis(chance.below("time", *[50, 5000, 100_000].get(which % 3).unwrap()));
    let process = which;
    match chance.below("deed", 44) {
        0..=8 => {
            let cut = chance.one_in("cut", 3);
            relist(chance, which % DISCOVERY.len(), cut)
        }
        9..=13 => Deed::Reach {
            address: ADDRESSES[which % ADDRESSES.len()],
            reach: *chance
                .pick("reach", &[Reach::Answers, Reach::Answers, Reach::Refuses, Reach::Silent, Reach::Stalls]),
        },
        14..=15 => Deed::Announce(set(chance, DISCOVERY.len())),
        16..=19 => Deed::Reload(configuration(chance)),
        20..=21 => Deed::Kill { process, down: time },
        22 => Deed::Stop { process, down: time },
        23 => Deed::ReadOnly { process },
        24 => Deed::LoseUevents { process, time },
        25 => Deed::RepeatUevents,
        26 => Deed::HelperDies { process },
        27 => Deed::ForeignConnect { discovery: which.is_multiple_of(3), which: which / 3 },
        28 => Deed::ForeignDisconnect { nth: which },
        29..=30 => {
            let faults = [Fault::Status, Fault::Hangs, Fault::Garbage, Fault::Truncated];
            Deed::Misread { discovery: which % DISCOVERY.len(), fault: *chance.pick("fault", &faults), times }
        }
        31 => {
            let errnos = [Errno::EIO, Errno::ECONNREFUSED, Errno::ENOKEY, Errno::ENOMEM];
            Deed::FailConnects { errno: *chance.pick("errno", &errnos), times }
        }
        32 => Deed::FailDisconnects { times },
        33 => Deed::FabricsGone { process, time },
        34 => Deed::HostExclude(exclude(chance)),
        35..=36 => Deed::BusGone { time },
        37..=38 => Deed::Link { up: chance.one_in("up", 2) },
        39 => Deed::LinksComeAndGo { times: 20 * times },
        40..=41 => Deed::Rename(lookup(chance)),
        _ => Deed::Mount(set(chance, PATHS.len() / 2)),
    }
}

fn lookup(chance: &mut Chance) -> Lookup {
    let lookups = [Lookup::Addresses(0b010), Lookup::Addresses(0b100), Lookup::Addresses(0b110), Lookup::Fails];
    *chance.pick("lookup", &lookups)
}

fn exclude(chance: &mut Chance) -> Exclude {
    let excludes = [
        Exclude::Nothing,
        Exclude::Nothing,
        Exclude::Nothing,
        Exclude::Subsystem("nqn.s1"),
        Exclude::Address(DISCOVERY[0]),
        Exclude::Address("192.0.2.12"),
    ];
    *chance.pick("exclude", &excludes)
}

fn configuration(chance: &mut Chance) -> Configuration {
    let spans = [None, None, Some(Duration::ZERO), Some(Duration::from_secs(60))];
    Configuration {
        discovery: set(chance, DISCOVERY.len()),
        by_name: chance.one_in("by name", 4),
        pinned: chance.one_in("pinned", 4),
        io: if chance.one_in("io", 3) { set(chance, PATHS.len()) } else { 0 },
        excluded: exclude(chance),
        scope: *chance.pick("scope", &[Scope::Ours, Scope::Ours, Scope::Ours, Scope::Ours, Scope::All, Scope::Nothing]),
        persistent_connections: !chance.one_in("persistent", 4),
        persistence: *chance.pick("persistence", &spans),
    }
}

impl Configuration {
    /// Nothing is wanted, or even accepted.
    pub fn nothing() -> Configuration {
        Configuration {
            discovery: 0,
            by_name: false,
            pinned: false,
            io: 0,
            excluded: Exclude::Everything,
            scope: Scope::Ours,
            persistent_connections: true,
            persistence: Some(Duration::ZERO),
        }
    }
}
