//! The walk over synthetic WAL: what it finds, what it calls damage, what it does not.

use proptest::prelude::*;

use super::*;
use crate::pg::time::Timestamp;
use crate::pg::wal::decode::Fact;
use crate::pg::wal::header::WalFormat;
use crate::pg::wal::synthetic::*;
use crate::pg::wal::{
    Landmark, RestorePoint, Search, Sought, TablespaceAction, WalLevel, XidRange, join_unfinished,
};

mod damage;
mod facts;
mod joining;
mod properties;
mod search;
mod watching;

fn walk_in_chunks(segment: &[u8], name: SegmentName, extent: Extent, chunk: usize) -> SegmentFacts {
    let mut walk = Walk::new(&header_of(segment), name, extent);
    segment.chunks(chunk).for_each(|bytes| walk.feed(bytes));
    walk.finish()
}

fn walk(segment: &[u8], name: SegmentName, extent: Extent) -> SegmentFacts {
    walk_in_chunks(segment, name, extent, segment.len())
}

/// Walks all segments; none may be damaged.
fn walk_clean(wal: &Synthetic) -> Vec<SegmentFacts> {
    let segments = wal.segments();
    let facts: Vec<SegmentFacts> =
        segments.iter().enumerate().map(|(n, bytes)| walk(bytes, wal.name(n), Extent::Whole)).collect();
    facts.iter().for_each(|facts| assert!(facts.damage.is_empty(), "{:?}", facts.damage));
    facts
}

fn at(microseconds: i64) -> Timestamp {
    Timestamp::from_postgres(microseconds).expect("in range")
}

/// All that `damage` says.
fn words(facts: &SegmentFacts) -> String {
    facts.damage.first.iter().map(|damage| damage.to_string() + "\n").collect()
}
