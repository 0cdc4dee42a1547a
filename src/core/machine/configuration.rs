//! The settings of both roles, put in force with the addresses that host names in them have.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use super::Machine;
use crate::config::settings::{Common, ConnectorSettings, FinderSettings};
use crate::core::connector;
use crate::core::device::ControllerKind;
use crate::core::finder::{Finder, Rules};
use crate::core::links::LinkId;
use crate::core::policy::Policy;

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
        let Configuration { host_nqn, finder, connector } = settings;
        let finder = finder.filter(|_| self.finder.is_some());
        let connector = connector.filter(|_| self.connector.is_some());
        self.settings = Configuration { host_nqn, finder, connector };
        let named = |kind, common: &Common| {
            let policy = Policy::new(common.clone(), &self.settings.host_nqn);
            policy.named().map(|tid| LinkId { kind, tid: Rc::new(tid) }).collect::<BTreeSet<_>>()
        };
        let discovery = self.settings.finder.iter().map(|settings| named(ControllerKind::Discovery, &settings.common));
        let io = self.settings.connector.iter().map(|settings| named(ControllerKind::Io, &settings.common));
        self.names.configure(discovery.chain(io).flatten().collect(), &mut self.links);
        self.names.take_change();
        self.apply(now, true);
        self.links.start_over(now);
        if let (Some(finder), Some(settings)) = (&mut self.finder, &self.settings.finder) {
            finder.set_rules(now, Rules::new(settings, symname), &mut self.links);
        }
    }

    /// Puts the settings in force with the addresses that names have now: because the administrator asks, or names
    /// changed.
    pub(super) fn apply(&mut self, now: Instant, is_reload: bool) {
        let finder_policy = self.policy(now, ControllerKind::Discovery, is_reload);
        let connector_policy = self.policy(now, ControllerKind::Io, is_reload);
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
                let verdict = connector.note_all_sources(sources, |source| finder.is_announced(source));
                connector.carry_out(now, &[verdict], &mut self.links);
            }
        }
        self.unsaved = true;
    }

    /// What the settings for controllers of a kind mean with the addresses that names have now; `None` if such
    /// controllers are not for this process.
    fn policy(&mut self, now: Instant, kind: ControllerKind, is_reload: bool) -> Option<Policy> {
        let common = match kind {
            ControllerKind::Discovery => &self.settings.finder.as_ref()?.common,
            ControllerKind::Io => &self.settings.connector.as_ref()?.common,
        };
        let mut policy = Policy::new(common.clone(), &self.settings.host_nqn);
        if !is_reload {
            policy.say_nothing_again();
        }
        Some(self.names.expand(now, kind, policy, &self.links))
    }
}
