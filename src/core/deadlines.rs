//! What is due when: at most one deadline for each key, the earliest found without a search.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A set of deadlines; every operation costs O(log n).
#[derive(Debug)]
pub struct Deadlines<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Deadlines { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Deadlines<K> {
    /// Sets or moves the deadline of `key`.
    pub fn set(&mut self, key: K, at: Instant) {
        self.cancel(&key);
        self.by_time.insert((at, key.clone()));
        self.by_key.insert(key, at);
    }

    pub fn cancel(&mut self, key: &K) {
        if let Some((key, at)) = self.by_key.remove_entry(key) {
            self.by_time.remove(&(at, key));
        }
    }

    pub fn get(&self, key: &K) -> Option<Instant> {
        self.by_key.get(key).copied()
    }

    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.by_key.keys()
    }

    /// Takes one key whose deadline is not after `now`, the earliest first.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moved_and_cancelled_deadlines_do_not_fire() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        deadlines.set("moved", at(1));
        deadlines.set("cancelled", at(1));
        deadlines.set("kept", at(2));
        deadlines.set("moved", at(3));
        deadlines.cancel(&"cancelled");
        assert_eq!(deadlines.next(), Some(at(2)));
        assert_eq!(deadlines.pop(at(1)), None);
        assert_eq!(deadlines.pop(at(3)), Some("kept"));
        assert_eq!(deadlines.pop(at(3)), Some("moved"));
        assert_eq!(deadlines.pop(at(9)), None);
    }
}
