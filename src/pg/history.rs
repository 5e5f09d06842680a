//! Timeline history: the path of timelines that led to one timeline, and where it changed from each to
//! the next. Parsed as readTimeLineHistory (timeline.c) does, stricter where PostgreSQL takes what it
//! never writes: signs, hexadecimal prefixes, a switch at 0/0, NUL bytes, a file that names no timeline.
//!
//! The switch points need not increase. A recovery to timeline 2 that stops while still on timeline 1
//! writes timeline 2 as the parent nevertheless (StartupXLOG passes recoveryTargetTLI to
//! writeTimeLineHistory), with a switch point below the one from 1 to 2. So every question is answered
//! from the newest timeline down, as PostgreSQL does.
//!
//! Invariant: the entries are in increasing order of timeline, and all below the history's own.

use super::lsn::{Lsn, SegmentSize, Timeline};
use crate::error::{Error, Result};

/// A line must fit the buffer of readTimeLineHistory (MAXPGPATH, with newline and NUL).
const MAX_LINE: usize = 1022;

/// One line of a history file: the path leaves `timeline` at `switch_lsn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    pub timeline: Timeline,
    /// The first byte that belongs to the next timeline.
    pub switch_lsn: Lsn,
    /// Free text; bytes that are no UTF-8 are replaced.
    pub reason: String,
}

/// The path that led to `timeline`, oldest entry first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: Timeline,
    entries: Vec<HistoryEntry>,
}

impl TimelineHistory {
    /// The history of a timeline that has no history file: timeline 1, or one that pg_resetwal made.
    pub fn without_parents(timeline: Timeline) -> Self {
        Self { timeline, entries: Vec::new() }
    }

    /// The content of the history file of `timeline`.
    pub fn parse(timeline: Timeline, content: &[u8]) -> Result<Self> {
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let refused =
                |cause: &str| refuse(timeline, &format!("line {}: {cause}", index.saturating_add(1)));
            let Some(entry) = parse_line(line).map_err(refused)? else { continue };
            if entries.last().is_some_and(|last| entry.timeline <= last.timeline) {
                return Err(refused("timelines must be in increasing order"));
            }
            if entry.timeline >= timeline {
                return Err(refused(&format!("timeline {} is not below its own", entry.timeline)));
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(refuse(timeline, "it names no parent timeline"));
        }
        Ok(Self { timeline, entries })
    }

    /// The timeline whose history this is: the end of the path.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The ancestors, oldest first.
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// The timeline from which this one forked.
    pub fn parent(&self) -> Option<Timeline> {
        self.entries.last().map(|entry| entry.timeline)
    }

    /// Every timeline with the LSN at which it begins, newest first: the list that readTimeLineHistory
    /// returns. The oldest begins at 0/0.
    fn newest_first(&self) -> impl Iterator<Item = (Timeline, Lsn)> {
        let begins = self.entries.iter().rev().map(|entry| entry.switch_lsn).chain([Lsn::INVALID]);
        let timelines = self.entries.iter().rev().map(|entry| entry.timeline);
        std::iter::once(self.timeline).chain(timelines).zip(begins)
    }

    /// The timeline that holds the byte at `lsn` on this path (tliOfPointInHistory).
    pub fn timeline_of(&self, lsn: Lsn) -> Timeline {
        let found = self.newest_first().find(|(_, begin)| *begin <= lsn);
        found.map_or(self.timeline, |(timeline, _)| timeline)
    }

    /// Whether the path names `timeline` (tliInHistory).
    pub fn contains(&self, timeline: Timeline) -> bool {
        self.newest_first().any(|(member, _)| member == timeline)
    }

    /// Where this path leaves `timeline` for good: the first byte that it does not take from there.
    /// None for the path's own timeline, which it never leaves, and for one that it does not name.
    ///
    /// As tliSwitchPoint, but for switch points that decrease: there a later fork cuts the earlier off.
    pub fn switch_point(&self, timeline: Timeline) -> Option<Lsn> {
        let from = self.entries.iter().position(|entry| entry.timeline == timeline)?;
        self.entries.iter().skip(from).map(|entry| entry.switch_lsn).min()
    }

    /// Whether a backup that ended on `timeline` at `end` (its first byte not needed) lies on this path,
    /// so that recovery along it passes the backup's end. InitWalRecovery asks the same of
    /// minRecoveryPoint, and of the checkpoint at which recovery begins: see `timeline_of`.
    pub fn descends_from(&self, timeline: Timeline, end: Lsn) -> bool {
        self.timeline_of(Lsn(end.0.saturating_sub(1))) == timeline
    }

    /// The timelines under whose name recovery looks for a segment, in its order (XLogFileReadAnyTLI):
    /// newest first, those that begin in or before the segment. The first that exists is read.
    pub fn timelines_for_segment(&self, number: u64, size: SegmentSize) -> impl Iterator<Item = Timeline> {
        self.newest_first()
            .filter(move |(_, begin)| size.segment_of(*begin) <= number)
            .map(|(timeline, _)| timeline)
    }

    /// The timeline whose file recovery reads for a segment when the archive has all: the newest that
    /// begins in or before it, because a new timeline's first segment starts as a copy of its parent's.
    pub fn path_timeline_for_segment(&self, number: u64, size: SegmentSize) -> Timeline {
        self.timelines_for_segment(number, size).next().unwrap_or(self.timeline)
    }
}

fn refuse(timeline: Timeline, cause: &str) -> Error {
    Error::corrupt(format!("could not read the history of timeline {timeline}: {cause}")).with_hint(
        "a line reads: parent timeline, tab, switch point, tab, reason; for example 1<TAB>0/3000148<TAB>no recovery target specified",
    )
}

/// None for a blank line and a comment.
fn parse_line(line: &[u8]) -> std::result::Result<Option<HistoryEntry>, &'static str> {
    if line.len() > MAX_LINE {
        return Err("it is longer than PostgreSQL reads");
    }
    if line.contains(&0) {
        return Err("it holds a NUL byte");
    }
    let text = String::from_utf8_lossy(line);
    let text = text.trim_matches(is_space);
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (timeline, rest) = text.split_once(is_space).unwrap_or((text, ""));
    let timeline = parse_timeline(timeline).ok_or("expected a timeline in decimal digits")?;
    let rest = rest.trim_start_matches(is_space);
    let (lsn, reason) = rest.split_once(is_space).unwrap_or((rest, ""));
    let switch_lsn = lsn.parse().ok().filter(|lsn: &Lsn| lsn.is_valid());
    let switch_lsn = switch_lsn.ok_or("expected a switch point such as 0/3000148")?;
    let reason = reason.trim_start_matches(is_space).to_string();
    Ok(Some(HistoryEntry { timeline, switch_lsn, reason }))
}

/// isspace in the C locale.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\x0B' | '\x0C' | '\r')
}

fn parse_timeline(text: &str) -> Option<Timeline> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok().filter(|number| *number > 0).map(Timeline) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(mib: u64) -> SegmentSize {
        SegmentSize::try_from(mib << 20).expect("a valid size")
    }

    fn history(own: u32, lines: &str) -> TimelineHistory {
        TimelineHistory::parse(Timeline(own), lines.as_bytes()).expect("a valid history")
    }

    /// As written by three promotions in a row, PostgreSQL 15: the parent's file, a newline, a new line.
    const THREE: &str = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tbefore transaction 740\n\n4\t0/50000A0\tat restore point \"x y\"\n";

    #[test]
    fn a_history_file_is_read_as_postgresql_reads_it() {
        let parsed = history(6, THREE);
        assert_eq!((parsed.timeline(), parsed.parent()), (Timeline(6), Some(Timeline(4))));
        let expected =
            [(1, 0x300_0148, "no recovery target specified"), (2, 0x500_0000, "before transaction 740")];
        for (entry, (timeline, lsn, reason)) in parsed.entries().iter().zip(expected) {
            assert_eq!(
                (entry.timeline.0, entry.switch_lsn.0, entry.reason.as_str()),
                (timeline, lsn, reason)
            );
        }
        assert_eq!(parsed.entries()[2].reason, "at restore point \"x y\"");
    }

    #[test]
    fn comments_blank_lines_and_odd_white_space_are_skipped() {
        let parsed = history(3, "# by hand\n  \t# too\n\n \r\n  1   0/A0\r\n2\t1/0");
        let lsns: Vec<Lsn> = parsed.entries().iter().map(|entry| entry.switch_lsn).collect();
        assert_eq!(lsns, [Lsn(0xA0), Lsn(1 << 32)]);
        assert!(parsed.entries().iter().all(|entry| entry.reason.is_empty()));
    }

    #[test]
    fn a_reason_in_another_encoding_does_not_hurt() {
        let parsed = TimelineHistory::parse(Timeline(2), b"1\t0/10\tat restore point \"caf\xE9\"\n");
        assert!(parsed.is_ok_and(|parsed| parsed.entries()[0].reason.contains("caf\u{fffd}")));
    }

    #[test]
    fn what_postgresql_would_refuse_or_never_writes_is_refused() {
        let long = format!("1\t0/10\t{}", "x".repeat(1100));
        for (content, cause) in [
            ("one\t0/10\t", "line 1: expected a timeline in decimal digits"),
            ("-1\t0/10\t", "expected a timeline in decimal digits"),
            ("4294967297\t0/10\t", "expected a timeline in decimal digits"),
            ("0\t0/10\t", "expected a timeline in decimal digits"),
            ("1", "expected a switch point"),
            ("1\t0\t", "expected a switch point"),
            ("1\t0/0\tzero", "expected a switch point"),
            ("1\t0x1/10\t", "expected a switch point"),
            ("1\t0/10\t\n1\t0/20\t", "line 2: timelines must be in increasing order"),
            ("2\t0/10\t\n1\t0/20\t", "timelines must be in increasing order"),
            ("1\t0/10\t\n3\t0/20\t", "timeline 3 is not below its own"),
            ("", "names no parent"),
            ("# only a comment\n", "names no parent"),
            ("\0\0\0\0", "NUL byte"),
            (&long, "longer than PostgreSQL reads"),
        ] {
            let error = TimelineHistory::parse(Timeline(3), content.as_bytes()).expect_err(content);
            assert!(error.message().contains(cause), "{content:?}: {error}");
            assert!(error.message().starts_with("could not read the history of timeline 3: "), "{error}");
        }
    }

    #[test]
    fn the_switch_point_is_the_first_byte_of_the_new_timeline() {
        let parsed = history(6, THREE);
        for (lsn, timeline) in [
            (0, 1),
            (0x300_0147, 1),
            (0x300_0148, 2),
            (0x4FF_FFFF, 2),
            (0x500_0000, 4),
            (0x500_009F, 4),
            (0x500_00A0, 6),
            (u64::MAX, 6),
        ] {
            assert_eq!(parsed.timeline_of(Lsn(lsn)), Timeline(timeline), "{lsn:X}");
        }
        assert_eq!(parsed.switch_point(Timeline(2)), Some(Lsn(0x500_0000)));
        assert_eq!(parsed.switch_point(Timeline(6)), None);
        assert_eq!(parsed.switch_point(Timeline(3)), None);
        assert!(parsed.contains(Timeline(6)) && parsed.contains(Timeline(1)));
        assert!(!parsed.contains(Timeline(3)));
    }

    #[test]
    fn a_backup_is_on_the_path_when_its_last_byte_is() {
        let parsed = history(6, THREE);
        for (timeline, end, on_path) in [
            (1, 0x300_0148, true),
            (1, 0x300_0149, false),
            (2, 0x300_0149, true),
            (2, 0x300_0148, false),
            (3, 0x400_0000, false),
            (6, 0x600_0000, true),
            (7, 0x600_0000, false),
        ] {
            assert_eq!(parsed.descends_from(Timeline(timeline), Lsn(end)), on_path, "{timeline} {end:X}");
        }
    }

    #[test]
    fn the_segment_of_a_fork_is_read_from_the_newest_timeline_in_it() {
        let parsed = history(6, THREE);
        let newest = |number| parsed.path_timeline_for_segment(number, size(16)).0;
        assert_eq!([0, 2, 3, 4, 5, 6].map(newest), [1, 1, 2, 2, 6, 6]);
        let all: Vec<u32> = parsed.timelines_for_segment(5, size(16)).map(|timeline| timeline.0).collect();
        assert_eq!(all, [6, 4, 2, 1]);
        assert_eq!(parsed.path_timeline_for_segment(0x4F, size(1)).0, 2);
        assert_eq!(parsed.path_timeline_for_segment(0x50, size(1)).0, 6);
    }

    #[test]
    fn a_recovery_that_stops_before_its_target_timeline_cuts_the_parent_off() {
        let parsed = history(3, "1\t0/5000000\t\n2\t0/3000000\tbefore 2026-01-01 00:00:00+00\n");
        assert_eq!(parsed.timeline_of(Lsn(0x2FF_FFFF)), Timeline(1));
        assert_eq!(parsed.timeline_of(Lsn(0x300_0000)), Timeline(3));
        assert_eq!(parsed.switch_point(Timeline(1)), Some(Lsn(0x300_0000)));
        assert!(parsed.contains(Timeline(2)));
        assert!(!parsed.descends_from(Timeline(1), Lsn(0x400_0000)));
        assert!(!parsed.descends_from(Timeline(2), Lsn(0x600_0000)));
    }

    #[test]
    fn a_timeline_without_a_file_holds_everything() {
        let alone = TimelineHistory::without_parents(Timeline(1));
        assert_eq!(alone.timeline_of(Lsn(0)), Timeline(1));
        assert_eq!(alone.path_timeline_for_segment(0, size(16)), Timeline(1));
        assert_eq!((alone.parent(), alone.switch_point(Timeline(1))), (None, None));
    }

    /// tliOfPointInHistory, transcribed: ranges with an open begin and end, newest first.
    fn as_postgresql_decides(history: &TimelineHistory, lsn: Lsn) -> Option<Timeline> {
        let mut ranges = Vec::new();
        let mut begin = Lsn::INVALID;
        for entry in history.entries() {
            ranges.push((entry.timeline, begin, entry.switch_lsn));
            begin = entry.switch_lsn;
        }
        ranges.push((history.timeline(), begin, Lsn::INVALID));
        let holds = |(_, begin, end): &(Timeline, Lsn, Lsn)| {
            (!begin.is_valid() || *begin <= lsn) && (!end.is_valid() || lsn < *end)
        };
        ranges.into_iter().rev().find(holds).map(|(timeline, ..)| timeline)
    }

    fn any_history() -> impl Strategy<Value = TimelineHistory> {
        proptest::collection::vec((1u32..4, 1u64..64), 1..6).prop_map(|steps| {
            let mut own = 0;
            let mut lines = String::new();
            for (step, lsn) in steps {
                own += step;
                lines.push_str(&format!("{own}\t{}\treason\n\n", Lsn(lsn << 18)));
            }
            history(own + 1, &lines)
        })
    }

    proptest! {
        #[test]
        fn parsing_never_panics(own in 1u32..9, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ignored = TimelineHistory::parse(Timeline(own), &bytes);
        }

        #[test]
        fn what_looks_like_a_history_never_panics(own in 1u32..9, text in "([0-9 #]{0,3}[\t ]?[0-9A-F]{0,3}/?[0-9A-F]{0,9}[\tx]?\n?){0,4}") {
            if let Ok(parsed) = TimelineHistory::parse(Timeline(own), text.as_bytes()) {
                prop_assert!(parsed.entries().windows(2).all(|pair| pair[0].timeline < pair[1].timeline));
                prop_assert!(parsed.parent() < Some(Timeline(own)));
            }
        }

        #[test]
        fn every_lsn_is_on_the_timeline_that_postgresql_says(history in any_history(), lsn in 0u64..65 << 18) {
            let timeline = history.timeline_of(Lsn(lsn));
            prop_assert_eq!(Some(timeline), as_postgresql_decides(&history, Lsn(lsn)));
            let before_switch = history.switch_point(timeline).is_none_or(|switch| Lsn(lsn) < switch);
            prop_assert!(before_switch);
            let number = size(1).segment_of(Lsn(lsn));
            prop_assert!(history.timelines_for_segment(number, size(1)).any(|name| name == timeline));
            prop_assert!(history.path_timeline_for_segment(number, size(1)) >= timeline);
        }
    }
}
