//! The world: a queue of what is going to happen, and our processes in the middle of it. `deeds` is what is done to it,
//! `performing` what the processes ask for, `at_work` what the kernel does, `bus` what is between a finder and a connector in
//! two processes, `checks` what must hold.

mod at_work;
mod bus;
mod checks;
mod deeds;
mod performing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use stas::core::device::{ControllerKind, Device};
use stas::core::links::LinkId;
use stas::core::page::Contents;
use stas::core::portal::PortalId;
use stas::core::{Action, Event, Ticket};
use stas::helper::message::{Capabilities, Failure};

use crate::chance::Chance;
use crate::daemon::{Command, Daemon, Disk, Process};
use crate::kernel::{Connect, Controller, INTERFACE, Kernel, State, Uevent, number_of};
use crate::oracle::{Oracle, Said, discovery_at};
use crate::script::{
    ADDRESSES, Configuration, DISCOVERY, Deed, Exclude, Fault, Lookup, PATHS, Reach, Scope, Set, Step, members,
};
use crate::words;
use bus::{Bus, Message};

/// After so long without a connection the kernel gives a controller up.
const CTRL_LOSS_TMO: Duration = Duration::from_secs(600);
/// A controller that was lost is asked again within this time.
const RECONNECT_DELAY: Duration = Duration::from_secs(10);
/// Until the kernel gives up a command.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);
/// What goes round in circles happens more often than this and three times a second.
const MAX_BURST: u64 = 5_000;
/// How long after the last deed everything has to be as the policy says: the longest back-off, that of an announced
/// controller, with what it may have to wait for.
const QUIET: Duration = Duration::from_secs(1500);
/// At the end of that time, and what may still happen then: controllers are polled.
const REST: Duration = Duration::from_secs(200);
const MAX_AT_REST: u64 = 200;
/// When the world begins: late enough for things to have happened before.
const BEGINNING: Duration = Duration::from_secs(1_000_000);

/// Something that is going to happen. A life of a process is known by its generation.
#[derive(Debug)]
enum Happening {
    Deed(Deed),
    Start {
        process: usize,
    },
    /// SIGHUP.
    Reload {
        process: usize,
    },
    /// The host's list of exclusions was written.
    HostExcludes {
        process: usize,
    },
    /// The uevent socket is readable.
    Readable {
        process: usize,
    },
    /// The overflow is noticed.
    Overflow {
        process: usize,
    },
    Probed {
        generation: u32,
        portal: PortalId,
        outcome: Result<(), String>,
    },
    Submit(Connect),
    Connected,
    Disconnect {
        generation: u32,
        ticket: Ticket,
        device: Box<Device>,
    },
    Disconnected {
        generation: u32,
        ticket: Ticket,
        serial: u64,
    },
    Command {
        generation: u32,
        ticket: Ticket,
        command: Command,
        device: Option<Box<Device>>,
    },
    Resolve {
        generation: u32,
        ticket: Ticket,
    },
    /// The helper answers.
    Reply {
        generation: u32,
        reply: Reply,
    },
    /// A message arrives, unless the bus has been away since it was sent.
    Message {
        epoch: u32,
        message: Message,
    },
    BusBack,
    GiveUp {
        serial: u64,
        lost_at: Duration,
    },
    Recover {
        serial: u64,
    },
    FabricsBack {
        generation: u32,
    },
    Heal,
}

#[derive(Debug)]
enum Reply {
    Connected(Ticket, Result<u32, Failure>),
    Disconnected(Ticket, Result<(), Failure>),
    Registered(Ticket, Result<bool, Failure>),
    Inquired(Ticket, Result<Capabilities, Failure>),
    Page(Ticket, Result<(usize, Listing, Option<Fault>), String>),
    Resolved(Ticket, Result<Vec<String>, String>),
}

/// What a discovery controller lists, and to whom it refers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Listing {
    paths: Set,
    refers: Set,
}

/// What a discovery controller is like.
#[derive(Debug, Clone, Copy)]
struct Nature {
    registers: bool,
    /// It tells when its page changes.
    notices: bool,
    /// It says that it supports no lasting connection.
    declines: bool,
}

impl Nature {
    fn of(chance: &mut Chance) -> Nature {
        Nature {
            registers: chance.one_in("registers", 2),
            notices: !chance.one_in("notices", 4),
            declines: chance.one_in("declines", 2),
        }
    }

    /// It is read, left and read again some time later.
    fn is_polled(self) -> bool {
        self.declines && !self.notices
    }
}

pub struct World {
    epoch: Instant,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    last_happening: u64,
    chance: Chance,
    kernel: Kernel,
    /// One with both roles; or a finder and a connector, and a bus between them.
    processes: Vec<Process>,
    bus: Option<Bus>,
    last_generation: u32,
    last_era: u32,
    /// What the files say.
    configuration: Configuration,
    host_excluded: Exclude,
    announced: Set,
    lookup: Lookup,
    reach: BTreeMap<&'static str, Reach>,
    lost_at: BTreeMap<u64, Duration>,
    /// The serials of controllers that the helper was asked to disconnect.
    doomed: BTreeSet<u64>,
    listed: [Listing; DISCOVERY.len()],
    nature: [Nature; DISCOVERY.len()],
    refused: Set,
    /// Subsystems whose disks are mounted.
    mounted: Set,
    misread: BTreeMap<usize, (Fault, u32)>,
    failing_connects: Option<(Errno, u32)>,
    failing_disconnects: u32,
    /// What the process knows that connects I/O controllers.
    oracle: Oracle,
    /// Something happened after which a connection that is not wanted any more may rightly stay.
    leniency: bool,
    trace: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, tracing: bool) -> World {
        let mut chance = Chance::new(seed);
        let nature = [(); DISCOVERY.len()].map(|()| Nature::of(&mut chance));
        let apart = chance.one_in("apart", 3);
        let together = || vec![Process::new(true, true)];
        World {
            epoch: Instant::now(),
            now: BEGINNING,
            queue: BTreeMap::new(),
            last_happening: 0,
            chance,
            kernel: Kernel::default(),
            processes: if apart { vec![Process::new(true, false), Process::new(false, true)] } else { together() },
            bus: apart.then(Bus::default),
            last_generation: 0,
            last_era: 0,
            configuration: Configuration::nothing(),
            host_excluded: Exclude::Nothing,
            announced: 0,
            lookup: Lookup::Addresses(0b010),
            reach: BTreeMap::new(),
            lost_at: BTreeMap::new(),
            doomed: BTreeSet::new(),
            listed: Default::default(),
            nature,
            refused: 0,
            mounted: 0,
            misread: BTreeMap::new(),
            failing_connects: None,
            failing_disconnects: 0,
            oracle: Oracle::default(),
            leniency: false,
            trace: tracing.then(Vec::new),
        }
    }

    /// Lives through a script. `Err` says what went wrong, and when.
    pub fn live(&mut self, script: &[Step]) -> Result<(), String> {
        let outcome = self.live_through(script);
        outcome.map_err(|why| format!("{why} (at {:?} after the start)", self.now - BEGINNING))
    }

    fn live_through(&mut self, script: &[Step]) -> Result<(), String> {
        let mut at = self.now;
        for process in 0..self.processes.len() {
            self.happen_at(at, Happening::Start { process });
        }
        for (gap, deed) in script {
            at += *gap;
            self.happen_at(at, Happening::Deed(deed.clone()));
        }
        self.happen_at(at + Duration::from_millis(1), Happening::Heal);
        self.run_until(at + QUIET - REST)?;
        let happened = self.run_until(at + QUIET)?;
        if happened > MAX_AT_REST {
            return Err(format!("{happened} things happened in {REST:?} at rest"));
        }
        self.check_policy()?;
        self.check_published()?;
        self.wind_up()
    }

    /// Nothing is wanted any more, and nothing may be left.
    fn wind_up(&mut self) -> Result<(), String> {
        self.happen_in(Duration::ZERO, Happening::Deed(Deed::Announce(0)));
        self.happen_in(Duration::ZERO, Happening::Deed(Deed::HostExclude(Exclude::Nothing)));
        self.happen_in(Duration::ZERO, Happening::Deed(Deed::Reload(Configuration::nothing())));
        self.run_until(self.now + QUIET)?;
        self.check_nothing_left()
    }

    pub fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// How much happened.
    fn run_until(&mut self, end: Duration) -> Result<u64, String> {
        let (begin, mut happenings) = (self.now, 0);
        loop {
            happenings += 1;
            if happenings > MAX_BURST + 3 * (self.now - begin).as_secs() {
                return Err("it never comes to rest".into());
            }
            let next = self.queue.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            let deadlines =
                self.processes.iter().filter_map(|process| process.daemon.as_ref()?.machine.poll_deadline());
            let deadline = deadlines.min().map(|at| at.saturating_duration_since(self.epoch)).filter(|at| *at <= end);
            match (next, deadline) {
                (_, Some(at)) if next.is_none_or(|next| at < next) => {
                    self.now = self.now.max(at);
                    self.pass_deadlines()?;
                }
                (Some(_), _) => {
                    let Some(((at, _), happening)) = self.queue.pop_first() else { continue };
                    self.now = self.now.max(at);
                    if !matches!(happening, Happening::Readable { .. }) {
                        self.tell(|| format!("{happening:?}"));
                    }
                    self.meet(happening)?;
                }
                _ => {
                    self.now = end;
                    return Ok(happenings);
                }
            }
        }
    }

    fn pass_deadlines(&mut self) -> Result<(), String> {
        let now = self.instant();
        for daemon in self.processes.iter_mut().filter_map(|process| process.daemon.as_mut()) {
            if daemon.machine.poll_deadline().is_none_or(|at| at > now) {
                continue;
            }
            daemon.machine.handle_deadline(now);
            if daemon.machine.poll_deadline().is_some_and(|next| next <= now) {
                return Err("a deadline that comes back at once".into());
            }
        }
        self.act()
    }

    fn meet(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Deed(deed) => self.do_deed(deed)?,
            Happening::Start { process } => self.start_daemon(process)?,
            Happening::Reload { process } => self.reload_daemon(process),
            Happening::HostExcludes { process } => self.hear_exclusions(process),
            Happening::Readable { process } => self.drain_uevents(process),
            Happening::Overflow { process } => self.read_again(process),
            Happening::Probed { generation, portal, outcome } => {
                self.hand_in(generation, Event::Probed { portal, outcome })
            }
            Happening::Submit(connect) => {
                self.kernel.connects.push_back(connect);
                self.begin_connect()?;
            }
            Happening::Connected => self.end_connect()?,
            Happening::Disconnect { generation, ticket, device } => self.begin_disconnect(generation, ticket, &device),
            Happening::Disconnected { generation, ticket, serial } => self.end_disconnect(generation, ticket, serial),
            Happening::Command { generation, ticket, command, device } => {
                self.carry_out(generation, ticket, command, device.as_deref());
            }
            Happening::Resolve { generation, ticket } => self.look_up(generation, ticket),
            Happening::Reply { generation, reply } => self.hand_in_reply(generation, reply),
            Happening::Message { epoch, message } => self.message_arrives(epoch, message),
            Happening::BusBack => self.bus_is_back(),
            Happening::GiveUp { serial, lost_at } => self.give_up(serial, lost_at),
            Happening::Recover { serial } => self.recover(serial),
            Happening::FabricsBack { generation } => self.hand_in(generation, Event::FabricsReady(true)),
            Happening::Heal => self.heal()?,
        }
        self.act()
    }

    // ---- small things ----------------------------------------------------------------------------------------------

    /// Which process has this life.
    fn process_of(&self, generation: u32) -> Option<usize> {
        let is_it = |process: &Process| process.daemon.as_ref().is_some_and(|daemon| daemon.generation == generation);
        self.processes.iter().position(is_it)
    }

    /// The lives that there are.
    fn generations(&self) -> Vec<u32> {
        self.processes.iter().filter_map(|process| process.daemon.as_ref()).map(|daemon| daemon.generation).collect()
    }

    fn daemon_of(&mut self, generation: u32) -> Option<&mut Daemon> {
        let process = self.process_of(generation)?;
        self.processes[process].daemon.as_mut()
    }

    fn hand_in(&mut self, generation: u32, event: Event) {
        let now = self.instant();
        if let Some(daemon) = self.daemon_of(generation) {
            daemon.machine.handle(now, event);
        }
    }

    fn hand_in_all(&mut self, event: impl Fn() -> Event) {
        for generation in self.generations() {
            self.hand_in(generation, event());
        }
    }

    fn reach_of(&self, id: &LinkId) -> Reach {
        self.reach.get(id.tid.traddr()).copied().unwrap_or(Reach::Answers)
    }

    fn endpoint(&self, discovery: bool, which: usize) -> LinkId {
        use stas::core::tid::{DISCOVERY_NQN, Spelling, Transport, TransportId};
        let (kind, traddr, trsvcid, subsysnqn) = match discovery {
            true => (ControllerKind::Discovery, DISCOVERY[which % DISCOVERY.len()], "8009", DISCOVERY_NQN),
            false => (ControllerKind::Io, PATHS[which % PATHS.len()].1, "4420", PATHS[which % PATHS.len()].0),
        };
        let spelling = Spelling { traddr, trsvcid, subsysnqn, host_nqn: words::HOST, ..Spelling::default() };
        LinkId { kind, tid: std::rc::Rc::new(TransportId::new(Transport::Tcp, spelling)) }
    }

    fn happen_in(&mut self, time: Duration, happening: Happening) {
        self.happen_at(self.now + time, happening);
    }

    fn happen_at(&mut self, at: Duration, happening: Happening) {
        self.last_happening += 1;
        self.queue.insert((at, self.last_happening), happening);
    }

    fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let at = self.now - BEGINNING;
            trace.push(format!("{:>10.3} {}", at.as_secs_f64(), what()));
        }
    }
}

fn path_of(id: &LinkId) -> Option<usize> {
    (id.kind == ControllerKind::Io).then(|| path_at(id.tid.subsysnqn(), id.tid.traddr())).flatten()
}

fn path_at(subsysnqn: &str, traddr: &str) -> Option<usize> {
    PATHS.iter().position(|path| *path == (subsysnqn, traddr))
}
