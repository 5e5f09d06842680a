//! Rate limits: at most so many bytes are read in a second, by all workers together.
//!
//! Each read is given the time at which it may begin: the end of what was granted before it. Nothing is
//! saved up while the workers do something else.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::interrupt::Interrupt;

/// Grants reads. Without a limit it costs nothing.
pub struct Throttle(Option<Limit>);

struct Limit {
    bytes_per_second: NonZeroU64,
    /// When what was granted so far has been read.
    next: Mutex<Option<Instant>>,
}

impl Throttle {
    pub fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self(bytes_per_second.map(|bytes_per_second| Limit { bytes_per_second, next: Mutex::new(None) }))
    }

    /// Waits until that many bytes may be read; an error when the work was interrupted.
    pub fn wait(&self, bytes: u64, interrupt: &Interrupt) -> Result<()> {
        match &self.0 {
            Some(limit) => interrupt.sleep_until(limit.grant(bytes, Instant::now())),
            None => Ok(()),
        }
    }
}

impl Limit {
    /// When the reading of `bytes` may begin.
    fn grant(&self, bytes: u64, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = next.map_or(now, |next| next.max(now));
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let duration = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        *next = begin.checked_add(duration).or(Some(begin));
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(bytes_per_second: u64) -> Limit {
        Limit { bytes_per_second: NonZeroU64::new(bytes_per_second).expect("not 0"), next: Mutex::new(None) }
    }

    #[test]
    fn each_read_waits_for_those_before_it() {
        let limit = limit(1000);
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(limit.grant(500, start), start);
        assert_eq!(limit.grant(250, start), at(500));
        assert_eq!(limit.grant(1, at(600)), at(750));
    }

    #[test]
    fn an_idle_time_is_not_made_up_for() {
        let limit = limit(1000);
        let start = Instant::now();
        limit.grant(1000, start);
        let later = start + Duration::from_secs(60);
        assert_eq!(limit.grant(1000, later), later);
        assert_eq!(limit.grant(1, later), later + Duration::from_secs(1));
    }

    #[test]
    fn an_absurd_limit_does_not_overflow() {
        let limit = limit(1);
        let start = Instant::now();
        limit.grant(u64::MAX, start);
        assert!(limit.grant(u64::MAX, start) >= start);
    }

    #[test]
    fn an_interrupted_reader_does_not_wait() {
        let throttle = Throttle::new(NonZeroU64::new(1));
        let interrupt = Interrupt::default();
        assert_eq!(throttle.wait(1 << 30, &interrupt), Ok(()));
        interrupt.set();
        assert!(throttle.wait(1, &interrupt).is_err());
        assert_eq!(Throttle::new(None).wait(1, &interrupt), Ok(()), "nothing to wait for");
    }
}
