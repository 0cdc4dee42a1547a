//! Where log messages go: standard error, with `<N>` priorities when that is the journal; syslog; or the kernel's log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use syslog::{Facility, LoggerBackend};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    StandardError,
    Syslog,
    Kernel,
}

/// Sets up logging for the process. What cannot be had is replaced by standard error.
pub fn init(program: &'static str, destination: Destination, tron: bool) {
    let logger = match destination {
        Destination::StandardError => Ok(None),
        Destination::Syslog => open_syslog(program).map(Some).map_err(|error| format!("syslog: {error}")),
        Destination::Kernel => open_kernel(program).map(Some).map_err(|error| format!("{KMSG}: {error}")),
    };
    let logger = logger.unwrap_or_else(|why| {
        eprintln!("{program}: {why}; logging to standard error");
        None
    });
    let logger = logger.unwrap_or_else(|| Box::new(StandardError::new(program)));
    // Fails only if there is a logger already.
    let _ = log::set_boxed_logger(logger);
    set_tron(tron);
}

/// Trace on: debug messages too.
pub fn set_tron(on: bool) {
    log::set_max_level(if on { LevelFilter::Debug } else { LevelFilter::Info });
}

fn open_syslog(program: &'static str) -> Result<Box<dyn Log>, syslog::Error> {
    let socket = syslog::unix(())?.backend;
    // A syslog daemon that does not read must not hold up ours: its messages are dropped then.
    if let LoggerBackend::Unix(socket) = &socket {
        let _ = socket.set_nonblocking(true);
    }
    Ok(Box::new(Syslog { program, socket: Mutex::new(socket) }))
}

/// Messages as in RFC 3164, section 4, but for the time: the syslog daemon of a host puts that in where there is none, and knows
/// the host's time zone better than a static program does.
struct Syslog {
    program: &'static str,
    socket: Mutex<LoggerBackend>,
}

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && let Ok(mut socket) = self.socket.lock()
        {
            let priority = Facility::LOG_DAEMON as u8 | priority(record.level());
            let _ = write!(socket, "<{priority}>{}[{}]: {}", self.program, std::process::id(), record.args());
        }
    }

    fn flush(&self) {}
}

const KMSG: &str = "/dev/kmsg";

fn open_kernel(program: &'static str) -> io::Result<Box<dyn Log>> {
    let file = OpenOptions::new().write(true).open(KMSG)?;
    Ok(Box::new(KernelLog { program, file }))
}

/// One write is one message; the kernel cuts what is longer than about a thousand bytes.
struct KernelLog {
    program: &'static str,
    file: File,
}

impl Log for KernelLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("<{}>{}: {}\n", priority(record.level()), self.program, record.args());
            let _ = (&self.file).write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

struct StandardError {
    program: &'static str,
    /// Lines begin with a priority, which the journal understands.
    journal: bool,
}

impl StandardError {
    fn new(program: &'static str) -> StandardError {
        StandardError { program, journal: is_journal() }
    }
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Vec::with_capacity(160);
        // Writing to memory does not fail.
        let _ = match self.journal {
            true => writeln!(line, "<{}>{}", priority(record.level()), record.args()),
            false => writeln!(line, "{}: {}", self.program, record.args()),
        };
        // One write, so that lines of several processes do not mix. Nobody could be told of a failure.
        if has_room() {
            let _ = io::stderr().write_all(&line);
        }
    }

    fn flush(&self) {}
}

/// Whether standard error takes a line now. A journal that hangs, perhaps because its disk is one that we are to bring
/// back, must not make us hang: it misses lines instead.
fn has_room() -> bool {
    let stderr = io::stderr();
    let mut poll = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    !matches!(nix::poll::poll(&mut poll, PollTimeout::ZERO), Ok(0))
}

/// syslog(3) priorities; the journal has them from the prefix (sd-daemon(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Whether standard error is the journal: JOURNAL_STREAM names its device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
