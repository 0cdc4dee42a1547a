//! Controllers that do not tell when something changes: their pages are read again by time. And those among them that
//! do not support lasting connections: they are left in between.
//!
//! ```text
//!   Attached ──page read──▶ Parked ──by time, announced, asked──▶ Awaited ──connected──▶ Attached
//!                                                                    └──not within a minute──▶ Attached, and lost
//! ```
//!
//! Whether it supports lasting connections a controller says in the entry of its page that describes itself (EPCSD,
//! TP8013): Linux' own target leaves that bit clear in every version, though it keeps the connections and sends the
//! events. A controller that offers to tell of changes (Identify, OAES) has to keep a connection for that. So only one
//! that neither claims the one nor offers the other is left.
//!
//! Left is not lost: the page stays in force as it was read.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::settings::Persistent;
use crate::core::Action;
use crate::core::finder::{Finder, link_id};
use crate::core::links::Links;
use crate::core::note::Note;
use crate::core::tid::TransportId;

/// How long a controller that is to be read again has for being connected, before that counts as a loss.
const PATIENCE: Duration = Duration::from_secs(60);

/// How we are with a controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Presence {
    /// Connected, or trying to be.
    #[default]
    Attached,
    Parked,
    Awaited,
}

impl Finder {
    /// A good page has been read: stays, leaves, or reads again by time.
    pub(super) fn decide_presence(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        // One that could not be asked is kept, and read by time all the same.
        let can = discovery.session.capabilities;
        let (tells, is_mute) = (can.is_some_and(|can| can.notices), can.is_some_and(|can| !can.notices));
        let declines = discovery.page.as_ref().is_some_and(|page| page.declines_persistence());
        let leaves = match self.rules.persistent {
            Persistent::No => true,
            Persistent::Auto => declines && is_mute,
            Persistent::Force => false,
        };
        // Somebody else's connection is theirs to end.
        if leaves && links.park(&link_id(tid)) {
            discovery.session.presence = Presence::Parked;
            if !std::mem::replace(&mut discovery.parked_before, true) {
                let every = self.rules.polling_interval;
                self.actions.push_back(Action::Note(Note::Parked { id: link_id(tid), every }));
            }
        } else if tells && !leaves {
            return self.polls.cancel(tid);
        }
        self.polls.set(tid.clone(), now + self.backoff.spread(self.rules.polling_interval));
    }

    /// Somebody has reason to believe that it is time.
    pub(super) fn poll_now(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        if self.polls.get(tid).is_some() {
            self.poll(now, tid, links);
        }
    }

    /// The time has come.
    pub(super) fn poll(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        let Some(session) = self.controllers.get_mut(tid).map(|discovery| &mut discovery.session) else {
            return;
        };
        match session.presence {
            Presence::Parked => {
                session.presence = Presence::Awaited;
                self.polls.set(tid.clone(), now + PATIENCE);
                links.unpark(now, &link_id(tid));
            }
            Presence::Attached => self.read_soon(tid),
            Presence::Awaited => {}
        }
    }

    /// A deadline of `polls` has passed.
    pub(super) fn poll_due(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        match self.controllers.get_mut(tid) {
            Some(discovery) if discovery.session.presence == Presence::Awaited => {
                discovery.session.presence = Presence::Attached;
                self.turn_stale(tid);
                self.look_for(now, tid, links);
            }
            _ => self.poll(now, tid, links),
        }
    }

    // ---- what others ask -----------------------------------------------------------------------------------------

    /// Whether it has been left, and when it is read again.
    pub fn parked_until(&self, tid: &TransportId) -> Option<Instant> {
        let (tid, discovery) = self.controllers.get_key_value(tid)?;
        if discovery.session.presence == Presence::Parked { self.polls.get(tid) } else { None }
    }

    /// How many have been left.
    pub fn parked(&self) -> usize {
        self.controllers.values().filter(|discovery| discovery.session.is_parked()).count()
    }
}
