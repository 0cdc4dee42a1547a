//! Asynchronous events of one controller: when the host is told that the discovery log has changed.
//!
//! One event is reported, then further ones are masked until the host reads the log page with RAE cleared. Nothing is lost
//! by that: the read that unmasks returns the newest log.
//!
//! Facts: NVM Express Base Specification 2.0, section 5.2 (Asynchronous Event Request).

use std::collections::VecDeque;

use super::commands::Status;
use super::identity::AER_LIMIT;

/// Result of the completion that tells of a changed discovery log: notice (2h), discovery log page change (F0h), LID 70h.
pub const DISCOVERY_LOG_CHANGED: u32 = 0x0070_f002;

#[derive(Default)]
pub struct Events {
    /// Asynchronous Event Configuration, as the host set it: the notice of discovery log changes.
    pub enabled: bool,
    masked: bool,
    /// An event nobody waited for.
    pending: bool,
    /// Command identifiers of the Asynchronous Event Requests waiting.
    waiting: VecDeque<u16>,
}

impl Events {
    /// The log has changed: the command to complete with [`DISCOVERY_LOG_CHANGED`], if any.
    pub fn log_changed(&mut self) -> Option<u16> {
        self.pending |= self.enabled && !self.masked;
        self.report()
    }

    /// An Asynchronous Event Request has come: the command to complete with [`DISCOVERY_LOG_CHANGED`], if any.
    ///
    /// # Errors
    /// The status of the request when too many are waiting already.
    pub fn request(&mut self, cid: u16) -> Result<Option<u16>, Status> {
        if self.waiting.len() >= AER_LIMIT {
            return Err(Status::AER_LIMIT_EXCEEDED.dnr());
        }
        self.waiting.push_back(cid);
        Ok(self.report())
    }

    /// The log page was read with RAE cleared.
    pub fn clear(&mut self) {
        self.masked = false;
        self.pending = false;
    }

    /// A waiting command, taken to be completed out of turn.
    pub fn take_waiting(&mut self) -> Option<u16> {
        self.waiting.pop_front()
    }

    fn report(&mut self) -> Option<u16> {
        let cid = if self.pending { self.waiting.pop_front() } else { None };
        if cid.is_some() {
            self.pending = false;
            self.masked = true;
        }
        cid
    }
}
