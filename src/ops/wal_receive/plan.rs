//! What to do, as functions of what is known: where to begin, what to report, how long to wait. Nothing
//! here reads or writes anything.
//!
//! Refuses servers whose path does not lead through what was received. Invariant: no segment is skipped
//! between what the repository holds and where streaming begins, unless that was asked for.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::replication::Positions;

/// The first wait after a lost connection, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// So many times in a row, each so soon behind the one before, only a server asks that shuts down.
const LAST_PINGS: u32 = 4;
const PING_AGAIN: Duration = Duration::from_millis(400);

/// What is known before the first segment is chosen. Segments are their numbers on the server's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The oldest segment that the slot keeps.
    pub reserved: Option<u64>,
    /// The newest that the repository holds.
    pub newest: Option<u64>,
    /// The first from `reserved` on that the repository does not hold.
    pub missing: Option<u64>,
    /// The one in which the server's WAL ends now.
    pub current: u64,
    /// Leave out what lies between the newest and the reserved one.
    pub accept_gap: bool,
}

/// Where the archive ends. Holes that lie before everything that the slot keeps are not ours to fill.
pub(super) fn first_segment(known: Known) -> u64 {
    let after_newest = known.newest.map(|newest| newest.saturating_add(1));
    match (known.reserved, after_newest) {
        (Some(reserved), Some(next)) if next < reserved => {
            if known.accept_gap {
                reserved
            } else {
                next
            }
        }
        (Some(reserved), _) => known.missing.unwrap_or(reserved).max(reserved),
        (None, Some(_)) if known.accept_gap => known.current,
        (None, Some(next)) => next,
        (None, None) => known.current,
    }
}

/// A segment to be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub timeline: Timeline,
    pub number: u64,
}

impl Next {
    pub fn name(self, size: SegmentSize) -> SegmentName {
        SegmentName::from_number(self.timeline, self.number, size)
    }

    pub fn start(self, size: SegmentSize) -> Lsn {
        size.start_of(self.number)
    }
}

/// The segment `number` of a path: the file that recovery reads for it.
pub(super) fn on_path(path: &TimelineHistory, number: u64, size: SegmentSize) -> Next {
    Next { timeline: path.path_timeline_for_segment(number, size), number }
}

/// Where to go on at a server with this path, when `next` is what we would receive. After a promotion that
/// lost some of what we have, that is earlier, on the new timeline.
pub(super) fn go_on(path: &TimelineHistory, next: Next, size: SegmentSize) -> Result<Next> {
    if !path.contains(next.timeline) {
        return Err(Error::conflict(format!(
            "the server is on timeline {}, whose history does not know timeline {}, which was received",
            path.timeline(),
            next.timeline
        ))
        .with_hint("is this an old primary that was left behind? Name the right hosts"));
    }
    match path.switch_point(next.timeline) {
        Some(switch) if size.segment_of(switch) <= next.number => {
            Ok(on_path(path, size.segment_of(switch), size))
        }
        _ => Ok(next),
    }
}

/// Up to where what was received is safe, in ascending order of safety.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub received: Lsn,
    /// Durable in the spool.
    pub synced: Lsn,
    /// Durable in the repository.
    pub archived: Lsn,
}

/// What to tell the server: as flushed only what is durable where the promise says.
pub(super) fn positions(reached: Reached, synchronous: bool) -> Positions {
    let durable = if synchronous { reached.synced.max(reached.archived) } else { reached.archived };
    Positions { written: reached.received, flushed: durable.min(reached.received) }
}

/// How often the server has asked in a row where we are, though it sent nothing since we told it.
///
/// While it shuts down it asks anew as soon as it has an answer, until all is reported as flushed, and does not end
/// before (walsender.c, WalSndDone). Else it asks once in half of wal_sender_timeout.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pings {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Pings {
    /// One more came. True: the server shuts down and waits for us.
    pub fn count(&mut self, now: Instant) -> bool {
        let again = self.last.is_some_and(|last| now.saturating_duration_since(last) < PING_AGAIN);
        self.in_a_row = if again { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(now);
        self.in_a_row >= LAST_PINGS
    }
}

/// How many of `length` bytes at `position` belong to the segment that `position` is in.
pub(super) fn within_segment(position: Lsn, length: usize, size: SegmentSize) -> usize {
    let left = size.bytes() - position.0 % size.bytes();
    length.min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// How long to wait before the next attempt: twice as long each time, and between half and all of that, so
/// that several receivers do not come at once. `random` is any number.
pub(super) fn back_off(failures: u32, random: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let longest = doubled.min(LONGEST_WAIT);
    longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size() -> SegmentSize {
        SegmentSize::try_from(16 << 20).expect("a size")
    }

    fn known() -> Known {
        Known { reserved: None, newest: None, missing: None, current: 9, accept_gap: false }
    }

    #[test]
    fn an_empty_repository_begins_where_the_slot_does() {
        assert_eq!(first_segment(Known { reserved: Some(7), missing: Some(7), ..known() }), 7);
        assert_eq!(first_segment(known()), 9);
    }

    #[test]
    fn an_archive_is_gone_on_with_where_it_ends() {
        let at = |reserved, newest, missing| {
            first_segment(Known {
                reserved: Some(reserved),
                newest: Some(newest),
                missing: Some(missing),
                ..known()
            })
        };
        assert_eq!(at(7, 6, 7), 7);
        // The slot is behind: what wal-push stored meanwhile is not streamed again, and its holes are filled.
        assert_eq!(at(5, 8, 9), 9);
        assert_eq!(at(5, 8, 6), 6);
        assert_eq!(first_segment(Known { newest: Some(6), ..known() }), 7);
    }

    #[test]
    fn a_gap_before_the_slot_is_tried_and_left_only_when_that_was_asked_for() {
        let gap = Known { reserved: Some(7), newest: Some(3), missing: Some(7), ..known() };
        assert_eq!(first_segment(gap), 4);
        assert_eq!(first_segment(Known { accept_gap: true, ..gap }), 7);
        assert_eq!(first_segment(Known { newest: Some(3), accept_gap: true, ..known() }), 9);
    }

    #[test]
    fn a_promotion_is_followed_from_its_switch_point_also_when_it_lost_something() {
        let path =
            TimelineHistory::parse(Timeline(2), b"1\t0/5000028\tno recovery target\n").expect("parsed");
        let next = |timeline, number| Next { timeline: Timeline(timeline), number };
        assert_eq!(go_on(&path, next(1, 3), size()), Ok(next(1, 3)));
        assert_eq!(go_on(&path, next(1, 5), size()), Ok(next(2, 5)));
        assert_eq!(go_on(&path, next(1, 8), size()), Ok(next(2, 5)));
        assert_eq!(go_on(&path, next(2, 8), size()), Ok(next(2, 8)));
        let error = go_on(&path, next(3, 8), size()).expect_err("unknown");
        assert!(error.message().contains("does not know timeline 3"), "{error}");
        assert_eq!([4, 5].map(|number| on_path(&path, number, size()).timeline.0), [1, 2]);
    }

    #[test]
    fn only_what_is_durable_is_reported_as_flushed() {
        let reached = Reached { received: Lsn(30), synced: Lsn(20), archived: Lsn(10) };
        assert_eq!(positions(reached, false), Positions { written: Lsn(30), flushed: Lsn(10) });
        assert_eq!(positions(reached, true), Positions { written: Lsn(30), flushed: Lsn(20) });
    }

    #[test]
    fn a_server_that_asks_again_and_again_shuts_down_and_one_that_asks_now_and_then_does_not() {
        let now = Instant::now();
        let asked = |every: Duration| {
            let mut pings = Pings::default();
            (0..10).map(|n| pings.count(now + every * n)).collect::<Vec<_>>()
        };
        assert_eq!(asked(Duration::from_millis(300))[..5], [false, false, false, true, true]);
        assert!(!asked(PING_AGAIN).contains(&true));
    }

    #[test]
    fn waits_grow_up_to_a_limit_and_differ() {
        assert_eq!(back_off(1, u32::MAX), FIRST_WAIT);
        assert_eq!(back_off(1, 0), FIRST_WAIT / 2);
        assert_eq!(back_off(2, u32::MAX), FIRST_WAIT * 2);
        assert_eq!(back_off(u32::MAX, u32::MAX), LONGEST_WAIT);
        assert!(back_off(5, 1 << 30) < back_off(5, 1 << 31));
    }

    proptest! {
        #[test]
        fn nothing_is_reported_that_is_not_there(received: u64, synced: u64, archived: u64, synchronous: bool) {
            let reached = Reached { received: Lsn(received), synced: Lsn(synced), archived: Lsn(archived) };
            let told = positions(reached, synchronous);
            prop_assert!(told.flushed <= told.written);
            prop_assert!(told.flushed.0 <= archived || (synchronous && told.flushed.0 <= synced));
        }

        #[test]
        fn a_chunk_is_cut_at_the_segment_s_end(position: u64, length in 0usize..1 << 28) {
            let part = within_segment(Lsn(position), length, size());
            prop_assert!(part <= length && (part > 0 || length == 0));
            prop_assert!(position % size().bytes() + part as u64 <= size().bytes());
        }
    }
}
