//! One run of QEMU: software emulation, two serial ports, no network but what the guest makes itself, no disk unless it is
//! given one to read.
//!
//! The first port is the console: kernel, daemons and scenario in one stream, for people. The second is the report, for the
//! host, line by line: `tell TEXT` (narration), `failure TEXT` (why the scenario failed), `passed`; `waiting`, when it was not
//! told its scenario yet; and `peer TEXT`, a line for the other machine of a pair, which comes out of that one's console.

use super::copies;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    pub passed: bool,
    /// What it told, line by line.
    pub told: Vec<String>,
    /// The guest's own words; several lines, or none when it said nothing.
    pub failure: String,
    /// What QEMU had to say, as when it could not start.
    pub emulator: String,
    pub timed_out: bool,
}

/// How a machine begins.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// By booting, to run a scenario: the path of the test function.
    Scenario(&'a str),
    /// The same, going on from what another had come to.
    From { state: &'a Path, scenario: &'a str },
    /// By booting, to be copied once it waits for a scenario.
    Copied { monitor: &'a Path, state: &'a Path },
}

/// What a machine hears: the far end of its console. Before it starts nobody listens.
#[derive(Debug, Default)]
pub struct Ear(Mutex<Option<(ChildStdin, u32)>>);

impl Ear {
    pub fn tell(&self, line: &str) {
        if let Some((console, _)) = self.0.lock().expect("no holder panics").as_mut() {
            let _ = writeln!(console, "{line}");
        }
    }

    /// Turns the machine off.
    pub fn kill(&self) {
        if let Some((_, timeout)) = self.0.lock().expect("no holder panics").take() {
            // It hands the signal on.
            let _ = Command::new("kill").arg(timeout.to_string()).status();
        }
    }
}

/// What a machine of a pair has besides.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Further devices, as arguments of QEMU.
    pub devices: &'a [String],
    pub own: &'a Ear,
    pub other: &'a Ear,
}

pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// The image of a disk, which the guest can only read.
    pub disk: Option<&'a Path>,
    pub peer: Option<Peer<'a>>,
    /// Tables from the firmware besides QEMU's own.
    pub acpi_tables: &'a [PathBuf],
    pub start: Start<'a>,
    /// In MiB.
    pub memory: u32,
    /// On the kernel's command line, besides what is always there.
    pub boot_option: &'a str,
    /// Its time is what it has done: an instruction takes a nanosecond.
    pub counts_instructions: bool,
    /// After so long it is killed.
    pub limit: Duration,
    pub log: &'a Path,
    /// Print the narration instead of the console.
    pub narrated: bool,
}

impl Machine<'_> {
    pub fn run(&self) -> io::Result<Report> {
        let mut log = File::create(self.log)?;
        let mut qemu = self.command().spawn()?;
        let console = qemu.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let port = qemu.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut ear = qemu.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        if let Start::From { scenario, .. } = self.start {
            // What comes before the state is there is lost with the state that was before.
            writeln!(ear, "{}{scenario}", "\n".repeat(64))?;
        }
        let own = self.peer.as_ref().map(|peer| peer.own);
        let mut ear = Some((ear, qemu.id()));
        own.into_iter().for_each(|own| *own.0.lock().expect("no holder panics") = ear.take());
        let mut report = Report::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for line in lines(console) {
                    let _ = writeln!(log, "{line}");
                    if !self.narrated {
                        println!("{line}");
                    }
                }
            });
            lines(port).for_each(|line| self.reported(&line, &mut report));
        });
        // Before its process id may be somebody else's.
        own.into_iter().for_each(|own| drop(own.0.lock().expect("no holder panics").take()));
        report.timed_out = was_killed(qemu.wait()?);
        Ok(report)
    }

    fn reported(&self, line: &str, report: &mut Report) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("passed", "") => report.passed = true,
            ("failure", text) => report.failure += &format!("{text}\n"),
            ("tell", text) => {
                report.told.push(text.to_owned());
                if self.narrated {
                    println!("{text}");
                }
            }
            ("peer", text) => self.peer.iter().for_each(|peer| peer.other.tell(text)),
            ("waiting", "") => {
                if let Start::Copied { monitor, state } = self.start
                    && let Err(error) = copies::save(monitor, state)
                {
                    report.emulator += &format!("its state cannot be saved: {error}\n");
                }
            }
            _ => report.emulator += &format!("{line}\n"),
        }
    }

    fn command(&self) -> Command {
        // `timeout` keeps the limit even when this process is killed; --foreground leaves Ctrl-C working.
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal=KILL", &self.limit.as_secs().to_string(), "qemu-system-x86_64"]);
        // One CPU and no cmpxchg16b: QEMU 7.2 corrupts guests otherwise.
        command.args(["-accel", "tcg", "-cpu", "max,-cx16", "-smp", "1", "-M", "q35"]);
        command.args(["-m", &self.memory.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-chardev", "stdio,id=console,signal=off", "-device", "isa-serial,chardev=console"]);
        command.args(["-chardev", "file,id=report,path=/dev/stderr", "-device", "isa-serial,chardev=report"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        if self.counts_instructions {
            // Where it has nothing to do until a timer fires, that fires at once.
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        if let Some(disk) = self.disk {
            let drive = format!("file={},format=raw,if=none,readonly=on,id=disk", disk.display());
            command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
        }
        command.args(self.peer.iter().flat_map(|peer| peer.devices));
        for table in self.acpi_tables {
            command.args(["-acpitable", &format!("file={}", table.display())]);
        }
        let fixed = "console=ttyS0 rdinit=/init quiet panic=-1 mitigations=off nokaslr no_timer_check";
        let logging = "printk.devkmsg=on log_buf_len=4M";
        let mut arguments = format!("{fixed} {logging} {}", self.boot_option);
        match self.start {
            Start::Scenario(scenario) => arguments += &format!(" STAS_SCENARIO={scenario}"),
            Start::From { state, .. } => drop(command.arg("-incoming").arg(format!("exec:cat {}", state.display()))),
            Start::Copied { monitor, .. } => {
                command.arg("-monitor").arg(format!("unix:{},server=on,wait=off", monitor.display()));
            }
        }
        command.arg("-append").arg(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The limit's SIGKILL is seen as the exit status that shells use for it, or as the signal itself.
fn was_killed(status: ExitStatus) -> bool {
    status.code() == Some(128 + 9) || status.signal() == Some(9)
}

/// Lines as they come; a serial line ends them with CR LF, and what is not UTF-8 must not stop the stream.
fn lines(stream: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(stream)
        .split(b'\n')
        .map_while(Result::ok)
        .map(|line| String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
}
