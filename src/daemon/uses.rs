//! Tells when a use of this host's disks may have ended: somebody unmounted something, swapped off, or removed a
//! mapping.
//!
//! The kernel marks `/proc/self/mountinfo` and `/proc/swaps` with a priority event when they change (proc(5)). They are
//! watched only as long as that matters, for on some hosts mounts come and go all the time.

use std::fs::File;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::wire::uevent::Uevent;

const FILES: [&str; 2] = ["/proc/self/mountinfo", "/proc/swaps"];

#[derive(Debug)]
pub struct Uses {
    token: Token,
    /// Those that are watched.
    files: Vec<File>,
}

impl Uses {
    pub fn new(token: Token) -> Uses {
        Uses { token, files: Vec::new() }
    }

    /// Watches or not. What cannot be watched is looked at by time all the same.
    pub fn watch(&mut self, wanted: bool, registry: &Registry) {
        match wanted {
            true if self.files.is_empty() => {
                let files = FILES.into_iter().filter_map(|path| File::open(path).ok());
                let register = |file: &File| {
                    registry.register(&mut SourceFd(&file.as_raw_fd()), self.token, Interest::PRIORITY).is_ok()
                };
                self.files = files.filter(register).collect();
            }
            true => {}
            // A descriptor that is closed is not watched any more.
            false => self.files.clear(),
        }
    }
}

/// Whether a uevent is about a device that may have held another: device mapper, md.
pub fn may_end_use(uevent: &Uevent<'_>) -> bool {
    let is_holder = || uevent.devname().is_some_and(|name| name.starts_with("dm-") || name.starts_with("md"));
    uevent.subsystem() == "block" && matches!(uevent.action(), "remove" | "change") && is_holder()
}
