//! Notices the appearance of a socket, so that a bus that is not there costs no wake-ups.
//!
//! Watches the socket's directory, or the nearest directory above it that exists. dbus-daemon binds, listens, then changes
//! the mode of the file: that last step (`IN_ATTRIB`) is the moment at which connecting works.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// An inotify watch for one path.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    /// The directory entry that matters.
    entry: OsString,
}

impl Watch {
    /// Watches for `file` or the missing directory on the way to it.
    ///
    /// # Errors
    /// When inotify is not to be had, in the kernel's words.
    pub fn new(file: &Path, registry: &Registry, token: Token) -> io::Result<Watch> {
        let (directory, entry) = nearest(file).ok_or(Errno::ENOENT)?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(directory, changes)?;
        registry.register(&mut SourceFd(&inotify.as_fd().as_raw_fd()), token, Interest::READABLE)?;
        Ok(Watch { inotify, entry: entry.to_owned() })
    }

    /// Takes all notices; whether one of them was about the file, or about the directory itself.
    pub fn take_notices(&self) -> bool {
        let mut concerned = false;
        while let Ok(events) = self.inotify.read_events() {
            concerned |= events.iter().any(|event| event.name.as_ref().is_none_or(|name| *name == self.entry));
            if events.is_empty() {
                break;
            }
        }
        concerned
    }

    pub fn deregister(&self, registry: &Registry) {
        // Closing the descriptor takes it out of epoll in any case.
        let _ = registry.deregister(&mut SourceFd(&self.inotify.as_fd().as_raw_fd()));
    }
}

/// The deepest directory on the way to `file` that exists, and the entry that is awaited in it.
fn nearest(file: &Path) -> Option<(&Path, &OsStr)> {
    file.ancestors().find_map(|path| {
        let (directory, entry) = (path.parent()?, path.file_name()?);
        directory.is_dir().then_some((directory, entry))
    })
}
