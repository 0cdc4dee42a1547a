//! Reading log pages: when, what becomes of the answer, and what is reported.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use crate::core::evidence::Testimony;
use crate::core::finder::{Finder, link_id};
use crate::core::note::Note;
use crate::core::page::{self, Page};
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

/// A Get Log Page that is under way.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) ticket: Ticket,
    /// Something changed meanwhile: read once more.
    pub(super) again: bool,
}

impl Finder {
    /// Something may have changed at this discovery controller.
    pub fn read_soon(&mut self, tid: &Rc<TransportId>) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        match &mut discovery.reading {
            Some(reading) => reading.again = true,
            None if discovery.device.is_some() => {
                self.due.insert(tid.clone());
            }
            None => {}
        }
    }

    /// Events were lost: every page may have changed.
    pub fn read_all_soon(&mut self) {
        let all: Vec<_> = self.controllers.keys().cloned().collect();
        for tid in all {
            self.read_soon(&tid);
        }
    }

    /// The answer to [`Action::ReadLogPage`]. `Err` says in words what went wrong.
    pub fn page_read(&mut self, now: Instant, ticket: Ticket, outcome: Result<Box<[u8]>, String>) {
        let Some(tid) = self.in_flight.remove(&ticket) else {
            return;
        };
        let Some(discovery) = self.controllers.get_mut(&tid) else {
            return;
        };
        let again = discovery.reading.take().is_some_and(|reading| reading.again);
        let outcome = outcome.and_then(|bytes| Page::new(bytes).map_err(|error| error.to_string()));
        match outcome {
            Ok(page) => self.accept_page(&tid, page),
            Err(why) => self.page_failed(now, &tid, why),
        }
        if again {
            self.read_soon(&tid);
        }
    }

    pub(super) fn accept_page(&mut self, tid: &Rc<TransportId>, page: Page) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        self.retries.cancel(tid);
        let changed = discovery.page.as_ref() != Some(&page);
        let news = changed || !discovery.fresh;
        let device = discovery.device.clone().unwrap_or_default();
        let (paths, complaints) = page::paths(&page, tid);
        let read = Note::PageRead {
            id: link_id(tid),
            device: device.clone(),
            entries: page.entries().len(),
            genctr: page.genctr(),
        };
        discovery.failures = 0;
        discovery.complaint = None;
        discovery.fresh = true;
        discovery.page = Some(page);
        self.complain(tid, complaints);
        if changed {
            self.actions.push_back(Action::Note(read));
        }
        if news {
            self.actions.push_back(Action::Publish(Change::LogPage { tid: tid.clone(), device }));
        }
        self.testimonies.push_back((tid.clone(), Testimony::Fresh(paths)));
    }

    pub(super) fn page_failed(&mut self, now: Instant, tid: &Rc<TransportId>, why: String) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        discovery.failures = discovery.failures.saturating_add(1);
        if discovery.complaint.as_ref() != Some(&why) {
            discovery.complaint = Some(why.clone());
            self.actions.push_back(Action::Note(Note::PageFailed {
                id: link_id(tid),
                device: discovery.device.clone().unwrap_or_default(),
                why,
                keeps: discovery.page.is_some(),
            }));
        }
        let delay = self.backoff.delay(discovery.failures);
        self.retries.set(tid.clone(), now + delay);
        self.turn_stale(tid);
    }

    pub(super) fn turn_stale(&mut self, tid: &Rc<TransportId>) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        if std::mem::take(&mut discovery.fresh) {
            let device = discovery.device.clone().unwrap_or_default();
            self.actions.push_back(Action::Publish(Change::LogPage { tid: tid.clone(), device }));
        }
    }

    /// Reports what is wrong with a page's entries, once, and not without bound.
    pub(super) fn complain(&mut self, tid: &Rc<TransportId>, complaints: BTreeSet<String>) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        let fresh: Vec<_> = complaints.difference(&discovery.entry_complaints).collect();
        for why in fresh.iter().take(MAX_COMPLAINTS) {
            let note = Note::EntryIgnored { from: (**tid).clone(), why: (*why).clone() };
            self.actions.push_back(Action::Note(note));
        }
        let more = fresh.len().saturating_sub(MAX_COMPLAINTS);
        if more > 0 {
            self.actions.push_back(Action::Note(Note::EntriesIgnored { from: (**tid).clone(), more }));
        }
        discovery.entry_complaints = complaints;
    }

    pub(super) fn forget_reading(&mut self, tid: &Rc<TransportId>) {
        self.due.remove(tid);
        self.retries.cancel(tid);
        if let Some(reading) = self.controllers.get_mut(tid).and_then(|discovery| discovery.reading.take()) {
            self.in_flight.remove(&reading.ticket);
        }
    }
}
