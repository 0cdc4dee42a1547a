//! Two machines: a target, and one without a disk that boots from it. Two cables lead from one to the other.
//!
//! Both run the same test: the target the first closure, like any scenario; the other one the second, started by the service
//! manager of the system that it has booted. What the second says with [`Guest::tell_peer`] the first hears, and at last that
//! the other machine is off.

use super::machine::{Ear, Machine, Peer, Report, Start};
use super::{in_directory, initramfs, judge, kernel_and_disk, on_host};
use crate::guest::{self, Guest};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The environment variable that says which machine of a pair this is; without it, it is none.
pub const ROLE: &str = "STAS_ROLE";

/// What the target hears when the other machine has been turned off.
pub const OFF: &str = "off";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    Target,
    Booted,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Target => "target",
            Role::Booted => "booted",
        }
    }

    pub(super) fn here() -> Option<Role> {
        let name = std::env::var(ROLE).ok()?;
        [Role::Target, Role::Booted].into_iter().find(|role| role.name() == name)
    }

    /// The last number of its MAC addresses.
    fn number(self) -> u8 {
        match self {
            Role::Target => 1,
            Role::Booted => 2,
        }
    }

    /// Of its network card at the first cable (1) or the second (2).
    pub fn mac(self, cable: u8) -> [u8; 6] {
        [0x52, 0x54, 0, 0, cable, self.number()]
    }
}

/// What the machine without a disk boots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initramfs {
    /// By `init/initramfs/build`.
    HandMade,
    /// By dracut with the module in `init/dracut`.
    Dracut,
    /// By Debian's initramfs-tools with the scripts in `init/initramfs-tools`.
    Debian,
    /// One of those that are compared (`tests/setup bench`), which says when what has happened.
    Compared(&'static str),
}

#[derive(Debug)]
pub struct Pair {
    initramfs: Initramfs,
    arguments: String,
    acpi_table: Vec<u8>,
    limit: Duration,
}

impl Pair {
    /// `arguments` are for the kernel's command line, `acpi_table` is from the firmware of the machine that boots.
    pub fn new(initramfs: Initramfs, arguments: &str, acpi_table: Vec<u8>) -> Pair {
        Pair { initramfs, arguments: arguments.to_owned(), acpi_table, limit: Duration::from_secs(600) }
    }

    /// To be called by the `#[test]` itself. The target has the Debian file system, to be written to, as `/dev/vda`. What the
    /// booted machine has told ([`Guest::tell`]).
    pub fn run(self, target: impl FnOnce(&Guest), booted: impl FnOnce(&Guest)) -> Vec<String> {
        match Role::here() {
            Some(Role::Target) => guest::run(target),
            Some(Role::Booted) => guest::run(booted),
            None => (),
        }
        on_host(|test| self.boot(test))
    }

    fn boot(&self, test: &str) -> Result<Vec<String>, String> {
        let [vm, kernel, disk] = kernel_and_disk()?;
        let file = test.replace("::", ".");
        let run = |name: &str| in_directory(&vm.join("run"), &format!("{file}.{name}"));
        let log = |role: Role| in_directory(&vm.join("logs"), &format!("{file}.{}.log", role.name()));
        let (images, logs) = ([run("target.cpio")?, run("booted.cpio")?], [log(Role::Target)?, log(Role::Booted)?]);
        let table = run("acpi")?;
        let sockets = Sockets::new().map_err(|error| format!("cannot make a directory for sockets: {error}"))?;
        let made = initramfs::build(&kernel.join("initramfs.cpio"), &images[0])
            .and_then(|()| initramfs::boot(self.initramfs, &vm, &images[1]))
            .and_then(|()| fs::write(&table, &self.acpi_table));
        made.map_err(|error| format!("cannot make what the machines boot: {error}"))?;

        let ears = [Ear::default(), Ear::default()];
        let drive = format!("file={},format=raw,if=none,id=disk,snapshot=on,cache=unsafe", disk.display());
        let devices = [
            [
                sockets.cables(Role::Target),
                ["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"].map(str::to_owned).into(),
            ]
            .concat(),
            sockets.cables(Role::Booted),
        ];
        let arguments = [format!("{ROLE}={}", Role::Target.name()), self.arguments.clone()];
        let kernel = kernel.join("vmlinux");
        let machine = |at: usize| Machine {
            kernel: &kernel,
            initramfs: &images[at],
            disk: None,
            peer: Some(Peer { devices: &devices[at], own: &ears[at], other: &ears[1 - at] }),
            acpi_tables: if at == 0 { &[] } else { std::slice::from_ref(&table) },
            start: Start::Scenario(test),
            boot_option: &arguments[at],
            counts_instructions: false,
            memory: 1024,
            limit: self.limit,
            log: &logs[at],
            narrated: false,
        };
        let reports = std::thread::scope(|scope| {
            let target = scope.spawn(|| {
                let report = machine(0).run();
                // Usually it has ended before; without a target it is of no use.
                ears[1].kill();
                report
            });
            sockets.wait();
            let booted = machine(1).run();
            ears[0].tell(OFF);
            [target.join().expect("it does not panic"), booted]
        });
        for path in images.iter().chain([&table]) {
            let _ = fs::remove_file(path);
        }
        let [target, booted] = reports.map(|report| {
            report.map_err(|error| format!("cannot run QEMU: {error}; tests/setup installs what is missing"))
        });
        let (target, booted) = (target?, booted?);
        let judge = |role: Role, report: &Report, log: &Path| {
            judge(test, report, self.limit)
                .map_err(|why| format!("the {} machine: {why}\nIts log is {}", role.name(), log.display()))
        };
        // Whose failure is not just that the other one has failed?
        if !target.failure.is_empty() {
            judge(Role::Target, &target, &logs[0])?;
        }
        judge(Role::Booted, &booted, &logs[1])?;
        judge(Role::Target, &target, &logs[0])?;
        Ok(booted.told)
    }
}

/// The ends of the cables: sockets, in a directory whose name is short enough for them.
struct Sockets(PathBuf);

impl Sockets {
    fn new() -> std::io::Result<Sockets> {
        let made = Command::new("mktemp").args(["--directory", "--tmpdir", "stas-XXXXXX"]).output()?;
        Ok(Sockets(String::from_utf8_lossy(&made.stdout).trim_end().into()))
    }

    fn paths(&self) -> [PathBuf; 2] {
        [self.0.join("1"), self.0.join("2")]
    }

    fn cables(&self, role: Role) -> Vec<String> {
        let server = if role == Role::Target { "on" } else { "off" };
        let cable = |(cable, path): (u8, PathBuf)| {
            let mac = role.mac(cable).map(|byte| format!("{byte:02x}")).join(":");
            let socket = format!("stream,id=cable{cable},server={server},addr.type=unix,addr.path={}", path.display());
            let card = format!("virtio-net-pci,netdev=cable{cable},mac={mac}");
            ["-netdev".to_owned(), socket, "-device".to_owned(), card]
        };
        (1..).zip(self.paths()).flat_map(cable).collect()
    }

    /// Until the target listens; in vain if it cannot be started, which shows soon.
    fn wait(&self) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) && !self.paths().iter().all(|path| path.exists()) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
