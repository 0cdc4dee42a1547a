//! The order in which links go to the kernel, where connects wait for each other: the fewer failures, the earlier; equals
//! in the order in which they came. What failed before may fail slowly again and hold up the rest, so it comes last; and
//! one controller that hangs does not come before the good ones behind the same portal again and again.

use std::collections::BTreeMap;

use crate::core::links::LinkId;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    failures: u32,
    number: u64,
}

impl Turn {
    /// Whether it may hold up the others.
    pub fn is_suspect(&self) -> bool {
        self.failures > 0
    }
}

/// Links that wait for their turn.
#[derive(Debug, Default)]
pub struct Turns {
    queue: BTreeMap<Turn, LinkId>,
    next_number: u64,
}

impl Turns {
    /// `failures`: how often the link or its portal failed lately.
    pub fn join(&mut self, id: LinkId, failures: u32) -> Turn {
        let turn = Turn { failures, number: self.next_number };
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
