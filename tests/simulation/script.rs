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

/// A set of discovery controllers or paths, a bit for each.
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

/// What the configuration files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    pub discovery: Set,
    /// The first discovery controller is pinned to an interface.
    pub pinned: bool,
    pub io: Set,
    pub excluded: Exclude,
    pub disconnects: bool,
    pub persistent_connections: bool,
    /// Announced discovery controllers outlive their announcement for so long; for ever if `None`.
    pub persistence: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclude {
    Nothing,
    Subsystem(&'static str),
    Address(&'static str),
}

impl Exclude {
    pub fn covers(self, subsystem: &str, address: &str) -> bool {
        match self {
            Exclude::Nothing => false,
            Exclude::Subsystem(nqn) => nqn == subsystem,
            Exclude::Address(traddr) => traddr == address,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A discovery controller lists other paths from now on; `cut`: what nobody lists any more is cut off and refused.
    Relist {
        discovery: usize,
        paths: Set,
        cut: bool,
    },
    Reach {
        address: &'static str,
        reach: Reach,
    },
    Announce(Set),
    Reload(Configuration),
    /// SIGKILL, and another start some time later.
    Kill {
        down: Duration,
    },
    /// SIGTERM, and another start some time later.
    Stop {
        down: Duration,
    },
    /// From now on the state file cannot be written, until the next start.
    ReadOnly,
    /// The netlink socket overflows.
    LoseUevents {
        time: Duration,
    },
    RepeatUevents,
    HelperDies,
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
        time: Duration,
    },
}

/// A deed and how long after the one before.
pub type Step = (Duration, Deed);

pub fn write(seed: u64) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    let length = 4 + chance.below("length", 28);
    let mut script = vec![
        (Duration::ZERO, Deed::Relist { discovery: 0, paths: set(&mut chance, PATHS.len()), cut: false }),
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

fn deed(chance: &mut Chance) -> Deed {
    let which = chance.below("which", 64) as usize;
    let times = 1 + chance.below("times", 4) as u32;
    let time = Duration::from_millis(chance.below("time", *[50, 5000, 100_000].get(which % 3).unwrap()));
    match chance.below("deed", 32) {
        0..=7 => Deed::Relist {
            discovery: which % DISCOVERY.len(),
            paths: set(chance, PATHS.len()),
            cut: chance.one_in("cut", 3),
        },
        8..=12 => Deed::Reach {
            address: ADDRESSES[which % ADDRESSES.len()],
            reach: *chance
                .pick("reach", &[Reach::Answers, Reach::Answers, Reach::Refuses, Reach::Silent, Reach::Stalls]),
        },
        13..=14 => Deed::Announce(set(chance, DISCOVERY.len())),
        15..=18 => Deed::Reload(configuration(chance)),
        19 => Deed::Kill { down: time },
        20 => Deed::Stop { down: time },
        21 => Deed::ReadOnly,
        22 => Deed::LoseUevents { time },
        23 => Deed::RepeatUevents,
        24 => Deed::HelperDies,
        25 => Deed::ForeignConnect { discovery: which.is_multiple_of(3), which: which / 3 },
        26 => Deed::ForeignDisconnect { nth: which },
        27..=28 => {
            let faults = [Fault::Status, Fault::Hangs, Fault::Garbage, Fault::Truncated];
            Deed::Misread { discovery: which % DISCOVERY.len(), fault: *chance.pick("fault", &faults), times }
        }
        29 => {
            let errnos = [Errno::EIO, Errno::ECONNREFUSED, Errno::ENOKEY, Errno::ENOMEM];
            Deed::FailConnects { errno: *chance.pick("errno", &errnos), times }
        }
        30 => Deed::FailDisconnects { times },
        _ => Deed::FabricsGone { time },
    }
}

fn configuration(chance: &mut Chance) -> Configuration {
    let excludes = [
        Exclude::Nothing,
        Exclude::Nothing,
        Exclude::Nothing,
        Exclude::Subsystem("nqn.s1"),
        Exclude::Address(DISCOVERY[0]),
        Exclude::Address("192.0.2.12"),
    ];
    let spans = [None, None, Some(Duration::ZERO), Some(Duration::from_secs(60))];
    Configuration {
        discovery: set(chance, DISCOVERY.len()),
        pinned: chance.one_in("pinned", 4),
        io: if chance.one_in("io", 3) { set(chance, PATHS.len()) } else { 0 },
        excluded: *chance.pick("exclude", &excludes),
        disconnects: !chance.one_in("scope", 8),
        persistent_connections: !chance.one_in("persistent", 4),
        persistence: *chance.pick("persistence", &spans),
    }
}
