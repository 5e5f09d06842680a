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
