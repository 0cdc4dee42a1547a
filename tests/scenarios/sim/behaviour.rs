//! The knobs: how a simulated controller behaves, good or bad. A scenario turns them at any time through
//! [`Handle::behave`](super::Handle::behave); the next command meets the new setting.

use std::collections::HashMap;
use std::time::Duration;

use super::commands::{Kind, Status};
use super::identity::Identity;
use super::log::{DiscoveryLog, RECORD};

/// LID 70h specific bit of the supported log pages: extended entries can be asked for.
pub const EXTDLPES: u16 = 1 << 0;
/// LID 70h specific bit of the supported log pages: port local entries can be asked for.
pub const PLEOS: u16 = 1 << 1;

/// How often something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The next so many times; `Next(0)` is never.
    Next(u32),
    Always,
}

impl Times {
    pub const NEVER: Self = Self::Next(0);
    pub const ONCE: Self = Self::Next(1);

    /// Whether it happens now; counts it when so.
    pub fn take(&mut self) -> bool {
        match self {
            Self::Always => true,
            Self::Next(0) => false,
            Self::Next(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// What comes of a TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    #[default]
    Normally,
    /// Closed as soon as it is there.
    Close,
    /// Held, and ICReq never answered.
    Silent,
    /// Answered by something that is no NVMe/TCP controller, and held.
    Garbage(Vec<u8>),
}

/// What a command gets instead of its execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// A completion with this status.
    Fail(Status),
    /// No completion, ever.
    Ignore,
    /// The end of the connection.
    Disconnect,
}

/// What is returned for the part of a log page read that lies beyond the end of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beyond {
    #[default]
    Zeros,
    Garbage,
    /// Nothing: the command succeeds with less data than asked for.
    Nothing,
}

/// All the knobs. The default is a well-behaved discovery controller of the kind that supports neither PLEO nor DIM.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub identity: Identity,
    pub accept: Accept,
    /// Specific bits of LID 70h in the supported log pages: [`EXTDLPES`], [`PLEOS`]. Only PLEO is acted upon.
    pub discovery_log_bits: u16,
    /// The discovery log page is these bytes and nothing else.
    pub raw_page: Option<Vec<u8>>,
    /// NUMREC, whatever there is.
    pub numrec: Option<u64>,
    /// The discovery log page ends after so many bytes, whatever its header claims.
    pub page_length: Option<usize>,
    pub beyond: Beyond,
    /// After a read of the discovery log page, the generation counter grows. Silently: no event is sent.
    pub restless_generation: Times,
    /// Complete commands by the SUCCESS flag of their data, without a response capsule, where that is allowed.
    pub success_flag: bool,
    delays: HashMap<Kind, Duration>,
    instead: Vec<(Kind, Times, Instead)>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            identity: Identity::default(),
            accept: Accept::default(),
            discovery_log_bits: 0,
            raw_page: None,
            numrec: None,
            page_length: None,
            beyond: Beyond::default(),
            restless_generation: Times::NEVER,
            success_flag: false,
            delays: HashMap::new(),
            instead: Vec::new(),
        }
    }
}

impl Behaviour {
    /// Commands of this kind are executed only after `delay`; others overtake them.
    pub fn delay(&mut self, kind: Kind, delay: Duration) {
        self.delays.insert(kind, delay);
    }

    /// Commands of this kind fail with `status`. What was set before for the kind comes first, until it is used up.
    pub fn fail(&mut self, kind: Kind, times: Times, status: Status) {
        self.instead.push((kind, times, Instead::Fail(status)));
    }

    /// Commands of this kind are never answered. Order as in [`fail`](Self::fail).
    pub fn ignore(&mut self, kind: Kind, times: Times) {
        self.instead.push((kind, times, Instead::Ignore));
    }

    /// Commands of this kind end their connection. Order as in [`fail`](Self::fail).
    pub fn disconnect_on(&mut self, kind: Kind, times: Times) {
        self.instead.push((kind, times, Instead::Disconnect));
    }

    /// Commands of this kind are executed again, and at once.
    pub fn heal(&mut self, kind: Kind) {
        self.delays.remove(&kind);
        self.instead.retain(|(of, _, _)| *of != kind);
    }

    /// The delay of a command that has arrived, and what it gets instead of its execution.
    pub(super) fn meet(&mut self, kind: Kind) -> (Option<Duration>, Option<Instead>) {
        let instead =
            self.instead.iter_mut().find_map(|(of, times, instead)| (*of == kind && times.take()).then_some(*instead));
        (self.delays.get(&kind).copied(), instead)
    }

    /// `length` bytes of the discovery log page from `offset` on.
    pub(super) fn read_log(&self, log: &DiscoveryLog, pleo: bool, offset: u64, length: usize) -> Vec<u8> {
        let pleo = pleo && self.discovery_log_bits & PLEOS != 0;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        // A page of thousands of entries is read in hundreds of pieces: only the records of this one are made.
        let (begin, mut page) = match &self.raw_page {
            Some(raw) => (0, raw.clone()),
            None => {
                let first = offset / RECORD;
                (first * RECORD, log.records(pleo, self.numrec, first, length / RECORD + 2))
            }
        };
        page.truncate(self.page_length.map_or(page.len(), |length| length.saturating_sub(begin)));
        let there = page.get(offset - begin..).unwrap_or_default();
        let mut data = there[..there.len().min(length)].to_vec();
        match self.beyond {
            Beyond::Zeros => data.resize(length, 0),
            Beyond::Garbage => data.extend((data.len()..length).map(garbage)),
            Beyond::Nothing => {}
        }
        data
    }
}

/// Bytes that look like nothing, the same in every run.
fn garbage(position: usize) -> u8 {
    (position as u32).wrapping_mul(0x9e37_79b9).to_be_bytes()[0] | 1
}
