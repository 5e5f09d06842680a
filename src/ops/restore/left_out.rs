//! What `pgark expire` leaves out: of a backup that is kept beyond the recovery window it keeps only the WAL that makes
//! it consistent. No record says so; it is told from a loss by where it lies.

use std::ops::RangeInclusive;

use super::choose::Candidate;
use crate::pg::lsn::SegmentSize;

/// The first segment that a consistent backup does not need is this many behind the one in which it becomes so, at
/// most: the record that follows is needed too, and may lie in one of the next.
const MAY_FOLLOW: u64 = 3;

/// Whether missing segments of a path, by number, look as `expire` leaves them: they begin right behind what a backup
/// of the path needs, end right before the WAL of another, and no backup needs any of them.
pub fn is_expired(range: &RangeInclusive<u64>, backups: &[&Candidate], size: SegmentSize) -> bool {
    let ends = |backup: &&Candidate| range.end().checked_add(1) == Some(size.segment_of(backup.start));
    let needed = |backup: &&Candidate| {
        let needed = size.segment_of(backup.start)..=size.segment_before(backup.consistent);
        needed.start() <= range.end() && needed.end() >= range.start()
    };
    backups.iter().any(ends)
        && backups.iter().any(|backup| begins(range, backup, size))
        && !backups.iter().any(needed)
}

/// Whether they begin right behind what a backup needs.
fn begins(range: &RangeInclusive<u64>, backup: &Candidate, size: SegmentSize) -> bool {
    let past = range.start().checked_sub(size.segment_before(backup.consistent));
    past.is_some_and(|past| (1..=MAY_FOLLOW).contains(&past))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::{Lsn, Timeline};
    use crate::pg::time;

    #[test]
    fn what_expire_leaves_out_lies_between_what_two_backups_need() {
        let size = SegmentSize::try_from(1 << 20).expect("a size");
        let backup = |segment: u64, segments: u64| Candidate {
            label: "a".parse().expect("a name"),
            start: Lsn((segment << 20) + 40),
            start_timeline: Timeline(1),
            consistent: Lsn(((segment + segments) << 20) - 9),
            consistent_timeline: Timeline(1),
            stop_time: time::Timestamp::UNIX_EPOCH,
        };
        let (old, new) = (backup(10, 2), backup(30, 1));
        let expired = |first, last| is_expired(&(first..=last), &[&new, &old], size);
        for first in 12..=14 {
            assert!(expired(first, 29), "from {first}");
        }
        let between = backup(20, 1);
        let needed = is_expired(&(12..=29), &[&new, &between, &old], size);
        assert!(!needed, "what a backup needs is never left out");
        for (first, last) in [(15, 29), (11, 29), (12, 28), (12, 30), (31, 40), (2, 9)] {
            assert!(!expired(first, last), "{first} to {last}");
        }
    }
}
