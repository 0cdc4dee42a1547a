//! The settings of both roles, put in force with the addresses that host names in them have.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use super::Machine;
use crate::config::settings::{Common, ConnectorSettings, FinderSettings};
use crate::core::connector;
use crate::core::device::ControllerKind;
use crate::core::finder::{Finder, Origin, Rules};
use crate::core::links::{LinkId, Links};
use crate::core::names::Names;
use crate::core::policy::Policy;
use crate::core::tid::TransportId;

/// What the administrator wants, host names as they are written.
#[derive(Debug, Default)]
pub struct Configuration {
    pub host_nqn: String,
    pub finder: Option<Box<FinderSettings>>,
    pub connector: Option<Box<ConnectorSettings>>,
}

impl Machine {
    /// Takes new settings in force. `symname` is the name under which this host registers.
    pub(super) fn configure(&mut self, now: Instant, settings: Configuration, symname: String) {
        self.settings = settings;
        let named = |kind, common: &Common| {
            let policy = Policy::new(common.clone(), &self.settings.host_nqn);
            policy.named().map(|tid| LinkId { kind, tid: Rc::new(tid) }).collect::<BTreeSet<_>>()
        };
        let finder = self.settings.finder.as_ref().filter(|_| self.finder.is_some());
        let connector = self.settings.connector.as_ref().filter(|_| self.connector.is_some());
        let discovery = finder.map(|settings| named(ControllerKind::Discovery, &settings.common));
        let io = connector.map(|settings| named(ControllerKind::Io, &settings.common));
        self.names.configure(discovery.into_iter().chain(io).flatten().collect(), &mut self.links);
        self.names.take_change();
        self.apply(now, true);
        self.links.start_over(now);
        if let (Some(finder), Some(settings)) = (&mut self.finder, &self.settings.finder) {
            finder.set_rules(now, Rules::new(settings, symname), &mut self.links);
        }
    }

    /// Puts the settings in force with the addresses that names have now: because the administrator asks, or names changed.
    pub(super) fn apply(&mut self, now: Instant, is_reload: bool) {
        let policy = |kind, common: &Common, names: &mut Names, links: &Links| {
            let mut policy = Policy::new(common.clone(), &self.settings.host_nqn);
            if !is_reload {
                policy.say_nothing_again();
            }
            names.expand(now, kind, policy, links)
        };
        let finder = self.settings.finder.as_ref().filter(|_| self.finder.is_some());
        let finder_policy =
            finder.map(|settings| policy(ControllerKind::Discovery, &settings.common, &mut self.names, &self.links));
        let connector = self.settings.connector.as_ref().filter(|_| self.connector.is_some());
        let connector_policy =
            connector.map(|settings| policy(ControllerKind::Io, &settings.common, &mut self.names, &self.links));
        self.links.set_alternates(self.names.alternates());
        let before: BTreeSet<_> = self.finder.iter().flat_map(Finder::controllers).cloned().collect();
        if let (Some(finder), Some(settings), Some(policy)) = (&mut self.finder, &self.settings.finder, finder_policy) {
            self.persistent_connections = settings.persistent_connections;
            finder.configure(now, policy, settings.zeroconf_persistence, &mut self.links);
        }
        if let (Some(connector), Some(settings), Some(policy)) =
            (&mut self.connector, &self.settings.connector, connector_policy)
        {
            let rules = connector::Rules {
                policy,
                scope: settings.disconnect_scope,
                trtypes: settings.disconnect_trtypes.clone(),
                attempts_on_ncc: settings.connect_attempts_on_ncc,
            };
            connector.configure(now, rules, &mut self.links);
        }
        if let (Some(finder), Some(connector)) = (&self.finder, &mut self.connector) {
            let sources: BTreeSet<_> = finder.controllers().cloned().collect();
            if is_reload || sources != before {
                let is_announced = |source: &TransportId| finder.origin(source) == Some(Origin::Discovered);
                connector.hear_all_sources(now, sources, is_announced, &mut self.links);
            }
        }
        self.unsaved = true;
    }
}
