//! The guest's side of a scenario: what a scenario can do to the machine it runs in, and see of it.
//!
//! A scenario is the only program of its machine and the machine ends with it, so nothing here cleans up, and everything
//! panics when it cannot do what it was asked; the location in the message is the scenario's own line.

mod avahi;
pub mod calls;
mod daemon;
mod debian;
mod fabrics;
mod host;
mod limits;
mod network;
mod peer;
mod puppet;
mod target;
mod uevents;

#[allow(unused_imports, reason = "scenarios name the types that they need")]
pub use self::{
    avahi::*, daemon::*, debian::*, fabrics::*, host::*, limits::*, network::*, puppet::*, target::*, uevents::*,
};

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, exit};
use std::time::{Duration, Instant};

/// What /etc/nvme/hostnqn and /etc/nvme/hostid hold at the start.
pub const HOSTNQN: &str = "nqn.2014-08.org.nvmexpress:uuid:f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f";
pub const HOSTID: &str = "f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f";

/// The subsystem NQN that every discovery controller answers to.
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// The second serial port: see vm/machine.rs for what is said through it.
const REPORT: &str = "/dev/ttyS1";

/// Bits of /proc/sys/kernel/tainted: the kernel died in an Oops, the kernel warned.
const TAINT_DIED: u64 = 1 << 7;
const TAINT_WARNED: u64 = 1 << 9;

/// Whether this process runs in the guest.
pub fn is_here() -> bool {
    std::env::var_os("STAS_SCENARIO").is_some()
}

/// Runs a scenario, reports its result to the host, and ends the process: it was the machine's only purpose.
pub fn run<F: FnOnce(&Guest)>(body: F) -> ! {
    play(body);
    report("passed");
    exit(0);
}

/// Runs what comes before a scenario, and ends the process.
pub fn prepare<F: FnOnce(&Guest)>(body: F) -> ! {
    play(body);
    exit(0);
}

fn play<F: FnOnce(&Guest)>(body: F) {
    std::panic::set_hook(Box::new(|panic| {
        panic.to_string().lines().for_each(|line| report(&format!("failure {line}")));
        say(&panic.to_string());
    }));
    let guest = Guest { _only_here: () };
    if catch_unwind(AssertUnwindSafe(|| body(&guest))).is_err() {
        say(&format!("the machine when the scenario failed:\n{}", guest.state()));
        exit(1);
    }
    if let Some(complaint) = guest.kernel_complaint() {
        report(&format!("failure the guest's kernel complained: {complaint}"));
        exit(1);
    }
}

/// The machine a scenario runs in.
#[derive(Debug)]
pub struct Guest {
    _only_here: (),
}

impl Guest {
    /// Tells whoever watches what is happening: on the host where the scenario is narrated, and in the log.
    pub fn tell(&self, text: &str) {
        say(text);
        // A line that is empty must still be a line.
        format!("{text}\n").lines().for_each(|line| report(&format!("tell {line}")));
    }

    /// Writes a file, with the directories above it.
    #[track_caller]
    pub fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            must(fs::create_dir_all(parent), format!("make the directory {}", parent.display()));
        }
        must(fs::write(path, text), format!("write {}", path.display()));
    }

    /// Runs a program to its end.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        let output = must(Command::new(program).args(arguments).output(), format!("run {program}"));
        let finished = Finished {
            command: format!("{program} {}", arguments.join(" ")),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        say(&format!("$ {}\n{}{}", finished.command, finished.stdout, finished.stderr));
        finished
    }

    /// Returns as soon as `holds` does, and how long that took; fails the scenario after `patience`.
    #[track_caller]
    pub fn wait_until(&self, what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Duration {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < patience, "waited {patience:?} in vain until {what}\n{}", self.state());
            std::thread::sleep(Duration::from_millis(10));
        }
        started.elapsed()
    }

    /// What the kernel itself logged so far.
    pub fn kernel_log(&self) -> String {
        // In the raw form a line starts with its facility and severity; ours are the user's, <14>.
        let raw = must(Command::new("dmesg").arg("-r").output(), "run dmesg").stdout;
        let raw = String::from_utf8_lossy(&raw);
        raw.lines().filter(|line| !line.starts_with("<14>")).map(|line| format!("{line}\n")).collect()
    }

    /// Controllers and block devices, a line each.
    pub fn state(&self) -> String {
        let controllers = self.controllers().into_iter().map(|controller| format!("{controller:?}\n"));
        let devices = self.block_devices().into_iter().map(|device| format!("{device:?}\n"));
        let lines: String = controllers.chain(devices).collect();
        if lines.is_empty() { "no controllers, no block devices".to_owned() } else { lines }
    }

    /// A warning or an Oops, whoever caused it: no scenario passes with one.
    fn kernel_complaint(&self) -> Option<String> {
        let taint: u64 = read("/proc/sys/kernel/tainted").parse().unwrap_or(u64::MAX);
        (taint & (TAINT_DIED | TAINT_WARNED) != 0).then(|| {
            let signs = ["WARNING:", "BUG:", "Oops:"];
            let log = self.kernel_log();
            let line = log.lines().find(|line| signs.iter().any(|sign| line.contains(sign)));
            line.unwrap_or("it is tainted by a warning or an Oops").to_owned()
        })
    }
}

/// A program that ran to its end.
#[derive(Debug)]
pub struct Finished {
    pub command: String,
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The standard output of a program that has to succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(
            self.code == Some(0),
            "`{}` failed, exit status {:?}\n{}{}",
            self.command,
            self.code,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// To the log, line by line, by way of the kernel's: so lines are whole, in order and have its time stamps.
pub fn say(text: &str) {
    // The kernel refuses records of more than about a thousand bytes.
    const LONGEST: usize = 900;
    for line in text.lines() {
        for piece in line.as_bytes().chunks(LONGEST) {
            let _ = fs::write("/dev/kmsg", [b"<6>", piece].concat());
        }
    }
}

/// To the host. Closing the port waits until all is sent.
fn report(line: &str) {
    let port = OpenOptions::new().write(true).open(REPORT);
    if let Err(error) = port.and_then(|mut port| port.write_all(format!("{line}\n").as_bytes())) {
        say(&format!("cannot write to {REPORT}: {error}"));
    }
}

/// A sysfs or configfs attribute without its line end; empty when it cannot be read.
fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

#[track_caller]
fn must<T>(result: io::Result<T>, what: impl Display) -> T {
    result.unwrap_or_else(|error| panic!("cannot {what}: {error}"))
}
