//! The host's list of exclusions, and when it changes. That is noticed at once: `nvme disconnect --exclude` writes it
//! and then disconnects, and what it disconnects is not to be back before anybody has told us to look.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::config::{EXCLUSIONS, drop_ins, load_exclusions};
use crate::core::exclusion::HostExclusion;

#[derive(Debug)]
pub struct Exclusions {
    /// `None`: a reload is what makes us look.
    watch: Option<Inotify>,
    /// What is wrong with the lists, as it was said last.
    told: BTreeSet<String>,
}

impl Exclusions {
    pub fn new(registry: &Registry, token: Token) -> Exclusions {
        let watch = watch(registry, token).map_err(|error| log::debug!("{EXCLUSIONS}: cannot be watched: {error}"));
        Exclusions { watch: watch.ok(), told: BTreeSet::new() }
    }

    /// The lists as they are now. Says what is wrong with them, once.
    pub fn read(&mut self) -> Vec<HostExclusion> {
        self.take_changes();
        let (exclusions, findings) = load_exclusions(Path::new(EXCLUSIONS));
        let told: BTreeSet<String> = findings.iter().map(ToString::to_string).collect();
        for finding in told.difference(&self.told) {
            log::warn!("{finding}");
        }
        self.told = told;
        exclusions
    }

    /// Also watches what came into being since. Before the lists are read, so that no change falls in between.
    fn take_changes(&self) {
        let Some(watch) = &self.watch else {
            return;
        };
        while watch.read_events().is_ok_and(|events| !events.is_empty()) {}
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        let (main, lists) = (Path::new(EXCLUSIONS), drop_ins(Path::new(EXCLUSIONS)));
        for directory in main.parent().into_iter().chain([lists.as_path()]) {
            // Where there is none, there is no list.
            let _ = watch.add_watch(directory, changes);
        }
    }
}

fn watch(registry: &Registry, token: Token) -> io::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    registry.register(&mut SourceFd(&inotify.as_fd().as_raw_fd()), token, Interest::READABLE)?;
    Ok(inotify)
}
