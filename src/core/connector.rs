//! The connector: which I/O controllers should be connected.
//!
//! Wanted is what the configuration names and what discovery controllers list, less what the configuration excludes.
//! What counts as "no longer listed" is for [`Ledger`] alone to say; who is replaced by whom, for [`Succession`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use crate::config::settings::{ConnectOptions, DisconnectScope};
use crate::core::Action;
use crate::core::audit::Audit;
use crate::core::device::ControllerKind;
use crate::core::evidence::{Ledger, Testimony, Verdict};
use crate::core::links::{Disposal, Leave, LinkId, Links};
use crate::core::policy::Policy;
use crate::core::succession::Succession;
use crate::core::terms::{Listing, Terms};
use crate::core::tid::{Transport, TransportId};

/// What the administrator says of listed controllers.
#[derive(Debug, Default)]
pub struct Rules {
    pub policy: Policy,
    pub scope: DisconnectScope,
    /// For [`DisconnectScope::AllConnectionsMatchingDisconnectTrtypes`].
    pub trtypes: Vec<Transport>,
    /// `connect-attempts-on-ncc`.
    pub attempts_on_ncc: Option<u32>,
}

/// Decides which I/O controllers are wanted: configured ones, and listed ones by the evidence of their sources.
#[derive(Debug, Default)]
pub struct Connector {
    rules: Rules,
    configured: BTreeMap<Rc<TransportId>, Rc<ConnectOptions>>,
    /// Of configured ones: who goes when who else is connected.
    succession: Succession,
    /// The options of listed controllers, by the terms that make a difference.
    options: BTreeMap<(bool, bool), Rc<ConnectOptions>>,
    ledger: Ledger,
    audit: Audit,
    actions: VecDeque<Action>,
}

impl Connector {
    /// A path that an earlier run knew from these discovery controllers; from none if it was configured.
    pub fn remember(&mut self, path: &Rc<TransportId>, sources: &[Rc<TransportId>], terms: Terms) {
        for source in sources {
            self.ledger.remember(source, path, terms);
        }
        if sources.is_empty() {
            self.configured.insert(path.clone(), Rc::default());
        }
    }

    /// Takes a new configuration in force. What it no longer names or admits goes: the administrator says so. But what
    /// it names other ways to stays until those are connected.
    pub fn configure(&mut self, now: Instant, rules: Rules, links: &mut Links) {
        self.rules = rules;
        self.options.clear();
        let (configured, refused) = self.rules.policy.configured();
        self.actions.extend(refused.into_iter().map(Action::Note));
        let before = std::mem::replace(&mut self.configured, configured);
        let listed_before: BTreeSet<_> = self.ledger.paths().map(|(path, _)| path.clone()).collect();
        self.ledger.translate(|path, source| self.rules.policy.bound(path, source));
        let listed: BTreeSet<_> = self.ledger.paths().map(|(path, _)| path.clone()).collect();
        let bound_anew: Vec<_> = listed_before.difference(&listed).cloned().collect();
        let leaving: Vec<_> = links.unwanted(ControllerKind::Io).map(|id| id.tid.clone()).collect();
        let [before, configured] = [&before, &self.configured].map(|all| all.keys().cloned().collect::<BTreeSet<_>>());
        let concerned: BTreeSet<_> = before.iter().chain(&configured).cloned().chain(listed).chain(leaving).collect();
        // What is wanted first, so that it can take over a connection that is let go otherwise.
        let (wanted, unwanted): (Vec<_>, Vec<_>) = concerned.into_iter().partition(|path| self.plan(path).is_some());
        for path in &wanted {
            self.decide(now, path, links);
        }
        self.succession.change(&before, &configured, |one, dropped, is_new| {
            let leads_there = one.subsysnqn() == dropped.subsysnqn() && (is_new || one.is_same_address(dropped));
            leads_there && !links.is_live(&link_id(&Rc::new(one.clone())))
        });
        self.let_successors_in(now, links);
        for path in &unwanted {
            self.decide(now, path, links);
        }
        // The same path with another binding: it holds for new connections.
        for path in bound_anew.iter().filter(|path| self.plan(path).is_none()) {
            links.unwant(&link_id(path), Disposal::Keep);
        }
        links.dispose_of_leftovers(now, ControllerKind::Io, |path| self.disposal(path));
    }

    /// Takes in what a discovery controller says. Nothing is done about it yet: [`Connector::carry_out`] has to follow. Where
    /// several speak at a time, all of them are heard before anything goes.
    pub fn note(&mut self, source: &Rc<TransportId>, testimony: Testimony) -> Verdict {
        let policy = &self.rules.policy;
        let bound = |paths: Rc<Listing>| match paths.keys().all(|path| policy.is_bound(path, source)) {
            true => paths,
            false => Rc::new(paths.iter().map(|(path, terms)| (policy.bound(path, source), *terms)).collect()),
        };
        let testimony = match testimony {
            Testimony::Fresh(paths) => Testimony::Fresh(bound(paths)),
            Testimony::Stale(paths) => Testimony::Stale(bound(paths)),
            Testimony::Forgotten => Testimony::Forgotten,
        };
        self.ledger.hear(source, testimony)
    }

    /// Takes in that these are all the discovery controllers that there are, by the administrator's word; see
    /// [`Ledger::hear_all_sources`]. Nothing is done about it yet.
    pub fn note_all_sources(
        &mut self,
        sources: BTreeSet<Rc<TransportId>>,
        is_announced: impl Fn(&TransportId) -> bool,
    ) -> Verdict {
        self.ledger.hear_all_sources(sources, is_announced)
    }

    /// Takes in that these are all the discovery controllers that there are; see [`Ledger::follow_sources`].
    pub fn follow_sources(&mut self, sources: BTreeSet<Rc<TransportId>>, is_announced: impl Fn(&TransportId) -> bool) {
        self.ledger.follow_sources(sources, is_announced);
    }

    /// The finder in another process is away: nobody can tell what discovery controllers say.
    pub fn lose_finder(&mut self) {
        self.ledger.lose_touch();
    }

    /// A path is connected: what it replaces can go.
    pub fn link_up(&mut self, now: Instant, path: &TransportId, links: &mut Links) {
        self.succession.arrive(path);
        self.let_successors_in(now, links);
    }

    fn let_successors_in(&mut self, now: Instant, links: &mut Links) {
        while let Some(replaced) = self.succession.pop() {
            self.decide(now, &replaced, links);
        }
    }

    /// Does what follows from what was noted. What is wanted comes first, so that it can take over a connection that is let go
    /// otherwise.
    pub fn carry_out(&mut self, now: Instant, verdicts: &[Verdict], links: &mut Links) {
        let concerned = verdicts
            .iter()
            .flat_map(|verdict| verdict.appeared.iter().chain(&verdict.changed).chain(&verdict.withdrawn));
        let (wanted, unwanted): (Vec<_>, Vec<_>) = concerned.partition(|path| self.plan(path).is_some());
        for path in wanted.into_iter().chain(unwanted) {
            self.decide(now, path, links);
        }
        let abandoned = verdicts.iter().flat_map(|verdict| &verdict.abandoned);
        for path in abandoned.filter(|path| self.plan(path).is_none()) {
            links.unwant(&link_id(path), Disposal::Keep);
        }
    }

    /// Wants a path or lets it go, by what is configured and listed.
    fn decide(&mut self, now: Instant, path: &Rc<TransportId>, links: &mut Links) {
        let Some((terms, leave)) = self.plan(path) else {
            return links.unwant(&link_id(path), self.disposal(path));
        };
        let options = match self.configured.get(path) {
            Some(options) => options.clone(),
            None => self.options_by(terms),
        };
        links.want_within(now, link_id(path), options, leave);
    }

    /// On what terms to connect a path, and how often to try; `None` if it is not wanted. What is configured depends on
    /// nobody's terms.
    fn plan(&self, path: &TransportId) -> Option<(Terms, Leave)> {
        if self.configured.contains_key(path) {
            return Some((Terms::default(), Leave::Free));
        }
        let terms = self.ledger.terms(path).filter(|_| self.rules.policy.admits(path).is_ok())?;
        let leave = match self.rules.attempts_on_ncc.filter(|_| terms.cut_off) {
            _ if terms.needs_tls && self.rules.policy.options().tls == Some(false) => Leave::NoTls,
            Some(limit) => Leave::Attempts(limit),
            None => Leave::Free,
        };
        Some((terms, leave))
    }

    /// The options of a listed controller. Where the configuration says nothing, the entry does.
    fn options_by(&mut self, terms: Terms) -> Rc<ConnectOptions> {
        let common = self.rules.policy.options();
        let make = || {
            let mut options = common.clone();
            options.tls = options.tls.or(terms.needs_tls.then_some(true));
            options.disable_sqflow = options.disable_sqflow.or(terms.sqflow_optional.then_some(true));
            Rc::new(options)
        };
        self.options.entry((terms.needs_tls, terms.sqflow_optional)).or_insert_with(make).clone()
    }

    fn disposal(&self, path: &TransportId) -> Disposal {
        match self.rules.scope {
            DisconnectScope::NoDisconnect => Disposal::Keep,
            _ if self.succession.holds(path) => Disposal::Postpone,
            DisconnectScope::OnlyStasConnections | DisconnectScope::AllConnectionsMatchingDisconnectTrtypes => {
                Disposal::Disconnect
            }
        }
    }

    // ---- what others connected -----------------------------------------------------------------------------------

    /// Looks for connections that nobody wants. To be called when anything has changed.
    pub fn review(&mut self, now: Instant, links: &Links) {
        if self.rules.scope == DisconnectScope::AllConnectionsMatchingDisconnectTrtypes && self.ledger.is_complete() {
            let strays = links.strays().filter(|device| self.rules.trtypes.contains(&device.transport));
            self.audit.review(now, strays);
        } else {
            self.audit.review(now, std::iter::empty());
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.audit.deadline()
    }

    pub fn handle_deadline(&mut self, now: Instant, links: &mut Links) {
        while let Some(device) = self.audit.pop(now) {
            links.condemn(&device);
        }
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Every path that a discovery controller lists.
    pub fn listed(&self) -> impl Iterator<Item = LinkId> {
        self.ledger.paths().map(|(path, _)| link_id(path))
    }

    /// The discovery controllers that list a path.
    pub fn sources(&self, path: &TransportId) -> impl Iterator<Item = &Rc<TransportId>> {
        self.ledger.sources_of(path)
    }

    /// On what terms a path is listed.
    pub fn terms(&self, path: &TransportId) -> Terms {
        self.ledger.terms(path).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.configured.is_empty()
            && self.succession.is_empty()
            && self.ledger.paths().next().is_none()
            && self.ledger.sources().next().is_none()
            && self.audit.deadline().is_none()
    }
}

fn link_id(path: &Rc<TransportId>) -> LinkId {
    LinkId { kind: ControllerKind::Io, tid: path.clone() }
}
