//! How long to wait before trying again.

use std::time::Duration;

/// The wait after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait: an administrator who repairs something sees the effect within this time even if no event tells us.
const LONGEST: Duration = Duration::from_secs(60);
/// The kernel makes all connects of a host wait for each other. A controller that kept the others waiting must leave
/// them at least this many times as long before it is tried again…
const PATIENCE: u32 = 10;
/// …but not longer than this.
const LONGEST_PENALTY: Duration = Duration::from_secs(120);
/// A connect that fails later than this held up all others of the host.
const HELD_UP: Duration = Duration::from_secs(1);

/// What a failed connect cost the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hold {
    /// For how long the kernel worked at it.
    pub time: Duration,
    /// Others waited for it meanwhile.
    pub others_wait: bool,
}

impl Hold {
    /// Whether it took so long that it holds up others, if there are any.
    pub fn is_long(&self) -> bool {
        self.time >= HELD_UP
    }

    /// How long others are to have the kernel for themselves. Where nobody waits, nobody gains by a penalty: after an
    /// array fails over, its storage is to be back soon.
    fn penalty(&self) -> Duration {
        if self.others_wait { self.time.saturating_mul(PATIENCE).min(LONGEST_PENALTY) } else { Duration::ZERO }
    }
}

/// Waits that grow with the number of failures, a little different each time so that hosts do not retry in step.
#[derive(Debug)]
pub struct BackOff {
    /// State of an xorshift generator; never 0.
    random: u64,
}

impl BackOff {
    /// Two with the same seed give the same waits.
    pub fn new(seed: u64) -> BackOff {
        BackOff { random: seed | 1 }
    }

    /// The wait after the `failures`-th failure in a row (1 is the first): 1 s doubling to 60 s, less up to a quarter.
    pub fn delay(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(6);
        let wait = FIRST.saturating_mul(1 << doublings).min(LONGEST);
        self.spread(wait)
    }

    /// The wait where something was announced but never answered so far: longer and longer, for nobody but whoever
    /// announced it expects anything there. Less up to a quarter, as above.
    pub fn delay_where_announced(&mut self, failures: u32) -> Duration {
        const SECONDS: [u64; 7] = [2, 5, 10, 30, 60, 300, 600];
        let index = usize::try_from(failures).unwrap_or(usize::MAX).saturating_sub(1);
        let wait = Duration::from_secs(SECONDS.get(index).copied().unwrap_or(600));
        self.spread(wait)
    }

    /// An interval, less up to a quarter.
    pub fn spread(&mut self, interval: Duration) -> Duration {
        interval.saturating_sub(interval.mul_f64(self.next_fraction() / 4.0))
    }

    /// The wait after a connect that failed.
    pub fn delay_after_connect(&mut self, failures: u32, hold: Hold) -> Duration {
        self.delay(failures).max(hold.penalty())
    }

    /// In 0 to 1 (xorshift64, Marsaglia 2003).
    fn next_fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_one_second_to_a_minute() {
        let mut backoff = BackOff::new(7);
        for (failures, longest) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)] {
            let longest = Duration::from_secs(longest);
            let delay = backoff.delay(failures);
            assert!(delay <= longest && delay >= longest.mul_f64(0.75), "{failures}: {delay:?}");
        }
    }

    #[test]
    fn who_holds_up_others_waits_longer() {
        let mut backoff = BackOff::new(7);
        let mut delay = |millis, others_wait| {
            let time = Duration::from_millis(millis);
            backoff.delay_after_connect(1, Hold { time, others_wait })
        };
        assert!(delay(10, true) <= Duration::from_secs(1));
        assert_eq!(delay(3000, true), Duration::from_secs(30));
        assert_eq!(delay(100_000, true), LONGEST_PENALTY);
        assert!(delay(100_000, false) <= Duration::from_secs(1), "nobody gains by it");
    }
}
