//! The program under test in its two forms, and the configuration that most scenarios give it.

use crate::guest::{Controller, Daemon, Ended, Guest};
use std::time::Duration;

/// Longer than anything takes on a machine that has other work; most waits end within a fraction of a second.
pub const SOON: Duration = Duration::from_secs(20);

/// A daemon that is asked to stop has to stop within this time, whatever it is doing.
pub const AT_ONCE: Duration = Duration::from_secs(1);

pub const STAFD_CONF: &str = "/etc/stas/stafd.conf";
pub const STACD_CONF: &str = "/etc/stas/stacd.conf";

/// The kernel tries to reconnect so late that a scenario only sees what the program itself does.
pub const KERNEL_WAITS: &str = "reconnect-delay = 60\n";

/// What the host NVMe driver is asked for: on a machine of this size, with hundreds of controllers, the least.
pub const SMALL: &str = "nr-io-queues = 1\nqueue-size = 16\n";

/// How it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `stafd` and `stacd` with a system bus between them.
    TwoDaemons,
    /// `stas run`, and no bus.
    OneProcess,
}

/// Which of the daemons a scenario means. In one process, each part is the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Finder,
    Connector,
    Both,
}

/// The program, running.
pub struct Stas<'g> {
    guest: &'g Guest,
    form: Form,
    bus: Option<Daemon>,
    finder: Option<Daemon>,
    connector: Option<Daemon>,
}

impl<'g> Stas<'g> {
    #[track_caller]
    pub fn start(guest: &'g Guest, form: Form) -> Self {
        let bus = (form == Form::TwoDaemons).then(|| guest.start_bus());
        let mut stas = Stas { guest, form, bus, finder: None, connector: None };
        stas.start_again();
        stas
    }

    #[track_caller]
    pub fn start_bus(&mut self) {
        self.bus = Some(self.guest.start_bus());
    }

    #[track_caller]
    pub fn kill_bus(&mut self) {
        self.bus.take().expect("the bus runs").kill();
    }

    /// Starts what does not run.
    #[track_caller]
    pub fn start_again(&mut self) {
        let guest = self.guest;
        match self.form {
            Form::TwoDaemons => {
                self.finder.get_or_insert_with(|| guest.spawn("stafd", &[]));
                self.connector.get_or_insert_with(|| guest.spawn("stacd", &[]));
            }
            Form::OneProcess => {
                self.finder.get_or_insert_with(|| guest.spawn("stas", &["run"]));
            }
        }
    }

    /// Ends a part with [`Daemon::terminate`] or [`Daemon::kill`].
    #[track_caller]
    pub fn end(&mut self, part: Part, how: fn(Daemon) -> Ended) -> Vec<Ended> {
        let finder = (part != Part::Connector || self.form == Form::OneProcess).then(|| self.finder.take());
        let connector = (part != Part::Finder).then(|| self.connector.take());
        [finder, connector].into_iter().flatten().flatten().map(how).collect()
    }

    /// The daemon that finds.
    #[track_caller]
    pub fn finder(&self) -> &Daemon {
        self.finder.as_ref().expect("the finder runs")
    }

    /// The daemon that connects.
    #[track_caller]
    pub fn connector(&self) -> &Daemon {
        self.connector.as_ref().or(self.finder.as_ref()).expect("the connector runs")
    }

    /// Attached as by [`Guest::wait_for_storage`], and shown by `stacctl ls`: the kernel is done a moment before the program
    /// has heard of it, and has written down that the connection is its own. Gives what is shown.
    #[track_caller]
    pub fn wait_for_storage(&self, nqns: &[&str], patience: Duration) -> String {
        let attached = self.guest.wait_for_storage(nqns, patience);
        let mut table = String::new();
        self.guest.wait_until("stacctl shows them all", patience, || {
            table = self.guest.run("stacctl", &["ls"]).stdout;
            let shows = |line: &str, controller: &Controller| {
                line.contains(&controller.name) && line.contains(&controller.subsysnqn)
            };
            table.lines().count() == 1 + attached.len()
                && attached.iter().all(|controller| table.lines().any(|line| shows(line, controller)))
        });
        table
    }

    /// What all of it has printed so far.
    pub fn logs(&self) -> String {
        [&self.finder, &self.connector].into_iter().flatten().map(Daemon::log).collect()
    }

    #[track_caller]
    pub fn assert_running(&mut self) {
        for daemon in [&mut self.finder, &mut self.connector].into_iter().flatten() {
            assert!(daemon.is_running(), "{} has ended:\n{}", daemon.name, daemon.log());
        }
    }
}

/// A controller in a configuration file; of stafd's, or with [`io_controller`] of stacd's.
pub fn controller(traddr: &str, trsvcid: u16) -> String {
    format!("\n[[controller]]\ntransport = \"tcp\"\ntraddr = \"{traddr}\"\ntrsvcid = {trsvcid}\n")
}

pub fn io_controller(traddr: &str, trsvcid: u16, nqn: &str) -> String {
    controller(traddr, trsvcid) + &format!("nqn = \"{nqn}\"\n")
}

/// The NQN of a subsystem of that name.
pub fn nqn(name: &str) -> String {
    format!("nqn.2026-01.example:{name}")
}
