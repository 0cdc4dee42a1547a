//! Portals: the network ends behind which controllers are, and whether they answer.
//!
//! The kernel makes all connects of a host wait for each other, up to 3 s for an address where nothing answers, 10 s where
//! something accepts the connection but does not speak NVMe/TCP, and 60 s where it goes quiet later. So a portal is probed
//! first, by the daemon's own non-blocking connect and Initialize Connection Request. All controllers behind a portal share
//! the answer, the back-off and the retry: 250 subsystems behind a dead address cost one probe at a time.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use crate::core::links::LinkId;
use crate::core::tid::{Transport, TransportId};

/// How long an answer is believed. Long enough that a burst of connects needs one probe, short enough that a portal which
/// dies in between costs little.
pub const ANSWER_VALID: Duration = Duration::from_secs(5);

/// One end of the network as seen from this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortalId {
    pub traddr: String,
    pub trsvcid: String,
    pub host_traddr: String,
    pub host_iface: String,
    /// TLS comes before NVMe here, so only the TCP connect can be probed.
    pub tls: bool,
}

impl PortalId {
    /// The portal of a controller; `None` for transports that cannot be probed.
    pub fn of(tid: &TransportId, tls: bool) -> Option<PortalId> {
        (tid.transport() == Transport::Tcp).then(|| PortalId {
            traddr: tid.traddr().to_owned(),
            trsvcid: tid.trsvcid().to_owned(),
            host_traddr: tid.host_traddr().to_owned(),
            host_iface: tid.host_iface().to_owned(),
            tls,
        })
    }
}

impl fmt::Display for PortalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.traddr.contains(':') {
            true => write!(f, "[{}]:{}", self.traddr, self.trsvcid)?,
            false => write!(f, "{}:{}", self.traddr, self.trsvcid)?,
        }
        if !self.host_iface.is_empty() {
            write!(f, " via {}", self.host_iface)?;
        }
        if !self.host_traddr.is_empty() {
            write!(f, " from {}", self.host_traddr)?;
        }
        Ok(())
    }
}

/// What is known of a portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Unknown,
    /// A probe is under way.
    Asked,
    /// An NVMe/TCP controller answered.
    Yes {
        until: Instant,
    },
    /// Nothing useful answered; probed again when the portal's deadline fires.
    No,
}

/// A portal and the controllers behind it.
#[derive(Debug)]
pub struct Portal {
    pub members: BTreeSet<LinkId>,
    pub answer: Answer,
    /// Failures since a controller behind it was last connected.
    pub failures: u32,
    /// The last failure that was reported.
    pub complaint: Option<String>,
}

impl Portal {
    pub fn new() -> Portal {
        Portal { members: BTreeSet::new(), answer: Answer::Unknown, failures: 0, complaint: None }
    }

    /// Notes a failure; whether it is news.
    pub fn fail(&mut self, why: &str) -> bool {
        self.answer = Answer::No;
        self.failures = self.failures.saturating_add(1);
        let news = self.complaint.as_deref() != Some(why);
        self.complaint = Some(why.to_owned());
        news
    }

    pub fn answered(&mut self, now: Instant) {
        self.answer = Answer::Yes { until: now + ANSWER_VALID };
    }

    /// A controller behind it was connected.
    pub fn proved(&mut self, now: Instant) {
        self.answered(now);
        self.failures = 0;
        self.complaint = None;
    }
}

impl Default for Portal {
    fn default() -> Self {
        Portal::new()
    }
}
