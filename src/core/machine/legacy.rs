//! From one run to the next: which connections are ours, who listed what, and what is not announced at the moment.
//! Without it a restart would take storage for somebody else's, or for what nobody lists.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Machine;
use crate::core::device::ControllerKind;
use crate::core::finder::{Finder, Origin};
use crate::core::links::LinkId;
use crate::core::terms::Terms;
use crate::core::tid::TransportId;

/// What an earlier run of this program leaves to the next about a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legacy {
    pub id: LinkId,
    /// Its connection is one of ours.
    pub ours: bool,
    /// [`Device::inode`](crate::core::device::Device::inode) of that connection.
    pub inode: u64,
    /// Who listed it, and on what terms.
    pub sources: Vec<Rc<TransportId>>,
    pub terms: Terms,
    /// It is known from an announcement, and has been neither announced nor connected for so long.
    pub unseen: Option<Duration>,
}

impl Legacy {
    /// Nothing is known of it.
    pub fn new(id: LinkId) -> Legacy {
        Legacy { id, ours: false, inode: 0, sources: Vec::new(), terms: Terms::default(), unseen: None }
    }
}

impl Machine {
    /// Takes over from an earlier run; before the first event.
    pub fn inherit(&mut self, legacy: Vec<Legacy>) {
        for Legacy { id, ours, inode, sources, terms, unseen } in legacy {
            match (id.kind, &mut self.finder, &mut self.connector) {
                (ControllerKind::Io, _, Some(connector)) => connector.remember(&id.tid, &sources, terms),
                (ControllerKind::Discovery, Some(finder), _) => {
                    finder.remember_referral(&id.tid, &sources);
                    if let Some(unseen) = unseen {
                        finder.remember(&id.tid, unseen);
                    }
                }
                (ControllerKind::Discovery, None, _) if unseen.is_some() => {
                    self.hearsay.remember(&id.tid, Origin::Discovered);
                }
                (ControllerKind::Discovery, None, _) => self.hearsay.remember(&id.tid, Origin::Referral),
                (ControllerKind::Io, _, None) => {}
            }
            if ours {
                self.links.was_ours(id, inode);
            }
        }
    }

    /// What the next run should know.
    pub fn legacy(&self, now: Instant) -> Vec<Legacy> {
        let mut legacy: BTreeMap<LinkId, Legacy> = BTreeMap::new();
        let mut about = |id: &LinkId, add: &dyn Fn(&mut Legacy)| {
            add(legacy.entry(id.clone()).or_insert_with(|| Legacy::new(id.clone())));
        };
        for id in self.links.ours() {
            about(id, &|legacy| {
                legacy.ours = true;
                legacy.inode = self.links.inode_of(id);
            });
        }
        // What is listed but not connected at the moment is still listed, although who listed it may be silent next
        // time.
        if let Some(connector) = &self.connector {
            for id in connector.listed() {
                about(&id, &|legacy| {
                    legacy.sources = connector.sources(&id.tid).cloned().collect();
                    legacy.terms = connector.terms(&id.tid);
                });
            }
        }
        for (id, unseen) in self.finder.iter().flat_map(|finder| finder.worth_remembering(now)) {
            about(&id, &|legacy| legacy.unseen = Some(unseen));
        }
        for (tid, listers) in self.finder.iter().flat_map(Finder::referred) {
            let id = LinkId { kind: ControllerKind::Discovery, tid };
            about(&id, &|legacy| legacy.sources.clone_from(&listers));
        }
        for (tid, origin) in self.hearsay.worth_remembering() {
            let id = LinkId { kind: ControllerKind::Discovery, tid: tid.clone() };
            about(&id, &|legacy| legacy.unseen = (origin == Origin::Discovered).then_some(Duration::ZERO));
        }
        legacy.into_values().collect()
    }
}
