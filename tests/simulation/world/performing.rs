//! What our processes are told, and what they ask for.

use super::*;

impl World {
    // ---- what they are told ----------------------------------------------------------------------------------------

    pub(super) fn drain_uevents(&mut self, process: usize) {
        while let Process { deaf: false, uevents, daemon: Some(daemon), .. } = &mut self.processes[process]
            && let Some(uevent) = uevents.pop_front()
        {
            let generation = daemon.generation;
            let event = match uevent {
                Uevent::Up(number) => self.kernel.device(number).map(Event::DeviceUp),
                Uevent::Removed(number) => Some(Event::DeviceRemoved(format!("nvme{number}"))),
                Uevent::LogChanged(number) => Some(Event::LogChanged(format!("nvme{number}"))),
            };
            if let Some(event) = event {
                self.hand_in(generation, event);
            }
        }
    }

    /// Events were lost: sysfs tells what there is.
    pub(super) fn read_again(&mut self, process: usize) {
        self.processes[process].deaf = false;
        self.processes[process].uevents.clear();
        self.hand_in_devices(process);
    }

    pub(super) fn hand_in_devices(&mut self, process: usize) {
        if let Some(daemon) = &self.processes[process].daemon {
            self.hand_in(daemon.generation, Event::DevicesRead(self.kernel.devices()));
        }
    }

    pub(super) fn reply(&mut self, generation: u32, reply: Reply) {
        let latency = self.chance.latency("reply");
        self.happen_in(latency, Happening::Reply { generation, reply });
    }

    /// Replies come after the uevents that preceded them, unless those were lost: then sysfs is read again first.
    pub(super) fn hand_in_reply(&mut self, generation: u32, reply: Reply) {
        let Some(process) = self.process_of(generation) else { return };
        if self.processes[process].deaf {
            self.read_again(process);
        }
        self.drain_uevents(process);
        let Some(daemon) = &mut self.processes[process].daemon else { return };
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
            Reply::Resolved(ticket, outcome) if daemon.resolves.remove(&ticket) => {
                self.hand_in(generation, Event::Resolved { ticket, outcome });
            }
            Reply::Page(ticket, outcome) if daemon.commands.remove(&ticket).is_some() => {
                let delivered = outcome.clone();
                let outcome = outcome.map(|(which, Listing { paths, refers }, fault)| {
                    words::page(which, paths, refers, self.nature[which].declines, fault).into()
                });
                self.hand_in(generation, Event::PageRead { ticket, outcome });
                if let Ok((which, listing, None)) = delivered
                    && self.bus.is_none()
                {
                    self.note_page(process, which, listing);
                }
            }
            _ => {}
        }
    }

    /// A page counts for the oracle if the finder has taken it: it may have been too late, or no page at all.
    fn note_page(&mut self, process: usize, which: usize, Listing { paths, refers }: Listing) {
        let Some(daemon) = &mut self.processes[process].daemon else { return };
        let Some(finder) = daemon.machine.finder() else { return };
        let expected: BTreeSet<(&str, &str)> = members(paths).map(|path| PATHS[path]).collect();
        for tid in finder.controllers().filter(|tid| tid.traddr() == DISCOVERY[which]) {
            let Some(page) = finder.page(tid) else { continue };
            let contents = Contents::of_page(page, tid);
            let is_this = contents.paths.len() == expected.len()
                && contents.paths.keys().all(|path| expected.contains(&(path.subsysnqn(), path.traddr())))
                && set_of(contents.referrals.iter().map(|tid| tid.traddr())) == refers;
            if is_this {
                daemon.heard.insert(which);
                self.oracle.page_delivered(which, Said { paths, refers }, &self.configuration);
            }
        }
    }

    // ---- what they ask for -----------------------------------------------------------------------------------------

    pub(super) fn act(&mut self) -> Result<(), String> {
        let now = self.instant();
        for process in 0..self.processes.len() {
            let Some(daemon) = &mut self.processes[process].daemon else { continue };
            for action in daemon.actions(now)? {
                self.perform(process, action)?;
            }
        }
        if self.bus.is_none()
            && let Some(finder) = self.processes[0].daemon.as_ref().and_then(|daemon| daemon.machine.finder())
        {
            let is_known = |which| finder.controllers().any(|tid| discovery_at(tid.traddr()) == Some(which));
            let usable = self.kernel.controllers.values().filter(|one| one.is_usable());
            let connected = usable.filter_map(|one| path_of(&one.id)).fold(0, |set, path| set | 1 << path);
            self.oracle.forget(&self.configuration, connected, is_known);
        }
        Ok(())
    }

    fn perform(&mut self, process: usize, action: Action) -> Result<(), String> {
        self.tell(|| format!("    {process}: {action:?}"));
        let Process { daemon: Some(daemon), era, read_only, .. } = &mut self.processes[process] else { return Ok(()) };
        let (generation, era, read_only) = (daemon.generation, *era, *read_only);
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
                if daemon.host_excluded.covers(id.tid.subsysnqn(), id.tid.traddr()) {
                    return Err(format!("{id} is connected, and the host excludes it"));
                }
                daemon.connects.insert(ticket, id.clone());
                let latency = self.chance.latency("fork");
                let connect = Connect { id, asked: Some((generation, ticket)), era: Some(era), number: None };
                self.happen_in(latency, Happening::Submit(connect));
            }
            Action::Disconnect { ticket, device } => {
                daemon.disconnects.insert(ticket, device.name.clone());
                self.check_disconnect(process, &device)?;
                self.doomed
                    .extend(self.kernel.controllers.get(&number_of(&device.name)).map(|controller| controller.serial));
                let latency = self.chance.latency("fork");
                self.happen_in(latency, Happening::Disconnect { generation, ticket, device });
            }
            Action::Register { ticket, device } => self.command(process, ticket, Command::Register, &device),
            Action::Inquire { ticket, device, .. } => self.command(process, ticket, Command::Inquire, &device),
            Action::ReadLogPage { ticket, device, .. } => self.command(process, ticket, Command::Read, &device),
            Action::Resolve { ticket, .. } => {
                daemon.resolves.insert(ticket);
                let latency = self.chance.latency("name server");
                self.happen_in(latency, Happening::Resolve { generation, ticket });
            }
            Action::ReadDevices => self.hand_in_devices(process),
            // A host without Fibre Channel.
            Action::AskFcPorts => self.hand_in(generation, Event::FcPortsTold { answered: false }),
            Action::Save if !read_only => {
                let legacy = daemon.machine.legacy(self.epoch + self.now);
                self.processes[process].disk = Disk { legacy, oracle: self.oracle.clone() };
            }
            Action::Publish(change) => self.publish(generation, &change),
            Action::Save | Action::Note(_) => {}
        }
        Ok(())
    }

    fn command(&mut self, process: usize, ticket: Ticket, command: Command, device: &str) {
        let Some(daemon) = &mut self.processes[process].daemon else { return };
        daemon.commands.insert(ticket, command);
        let device = daemon.machine.links().device(device).cloned().map(Box::new);
        let generation = daemon.generation;
        let latency = self.chance.latency("command");
        self.happen_in(latency, Happening::Command { generation, ticket, command, device });
    }
}

/// The discovery controllers at these addresses.
pub(super) fn set_of<'a>(addresses: impl Iterator<Item = &'a str>) -> Set {
    addresses.fold(0, |set, traddr| set | 1 << discovery_at(traddr).unwrap())
}
