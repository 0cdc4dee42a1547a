//! Readiness notification to the service manager (sd_notify(3)): a datagram to `NOTIFY_SOCKET`, nothing where it is not
//! set.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The service manager, if there is one that wants to know.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    ready: bool,
    status: String,
    /// How often it wants to see that we are alive, and when the next time is due.
    watchdog: Option<(Duration, Instant)>,
}

impl ServiceManager {
    pub fn from_environment(now: Instant) -> ServiceManager {
        let interval =
            std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok()).map(Duration::from_micros);
        ServiceManager {
            socket: connect(),
            ready: false,
            status: String::new(),
            // Half the time, as sd_watchdog_enabled(3) recommends.
            watchdog: interval.filter(|interval| !interval.is_zero()).map(|interval| (interval / 2, now)),
        }
    }

    /// Serving; said once.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.send("READY=1");
        }
    }

    /// A reload begins.
    pub fn reloading(&mut self) {
        let microseconds = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_or(0, |now| i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
        self.ready = false;
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for people; sent when it changed.
    pub fn status(&mut self, status: String) {
        if self.socket.is_some() && self.status != status {
            self.send(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    pub fn wants_status(&self) -> bool {
        self.socket.is_some()
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        if let Some((interval, due)) = self.watchdog
            && due <= now
        {
            self.send("WATCHDOG=1");
            self.watchdog = Some((interval, now + interval));
        }
    }

    /// Never waits: a manager that does not read misses a message.
    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(message.as_bytes());
        }
    }
}

fn connect() -> Option<UnixDatagram> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
        _ => SocketAddr::from_pathname(&name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}
