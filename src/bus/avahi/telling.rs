//! What is told: the set of announcements when it changed, and what is wrong with any, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::signals::ServiceKey;
use super::{AvahiClient, COMPLAINTS_MAX, REMEMBERED};
use crate::bus::BusEvent;
use crate::core::announcement::{Announcement, quoted};

impl AvahiClient {
    /// Tells the set of announcements, if it is another one than before.
    pub(super) fn note_change(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let services = self.session.iter().flat_map(|session| session.services.values());
        let current = services.filter_map(|service| service.announcement.clone());
        let set: BTreeSet<Announcement> = current.chain(self.remembered.iter().cloned()).collect();
        if set != self.told {
            self.told.clone_from(&set);
            self.find_misconfiguration(&set);
            self.events.push_back(BusEvent::Announced(set));
        }
    }

    /// Lets what is announced count for some time more.
    pub(super) fn remember(&mut self, now: Instant) {
        self.note_change();
        self.remembered.clone_from(&self.told);
        if !self.remembered.is_empty() && self.forget_at.is_none() {
            self.forget_at = now.checked_add(REMEMBERED);
        }
    }

    pub(super) fn forget(&mut self) {
        self.forget_at = None;
        self.remembered.clear();
        self.changed = true;
    }

    fn find_misconfiguration(&mut self, set: &BTreeSet<Announcement>) {
        let mut interfaces: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for announcement in set {
            interfaces.entry(announcement.traddr()).or_default().insert(announcement.interface());
        }
        for (address, interfaces) in interfaces.into_iter().filter(|(_, interfaces)| interfaces.len() > 1) {
            let interfaces: Vec<_> = interfaces.into_iter().collect();
            self.complain(format!(
                "{address} is announced on several interfaces ({}): are two networks using the same addresses?",
                interfaces.join(", ")
            ));
        }
    }

    /// Once for each reason.
    pub(super) fn complain(&mut self, why: String) {
        if self.complaints.len() >= COMPLAINTS_MAX || !self.complaints.insert(why.clone()) {
            return;
        }
        self.events.push_back(BusEvent::AvahiComplaint(why));
        if self.complaints.len() == COMPLAINTS_MAX {
            let last = "that was the last complaint about announcements: there are too many of them";
            self.events.push_back(BusEvent::AvahiComplaint(last.to_owned()));
        }
    }

    pub(super) fn describe(&self, key: &ServiceKey) -> String {
        let interface = (self.interface_name)(key.interface).unwrap_or_else(|| format!("interface {}", key.interface));
        format!("{} {} on {interface}", key.service_type, quoted(key.name.as_bytes()))
    }
}
