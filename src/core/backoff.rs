//! How long to wait before trying again.

use std::time::Duration;

/// The wait after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait: an administrator who repairs something sees the effect within this time even if no event tells us.
const LONGEST: Duration = Duration::from_secs(60);
/// The kernel makes all connects of a host wait for each other. A controller that kept the others waiting must leave them
/// at least this many times as long before it is tried again…
const PATIENCE: u32 = 10;
/// …but not longer than this.
const LONGEST_PENALTY: Duration = Duration::from_secs(600);

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
        wait.saturating_sub(wait.mul_f64(self.next_fraction() / 4.0))
    }

    /// The wait where something was announced but never answered so far: longer and longer, for nobody but whoever announced
    /// it expects anything there. Less up to a quarter, as above.
    pub fn delay_where_announced(&mut self, failures: u32) -> Duration {
        const SECONDS: [u64; 7] = [2, 5, 10, 30, 60, 300, 600];
        let index = usize::try_from(failures).unwrap_or(usize::MAX).saturating_sub(1);
        let wait = Duration::from_secs(SECONDS.get(index).copied().unwrap_or(600));
        wait.saturating_sub(wait.mul_f64(self.next_fraction() / 4.0))
    }

    /// The wait after a connect that failed after holding up the host's other connects for `held`.
    pub fn delay_after_connect(&mut self, failures: u32, held: Duration) -> Duration {
        self.delay(failures).max(held.saturating_mul(PATIENCE).min(LONGEST_PENALTY))
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
        let quick = backoff.delay_after_connect(1, Duration::from_millis(10));
        assert!(quick <= Duration::from_secs(1));
        assert_eq!(backoff.delay_after_connect(1, Duration::from_secs(3)), Duration::from_secs(30));
        assert_eq!(backoff.delay_after_connect(1, Duration::from_secs(100)), LONGEST_PENALTY);
    }
}
