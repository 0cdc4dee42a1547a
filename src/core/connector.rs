//! The connector: which I/O controllers should be connected.
//!
//! Wanted is what the configuration names and what discovery controllers list, less what the configuration excludes. What
//! counts as "no longer listed" is for [`Ledger`] alone to say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use crate::config::settings::{ConnectOptions, DisconnectScope};
use crate::core::Action;
use crate::core::device::ControllerKind;
use crate::core::evidence::{Ledger, Testimony, Verdict};
use crate::core::links::{Disposal, LinkId, Links};
use crate::core::policy::Policy;
use crate::core::tid::TransportId;

#[derive(Debug, Default)]
pub struct Connector {
    policy: Policy,
    scope: DisconnectScope,
    configured: BTreeMap<Rc<TransportId>, Rc<ConnectOptions>>,
    /// The options of listed controllers.
    options: Rc<ConnectOptions>,
    ledger: Ledger,
    /// Configured before, and perhaps still, by names that have no address yet.
    spared: BTreeSet<Rc<TransportId>>,
    actions: VecDeque<Action>,
}

impl Connector {
    /// A path that an earlier run knew from these discovery controllers.
    pub fn remember(&mut self, path: &Rc<TransportId>, sources: &[Rc<TransportId>]) {
        for source in sources {
            self.ledger.remember(source, path);
        }
    }

    /// Takes a new configuration in force. What it no longer names or admits goes: the administrator says so.
    pub fn configure(&mut self, now: Instant, policy: Policy, scope: DisconnectScope, links: &mut Links) {
        self.policy = policy;
        self.scope = scope;
        self.options = Rc::new(self.policy.options().clone());
        let (configured, refused) = self.policy.configured();
        self.actions.extend(refused.into_iter().map(Action::Note));
        let before = std::mem::replace(&mut self.configured, configured);
        let listed_before: BTreeSet<_> = self.ledger.paths().map(|(path, _)| path.clone()).collect();
        self.ledger.translate(|path, source| self.policy.bound(path, source));
        let listed: BTreeSet<_> = self.ledger.paths().map(|(path, _)| path.clone()).collect();
        let bound_anew: Vec<_> = listed_before.difference(&listed).cloned().collect();
        let spared = std::mem::take(&mut self.spared);
        let concerned: BTreeSet<_> =
            before.into_keys().chain(self.configured.keys().cloned()).chain(listed).chain(spared).collect();
        // What is wanted first, so that it can take over a connection that is let go otherwise.
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            concerned.into_iter().partition(|path| self.options_of(path).is_some());
        let (spared, unwanted): (Vec<_>, Vec<_>) = unwanted.into_iter().partition(|path| {
            let id = LinkId { kind: ControllerKind::Io, tid: path.clone() };
            self.policy.spares_replaced(path) && links.is_live(&id)
        });
        for path in wanted.iter().chain(&unwanted) {
            self.decide(now, path, links);
        }
        // The same path with another binding: it holds for new connections.
        for path in bound_anew.iter().filter(|path| self.options_of(path).is_none()) {
            links.unwant(&LinkId { kind: ControllerKind::Io, tid: path.clone() }, Disposal::Keep);
        }
        self.spared.extend(spared);
        if !self.policy.spares_leftovers() {
            links.dispose_of_leftovers(now, ControllerKind::Io, self.disposal());
        }
    }

    /// Takes in what a discovery controller says.
    pub fn hear(&mut self, now: Instant, source: &Rc<TransportId>, testimony: Testimony, links: &mut Links) {
        let bound =
            |paths: BTreeSet<Rc<TransportId>>| paths.iter().map(|path| self.policy.bound(path, source)).collect();
        let testimony = match testimony {
            Testimony::Fresh(paths) => Testimony::Fresh(bound(paths)),
            Testimony::Stale(paths) => Testimony::Stale(bound(paths)),
            Testimony::Forgotten => Testimony::Forgotten,
        };
        let verdict = self.ledger.hear(source, testimony);
        self.carry_out(now, verdict, links);
    }

    /// Takes in that these are all the discovery controllers that there are, by the administrator's word; see
    /// [`Ledger::hear_all_sources`].
    pub fn hear_all_sources(
        &mut self,
        now: Instant,
        sources: BTreeSet<Rc<TransportId>>,
        is_announced: impl Fn(&TransportId) -> bool,
        links: &mut Links,
    ) {
        let verdict = self.ledger.hear_all_sources(sources, is_announced);
        self.carry_out(now, verdict, links);
    }

    /// Takes in that these are all the discovery controllers that there are; see [`Ledger::follow_sources`].
    pub fn follow_sources(&mut self, sources: BTreeSet<Rc<TransportId>>, is_announced: impl Fn(&TransportId) -> bool) {
        self.ledger.follow_sources(sources, is_announced);
    }

    fn carry_out(&mut self, now: Instant, verdict: Verdict, links: &mut Links) {
        for path in verdict.appeared.iter().chain(&verdict.withdrawn) {
            self.decide(now, path, links);
        }
        for path in verdict.abandoned.iter().filter(|path| self.options_of(path).is_none()) {
            links.unwant(&LinkId { kind: ControllerKind::Io, tid: path.clone() }, Disposal::Keep);
        }
    }

    /// Wants a path or lets it go, by what is configured and listed.
    fn decide(&mut self, now: Instant, path: &Rc<TransportId>, links: &mut Links) {
        let id = LinkId { kind: ControllerKind::Io, tid: path.clone() };
        match self.options_of(path) {
            Some(options) => links.want(now, id, options.clone()),
            None => links.unwant(&id, self.disposal()),
        }
    }

    /// The options to connect a path with; `None` if it is not wanted.
    fn options_of(&self, path: &TransportId) -> Option<&Rc<ConnectOptions>> {
        let is_wanted = || self.ledger.is_listed(path) && self.policy.admits(path).is_ok();
        self.configured.get(path).or_else(|| is_wanted().then_some(&self.options))
    }

    fn disposal(&self) -> Disposal {
        match self.scope {
            DisconnectScope::NoDisconnect => Disposal::Keep,
            DisconnectScope::OnlyStasConnections | DisconnectScope::AllConnectionsMatchingDisconnectTrtypes => {
                Disposal::Disconnect
            }
        }
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Every path that a discovery controller lists.
    pub fn listed(&self) -> impl Iterator<Item = LinkId> {
        self.ledger.paths().map(|(path, _)| LinkId { kind: ControllerKind::Io, tid: path.clone() })
    }

    /// The discovery controllers that list a path.
    pub fn sources(&self, path: &TransportId) -> impl Iterator<Item = &Rc<TransportId>> {
        self.ledger.sources_of(path)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.configured.is_empty()
            && self.spared.is_empty()
            && self.ledger.paths().next().is_none()
            && self.ledger.sources().next().is_none()
    }
}
