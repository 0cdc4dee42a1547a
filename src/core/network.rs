//! Changes in the network of this host that may make something reachable: whom each concerns, and how often they may be
//! a reason for haste.
//!
//! Where containers come and go, links come up all the time; what is dead for good must not be tried each time. So a
//! few changes are followed at once, more only at the pace of `PERIOD`; none is forgotten.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::core::portal::PortalId;
use crate::core::tid::{TransportId, parse_ip};

/// In the long run, haste is made once in this time…
const PERIOD: Duration = Duration::from_secs(5);
/// …but so many times in a row: a link, its addresses and its routes come one after the other.
const AT_ONCE: u32 = 4;
/// More changes than that at a time are taken for a change of everything.
const MAX_PENDING: usize = 64;

/// Something may be reachable by now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkChange {
    /// A default route appeared, or nobody knows what.
    Anything,
    /// An interface came up.
    Link(String),
    /// An interface has a new address.
    Address { interface: String, ip: IpAddr },
}

/// Where something is to be reached, and by which way; empty strings are "not given".
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    traddr: &'a str,
    host_traddr: &'a str,
    host_iface: &'a str,
}

impl<'a> From<&'a PortalId> for Way<'a> {
    fn from(portal: &'a PortalId) -> Way<'a> {
        Way { traddr: &portal.traddr, host_traddr: &portal.host_traddr, host_iface: &portal.host_iface }
    }
}

impl<'a> From<&'a TransportId> for Way<'a> {
    fn from(tid: &'a TransportId) -> Way<'a> {
        Way { traddr: tid.traddr(), host_traddr: tid.host_traddr(), host_iface: tid.host_iface() }
    }
}

impl NetworkChange {
    /// Whether it may make a difference there. Where the way is left to the routing table, any interface may.
    pub fn concerns(&self, way: Way<'_>) -> bool {
        let peer = parse_ip(way.traddr);
        let (interface, ip) = match self {
            NetworkChange::Anything => return true,
            NetworkChange::Link(interface) => (interface, None),
            NetworkChange::Address { interface, ip } => (interface, Some(*ip)),
        };
        let zone = peer.and_then(|(_, zone)| zone);
        let mut pinned = [Some(way.host_iface), zone].into_iter().flatten().filter(|name| !name.is_empty());
        let is_family = |ip: IpAddr| peer.is_none_or(|(peer, _)| peer.is_ipv4() == ip.is_ipv4());
        let is_source = |ip: IpAddr| parse_ip(way.host_traddr).is_none_or(|(source, _)| source == ip);
        pinned.all(|name| name == interface) && ip.is_none_or(|ip| is_family(ip) && is_source(ip))
    }
}

/// Changes that were not followed yet.
#[derive(Debug, Default)]
pub struct Changes {
    pending: BTreeSet<NetworkChange>,
    /// The haste made so far is paid for at this time.
    paid_at: Option<Instant>,
}

impl Changes {
    pub fn hear(&mut self, change: NetworkChange) {
        if self.pending.len() >= MAX_PENDING {
            self.pending = [NetworkChange::Anything].into();
        }
        self.pending.insert(change);
    }

    /// When [`Changes::take`] has something that it did not have at once.
    pub fn deadline(&self) -> Option<Instant> {
        let paid_at = self.paid_at.filter(|_| !self.pending.is_empty());
        paid_at.and_then(|at| at.checked_sub(PERIOD * (AT_ONCE - 1)))
    }

    /// What is to be followed now.
    pub fn take(&mut self, now: Instant) -> Option<BTreeSet<NetworkChange>> {
        if self.pending.is_empty() || self.deadline().is_some_and(|at| at > now) {
            return None;
        }
        self.paid_at = self.paid_at.into_iter().fold(now, Instant::max).checked_add(PERIOD);
        Some(std::mem::take(&mut self.pending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way<'a>(traddr: &'a str, host_traddr: &'a str, host_iface: &'a str) -> Way<'a> {
        Way { traddr, host_traddr, host_iface }
    }

    #[test]
    fn concerns_what_is_pinned_there_or_nowhere() {
        let link = NetworkChange::Link("eth0".into());
        assert!(link.concerns(way("192.0.2.1", "", "")));
        assert!(link.concerns(way("192.0.2.1", "", "eth0")));
        assert!(link.concerns(way("fe80::1%eth0", "", "")));
        assert!(link.concerns(way("array.example.org", "198.51.100.1", "")));
        assert!(!link.concerns(way("192.0.2.1", "", "eth1")));
        assert!(!link.concerns(way("fe80::1%eth1", "", "")));
        let address = NetworkChange::Address { interface: "eth0".into(), ip: "198.51.100.1".parse().unwrap() };
        assert!(address.concerns(way("192.0.2.1", "", "eth0")));
        assert!(address.concerns(way("192.0.2.1", "198.51.100.1", "")));
        assert!(!address.concerns(way("192.0.2.1", "198.51.100.2", "")));
        assert!(!address.concerns(way("192.0.2.1", "", "eth1")));
        assert!(!address.concerns(way("2001:db8::1", "", "")), "the other family");
        assert!(NetworkChange::Anything.concerns(way("192.0.2.1", "198.51.100.2", "eth1")));
    }

    #[test]
    fn a_few_at_once_then_at_intervals() {
        let start = Instant::now();
        let mut changes = Changes::default();
        let link = |number: u32| NetworkChange::Link(format!("veth{number}"));
        for number in 0..AT_ONCE {
            changes.hear(link(number));
            assert_eq!(changes.take(start), Some([link(number)].into()));
        }
        assert_eq!((changes.take(start), changes.deadline()), (None, None));
        changes.hear(link(7));
        changes.hear(link(8));
        assert_eq!(changes.take(start), None);
        let due = changes.deadline().unwrap();
        assert_eq!(due, start + PERIOD);
        assert_eq!(changes.take(due), Some([link(7), link(8)].into()));
        // After a quiet time the next ones are followed at once again.
        let later = due + PERIOD * 100;
        for number in 0..AT_ONCE {
            changes.hear(link(number));
            assert!(changes.take(later).is_some());
        }
        changes.hear(link(9));
        assert_eq!(changes.take(later), None);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut changes = Changes::default();
        (0..1000).for_each(|number| changes.hear(NetworkChange::Link(format!("veth{number}"))));
        let taken = changes.take(Instant::now()).unwrap();
        assert!(taken.len() <= MAX_PENDING && taken.contains(&NetworkChange::Anything));
    }
}
