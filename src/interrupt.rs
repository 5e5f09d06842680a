//! Being asked to end: SIGINT, SIGTERM and SIGHUP set a flag, which long work looks at between its steps, so
//! that it can clean up behind itself. A second signal ends the process at once, as if nobody had listened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, IoContext, Result};

/// How long a signal may go unnoticed while we sleep.
const NOTICE: Duration = Duration::from_millis(50);

/// Whether somebody asked us to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    pub fn install() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let listen = || {
                // In this order: the first signal finds the flag unset and only sets it.
                flag::register_conditional_default(signal, interrupt.0.clone())?;
                flag::register(signal, interrupt.0.clone())
            };
            listen().doing(|| format!("listen for signal {signal}"))?;
        }
        Ok(interrupt)
    }

    /// As a signal does. For work that has other reasons to stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once a signal came.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::transient("interrupted")) } else { Ok(()) }
    }

    /// Sleeps that long; an error as soon as a signal comes.
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        self.sleep_until(Instant::now() + duration)
    }

    /// Sleeps until then; an error as soon as a signal comes.
    pub fn sleep_until(&self, end: Instant) -> Result<()> {
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NOTICE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_flag_ends_work_and_sleep_of_every_clone() {
        let interrupt = Interrupt::default();
        let clone = interrupt.clone();
        assert_eq!(interrupt.sleep(Duration::ZERO), Ok(()));
        clone.set();
        let endless = Duration::from_secs(1 << 30);
        assert!(interrupt.sleep(endless).is_err_and(|error| error.message() == "interrupted"));
        assert!(interrupt.check().is_err());
    }
}
