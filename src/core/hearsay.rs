//! What a finder in another process says about its discovery controllers, and what it means that one is missing from
//! that.
//!
//! The administrator may have dropped it, whose word counts against what it listed; or the finder forgot it, which
//! counts against nothing: see [`evidence`](crate::core::evidence). The finder tells why it knows each one, and its log
//! pages tell who refers to whom; the rest follows. When in doubt, it was forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::core::Report;
use crate::core::evidence::Testimony;
use crate::core::finder::Origin;
use crate::core::tid::TransportId;

/// What the finder said last.
#[derive(Debug, Default)]
pub struct Hearsay {
    origins: BTreeMap<Rc<TransportId>, Origin>,
    /// Those that the finder may forget by itself, whatever else it says.
    fading: BTreeSet<Rc<TransportId>>,
    /// By lister.
    referrals: BTreeMap<Rc<TransportId>, BTreeSet<Rc<TransportId>>>,
}

impl Hearsay {
    /// An earlier run knew that it was not there by the administrator's word alone.
    pub fn remember(&mut self, tid: &Rc<TransportId>, origin: Origin) {
        self.origins.insert(tid.clone(), origin);
        self.fading.insert(tid.clone());
    }

    /// Those that the next run should know of.
    pub fn worth_remembering(&self) -> impl Iterator<Item = (&Rc<TransportId>, Origin)> {
        let known = self.origins.iter().map(|(tid, origin)| (tid, *origin));
        known.filter(|(_, origin)| *origin != Origin::Configured)
    }

    /// The finder is gone. Another one may know less.
    pub fn finder_gone(&mut self) {
        let passing = self.origins.iter().filter(|(_, origin)| **origin != Origin::Configured);
        self.fading = passing.map(|(tid, _)| tid.clone()).collect();
    }

    /// Takes in all that the finder knows. Those that it has forgotten since it last spoke.
    pub fn hear(&mut self, reports: &[Report]) -> BTreeSet<Rc<TransportId>> {
        let now: BTreeMap<_, _> = reports.iter().map(|report| (report.source.clone(), report)).collect();
        let forgotten = self.forgotten(&now);
        self.origins = now.iter().map(|(tid, report)| (tid.clone(), report.origin)).collect();
        let fades = |report: &&Report| report.origin == Origin::Discovered && !report.connected;
        self.fading = reports.iter().filter(fades).map(|report| report.source.clone()).collect();
        self.referrals.retain(|lister, _| now.contains_key(lister));
        for report in reports {
            let before = self.referrals.entry(report.source.clone()).or_default();
            match report.testimony {
                Testimony::Fresh(_) => before.clone_from(&report.referrals),
                _ => before.extend(report.referrals.iter().cloned()),
            }
        }
        forgotten
    }

    fn forgotten(&self, now: &BTreeMap<Rc<TransportId>, &Report>) -> BTreeSet<Rc<TransportId>> {
        let missing = || self.origins.iter().filter(|(tid, _)| !now.contains_key(*tid));
        let mut forgotten: BTreeSet<Rc<TransportId>> = BTreeSet::new();
        loop {
            let is_forgotten = |tid: &Rc<TransportId>, origin: Origin| {
                self.fading.contains(tid) || origin == Origin::Referral && self.is_lost(tid, now, &forgotten)
            };
            let new = missing().filter(|(tid, origin)| !forgotten.contains(*tid) && is_forgotten(tid, **origin));
            let new: Vec<_> = new.map(|(tid, _)| tid.clone()).collect();
            if new.is_empty() {
                return forgotten;
            }
            forgotten.extend(new);
        }
    }

    /// Whether a referral may be missing because somebody does not refer to it any more.
    fn is_lost(
        &self,
        tid: &TransportId,
        now: &BTreeMap<Rc<TransportId>, &Report>,
        forgotten: &BTreeSet<Rc<TransportId>>,
    ) -> bool {
        let listers = self.referrals.iter().filter(|(_, referrals)| referrals.contains(tid)).map(|(lister, _)| lister);
        let mut verdicts = listers.map(|lister| match now.get(lister) {
            // Still referred to: the administrator does not want it.
            Some(Report { testimony: Testimony::Fresh(_), referrals, .. }) => !referrals.contains(tid),
            Some(_) => true,
            None => forgotten.contains(lister),
        });
        verdicts.next().is_none_or(|first| first || verdicts.any(|lost| lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tid::{Spelling, Transport};

    fn named(name: &str) -> Rc<TransportId> {
        let spelling = Spelling { traddr: "192.0.2.1", trsvcid: "8009", subsysnqn: name, ..Spelling::default() };
        Rc::new(TransportId::new(Transport::Tcp, spelling))
    }

    /// `a: b c` refers to b and c; `a?` has no fresh page; `=a`, `~a` and `>a` are configured, announced and referrals.
    fn reports(lines: &[&str]) -> Vec<Report> {
        let report = |line: &&str| {
            let (name, referrals) = line.split_once(':').unwrap_or((line, ""));
            let (origin, name) = match name.split_at(1) {
                ("=", name) => (Origin::Configured, name),
                ("~", name) => (Origin::Discovered, name),
                (_, name) => (Origin::Referral, name),
            };
            let testimony = match name.ends_with('?') {
                true => Testimony::Stale(Default::default()),
                false => Testimony::Fresh(Default::default()),
            };
            let referrals = referrals.split_whitespace().map(named).collect();
            let source = named(name.trim_end_matches('?'));
            Report { source, testimony, referrals, origin, connected: true }
        };
        lines.iter().map(report).collect()
    }

    /// Who is forgotten when the finder says the one and then the other.
    #[track_caller]
    fn check(before: &[&str], after: &[&str], expected: &[&str]) {
        let mut hearsay = Hearsay::default();
        assert_eq!(hearsay.hear(&reports(before)), BTreeSet::new());
        let expected: BTreeSet<_> = expected.iter().map(|name| named(name)).collect();
        assert_eq!(hearsay.hear(&reports(after)), expected, "{before:?} {after:?}");
    }

    #[test]
    fn a_referral_that_nobody_lists_any_more_is_forgotten_with_what_it_refers_to() {
        check(&["=a: b", ">b: c", ">c"], &["=a"], &["b", "c"]);
        check(&["=a: b", ">b: b c", ">c: b"], &["=a"], &["b", "c"]);
    }

    #[test]
    fn a_referral_goes_with_those_that_the_administrator_drops() {
        check(&["=a: b", ">b: c", ">c: b c"], &[], &[]);
        check(&["=a: b", "=x", ">b"], &["=x"], &[]);
    }

    #[test]
    fn an_excluded_referral_is_still_listed() {
        check(&["=a: b", ">b: c", ">c"], &["=a: b"], &[]);
        check(&["=a: b", ">b"], &["=a?: b"], &["b"]);
    }

    #[test]
    fn a_finder_that_knows_less_after_a_restart_has_forgotten() {
        check(&["=a: b", ">b"], &["=a?"], &["b"]);
        check(&["=a?", ">b"], &[], &["b"]);
        let mut hearsay = Hearsay::default();
        hearsay.hear(&reports(&["=a: b", "~x", ">b"]));
        hearsay.finder_gone();
        assert_eq!(hearsay.hear(&reports(&["=a: b"])), [named("b"), named("x")].into());
        let mut next_run = Hearsay::default();
        next_run.remember(&named("b"), Origin::Referral);
        assert_eq!(next_run.hear(&reports(&["=a: b"])), [named("b")].into());
    }

    #[test]
    fn a_stale_page_takes_no_referral_back() {
        let mut hearsay = Hearsay::default();
        hearsay.hear(&reports(&["=a: b", ">b"]));
        hearsay.hear(&reports(&["=a?", ">b"]));
        assert_eq!(hearsay.hear(&reports(&[])), BTreeSet::new(), "the administrator dropped a");
    }
}
