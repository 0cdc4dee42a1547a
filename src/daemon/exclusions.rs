//! The host's list of exclusions, and when it changes. That is noticed at once: `nvme disconnect --exclude` writes it
//! and then disconnects, and what it disconnects is not to be back before anybody has told us to look.
//!
//! The helper reads the lists. From the moment on in which they change, connects wait until it has, but not for long: where the
//! lists are on the very storage that is to be connected, nobody can read them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::config::{self, EXCLUSIONS, drop_ins};
use crate::core::Action;
use crate::core::exclusion::HostExclusion;

/// How long connects wait for the lists.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Exclusions {
    /// `None`: a reload is what makes us look.
    watch: Option<Inotify>,
    /// What is wrong with the lists, as it was said last.
    told: BTreeSet<String>,
    /// The lists are being read.
    reading: Option<Reading>,
    /// Connects that wait for that.
    held: Vec<Action>,
}

#[derive(Debug)]
struct Reading {
    /// How long connects wait for it.
    until: Instant,
    /// They have changed since.
    again: bool,
}

impl Exclusions {
    pub fn new(registry: &Registry, token: Token) -> Exclusions {
        let watch = watch(registry, token).map_err(|error| log::debug!("{EXCLUSIONS}: cannot be watched: {error}"));
        Exclusions { watch: watch.ok(), told: BTreeSet::new(), reading: None, held: Vec::new() }
    }

    /// The lists have changed. Whether they are to be read now.
    pub fn changed(&mut self, now: Instant) -> bool {
        self.look_out();
        match &mut self.reading {
            Some(reading) => {
                reading.again = true;
                false
            }
            None => {
                self.reading = Some(Reading { until: now + PATIENCE, again: false });
                true
            }
        }
    }

    /// They were read, if that was possible. Whether they are to be read once more.
    pub fn were_read(&mut self, now: Instant) -> bool {
        let again = self.reading.take().is_some_and(|reading| reading.again);
        again && self.changed(now)
    }

    /// What the lists exclude. Says what is wrong with them, once.
    pub fn take_in(&mut self, read: config::Exclusions) -> Vec<HostExclusion> {
        let told: BTreeSet<String> = read.findings.iter().map(ToString::to_string).collect();
        for finding in told.difference(&self.told) {
            log::warn!("{finding}");
        }
        self.told = told;
        read.list
    }

    /// Whether connects have to wait.
    pub fn are_awaited(&self, now: Instant) -> bool {
        self.reading.as_ref().is_some_and(|reading| now < reading.until)
    }

    pub fn hold(&mut self, connect: Action) {
        self.held.push(connect);
    }

    /// The connects that need not wait any more.
    pub fn release(&mut self, now: Instant) -> Vec<Action> {
        if self.are_awaited(now) { Vec::new() } else { std::mem::take(&mut self.held) }
    }

    /// When to ask [`Exclusions::release`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.reading.as_ref().filter(|_| !self.held.is_empty()).map(|reading| reading.until)
    }

    /// Takes in what inotify tells, and watches what came into being since. To be called before the lists are read, so that no
    /// change falls in between.
    pub fn look_out(&self) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusions() -> Exclusions {
        Exclusions { watch: None, told: BTreeSet::new(), reading: None, held: Vec::new() }
    }

    #[test]
    fn connects_wait_until_the_lists_are_read() {
        let (mut exclusions, now) = (exclusions(), Instant::now());
        assert!(!exclusions.are_awaited(now));
        assert!(exclusions.changed(now));
        exclusions.hold(Action::AskFcPorts);
        assert!(exclusions.are_awaited(now) && exclusions.release(now).is_empty());
        assert!(!exclusions.changed(now), "they are being read");
        assert!(exclusions.were_read(now), "but perhaps as they were before");
        assert!(exclusions.are_awaited(now) && exclusions.release(now).is_empty());
        assert!(!exclusions.were_read(now));
        assert_eq!((exclusions.release(now).len(), exclusions.release(now).len()), (1, 0));
    }

    #[test]
    fn lists_that_cannot_be_read_hold_up_nobody_for_long() {
        let (mut exclusions, now) = (exclusions(), Instant::now());
        exclusions.changed(now);
        assert_eq!(exclusions.deadline(), None, "nobody waits");
        exclusions.hold(Action::AskFcPorts);
        let due = exclusions.deadline().unwrap();
        assert_eq!((due, exclusions.release(due).len()), (now + PATIENCE, 1));
        assert!(!exclusions.are_awaited(due));
    }
}
