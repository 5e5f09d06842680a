//! What the check found: each finding with why it matters and what to do, measured values beside them, and the
//! level of all together, as monitoring plugins know it.
//!
//! A critical finding outweighs a warning, that outweighs what could not be told, and that outweighs "ok": a
//! check that did not see everything never says that all is well.

use serde::{Deserialize, Serialize};

/// From harmless to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Unknown,
    Warning,
    Critical,
}

impl Level {
    /// The exit status by which monitoring plugins tell it.
    pub fn exit_code(self) -> u8 {
        match self {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
            Level::Unknown => 3,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Unknown => "UNKNOWN",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub level: Level,
    /// What was looked at: a word for machines, such as "backup_age".
    pub check: String,
    pub what: String,
    /// Why it matters. Nothing, where all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub fn new(level: Level, check: &str, what: impl Into<String>) -> Self {
        Self { level, check: check.to_string(), what: what.into(), why: None, remedy: None }
    }

    pub fn ok(check: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, what)
    }

    pub fn unknown(check: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Unknown, check, what)
    }

    pub fn warning(check: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Warning, check, what)
    }

    pub fn critical(check: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Critical, check, what)
    }

    /// Reasons are kept for what is not well only.
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = (self.level != Level::Ok).then(|| why.into());
        self
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = (self.level != Level::Ok).then(|| remedy.into());
        self
    }
}

/// The level of all findings together.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Unknown)
}

/// What a value is compared with: from `warning` on it is one, from `critical` on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits<T> {
    pub warning: T,
    pub critical: T,
}

impl<T: PartialOrd> Limits<T> {
    /// The level of a value that should be small.
    pub fn of_large(&self, value: &T) -> Level {
        if *value >= self.critical {
            Level::Critical
        } else if *value >= self.warning {
            Level::Warning
        } else {
            Level::Ok
        }
    }

    /// The level of a value that should be large.
    pub fn of_small(&self, value: &T) -> Level {
        if *value <= self.critical {
            Level::Critical
        } else if *value <= self.warning {
            Level::Warning
        } else {
            Level::Ok
        }
    }
}

/// A value for the graphs of a monitoring system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Ends in its unit: `_seconds`, `_bytes`, `_percent`; a plain count has none.
    pub name: String,
    pub value: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<u64>,
    /// A small value is bad, not a large one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub low_is_bad: bool,
}

impl Measure {
    pub fn new(name: &str, value: u64) -> Self {
        Self { name: name.to_string(), value, warning: None, critical: None, low_is_bad: false }
    }

    pub fn limits(mut self, limits: Limits<u64>) -> Self {
        (self.warning, self.critical) = (Some(limits.warning), Some(limits.critical));
        self
    }

    pub fn low_is_bad(mut self) -> Self {
        self.low_is_bad = true;
        self
    }

    /// As the guidelines for monitoring plugins have it: label=value[unit];[warn];[crit];[min]. A range is
    /// alarming outside of it: "10" means above 10, "10:" below 10.
    pub fn perfdata(&self) -> String {
        let (label, unit) = [("_seconds", "s"), ("_bytes", "B"), ("_percent", "%")]
            .into_iter()
            .find_map(|(suffix, unit)| Some((self.name.strip_suffix(suffix)?, unit)))
            .unwrap_or((&self.name, ""));
        let range = |limit: Option<u64>| match limit {
            None => String::new(),
            Some(limit) if self.low_is_bad => format!("{limit}:"),
            Some(limit) => limit.to_string(),
        };
        format!("{label}={}{unit};{};{};0", self.value, range(self.warning), range(self.critical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_monitoring_plugins() {
        let codes = [Level::Ok, Level::Warning, Level::Critical, Level::Unknown].map(Level::exit_code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }

    #[test]
    fn the_worst_finding_decides_and_nothing_found_is_not_well() {
        let all = |levels: &[Level]| {
            worst(&levels.iter().map(|level| Finding::new(*level, "x", "y")).collect::<Vec<_>>())
        };
        assert_eq!(all(&[]), Level::Unknown);
        assert_eq!(all(&[Level::Ok, Level::Ok]), Level::Ok);
        assert_eq!(all(&[Level::Ok, Level::Unknown]), Level::Unknown);
        assert_eq!(all(&[Level::Warning, Level::Unknown]), Level::Warning);
        assert_eq!(all(&[Level::Unknown, Level::Critical, Level::Warning]), Level::Critical);
    }

    #[test]
    fn limits_belong_to_what_they_announce() {
        let limits = Limits { warning: 10, critical: 20 };
        assert_eq!([9, 10, 19, 20].map(|value| limits.of_large(&value).exit_code()), [0, 1, 1, 2]);
        let limits = Limits { warning: 10, critical: 5 };
        assert_eq!([11, 10, 6, 5].map(|value| limits.of_small(&value).exit_code()), [0, 1, 1, 2]);
    }

    #[test]
    fn measures_become_performance_data() {
        let limits = Limits { warning: 93_600, critical: 180_000 };
        let age = Measure::new("last_backup_age_seconds", 3600).limits(limits);
        assert_eq!(age.perfdata(), "last_backup_age=3600s;93600;180000;0");
        let free = Measure::new("repository_free_percent", 12).limits(Limits { warning: 10, critical: 5 });
        assert_eq!(free.low_is_bad().perfdata(), "repository_free=12%;10:;5:;0");
        assert_eq!(Measure::new("waiting_segments", 3).perfdata(), "waiting_segments=3;;;0");
    }

    #[test]
    fn what_is_well_gives_no_reasons() {
        let fine = Finding::ok("x", "y").because("z").remedy("w");
        assert_eq!((fine.why, fine.remedy), (None, None));
        let bad = Finding::warning("x", "y").because("z").remedy("w");
        assert_eq!((bad.why.as_deref(), bad.remedy.as_deref()), (Some("z"), Some("w")));
    }
}
