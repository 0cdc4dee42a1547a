//! The portals in use: who goes through each, who waits for its answer, and when it is asked again.
//!
//! ```text
//!   Unknown ──ask──▶ Asked ──answered──▶ Yes ──after 5 s──▶ (as Unknown)
//!                     ▲ │                 │
//!               retry │ └─failed─▶ No ◀───┘ a connect fails, and the portal is to blame
//!                     └────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::backoff::{BackOff, Hold};
use crate::core::deadlines::Deadlines;
use crate::core::links::LinkId;
use crate::core::portal::PortalId;

/// How long an answer is believed. Long enough that a burst of connects needs one probe, short enough that a portal which
/// dies in between costs little.
const ANSWER_VALID: Duration = Duration::from_secs(5);

/// What is known of a portal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Unknown,
    /// A probe is under way.
    Asked,
    /// An NVMe/TCP controller answered.
    Yes { until: Instant },
    /// Nothing useful answered; asked again when the portal's deadline comes.
    No,
}

#[derive(Debug, Default)]
struct Portal {
    answer: Answer,
    /// Every link that goes through it.
    members: BTreeSet<LinkId>,
    /// Those that wait for its answer.
    waiting: BTreeSet<LinkId>,
    /// Failures since a controller behind it was last connected.
    failures: u32,
    /// The last failure held up the host's other connects.
    held_up: bool,
    /// The last failure that was reported.
    complaint: Option<String>,
}

/// Every portal that a link goes through.
#[derive(Debug)]
pub struct Portals {
    portals: BTreeMap<PortalId, Portal>,
    retries: Deadlines<PortalId>,
    backoff: BackOff,
}

impl Portals {
    pub fn new(seed: u64) -> Portals {
        Portals { portals: BTreeMap::new(), retries: Deadlines::default(), backoff: BackOff::new(seed) }
    }

    pub fn join(&mut self, portal: &PortalId, link: &LinkId) {
        self.portals.entry(portal.clone()).or_default().members.insert(link.clone());
    }

    /// A portal is forgotten with its last link, but one that held up the host only when its time has come: it must not be
    /// asked anew because somebody announces it anew.
    pub fn leave(&mut self, portal_id: &PortalId, link: &LinkId) {
        let Some(portal) = self.portals.get_mut(portal_id) else {
            return;
        };
        portal.waiting.remove(link);
        portal.members.remove(link);
        if portal.members.is_empty() && !(portal.held_up && portal.answer == Answer::No) {
            self.portals.remove(portal_id);
            self.retries.cancel(portal_id);
        }
    }

    pub fn members(&self, portal: &PortalId) -> impl Iterator<Item = &LinkId> {
        self.portals.get(portal).into_iter().flat_map(|portal| &portal.members)
    }

    /// The last failure that was told.
    pub fn complaint(&self, portal: &PortalId) -> Option<&str> {
        self.portals.get(portal)?.complaint.as_deref()
    }

    pub fn is_open(&self, now: Instant, portal: &PortalId) -> bool {
        self.portals.get(portal).is_some_and(|portal| matches!(portal.answer, Answer::Yes { until } if until > now))
    }

    /// From now on `link` waits for the portal's answer.
    pub fn wait(&mut self, portal: &PortalId, link: &LinkId) {
        if let Some(portal) = self.portals.get_mut(portal) {
            portal.waiting.insert(link.clone());
        }
    }

    pub fn stop_waiting(&mut self, portal: &PortalId, link: &LinkId) {
        if let Some(portal) = self.portals.get_mut(portal) {
            portal.waiting.remove(link);
        }
    }

    /// Somebody waits for an answer: whether the portal is to be probed for that.
    pub fn ask(&mut self, portal: &PortalId) -> bool {
        match self.portals.get_mut(portal) {
            Some(portal) if matches!(portal.answer, Answer::Unknown | Answer::Yes { .. }) => {
                portal.answer = Answer::Asked;
                true
            }
            _ => false,
        }
    }

    /// A probe was answered; the links that waited for it. A late answer, overtaken by a failure, counts for nothing.
    pub fn answered(&mut self, now: Instant, portal: &PortalId) -> BTreeSet<LinkId> {
        match self.portals.get(portal) {
            Some(Portal { answer: Answer::Asked, .. }) => self.open(now, portal),
            _ => BTreeSet::new(),
        }
    }

    /// A controller behind it has answered a command: as good as the answer to a probe, unless a connect has failed there.
    pub fn heard(&mut self, now: Instant, portal: &PortalId) {
        if let Some(Portal { answer: answer @ (Answer::Unknown | Answer::Yes { .. }), .. }) =
            self.portals.get_mut(portal)
        {
            *answer = Answer::Yes { until: now + ANSWER_VALID };
        }
    }

    /// A controller behind it was connected; the links that waited for its answer.
    pub fn proved(&mut self, now: Instant, portal_id: &PortalId) -> BTreeSet<LinkId> {
        if let Some(portal) = self.portals.get_mut(portal_id) {
            portal.failures = 0;
            portal.complaint = None;
        }
        self.open(now, portal_id)
    }

    fn open(&mut self, now: Instant, portal_id: &PortalId) -> BTreeSet<LinkId> {
        let Some(portal) = self.portals.get_mut(portal_id) else {
            return BTreeSet::new();
        };
        portal.answer = Answer::Yes { until: now + ANSWER_VALID };
        self.retries.cancel(portal_id);
        std::mem::take(&mut portal.waiting)
    }

    /// Whether the portal is to be probed ahead of its time. One that held up the host has to wait all the same: anybody in
    /// the local network can give us a reason for haste.
    pub fn hurry(&mut self, portal_id: &PortalId) -> bool {
        match self.portals.get_mut(portal_id) {
            Some(portal) if portal.answer == Answer::No && !portal.held_up => {
                portal.answer = Answer::Asked;
                portal.failures = portal.failures.min(1);
                self.retries.cancel(portal_id);
                true
            }
            _ => false,
        }
    }

    /// Whatever failed may be asked at once, and waits start over with the shortest. The portals that somebody waits for,
    /// to be probed. One without links still is forgotten when its time has come, and one that held up the host has to wait
    /// unless the administrator asks.
    pub fn start_over(&mut self, even_held_up: bool, is_concerned: impl Fn(&PortalId) -> bool) -> Vec<PortalId> {
        let mut asked = Vec::new();
        let may_start = |portal: &Portal| !portal.members.is_empty() && (even_held_up || !portal.held_up);
        let concerned =
            self.portals.iter_mut().filter(|(portal_id, portal)| may_start(portal) && is_concerned(portal_id));
        for (portal_id, portal) in concerned {
            // Of a probe under way, too: it may fail by what was before.
            portal.failures = portal.failures.min(1);
            if portal.answer == Answer::No {
                portal.answer = Answer::Unknown;
                self.retries.cancel(portal_id);
                if !portal.waiting.is_empty() {
                    portal.answer = Answer::Asked;
                    asked.push(portal_id.clone());
                }
            }
        }
        asked
    }

    /// A probe failed, or a connect did that cost the host this `hold`. Asked again later: in how long, if the administrator has not been told of this failure yet.
    /// `tentative`: only an announcement says that there is something.
    pub fn failed(
        &mut self,
        now: Instant,
        portal_id: &PortalId,
        why: &str,
        hold: Hold,
        tentative: bool,
    ) -> Option<Duration> {
        let portal = self.portals.get_mut(portal_id)?;
        portal.answer = Answer::No;
        portal.failures = portal.failures.saturating_add(1);
        portal.held_up = hold.is_long();
        let mut retry_in = self.backoff.delay_after_connect(portal.failures, hold);
        if tentative {
            retry_in = retry_in.max(self.backoff.delay_where_announced(portal.failures));
        }
        // Of two connects that fail together, the one that held up more sets the time.
        let retry_at = self.retries.get(portal_id).into_iter().fold(now + retry_in, Instant::max);
        self.retries.set(portal_id.clone(), retry_at);
        let is_news = portal.complaint.as_deref() != Some(why);
        portal.complaint = Some(why.to_owned());
        is_news.then_some(retry_at.saturating_duration_since(now))
    }

    /// Whether the last failure held up the host's other connects.
    pub fn held_up(&self, portal: &PortalId) -> bool {
        self.portals.get(portal).is_some_and(|portal| portal.held_up)
    }

    pub fn failures(&self, portal: &PortalId) -> u32 {
        self.portals.get(portal).map_or(0, |portal| portal.failures)
    }

    pub fn retry_at(&self, portal: &PortalId) -> Option<Instant> {
        self.retries.get(portal)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.retries.next()
    }

    /// A portal that is to be probed now.
    pub fn pop_due(&mut self, now: Instant) -> Option<PortalId> {
        while let Some(portal_id) = self.retries.pop(now) {
            let Some(portal) = self.portals.get_mut(&portal_id) else {
                continue;
            };
            portal.answer = Answer::Unknown;
            if portal.members.is_empty() {
                self.portals.remove(&portal_id);
                continue;
            }
            if !portal.waiting.is_empty() {
                portal.answer = Answer::Asked;
                return Some(portal_id);
            }
        }
        None
    }

    pub fn is_empty(&self) -> bool {
        self.portals.is_empty() && self.retries.next().is_none()
    }
}
