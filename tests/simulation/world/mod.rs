//! The world: a queue of what is going to happen, and the daemon in the middle of it. `deeds` is what is done to it, `at_work`
//! what the kernel does, `checks` what must hold.

mod at_work;
mod checks;
mod deeds;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use stas::core::device::{ControllerKind, Device};
use stas::core::links::LinkId;
use stas::core::page::Contents;
use stas::core::portal::PortalId;
use stas::core::{Action, Event, Legacy, Ticket};
use stas::helper::message::{Capabilities, Failure};

use crate::chance::Chance;
use crate::daemon::{self, Command, Daemon};
use crate::kernel::{Connect, Controller, Kernel, State, Uevent, number_of};
use crate::oracle::Oracle;
use crate::script::{Configuration, DISCOVERY, Deed, Exclude, Fault, PATHS, Reach, Set, Step, members};

/// After so long without a connection the kernel gives a controller up.
const CTRL_LOSS_TMO: Duration = Duration::from_secs(600);
/// A controller that was lost is asked again within this time.
const RECONNECT_DELAY: Duration = Duration::from_secs(10);
/// Until the kernel gives up a command.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);
/// What goes round in circles happens more often than this and three times a second.
const MAX_BURST: u64 = 5_000;
/// When the world begins: late enough for things to have happened before.
const BEGINNING: Duration = Duration::from_secs(1_000_000);

/// Something that is going to happen.
#[derive(Debug)]
enum Happening {
    Deed(Deed),
    Start,
    /// The uevent socket is readable.
    Readable,
    /// The overflow is noticed.
    Overflow,
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
    /// The helper answers.
    Reply {
        generation: u32,
        reply: Reply,
    },
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
    Page(Ticket, Result<(usize, Set, Option<Fault>), String>),
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

/// What survives the daemon.
#[derive(Clone, Default)]
struct Disk {
    legacy: Vec<Legacy>,
    oracle: Oracle,
}

pub struct World {
    epoch: Instant,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    last_happening: u64,
    chance: Chance,
    kernel: Kernel,
    daemon: Option<Daemon>,
    generation: u32,
    /// Counts the helpers: what was asked of one that died may be carried out all the same.
    era: u32,
    disk: Disk,
    read_only: bool,
    configuration: Configuration,
    announced: Set,
    reach: BTreeMap<&'static str, Reach>,
    lost_at: BTreeMap<u64, Duration>,
    /// The serials of controllers that the helper was asked to disconnect.
    doomed: BTreeSet<u64>,
    listed: [Set; DISCOVERY.len()],
    nature: [Nature; DISCOVERY.len()],
    refused: Set,
    misread: BTreeMap<usize, (Fault, u32)>,
    failing_connects: Option<(Errno, u32)>,
    failing_disconnects: u32,
    deaf: bool,
    /// Just now.
    reloaded: bool,
    oracle: Oracle,
    /// Something happened after which a connection that is not wanted any more may rightly stay.
    leniency: bool,
    trace: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, tracing: bool) -> World {
        let mut chance = Chance::new(seed);
        let nature = [(); DISCOVERY.len()].map(|()| Nature::of(&mut chance));
        World {
            epoch: Instant::now(),
            now: BEGINNING,
            queue: BTreeMap::new(),
            last_happening: 0,
            chance,
            kernel: Kernel::default(),
            daemon: None,
            generation: 0,
            era: 0,
            disk: Disk::default(),
            read_only: false,
            configuration: Configuration {
                discovery: 0,
                pinned: false,
                io: 0,
                excluded: Exclude::Nothing,
                disconnects: true,
                persistent_connections: true,
                persistence: None,
            },
            announced: 0,
            reach: BTreeMap::new(),
            lost_at: BTreeMap::new(),
            doomed: BTreeSet::new(),
            listed: [0; DISCOVERY.len()],
            nature,
            refused: 0,
            misread: BTreeMap::new(),
            failing_connects: None,
            failing_disconnects: 0,
            deaf: false,
            reloaded: false,
            oracle: Oracle::default(),
            leniency: false,
            trace: tracing.then(Vec::new),
        }
    }

    /// Lives through a script. `Err` says what went wrong, and when.
    pub fn live(&mut self, script: &[Step]) -> Result<(), String> {
        let mut at = self.now;
        self.happen_at(at, Happening::Start);
        for (gap, deed) in script {
            at += *gap;
            self.happen_at(at, Happening::Deed(deed.clone()));
        }
        self.happen_at(at + Duration::from_millis(1), Happening::Heal);
        let end = at + daemon::QUIET;
        let outcome = self.run_until(end).and_then(|()| self.check_policy());
        outcome.map_err(|why| format!("{why} (at {:?} after the start)", self.now - BEGINNING))
    }

    pub fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    fn run_until(&mut self, end: Duration) -> Result<(), String> {
        let mut happenings = 0;
        loop {
            happenings += 1;
            if happenings > MAX_BURST + 3 * (self.now - BEGINNING).as_secs() {
                return Err("it never comes to rest".into());
            }
            let next = self.queue.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            let deadline = self.daemon.as_ref().and_then(|daemon| daemon.machine.poll_deadline());
            let deadline = deadline.map(|at| at.saturating_duration_since(self.epoch)).filter(|at| *at <= end);
            match (next, deadline) {
                (_, Some(at)) if next.is_none_or(|next| at < next) => {
                    self.now = self.now.max(at);
                    self.pass_deadline()?;
                }
                (Some(_), _) => {
                    let Some(((at, _), happening)) = self.queue.pop_first() else { continue };
                    self.now = self.now.max(at);
                    if !matches!(happening, Happening::Readable) {
                        self.tell(|| format!("{happening:?}"));
                    }
                    self.meet(happening)?;
                }
                _ => {
                    self.now = end;
                    return Ok(());
                }
            }
        }
    }

    fn pass_deadline(&mut self) -> Result<(), String> {
        let now = self.instant();
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        daemon.machine.handle_deadline(now);
        if daemon.machine.poll_deadline().is_some_and(|next| next <= now) {
            return Err("a deadline that comes back at once".into());
        }
        self.act()
    }

    fn meet(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Deed(deed) => self.do_deed(deed)?,
            Happening::Start => self.start_daemon(),
            Happening::Readable => self.drain_uevents(),
            Happening::Overflow => {
                self.deaf = false;
                self.kernel.uevents.clear();
                self.hand_in_devices();
            }
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
            Happening::Reply { generation, reply } => self.hand_in_reply(generation, reply),
            Happening::GiveUp { serial, lost_at } => self.give_up(serial, lost_at),
            Happening::Recover { serial } => self.recover(serial),
            Happening::FabricsBack { generation } => self.hand_in(generation, Event::FabricsReady(true)),
            Happening::Heal => self.heal()?,
        }
        self.act()
    }

    // ---- the daemon ------------------------------------------------------------------------------------------------

    fn drain_uevents(&mut self) {
        while !self.deaf
            && let Some(uevent) = self.kernel.uevents.pop_front()
        {
            let event = match uevent {
                Uevent::Up(number) => self.kernel.device(number).map(Event::DeviceUp),
                Uevent::Removed(number) => Some(Event::DeviceRemoved(format!("nvme{number}"))),
                Uevent::LogChanged(number) => Some(Event::LogChanged(format!("nvme{number}"))),
            };
            if let Some(event) = event {
                self.hand_in(self.generation, event);
            }
        }
    }

    fn hand_in_devices(&mut self) {
        let devices = self.kernel.devices();
        self.hand_in(self.generation, Event::DevicesRead(devices));
    }

    fn hand_in(&mut self, generation: u32, event: Event) {
        let now = self.instant();
        if let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.generation == generation) {
            daemon.machine.handle(now, event);
        }
    }

    fn reply(&mut self, generation: u32, reply: Reply) {
        let latency = self.chance.latency("reply");
        self.happen_in(latency, Happening::Reply { generation, reply });
    }

    /// Replies come after the uevents that preceded them, unless those were lost: then sysfs is read again first.
    fn hand_in_reply(&mut self, generation: u32, reply: Reply) {
        if self.deaf {
            self.deaf = false;
            self.kernel.uevents.clear();
            self.hand_in_devices();
        }
        self.drain_uevents();
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.generation == generation) else { return };
        match reply {
            Reply::Connected(ticket, outcome) if daemon.connects.remove(&ticket).is_some() => {
                let outcome = outcome.map(|number| self.kernel.device(number));
                self.hand_in(generation, Event::Connected { ticket, outcome });
            }
            Reply::Disconnected(ticket, outcome) if daemon.disconnects.remove(&ticket).is_some() => {
                self.hand_in(generation, Event::Disconnected { ticket, outcome });
            }
            Reply::Registered(ticket, outcome) if daemon.commands.remove(&ticket).is_some() => {
                self.hand_in(generation, Event::Registered { ticket, outcome });
            }
            Reply::Inquired(ticket, outcome) if daemon.commands.remove(&ticket).is_some() => {
                self.hand_in(generation, Event::Inquired { ticket, outcome });
            }
            Reply::Page(ticket, outcome) if daemon.commands.remove(&ticket).is_some() => {
                let delivered = outcome.clone();
                let outcome =
                    outcome.map(|(which, paths, fault)| daemon::page(paths, self.nature[which].declines, fault).into());
                self.hand_in(generation, Event::PageRead { ticket, outcome });
                if let Ok((which, paths, None)) = delivered {
                    self.note_page(which, paths);
                }
            }
            _ => {}
        }
    }

    /// A page counts for the oracle if the finder has taken it: it may have been too late, or no page at all.
    fn note_page(&mut self, which: usize, paths: Set) {
        let Some(finder) = self.daemon.as_ref().and_then(|daemon| daemon.machine.finder()) else { return };
        let is_it = |tid: &&std::rc::Rc<stas::core::tid::TransportId>| tid.traddr() == DISCOVERY[which];
        let expected: BTreeSet<(&str, &str)> = members(paths).map(|path| PATHS[path]).collect();
        for tid in finder.controllers().filter(is_it) {
            let Some(page) = finder.page(tid) else { continue };
            let listed = Contents::of_page(page, tid).paths;
            let is_this = listed.len() == paths.count_ones() as usize
                && listed.keys().all(|path| expected.contains(&(path.subsysnqn(), path.traddr())));
            if is_this {
                self.oracle.page_delivered(which, tid.host_iface(), paths);
            }
        }
    }

    fn act(&mut self) -> Result<(), String> {
        let now = self.instant();
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        for action in daemon.actions(now)? {
            self.perform(action)?;
        }
        if !std::mem::take(&mut self.reloaded)
            && let Some(finder) = self.daemon.as_ref().and_then(|daemon| daemon.machine.finder())
        {
            self.oracle.forget(|which, host_iface| {
                finder.controllers().any(|tid| (tid.traddr(), tid.host_iface()) == (DISCOVERY[which], host_iface))
            });
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<(), String> {
        self.tell(|| format!("    {action:?}"));
        let generation = self.generation;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        match action {
            Action::Probe(portal) => {
                let (takes, outcome) = match self.reach.get(portal.traddr.as_str()) {
                    None | Some(Reach::Answers | Reach::Stalls) => (self.chance.latency("probe"), Ok(())),
                    Some(Reach::Refuses) => (Duration::from_millis(1), Err("refused".to_owned())),
                    Some(Reach::Silent) => (Duration::from_secs(3), Err("silence".to_owned())),
                };
                self.happen_in(takes, Happening::Probed { generation, portal, outcome });
            }
            Action::Connect { ticket, id, .. } => {
                daemon.connects.insert(ticket, id.clone());
                let latency = self.chance.latency("fork");
                let connect = Connect { id, asked: Some((generation, ticket)), era: Some(self.era), number: None };
                self.happen_in(latency, Happening::Submit(connect));
            }
            Action::Disconnect { ticket, device } => {
                let stopping = daemon.stopping;
                daemon.disconnects.insert(ticket, device.name.clone());
                let verdict = self.oracle.judge(&device, &self.configuration, stopping);
                let which = DISCOVERY.iter().position(|traddr| *traddr == device.traddr);
                if let Err(why) = verdict
                    && !which.is_some_and(|which| self.nature[which].is_polled())
                    && !self.has_other(&device)
                {
                    return Err(format!("{} {} is disconnected although {why}", device.name, device.subsysnqn));
                }
                self.doomed
                    .extend(self.kernel.controllers.get(&number_of(&device.name)).map(|controller| controller.serial));
                let latency = self.chance.latency("fork");
                self.happen_in(latency, Happening::Disconnect { generation, ticket, device });
            }
            Action::Register { ticket, device } => self.command(ticket, Command::Register, &device),
            Action::Inquire { ticket, device, .. } => self.command(ticket, Command::Inquire, &device),
            Action::ReadLogPage { ticket, device, .. } => self.command(ticket, Command::Read, &device),
            Action::Resolve { name, .. } => return Err(format!("{name} is resolved, and nobody named it")),
            Action::ReadDevices => self.hand_in_devices(),
            // A host without Fibre Channel.
            Action::AskFcPorts => self.hand_in(generation, Event::FcPortsTold { answered: false }),
            Action::Save if !self.read_only => {
                let legacy = daemon.machine.legacy(self.epoch + self.now);
                self.disk = Disk { legacy, oracle: self.oracle.clone() };
            }
            Action::Save | Action::Publish(_) | Action::Note(_) => {}
        }
        Ok(())
    }

    fn command(&mut self, ticket: Ticket, command: Command, device: &str) {
        let Some(daemon) = &mut self.daemon else { return };
        daemon.commands.insert(ticket, command);
        let device = daemon.machine.links().device(device).cloned().map(Box::new);
        let latency = self.chance.latency("command");
        self.happen_in(latency, Happening::Command { generation: self.generation, ticket, command, device });
    }

    // ---- small things ----------------------------------------------------------------------------------------------

    fn reach_of(&self, id: &LinkId) -> Reach {
        self.reach.get(id.tid.traddr()).copied().unwrap_or(Reach::Answers)
    }

    fn endpoint(&self, discovery: bool, which: usize) -> LinkId {
        use stas::core::tid::{DISCOVERY_NQN, Spelling, Transport, TransportId};
        let (kind, traddr, trsvcid, subsysnqn) = match discovery {
            true => (ControllerKind::Discovery, DISCOVERY[which % DISCOVERY.len()], "8009", DISCOVERY_NQN),
            false => (ControllerKind::Io, PATHS[which % PATHS.len()].1, "4420", PATHS[which % PATHS.len()].0),
        };
        let spelling = Spelling { traddr, trsvcid, subsysnqn, host_nqn: daemon::HOST, ..Spelling::default() };
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
    let is_it = |path: &(&str, &str)| *path == (id.tid.subsysnqn(), id.tid.traddr());
    (id.kind == ControllerKind::Io).then(|| PATHS.iter().position(is_it)).flatten()
}
