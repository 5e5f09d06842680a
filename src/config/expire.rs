//! `[expire]`: what is kept. Zero is refused where it is read: "keep none of them" is said by leaving the rule out,
//! and a slip must not delete everything but one backup.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use super::units::Days;
use crate::error::{Error, Result};

/// What is kept is what any of these rules keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expire {
    /// So many of the last good backups.
    pub keep_last: Option<NonZeroU32>,
    /// The last good backup of each of so many of the most recent days (UTC) in which one ended.
    pub keep_daily: Option<NonZeroU32>,
    pub keep_weekly: Option<NonZeroU32>,
    pub keep_monthly: Option<NonZeroU32>,
    pub keep_yearly: Option<NonZeroU32>,
    /// Every moment of it can be reached.
    pub recovery_window: Option<Duration>,
}

impl Expire {
    /// The rules of `self` in place of those of `other`, one by one.
    pub fn over(self, other: &Expire) -> Expire {
        Expire {
            keep_last: self.keep_last.or(other.keep_last),
            keep_daily: self.keep_daily.or(other.keep_daily),
            keep_weekly: self.keep_weekly.or(other.keep_weekly),
            keep_monthly: self.keep_monthly.or(other.keep_monthly),
            keep_yearly: self.keep_yearly.or(other.keep_yearly),
            recovery_window: self.recovery_window.or(other.recovery_window),
        }
    }

    pub fn has_rule(&self) -> bool {
        *self != Expire::default()
    }

    /// An error unless there is a rule.
    pub fn require_rule(&self) -> Result<()> {
        if self.has_rule() {
            return Ok(());
        }
        Err(Error::configuration("could not expire anything: no rule says what to keep").with_hint(
            "write for example recovery_window = \"14 days\" and keep_monthly = 6 below [expire] into the \
             configuration, or give --recovery-window and --keep-monthly",
        ))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpireFile {
    keep_last: Option<NonZeroU32>,
    keep_daily: Option<NonZeroU32>,
    keep_weekly: Option<NonZeroU32>,
    keep_monthly: Option<NonZeroU32>,
    keep_yearly: Option<NonZeroU32>,
    recovery_window: Option<Days>,
}

impl From<ExpireFile> for Expire {
    fn from(file: ExpireFile) -> Self {
        Expire {
            keep_last: file.keep_last,
            keep_daily: file.keep_daily,
            keep_weekly: file.keep_weekly,
            keep_monthly: file.keep_monthly,
            keep_yearly: file.keep_yearly,
            recovery_window: file.recovery_window.map(|days| days.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_nonsense_is_refused() {
        let read = |text: &str| toml::from_str::<ExpireFile>(text).map(Expire::from);
        let some = NonZeroU32::new;
        let policy = read("keep_last = 3\nkeep_yearly = 10\nrecovery_window = \"2 weeks\"").expect("rules");
        assert_eq!((policy.keep_last, policy.keep_yearly, policy.keep_daily), (some(3), some(10), None));
        assert_eq!(policy.recovery_window, Some(Duration::from_secs(14 * 86400)));
        policy.require_rule().expect("there are rules");
        for bad in [
            "keep_last = 0",
            "keep_daily = -1",
            "keep_weekly = \"2\"",
            "recovery_window = \"0 days\"",
            "keep = 3",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_flag_wins_over_its_own_rule_only_and_no_rule_is_refused() {
        let file =
            Expire { keep_last: NonZeroU32::new(3), keep_daily: NonZeroU32::new(7), ..Expire::default() };
        let flags = Expire { keep_last: NonZeroU32::new(9), ..Expire::default() };
        let both = flags.over(&file);
        assert_eq!((both.keep_last, both.keep_daily), (NonZeroU32::new(9), NonZeroU32::new(7)));
        let error = Expire::default().over(&Expire::default()).require_rule().expect_err("no rule");
        assert!(error.hint().is_some_and(|hint| hint.contains("recovery_window")), "{error:?}");
    }
}
