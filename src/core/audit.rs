//! The audit: connections that others made and nobody here wants (`disconnect-scope =
//! "all-connections-matching-disconnect-trtypes"`).
//!
//! Nothing is taken down at first sight. A discovery controller may have begun to list a subsystem a moment ago, and
//! somebody else may have read that sooner than we; another may be about to announce itself. So a connection has to be
//! unwanted for a while, all the time of which every discovery controller can be asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::core::deadlines::Deadlines;
use crate::core::device::Device;
use crate::core::links::LinkId;

/// For so long nobody must want a connection before it is taken down.
const SOAK: Duration = Duration::from_secs(10);

/// A controller by its name and, since names are recycled, by what it is.
type Suspect = (String, LinkId);

/// The controllers that nobody wants.
#[derive(Debug, Default)]
pub struct Audit {
    suspects: BTreeSet<Suspect>,
    due: Deadlines<Suspect>,
}

impl Audit {
    /// These are all that nobody wants; none if that cannot be told.
    pub fn review<'a>(&mut self, now: Instant, strays: impl Iterator<Item = &'a Device>) {
        let strays: BTreeSet<Suspect> = strays.map(|stray| (stray.name.clone(), LinkId::of_device(stray))).collect();
        for suspect in self.suspects.difference(&strays) {
            self.due.cancel(suspect);
        }
        for suspect in strays.difference(&self.suspects) {
            self.due.set(suspect.clone(), now + SOAK);
        }
        self.suspects = strays;
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.due.next()
    }

    /// The name of one that is to be taken down now.
    pub fn pop(&mut self, now: Instant) -> Option<String> {
        let suspect = self.due.pop(now)?;
        self.suspects.remove(&suspect);
        Some(suspect.0)
    }
}
