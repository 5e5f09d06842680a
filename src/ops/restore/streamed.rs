//! Streamed parts as ends of the archive: of each timeline the part that ends its WAL, if it is safe to take
//! it for that; else why not. `docs/decisions/streamed-segments.md` has the reasons.
//!
//! Whole segments always win. A part may be replaced by a longer one, or by the whole segment, while a
//! restore is planned: either holds all that the part does, and is read in its place.

use std::collections::BTreeMap;
use std::io::Write;

use super::Request;
use crate::error::{Error, Kind, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Timeline;
use crate::pg::names::SegmentName;
use crate::repo::Cluster;
use crate::repo::backup::BackupHeader;
use crate::repo::catalog::Catalog;
use crate::repo::segment::{self, StoredSegment};
use crate::repo::streamed::{self, StreamedPart};

/// The parts that end their timelines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    usable: BTreeMap<Timeline, StreamedPart>,
    /// Those that are not used, and why.
    refused: BTreeMap<Timeline, (StreamedPart, String)>,
}

impl Ends {
    /// Looks at the timelines whose history is known.
    pub fn find(catalog: &Catalog<'_>, histories: &BTreeMap<Timeline, TimelineHistory>) -> Result<Self> {
        let mut parts = Vec::new();
        for timeline in histories.keys() {
            let Some(part) = streamed::newest(catalog.cluster(), *timeline)? else { continue };
            // Not swept yet; or there is a gap, which the choice will see.
            if catalog.newest(*timeline)?.is_none_or(|whole| whole < part.segment) {
                parts.push(part);
            }
        }
        Ok(Self::judge(parts, histories))
    }

    /// Judges parts that lie behind all whole segments of their timelines, one of each.
    pub fn judge(
        parts: impl IntoIterator<Item = StreamedPart>,
        histories: &BTreeMap<Timeline, TimelineHistory>,
    ) -> Self {
        let mut ends = Self::default();
        for part in parts {
            let timeline = part.segment.timeline;
            match went_on(part, histories) {
                None => ends.usable.insert(timeline, part).map(drop),
                Some(why) => ends.refused.insert(timeline, (part, why)).map(drop),
            };
        }
        ends
    }

    /// Uses none of them.
    pub fn refuse_all(&mut self, why: &str) {
        let refused = std::mem::take(&mut self.usable).into_iter();
        self.refused.extend(refused.map(|(timeline, part)| (timeline, (part, why.to_string()))));
    }

    /// Does not use this one.
    pub fn refuse(&mut self, part: StreamedPart, why: &str) {
        let timeline = part.segment.timeline;
        if self.usable.get(&timeline) == Some(&part) {
            self.usable.remove(&timeline);
            self.refused.insert(timeline, (part, why.to_string()));
        }
    }

    /// The part that ends a timeline.
    pub fn of(&self, timeline: Timeline) -> Option<StreamedPart> {
        self.usable.get(&timeline).copied()
    }

    /// The part that stands in for this very segment.
    pub fn at(&self, segment: SegmentName) -> Option<StreamedPart> {
        self.of(segment.timeline).filter(|part| part.segment == segment)
    }

    /// Why the part at the end of a timeline is not used.
    pub fn why_not(&self, timeline: Timeline) -> Option<String> {
        let (part, why) = self.refused.get(&timeline)?;
        Some(format!(
            "segment {} was streamed up to {}, but that part is not used: {why}",
            part.segment, part.end
        ))
    }

    /// A refusal of a target that may lie in a part that is not used, or is damaged.
    pub fn explain(&self, error: Error) -> Error {
        let mut reasons: Vec<String> =
            self.refused.keys().filter_map(|timeline| self.why_not(*timeline)).collect();
        if error.kind() == Kind::Corrupt && !self.usable.is_empty() {
            let remedy = "if a streamed part is what is damaged, move it out of the repository: the WAL then ends \
                          before it";
            reasons.push(remedy.to_string());
        }
        if reasons.is_empty() {
            return error;
        }
        let hint = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
        error.with_hint(format!("{hint}{}", reasons.join("; ")))
    }
}

/// A timeline that leaves this one behind the part has the WAL that followed it: the part is not the end.
fn went_on(part: StreamedPart, histories: &BTreeMap<Timeline, TimelineHistory>) -> Option<String> {
    let timeline = part.segment.timeline;
    histories.values().find_map(|history| {
        let fork = history.switch_point(timeline).filter(|fork| *fork > part.end)?;
        Some(format!(
            "timeline {} left timeline {timeline} behind it, at {fork}, so there was more WAL",
            history.timeline()
        ))
    })
}

/// Whether the restored server would archive the padded segment under the name of the whole one
/// (KeepFileRestoredFromArchive).
pub fn archives_always(request: &Request, header: &BackupHeader) -> bool {
    let mode = request.setting(header, "archive_mode");
    request.takeover && mode.is_some_and(|mode| mode.eq_ignore_ascii_case("always"))
}

/// The header of a part or of what replaced it.
pub fn read_header(cluster: &Cluster, part: StreamedPart) -> Result<StoredSegment> {
    match streamed::covering(cluster, part) {
        Err(error) if error.kind() == Kind::NotFound => segment::read_header(cluster, part.segment),
        part => streamed::read_header(cluster, part?),
    }
}

/// Reads a part, or what replaced it, into `sink`.
pub fn read(cluster: &Cluster, part: StreamedPart, sink: &mut impl Write) -> Result<StoredSegment> {
    match streamed::covering(cluster, part) {
        Err(error) if error.kind() == Kind::NotFound => segment::read(cluster, part.segment, sink),
        part => streamed::read(cluster, part?, sink),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::{Lsn, SegmentSize};
    use crate::repo::fixture::Fixture;

    const MIB: u64 = 1 << 20;

    fn part(timeline: u32, number: u64, bytes: u64) -> StreamedPart {
        let size = SegmentSize::try_from(MIB).expect("a size");
        StreamedPart {
            segment: SegmentName::from_number(Timeline(timeline), number, size),
            end: Lsn(number * MIB + bytes),
        }
    }

    /// What ends the timelines of an archive with these whole segments and parts.
    fn ends(segments: &[(u32, u64)], parts: &[StreamedPart], forks: &[(u32, u32, Lsn)]) -> Ends {
        let fixture = Fixture::create();
        let keys = fixture.cluster.layout();
        for (timeline, number) in segments {
            let key = keys.segment(part(*timeline, *number, 1).segment).expect("key");
            fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
        }
        for part in parts {
            let key = keys.streamed(part.segment, part.end).expect("key");
            fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
        }
        let first = TimelineHistory::without_parents(Timeline(1));
        let later = forks.iter().map(|(timeline, parent, fork)| {
            let text = format!("{parent}\t{fork}\tx\n");
            TimelineHistory::parse(Timeline(*timeline), text.as_bytes()).expect("a history")
        });
        let histories = [first].into_iter().chain(later).map(|path| (path.timeline(), path)).collect();
        let catalog = Catalog::new(&fixture.cluster, SegmentSize::try_from(MIB).expect("a size"));
        Ends::find(&catalog, &histories).expect("found")
    }

    #[test]
    fn the_longest_part_of_the_last_segment_ends_its_timeline() {
        let parts = [part(1, 2, 900), part(1, 3, 100), part(1, 3, 200)];
        let found = ends(&[(1, 1), (1, 2)], &parts, &[]);
        assert_eq!(found.of(Timeline(1)), Some(part(1, 3, 200)));
        assert_eq!(found.at(part(1, 3, 7).segment), Some(part(1, 3, 200)));
        assert_eq!(found.at(part(1, 2, 7).segment), None);
        assert_eq!(found.of(Timeline(2)), None);
        assert_eq!(found.why_not(Timeline(1)), None);
    }

    #[test]
    fn whole_segments_count_more_than_parts() {
        for segments in [&[(1, 1), (1, 2), (1, 3)][..], &[(1, 1), (1, 4)]] {
            let found = ends(segments, &[part(1, 3, 200)], &[]);
            assert_eq!((found.of(Timeline(1)), found.why_not(Timeline(1))), (None, None));
        }
    }

    #[test]
    fn a_part_behind_which_a_timeline_was_left_is_no_end() {
        let at = |fork| ends(&[(1, 2)], &[part(1, 3, 200)], &[(2, 1, fork)]);
        for fork in [Lsn(3 * MIB + 201), Lsn(9 * MIB)] {
            assert_eq!(at(fork).of(Timeline(1)), None);
            let why = at(fork).why_not(Timeline(1)).expect("a reason");
            assert!(why.contains(&format!("timeline 2 left timeline 1 behind it, at {fork}")), "{why}");
        }
        for fork in [Lsn(3 * MIB + 200), Lsn(2 * MIB + 1)] {
            assert_eq!(at(fork).of(Timeline(1)), Some(part(1, 3, 200)), "the part holds all up to the fork");
        }
        // The other timeline's own part is judged for itself.
        let found = ends(&[(1, 2)], &[part(1, 3, 200), part(2, 3, 900)], &[(2, 1, Lsn(3 * MIB + 300))]);
        assert_eq!((found.of(Timeline(1)), found.of(Timeline(2))), (None, Some(part(2, 3, 900))));
    }

    #[test]
    fn what_is_refused_is_told_with_what_can_be_reached() {
        let mut found = ends(&[(1, 2)], &[part(1, 3, 200)], &[]);
        let error = Error::not_found("x").with_hint("what can be reached: y");
        assert_eq!(found.explain(error.clone()), error);
        found.refuse_all("no");
        assert_eq!(found.of(Timeline(1)), None);
        let hint = found.explain(error).hint().expect("a hint").to_string();
        assert_eq!(
            hint,
            "what can be reached: y; segment 000000010000000000000003 was streamed up to 0/3000C8, but that part is \
             not used: no"
        );
    }
}
