//! Discovery controllers that others refer to (Discovery Log Page Entry, SUBTYPE 1).
//!
//! A referral is wanted as long as it can be reached from a controller that is configured or announced, from one to the
//! next, by the last good pages of controllers that are wanted themselves. So a loop does not keep itself alive, and a
//! referral goes with the controller that listed it. A page that cannot be read, or has not been read yet since a
//! restart, takes nothing back. The entry by which a controller describes itself (SUBTYPE 3) is no referral.
//!
//! What a page lists is anybody's claim: how far and how many we follow is bounded. Bounds, and that two names may be
//! those of one controller, count for those that come, never against those that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use crate::core::Action;
use crate::core::evidence::Testimony;
use crate::core::finder::{Finder, Origin, link_id};
use crate::core::links::Links;
use crate::core::note::Note;
use crate::core::tid::{DISCOVERY_NQN, TransportId};

/// Referrals that are followed.
const MAX_REFERRALS: usize = 256;

/// How many referrals may lead to one, from one controller to the next.
const MAX_DEPTH: usize = 8;

/// Of one page, so many referrals to controllers that are not known are kept in mind: there may be room for them later.
const MAX_OF_PAGE: usize = 4 * MAX_REFERRALS;

/// The bounds that keep us from following a referral, and of which that was said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bounded {
    number: bool,
    depth: bool,
}

impl Finder {
    /// An earlier run knew that these refer to `referred`.
    pub fn remember_referral(&mut self, referred: &Rc<TransportId>, listers: &[Rc<TransportId>]) {
        for lister in listers {
            self.known_before.insert(referred.clone());
            self.remembered_referrals.entry(lister.clone()).or_default().insert(referred.clone());
        }
    }

    /// Who is referred to, with those that do.
    pub fn referred(&self) -> BTreeMap<Rc<TransportId>, Vec<Rc<TransportId>>> {
        let mut referred: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (lister, discovery) in &self.controllers {
            for tid in discovery.referrals.iter().filter(|tid| self.controllers.contains_key(*tid)) {
                referred.entry(tid.clone()).or_default().push(lister.clone());
            }
        }
        referred
    }

    /// Takes in all that a page refers to, which takes others back only if it is fresh.
    pub(super) fn hear_referrals(
        &mut self,
        lister: &Rc<TransportId>,
        referrals: BTreeSet<Rc<TransportId>>,
        is_fresh: bool,
    ) {
        let is_known = |tid: &Rc<TransportId>| self.controllers.contains_key(tid);
        let (mut kept, others): (BTreeSet<_>, BTreeSet<_>) = referrals.into_iter().partition(is_known);
        kept.extend(others.into_iter().take(MAX_OF_PAGE));
        if let (Some(discovery), false) = (self.controllers.get(lister), is_fresh) {
            kept.extend(discovery.referrals.iter().filter(|tid| is_known(tid)).cloned());
        }
        if let Some(discovery) = self.controllers.get_mut(lister)
            && discovery.referrals != kept
        {
            discovery.referrals = kept;
            self.astray = true;
        }
    }

    /// Follows what has changed since this was asked last; false if nothing has. Who cannot be reached any more is let
    /// go: nobody refers to it, but it has taken nothing back itself.
    pub fn follow_referrals(&mut self, now: Instant, links: &mut Links) -> bool {
        if !std::mem::take(&mut self.astray) {
            return false;
        }
        self.admit_referrals(now, links);
        for tid in self.unreachable() {
            self.actions.push_back(Action::Note(Note::NotReferred { id: link_id(&tid) }));
            self.testimonies.push_back((tid.clone(), Testimony::Forgotten));
            self.drop_controller(&tid, links);
        }
        true
    }

    /// The same when the administrator says what there is: with whom he drops goes what they refer to.
    pub(super) fn follow_configuration(&mut self, now: Instant, links: &mut Links) {
        let options = Rc::new(self.policy.options().clone());
        for tid in self.reach().keys().filter(|tid| self.origin(tid) == Some(Origin::Referral)) {
            links.want(now, link_id(tid), options.clone());
            links.set_tentative(&link_id(tid), false);
        }
        self.admit_referrals(now, links);
        for tid in self.unreachable() {
            self.drop_controller(&tid, links);
        }
        self.astray = false;
    }

    /// Nothing but referrals may speak for a controller from now on; whether one does.
    pub(super) fn is_left_to_referrals(&mut self, tid: &Rc<TransportId>, links: &mut Links) -> bool {
        self.set_origin(tid, Origin::Referral);
        self.aging.see(tid);
        links.set_tentative(&link_id(tid), false);
        self.reach().contains_key(tid)
    }

    /// Wants the referrals that are new, the nearest first.
    fn admit_referrals(&mut self, now: Instant, links: &mut Links) {
        let options = Rc::new(self.policy.options().clone());
        let mut bounded = Bounded::default();
        loop {
            let mut reached = self.reach();
            let is_referral = |tid: &&Rc<TransportId>| self.origin(tid) == Some(Origin::Referral);
            let mut room = MAX_REFERRALS.saturating_sub(reached.keys().filter(is_referral).count());
            let mut leads_further = false;
            for (depth, tid, lister) in self.newly_referred(&reached) {
                let is_new = !self.known_before.contains(&tid);
                if is_new && depth > MAX_DEPTH {
                    bounded.depth = true;
                } else if is_new && self.is_known_by_another_name(&tid, &reached) {
                    continue;
                } else if is_new && room == 0 {
                    bounded.number = true;
                } else {
                    room = room.saturating_sub(1);
                    leads_further |= !self.enter(&tid, Origin::Referral).referrals.is_empty();
                    reached.insert(tid.clone(), depth);
                    self.actions.push_back(Action::Note(Note::Referred { id: link_id(&tid), by: link_id(&lister) }));
                    links.want(now, link_id(&tid), options.clone());
                }
            }
            if !leads_further {
                break;
            }
        }
        self.say_bounds(bounded);
    }

    /// The admitted controllers that are not wanted so far, with their distance and one that refers to them.
    fn newly_referred(
        &self,
        reached: &BTreeMap<Rc<TransportId>, usize>,
    ) -> BTreeSet<(usize, Rc<TransportId>, Rc<TransportId>)> {
        let mut nearest: BTreeMap<&Rc<TransportId>, (usize, &Rc<TransportId>)> = BTreeMap::new();
        for (lister, depth) in reached {
            let referrals = self.controllers.get(lister).into_iter().flat_map(|discovery| &discovery.referrals);
            let new = referrals.filter(|tid| !self.controllers.contains_key(*tid) && self.policy.admits(tid).is_ok());
            for tid in new {
                let way = (depth.saturating_add(1), lister);
                nearest.entry(tid).and_modify(|known| *known = way.min(*known)).or_insert(way);
            }
        }
        nearest.into_iter().map(|(tid, (depth, lister))| (depth, tid.clone(), lister.clone())).collect()
    }

    /// Whether a controller is one of these already, by another name at the same place: what answers to the well-known
    /// NQN there is what has the unique one (TP8013), unless it told another.
    fn is_known_by_another_name(&self, tid: &Rc<TransportId>, reached: &BTreeMap<Rc<TransportId>, usize>) -> bool {
        let id = link_id(tid);
        let neighbours = self.controllers.range(id.first_of_place().tid..);
        let neighbours = neighbours.take_while(|(other, _)| link_id(other).is_same_place(&id));
        let mut neighbours = neighbours.filter(|(other, _)| reached.contains_key(*other));
        neighbours.any(|(other, discovery)| {
            let is_pinned_alike = (tid.host_traddr(), tid.host_iface(), tid.host_nqn())
                == (other.host_traddr(), other.host_iface(), other.host_nqn());
            let has_that_name = discovery.calls_itself.as_deref().is_none_or(|name| name == tid.subsysnqn());
            let is_known = |other: &TransportId| other.subsysnqn() == DISCOVERY_NQN;
            is_pinned_alike && (is_known(tid) || is_known(other) && has_that_name)
        })
    }

    /// Every controller that is wanted, and how many referrals lead to it.
    fn reach(&self) -> BTreeMap<Rc<TransportId>, usize> {
        let roots = self.controllers.iter().filter(|(_, discovery)| discovery.origin != Origin::Referral);
        let mut reached: BTreeMap<_, usize> = roots.map(|(tid, _)| (tid.clone(), 0)).collect();
        let mut frontier: Vec<_> = reached.keys().cloned().collect();
        for depth in 1.. {
            let listers = frontier.iter().filter_map(|tid| self.controllers.get(tid));
            let referred: BTreeSet<_> = listers.flat_map(|discovery| &discovery.referrals).cloned().collect();
            let is_new = |tid: &Rc<TransportId>| {
                self.controllers.contains_key(tid) && !reached.contains_key(tid) && self.policy.admits(tid).is_ok()
            };
            frontier = referred.into_iter().filter(is_new).collect();
            if frontier.is_empty() {
                break;
            }
            reached.extend(frontier.iter().map(|tid| (tid.clone(), depth)));
        }
        reached
    }

    fn unreachable(&self) -> Vec<Rc<TransportId>> {
        let reached = self.reach();
        self.controllers.keys().filter(|tid| !reached.contains_key(*tid)).cloned().collect()
    }

    fn say_bounds(&mut self, bounded: Bounded) {
        if bounded.number && !self.bounded.number {
            self.actions.push_back(Action::Note(Note::TooManyReferrals { limit: MAX_REFERRALS }));
        }
        if bounded.depth && !self.bounded.depth {
            self.actions.push_back(Action::Note(Note::ReferralsTooDeep { limit: MAX_DEPTH }));
        }
        self.bounded = bounded;
    }
}
