//! What a log page entry says of a path beyond where it is.
//!
//! Facts: NVM Express Base Specification, "Discovery Log Page Entry", TREQ; TP8010 for NCC (Not Connected to CDC).
//! nvme-cli too takes TLS from TREQ and does without submission queue flow control where the entry allows that.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::core::tid::{Transport, TransportId};
use crate::wire::discovery::{EFLAG_NCC, TREQ_DISABLE_SQFLOW, TREQ_REQUIRED, TREQ_SECURE_CHANNEL_MASK};

/// Paths with their terms.
pub type Listing = BTreeMap<Rc<TransportId>, Terms>;

/// What a log page entry says about connecting to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// The discovery controller does not reach the subsystem either.
    pub cut_off: bool,
    /// Only TLS will do.
    pub needs_tls: bool,
    /// Submission queue flow control can be done without.
    pub sqflow_optional: bool,
}

impl Terms {
    /// `treq` and `eflags` as the entry has them. What makes the channel of another transport secure is not the host
    /// driver's business.
    pub fn new(transport: Transport, treq: u8, eflags: u16) -> Terms {
        Terms {
            cut_off: eflags & EFLAG_NCC != 0,
            needs_tls: transport == Transport::Tcp && treq & TREQ_SECURE_CHANNEL_MASK == TREQ_REQUIRED,
            sqflow_optional: treq & TREQ_DISABLE_SQFLOW != 0,
        }
    }

    /// What holds when a path is listed twice: who is reached by one is reached, and the stricter demand counts.
    pub fn and(self, other: Terms) -> Terms {
        Terms {
            cut_off: self.cut_off && other.cut_off,
            needs_tls: self.needs_tls || other.needs_tls,
            sqflow_optional: self.sqflow_optional && other.sqflow_optional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bits_mean() {
        let of = |treq, eflags| Terms::new(Transport::Tcp, treq, eflags);
        assert_eq!(of(0, 0b011), Terms::default());
        assert!(of(0, 0b100).cut_off);
        let treqs: Vec<_> = (0..8).map(|treq| (of(treq, 0).needs_tls, of(treq, 0).sqflow_optional)).collect();
        let plain = [(false, false), (true, false), (false, false), (false, false)];
        let without = [(false, true), (true, true), (false, true), (false, true)];
        assert_eq!(treqs, [plain, without].concat());
        assert!(!Terms::new(Transport::Rdma, 1, 0).needs_tls);
    }

    #[test]
    fn of_two_listings_the_better_news_and_the_stricter_demand_count() {
        let news = Terms { cut_off: true, needs_tls: false, sqflow_optional: true };
        let other = Terms { cut_off: false, needs_tls: true, sqflow_optional: false };
        assert_eq!(news.and(other), other);
        assert_eq!(other.and(news), other);
        assert_eq!(news.and(news), news);
    }
}
