//! What the state machines have to tell the administrator: one note for each change of state, none for each retry.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use log::Level;

use crate::core::links::{Bar, LinkId};
use crate::core::portal::PortalId;
use crate::core::tid::{Transport, TransportId};
use crate::helper::message::Failure;

/// A line of the log. `Display` gives the text: what happened, to which controller, what happens next.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    Connected {
        id: LinkId,
        device: String,
    },
    Adopted {
        id: LinkId,
        device: String,
    },
    /// `retry_in`: it did not last, so it has to wait.
    Lost {
        id: LinkId,
        device: String,
        retry_in: Option<Duration>,
    },
    Unreachable {
        portal: PortalId,
        why: String,
        waiting: usize,
        retry_in: Duration,
    },
    ConnectFailed {
        id: LinkId,
        why: String,
        retry_in: Duration,
    },
    /// What is wrong with host NQN and host id.
    HostId(String),
    Disconnecting {
        id: LinkId,
        device: String,
    },
    DisconnectFailed {
        id: LinkId,
        device: String,
        failure: Failure,
        retry_in: Duration,
    },
    Registered {
        id: LinkId,
        device: String,
    },
    NotRegistered {
        id: LinkId,
        device: String,
        why: String,
    },
    RegistrationUnanswered {
        id: LinkId,
        device: String,
    },
    /// No more than a finer point is lost by it.
    NotInquired {
        id: LinkId,
        why: String,
    },
    Parked {
        id: LinkId,
        every: Duration,
    },
    LeavingFailed {
        id: LinkId,
        device: String,
        failure: Failure,
    },
    /// It is not wanted, but something on this host uses it.
    Kept {
        id: LinkId,
        device: String,
        failure: Failure,
    },
    Postponed {
        id: LinkId,
        device: String,
    },
    /// Somebody else connected it, and nobody lists it.
    Condemned {
        id: LinkId,
        device: String,
    },
    /// It must not be tried (any more).
    Barred {
        id: LinkId,
        bar: Bar,
    },
    PageRead {
        id: LinkId,
        device: String,
        entries: usize,
        genctr: u64,
    },
    PageFailed {
        id: LinkId,
        device: String,
        why: String,
        keeps: bool,
    },
    EntryIgnored {
        from: TransportId,
        why: String,
    },
    EntriesIgnored {
        from: TransportId,
        more: usize,
    },
    ControllerIgnored {
        tid: TransportId,
        why: String,
    },
    /// `waiting`: how many controllers have no address without it.
    Unresolved {
        name: Rc<str>,
        why: String,
        waiting: usize,
        retry_in: Duration,
    },
    Announced {
        id: LinkId,
    },
    TooManyAnnounced {
        limit: usize,
    },
    Referred {
        id: LinkId,
        by: LinkId,
    },
    NotReferred {
        id: LinkId,
    },
    TooManyReferrals {
        limit: usize,
    },
    ReferralsTooDeep {
        limit: usize,
    },
    /// `leaves_in`: `None` for never.
    OutOfSight {
        id: LinkId,
        leaves_in: Option<Duration>,
    },
    Forgotten {
        id: LinkId,
    },
}

impl Note {
    pub fn level(&self) -> Level {
        match self {
            Note::Connected { .. }
            | Note::Adopted { .. }
            | Note::Barred { .. }
            | Note::Disconnecting { .. }
            | Note::Registered { .. }
            | Note::Parked { .. }
            | Note::Postponed { .. }
            | Note::PageRead { .. }
            | Note::Announced { .. }
            | Note::Referred { .. } => Level::Info,
            Note::NotInquired { .. } => Level::Debug,
            Note::DisconnectFailed { .. } | Note::HostId(_) | Note::ControllerIgnored { .. } => Level::Error,
            _ => Level::Warn,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Connected { id, device } => write!(f, "{id}: connected as {device}"),
            Note::Adopted { id, device } => write!(f, "{id}: already connected as {device}, kept"),
            Note::Lost { id, device, retry_in: None } => {
                write!(f, "{id}: the kernel removed {device}; connecting again")
            }
            Note::Lost { id, device, retry_in: Some(wait) } => {
                write!(
                    f,
                    "{id}: the kernel removed {device} soon after it was connected; next try in {}",
                    Rounded(*wait)
                )
            }
            Note::Unreachable { portal, why, waiting, retry_in } => {
                write!(f, "{portal}: {why}; {waiting} waiting, next try in {}", Rounded(*retry_in))?;
                if *retry_in < Duration::from_secs(60) {
                    f.write_str(", then at growing intervals")?;
                }
                Ok(())
            }
            Note::ConnectFailed { id, why, retry_in } => {
                write!(f, "{id}: not connected: {why}; next try in {}", Rounded(*retry_in))
            }
            Note::HostId(complaint) => f.write_str(complaint),
            Note::Disconnecting { id, device } => write!(f, "{id}: no longer wanted, disconnecting {device}"),
            Note::DisconnectFailed { id, device, failure, retry_in } => {
                write!(f, "{id}: {device} could not be disconnected: {failure}; next try in {}", Rounded(*retry_in))
            }
            Note::Registered { id, device } => write!(f, "{id}: this host is registered with {device}"),
            Note::NotRegistered { id, device, why } => {
                write!(f, "{id}: this host could not be registered with {device}: {why}; ")?;
                f.write_str("its log page is read all the same, registering is tried again when it is connected again")
            }
            Note::RegistrationUnanswered { id, device } => {
                write!(
                    f,
                    "{id}: {device} did not answer the registration of this host, or was lost over it; once it is \
                     connected again, its log page is read without; a reload tries again to register"
                )
            }
            Note::NotInquired { id, why } => {
                write!(f, "{id}: what it can do beyond the log page could not be asked: {why}; going on without")
            }
            Note::Parked { id, every } => {
                write!(f, "{id}: supports no lasting connection: left, and read again every {}", Rounded(*every))
            }
            Note::LeavingFailed { id, device, failure } => {
                write!(f, "{id}: {device} could not be disconnected: {failure}; tried again when it is read again")
            }
            Note::Kept { id, device, failure } => {
                write!(f, "{id}: no longer wanted, but {device} is kept: {failure}; disconnected when that changes")
            }
            Note::Postponed { id, device } => {
                write!(f, "{id}: no longer wanted; {device} stays until what replaces it is connected")
            }
            Note::Condemned { id, device } => {
                write!(
                    f,
                    "{id}: connected by somebody else and wanted by nobody, disconnecting {device} (disconnect-scope)"
                )
            }
            Note::Barred { id, bar: bar @ Bar::Attempts(limit) } => {
                write!(f, "{id}: not connected after {limit} attempts, and {bar}")
            }
            Note::Barred { id, bar: bar @ Bar::Excluded(_) } => write!(f, "{id}: not connected, because {bar}"),
            Note::Barred { id, bar: bar @ Bar::NoTls } => write!(f, "{id}: not connected: {bar}"),
            Note::PageRead { id, device, entries, genctr } => {
                write!(f, "{id}: {device} lists {entries} entries (generation {genctr})")
            }
            Note::PageFailed { id, device, why, keeps } => {
                write!(f, "{id}: the discovery log page could not be read from {device}: {why}; ")?;
                f.write_str(match keeps {
                    true => "the last good page stays in force, trying again",
                    false => "trying again",
                })
            }
            Note::EntryIgnored { from, why } => write!(f, "{from}: log page entry ignored: {why}"),
            Note::EntriesIgnored { from, more } => write!(f, "{from}: {more} more log page entries ignored"),
            Note::Announced { id } if id.tid.transport() == Transport::Fc => {
                write!(f, "{id}: found on the Fibre Channel fabric")
            }
            Note::Announced { id } => write!(f, "{id}: announced in the local network"),
            Note::TooManyAnnounced { limit } => {
                write!(f, "{limit} discovery controllers are known from announcements: further ones are ignored")
            }
            Note::Referred { id, by } => write!(f, "{id}: {by} refers to it"),
            Note::NotReferred { id } => {
                write!(
                    f,
                    "{id}: no discovery controller refers to it any more: forgotten; what it listed and is connected \
                     stays"
                )
            }
            Note::TooManyReferrals { limit } => {
                write!(f, "{limit} discovery controllers are known from referrals: further ones are not followed")
            }
            Note::ReferralsTooDeep { limit } => {
                write!(f, "referrals that take more than {limit} steps from where they begin are not followed")
            }
            Note::OutOfSight { id, leaves_in: None } => write!(f, "{id}: neither announced nor connected any more"),
            Note::OutOfSight { id, leaves_in: Some(span) } => {
                write!(
                    f,
                    "{id}: neither announced nor connected any more; forgotten in {} unless that changes",
                    Rounded(*span)
                )
            }
            Note::Forgotten { id } => {
                write!(
                    f,
                    "{id}: neither announced nor connected for as long as configured: forgotten; what it listed and \
                     is connected stays"
                )
            }
            Note::Unresolved { name, why, waiting: 0, .. } => {
                write!(f, "{name}: not resolved: {why}; the addresses that are known stay in force")
            }
            Note::Unresolved { name, why, waiting, retry_in } => {
                write!(f, "{name}: not resolved: {why}; {waiting} waiting, next try in {}", Rounded(*retry_in))?;
                f.write_str(", then at growing intervals")
            }
            Note::ControllerIgnored { tid, why } => write!(f, "{tid}: ignored: {why}"),
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::Attempts(_) => {
                f.write_str("the discovery controller does not reach it either (NCC): waiting until it does")
            }
            Bar::Excluded(place) => write!(f, "{place} excludes it"),
            Bar::NoTls => f.write_str("its log page entry demands TLS, and the configuration says tls = false"),
        }
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tid.fmt(f)
    }
}

/// A duration to a precision that means something to a reader.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}
