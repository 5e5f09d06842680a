//! The hits that are listed: all, or as many as the limit says. Then those that come first in rank stay: the newest, or
//! the nearest to the time that was asked for.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::query::Query;
use super::report::Hit;

/// See the module. Memory is bounded by the limit.
#[derive(Clone)]
pub struct Kept {
    /// None: all.
    limit: Option<NonZeroUsize>,
    /// By rank and number.
    hits: BTreeMap<(u64, u64), Hit>,
    found: u64,
}

impl Kept {
    pub fn new(limit: Option<NonZeroUsize>) -> Self {
        Self { limit, hits: BTreeMap::new(), found: 0 }
    }

    pub fn add(&mut self, query: &Query, hit: Hit) {
        let number = self.found;
        self.found = self.found.saturating_add(1);
        let time = |hit: &Hit| hit.time.map_or(0, |time| time.as_unix());
        let rank = match query {
            Query::Around { time: wanted, .. } => time(&hit).abs_diff(wanted.as_unix()),
            // Timelines overlap in time, so that what was found last need not be the newest.
            _ => u64::MAX - time(&hit).max(0) as u64,
        };
        self.hits.insert((rank, u64::MAX - number), hit);
        if self.limit.is_some_and(|limit| self.hits.len() > limit.get()) {
            self.hits.pop_last();
        }
    }

    /// In the order in which they were found, and how many there were.
    pub fn into_hits(self) -> (Vec<Hit>, u64) {
        let mut hits: Vec<(u64, Hit)> =
            self.hits.into_iter().map(|((_, number), hit)| (u64::MAX - number, hit)).collect();
        hits.sort_by_key(|(number, _)| *number);
        (hits.into_iter().map(|(_, hit)| hit).collect(), self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::find::report::{Restore, What};
    use crate::pg::lsn::{Lsn, SystemId, Timeline};
    use crate::pg::names::SegmentName;
    use crate::pg::time::Timestamp;
    use std::time::Duration;

    fn at(unix: i64) -> Timestamp {
        Timestamp::from_unix(unix).expect("in range")
    }

    fn hit(time: i64) -> Hit {
        let lsn = Lsn(time as u64);
        Hit {
            what: What::Commit,
            system_id: SystemId(7),
            timeline: Timeline(1),
            segment: SegmentName { timeline: Timeline(1), log: 0, segment: 1 },
            lsn,
            end_lsn: lsn,
            time: Some(at(time)),
            xid: None,
            full_xid: None,
            prepared: false,
            name: None,
            database: None,
            relations: Vec::new(),
            relations_found: 0,
            unnamed: 0,
            restore: Restore { lsn, arguments: Vec::new(), reachable: true, then: None },
        }
    }

    fn kept(query: &Query, limit: usize, times: &[i64]) -> (Vec<u64>, u64) {
        let mut kept = Kept::new(NonZeroUsize::new(limit));
        times.iter().for_each(|time| kept.add(query, hit(*time)));
        let (hits, found) = kept.into_hits();
        (hits.iter().map(|hit| hit.lsn.0).collect(), found)
    }

    #[test]
    fn the_newest_or_the_nearest_are_kept_in_the_order_of_the_wal() {
        let times = [50, 10, 40, 20, 30];
        let newest = Query::Dropped { rewritten: false };
        assert_eq!(kept(&newest, 0, &times), (vec![50, 10, 40, 20, 30], 5));
        assert_eq!(kept(&newest, 2, &times), (vec![50, 40], 5));
        let nearest = Query::Around { time: at(21), within: Duration::from_secs(1) };
        assert_eq!(kept(&nearest, 3, &times), (vec![10, 20, 30], 5));
        assert_eq!(kept(&newest, 2, &[7, 7, 7]), (vec![7, 7], 3));
    }
}
