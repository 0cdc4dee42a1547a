//! The poll loop: waits, turns what is ready into events, hands them to the state machines and does what they say.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::Level;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::bus::address::Address;
use crate::bus::dispatch::Served;
use crate::bus::private::CLIENTS_MAX;
use crate::bus::signal::Signal as BusSignal;
use crate::bus::{BusEvent, BusTokens, ControllerId, FinderPage, PrivateServer, Role, SystemBus};
use crate::config::settings::HostIdentity;
use crate::core::announcement::Announcement;
use crate::core::device::{ControllerKind, US};
use crate::core::finder::Finder;
use crate::core::{Action, Change, Event, Machine};
use crate::daemon::claims::Claims;
use crate::daemon::exclusions::Exclusions;
use crate::daemon::network::Network;
use crate::daemon::notify::ServiceManager;
use crate::daemon::options::{Options, Program};
use crate::daemon::probe::Probes;
use crate::daemon::publish::{Facts, Published, role_of};
use crate::daemon::reports;
use crate::daemon::requests::{FABRICS, LOOK_AGAIN, Requests};
use crate::daemon::settings::{Paths, Settings};
use crate::daemon::state_file::StateFile;
use crate::daemon::udev::Override;
use crate::daemon::uses;
use crate::daemon::uses::Uses;
use crate::helper::Helper;
use crate::kernel::netlink::{KernelSocket, MESSAGE_MAX, Received};
use crate::kernel::sysfs::{CLASS, Sysfs};
use crate::rarely::Rarely;
use crate::wire::uevent::{ControllerEvent, NvmeEvent, Uevent};

const UEVENTS: Token = Token(0);
const SIGNALS: Token = Token(1);
const TIMER: Token = Token(2);
const HELPER: Token = Token(3);
const BUS: BusTokens = BusTokens { bus: Token(4), watch: Token(5) };
const EXCLUSIONS: Token = Token(6);
const NETWORK: Token = Token(7);
const USES: Token = Token(8);
const PRIVATE: Token = Token(9);
const PROBES: Token = Token(PRIVATE.0 + PrivateServer::TOKENS);

/// How long a bus that neither gives nor refuses our names can keep us from being ready.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// What the loop itself needs in descriptors, with something to spare.
const OWN_DESCRIPTORS: usize = 32;

/// Helpers that live shorter than this, so many in a row, cannot live here at all: starting more would help nobody.
const HELPER_LIFE: Duration = Duration::from_secs(1);
const SHORT_LIVES: u32 = 5;

/// How long a stop waits for discovery connections that are to go with the daemon.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that the process has.
pub struct Daemon {
    program: Program,
    paths: Paths,
    forced_tron: bool,
    settings: Settings,
    poll: Poll,
    timer: TimerFd,
    /// What the timer is set to.
    armed: Option<Instant>,
    signals: SignalFd,
    uevents: KernelSocket,
    sysfs: Sysfs,
    requests: Requests,
    probes: Probes,
    network: Network,
    machine: Machine,
    state_file: StateFile,
    claims: Claims,
    exclusions: Exclusions,
    /// nvme-cli's udev rule is out of force.
    udev: Option<Override>,
    bus: Option<SystemBus>,
    private: PrivateServer,
    facts: Facts,
    manager: ServiceManager,
    /// Of our bus names, those of which we do not know yet whether they are ours: we are not ready before, but do not
    /// wait for ever either.
    awaited_names: Vec<Role>,
    ready_by: Option<Instant>,
    /// The finder in another process has told how far its pages are evidence.
    finder_is_ours: bool,
    /// The last failure to get its pages that was reported.
    finder_complaint: Option<String>,
    helper_started: Instant,
    /// When to start another one after that failed.
    start_helper_at: Option<Instant>,
    short_lives: u32,
    /// When to read all of sysfs after that failed.
    read_devices_at: Option<Instant>,
    lost_uevents: Rarely,
    uses: Uses,
    /// Set by SIGTERM: when to give up waiting.
    stop_by: Option<Instant>,
}

impl Daemon {
    /// Sets everything up. `Err` says what is wrong; what is wrong with the configuration is in the log.
    /// `descriptors`: how many there may be.
    pub fn new(
        options: Options,
        helper: Helper,
        mask: &SigSet,
        directory: &Path,
        descriptors: usize,
    ) -> Result<Daemon, String> {
        let program = options.program;
        let now = Instant::now();
        let paths = Paths::new(&options);
        let settings = paths.load().ok_or("the configuration cannot be used, see above")?;
        let served = Served::new(&program.bus_roles());
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let mut private = PrivateServer::new(directory, served.clone(), poll.registry(), PRIVATE).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AddrInUse => format!("{} runs already", program.name()),
                _ => format!("{}: the control socket cannot be made: {error}", directory.display()),
            }
        })?;
        // What clients and probes take must never be missing where storage is at stake.
        let clients = CLIENTS_MAX.min(descriptors / 4);
        private.limit_clients(clients);
        let probes = descriptors.saturating_sub(clients).saturating_sub(OWN_DESCRIPTORS).max(1);
        let mut daemon = Daemon {
            program,
            paths,
            forced_tron: options.tron,
            settings,
            timer: describe(
                "timerfd",
                TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC),
            )?,
            armed: None,
            signals: describe("signalfd", SignalFd::with_flags(mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))?,
            uevents: describe("netlink", KernelSocket::uevents())?,
            sysfs: Sysfs::new(CLASS),
            requests: Requests::new(helper),
            probes: Probes::new(PROBES, probes),
            network: Network::new(NETWORK),
            machine: Machine::new(program.roles(), seed()),
            state_file: StateFile::new(directory),
            claims: Claims::new(|device| Path::new(CLASS).join(device).exists()),
            exclusions: Exclusions::new(poll.registry(), EXCLUSIONS),
            udev: None,
            bus: None,
            private,
            facts: Facts::new(now, directory.display().to_string()),
            manager: ServiceManager::from_environment(now),
            awaited_names: program.bus_roles(),
            ready_by: Some(now + BUS_PATIENCE),
            finder_is_ours: false,
            finder_complaint: None,
            helper_started: now,
            start_helper_at: None,
            short_lives: 0,
            read_devices_at: None,
            lost_uevents: Rarely::default(),
            uses: Uses::new(USES),
            stop_by: None,
            poll,
        };
        describe("epoll", daemon.register())?;
        daemon.begin(now, options.no_wait, served)?;
        Ok(daemon)
    }

    fn register(&self) -> io::Result<()> {
        let registry = self.poll.registry();
        let sources = [(self.uevents.as_raw_fd(), UEVENTS), (self.signals.as_raw_fd(), SIGNALS)];
        for (fd, token) in sources {
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        registry.register(&mut SourceFd(&self.timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        self.register_helper()
    }

    fn register_helper(&self) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&self.requests.as_raw_fd()), HELPER, interest)
    }

    /// Adopts what the kernel has, then wants what the configuration says. The uevent socket is open already, so nothing that
    /// happens from here on is missed.
    fn begin(&mut self, now: Instant, no_wait: bool, served: Served) -> Result<(), String> {
        self.apply_settings();
        self.override_udev();
        self.machine.inherit(self.state_file.load());
        self.read_devices(now);
        self.hear_host(now);
        self.machine.handle(now, self.settings.event());
        if !self.requests.read_options() {
            if no_wait {
                return Err(format!("{FABRICS} does not exist: load the nvme-fabrics module"));
            }
            log::warn!("{FABRICS} does not exist: waiting for the nvme-fabrics module to be loaded");
        }
        self.start_bus(now, served);
        Ok(())
    }

    /// What concerns all programs of this host that connect: its names, and what none of them is to connect.
    fn hear_host(&mut self, now: Instant) {
        self.machine.handle(now, Event::HostNamed(self.settings.host_ids.clone()));
        self.machine.handle(now, Event::HostExcludes(self.exclusions.read()));
    }

    fn start_bus(&mut self, now: Instant, served: Served) {
        let follow_finder = self.program == Program::Stacd;
        let bus = Address::system().and_then(|address| {
            SystemBus::new(address, served, follow_finder, self.poll.registry(), BUS).map_err(|error| error.to_string())
        });
        match bus {
            Ok(mut bus) => {
                bus.want_announcements(self.settings.announcements(), now);
                bus.start(now);
                self.bus = Some(bus);
            }
            Err(why) => {
                log::warn!("D-Bus cannot be used: {why}");
                self.awaited_names.clear();
            }
        }
    }

    /// Until asked to stop. `Err` when a source of events is lost for good.
    pub fn run(mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        loop {
            let now = Instant::now();
            self.handle_bus_events(now);
            self.act(now);
            if self.is_done(now) {
                return Ok(());
            }
            self.private.accept_starved();
            self.network.listen(self.machine.waits_for_network(), self.poll.registry());
            self.arm_timer(now).map_err(|error| format!("timer: {error}"))?;
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.map_err(|error| format!("poll: {error}"))?,
            }
            self.handle_ready(&events)?;
        }
    }

    /// Handles all that is ready, storage before clients.
    fn handle_ready(&mut self, events: &Events) -> Result<(), String> {
        let now = Instant::now();
        self.facts.now = now;
        let is_ready = |token| events.iter().any(|event| event.token() == token);
        if is_ready(SIGNALS) {
            self.handle_signals(now)?;
        }
        // What is excluded now may be what is disconnected next.
        if is_ready(EXCLUSIONS) {
            self.machine.handle(now, Event::HostExcludes(self.exclusions.read()));
        }
        // Replies are taken in before the uevents are drained and acted upon after that: then all that the kernel said before
        // a reply was sent is known when the reply is handled, and a recycled device name cannot be mistaken.
        let helper_lost = is_ready(HELPER) && self.requests.receive().is_err();
        if is_ready(UEVENTS) || is_ready(HELPER) {
            self.drain_uevents(now)?;
        }
        self.handle_replies(now);
        if helper_lost {
            self.replace_helper(now)?;
        }
        for event in events {
            let token = event.token();
            if self.probes.has_token(token) {
                self.probes.ready(now, token);
            } else if self.private.has_token(token) {
                let mut published = Published {
                    machine: &self.machine,
                    requests: &self.requests,
                    sysfs: &self.sysfs,
                    facts: &mut self.facts,
                };
                self.private.ready(token, &mut published);
            } else if let Some(bus) = &mut self.bus
                && (token == BUS.bus || token == BUS.watch)
            {
                let mut published = Published {
                    machine: &self.machine,
                    requests: &self.requests,
                    sysfs: &self.sysfs,
                    facts: &mut self.facts,
                };
                bus.ready(token, now, &mut published);
            }
        }
        if is_ready(USES) {
            self.machine.handle(now, Event::UsesChanged);
        }
        if is_ready(TIMER) {
            self.handle_timer(now)?;
        }
        self.handle_probes(now);
        if is_ready(NETWORK) {
            for change in self.network.ready() {
                log::debug!("the network changed: {change:?}");
                self.machine.handle(now, Event::NetworkChanged(change));
            }
        }
        Ok(())
    }

    fn handle_replies(&mut self, now: Instant) {
        while let Some(mut event) = self.requests.poll_event(now, &self.sysfs) {
            if let Event::Connected { outcome: Ok(Some(device)), .. } = &mut event {
                // What was noted about that number so far was about an earlier controller.
                self.claims.made(&device.name);
                device.owner = Some(US.to_owned());
            }
            self.machine.handle(now, event);
        }
    }

    fn handle_probes(&mut self, now: Instant) {
        while let Some((portal, outcome)) = self.probes.poll_outcome() {
            self.machine.handle(now, Event::Probed { portal, outcome });
            self.probes.start_waiting(now, self.poll.registry());
        }
    }

    // ---- uevents -------------------------------------------------------------------------------------------------

    fn drain_uevents(&mut self, now: Instant) -> Result<(), String> {
        let mut buffer = [0; MESSAGE_MAX];
        let mut lost = false;
        loop {
            let received = self.uevents.recv(&mut buffer).map_err(|error| format!("netlink: {error}"))?;
            match received {
                Received::Nothing => break,
                Received::Overflow | Received::Truncated => lost = true,
                Received::Forged => log::debug!("a netlink message that is not the kernel's was ignored"),
                Received::Event(message) => match Uevent::parse(message) {
                    Ok(uevent) => {
                        lost |=
                            handle_uevent(&uevent, now, &self.sysfs, &mut self.machine, &mut self.requests).is_err();
                        self.hand_over(&uevent, now);
                    }
                    // Other devices may have names that are not text; that is no concern of ours.
                    Err(error) if !concerns_nvme(message) => log::debug!("{error}"),
                    Err(error) => {
                        log::warn!("{error}");
                        lost = true;
                    }
                },
            }
        }
        if lost {
            if self.lost_uevents.is_due(now) {
                log::warn!("uevents were lost; reading all controllers again");
            }
            self.read_devices(now);
        }
        Ok(())
    }

    /// A discovery controller that is not ours has news: starts what nvme-cli's udev rule would have started.
    fn hand_over(&mut self, uevent: &Uevent<'_>, now: Instant) {
        let unit = self.udev.as_ref().and_then(|rule| rule.unit_for(uevent, &self.machine, &self.sysfs));
        if let (Some(unit), Some(bus)) = (unit, &mut self.bus) {
            let what = if bus.restart_unit(&unit, now) { "starting" } else { "without a bus we cannot start" };
            log::info!("a discovery controller that is not ours has news; {what} {unit}");
        }
    }

    fn read_devices(&mut self, now: Instant) {
        let had_failed = self.read_devices_at.take().is_some();
        match self.sysfs.controllers() {
            Ok(devices) => self.machine.handle(now, Event::DevicesRead(devices)),
            Err(error) => {
                if !had_failed {
                    log::error!("{CLASS}: cannot be read: {error}; controllers may be unknown to us; trying again");
                }
                self.read_devices_at = now.checked_add(LOOK_AGAIN);
            }
        }
    }

    // ---- what is to be done --------------------------------------------------------------------------------------

    fn act(&mut self, now: Instant) {
        let mut acted = false;
        while let Some(action) = self.machine.poll_action(now) {
            acted = true;
            self.perform(now, action);
            // What failed before it got as far as the helper or the network.
            self.handle_replies(now);
            self.handle_probes(now);
        }
        if acted {
            self.uses.watch(self.machine.links().keeps_what_is_used(), self.poll.registry());
            self.facts.invalidate();
            self.tell_status();
        }
    }

    fn perform(&mut self, now: Instant, action: Action) {
        match action {
            Action::Probe(portal) => self.probes.start(now, portal, self.poll.registry()),
            Action::Connect { ticket, id, options, host_id } => {
                log::debug!("{id}: connecting");
                let host = HostIdentity { id: host_id, ..self.settings.host.clone() };
                self.requests.connect(ticket, &id, &options, &host);
            }
            Action::Disconnect { ticket, device } => {
                self.requests.disconnect(ticket, &device, self.settings.disconnects_in_use());
            }
            Action::Register { ticket, device } => {
                log::debug!("{device}: registering this host");
                self.requests.register(ticket, self.machine.links().device(&device), &self.settings.host);
            }
            Action::Inquire { ticket, device, pleo } => {
                self.requests.inquire(ticket, self.machine.links().device(&device), pleo);
            }
            Action::ReadLogPage { ticket, device, port_local } => {
                log::debug!("{device}: reading the discovery log page");
                self.requests.read_log_page(ticket, self.machine.links().device(&device), port_local);
            }
            Action::Resolve { ticket, name } => {
                log::debug!("{name}: resolving");
                self.requests.resolve(ticket, &name);
            }
            Action::ReadDevices => self.read_devices(now),
            Action::AskFcPorts => self.requests.ask_fc_ports(),
            Action::Publish(change) => self.publish(now, change),
            Action::Save => self.state_file.save(now, &self.machine.legacy(now)),
            Action::Note(note) => log::log!(note.level(), "{note}"),
        }
    }

    fn publish(&mut self, now: Instant, change: Change) {
        self.claims.follow(&change, self.machine.links());
        let signal = match change {
            Change::LogPage { tid, device } => BusSignal::LogPagesChanged { id: ControllerId::from(&*tid), device },
            Change::DiscoveryControllerRemoved => BusSignal::DcRemoved,
            Change::Up { id, device } => {
                BusSignal::ControllerUp { role: role_of(&id), id: ControllerId::from(&*id.tid), device }
            }
            Change::Down { id, device } => {
                BusSignal::ControllerDown { role: role_of(&id), id: ControllerId::from(&*id.tid), device }
            }
        };
        self.facts.invalidate();
        self.emit(now, &signal);
    }

    fn emit(&mut self, now: Instant, signal: &BusSignal) {
        self.private.emit(signal);
        if let Some(bus) = &mut self.bus {
            bus.emit(signal, now);
        }
    }

    fn tell_status(&mut self) {
        if !self.manager.wants_status() {
            return;
        }
        let links = self.machine.links();
        let count = |kind, what: &str| {
            let (mut wanted, mut connected) = (0, 0);
            for id in links.wanted(kind) {
                wanted += 1;
                connected += usize::from(links.device_of(id).is_some_and(|device| self.sysfs.is_live(&device.name)));
            }
            format!("{connected} of {wanted} {what} connected")
        };
        let roles = self.program.roles();
        let parked = self.machine.finder().map_or(0, Finder::parked);
        let parked = if parked > 0 { format!(" ({parked} parked)") } else { String::new() };
        let finder = roles.finder.then(|| count(ControllerKind::Discovery, "discovery controllers") + &parked);
        let connector = roles.connector.then(|| count(ControllerKind::Io, "I/O controllers"));
        let parts: Vec<String> = finder.into_iter().chain(connector).collect();
        self.manager.status(parts.join(", "));
    }

    // ---- the bus -------------------------------------------------------------------------------------------------

    fn handle_bus_events(&mut self, now: Instant) {
        while let Some(event) = self.bus.as_mut().and_then(SystemBus::poll_event).or_else(|| self.private.poll_event())
        {
            self.handle_bus_event(now, event);
        }
        if self.awaited_names.is_empty() && self.ready_by.take().is_some() {
            self.manager.ready();
            self.tell_status();
        }
    }

    fn handle_bus_event(&mut self, now: Instant, event: BusEvent) {
        match event {
            BusEvent::NameOwned(role) => {
                log::info!("D-Bus: serving as {}", role.name());
                self.awaited_names.retain(|awaited| *awaited != role);
            }
            BusEvent::NameRefused(role, why) => {
                log::error!("D-Bus: the name {} was refused: {why}; going on without it", role.name());
                self.awaited_names.retain(|awaited| *awaited != role);
            }
            BusEvent::NameLost(role) => log::warn!("D-Bus: the name {} was taken from us", role.name()),
            BusEvent::Disconnected(why) => {
                // One process with both roles needs no bus.
                let level = if self.program == Program::Run { Level::Info } else { Level::Warn };
                log::log!(level, "D-Bus: {why}; going on without it until it is there");
                self.awaited_names.clear();
            }
            BusEvent::TronSet(role, on) => self.emit(now, &BusSignal::TronChanged(role, on)),
            BusEvent::FinderAppeared => log::info!("D-Bus: a finder is there, asking for its log pages"),
            BusEvent::FinderGone => {
                log::warn!("D-Bus: the finder is gone; its last log pages stay in force");
                self.finder_is_ours = false;
                self.machine.handle(now, Event::FinderGone);
            }
            BusEvent::FinderPages(pages) => self.hear_finder(now, pages),
            BusEvent::FinderUnreadable(why) if self.finder_complaint.as_ref() != Some(&why) => {
                log::warn!("D-Bus: the finder's log pages cannot be had: {why}; its last ones stay in force");
                self.finder_complaint = Some(why);
            }
            BusEvent::FinderUnreadable(_) => {}
            BusEvent::AvahiAppeared => log::info!("mDNS: Avahi is there, looking for discovery controllers"),
            BusEvent::AvahiGone => log::warn!("mDNS: Avahi is gone; what it told stays in force"),
            BusEvent::Announced(announcements) => {
                log::debug!("mDNS: {} announced", announcements.len());
                self.facts.announcements = self.facts.announcements.is_some().then(|| announcements.clone());
                self.machine.handle(now, Event::Announced(announcements));
            }
            BusEvent::AvahiComplaint(why) => log::warn!("mDNS: {why}"),
        }
    }

    /// A finder of ours has all that it is to have from its first word on, and tells how far its pages are evidence. That
    /// another one does not list something (any more) may mean anything.
    fn hear_finder(&mut self, now: Instant, pages: Vec<FinderPage>) {
        self.finder_complaint = None;
        self.finder_is_ours |= pages.iter().any(|page| page.state.is_some());
        let reports = reports::reports(&pages);
        self.machine.handle(
            now,
            match self.finder_is_ours {
                true => Event::FinderReports(reports),
                false => Event::FinderMentions(reports),
            },
        );
        self.facts.finder_pages = pages;
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    fn next_deadline(&self) -> Option<Instant> {
        let bus = self.bus.as_ref().and_then(SystemBus::deadline);
        let others = [
            self.probes.deadline(),
            self.requests.deadline(),
            bus,
            self.manager.deadline(),
            self.ready_by,
            self.read_devices_at,
            self.start_helper_at,
            self.state_file.deadline(),
            self.private.deadline(),
            self.stop_by,
        ];
        self.machine.poll_deadline().into_iter().chain(others.into_iter().flatten()).min()
    }

    fn arm_timer(&mut self, now: Instant) -> io::Result<()> {
        let deadline = self.next_deadline();
        if deadline == self.armed {
            return Ok(());
        }
        match deadline {
            Some(at) => {
                // Zero would switch the timer off.
                let wait = at.saturating_duration_since(now).max(Duration::from_nanos(1));
                let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
                self.timer.set(expiration, TimerSetTimeFlags::empty())?;
            }
            None => self.timer.unset()?,
        }
        self.armed = deadline;
        Ok(())
    }

    fn handle_timer(&mut self, now: Instant) -> Result<(), String> {
        // Reading makes the timer readable again at its next expiry; how often it expired does not matter.
        let _ = self.timer.wait();
        self.armed = None;
        self.machine.handle_deadline(now);
        self.probes.handle_deadline(now);
        self.requests.handle_deadline(now);
        self.manager.handle_deadline(now);
        self.handle_replies(now);
        if self.read_devices_at.is_some_and(|at| at <= now) {
            self.read_devices(now);
        }
        if self.state_file.deadline().is_some_and(|at| at <= now) {
            self.state_file.save(now, &self.machine.legacy(now));
        }
        self.private.handle_deadline(now);
        if self.ready_by.is_some_and(|by| by <= now) {
            log::warn!("D-Bus: the bus does not answer; going on without it until it does");
            self.awaited_names.clear();
        }
        if let Some(bus) = &mut self.bus {
            bus.handle_deadline(now);
        }
        if self.start_helper_at.is_some_and(|at| at <= now) {
            self.replace_helper(now)?;
        }
        Ok(())
    }

    // ---- signals -------------------------------------------------------------------------------------------------

    fn handle_signals(&mut self, now: Instant) -> Result<(), String> {
        while let Some(info) = self.signals.read_signal().map_err(|errno| format!("signals: {errno}"))? {
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGHUP) => self.reload(now),
                Some(Signal::SIGCHLD) if self.requests.has_died() => self.replace_helper(now)?,
                Some(Signal::SIGTERM | Signal::SIGINT) => self.stop(now),
                _ => {}
            }
        }
        Ok(())
    }

    fn reload(&mut self, now: Instant) {
        log::info!("reading the configuration again");
        self.manager.reloading();
        if !self.requests.is_ready() {
            self.requests.read_options();
        }
        match self.paths.reload(&self.settings) {
            Some(settings) => {
                self.settings = settings;
                self.apply_settings();
                self.override_udev();
                self.hear_host(now);
                self.machine.handle(now, self.settings.event());
                if let Some(bus) = &mut self.bus {
                    bus.request_names(now);
                    bus.want_announcements(self.settings.announcements(), now);
                }
            }
            None => log::error!("the running configuration stays in force"),
        }
        self.manager.ready();
    }

    fn apply_settings(&mut self) {
        self.facts.set_host(&self.settings.host);
        let announcements = self.facts.announcements.take();
        self.facts.announcements = self.settings.announcements().map(|_| announcements.unwrap_or_default());
        self.facts.set_tron(self.forced_tron || self.settings.tron);
    }

    /// For who finds discovery controllers.
    fn override_udev(&mut self) {
        if self.program.roles().finder && self.udev.is_none() {
            self.udev = Override::begin();
        }
    }

    fn stop(&mut self, now: Instant) {
        log::info!("stopping; I/O connections stay");
        self.manager.stopping();
        self.ready_by = None;
        self.machine.handle(now, Event::Stop);
        self.stop_by = Some(now + STOP_PATIENCE);
    }

    fn is_done(&self, now: Instant) -> bool {
        self.stop_by.is_some_and(|by| by <= now || self.machine.may_stop())
    }

    /// What was asked of the old helper may have been done or not: sysfs tells.
    fn replace_helper(&mut self, now: Instant) -> Result<(), String> {
        let had_failed = self.start_helper_at.take().is_some();
        if !had_failed {
            log::error!("the helper process died; starting another one");
        }
        if let Err(error) = self.requests.restart().and_then(|()| self.register_helper()) {
            if !had_failed {
                log::error!("the helper process cannot be started again: {error}; trying again");
            }
            self.start_helper_at = now.checked_add(LOOK_AGAIN);
            return Ok(());
        }
        let was_short = now.saturating_duration_since(self.helper_started) < HELPER_LIFE;
        self.short_lives = if was_short { self.short_lives.saturating_add(1) } else { 0 };
        if self.short_lives >= SHORT_LIVES {
            return Err("the helper process dies as soon as it is started; see the kernel log".to_owned());
        }
        self.helper_started = now;
        self.read_devices(now);
        self.handle_replies(now);
        if !self.requests.is_ready() {
            self.requests.read_options();
        }
        Ok(())
    }
}

/// What a uevent says, with what sysfs shows at this moment. Fails if it cannot be read.
fn handle_uevent(
    uevent: &Uevent<'_>,
    now: Instant,
    sysfs: &Sysfs,
    machine: &mut Machine,
    requests: &mut Requests,
) -> io::Result<()> {
    let (device, event) = match uevent.nvme_event() {
        NvmeEvent::Controller { device, event } => (device, event),
        NvmeEvent::FabricsDevice => {
            log::info!("{FABRICS} is there");
            requests.read_options();
            return Ok(());
        }
        NvmeEvent::FcDiscovery { traddr, host_traddr } => {
            log::debug!("uevent: Fibre Channel port {traddr} seen from {host_traddr}");
            if let Some(port) = Announcement::fc_port(traddr, host_traddr) {
                machine.handle(now, Event::FcPort(port));
            }
            return Ok(());
        }
        NvmeEvent::None => {
            if uses::may_end_use(uevent) {
                machine.handle(now, Event::UsesChanged);
            }
            return Ok(());
        }
    };
    log::debug!("uevent: {device}: {event:?}");
    match event {
        ControllerEvent::Connected | ControllerEvent::Rediscover => {
            // `None`: it is gone already, and its removal is the next thing we hear.
            if let Some(device) = sysfs.controller(device)? {
                machine.handle(now, Event::DeviceUp(device));
            }
        }
        ControllerEvent::Removed => machine.handle(now, Event::DeviceRemoved(device.to_owned())),
        ControllerEvent::DiscoveryLogChanged => machine.handle(now, Event::LogChanged(device.to_owned())),
        ControllerEvent::Added | ControllerEvent::OtherAen(_) | ControllerEvent::Other => {}
    }
    Ok(())
}

/// Whether an event that cannot be read may have been about a controller.
fn concerns_nvme(message: &[u8]) -> bool {
    message.windows(4).any(|bytes| bytes == b"nvme")
}

fn describe<T, E: std::fmt::Display>(what: &str, outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|error| format!("{what}: {error}"))
}

/// Makes retries of different hosts fall on different moments; nothing secret depends on it.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.subsec_nanos() as u64 ^ (u64::from(std::process::id()) << 32)
}
