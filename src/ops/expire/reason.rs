//! Why a backup is kept, in words.

use std::fmt;

use jiff::Timestamp;

use super::periods::Period;
use crate::ident::{Id, Name};
use crate::pg::lsn::{Lsn, Timeline};

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub label: Name,
    pub run: Id,
    pub stop: Timestamp,
    pub timeline: Timeline,
    pub consistent: Lsn,
    /// Empty: it goes.
    pub reasons: Vec<Reason>,
    /// Its time is not believed.
    pub doubtful: bool,
    /// Why it can't be restored.
    pub trouble: Option<String>,
}

impl Verdict {
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// Why it is kept, or goes.
    pub fn why(&self) -> Vec<String> {
        match (&self.trouble, self.is_kept()) {
            (_, true) => {
                // What every newest one is, is worth a word only where nothing else is.
                let telling = |reason: &&Reason| !matches!(reason, Reason::Newest { .. });
                let mut why: Vec<String> =
                    self.reasons.iter().filter(telling).map(ToString::to_string).collect();
                if why.is_empty() {
                    why = self.reasons.iter().map(ToString::to_string).collect();
                }
                why
            }
            (Some(trouble), false) => vec![format!("can't be restored: {trouble}")],
            (None, false) => vec!["no rule keeps it".to_string()],
        }
    }
}

/// A reason to keep a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The newest good one of a timeline that is active.
    Newest {
        timeline: Timeline,
    },
    /// One of the last; the newest is the first.
    Last {
        nth: u32,
    },
    /// The last of a period.
    Period {
        period: Period,
        name: String,
    },
    /// Its time is not believed; it may be the last of a period.
    PerhapsPeriod {
        period: Period,
    },
    /// From it the begin of the recovery window is reached.
    WindowBegin,
    Window,
    Pinned {
        until: Option<Timestamp>,
    },
    Restoring {
        who: String,
    },
    /// It can't be restored, but nothing newer on its timeline can be.
    NothingNewer {
        timeline: Timeline,
    },
    /// The history of its timeline is not known.
    UnknownTimeline {
        timeline: Timeline,
    },
    /// Its time contradicts that of another one, which is kept.
    Witness {
        against: Name,
    },
    NoGoodBackup,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Newest { timeline } => write!(f, "newest good backup of timeline {timeline}"),
            Reason::Last { nth: 1 } => f.write_str("the last"),
            Reason::Last { nth } => write!(f, "last but {}", nth.saturating_sub(1)),
            Reason::Period { name, .. } => write!(f, "last of {name}"),
            Reason::PerhapsPeriod { period } => {
                write!(f, "perhaps last of a {}: its time is doubtful", period.noun())
            }
            Reason::WindowBegin => f.write_str("the recovery window begins with it"),
            Reason::Window => f.write_str("in the recovery window"),
            Reason::Pinned { until: None } => f.write_str("pinned"),
            Reason::Pinned { until: Some(until) } => write!(f, "pinned until {until:.0}"),
            Reason::Restoring { who } => write!(f, "being restored by {who}"),
            Reason::NothingNewer { timeline } => {
                write!(f, "can't be restored, but nothing newer of timeline {timeline} can be")
            }
            Reason::UnknownTimeline { timeline } => {
                write!(f, "the history of its timeline {timeline} can't be read")
            }
            Reason::Witness { against } => {
                write!(f, "it tells that the time of backup {against}, which is kept, is wrong")
            }
            Reason::NoGoodBackup => f.write_str("no backup is known to be good"),
        }
    }
}
