//! Walks: any event, in any order, nonsense included, as a string of bytes has it. The bytes come from a generator here, and
//! from the fuzzer in its target `core`. [`World`] checks what must hold.

use super::*;
use crate::core::Report;
use crate::core::finder::Origin;
use crate::core::network::NetworkChange;
use crate::core::page::Contents;

/// One choice after the other, out of a string of bytes.
struct Random<'a>(std::slice::Iter<'a, u8>);

impl Random<'_> {
    /// Of the first, when there are no bytes any more.
    fn below(&mut self, bound: usize) -> usize {
        let width = if bound <= 256 { 1 } else { 3 };
        self.0.by_ref().take(width).fold(0, |value, byte| value << 8 | usize::from(*byte)) % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

const PATHS: [&str; 5] =
    ["nqn.a@192.0.2.9", "nqn.b@192.0.2.9", "nqn.a@192.0.2.9%eth0", "nqn.a@192.0.2.9%eth1", "nqn.c@192.0.2.10"];
const REFERRALS: [&str; 5] = [">192.0.2.1", ">192.0.2.2", ">192.0.2.3", ">192.0.2.4", ">nqn.dc1@192.0.2.3"];
const ERRNOS: [Errno; 5] = [Errno::EIO, Errno::EALREADY, Errno::ETIMEDOUT, Errno::ECONNREFUSED, Errno::ENOKEY];

/// Most steps of a walk.
const STEPS: usize = 200;

struct Walk<'a> {
    world: World,
    random: Random<'a>,
}

impl Walk<'_> {
    fn name(&mut self) -> String {
        format!("nvme{}", self.random.below(8))
    }

    fn free_name(&mut self) -> Option<String> {
        let name = self.name();
        self.world.machine.links().device(&name).is_none().then_some(name)
    }

    fn some_paths(&mut self) -> Vec<&'static str> {
        PATHS.into_iter().filter(|_| self.random.one_in(2)).collect()
    }

    fn some_device(&mut self, name: &str) -> Device {
        let path = self.random.pick(&PATHS);
        let id = if self.random.one_in(4) { dc(DC) } else { io(path) };
        let mut device = serving(&id, name);
        if self.random.one_in(8) {
            device.state = "deleting".into();
        }
        device
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0 => self.reload(),
            15 => {
                let lists: [&[&str]; 4] = [&[], &["nqn.a"], &["nqn.b", "nqn.c"], &[DISCOVERY_NQN]];
                let nqns = *self.random.pick(&lists);
                self.world.exclude(nqns);
            }
            7..=8 if self.world.machine.finder().is_none() => self.finder_speaks(),
            1..=3 => self.probe_answered(),
            4..=5 => self.connect_answered(),
            6 => self.disconnect_answered(),
            7..=8 => self.page_answered(),
            9 => {
                let name = self.name();
                self.world.removed(&name);
            }
            10 => {
                // A name that is in use names another controller only after it was removed.
                if let Some(name) = self.free_name() {
                    let device = self.some_device(&name);
                    self.world.up(&device);
                }
            }
            11 => {
                let name = self.name();
                self.world.aen(&name);
            }
            12 => {
                let time = Duration::from_millis(self.random.below(100_000) as u64);
                self.world.pass(time);
            }
            13 => {
                let announced = [DC, "192.0.2.2", "192.0.2.3"].into_iter().filter(|_| self.random.one_in(2));
                let announced: Vec<_> = announced.collect();
                self.world.announce(&announced);
            }
            14 => self.name_answered(),
            _ => self.nonsense(),
        }
    }

    fn reload(&mut self) {
        let paths = self.some_paths().into_iter().map(|path| {
            let (nqn, traddr) = path.split_once('@').unwrap();
            let (traddr, iface) = traddr.split_once('%').unwrap_or((traddr, ""));
            via(iface, entry(traddr, nqn))
        });
        self.world.settings.io = paths.collect();
        if self.random.one_in(3) {
            self.world.settings.io.push(entry("array", "nqn.a"));
        }
        let discovery = [entry(DC, ""), entry(DC, "nqn.dc1"), entry("192.0.2.2", ""), entry("array", "")];
        self.world.settings.discovery = discovery.into_iter().filter(|_| self.random.one_in(2)).collect();
        let excluded = Exclusion { subsysnqn: "nqn.b".into(), ..Exclusion::default() };
        self.world.settings.exclusions = if self.random.one_in(4) { vec![excluded] } else { vec![] };
        let scopes = [
            DisconnectScope::OnlyStasConnections,
            DisconnectScope::NoDisconnect,
            DisconnectScope::AllConnectionsMatchingDisconnectTrtypes,
        ];
        self.world.settings.attempts_on_ncc = if self.random.one_in(2) { Some(2) } else { None };
        self.world.settings.options.tls = if self.random.one_in(4) { Some(false) } else { None };
        let spans = [Persistence::Forever, Persistence::For(Duration::ZERO), Persistence::For(Duration::from_secs(60))];
        self.world.settings.persistence = *self.random.pick(&spans);
        self.world.settings.ignore_iface = self.random.one_in(4);
        self.world.settings.persistent = *self.random.pick(&[Persistent::Auto, Persistent::No, Persistent::Force]);
        self.world.settings.symname = if self.random.one_in(4) { "rack1" } else { "" }.into();
        self.world.can.notices = self.random.one_in(2);
        self.world.by_hand = self.random.one_in(2);
        self.world.settings.scope = *self.random.pick(&scopes);
        self.world.configure();
    }

    fn probe_answered(&mut self) {
        if !self.world.probes.is_empty() {
            let index = self.random.below(self.world.probes.len());
            let portal = self.world.probes.remove(index);
            let outcome = if self.random.one_in(3) { Err("silence".into()) } else { Ok(()) };
            self.world.event(Event::Probed { portal, outcome });
        }
    }

    fn connect_answered(&mut self) {
        if self.world.connects.is_empty() {
            return;
        }
        let index = self.random.below(self.world.connects.len());
        let (ticket, id) = self.world.connects.remove(index);
        let outcome = match (self.random.below(6), self.free_name()) {
            (0..=3, Some(name)) => {
                self.world.ours.insert(name.clone());
                Ok(Some(serving(&id, &name)))
            }
            (4, _) => Ok(None),
            _ => Err(Failure::from(*self.random.pick(&ERRNOS))),
        };
        self.world.event(Event::Connected { ticket, outcome });
    }

    fn disconnect_answered(&mut self) {
        if self.world.disconnects.is_empty() {
            return;
        }
        let (ticket, device) = self.world.disconnects.remove(0);
        match self.random.below(5) {
            0 => self.world.event(Event::Disconnected { ticket, outcome: Err(Failure::from(Errno::EBUSY)) }),
            4 => self.world.event(Event::Disconnected { ticket, outcome: Err(Failure::InUse("mounted".into())) }),
            1 => {
                self.world.event(Event::Disconnected { ticket, outcome: Ok(()) });
                self.world.removed(&device.name);
            }
            _ => {
                self.world.removed(&device.name);
                self.world.event(Event::Disconnected { ticket, outcome: Ok(()) });
            }
        }
    }

    fn name_answered(&mut self) {
        if !self.world.resolves.is_empty() {
            let some = [DC, "192.0.2.9", "192.0.2.2"].into_iter().filter(|_| self.random.one_in(2));
            let addresses: Vec<&str> = some.collect();
            match self.random.one_in(4) {
                true => self.world.unresolved(),
                false => self.world.resolved(&addresses),
            }
        }
    }

    fn page_answered(&mut self) {
        self.steps_answered();
        if !self.world.page_reads.is_empty() {
            let paths = self.some_paths().into_iter().filter(|path| !path.contains('%'));
            let referrals = REFERRALS.into_iter().filter(|_| self.random.one_in(4));
            let listed: Vec<_> = paths.chain(referrals).collect();
            match self.random.below(5) {
                0 => self.world.page_read(Err("no".into())),
                1 => self.world.declining_page(&listed),
                2 => {
                    let terms = ([0, 1, 4][self.random.below(3)], [0, 4][self.random.below(2)]);
                    let listed: Vec<_> = listed.into_iter().map(|path| (path, terms.0, terms.1)).collect();
                    self.world.page_read(Ok(page_on_terms(&listed).into()));
                }
                _ => self.world.page(&listed),
            }
        }
    }

    /// The finder is another process.
    fn finder_speaks(&mut self) {
        let sources = [DC, "192.0.2.2", "192.0.2.3"].into_iter().filter(|_| self.random.one_in(2));
        let sources: Vec<_> = sources.collect();
        let mut report = |source: &str| {
            let paths = self.some_paths();
            let referrals = ["192.0.2.2", "192.0.2.3"].into_iter().filter(|_| self.random.one_in(4));
            Report {
                source: dc(source).tid,
                referrals: referrals.map(|traddr| dc(traddr).tid).collect(),
                testimony: if self.random.one_in(3) { stale(&paths) } else { fresh(&paths) },
                origin: *self.random.pick(&[Origin::Configured, Origin::Discovered, Origin::Referral]),
                connected: self.random.one_in(2),
            }
        };
        let reports = sources.into_iter().map(&mut report).collect();
        self.world.event(match self.random.below(6) {
            0 => Event::FinderGone,
            1 => Event::FinderMentions(reports),
            _ => Event::FinderReports(reports),
        });
    }

    fn steps_answered(&mut self) {
        let failures = [Failure::Interrupted, Failure::NotReady, Failure::NvmeStatus(6)];
        let failure = if self.random.one_in(2) { Some(self.random.pick(&failures).clone()) } else { None };
        if !self.world.registers.is_empty() {
            self.world.registered(failure.map_or(Ok(true), Err));
        } else if !self.world.inquiries.is_empty() {
            let can = self.world.can;
            self.world.inquired(failure.map_or(Ok(can), Err));
        }
    }

    fn nonsense(&mut self) {
        let ticket = self.random.below(1000) as Ticket;
        if self.is_asked(ticket) {
            return;
        }
        let event = match self.random.below(7) {
            6 => Event::UsesChanged,
            0 => Event::Connected { ticket, outcome: Err(Failure::Gone) },
            1 => Event::Disconnected { ticket, outcome: Ok(()) },
            2 => Event::PageRead { ticket, outcome: Ok(page(&[]).into()) },
            3 => Event::Probed { portal: PortalId::of(&io(PATHS[0]).tid, true).unwrap(), outcome: Ok(()) },
            4 => Event::FabricsReady(!self.random.one_in(4)),
            5 => Event::NetworkChanged(NetworkChange::Link("eth0".into())),
            _ => {
                // Events were lost: some are gone, some are new, some names are others' by now.
                let known: Vec<Device> = self.world.machine.links().devices().cloned().collect();
                let mut devices: Vec<Device> = known.into_iter().filter(|_| !self.random.one_in(4)).collect();
                if let Some(name) = self.free_name() {
                    devices.push(self.some_device(&name));
                }
                if let Some(recycled) = devices.first().map(|device| device.name.clone()) {
                    let device = self.some_device(&recycled);
                    if !device.is_same_controller(&devices[0]) {
                        self.world.ours.remove(&recycled);
                        devices[0] = device;
                    }
                }
                Event::DevicesRead(devices)
            }
        };
        self.world.event(event);
    }

    fn is_asked(&self, ticket: Ticket) -> bool {
        let connects = self.world.connects.iter().map(|(asked, _)| *asked);
        let disconnects = self.world.disconnects.iter().map(|(asked, _)| *asked);
        let World { page_reads, registers, inquiries, .. } = &self.world;
        let steps = page_reads.iter().chain(registers).chain(inquiries).map(|(asked, _)| *asked);
        let names = self.world.resolves.iter().map(|(asked, _)| *asked);
        connects.chain(disconnects).chain(steps).chain(names).any(|asked| asked == ticket)
    }

    /// Wanted is what can be reached from what is configured or announced, by the last good pages: nothing else, and
    /// nothing less, but what is there by another name.
    fn check_roster(&self) {
        let Some(finder) = self.world.machine.finder() else { return };
        let is_root = |tid: &&Rc<TransportId>| finder.origin(tid) != Some(Origin::Referral);
        let mut reached: BTreeSet<_> = finder.controllers().filter(is_root).cloned().collect();
        let mut frontier = reached.clone();
        while let Some(lister) = frontier.pop_first() {
            let listed = finder.page(&lister).map(|page| Contents::of_page(page, &lister).referrals);
            for tid in listed.into_iter().flatten().filter(|tid| !reached.contains(tid)).collect::<Vec<_>>() {
                if finder.knows(&tid) {
                    frontier.insert(tid.clone());
                    reached.insert(tid);
                } else {
                    let is_there = |other: &&Rc<TransportId>| other.traddr() == tid.traddr();
                    assert!(finder.controllers().any(|other| is_there(&other)), "{tid} is not followed");
                }
            }
        }
        let roster: BTreeSet<_> = finder.controllers().cloned().collect();
        assert_eq!(roster, reached);
    }

    /// Who was referred to is so after a restart, before anybody has been heard.
    fn check_restart(&self) {
        let before = &self.world;
        let Some(finder) = before.machine.finder() else { return };
        let devices: Vec<Device> = before.machine.links().devices().cloned().collect();
        let mut after = World::new();
        after.settings = before.settings.clone();
        after.inherit(before.machine.legacy(before.now), devices);
        after.configure();
        // Who is called by a name refers to nobody before the name is resolved; what was listed waits for it.
        if before.settings.discovery.iter().any(|entry| entry.traddr == "array") {
            return;
        }
        for tid in finder.controllers().filter(|tid| finder.origin(tid) == Some(Origin::Referral)) {
            assert!(after.machine.finder().unwrap().knows(tid), "{tid} is forgotten");
        }
    }

    /// Whatever happened: when nothing is wanted any more and all is answered, nothing is left.
    fn wind_up(&mut self) {
        self.world.event(Event::FabricsReady(true));
        self.world.settings.io.clear();
        self.world.settings.discovery.clear();
        // What was announced is known until it is excluded.
        let everything = Exclusion { transport: Some(Transport::Tcp), ..Exclusion::default() };
        self.world.settings.exclusions = vec![everything];
        self.world.settings.scope = DisconnectScope::OnlyStasConnections;
        self.world.configure();
        if self.world.machine.finder().is_none() {
            self.world.event(Event::FinderReports(Vec::new()));
        }
        while !self.world.connects.is_empty() {
            self.world.connect_fails(Errno::EIO);
        }
        // What could not be disconnected is tried again, and what is in use now and then.
        self.world.pass_secs(600);
        while !self.world.disconnects.is_empty() {
            self.world.disconnect_ok();
        }
        // A portal that held up the host is remembered for a while.
        self.world.pass_secs(600);
        assert!(self.world.machine.links().is_empty(), "{:#?}", self.world.machine.links());
        assert!(self.world.machine.is_empty(), "{:#?}", self.world.machine);
    }
}

/// Goes where the bytes lead; the first one says which roles there are.
pub fn walk(bytes: &[u8]) {
    let mut random = Random(bytes.iter());
    let roles = if random.one_in(4) { CONNECTOR } else { BOTH };
    let mut walk = Walk { world: World::with_roles(roles), random };
    walk.reload();
    for _ in 0..STEPS {
        if walk.random.0.len() == 0 {
            break;
        }
        walk.step();
        walk.check_roster();
    }
    walk.check_restart();
    walk.wind_up();
}

/// By xorshift64 (Marsaglia 2003).
#[cfg(test)]
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u8
    };
    (0..length).map(|_| byte()).collect()
}

#[test]
fn whatever_happens() {
    for seed in 1..3000 {
        walk(&bytes(seed, 500));
    }
}

/// What the fuzzer begins with, and what it has found.
#[test]
fn the_corpus() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/core");
    for seed in 1..=4 {
        assert_eq!(std::fs::read(corpus.join(format!("walk-{seed}"))).unwrap(), bytes(seed, 500));
    }
    for file in std::fs::read_dir(corpus).unwrap() {
        walk(&std::fs::read(file.unwrap().path()).unwrap());
    }
}
