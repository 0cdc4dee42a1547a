//! What is done to the world: by the administrator, the network, others on this host.

use stas::core::network::NetworkChange;

use super::*;

impl World {
    pub(super) fn do_deed(&mut self, deed: Deed) -> Result<(), String> {
        let all = self.processes.len();
        match deed {
            Deed::Relist { discovery, paths, refers, cut } => self.relist(discovery, Listing { paths, refers }, cut),
            Deed::Reach { address, reach } => self.set_reach(address, reach),
            Deed::Announce(set) => {
                self.announced = set;
                self.oracle.announced(set);
                self.hand_in_all(|| words::announced(set));
            }
            Deed::Reload(configuration) => self.reload(configuration),
            Deed::HostExclude(exclude) => {
                self.host_excluded = exclude;
                for process in 0..all {
                    let latency = self.chance.latency("inotify");
                    self.happen_in(latency, Happening::HostExcludes { process });
                }
            }
            Deed::Kill { process, down } => self.kill(process % all, down),
            Deed::Stop { process, down } => self.stop(process % all, down)?,
            Deed::ReadOnly { process } => self.processes[process % all].read_only = true,
            Deed::LoseUevents { process, time } => {
                self.processes[process % all].deaf = true;
                self.happen_in(time, Happening::Overflow { process: process % all });
            }
            Deed::RepeatUevents => {
                let live = self.kernel.controllers.iter().filter(|(_, controller)| controller.state == State::Live);
                let again: Vec<_> =
                    live.flat_map(|(number, _)| [Uevent::Up(*number), Uevent::LogChanged(*number)]).collect();
                again.into_iter().for_each(|uevent| self.send(uevent));
            }
            Deed::HelperDies { process } => self.kill_helper(process % all),
            Deed::BusGone { time } => self.bus_goes_away(time),
            Deed::Link { up } => self.set_link(up),
            Deed::LinksComeAndGo { times } => {
                for number in 0..times {
                    self.hear_network(NetworkChange::Link(format!("veth{number}")));
                    self.hear_network(NetworkChange::Anything);
                }
            }
            Deed::Rename(lookup) => {
                self.lookup = lookup;
                if let Lookup::Addresses(set) = lookup {
                    self.oracle.renamed(set);
                }
            }
            Deed::Mount(set) => self.mount(set),
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
            Deed::FabricsGone { process, time } => {
                if let Some(daemon) = &self.processes[process % all].daemon {
                    let generation = daemon.generation;
                    self.hand_in(generation, Event::FabricsReady(false));
                    self.happen_in(time, Happening::FabricsBack { generation });
                }
            }
        }
        Ok(())
    }

    fn relist(&mut self, discovery: usize, listing: Listing, cut: bool) {
        self.listed[discovery] = listing;
        let any = self.listed.iter().fold(0, |any, listed| any | listed.paths);
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

    fn set_link(&mut self, up: bool) {
        let reach = if up { Reach::Answers } else { Reach::Silent };
        ADDRESSES.into_iter().for_each(|address| self.set_reach(address, reach));
        if up {
            self.hear_network(NetworkChange::Link(INTERFACE.into()));
            let ip = "192.0.2.200".parse().unwrap();
            self.hear_network(NetworkChange::Address { interface: INTERFACE.into(), ip });
        }
    }

    /// Who waits for nothing does not listen.
    fn hear_network(&mut self, change: NetworkChange) {
        let now = self.instant();
        for daemon in self.processes.iter_mut().filter_map(|process| process.daemon.as_mut()) {
            if daemon.machine.waits_for_network() {
                daemon.machine.handle(now, Event::NetworkChanged(change.clone()));
            }
        }
    }

    fn mount(&mut self, set: Set) {
        self.mounted = set;
        let now = self.instant();
        for daemon in self.processes.iter_mut().filter_map(|process| process.daemon.as_mut()) {
            if daemon.machine.links().keeps_what_is_used() {
                daemon.machine.handle(now, Event::UsesChanged);
            }
        }
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
        self.leniency |= configuration.scope == Scope::Nothing;
        self.configuration = configuration;
        self.oracle.configured(&self.configuration);
        self.reload_daemon(0);
        for process in 1..self.processes.len() {
            let latency = self.chance.latency("reload");
            self.happen_in(latency, Happening::Reload { process });
        }
    }

    pub(super) fn reload_daemon(&mut self, process: usize) {
        let Some(daemon) = &mut self.processes[process].daemon else { return };
        daemon.configuration = self.configuration.clone();
        let generation = daemon.generation;
        self.hear_exclusions(process);
        self.hand_in(generation, words::configured(&self.configuration));
    }

    pub(super) fn hear_exclusions(&mut self, process: usize) {
        let exclude = self.host_excluded;
        let Some(daemon) = &mut self.processes[process].daemon else { return };
        daemon.host_excluded = exclude;
        let generation = daemon.generation;
        self.hand_in(generation, words::host_excludes(exclude));
    }

    /// The calls that the helper's children are at go on; nobody hears of their outcome.
    fn kill(&mut self, process: usize, down: Duration) {
        if let Some(daemon) = self.processes[process].daemon.take() {
            self.part_bus(daemon.generation);
            self.leniency = true;
            self.happen_in(down, Happening::Start { process });
        }
    }

    fn stop(&mut self, process: usize, down: Duration) -> Result<(), String> {
        if let Some(daemon) = &mut self.processes[process].daemon {
            daemon.stopping = true;
            let generation = daemon.generation;
            self.hand_in(generation, Event::Stop);
        }
        self.act()?;
        self.kill(process, down);
        Ok(())
    }

    pub(super) fn start_daemon(&mut self, process: usize) -> Result<(), String> {
        if self.processes[process].daemon.is_some() {
            return Ok(());
        }
        self.last_generation += 1;
        self.last_era += 1;
        let seed = self.chance.below("daemon", u64::MAX);
        let (generation, configuration) = (self.last_generation, self.configuration.clone());
        self.processes[process].start(generation, self.last_era, seed, configuration)?;
        if self.processes[process].roles.connector {
            self.oracle.start_from(&self.processes[process].disk.oracle);
            self.oracle.configured(&self.configuration);
        }
        self.hand_in_devices(process);
        self.hear_exclusions(process);
        self.hand_in(generation, words::configured(&self.configuration));
        self.hand_in(generation, Event::FabricsReady(true));
        self.hand_in(generation, words::announced(self.announced));
        self.join_bus(generation);
        Ok(())
    }

    /// Whatever was asked of it is answered with a failure, although it may be carried out.
    fn kill_helper(&mut self, process: usize) {
        self.last_era += 1;
        self.processes[process].era = self.last_era;
        self.leniency = true;
        let Some(daemon) = &mut self.processes[process].daemon else { return };
        let generation = daemon.generation;
        let mut failures = Vec::new();
        for ticket in std::mem::take(&mut daemon.connects).into_keys() {
            failures.push(Event::Connected { ticket, outcome: Err(Failure::ChildDied) });
        }
        for ticket in std::mem::take(&mut daemon.disconnects).into_keys() {
            failures.push(Event::Disconnected { ticket, outcome: Err(Failure::ChildDied) });
        }
        for ticket in std::mem::take(&mut daemon.resolves) {
            failures.push(Event::Resolved { ticket, outcome: Err("it died".into()) });
        }
        for (ticket, command) in std::mem::take(&mut daemon.commands) {
            failures.push(match command {
                Command::Register => Event::Registered { ticket, outcome: Err(Failure::ChildDied) },
                Command::Inquire => Event::Inquired { ticket, outcome: Err(Failure::ChildDied) },
                Command::Read => Event::PageRead { ticket, outcome: Err("it died".into()) },
            });
        }
        self.hand_in_devices(process);
        for failure in failures {
            self.hand_in(generation, failure);
        }
    }

    /// All is well from now on.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        for address in self.reach.keys().copied().collect::<Vec<_>>() {
            self.set_reach(address, Reach::Answers);
        }
        self.refused = 0;
        self.misread.clear();
        self.failing_connects = None;
        self.failing_disconnects = 0;
        self.lookup = Lookup::Addresses(0b010);
        self.mount(0);
        self.hand_in_all(|| Event::FabricsReady(true));
        Ok(())
    }
}
