//! Which segments recovery will ask for next.

use crate::error::Result;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::SegmentSize;
use crate::pg::names::SegmentName;

/// What is known of a recovery.
#[derive(Clone, Debug)]
pub(super) struct Window<'a> {
    /// The history of the timeline that recovery follows, if it asked for one.
    pub path: Option<&'a TimelineHistory>,
    pub size: SegmentSize,
    /// The last segment that the recovery target needs.
    pub last: Option<SegmentName>,
    /// How many segments at most.
    pub count: u64,
}

impl Window<'_> {
    /// The segments that follow `asked`, in the order in which recovery asks for them: along the path, and
    /// where that does not name the asked timeline, along the asked one.
    pub(super) fn after(&self, asked: SegmentName) -> Result<Vec<SegmentName>> {
        let first = asked.number(self.size)?.saturating_add(1);
        let last = match self.last {
            Some(last) => last.number(self.size)?,
            None => u64::MAX,
        };
        let path = self.path.filter(|path| path.contains(asked.timeline));
        let timeline =
            |number| path.map_or(asked.timeline, |p| p.path_timeline_for_segment(number, self.size));
        let numbers = (first..first.saturating_add(self.count)).take_while(|number| *number <= last);
        Ok(numbers.map(|number| SegmentName::from_number(timeline(number), number, self.size)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::Timeline;

    fn size() -> SegmentSize {
        SegmentSize::try_from(16 << 20).expect("a size")
    }

    fn names(window: &Window, asked: &str) -> Vec<String> {
        let names = window.after(asked.parse().expect("a name")).expect("possible");
        names.iter().map(SegmentName::to_string).collect()
    }

    fn no_path(count: u64) -> Window<'static> {
        Window { path: None, size: size(), last: None, count }
    }

    #[test]
    fn the_next_segments_follow_across_the_log() {
        assert_eq!(
            names(&no_path(3), "0000000100000000000000FE"),
            ["0000000100000000000000FF", "000000010000000100000000", "000000010000000100000001"]
        );
        assert!(names(&no_path(0), "000000010000000000000001").is_empty());
    }

    #[test]
    fn nothing_is_wanted_beyond_the_last_segment() {
        let last = Some("000000010000000000000003".parse().expect("a name"));
        let window = Window { last, ..no_path(9) };
        assert_eq!(names(&window, "000000010000000000000002"), ["000000010000000000000003"]);
        assert!(names(&window, "000000010000000000000003").is_empty());
        assert!(names(&window, "000000010000000000000007").is_empty());
    }

    #[test]
    fn the_path_says_on_which_timeline_a_segment_is() {
        // 1 -> 2 in the middle of segment 3, 2 -> 3 in segment 4.
        let history =
            TimelineHistory::parse(Timeline(3), b"1\t0/3800000\tx\n2\t0/4800000\ty\n").expect("parsed");
        let window = Window { path: Some(&history), ..no_path(3) };
        assert_eq!(
            names(&window, "000000010000000000000001"),
            ["000000010000000000000002", "000000020000000000000003", "000000030000000000000004"]
        );
        // A standby went on to a timeline that was not known yet.
        assert_eq!(
            names(&Window { count: 1, ..window }, "000000040000000000000005"),
            ["000000040000000000000006"]
        );
    }

    #[test]
    fn a_name_that_the_segment_size_makes_impossible_is_an_error() {
        assert!(no_path(1).after("000000010000000000000100".parse().expect("a name")).is_err());
    }
}
