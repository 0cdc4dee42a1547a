//! The world: a queue of what is going to happen, and what each happening does to the kernel, the network and the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use stas::core::device::{ControllerKind, Device};
use stas::core::links::LinkId;
use stas::core::page::{self};
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

    // ---- deeds -----------------------------------------------------------------------------------------------------

    fn do_deed(&mut self, deed: Deed) -> Result<(), String> {
        match deed {
            Deed::Relist { discovery, paths, cut } => self.relist(discovery, paths, cut),
            Deed::Reach { address, reach } => self.set_reach(address, reach),
            Deed::Announce(set) => {
                self.announced = set;
                self.hand_in(self.generation, daemon::announced(set));
            }
            Deed::Reload(configuration) => self.reload(configuration),
            Deed::Kill { down } => self.kill(down),
            Deed::Stop { down } => self.stop(down)?,
            Deed::ReadOnly => self.read_only = true,
            Deed::LoseUevents { time } => {
                self.deaf = true;
                self.happen_in(time, Happening::Overflow);
            }
            Deed::RepeatUevents => {
                let live = self.kernel.controllers.iter().filter(|(_, controller)| controller.state == State::Live);
                let again: Vec<_> =
                    live.flat_map(|(number, _)| [Uevent::Up(*number), Uevent::LogChanged(*number)]).collect();
                again.into_iter().for_each(|uevent| self.send(uevent));
            }
            Deed::HelperDies => self.kill_helper(),
            Deed::ForeignConnect { discovery, which } => {
                let id = self.endpoint(discovery, which);
                self.happen_in(Duration::ZERO, Happening::Submit(Connect { id, asked: None, era: None, number: None }));
            }
            Deed::ForeignDisconnect { nth } => {
                let usable: Vec<u32> = self
                    .kernel
                    .controllers
                    .iter()
                    .filter(|(_, one)| one.is_usable())
                    .map(|(number, _)| *number)
                    .collect();
                if let Some(number) = usable.get(nth % usable.len().max(1)) {
                    self.remove(*number);
                }
            }
            Deed::Misread { discovery, fault, times } => {
                self.misread.insert(discovery, (fault, times));
            }
            Deed::FailConnects { errno, times } => self.failing_connects = Some((errno, times)),
            Deed::FailDisconnects { times } => self.failing_disconnects = times,
            Deed::FabricsGone { time } => {
                self.hand_in(self.generation, Event::FabricsReady(false));
                self.happen_in(time, Happening::FabricsBack { generation: self.generation });
            }
        }
        Ok(())
    }

    fn relist(&mut self, discovery: usize, paths: Set, cut: bool) {
        self.listed[discovery] = paths;
        let any = self.listed.iter().fold(0, |any, listed| any | listed);
        if cut {
            self.refused = !any & !self.configuration.io;
            let refused: Vec<u64> =
                self.controllers_of(|id| path_of(id).is_some_and(|path| self.refused & (1 << path) != 0));
            for serial in refused {
                let lost_at = self.lose(serial);
                let at = self.chance.below("cut", 10_000);
                self.happen_in(Duration::from_millis(at), Happening::GiveUp { serial, lost_at });
            }
        }
        self.refused &= !any;
        let traddr = DISCOVERY[discovery];
        let notices = self.nature[discovery].notices;
        let mut changed = Vec::new();
        for (number, controller) in &mut self.kernel.controllers {
            let is_it = controller.id.kind == ControllerKind::Discovery && controller.id.tid.traddr() == traddr;
            if is_it && notices && controller.state == State::Live && !std::mem::replace(&mut controller.masked, true) {
                changed.push(Uevent::LogChanged(*number));
            }
        }
        changed.into_iter().for_each(|uevent| self.send(uevent));
    }

    fn set_reach(&mut self, address: &'static str, reach: Reach) {
        self.reach.insert(address, reach);
        let there = self.controllers_of(|id| id.tid.traddr() == address);
        for serial in there {
            if reach == Reach::Answers {
                let at = self.chance.below("recover", RECONNECT_DELAY.as_millis() as u64);
                self.happen_in(Duration::from_millis(at), Happening::Recover { serial });
            } else {
                let lost_at = self.lose(serial);
                self.happen_in(CTRL_LOSS_TMO, Happening::GiveUp { serial, lost_at });
            }
        }
    }

    fn reload(&mut self, configuration: Configuration) {
        self.leniency |= !configuration.disconnects;
        self.configuration = configuration;
        self.oracle.configured(&self.configuration);
        self.reloaded = true;
        self.hand_in(self.generation, daemon::configured(&self.configuration));
    }

    /// The calls that the helper's children are at go on; nobody hears of their outcome.
    fn kill(&mut self, down: Duration) {
        if self.daemon.take().is_some() {
            self.leniency = true;
            self.happen_in(down, Happening::Start);
        }
    }

    fn stop(&mut self, down: Duration) -> Result<(), String> {
        if let Some(daemon) = &mut self.daemon {
            daemon.stopping = true;
        }
        self.hand_in(self.generation, Event::Stop);
        self.act()?;
        self.kill(down);
        Ok(())
    }

    fn start_daemon(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.generation += 1;
        self.era += 1;
        self.read_only = false;
        self.oracle = self.disk.oracle.clone();
        self.oracle.configured(&self.configuration);
        self.kernel.uevents.clear();
        let seed = self.chance.below("daemon", u64::MAX);
        self.daemon = Some(Daemon::new(self.generation, seed, self.disk.legacy.clone()));
        self.hand_in_devices();
        self.hand_in(self.generation, daemon::configured(&self.configuration));
        self.hand_in(self.generation, Event::FabricsReady(true));
        self.hand_in(self.generation, daemon::announced(self.announced));
    }

    /// Whatever was asked of it is answered with a failure, although it may be carried out.
    fn kill_helper(&mut self) {
        self.era += 1;
        self.leniency = true;
        let Some(daemon) = &mut self.daemon else { return };
        let connects = std::mem::take(&mut daemon.connects).into_keys();
        let failures = connects.map(|ticket| Event::Connected { ticket, outcome: Err(Failure::ChildDied) });
        let disconnects = std::mem::take(&mut daemon.disconnects).into_keys();
        let failures =
            failures.chain(disconnects.map(|ticket| Event::Disconnected { ticket, outcome: Err(Failure::ChildDied) }));
        let commands = std::mem::take(&mut daemon.commands).into_iter();
        let failures = failures.chain(commands.map(|(ticket, command)| match command {
            Command::Register => Event::Registered { ticket, outcome: Err(Failure::ChildDied) },
            Command::Inquire => Event::Inquired { ticket, outcome: Err(Failure::ChildDied) },
            Command::Read => Event::PageRead { ticket, outcome: Err("it died".into()) },
        }));
        let failures: Vec<Event> = failures.collect();
        self.hand_in_devices();
        for failure in failures {
            self.hand_in(self.generation, failure);
        }
    }

    /// All is well from now on.
    fn heal(&mut self) -> Result<(), String> {
        for address in self.reach.keys().copied().collect::<Vec<_>>() {
            self.set_reach(address, Reach::Answers);
        }
        self.refused = 0;
        self.misread.clear();
        self.failing_connects = None;
        self.failing_disconnects = 0;
        self.hand_in(self.generation, Event::FabricsReady(true));
        Ok(())
    }

    // ---- the kernel at work ----------------------------------------------------------------------------------------

    fn begin_connect(&mut self) -> Result<(), String> {
        let Some(connect) = self.kernel.begin_connect().cloned() else { return Ok(()) };
        let takes = match self.reach_of(&connect.id) {
            _ if self.kernel.has_already(&connect) => Duration::ZERO,
            Reach::Answers => self.chance.latency("connect"),
            Reach::Refuses => Duration::from_millis(1),
            Reach::Silent => Duration::from_secs(3),
            Reach::Stalls => ADMIN_TIMEOUT,
        };
        self.happen_in(takes, Happening::Connected);
        Ok(())
    }

    fn end_connect(&mut self) -> Result<(), String> {
        let Some(connect) = self.kernel.connects.pop_front() else { return Ok(()) };
        let number = connect.number.unwrap();
        let outcome = self.connect_outcome(&connect);
        match &outcome {
            Ok(()) => {
                self.check_duplicate(&connect)?;
                if let Some(controller) = self.kernel.controllers.get_mut(&number) {
                    controller.state = State::Live;
                }
                self.send(Uevent::Up(number));
            }
            Err(_) => self.remove(number),
        }
        if let Some((generation, ticket)) = connect.asked {
            let reply = Reply::Connected(ticket, outcome.map(|()| number).map_err(Failure::from));
            self.reply(generation, reply);
        }
        self.begin_connect()
    }

    fn connect_outcome(&mut self, connect: &Connect) -> Result<(), Errno> {
        if self.kernel.has_already(connect) {
            return Err(Errno::EALREADY);
        }
        match self.reach_of(&connect.id) {
            Reach::Answers => {}
            Reach::Refuses => return Err(Errno::ECONNREFUSED),
            Reach::Silent => return Err(Errno::ETIMEDOUT),
            Reach::Stalls => return Err(Errno::EIO),
        }
        if path_of(&connect.id).is_some_and(|path| self.refused & (1 << path) != 0) {
            return Err(Errno::EIO);
        }
        if let Some((errno, times)) = &mut self.failing_connects
            && *times > 0
            && connect.asked.is_some()
        {
            *times -= 1;
            return Err(*errno);
        }
        Ok(())
    }

    /// What the helper's child checks before it writes `delete_controller`.
    fn begin_disconnect(&mut self, generation: u32, ticket: Ticket, device: &Device) {
        let number = number_of(&device.name);
        let is_same = self.kernel.device(number).is_some_and(|now| now.is_same_controller(device));
        let Some(controller) = self.kernel.controllers.get_mut(&number).filter(|_| is_same) else {
            let failure =
                if self.kernel.controllers.contains_key(&number) { Failure::NotThatController } else { Failure::Gone };
            return self.reply(generation, Reply::Disconnected(ticket, Err(failure)));
        };
        if self.failing_disconnects > 0 {
            self.failing_disconnects -= 1;
            return self.reply(generation, Reply::Disconnected(ticket, Err(Errno::EIO.into())));
        }
        controller.state = State::Deleting;
        let serial = controller.serial;
        let takes = self.chance.latency("delete");
        self.happen_in(takes, Happening::Disconnected { generation, ticket, serial });
    }

    fn end_disconnect(&mut self, generation: u32, ticket: Ticket, serial: u64) {
        if let Some(number) = self.kernel.find(serial) {
            self.remove(number);
        }
        self.reply(generation, Reply::Disconnected(ticket, Ok(())));
    }

    fn carry_out(&mut self, generation: u32, ticket: Ticket, command: Command, asked: Option<&Device>) {
        let outcome = self.served_by(asked).and_then(|(which, serial)| Ok((which, self.answer(which, serial)?)));
        let failed = |failure: &Failure| failure.to_string();
        let reply = match command {
            Command::Register => Reply::Registered(ticket, outcome.map(|(which, _)| self.nature[which].registers)),
            Command::Inquire => {
                let can = |which: usize| Capabilities { notices: self.nature[which].notices, pleo: None };
                Reply::Inquired(ticket, outcome.map(|(which, _)| can(which)))
            }
            Command::Read => {
                if let Ok((_, None)) = outcome
                    && let Some(number) = asked.map(|asked| number_of(&asked.name))
                    && let Some(controller) = self.kernel.controllers.get_mut(&number)
                {
                    controller.masked = false;
                }
                let page = |(which, fault): (usize, Option<Fault>)| (which, self.listed[which], fault);
                Reply::Page(ticket, outcome.as_ref().map(|outcome| page(*outcome)).map_err(failed))
            }
        };
        self.reply(generation, reply);
    }

    /// The discovery controller behind a device, if it is connected and still the one that was meant.
    fn served_by(&self, asked: Option<&Device>) -> Result<(usize, u64), Failure> {
        let asked = asked.ok_or(Failure::Gone)?;
        let number = number_of(&asked.name);
        let device = self.kernel.device(number).ok_or(Failure::Gone)?;
        if !device.is_same_controller(asked) {
            return Err(Failure::NotThatController);
        }
        let controller = self.kernel.controllers.get(&number).filter(|controller| controller.state == State::Live);
        let controller = controller.ok_or(Failure::NotReady)?;
        let which =
            DISCOVERY.iter().position(|traddr| *traddr == controller.id.tid.traddr()).ok_or(Failure::NotReady)?;
        Ok((which, controller.serial))
    }

    /// What a discovery controller makes of a command; `Some` if the data are wrong.
    fn answer(&mut self, which: usize, serial: u64) -> Result<Option<Fault>, Failure> {
        let fault = self.misread.get_mut(&which).filter(|(_, times)| *times > 0).map(|(fault, times)| {
            *times -= 1;
            *fault
        });
        match fault {
            Some(Fault::Status) => Err(Failure::NvmeStatus(0x4002)),
            Some(Fault::Hangs) => {
                self.lose(serial);
                self.happen_in(Duration::from_secs(1), Happening::Recover { serial });
                Err(Failure::Interrupted)
            }
            Some(Fault::Garbage | Fault::Truncated) | None => Ok(fault),
        }
    }

    // ---- connections lost and found --------------------------------------------------------------------------------

    /// The serials of the controllers of which this is true.
    fn controllers_of(&self, is_such: impl Fn(&LinkId) -> bool) -> Vec<u64> {
        let such = self.kernel.controllers.values().filter(|one| one.is_usable() && is_such(&one.id));
        such.map(|one| one.serial).collect()
    }

    fn lose(&mut self, serial: u64) -> Duration {
        let number = self.kernel.find(serial);
        if let Some(controller) = number.and_then(|number| self.kernel.controllers.get_mut(&number))
            && controller.state == State::Live
        {
            controller.state = State::Lost;
            self.lost_at.insert(serial, self.now);
        }
        self.lost_at.get(&serial).copied().unwrap_or(self.now)
    }

    fn give_up(&mut self, serial: u64, lost_at: Duration) {
        let number = self.kernel.find(serial).filter(|_| self.lost_at.get(&serial) == Some(&lost_at));
        if let Some(number) = number.filter(|number| self.kernel.controllers[number].state == State::Lost) {
            self.remove(number);
        }
    }

    fn recover(&mut self, serial: u64) {
        let Some(number) = self.kernel.find(serial) else { return };
        let id = self.kernel.controllers[&number].id.clone();
        let refused = path_of(&id).is_some_and(|path| self.refused & (1 << path) != 0);
        if self.reach_of(&id) != Reach::Answers || refused {
            return;
        }
        if let Some(controller) = self.kernel.controllers.get_mut(&number)
            && controller.state == State::Lost
        {
            controller.state = State::Live;
            controller.masked = false;
            self.lost_at.remove(&serial);
            self.send(Uevent::Up(number));
        }
    }

    fn remove(&mut self, number: u32) {
        self.kernel.remove(number);
        self.wake();
    }

    fn send(&mut self, uevent: Uevent) {
        self.kernel.uevents.push_back(uevent);
        self.wake();
    }

    fn wake(&mut self) {
        let latency = self.chance.latency("wake");
        self.happen_in(latency, Happening::Readable);
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
            let (listed, _) = page::paths(page, tid);
            let is_this = listed.len() == paths.count_ones() as usize
                && listed.iter().all(|path| expected.contains(&(path.subsysnqn(), path.traddr())));
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

    // ---- what must hold --------------------------------------------------------------------------------------------

    /// One daemon never has the same place connected twice. What an earlier one had asked for when it was killed may come
    /// through later; the kernel alone could prevent that.
    fn check_duplicate(&self, connect: &Connect) -> Result<(), String> {
        let is_twin = |other: &&Controller| {
            let ours = other.era.is_some() && other.era == connect.era;
            ours && other.is_usable() && !self.doomed.contains(&other.serial) && other.id.is_same_place(&connect.id)
        };
        match self.kernel.controllers.values().find(is_twin) {
            Some(_) => Err(format!("{} is connected a second time", connect.id)),
            None => Ok(()),
        }
    }

    /// Whether another controller does what this one does.
    fn has_other(&self, device: &Device) -> bool {
        self.kernel.controllers.iter().any(|(number, other)| {
            let same = (other.nqn(), other.id.tid.traddr()) == (device.subsysnqn.as_str(), device.traddr.as_str());
            same && other.is_usable() && *number != number_of(&device.name)
        })
    }

    /// With the world at rest, what is connected is what the policy says.
    fn check_policy(&self) -> Result<(), String> {
        let excluded = self.configuration.excluded;
        let serves = |kind, traddr: &str, nqn: &str| {
            self.kernel.controllers.values().any(|one| {
                let same = one.id.kind == kind && one.id.tid.traddr() == traddr && (nqn.is_empty() || one.nqn() == nqn);
                same && one.state == State::Live
            })
        };
        let mut paths = self.configuration.io;
        for which in members(self.configuration.discovery | self.announced) {
            if !excluded.covers("", DISCOVERY[which]) {
                if !serves(ControllerKind::Discovery, DISCOVERY[which], "") && !self.nature[which].is_polled() {
                    return Err(format!("discovery controller {} is not connected", DISCOVERY[which]));
                }
                paths |= self.listed[which];
            }
        }
        for (nqn, traddr) in members(paths).map(|path| PATHS[path]) {
            if !excluded.covers(nqn, traddr) && !serves(ControllerKind::Io, traddr, nqn) {
                return Err(format!("{nqn} at {traddr} is not connected"));
            }
        }
        let listed_by_somebody = self.listed.iter().fold(paths, |all, listed| all | listed);
        for controller in self.kernel.controllers.values().filter(|one| one.era.is_some() && !self.leniency) {
            let (nqn, traddr) = (controller.nqn(), controller.id.tid.traddr());
            if let Some(path) = path_of(&controller.id)
                && (listed_by_somebody & (1 << path) == 0 || excluded.covers(nqn, traddr))
            {
                return Err(format!("{nqn} at {traddr} is still connected"));
            }
        }
        Ok(())
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
