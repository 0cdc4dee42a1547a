//! Chance that does not shift: what happens to one request depends on the seed, on what is asked and on how often that was
//! asked before, not on what else was drawn in between. A script with a deed less stays the same script otherwise, so that
//! it can be shrunk.

use std::collections::BTreeMap;
use std::time::Duration;

pub struct Chance {
    seed: u64,
    asked: BTreeMap<u64, u64>,
}

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance { seed, asked: BTreeMap::new() }
    }

    /// 0 to `bound` - 1.
    pub fn below(&mut self, what: &str, bound: u64) -> u64 {
        let what = hash(what);
        let times = self.asked.entry(what).or_default();
        *times += 1;
        mix(self.seed ^ what ^ mix(*times)) % bound
    }

    pub fn one_in(&mut self, what: &str, bound: u64) -> bool {
        self.below(what, bound) == 0
    }

    pub fn pick<'a, T>(&mut self, what: &str, from: &'a [T]) -> &'a T {
        &from[self.below(what, from.len() as u64) as usize]
    }

    /// Mostly short, now and then long: what a fork, a network and a busy host make of a duration.
    pub fn latency(&mut self, what: &str) -> Duration {
        let most = *self.pick(what, &[5, 5, 20, 20, 100, 1500]);
        Duration::from_micros(self.below(what, most * 1000))
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The finalizer of SplitMix64.
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
