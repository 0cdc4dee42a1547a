//! The host's side of a scenario: boots a machine for it and turns what comes of it into the test's result.
//!
//! The test executable is itself put into the guest. [`scenario`] in a test therefore means two things: on the host, boot a
//! machine that runs this test and no other; in the guest, run the closure.

mod copies;
mod initramfs;
mod installed;
mod machine;
mod pair;

pub use initramfs::write_compared;
pub use installed::{PACKAGES, installed};
pub use pair::{Initramfs, OFF, Pair, ROLE, Role};

use crate::guest::{self, Guest};
use copies::Booted;
use machine::{Machine, Report, Start};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Runs `body` in a machine of its own with the defaults of [`Scenario`]. To be called by the `#[test]` itself.
pub fn scenario<F: FnOnce(&Guest)>(body: F) {
    Scenario::new().run(body);
}

/// The kernels that `tests/setup` prepares, all from Debian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kernel {
    /// Debian 12's own. Without nvme-loop, nvme-fcloop, authentication and TLS.
    V6_1,
    /// Debian 12's backport; the default.
    V6_12,
}

impl Kernel {
    fn name(self) -> &'static str {
        match self {
            Kernel::V6_1 => "6.1",
            Kernel::V6_12 => "6.12",
        }
    }
}

/// In MiB.
const USUAL_MEMORY: u32 = 1024;

/// A machine other than the usual one.
#[derive(Debug)]
pub struct Scenario {
    kernel: Kernel,
    limit: Duration,
    narrated: bool,
    debian: bool,
    acpi_tables: Vec<Vec<u8>>,
    memory: u32,
    boot_option: &'static str,
    counts_instructions: bool,
}

impl Scenario {
    pub fn new() -> Self {
        Scenario {
            kernel: Kernel::V6_12,
            limit: Duration::from_secs(120),
            narrated: false,
            debian: false,
            acpi_tables: vec![],
            memory: USUAL_MEMORY,
            boot_option: "",
            counts_instructions: false,
        }
    }

    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// How long it may take from power-on to the end; then it has failed.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// In MiB.
    pub fn memory(mut self, memory: u32) -> Self {
        self.memory = memory;
        self
    }

    /// With this on the kernel's command line.
    pub fn boot_option(mut self, option: &'static str) -> Self {
        self.boot_option = option;
        self
    }

    /// With a clock that counts instructions, so that what takes time there takes the same time whatever else this computer does.
    pub fn count_instructions(mut self) -> Self {
        self.counts_instructions = true;
        self
    }

    /// With the disk that [`Guest::debian`] needs.
    pub fn with_debian(mut self) -> Self {
        self.debian = true;
        self
    }

    /// With this table from the firmware; it may be called again. QEMU sets length and checksum.
    pub fn acpi_table(mut self, table: Vec<u8>) -> Self {
        self.acpi_tables.push(table);
        self
    }

    /// Prints on the host what [`Guest::tell`] says and nothing else.
    pub fn narrated(mut self) -> Self {
        self.narrated = true;
        self
    }

    /// To be called by the `#[test]` itself: the guest is told to run the test whose thread this is.
    pub fn run<F: FnOnce(&Guest)>(self, body: F) {
        if guest::is_here() {
            guest::run(body);
        }
        on_host(|test| self.boot(test));
    }

    fn boot(&self, test: &str) -> Result<(), String> {
        let vm = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/vm");
        let kernel = vm.join(self.kernel.name());
        if !kernel.join("stamp").exists() {
            return Err(format!("there is no kernel {} to run scenarios on yet: run tests/setup", self.kernel.name()));
        }
        let disk = vm.join("debian/image");
        if self.debian && !disk.exists() {
            return Err("there is no Debian file system for the guest yet: run tests/setup".to_owned());
        }
        let file = test.replace("::", ".");
        let log = in_directory(&vm.join("logs"), &format!("{file}.log"))?;
        let copy = if self.is_usual() { Some(self.copy(&vm)?) } else { None };
        let image = match &copy {
            Some(copy) => copy.initramfs(),
            None => self.build_initramfs(&vm, &file)?,
        };
        let state = copy.as_ref().map(|copy| copy.state());
        let mut acpi_tables = vec![];
        for (number, table) in self.acpi_tables.iter().enumerate() {
            let path = in_directory(&vm.join("run"), &format!("{file}.acpi{number}"))?;
            fs::write(&path, table).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            acpi_tables.push(path);
        }
        let machine = Machine {
            kernel: &kernel.join("vmlinux"),
            initramfs: &image,
            disk: self.debian.then_some(&disk),
            peer: None,
            acpi_tables: &acpi_tables,
            start: match &state {
                Some(state) => Start::From { state, scenario: test },
                None => Start::Scenario(test),
            },
            memory: self.memory,
            boot_option: self.boot_option,
            counts_instructions: self.counts_instructions,
            limit: self.limit,
            log: &log,
            narrated: self.narrated,
        };
        let report = machine.run();
        for path in acpi_tables.iter().chain(copy.is_none().then_some(&image)) {
            let _ = fs::remove_file(path);
        }
        let report =
            report.map_err(|error| format!("cannot run QEMU: {error}; tests/setup installs what is missing"))?;
        judge(test, &report, self.limit).map_err(|why| format!("{why}\nThe guest's log is {}", log.display()))
    }

    /// Whether many other scenarios have the same machine.
    fn is_usual(&self) -> bool {
        !self.narrated
            && !self.debian
            && self.acpi_tables.is_empty()
            && self.boot_option.is_empty()
            && !self.counts_instructions
            && self.memory == USUAL_MEMORY
    }

    /// The machine of this kernel, as far as it comes before it needs to know its scenario.
    fn copy(&self, vm: &Path) -> Result<Arc<Booted>, String> {
        let name = self.kernel.name();
        let directory = in_directory(&vm.join("run"), "")?;
        copies::get(name, &directory, |image, state| {
            let log = in_directory(&vm.join("logs"), &format!("copied.{name}.log"))?;
            initramfs::build(&vm.join(name).join("initramfs.cpio"), image)
                .map_err(|error| format!("cannot make the guest's file system {}: {error}", image.display()))?;
            // The name of a socket has to be short.
            let monitor = std::env::temp_dir().join(format!("stas-monitor-{}-{name}", std::process::id()));
            let machine = Machine {
                kernel: &vm.join(name).join("vmlinux"),
                initramfs: image,
                disk: None,
                peer: None,
                acpi_tables: &[],
                boot_option: "",
                counts_instructions: false,
                start: Start::Copied { monitor: &monitor, state },
                memory: self.memory,
                limit: self.limit,
                log: &log,
                narrated: true,
            };
            let report = machine.run();
            let _ = fs::remove_file(monitor);
            let report =
                report.map_err(|error| format!("cannot run QEMU: {error}; tests/setup installs what is missing"))?;
            let why = || format!("the machine to be copied did not get there; its log is {}", log.display());
            if state.exists() { Ok(()) } else { Err(format!("{}\n{}", why(), report.emulator)) }
        })
    }

    fn build_initramfs(&self, vm: &Path, file: &str) -> Result<PathBuf, String> {
        let image = in_directory(&vm.join("run"), &format!("{file}.cpio"))?;
        initramfs::build(&vm.join(self.kernel.name()).join("initramfs.cpio"), &image)
            .map_err(|error| format!("cannot make the guest's file system {}: {error}", image.display()))?;
        Ok(image)
    }
}

fn judge(test: &str, report: &Report, limit: Duration) -> Result<(), String> {
    if report.passed && report.failure.is_empty() && !report.timed_out {
        return Ok(());
    }
    Err(if !report.failure.is_empty() {
        report.failure.clone()
    } else if report.timed_out {
        format!("the scenario did not end within {limit:?}")
    } else {
        format!("the guest ended without a result: its kernel died, or the process of `{test}`\n{}", report.emulator)
    })
}

/// Has machines booted for this test, which is told its own name.
fn on_host<T>(boot: impl FnOnce(&str) -> Result<T, String>) -> T {
    // The test runner gives each test a thread of its own, named after it.
    let thread = std::thread::current();
    let test = thread.name().expect("the test runner names its threads");
    boot(test).unwrap_or_else(|why| panic!("{why}"))
}

/// Of machines with a disk: where `tests/setup` puts things, and in there the kernel and the disk.
fn kernel_and_disk() -> Result<[PathBuf; 3], String> {
    let vm = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/vm");
    let (kernel, disk) = (vm.join(Kernel::V6_12.name()), vm.join("debian/image"));
    match kernel.join("stamp").exists() && disk.exists() {
        true => Ok([vm, kernel, disk]),
        false => Err("there are no machines to run scenarios on yet: run tests/setup".to_owned()),
    }
}

fn in_directory(directory: &Path, file: &str) -> Result<PathBuf, String> {
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot make the directory {}: {error}", directory.display()))?;
    Ok(directory.join(file))
}
