//! The order in which links go to the kernel, where connects wait for each other: the fewer failures, the earlier; then the
//! first way to each subsystem before the second to any, so that all storage is there before any is there twice; equals in the
//! order in which they came. What failed before may fail slowly again and hold up the rest, so it comes last; and
//! one controller that hangs does not come before the good ones behind the same portal again and again.

use std::collections::BTreeMap;

use crate::core::links::LinkId;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    failures: u32,
    ways_before: u32,
    number: u64,
}

impl Turn {
    /// Whether it may hold up the others.
    pub fn is_suspect(&self) -> bool {
        self.failures > 0
    }
}

/// How many ways lead to each subsystem, or will when their turn has come.
#[derive(Debug, Default)]
pub struct Ways {
    by_subsystem: BTreeMap<String, u32>,
}

impl Ways {
    pub fn count(&self, id: &LinkId) -> u32 {
        self.by_subsystem.get(id.tid.subsysnqn()).copied().unwrap_or_default()
    }

    pub fn add(&mut self, id: &LinkId) {
        match self.by_subsystem.get_mut(id.tid.subsysnqn()) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(self.by_subsystem.insert(id.tid.subsysnqn().to_owned(), 1)),
        }
    }

    pub fn remove(&mut self, id: &LinkId) {
        if let Some(count) = self.by_subsystem.get_mut(id.tid.subsysnqn()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_subsystem.remove(id.tid.subsysnqn());
            }
        }
    }
}

/// Links that wait for their turn.
#[derive(Debug, Default)]
pub struct Turns {
    queue: BTreeMap<Turn, LinkId>,
    next_number: u64,
}

impl Turns {
    /// `failures`: how often the link or its portal failed lately. `ways_before`: how many others lead there already.
    pub fn join(&mut self, id: LinkId, failures: u32, ways_before: u32) -> Turn {
        let turn = Turn { failures, ways_before, number: self.next_number };
        self.next_number = self.next_number.wrapping_add(1);
        self.queue.insert(turn, id);
        turn
    }

    pub fn leave(&mut self, turn: Turn) {
        self.queue.remove(&turn);
    }

    pub fn first(&self) -> Option<(Turn, &LinkId)> {
        self.queue.first_key_value().map(|(turn, id)| (*turn, id))
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
