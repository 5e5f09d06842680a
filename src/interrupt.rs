//! Being asked to end: SIGINT, SIGTERM and SIGHUP set a flag, which long work looks at between its steps, so
//! that it can clean up behind itself. A second signal ends the process at once, as if nobody had listened.
//! A SIGHUP that we were started to ignore stays ignored: nohup means that. Shells ignore SIGINT for what they run
//! in the background without meaning anything by it: it is heeded.

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
        let ignored = ignored_signals()?;
        let heeded = |signal: &i32| *signal != SIGHUP || !contains(ignored, SIGHUP);
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(heeded) {
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

/// The set of signals that this process ignores, a bit for each.
fn ignored_signals() -> Result<u64> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).doing(|| format!("read {path}"))?;
    parse_ignored(&status).ok_or_else(|| Error::bug(format!("{path} does not say which signals are ignored")))
}

fn parse_ignored(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

fn contains(set: u64, signal: i32) -> bool {
    // The lowest bit is signal 1's (proc(5)).
    signal > 0 && set.checked_shr(signal as u32 - 1).is_some_and(|set| set & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_process_status() {
        let set = parse_ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n").expect("there");
        assert!(contains(set, SIGHUP) && contains(set, 13));
        assert!(!contains(set, SIGINT) && !contains(set, SIGTERM) && !contains(set, 0) && !contains(set, 99));
        assert_eq!(parse_ignored("Name:\tx\n"), None);
        assert!(ignored_signals().is_ok());
    }

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
