//! Who comes in place of whom. Whoever the administrator drops is let go only when those that the same change named
//! instead are there: who corrects an address or a pinning does not mean to lose the storage behind it.
//!
//! Discovery controllers are there when they have been heard, I/O controllers when they are connected.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::core::tid::TransportId;

/// Those that were dropped and are not let go yet, each with those that came in its place and are not there yet.
#[derive(Debug, Default)]
pub struct Succession {
    dropped: BTreeMap<Rc<TransportId>, BTreeSet<Rc<TransportId>>>,
}

impl Succession {
    /// The administrator replaces those of `before` by those of `now`. `may_replace` says whether one of `now` is in
    /// the place of a dropped one and not there yet; its last argument, whether it comes with this change.
    pub fn change(
        &mut self,
        before: &BTreeSet<Rc<TransportId>>,
        now: &BTreeSet<Rc<TransportId>>,
        may_replace: impl Fn(&TransportId, &TransportId, bool) -> bool,
    ) {
        let successors = |of: &TransportId| -> Vec<_> {
            now.iter().filter(|one| may_replace(one, of, !before.contains(*one))).cloned().collect()
        };
        self.dropped.retain(|one, _| !now.contains(one));
        for (one, awaited) in &mut self.dropped {
            // Whoever was awaited and is dropped now stands for those in whose place it came.
            if !awaited.is_empty() {
                awaited.retain(|newcomer| now.contains(newcomer));
                awaited.extend(successors(one));
            }
        }
        for one in before.difference(now) {
            self.dropped.entry(one.clone()).or_insert_with(|| successors(one).into_iter().collect());
        }
    }

    /// These are all that there are now, without the administrator having said so: who is among them again is not
    /// dropped, and nobody waits for who is not. Where somebody is waited for, so are the `newcomers`.
    pub fn follow(&mut self, now: &BTreeSet<Rc<TransportId>>, newcomers: &BTreeSet<Rc<TransportId>>) {
        self.dropped.retain(|one, _| !now.contains(one));
        for awaited in self.dropped.values_mut() {
            awaited.retain(|newcomer| now.contains(newcomer));
            if !awaited.is_empty() {
                awaited.extend(newcomers.iter().cloned());
            }
        }
    }

    /// One is there.
    pub fn arrive(&mut self, one: &TransportId) {
        for awaited in self.dropped.values_mut() {
            awaited.remove(one);
        }
    }

    /// One of those that nobody is waited for any more in whose place; it is forgotten here.
    pub fn pop(&mut self) -> Option<Rc<TransportId>> {
        let (one, _) = self.dropped.iter().find(|(_, awaited)| awaited.is_empty())?;
        let one = one.clone();
        self.dropped.remove(&one);
        Some(one)
    }

    /// Whether one was dropped and others are waited for in its place.
    pub fn holds(&self, one: &TransportId) -> bool {
        self.dropped.get(one).is_some_and(|awaited| !awaited.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tid::{Spelling, Transport};

    fn named(subsysnqn: &str, traddr: &str) -> Rc<TransportId> {
        let spelling = Spelling { traddr, trsvcid: "4420", subsysnqn, ..Spelling::default() };
        Rc::new(TransportId::new(Transport::Tcp, spelling))
    }

    fn all(words: &str) -> BTreeSet<Rc<TransportId>> {
        words.split_whitespace().map(|word| named("nqn", word)).collect()
    }

    /// Who is let go by each change from one list to the next, all of them newcomers that are not there yet.
    fn let_go(succession: &mut Succession, before: &str, now: &str) -> BTreeSet<Rc<TransportId>> {
        succession.change(&all(before), &all(now), |_, _, is_new| is_new);
        std::iter::from_fn(|| succession.pop()).collect()
    }

    #[test]
    fn who_is_replaced_waits_for_all_that_came_instead() {
        let mut succession = Succession::default();
        assert_eq!(let_go(&mut succession, "a b", "b c d"), all(""));
        succession.arrive(&named("nqn", "c"));
        assert!(succession.pop().is_none() && succession.holds(&named("nqn", "a")));
        succession.arrive(&named("nqn", "d"));
        assert_eq!(succession.pop(), Some(named("nqn", "a")));
        assert!(succession.is_empty());
    }

    #[test]
    fn who_is_dropped_alone_goes_at_once_though_another_waits() {
        let mut succession = Succession::default();
        assert_eq!(let_go(&mut succession, "a b", "b c"), all(""));
        assert_eq!(let_go(&mut succession, "b c", "c"), all("b"));
        assert_eq!(let_go(&mut succession, "c", ""), all("a c"));
    }

    #[test]
    fn a_newcomer_that_never_came_is_stood_for_by_its_successor() {
        let mut succession = Succession::default();
        assert_eq!(let_go(&mut succession, "a", "typo"), all(""));
        assert_eq!(let_go(&mut succession, "typo", "b"), all(""));
        succession.arrive(&named("nqn", "b"));
        assert_eq!(std::iter::from_fn(|| succession.pop()).collect::<BTreeSet<_>>(), all("a typo"));
    }

    #[test]
    fn who_comes_back_is_not_dropped() {
        let mut succession = Succession::default();
        assert_eq!(let_go(&mut succession, "a", "b"), all(""));
        assert_eq!(let_go(&mut succession, "b", "a"), all(""), "b waits for a");
        succession.arrive(&named("nqn", "a"));
        assert_eq!(succession.pop(), Some(named("nqn", "b")));
        assert!(succession.is_empty());
    }

    #[test]
    fn who_comes_back_of_its_own_accord_is_not_dropped() {
        let mut succession = Succession::default();
        assert_eq!(let_go(&mut succession, "a b", "c"), all(""));
        succession.follow(&all("a c"), &all(""));
        succession.arrive(&named("nqn", "c"));
        assert_eq!((succession.pop(), succession.pop()), (Some(named("nqn", "b")), None));
    }

    #[test]
    fn only_who_may_replace_is_waited_for() {
        let mut succession = Succession::default();
        let before = [named("x", "a"), named("y", "a")].into();
        let same = |one: &TransportId, other: &TransportId, _: bool| one.subsysnqn() == other.subsysnqn();
        succession.change(&before, &[named("x", "b"), named("z", "a")].into(), same);
        assert_eq!((succession.pop(), succession.pop()), (Some(named("y", "a")), None));
    }
}
