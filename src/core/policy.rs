//! What the administrator's settings mean for a controller: which ones are configured, which may be connected at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use crate::config::settings::{Common, ConnectOptions, ControllerEntry, Exclusion, IpFamily};
use crate::core::announcement::Announcement;
use crate::core::note::Note;
use crate::core::page::inherited_iface;
use crate::core::tid::{Spelling, TransportId, canonical_address, canonical_service, is_usable_address};

/// What both daemons' settings say about any controller.
#[derive(Debug, Default)]
pub struct Policy {
    common: Common,
    host_nqn: String,
}

/// The controllers that the configuration names, with the options to connect each with.
pub type Configured = BTreeMap<Rc<TransportId>, Rc<ConnectOptions>>;

impl Policy {
    pub fn new(common: Common, host_nqn: &str) -> Policy {
        Policy { common, host_nqn: host_nqn.to_owned() }
    }

    /// The controllers that the configuration names, and what is to be said of those that cannot be used.
    pub fn configured(&self) -> (Configured, Vec<Note>) {
        let mut configured = BTreeMap::new();
        let mut refused = Vec::new();
        for entry in &self.common.controllers {
            let tid = self.transport_id(entry);
            match self.admits(&tid) {
                Ok(()) => {
                    configured.insert(Rc::new(tid), Rc::new(entry.options.or(&self.common.options)));
                }
                Err(why) => refused.push(Note::ControllerIgnored { tid, why }),
            }
        }
        (configured, refused)
    }

    /// The options for a controller that the configuration does not name.
    pub fn options(&self) -> &ConnectOptions {
        &self.common.options
    }

    /// A listed path as it is to be connected: bound to the interface through which `source` was reached, or not bound.
    pub fn bound(&self, path: &Rc<TransportId>, source: &TransportId) -> Rc<TransportId> {
        let iface = if self.common.ignore_iface { "" } else { inherited_iface(path.transport(), source) };
        if path.host_iface() == iface { path.clone() } else { Rc::new(path.via(iface)) }
    }

    /// Whether a controller may be connected; `Err` says why not.
    pub fn admits(&self, tid: &TransportId) -> Result<(), String> {
        if tid.transport().is_ip() && tid.ip().is_none() {
            return Err("host names are not resolved yet, give an address".to_owned());
        }
        if !is_usable_address(tid.transport(), tid.traddr()) {
            return Err(format!("{:?} is not an address of transport {}", tid.traddr(), tid.transport()));
        }
        if !self.family_enabled(tid) {
            return Err("its address family is disabled by ip-family".to_owned());
        }
        if self.common.exclusions.iter().any(|exclusion| excludes(exclusion, tid)) {
            return Err("excluded by the configuration".to_owned());
        }
        Ok(())
    }

    /// The controllers that these announcements stand for, without those that may not be connected.
    pub fn announced(&self, announcements: &BTreeSet<Announcement>) -> BTreeSet<Rc<TransportId>> {
        let admitted = announcements.iter().filter(|one| self.admits(&one.place(&self.host_nqn)).is_ok());
        let tids = admitted.map(|one| one.transport_id(!self.common.ignore_iface, &self.host_nqn));
        tids.filter(|tid| self.admits(tid).is_ok()).map(Rc::new).collect()
    }

    fn family_enabled(&self, tid: &TransportId) -> bool {
        match tid.ip() {
            Some(IpAddr::V4(_)) => self.common.ip_family != IpFamily::Ipv6,
            Some(IpAddr::V6(_)) => self.common.ip_family != IpFamily::Ipv4,
            None => true,
        }
    }

    fn transport_id(&self, entry: &ControllerEntry) -> TransportId {
        TransportId::new(
            entry.transport,
            Spelling {
                traddr: &entry.traddr,
                trsvcid: &entry.trsvcid,
                subsysnqn: &entry.subsysnqn,
                host_traddr: &entry.host_traddr,
                host_iface: if self.common.ignore_iface { "" } else { &entry.host_iface },
                host_nqn: if entry.host_nqn.is_empty() { &self.host_nqn } else { &entry.host_nqn },
            },
        )
    }
}

/// An exclusion matches when every key that it gives equals the controller's; one that gives none matches nothing.
fn excludes(exclusion: &Exclusion, tid: &TransportId) -> bool {
    let agrees = |given: &str, actual: &str| given.is_empty() || given == actual;
    *exclusion != Exclusion::default()
        && exclusion.transport.is_none_or(|transport| transport == tid.transport())
        && agrees(&canonical_address(tid.transport(), &exclusion.traddr), tid.traddr())
        && agrees(&canonical_service(tid.transport(), &exclusion.trsvcid), tid.trsvcid())
        && agrees(&exclusion.subsysnqn, tid.subsysnqn())
        && agrees(&exclusion.host_iface, tid.host_iface())
        && agrees(&exclusion.host_nqn, tid.host_nqn())
}
