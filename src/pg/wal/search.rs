//! Looking for the one record at which a recovery target stops: the end of a transaction, by its id or by
//! its time, or a restore point (recoveryStopsBefore, recoveryStopsAfter in xlogrecovery.c).

use super::decode::Fact;
use super::facts::{RawText, SegmentFacts};
use crate::pg::lsn::Lsn;
use crate::pg::time::Timestamp;

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// The end of a transaction after this time, or at it.
    EndedAfter {
        time: Timestamp,
        or_at: bool,
    },
    /// The end of this transaction.
    Transaction(u32),
    RestorePoint(RawText),
    /// The first record, whatever it says.
    AnyRecord,
}

/// A search through the records that start at `from` or behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    pub from: Lsn,
    pub sought: Sought,
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landmark {
    /// Where it starts.
    pub lsn: Lsn,
    /// Where it ends.
    pub end_lsn: Lsn,
    /// None for [`Sought::AnyRecord`].
    pub time: Option<Timestamp>,
    /// Only of the end of a transaction.
    pub xid: Option<u32>,
}

impl Sought {
    /// May a record that lies wholly within the segment match? Decided from the segment's facts.
    pub fn may_be_in(&self, facts: &SegmentFacts) -> bool {
        match self {
            Sought::EndedAfter { time, or_at } => {
                facts.latest_time.is_some_and(|latest| is_after(latest, *time, *or_at))
            }
            Sought::Transaction(xid) => facts.xids.is_some_and(|range| range.may_hold(*xid)),
            Sought::RestorePoint(name) => {
                let points = &facts.restore_points;
                !points.is_complete() || points.first.iter().any(|point| point.name == *name)
            }
            Sought::AnyRecord => facts.records > 0,
        }
    }

    fn matches(&self, fact: &Fact) -> Option<(Timestamp, Option<u32>)> {
        match (self, fact) {
            (Sought::EndedAfter { time, or_at }, Fact::TransactionEnd { time: ended, xid }) => {
                is_after(*ended, *time, *or_at).then_some((*ended, *xid))
            }
            (Sought::Transaction(sought), Fact::TransactionEnd { time, xid }) => {
                (*xid == Some(*sought)).then_some((*time, *xid))
            }
            (Sought::RestorePoint(sought), Fact::RestorePoint { name, time }) => {
                (name == sought).then_some((*time, None))
            }
            _ => None,
        }
    }
}

fn is_after(time: Timestamp, limit: Timestamp, or_at: bool) -> bool {
    if or_at { time >= limit } else { time > limit }
}

impl Search {
    /// The landmark that a record is, if it is what is sought.
    pub(super) fn matches(&self, fact: &Fact, lsn: Lsn, end_lsn: Lsn) -> Option<Landmark> {
        let (time, xid) = self.sought.matches(fact).filter(|_| lsn >= self.from)?;
        Some(Landmark { lsn, end_lsn, time: Some(time), xid })
    }

    /// The same for a record of which nothing was decoded.
    pub(super) fn matches_any(&self, lsn: Lsn, end_lsn: Lsn) -> Option<Landmark> {
        let wanted = self.sought == Sought::AnyRecord && lsn >= self.from;
        wanted.then_some(Landmark { lsn, end_lsn, time: None, xid: None })
    }

    /// The same for a record that was joined from several segments, by the facts of it alone
    /// ([`join_unfinished`](super::join_unfinished)).
    pub fn in_joined(&self, lsn: Lsn, record: &SegmentFacts) -> Option<Landmark> {
        let end_lsn = record.end_lsn?;
        if self.sought == Sought::AnyRecord {
            return self.matches_any(lsn, end_lsn);
        }
        let ended = record
            .latest_time
            .map(|time| Fact::TransactionEnd { time, xid: record.xids.map(|range| range.lowest) });
        let point = record.restore_points.first.first();
        let point = point.map(|point| Fact::RestorePoint { name: point.name.clone(), time: point.time });
        self.matches(&ended.or(point)?, lsn, end_lsn)
    }
}
