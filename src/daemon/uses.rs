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
    /// Open from the start, for later we may not open them.
    files: Vec<File>,
    watched: bool,
}

impl Uses {
    pub fn new(token: Token) -> Uses {
        // What cannot be watched is looked at by time all the same.
        let files = FILES.into_iter().filter_map(|path| File::open(path).ok()).collect();
        Uses { token, files, watched: false }
    }

    /// Watches or not. What happened while nobody watched may be told at once.
    pub fn watch(&mut self, wanted: bool, registry: &Registry) {
        if wanted == std::mem::replace(&mut self.watched, wanted) {
            return;
        }
        for fd in self.files.iter().map(AsRawFd::as_raw_fd) {
            let _ = match wanted {
                true => registry.register(&mut SourceFd(&fd), self.token, Interest::PRIORITY),
                false => registry.deregister(&mut SourceFd(&fd)),
            };
        }
    }
}

/// Whether a uevent is about a device that may have held another: device mapper, md.
pub fn may_end_use(uevent: &Uevent<'_>) -> bool {
    let is_holder = || uevent.devname().is_some_and(|name| name.starts_with("dm-") || name.starts_with("md"));
    uevent.subsystem() == "block" && matches!(uevent.action(), "remove" | "change") && is_holder()
}
