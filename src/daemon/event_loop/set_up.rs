//! Set-up: from the command line to a daemon that has taken over what the kernel has.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use super::configuration::Reload;
use super::{BUS, Daemon, EXCLUSIONS, NETWORK, PRIVATE, PROBES, SIGNALS, TIMER, UEVENTS, USES};
use crate::bus::address::Address;
use crate::bus::dispatch::Served;
use crate::bus::private::CLIENTS_MAX;
use crate::bus::{PrivateServer, SystemBus};
use crate::config;
use crate::core::Machine;
use crate::daemon::claims::Claims;
use crate::daemon::exclusions::Exclusions;
use crate::daemon::firmware::Firmware;
use crate::daemon::goal::Goal;
use crate::daemon::network::Network;
use crate::daemon::notify::ServiceManager;
use crate::daemon::options::{Options, Program};
use crate::daemon::probe::Probes;
use crate::daemon::publish::Facts;
use crate::daemon::requests::{FABRICS, Requests};
use crate::daemon::settings::Settings;
use crate::daemon::state_file::StateFile;
use crate::daemon::uses::Uses;
use crate::helper::Helper;
use crate::kernel::netlink::KernelSocket;
use crate::kernel::sysfs::{CLASS, Sysfs};
use crate::rarely::Rarely;

/// How long a bus that neither gives nor refuses our names can keep us from being ready.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// What to do where the kernel's part is missing.
const LOAD: &str = "`modprobe -a nvme_fabrics nvme_tcp` loads the kernel's modules";

/// What the loop itself needs in descriptors, with something to spare.
const OWN_DESCRIPTORS: usize = 32;

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
        let boot = options.boot.as_ref();
        let firmware = Firmware::read(boot);
        let goal = boot.map(|boot| Goal::new(now, boot.until.clone(), boot.patience));
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let exclusions = Exclusions::new(poll.registry(), EXCLUSIONS);
        exclusions.look_out();
        let mut requests = Requests::new(helper);
        let mut configuration =
            requests.wait_for_configuration().map_err(|why| format!("the configuration cannot be read: {why}"))?;
        let excluded = std::mem::take(&mut configuration.exclusions);
        let host = boot.and_then(|_| firmware.host());
        let settings = Settings::new(program, configuration, host)
            .ok_or("the configuration cannot be used, see above; `stasadm check` tells when it can")?;
        let served = Served::new(&program.bus_roles());
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
            forced_tron: options.tron,
            settings,
            reload: Reload::Done,
            timer: describe(
                "timerfd",
                TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC),
            )?,
            armed: None,
            signals: describe("signalfd", SignalFd::with_flags(mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))?,
            uevents: describe("netlink", uevents(program))?,
            sysfs: Sysfs::new(CLASS),
            requests,
            probes: Probes::new(PROBES, probes),
            network: Network::new(NETWORK),
            machine: Machine::new(program.roles(), seed()),
            state_file: StateFile::new(directory),
            claims: Claims::new(|device| Path::new(CLASS).join(device).exists()),
            exclusions,
            overrides_rule: false,
            bus: None,
            private,
            firmware,
            goal,
            facts: Facts::new(now, directory.display().to_string()),
            manager: ServiceManager::from_environment(now),
            awaited_names: program.bus_roles(),
            ready_by: Some(now + BUS_PATIENCE),
            finder_is_ours: false,
            finder_complaint: None,
            helper_started: now,
            make_reserve_at: None,
            short_lives: 0,
            read_devices_at: None,
            lost_uevents: Rarely::default(),
            uses: Uses::new(USES),
            stop_by: None,
            poll,
        };
        describe("epoll", daemon.register())?;
        daemon.begin(now, options.no_wait, served, excluded)?;
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

    /// Adopts what the kernel has, then wants what the configuration says. The uevent socket is open already, so
    /// nothing that happens from here on is missed.
    fn begin(
        &mut self,
        now: Instant,
        no_wait: bool,
        served: Served,
        excluded: config::Exclusions,
    ) -> Result<(), String> {
        self.apply_settings();
        self.override_rule();
        self.machine.inherit(self.state_file.load());
        self.read_devices(now);
        self.look_for_interfaces(now);
        self.hear_settings(now, excluded);
        if !self.requests.read_options() {
            if no_wait {
                return Err(format!("{FABRICS} does not exist: {LOAD}"));
            }
            log::warn!("{FABRICS} does not exist: waiting for it; {LOAD}");
        }
        self.start_bus(now, served);
        Ok(())
    }

    fn start_bus(&mut self, now: Instant, served: Served) {
        if self.program == Program::Boot {
            self.awaited_names.clear();
            return;
        }
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
}

fn uevents(program: Program) -> io::Result<KernelSocket> {
    let socket = KernelSocket::uevents()?;
    // A disk that comes may be what a boot waits for. To the others it is none of their business.
    if program != Program::Boot {
        socket.leave_out_additions()?;
    }
    Ok(socket)
}

fn describe<T, E: Display>(what: &str, outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|error| format!("{what}: {error}"))
}

/// Makes retries of different hosts fall on different moments; nothing secret depends on it.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.subsec_nanos() as u64 ^ (u64::from(std::process::id()) << 32)
}
