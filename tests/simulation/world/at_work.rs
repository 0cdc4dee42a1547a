//! What the simulated kernel does: connects, disconnects, admin commands, connections lost and found.

use super::*;

impl World {
    pub(super) fn begin_connect(&mut self) -> Result<(), String> {
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

    pub(super) fn end_connect(&mut self) -> Result<(), String> {
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

    pub(super) fn connect_outcome(&mut self, connect: &Connect) -> Result<(), Errno> {
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
    pub(super) fn begin_disconnect(&mut self, generation: u32, ticket: Ticket, device: &Device) {
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
        let subsystem = path_of(&controller.id).map(|path| path / 2);
        if let Some(subsystem) = subsystem.filter(|subsystem| self.mounted & (1 << subsystem) != 0)
            && !self.has_other_path(number, subsystem)
        {
            let failure = Failure::InUse(format!("the disk of nqn.s{subsystem} is mounted"));
            return self.reply(generation, Reply::Disconnected(ticket, Err(failure)));
        }
        let Some(controller) = self.kernel.controllers.get_mut(&number) else { return };
        controller.state = State::Deleting;
        let serial = controller.serial;
        let takes = self.chance.latency("delete");
        self.happen_in(takes, Happening::Disconnected { generation, ticket, serial });
    }

    /// Whether the disks of a subsystem are there without this controller.
    pub(super) fn has_other_path(&self, number: u32, subsystem: usize) -> bool {
        self.kernel.controllers.iter().any(|(other, controller)| {
            let leads_there = path_of(&controller.id).is_some_and(|path| path / 2 == subsystem);
            leads_there && *other != number && controller.state == State::Live
        })
    }

    /// What the name server says.
    pub(super) fn look_up(&mut self, generation: u32, ticket: Ticket) {
        let outcome = match self.lookup {
            Lookup::Addresses(set) => Ok(members(set).map(|which| DISCOVERY[which].to_owned()).collect()),
            Lookup::Fails => Err("no such name".to_owned()),
        };
        self.reply(generation, Reply::Resolved(ticket, outcome));
    }

    pub(super) fn end_disconnect(&mut self, generation: u32, ticket: Ticket, serial: u64) {
        if let Some(number) = self.kernel.find(serial) {
            self.remove(number);
        }
        self.reply(generation, Reply::Disconnected(ticket, Ok(())));
    }

    pub(super) fn carry_out(&mut self, generation: u32, ticket: Ticket, command: Command, asked: Option<&Device>) {
        let outcome = self.served_by(asked).and_then(|(which, serial)| Ok((which, self.answer(which, serial)?)));
        let failed = |failure: &Failure| failure.to_string();
        let reply = match command {
            Command::Register => Reply::Registered(ticket, outcome.map(|(which, _)| self.nature[which].registers)),
            Command::Inquire => {
                let can = |which: usize| Capabilities { notices: self.nature[which].notices, pleo: None, piece: 0 };
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
    pub(super) fn served_by(&self, asked: Option<&Device>) -> Result<(usize, u64), Failure> {
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
    pub(super) fn answer(&mut self, which: usize, serial: u64) -> Result<Option<Fault>, Failure> {
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

    /// The serials of the controllers of which this is true.
    pub(super) fn controllers_of(&self, is_such: impl Fn(&LinkId) -> bool) -> Vec<u64> {
        let such = self.kernel.controllers.values().filter(|one| one.is_usable() && is_such(&one.id));
        such.map(|one| one.serial).collect()
    }

    pub(super) fn lose(&mut self, serial: u64) -> Duration {
        let number = self.kernel.find(serial);
        if let Some(controller) = number.and_then(|number| self.kernel.controllers.get_mut(&number))
            && controller.state == State::Live
        {
            controller.state = State::Lost;
            self.lost_at.insert(serial, self.now);
        }
        self.lost_at.get(&serial).copied().unwrap_or(self.now)
    }

    pub(super) fn give_up(&mut self, serial: u64, lost_at: Duration) {
        let number = self.kernel.find(serial).filter(|_| self.lost_at.get(&serial) == Some(&lost_at));
        if let Some(number) = number.filter(|number| self.kernel.controllers[number].state == State::Lost) {
            self.remove(number);
        }
    }

    pub(super) fn recover(&mut self, serial: u64) {
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

    pub(super) fn remove(&mut self, number: u32) {
        self.kernel.remove(number);
        self.wake();
    }

    pub(super) fn send(&mut self, uevent: Uevent) {
        self.kernel.uevents.push(uevent);
        self.wake();
    }

    /// Whatever the kernel has to say goes to every process.
    fn wake(&mut self) {
        for uevent in std::mem::take(&mut self.kernel.uevents) {
            self.processes.iter_mut().for_each(|process| process.uevents.push_back(uevent.clone()));
        }
        for process in 0..self.processes.len() {
            let latency = self.chance.latency("wake");
            self.happen_in(latency, Happening::Readable { process });
        }
    }
}
