//! Reading log pages: when, what becomes of the answer, and what is reported.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use crate::core::evidence::Testimony;
use crate::core::finder::session::Step;
use crate::core::finder::{Finder, link_id};
use crate::core::links::Links;
use crate::core::note::Note;
use crate::core::page::{Contents, Page};
use crate::core::tid::TransportId;
use crate::core::{Action, Change, Ticket};

/// Of the entries that a page gets wrong, so many are named in the log.
const MAX_COMPLAINTS: usize = 5;

/// How much a log page is worth as evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// Never read: that nothing is there says nothing.
    None,
    /// The last good one; it could not be read again since something happened.
    Stale,
    /// Read whole since its controller was connected, and no change was reported after it.
    Fresh,
}

/// A step of a session that is under way.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) ticket: Ticket,
    pub(super) step: Step,
    /// Something changed meanwhile: read once more.
    pub(super) again: bool,
    /// Begin the session once more.
    pub(super) anew: bool,
}

impl Finder {
    /// Something may have changed at this discovery controller.
    pub fn read_soon(&mut self, tid: &Rc<TransportId>) {
        let tid = self.reader_for(tid);
        self.doubt(&tid);
        let Some(discovery) = self.controllers.get_mut(&tid) else {
            return;
        };
        match &mut discovery.reading {
            Some(reading) => reading.again = true,
            None if discovery.device.is_some() => {
                self.due.insert(tid);
            }
            None => {}
        }
    }

    /// Until the page is read anew, what it does not list may well be there: it is no evidence for any of those it counts for.
    pub(super) fn doubt(&mut self, tid: &Rc<TransportId>) {
        for tid in self.others_sharing(tid).into_iter().chain([tid.clone()]) {
            self.testimonies.push_back((tid, Testimony::Stale(Rc::default())));
        }
    }

    /// The answer to [`Action::ReadLogPage`]. `Err` says in words what went wrong.
    pub fn page_read(&mut self, now: Instant, ticket: Ticket, outcome: Result<Box<[u8]>, String>, links: &mut Links) {
        let Some((tid, reading)) = self.answered(ticket) else {
            return;
        };
        let outcome = outcome.and_then(|bytes| Page::new(bytes).map(Rc::new).map_err(|error| error.to_string()));
        let is_good = outcome.is_ok();
        if is_good {
            links.heard(now, &link_id(&tid));
        }
        let others = self.others_sharing(&tid);
        match outcome {
            Ok(page) => {
                for other in &others {
                    self.share_session(&tid, other);
                    self.accept_page(other, page.clone());
                }
                self.accept_page(&tid, page);
            }
            Err(why) => self.page_failed(now, &tid, why),
        }
        if reading.anew {
            self.restart_session(&tid);
        } else if reading.again {
            self.read_soon(&tid);
        } else if is_good {
            others.iter().chain([&tid]).for_each(|tid| self.decide_presence(now, tid, links));
        }
    }

    pub(super) fn accept_page(&mut self, tid: &Rc<TransportId>, page: Rc<Page>) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        self.retries.cancel(tid);
        let changed = discovery.page.as_ref() != Some(&page);
        let news = changed || !discovery.fresh;
        let device = discovery.device.clone().unwrap_or_default();
        match &discovery.page {
            Some(before) if changed => discovery.contents = discovery.contents.of_next_page(before, &page, tid),
            Some(_) => {}
            None => discovery.contents = Contents::of_page(&page, tid),
        }
        let read = Note::PageRead {
            id: link_id(tid),
            device: device.clone(),
            entries: page.entries().len(),
            genctr: page.genctr(),
        };
        discovery.failures = 0;
        discovery.complaint = None;
        discovery.session.heard = true;
        let is_fresh = discovery.session.is_evidence();
        discovery.fresh = is_fresh;
        let Contents { paths, referrals, complaints, .. } = &discovery.contents;
        let (paths, referrals, complaints) = (paths.clone(), referrals.clone(), complaints.clone());
        let testimony = if is_fresh { Testimony::Fresh(paths) } else { Testimony::Stale(paths) };
        if changed {
            discovery.page = Some(page);
        }
        self.complain(tid, complaints);
        self.hear_referrals(tid, referrals, is_fresh);
        if changed {
            self.actions.push_back(Action::Note(read));
        }
        if news {
            self.actions.push_back(Action::Publish(Change::LogPage { tid: tid.clone(), device }));
        }
        self.testimonies.push_back((tid.clone(), testimony));
    }

    pub(super) fn page_failed(&mut self, now: Instant, tid: &Rc<TransportId>, why: String) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        if discovery.complaint.as_ref() != Some(&why) {
            discovery.complaint = Some(why.clone());
            self.actions.push_back(Action::Note(Note::PageFailed {
                id: link_id(tid),
                device: discovery.device.clone().unwrap_or_default(),
                why,
                keeps: discovery.page.is_some(),
            }));
        }
        self.retry_later(now, tid);
        self.turn_stale(tid);
    }

    pub(super) fn retry_later(&mut self, now: Instant, tid: &Rc<TransportId>) {
        if let Some(discovery) = self.controllers.get_mut(tid) {
            discovery.failures = discovery.failures.saturating_add(1);
            self.retries.set(tid.clone(), now + self.backoff.delay(discovery.failures));
        }
    }

    pub(super) fn turn_stale(&mut self, tid: &Rc<TransportId>) {
        for tid in self.others_sharing(tid).iter().chain([tid]) {
            let Some(discovery) = self.controllers.get_mut(tid) else {
                continue;
            };
            if std::mem::take(&mut discovery.fresh) {
                let device = discovery.device.clone().unwrap_or_default();
                self.actions.push_back(Action::Publish(Change::LogPage { tid: tid.clone(), device }));
                self.testimonies.push_back((tid.clone(), Testimony::Stale(Rc::default())));
            }
        }
    }

    /// Reports what is wrong with a page's entries, once, and not without bound.
    pub(super) fn complain(&mut self, tid: &Rc<TransportId>, complaints: BTreeSet<Rc<str>>) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        let fresh: Vec<_> = complaints.difference(&discovery.entry_complaints).collect();
        for why in fresh.iter().take(MAX_COMPLAINTS) {
            let note = Note::EntryIgnored { from: (**tid).clone(), why: why.to_string() };
            self.actions.push_back(Action::Note(note));
        }
        let more = fresh.len().saturating_sub(MAX_COMPLAINTS);
        if more > 0 {
            self.actions.push_back(Action::Note(Note::EntriesIgnored { from: (**tid).clone(), more }));
        }
        discovery.entry_complaints = complaints;
    }

    /// The connection that this one's page was to be read from is not its own any more. Others that share it take over.
    pub(super) fn forget_reading(&mut self, tid: &Rc<TransportId>) {
        let mut was_to_be_read = self.due.remove(tid);
        was_to_be_read |= self.retries.get(tid).is_some();
        self.retries.cancel(tid);
        let others = self.others_sharing(tid);
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        discovery.device = None;
        if let Some(reading) = discovery.reading.take() {
            self.in_flight.remove(&reading.ticket);
            was_to_be_read = true;
        }
        if let (true, Some(other)) = (was_to_be_read, others.first()) {
            self.restart_session(other);
        }
    }
}
