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
    /// A host name in it has no address yet.
    awaits_addresses: bool,
    /// What cannot be used was reported before.
    quiet: bool,
}

/// The controllers that the configuration names, with the options to connect each with.
pub type Configured = BTreeMap<Rc<TransportId>, Rc<ConnectOptions>>;

impl Policy {
    pub fn new(common: Common, host_nqn: &str) -> Policy {
        Policy { common, host_nqn: host_nqn.to_owned(), ..Policy::default() }
    }

    /// The controllers that the configuration names, and what is to be said of those that cannot be used.
    pub fn configured(&self) -> (Configured, Vec<Note>) {
        let mut configured = BTreeMap::new();
        let mut refused = Vec::new();
        for entry in &self.common.controllers {
            let tid = self.transport_id(entry);
            let verdict = if tid.is_name() { self.admits_name(&tid) } else { self.admits(&tid) };
            match verdict {
                Ok(()) => {
                    configured.insert(Rc::new(tid), Rc::new(entry.options.or(&self.common.options)));
                }
                Err(_) if self.quiet => {}
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
        if self.is_bound(path, source) { path.clone() } else { Rc::new(path.via(self.binding(path, source))) }
    }

    /// Whether it is that already.
    pub fn is_bound(&self, path: &TransportId, source: &TransportId) -> bool {
        path.host_iface() == self.binding(path, source)
    }

    fn binding<'a>(&self, path: &TransportId, source: &'a TransportId) -> &'a str {
        if self.common.ignore_iface { "" } else { inherited_iface(path.transport(), source) }
    }

    /// Whether a controller may be connected; `Err` says why not.
    pub fn admits(&self, tid: &TransportId) -> Result<(), String> {
        if !is_usable_address(tid.transport(), tid.traddr()) {
            return Err(format!("{:?} is not an address of transport {}", tid.traddr(), tid.transport()));
        }
        if !self.family_enabled(tid) {
            return Err("its address family is disabled by ip-family".to_owned());
        }
        self.admits_name(tid)
    }

    /// The same for a controller whose name has no address yet.
    fn admits_name(&self, tid: &TransportId) -> Result<(), String> {
        match self.common.exclusions.iter().any(|exclusion| excludes(exclusion, tid)) {
            true => Err("excluded by the configuration".to_owned()),
            false => Ok(()),
        }
    }

    // ---- host names ----------------------------------------------------------------------------------------------

    /// The controllers that the configuration calls by a host name, and does not exclude by that.
    pub fn named(&self) -> impl Iterator<Item = TransportId> {
        let tids = self.common.controllers.iter().map(|entry| self.transport_id(entry));
        tids.filter(|tid| tid.is_name() && self.admits_name(tid).is_ok())
    }

    /// A controller by these addresses of its name, as far as they may be connected, those of the preferred family
    /// first.
    pub fn candidates(&self, named: &TransportId, addresses: &[String]) -> impl Iterator<Item = TransportId> {
        let ipv6_first = matches!(self.common.ip_family, IpFamily::Ipv6 | IpFamily::Ipv6Ipv4);
        let mut tids: Vec<TransportId> = addresses.iter().map(|address| named.at(address)).collect();
        tids.retain(|tid| self.admits(tid).is_ok());
        tids.sort_by_key(|tid| tid.ip().is_some_and(|ip| ip.is_ipv4()) == ipv6_first);
        tids.into_iter()
    }

    /// Puts addresses in the place of names; a name that has none stays.
    pub fn replace_names(&mut self, addresses_of: impl Fn(&TransportId) -> BTreeSet<String>) {
        for entry in std::mem::take(&mut self.common.controllers) {
            let tid = self.transport_id(&entry);
            let addresses = if tid.is_name() { addresses_of(&tid) } else { BTreeSet::new() };
            if addresses.is_empty() {
                self.common.controllers.push(entry);
            } else {
                let at = |traddr| ControllerEntry { traddr, ..entry.clone() };
                self.common.controllers.extend(addresses.into_iter().map(at));
            }
        }
    }

    pub fn set_awaits_addresses(&mut self, awaits: bool) {
        self.awaits_addresses = awaits;
    }

    /// Whether a host name in the configuration has no address yet: it may turn out to stand for what is not named any
    /// more.
    pub fn awaits_addresses(&self) -> bool {
        self.awaits_addresses
    }

    /// It is the same configuration, with other addresses for its names.
    pub fn say_nothing_again(&mut self) {
        self.quiet = true;
    }

    /// The controllers that these announcements stand for, without those that may not be connected.
    pub fn announced<'a>(
        &self,
        announcements: impl IntoIterator<Item = &'a Announcement>,
    ) -> BTreeSet<Rc<TransportId>> {
        let admitted = announcements.into_iter().filter(|one| self.admits(&one.place(&self.host_nqn)).is_ok());
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

/// An exclusion that gives no key matches nothing.
fn excludes(exclusion: &Exclusion, tid: &TransportId) -> bool {
    *exclusion != Exclusion::default() && agrees_with(exclusion, tid)
}

/// Whether every key that an exclusion gives is the controller's.
pub(super) fn agrees_with(exclusion: &Exclusion, tid: &TransportId) -> bool {
    let agrees = |given: &str, actual: &str| given.is_empty() || given == actual;
    exclusion.transport.is_none_or(|transport| transport == tid.transport())
        && agrees(&canonical_address(tid.transport(), &exclusion.traddr), tid.traddr())
        && agrees(&canonical_service(tid.transport(), &exclusion.trsvcid), tid.trsvcid())
        && agrees(&exclusion.subsysnqn, tid.subsysnqn())
        && agrees(&exclusion.host_iface, tid.host_iface())
        && agrees(&exclusion.host_nqn, tid.host_nqn())
}
