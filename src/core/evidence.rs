//! The rule by which a path may be taken down: only on positive evidence.
//!
//! The [`Ledger`] remembers which discovery controller listed which path. A path is *withdrawn* when every discovery
//! controller that listed it has taken that back, and there are just two ways to take it back:
//!
//! - a fresh and complete log page of that controller no longer lists the path ([`Testimony::Fresh`]);
//! - the administrator's configuration dropped that controller ([`Ledger::hear_all_sources`]), and each controller that
//!   the same change named instead has been heard (see [`Succession`]).
//!
//! Nothing else counts: a controller that is unreachable, a page that could not be read, a daemon or a bus that is away
//! say nothing against a path. Nor does it that nobody refers to a controller any more ([`Testimony::Forgotten`]): a
//! cluster that lists its discovery services as they come and go drops the referral to one that has crashed or moved,
//! while the storage behind it works on; and zoning shows in the pages that list the storage itself. A page that is no
//! longer current ([`Testimony::Stale`]) may add paths, never withdraw them. This is the one place that knows the rule.
//!
//! What nobody ever listed can be judged only by who knows all: every discovery controller there is has given a fresh
//! page ([`Ledger::is_complete`]).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::core::succession::Succession;
use crate::core::terms::{Listing, Terms};
use crate::core::tid::TransportId;

/// What a discovery controller can be quoted with.
#[derive(Debug)]
pub enum Testimony {
    /// These paths, and no others, are in its complete and current log page.
    Fresh(Rc<Listing>),
    /// It cannot be asked at present; this is what is left of its last page, perhaps nothing.
    Stale(Rc<Listing>),
    /// It was known from an announcement only, and has been neither announced nor connected for too long; or from
    /// referrals only, and the last one is gone. It has taken nothing back itself, so this is no evidence: what it
    /// listed is not wanted any more, but what is connected stays.
    Forgotten,
}

/// What a testimony changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Paths that nobody listed before.
    pub appeared: Vec<Rc<TransportId>>,
    /// Paths that are listed with other terms than before.
    pub changed: Vec<Rc<TransportId>>,
    /// Paths that nobody lists any more, on positive evidence.
    pub withdrawn: Vec<Rc<TransportId>>,
    /// Paths that nobody lists any more, without evidence against them.
    pub abandoned: Vec<Rc<TransportId>>,
}

/// Who listed which path.
#[derive(Debug, Default)]
pub struct Ledger {
    by_path: BTreeMap<Rc<TransportId>, BTreeSet<Rc<TransportId>>>,
    by_source: BTreeMap<Rc<TransportId>, Rc<Listing>>,
    /// The discovery controllers that there are; `None` as long as nobody said.
    known: Option<BTreeSet<Rc<TransportId>>>,
    /// Those whose last word was a fresh page.
    fresh: BTreeSet<Rc<TransportId>>,
    succession: Succession,
}

impl Ledger {
    /// A path that an earlier run of this program knew from `source`. It stays in force until `source` is heard.
    pub fn remember(&mut self, source: &Rc<TransportId>, path: &Rc<TransportId>, terms: Terms) {
        Rc::make_mut(self.by_source.entry(source.clone()).or_default()).insert(path.clone(), terms);
        self.by_path.entry(path.clone()).or_default().insert(source.clone());
    }

    /// Notes what `source` says.
    pub fn hear(&mut self, source: &Rc<TransportId>, testimony: Testimony) -> Verdict {
        let mut verdict = Verdict::default();
        match testimony {
            Testimony::Fresh(paths) => {
                self.fresh.insert(source.clone());
                self.replace(source, paths, &mut verdict);
                self.succession.arrive(source);
                self.void_dropped(&mut verdict);
            }
            Testimony::Stale(paths) => {
                self.fresh.remove(source);
                if paths.is_empty() {
                    return verdict;
                }
                let mut all = self.by_source.get(source).cloned().unwrap_or_default();
                if !Rc::ptr_eq(&all, &paths) {
                    Rc::make_mut(&mut all).extend(paths.iter().map(|(path, terms)| (path.clone(), *terms)));
                    self.replace(source, all, &mut verdict);
                }
            }
            Testimony::Forgotten => {
                self.fresh.remove(source);
                self.replace(source, Rc::default(), &mut verdict);
                verdict.abandoned = std::mem::take(&mut verdict.withdrawn);
            }
        }
        verdict
    }

    /// Notes that nobody can be asked at present: whoever relays what they say is away.
    pub fn lose_touch(&mut self) {
        self.fresh.clear();
    }

    /// Says of every path in other words what it is, and from whom it is known.
    pub fn translate(&mut self, word: impl Fn(&Rc<TransportId>, &TransportId) -> Rc<TransportId>) {
        let listed = std::mem::take(&mut self.by_source);
        self.by_path.clear();
        for (source, paths) in listed {
            for (path, terms) in paths.iter() {
                self.remember(&source, &word(path, &source), *terms);
            }
        }
    }

    /// Notes that these are all the discovery controllers that there are, without the administrator having said so:
    /// announced ones and referrals come and go. A referral that comes while somebody is waited for may be part of what
    /// that one has to say: it is waited for, too.
    pub fn follow_sources(&mut self, sources: BTreeSet<Rc<TransportId>>, is_announced: impl Fn(&TransportId) -> bool) {
        let is_new = |source: &&Rc<TransportId>| !self.by_source.contains_key(*source) && !self.knows(source);
        let newcomers = sources.iter().filter(is_new).filter(|source| !is_announced(source)).cloned().collect();
        self.succession.follow(&sources, &newcomers);
        self.fresh.retain(|source| sources.contains(source));
        self.known = Some(sources);
    }

    fn knows(&self, source: &TransportId) -> bool {
        self.known.as_ref().is_some_and(|known| known.contains(source))
    }

    /// Notes that these are all the discovery controllers that there are: what others listed becomes void, once those
    /// have been heard that came in their place. In the place of one that leaves is who comes in the same change, and
    /// who is asked at the same address by another name or pinning and has no fresh page. Nobody waits for one that is
    /// there because it `is_announced`: it replaces none, and may never be heard.
    pub fn hear_all_sources(
        &mut self,
        sources: BTreeSet<Rc<TransportId>>,
        is_announced: impl Fn(&TransportId) -> bool,
    ) -> Verdict {
        let before = self.known.iter().flatten().chain(self.by_source.keys()).cloned().collect();
        self.succession.change(&before, &sources, |one, dropped, is_new| {
            !is_announced(one) && (is_new || !self.fresh.contains(one) && one.is_same_address(dropped))
        });
        self.fresh.retain(|source| sources.contains(source));
        self.known = Some(sources);
        let mut verdict = Verdict::default();
        self.void_dropped(&mut verdict);
        verdict
    }

    fn void_dropped(&mut self, verdict: &mut Verdict) {
        while let Some(source) = self.succession.pop() {
            self.replace(&source, Rc::default(), verdict);
        }
    }

    /// From now on `source` lists exactly these paths.
    fn replace(&mut self, source: &Rc<TransportId>, now_listed: Rc<Listing>, verdict: &mut Verdict) {
        let before = self.by_source.get(source).cloned().unwrap_or_default();
        if Rc::ptr_eq(&before, &now_listed) {
            return;
        }
        let touched = now_listed.iter().filter(|(path, terms)| before.get(*path) != Some(*terms)).map(|(path, _)| path);
        let touched = touched.chain(before.keys().filter(|path| !now_listed.contains_key(*path)));
        let touched: Vec<_> = touched.map(|path| (path.clone(), self.terms(path))).collect();
        self.by_source.insert(source.clone(), now_listed);
        for (path, terms_before) in touched {
            self.note_source(source, &path);
            match (terms_before, self.terms(&path)) {
                (None, Some(_)) => verdict.appeared.push(path),
                (Some(_), None) => verdict.withdrawn.push(path),
                (before, now) if before != now => verdict.changed.push(path),
                _ => {}
            }
        }
        if self.by_source.get(source).is_some_and(|listing| listing.is_empty()) {
            self.by_source.remove(source);
        }
    }

    /// Brings up to date whether `source` lists `path`.
    fn note_source(&mut self, source: &Rc<TransportId>, path: &Rc<TransportId>) {
        let sources = self.by_path.entry(path.clone()).or_default();
        match self.by_source.get(source).is_some_and(|listing| listing.contains_key(path)) {
            true => sources.insert(source.clone()),
            false => sources.remove(source),
        };
        if sources.is_empty() {
            self.by_path.remove(path);
        }
    }

    /// Whether every discovery controller that there is has given a fresh page: what none of them lists is wanted by
    /// none.
    pub fn is_complete(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.is_subset(&self.fresh))
    }

    /// On what terms a path is listed; `None` if it is not.
    pub fn terms(&self, path: &TransportId) -> Option<Terms> {
        let terms = |source| self.by_source.get(source)?.get(path).copied();
        self.by_path.get(path)?.iter().filter_map(terms).reduce(Terms::and)
    }

    #[cfg(test)]
    fn is_listed(&self, path: &TransportId) -> bool {
        self.by_path.contains_key(path)
    }

    /// Every listed path with the discovery controllers that list it.
    pub fn paths(&self) -> impl Iterator<Item = (&Rc<TransportId>, &BTreeSet<Rc<TransportId>>)> {
        self.by_path.iter()
    }

    /// The discovery controllers that list a path.
    pub fn sources_of(&self, path: &TransportId) -> impl Iterator<Item = &Rc<TransportId>> {
        self.by_path.get(path).into_iter().flatten()
    }

    /// Every discovery controller that lists anything.
    pub fn sources(&self) -> impl Iterator<Item = &Rc<TransportId>> {
        self.by_source.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tid::{Spelling, Transport};

    fn named(subsysnqn: &str) -> Rc<TransportId> {
        via(subsysnqn, "")
    }

    /// The one of this name, at an address that nobody else has, pinned to an interface.
    fn via(subsysnqn: &str, host_iface: &str) -> Rc<TransportId> {
        let spelling = Spelling { traddr: subsysnqn, trsvcid: "4420", subsysnqn, host_iface, ..Spelling::default() };
        Rc::new(TransportId::new(Transport::Tcp, spelling))
    }

    fn fresh(paths: &[&str]) -> Testimony {
        Testimony::Fresh(paths.iter().map(|nqn| (named(nqn), Terms::default())).collect::<Listing>().into())
    }

    fn silent() -> Testimony {
        Testimony::Stale(Rc::default())
    }

    fn withdrawn(paths: &[&str]) -> Verdict {
        Verdict { withdrawn: paths.iter().map(|nqn| named(nqn)).collect(), ..Verdict::default() }
    }

    #[test]
    fn a_fresh_page_lists_and_withdraws() {
        let mut ledger = Ledger::default();
        let first = ledger.hear(&named("dc"), fresh(&["a", "b"]));
        assert_eq!(first.appeared, [named("a"), named("b")]);
        assert_eq!(ledger.hear(&named("dc"), fresh(&["a", "b"])), Verdict::default());
        assert_eq!(ledger.hear(&named("dc"), fresh(&["a"])), withdrawn(&["b"]));
        assert_eq!(ledger.hear(&named("dc"), fresh(&[])), withdrawn(&["a"]));
        assert_eq!(ledger.paths().count() + ledger.sources().count(), 0);
    }

    #[test]
    fn silence_is_no_evidence() {
        let mut ledger = Ledger::default();
        ledger.hear(&named("dc"), fresh(&["a"]));
        assert_eq!(ledger.hear(&named("dc"), silent()), Verdict::default());
        assert!(ledger.is_listed(&named("a")));
    }

    #[test]
    fn a_stale_page_adds_but_does_not_withdraw() {
        let mut ledger = Ledger::default();
        ledger.hear(&named("dc"), fresh(&["a"]));
        let stale = Testimony::Stale(Listing::from([(named("b"), Terms::default())]).into());
        assert_eq!(ledger.hear(&named("dc"), stale).appeared, [named("b")]);
        assert_eq!(ledger.hear(&named("dc"), fresh(&["b"])), withdrawn(&["a"]));
    }

    #[test]
    fn everyone_who_listed_a_path_must_take_it_back() {
        let mut ledger = Ledger::default();
        ledger.hear_all_sources([named("dc1"), named("dc2")].into(), |_| false);
        ledger.hear(&named("dc1"), fresh(&["a"]));
        ledger.hear(&named("dc2"), fresh(&["a"]));
        assert_eq!(ledger.hear(&named("dc1"), fresh(&[])), Verdict::default());
        ledger.hear(&named("dc2"), silent());
        assert!(ledger.is_listed(&named("a")));
        assert_eq!(ledger.hear_all_sources([named("dc1")].into(), |_| false), withdrawn(&["a"]));
    }

    #[test]
    fn who_is_replaced_is_not_void_before_the_new_one_is_heard() {
        let mut ledger = Ledger::default();
        ledger.hear_all_sources([named("old"), named("other")].into(), |_| false);
        ledger.hear(&named("old"), fresh(&["a", "b"]));
        assert_eq!(ledger.hear_all_sources([named("new"), named("other")].into(), |_| false), Verdict::default());
        assert_eq!(ledger.hear(&named("other"), fresh(&[])), Verdict::default());
        assert_eq!(ledger.hear(&named("new"), silent()), Verdict::default());
        assert!(ledger.is_listed(&named("a")) && ledger.is_listed(&named("b")));
        assert_eq!(ledger.hear(&named("new"), fresh(&["a"])), withdrawn(&["b"]));
    }

    #[test]
    fn who_was_there_from_the_start_or_came_alone_is_not_waited_for() {
        let mut ledger = Ledger::default();
        ledger.hear_all_sources([named("live"), named("dead")].into(), |_| false);
        ledger.hear(&named("live"), fresh(&["a"]));
        ledger.hear_all_sources([named("live"), named("dead"), named("later")].into(), |_| false);
        assert_eq!(ledger.hear_all_sources([named("dead"), named("later")].into(), |_| false), withdrawn(&["a"]));
    }

    #[test]
    fn a_newcomer_replaced_unheard_is_waited_for_in_its_successor() {
        let mut ledger = Ledger::default();
        ledger.remember(&named("old"), &named("a"), Terms::default());
        assert_eq!(ledger.hear_all_sources([named("mistyped")].into(), |_| false), Verdict::default());
        assert_eq!(ledger.hear_all_sources([named("new")].into(), |_| false), Verdict::default());
        assert_eq!(ledger.hear(&named("new"), fresh(&[])), withdrawn(&["a"]));
    }

    #[test]
    fn a_newcomer_that_leaves_unheard_is_not_waited_for() {
        let mut ledger = Ledger::default();
        ledger.hear_all_sources([named("old")].into(), |_| false);
        ledger.hear(&named("old"), fresh(&["a"]));
        assert_eq!(ledger.hear_all_sources([named("new")].into(), |_| false), Verdict::default());
        assert_eq!(ledger.hear_all_sources([].into(), |_| false), withdrawn(&["a"]));
    }

    #[test]
    fn announced_sources_are_not_waited_for_and_not_void_for_having_come_later() {
        let mut ledger = Ledger::default();
        ledger.hear_all_sources([named("old")].into(), |_| false);
        ledger.hear(&named("old"), fresh(&["a"]));
        ledger.follow_sources([named("old"), named("announced")].into(), |_| true);
        ledger.hear(&named("announced"), fresh(&["b"]));
        ledger.hear_all_sources([named("new"), named("announced")].into(), |source| *source == *named("announced"));
        assert_eq!(ledger.hear(&named("new"), fresh(&[])), withdrawn(&["a"]));
        assert_eq!(ledger.hear_all_sources([named("announced"), named("other")].into(), |_| true), Verdict::default());
        assert!(ledger.is_listed(&named("b")));
    }

    #[test]
    fn who_is_pinned_otherwise_is_waited_for_unless_fresh() {
        let setup = || {
            let mut ledger = Ledger::default();
            ledger.hear_all_sources([named("dc")].into(), |_| false);
            ledger.hear(&named("dc"), fresh(&["a"]));
            // It is announced, too, where it is going to be pinned to.
            ledger.follow_sources([named("dc"), via("dc", "eth0")].into(), |_| true);
            ledger
        };
        let mut ledger = setup();
        assert_eq!(ledger.hear_all_sources([via("dc", "eth0")].into(), |_| false), Verdict::default());
        assert_eq!(ledger.hear(&via("dc", "eth0"), fresh(&[])), withdrawn(&["a"]));
        let mut ledger = setup();
        ledger.hear(&via("dc", "eth0"), fresh(&[]));
        assert_eq!(ledger.hear_all_sources([via("dc", "eth0")].into(), |_| false), withdrawn(&["a"]));
    }

    #[test]
    fn a_forgotten_source_is_no_evidence_and_lists_nothing() {
        let mut ledger = Ledger::default();
        ledger.hear(&named("dc"), fresh(&["a"]));
        let verdict = ledger.hear(&named("dc"), Testimony::Forgotten);
        assert_eq!((verdict.abandoned, verdict.withdrawn), (vec![named("a")], vec![]));
        assert_eq!(ledger.paths().count() + ledger.sources().count(), 0);
    }

    #[test]
    fn what_is_remembered_waits_for_its_own_source() {
        let mut ledger = Ledger::default();
        ledger.remember(&named("dc1"), &named("a"), Terms::default());
        assert_eq!(ledger.hear(&named("dc2"), fresh(&[])), Verdict::default());
        assert!(ledger.is_listed(&named("a")));
        assert_eq!(ledger.hear(&named("dc1"), fresh(&[])), withdrawn(&["a"]));
    }
}
