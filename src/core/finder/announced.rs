//! Discovery controllers that announce themselves, or did: they come with an announcement, and stay for some time after
//! it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::core::Action;
use crate::core::announcement::Announcement;
use crate::core::evidence::Testimony;
use crate::core::finder::{Discovery, Finder, Origin, link_id};
use crate::core::links::Links;
use crate::core::note::Note;
use crate::core::tid::TransportId;

/// Discovery controllers known from announcements, which anybody in the local network can make.
const MAX_DISCOVERED: usize = 256;

/// After the start, discovery controllers known from before have so long to be announced or connected again.
const GRACE: Duration = Duration::from_secs(60);

impl Finder {
    /// A discovery controller that an earlier run knew from an announcement, and for how long it had been out of sight
    /// then.
    pub fn remember(&mut self, tid: &Rc<TransportId>, unseen: Duration) {
        self.remembered.insert(tid.clone(), unseen);
    }

    /// Takes in all that is announced now.
    pub fn hear_announcements(&mut self, now: Instant, announcements: BTreeSet<Announcement>, links: &mut Links) {
        self.announcements = announcements;
        self.follow_announcements(now, links);
    }

    /// The kernel told of a port. Unasked and once more: it has come back.
    pub fn hear_fc_port(&mut self, now: Instant, port: Announcement, links: &mut Links) {
        let tids = self.policy.announced([&port]);
        let unasked = self.fc_ports.hear(port);
        self.follow_announcements(now, links);
        for tid in tids.iter().filter(|_| unasked) {
            links.hurry(now, &link_id(tid));
            self.poll_now(now, tid, links);
        }
    }

    /// The answer to [`Action::AskFcPorts`].
    pub fn fc_ports_told(&mut self, now: Instant, answered: bool, links: &mut Links) {
        self.fc_ports.told(answered);
        self.follow_announcements(now, links);
    }

    pub(super) fn all_announced(&self) -> BTreeSet<Rc<TransportId>> {
        self.policy.announced(self.announcements.iter().chain(self.fc_ports.iter()))
    }

    fn follow_announcements(&mut self, now: Instant, links: &mut Links) {
        let announced = self.all_announced();
        let before = std::mem::replace(&mut self.announced, announced.clone());
        for tid in announced.difference(&before) {
            self.discover(now, tid, links);
            links.hurry(now, &link_id(tid));
            self.poll_now(now, tid, links);
        }
        for tid in before.difference(&announced) {
            self.look_for(now, tid, links);
        }
    }

    /// Wants a controller that is or was announced, if it is not configured.
    pub(super) fn discover(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        let discovered = self.controllers.values().filter(|other| other.origin == Origin::Discovered).count();
        let id = link_id(tid);
        let proven = match self.controllers.get(tid) {
            Some(Discovery { origin: Origin::Configured, .. }) => return,
            Some(Discovery { origin: Origin::Discovered, proven, .. }) => *proven,
            _ if discovered >= MAX_DISCOVERED => {
                if !std::mem::replace(&mut self.crowded, true) {
                    self.actions.push_back(Action::Note(Note::TooManyAnnounced { limit: MAX_DISCOVERED }));
                }
                return;
            }
            Some(Discovery { proven, .. }) => {
                let proven = *proven;
                self.set_origin(tid, Origin::Discovered);
                proven
            }
            None => {
                self.actions.push_back(Action::Note(Note::Announced { id: id.clone() }));
                self.enter(tid, Origin::Discovered);
                false
            }
        };
        links.want(now, id.clone(), Rc::new(self.policy.options().clone()));
        links.set_tentative(&id, !proven);
        self.look_for(now, tid, links);
    }

    /// A controller from an earlier run: it has to be announced or connected within some time.
    pub(super) fn bring_back(&mut self, now: Instant, tid: &Rc<TransportId>, unseen: Duration, links: &mut Links) {
        if self.controllers.contains_key(tid) || self.policy.admits(tid).is_err() {
            return;
        }
        self.enter(tid, Origin::Discovered).proven = true;
        let spared_until = now.checked_add(GRACE).unwrap_or(now);
        self.aging.resume(tid, now.checked_sub(unseen).unwrap_or(now), spared_until);
        links.want(now, link_id(tid), Rc::new(self.policy.options().clone()));
    }

    /// Sees whether a discovered controller still is announced or connected. One for which nothing but its announcement
    /// ever spoke goes with that; others are kept for some time.
    pub(super) fn look_for(&mut self, now: Instant, tid: &Rc<TransportId>, links: &mut Links) {
        let Some(Discovery { origin: Origin::Discovered, proven, device, session, .. }) = self.controllers.get(tid)
        else {
            return;
        };
        if device.is_some() || session.is_polled() || self.announced.contains(tid) {
            self.aging.see(tid);
        } else if *proven {
            if self.aging.lose_sight(now, tid) && self.aging.span() != Some(Duration::ZERO) {
                let note = Note::OutOfSight { id: link_id(tid), leaves_in: self.aging.span() };
                self.actions.push_back(Action::Note(note));
            }
        } else if !self.is_left_to_referrals(tid, links) {
            self.drop_controller(tid, links);
        }
    }

    pub(super) fn forget_aged(&mut self, tid: &Rc<TransportId>, links: &mut Links) {
        if self.is_left_to_referrals(tid, links) {
            return;
        }
        self.actions.push_back(Action::Note(Note::Forgotten { id: link_id(tid) }));
        self.testimonies.push_back((tid.clone(), Testimony::Forgotten));
        self.drop_controller(tid, links);
    }
}
