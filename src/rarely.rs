//! What others can make happen a thousand times a second is said once a minute at the most.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// One such thing.
#[derive(Debug, Default)]
pub struct Rarely {
    said: Option<Instant>,
}

impl Rarely {
    /// Whether it is to be said now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.said.is_none_or(|said| now.saturating_duration_since(said) >= PAUSE);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute() {
        let (mut rarely, start) = (Rarely::default(), Instant::now());
        let due = [0, 0, 59, 60, 61, 119, 120].map(|seconds| rarely.is_due(start + Duration::from_secs(seconds)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}
