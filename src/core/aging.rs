//! How long discovery controllers that announced themselves are kept once they neither are announced nor connected
//! (`zeroconf-connections-persistence`). What became of such a one cannot be known: it may be replaced for good by
//! another with another address, or come back.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::settings::Persistence;
use crate::core::deadlines::Deadlines;
use crate::core::tid::TransportId;

/// The shortest time: clients have to see that one is not connected before it is gone, to know that nobody removed it.
const NOTICE: Duration = Duration::from_secs(1);

/// Those that are out of sight, and when they are to be forgotten.
#[derive(Debug)]
pub struct Aging {
    persistence: Persistence,
    unseen: BTreeMap<Rc<TransportId>, Unseen>,
    leaving: Deadlines<Rc<TransportId>>,
}

#[derive(Debug, Clone, Copy)]
struct Unseen {
    since: Instant,
    /// Not forgotten before.
    spared_until: Instant,
}

impl Default for Aging {
    fn default() -> Aging {
        Aging { persistence: Persistence::Forever, unseen: BTreeMap::new(), leaving: Deadlines::default() }
    }
}

impl Aging {
    /// Another persistence holds for those out of sight already, too.
    pub fn set_persistence(&mut self, persistence: Persistence) {
        self.persistence = persistence;
        for (tid, unseen) in self.unseen.clone() {
            self.set_deadline(&tid, unseen);
        }
    }

    /// How long one is kept; `None`: for ever.
    pub fn span(&self) -> Option<Duration> {
        match self.persistence {
            Persistence::For(span) => Some(span),
            Persistence::Forever => None,
        }
    }

    /// Out of sight from now on; false if it was before.
    pub fn lose_sight(&mut self, now: Instant, tid: &Rc<TransportId>) -> bool {
        let is_news = !self.unseen.contains_key(tid);
        if is_news {
            self.resume(tid, now, now.checked_add(NOTICE).unwrap_or(now));
        }
        is_news
    }

    /// Out of sight since some time, before this process started; to be spared until it could have been seen.
    pub fn resume(&mut self, tid: &Rc<TransportId>, since: Instant, spared_until: Instant) {
        let unseen = Unseen { since, spared_until };
        self.unseen.insert(tid.clone(), unseen);
        self.set_deadline(tid, unseen);
    }

    /// Announced or connected, or not of interest any more.
    pub fn see(&mut self, tid: &Rc<TransportId>) {
        self.unseen.remove(tid);
        self.leaving.cancel(tid);
    }

    /// How long it has been out of sight; zero if it is not.
    pub fn age(&self, now: Instant, tid: &TransportId) -> Duration {
        self.unseen.get(tid).map_or(Duration::ZERO, |unseen| now.saturating_duration_since(unseen.since))
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.leaving.next()
    }

    /// One that is to be forgotten now.
    pub fn pop(&mut self, now: Instant) -> Option<Rc<TransportId>> {
        let tid = self.leaving.pop(now)?;
        self.unseen.remove(&tid);
        Some(tid)
    }

    fn set_deadline(&mut self, tid: &Rc<TransportId>, unseen: Unseen) {
        // A time span beyond what the clock can count is for ever, too.
        match self.span().and_then(|span| unseen.since.checked_add(span)) {
            Some(at) => self.leaving.set(tid.clone(), at.max(unseen.spared_until)),
            None => self.leaving.cancel(tid),
        }
    }
}
