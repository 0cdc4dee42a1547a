//! Programs that keep running: the daemons under test, and the bus.

use super::{Guest, must, say};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, PipeReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a program may take to end once it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);

impl Guest {
    /// Starts a program that keeps running. What it prints goes to the guest's log under its name.
    #[track_caller]
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Daemon {
        self.spawn_command(program, Command::new(program).args(arguments))
    }

    /// The same for a command with an environment of its own.
    #[track_caller]
    pub fn spawn_command(&self, name: &str, command: &mut Command) -> Daemon {
        let (output, input) = must(std::io::pipe(), "make a pipe");
        let error = must(input.try_clone(), "copy a descriptor");
        say(&format!("starting {command:?}"));
        let child = must(command.stdin(Stdio::null()).stdout(input).stderr(error).spawn(), format!("start {name}"));
        // The command holds copies of the pipe's writing end: without this its end would never be seen.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let log = Arc::new(Log::default());
        let (name, log_of_thread) = (name.to_owned(), log.clone());
        let prefix = name.clone();
        std::thread::spawn(move || log_of_thread.fill(output, &prefix));
        Daemon { name, child, log }
    }

    /// The real system bus with Debian's configuration; returns when it accepts connections. It is stopped like any daemon.
    #[track_caller]
    pub fn start_bus(&self) -> Daemon {
        let bus = self.spawn("dbus-daemon", &["--system", "--nofork", "--nopidfile", "--nosyslog", "--print-address"]);
        bus.wait_log("unix:path=/run/dbus/system_bus_socket", Duration::from_secs(10));
        bus
    }
}

#[derive(Debug)]
pub struct Daemon {
    pub name: String,
    child: Child,
    log: Arc<Log>,
}

/// How a daemon ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// From the signal to the end.
    pub elapsed: Duration,
    pub log: String,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM; returns when it ended.
    #[track_caller]
    pub fn terminate(self) -> Ended {
        self.end_by(Signal::SIGTERM)
    }

    /// SIGKILL; returns when it ended.
    #[track_caller]
    pub fn kill(self) -> Ended {
        self.end_by(Signal::SIGKILL)
    }

    /// SIGHUP: read the configuration again.
    #[track_caller]
    pub fn reload(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All it has printed so far.
    pub fn log(&self) -> String {
        self.log.locked().text.clone()
    }

    /// Returns when it has printed `text`, at once when it had before; fails the scenario after `patience`.
    #[track_caller]
    pub fn wait_log(&self, text: &str, patience: Duration) {
        let contents = self.log.wait(patience, |contents| contents.closed || contents.text.contains(text));
        assert!(
            contents.text.contains(text),
            "{} did not print `{text}` within {patience:?}, but:\n{}",
            self.name,
            contents.text
        );
    }

    /// How many of the lines printed so far contain `text`.
    pub fn count_log(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        say(&format!("{signal} to {}", self.name));
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        must(kill(pid, signal).map_err(Into::into), format!("send {signal} to {}", self.name));
    }

    #[track_caller]
    fn end_by(mut self, signal: Signal) -> Ended {
        let asked = Instant::now();
        self.signal(signal);
        let status = loop {
            if let Some(status) = must(self.child.try_wait(), format!("wait for {}", self.name)) {
                break status;
            }
            assert!(asked.elapsed() < PATIENCE, "{} has not ended {PATIENCE:?} after {signal}", self.name);
            std::thread::sleep(Duration::from_millis(5));
        };
        let elapsed = asked.elapsed();
        say(&format!("{} ended after {elapsed:?}: {status}", self.name));
        // The last lines may still be in the pipe; a child of the daemon that lives on may hold it open.
        let log = self.log.wait(Duration::from_secs(1), |contents| contents.closed).text.clone();
        Ended { status, elapsed, log }
    }
}

/// What a program prints, with a bell that rings at each line.
#[derive(Debug, Default)]
struct Log {
    contents: Mutex<Contents>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Contents {
    text: String,
    /// Nothing more will come.
    closed: bool,
}

impl Log {
    fn fill(&self, output: PipeReader, prefix: &str) {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            say(&format!("{prefix}: {line}"));
            self.locked().text += &format!("{line}\n");
            self.bell.notify_all();
        }
        self.locked().closed = true;
        self.bell.notify_all();
    }

    fn wait(&self, patience: Duration, enough: impl Fn(&Contents) -> bool) -> MutexGuard<'_, Contents> {
        let waited = self.bell.wait_timeout_while(self.locked(), patience, |contents| !enough(contents));
        waited.expect("the log's lock").0
    }

    fn locked(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("the log's lock")
    }
}
