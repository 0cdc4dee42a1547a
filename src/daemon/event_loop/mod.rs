//! The poll loop: waits, turns what is ready into events, hands them to the state machines and does what they say.
//!
//! Here is what the process has, and in which order what is ready is handled. [`set_up`] is how it begins,
//! [`configuration`] what the settings change; `uevents`, `helper`, `bus`, `time` and `signals` are where events come
//! from, `actions` is what is done.

mod actions;
mod bus;
mod configuration;
mod ending;
mod helper;
mod set_up;
mod signals;
mod time;
mod uevents;

use std::io;
use std::time::Instant;

use mio::{Events, Poll, Token};
use nix::sys::signalfd::SignalFd;
use nix::sys::timerfd::TimerFd;

use crate::bus::{BusTokens, PrivateServer, Role, SystemBus};
use crate::core::{Event, Machine};
use crate::daemon::claims::Claims;
use crate::daemon::exclusions::Exclusions;
use crate::daemon::firmware::Firmware;
use crate::daemon::goal::{Ended, Goal};
use crate::daemon::network::Network;
use crate::daemon::notify::ServiceManager;
use crate::daemon::options::Program;
use crate::daemon::probe::Probes;
use crate::daemon::publish::{Facts, Published};
use crate::daemon::requests::Requests;
use crate::daemon::settings::Settings;
use crate::daemon::state_file::StateFile;
use crate::daemon::uses::Uses;
use crate::kernel::netlink::KernelSocket;
use crate::kernel::sysfs::Sysfs;
use crate::rarely::Rarely;
use configuration::Reload;

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

/// Everything that the process has.
pub struct Daemon {
    program: Program,
    forced_tron: bool,
    settings: Settings,
    reload: Reload,
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
    overrides_rule: bool,
    bus: Option<SystemBus>,
    private: PrivateServer,
    firmware: Firmware,
    /// Of `stas boot`.
    goal: Option<Goal>,
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
    /// When to try again to have one in reserve.
    make_reserve_at: Option<Instant>,
    short_lives: u32,
    /// When to read all of sysfs after that failed.
    read_devices_at: Option<Instant>,
    lost_uevents: Rarely,
    uses: Uses,
    /// Set by SIGTERM: when to give up waiting.
    stop_by: Option<Instant>,
}

impl Daemon {
    /// Until asked to stop, or to the goal. `Err` when a source of events is lost for good.
    pub fn run(mut self) -> Result<Ended, String> {
        let mut events = Events::with_capacity(256);
        loop {
            let now = Instant::now();
            self.handle_bus_events(now);
            self.act(now);
            if let Some(ended) = self.ended(now) {
                self.claims.settle(now, false);
                self.state_file.finish(now, || self.machine.legacy(now));
                return Ok(ended);
            }
            self.private.accept_starved();
            self.listen_to_network(now);
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
            self.read_exclusions(now);
        }
        // Replies are taken in before the uevents are drained and acted upon after that: then all that the kernel said
        // before a reply was sent is known when the reply is handled, and a recycled device name cannot be mistaken.
        let helper_lost = is_ready(HELPER) && self.requests.receive().is_err();
        if is_ready(UEVENTS) || is_ready(HELPER) {
            self.drain_uevents(now)?;
        }
        self.handle_replies(now);
        if helper_lost {
            self.replace_helper(now)?;
        }
        for event in events {
            self.handle_token(now, event.token());
        }
        if is_ready(USES) {
            self.machine.handle(now, Event::UsesChanged);
        }
        if is_ready(TIMER) {
            self.handle_timer(now);
        }
        self.handle_probes(now);
        if is_ready(NETWORK) {
            for change in self.network.ready() {
                log::debug!("the network changed: {change:?}");
                self.machine.handle(now, Event::NetworkChanged(change));
            }
            self.look_for_interfaces(now);
        }
        Ok(())
    }

    /// Probes and clients, of which there may be many.
    fn handle_token(&mut self, now: Instant, token: Token) {
        if self.probes.has_token(token) {
            return self.probes.ready(now, token);
        }
        let Daemon { machine, requests, sysfs, facts, .. } = self;
        let mut published = Published { machine, requests, sysfs, facts };
        if self.private.has_token(token) {
            self.private.ready(token, &mut published);
        } else if let Some(bus) = &mut self.bus
            && (token == BUS.bus || token == BUS.watch)
        {
            bus.ready(token, now, &mut published);
        }
    }

    /// As long as a change of the network can help anybody.
    fn listen_to_network(&mut self, now: Instant) {
        let somebody_waits = self.machine.waits_for_network() || self.firmware.is_waiting();
        if self.network.listen(somebody_waits, self.poll.registry()) {
            // What changed before nobody heard.
            self.look_for_interfaces(now);
        }
    }

    fn handle_probes(&mut self, now: Instant) {
        while let Some((portal, outcome)) = self.probes.poll_outcome() {
            self.machine.handle(now, Event::Probed { portal, outcome });
            self.probes.start_waiting(now, self.poll.registry());
        }
    }
}
