//! What is done to the world: by the administrator, the network, others on this host.

use super::*;

impl World {
    pub(super) fn do_deed(&mut self, deed: Deed) -> Result<(), String> {
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

    pub(super) fn relist(&mut self, discovery: usize, paths: Set, cut: bool) {
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

    pub(super) fn set_reach(&mut self, address: &'static str, reach: Reach) {
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

    pub(super) fn reload(&mut self, configuration: Configuration) {
        self.leniency |= !configuration.disconnects;
        self.configuration = configuration;
        self.oracle.configured(&self.configuration);
        self.reloaded = true;
        self.hand_in(self.generation, daemon::configured(&self.configuration));
    }

    /// The calls that the helper's children are at go on; nobody hears of their outcome.
    pub(super) fn kill(&mut self, down: Duration) {
        if self.daemon.take().is_some() {
            self.leniency = true;
            self.happen_in(down, Happening::Start);
        }
    }

    pub(super) fn stop(&mut self, down: Duration) -> Result<(), String> {
        if let Some(daemon) = &mut self.daemon {
            daemon.stopping = true;
        }
        self.hand_in(self.generation, Event::Stop);
        self.act()?;
        self.kill(down);
        Ok(())
    }

    pub(super) fn start_daemon(&mut self) {
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
    pub(super) fn kill_helper(&mut self) {
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
    pub(super) fn heal(&mut self) -> Result<(), String> {
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
}
