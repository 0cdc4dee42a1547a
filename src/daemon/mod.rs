//! The daemon: one thread, one poll loop, from what happens to what is done about it.
//!
//! ```text
//! uevents, helper, timer, signals, probes, bus ──▶ Event ──▶ core::Machine ──▶ Action ──▶ helper, probes, bus, log
//! ```
//!
//! Nothing here decides about controllers, and nothing here waits for a network, a disk or another process: what blocks
//! belongs to the helper. With nothing to do the loop does not wake up.

mod boot;
mod claims;
mod event_loop;
mod exclusions;
mod firmware;
mod goal;
mod logger;
mod network;
mod notify;
pub mod options;
mod probe;
mod publish;
pub mod reports;
mod requests;
mod settings;
pub mod state_file;
mod udev;
mod uses;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

use crate::bus::introspect;
use crate::confine::{self, Places};
use crate::exit::Exit;
use crate::helper::{Helper, Mandate};
use crate::kernel::{memory, registry};
use event_loop::Daemon;
use goal::Ended;
use logger::Destination;
use options::{Options, Program, Request};

/// The signals that the loop reads from a descriptor.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];

/// A daemon, with its arguments less its own name.
pub fn main(program: Program, args: Vec<OsString>) -> ExitCode {
    memory::keep_little();
    let outcome = match options::parse(program, args) {
        Ok(Request::Serve(options)) => serve(options),
        Ok(Request::Print(text)) => write_out(&text).map(|()| Ended::Stopped),
        Ok(Request::Idl(path)) => write_idl(program, &path).map(|()| Ended::Stopped),
        Err(complaint) => {
            eprintln!("{complaint}");
            return Exit::Usage.into();
        }
    };
    let exit = match outcome {
        Ok(Ended::Usable | Ended::Stopped) => Exit::Done,
        Ok(Ended::NothingToDo) => Exit::Nothing,
        Ok(Ended::TooLate) => Exit::TooLate,
        Err(why) => {
            log::error!("{why}");
            if log::max_level() == log::LevelFilter::Off {
                eprintln!("{}: {why}", program.name());
            }
            Exit::Failed
        }
    };
    exit.into()
}

fn write_out(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}"))
}

fn write_idl(program: Program, path: &Path) -> Result<(), String> {
    let xml = introspect::document(&program.bus_roles());
    if path.as_os_str() == "-" {
        return write_out(&xml);
    }
    fs::write(path, xml).map_err(|error| format!("{}: {error}", path.display()))
}

fn serve(options: Options) -> Result<Ended, String> {
    if !geteuid().is_root() {
        return Err("must be run as root: connecting controllers is the kernel's privilege".to_owned());
    }
    // Others may look at what we make. Later there is no chmod.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let mask = SigSet::from_iter(SIGNALS);
    mask.thread_block().map_err(|errno| format!("signals cannot be blocked: {errno}"))?;
    // Before anything else is opened: the helper is to have nothing but its socket.
    let network = options.boot.as_ref().is_some_and(|boot| boot.network);
    let helper = Helper::start(Mandate { paths: options.paths(), network })
        .map_err(|error| format!("the helper process cannot be started: {error}"))?;
    // What the configuration holds may be keys: no core file, as with the helper.
    nix::sys::prctl::set_dumpable(false).map_err(|errno| format!("core files cannot be forbidden: {errno}"))?;
    logger::init(options.program.name(), destination(&options), options.tron);
    memory::lock_if_needed().unwrap_or_else(|errno| {
        log::warn!(
            "memory cannot be locked: {errno}; if the root's paths are lost, this process may hang until one is back"
        );
    });
    let descriptors = raise_descriptor_limit();
    let directory = runtime_directory(options.program);
    let is_boot = options.boot.is_some();
    let daemon = Daemon::new(options, helper, &mask, &directory, descriptors)?;
    // Nothing that others wrote has been read so far, but what the kernel, the firmware and the administrator did.
    confine(&directory);
    match daemon.run()? {
        Ended::Stopped if is_boot => Err("stopped before what is waited for was there".to_owned()),
        ended => Ok(ended),
    }
}

fn destination(options: &Options) -> Destination {
    match &options.boot {
        Some(boot) if boot.kmsg => Destination::Kernel,
        _ if options.syslog => Destination::Syslog,
        _ => Destination::StandardError,
    }
}

/// Leaves the process what the loop needs, for good.
fn confine(directory: &Path) {
    // There has to be one by now: a rule is about what exists. Where it cannot be made, that is said when it is needed.
    let _ = fs::create_dir_all(registry::DIRECTORY);
    let places = Places {
        read: ["/sys/class", "/sys/devices", registry::SEQNUM].map(PathBuf::from).into(),
        write: vec![directory.to_owned(), registry::DIRECTORY.into()],
    };
    let lacks = confine::confine(&places);
    if !lacks.is_empty() {
        log::warn!("not all privileges could be given up: {}; going on with more than is needed", lacks.join(", "));
    }
}

/// A probe needs a descriptor, and there may be hundreds at a time. Returns how many there may be.
fn raise_descriptor_limit() -> usize {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    let limit = raised.or_else(|errno| {
        log::debug!("the limit of open files stays as it is: {errno}");
        getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft)
    });
    limit.map_or(0, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// `$RUNTIME_DIRECTORY`, which a service manager made, or our own below `/run`.
fn runtime_directory(program: Program) -> PathBuf {
    match std::env::var_os("RUNTIME_DIRECTORY") {
        // systemd separates several directories by colons; a unit of ours has one.
        Some(directory) => PathBuf::from(directory),
        None => Path::new("/run").join(program.directory()),
    }
}
