//! The timelines of an incarnation as lanes of a map: where there is WAL, where every moment can be reached, what is
//! missing, the backups, and which timeline left which. Places are in per cent of the width.
//!
//! Backups that would overlap become one mark with their number: for a desk and, farther apart, for a phone.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::axis::Axis;
use super::html::{Html, escape};
use crate::ops::info::summary::{BackupSummary, Incarnation, PathSummary, TimelineSummary, WindowSummary};
use crate::pg::lsn::Timeline;
use crate::words::moment;

/// Pixels: the scale above, a lane, and where in a lane its line is.
const TOP: usize = 26;
const LANE: usize = 62;
const LINE: usize = 46;
/// Half of a band's height.
const HALF: usize = 6;

/// Per cent of the width that two marks are apart at least, at a desk and on a phone.
const APART_WIDE: f64 = 3.4;
const APART_NARROW: f64 = 9.0;

/// A stretch of a lane.
#[derive(Clone, Debug, PartialEq)]
struct Stretch {
    from: f64,
    to: f64,
    title: String,
}

/// A backup, or several that are too close to each other.
#[derive(Clone, Debug, PartialEq)]
struct Mark {
    place: f64,
    count: usize,
    pinned: bool,
    faulty: bool,
    title: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Lane {
    timeline: Timeline,
    about: String,
    /// From the first WAL or the fork to the newest.
    wal: Option<(f64, f64)>,
    /// Whose timeline it left, and where.
    fork: Option<(Timeline, f64)>,
    reachable: Vec<Stretch>,
    lost: Vec<Stretch>,
    expired: Vec<Stretch>,
    backups: Vec<Mark>,
}

/// The stretch of time that an incarnation's map shows. None: there is nothing.
pub fn axis(incarnation: &Incarnation) -> Option<Axis> {
    let windows = || incarnation.paths.iter().flat_map(|path| &path.windows);
    let timelines = || incarnation.timelines.iter();
    let ends = |window: &WindowSummary| window.to_time.unwrap_or(window.from_time);
    let first = timelines().filter_map(|timeline| timeline.oldest_time);
    let from = first.chain(windows().map(|window| window.from_time));
    let from = from.chain(incarnation.backups.iter().map(|backup| backup.stop_time)).min()?;
    let last = timelines().filter_map(|timeline| timeline.newest_time);
    let to = last
        .chain(windows().map(ends))
        .chain(incarnation.backups.iter().map(|backup| backup.stop_time))
        .max()?;
    Some(Axis::new(from, to))
}

/// The map, or nothing if there is nothing to show.
pub fn draw(incarnation: &Incarnation) -> Option<Html> {
    let axis = axis(incarnation)?;
    let lanes = lanes(incarnation, &axis);
    if lanes.is_empty() {
        return None;
    }
    let height = TOP + LANE * lanes.len();
    let rows: BTreeMap<Timeline, usize> =
        lanes.iter().enumerate().map(|(row, lane)| (lane.timeline, TOP + LANE * row + LINE)).collect();
    let mut svg = format!("<svg role=\"img\" aria-label=\"Map of the timelines\" height=\"{height}\">\n");
    svg.push_str(&scale(&axis, height));
    svg.extend(lanes.iter().filter_map(|lane| connector(lane, &lanes, &rows)));
    for (row, lane) in lanes.iter().enumerate() {
        svg.push_str(&lane_svg(lane, TOP + LANE * row + LINE));
    }
    svg.push_str("</svg>\n");
    Some(Html(svg))
}

/// Timelines of which there is something to show.
fn lanes(incarnation: &Incarnation, axis: &Axis) -> Vec<Lane> {
    let timelines = incarnation.timelines.iter();
    let lanes = timelines.map(|timeline| lane(incarnation, timeline, axis));
    lanes.filter(|lane| lane.wal.is_some() || !lane.reachable.is_empty()).collect()
}

fn lane(incarnation: &Incarnation, timeline: &TimelineSummary, axis: &Axis) -> Lane {
    let path = incarnation.paths.iter().find(|path| path.timeline == timeline.timeline);
    let begin = timeline.fork.and_then(|fork| fork.time);
    let (reachable, lost, expired) = path.map(|path| stretches(path, begin, axis)).unwrap_or_default();
    let first = timeline.oldest_time.into_iter().chain(begin).min();
    let backups = incarnation.backups.iter().filter(|backup| backup.stop_timeline == timeline.timeline);
    Lane {
        timeline: timeline.timeline,
        about: about(timeline),
        wal: first.zip(timeline.newest_time).map(|(from, to)| (axis.place(from), axis.place(to))),
        fork: timeline.fork.zip(begin).map(|(fork, time)| (fork.parent, axis.place(time))),
        reachable,
        lost,
        expired,
        backups: backups.map(|backup| mark(backup, axis)).collect(),
    }
}

fn about(timeline: &TimelineSummary) -> String {
    match timeline.fork {
        _ if !timeline.history_known => "its history is missing".to_string(),
        Some(fork) => format!("left {} at {}", fork.parent, fork.lsn),
        None => String::new(),
    }
}

/// What of a path's windows, and between them, lies on the timeline's own lane: behind its begin.
fn stretches(
    path: &PathSummary,
    begin: Option<Timestamp>,
    axis: &Axis,
) -> (Vec<Stretch>, Vec<Stretch>, Vec<Stretch>) {
    let (mut reachable, mut lost, mut expired) = (Vec::new(), Vec::new(), Vec::new());
    let own = |from: Timestamp, to: Timestamp| {
        let from = begin.map_or(from, |begin| from.max(begin));
        (from <= to).then(|| (axis.place(from), axis.place(to)))
    };
    for (place, window) in path.windows.iter().enumerate() {
        let end = window.to_time.unwrap_or(window.from_time).max(window.from_time);
        if let Some((from, to)) = own(window.from_time, end) {
            let title = format!("Every moment from {} to {}", moment(window.from_time), moment(end));
            reachable.push(Stretch { from, to, title });
        }
        let next = path.windows.get(place.saturating_add(1)).map(|next| next.from_time).or(path.newest_time);
        if let (Some(segment), Some((from, to))) = (window.missing, next.and_then(|next| own(end, next))) {
            let title = format!("{segment} is missing: nothing from {} on", moment(end));
            if window.expired { &mut expired } else { &mut lost }.push(Stretch { from, to, title });
        }
    }
    (reachable, lost, expired)
}

fn mark(backup: &BackupSummary, axis: &Axis) -> Mark {
    let pinned = if backup.pins.is_empty() { "" } else { ", pinned" };
    Mark {
        place: axis.place(backup.stop_time),
        count: 1,
        pinned: !backup.pins.is_empty(),
        faulty: !backup.is_whole() || backup.damaged_pages > 0,
        title: format!("Backup {}, {}{pinned}", backup.label, moment(backup.stop_time)),
    }
}

/// Marks that are at least `apart`: of several that are not, one stands for all, at the place of the first.
fn cluster(marks: &[Mark], apart: f64) -> Vec<Mark> {
    let mut clusters: Vec<Mark> = Vec::new();
    for mark in marks {
        match clusters.last_mut() {
            Some(last) if mark.place - last.place < apart => {
                last.count += mark.count;
                last.pinned |= mark.pinned;
                last.faulty |= mark.faulty;
                last.title =
                    format!("{} backups up to {}", last.count, mark.title.trim_start_matches("Backup "));
            }
            _ => clusters.push(mark.clone()),
        }
    }
    clusters
}

fn scale(axis: &Axis, height: usize) -> String {
    let tick = |(count, tick): (usize, super::axis::Tick)| {
        let (x, anchor) = (tick.place, anchor(tick.place));
        // On a phone there is room for every other.
        let class = if count % 2 == 0 { "" } else { " class=\"wide\"" };
        format!(
            "<line class=\"grid\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"18\" y2=\"{height}\"/>\
             <text{class} x=\"{x:.2}%\" y=\"12\" text-anchor=\"{anchor}\">{}</text>\n",
            escape(tick.label)
        )
    };
    axis.ticks().into_iter().enumerate().map(tick).collect()
}

/// At the sides labels grow inwards.
pub fn anchor(place: f64) -> &'static str {
    match place {
        ..8.0 => "start",
        92.0.. => "end",
        _ => "middle",
    }
}

/// From the parent's line down to the lane's, where the one left the other. The parent's WAL may end before.
fn connector(lane: &Lane, lanes: &[Lane], rows: &BTreeMap<Timeline, usize>) -> Option<String> {
    let (parent, x) = lane.fork?;
    let (from, to) = (rows.get(&parent)?, rows.get(&lane.timeline)?);
    let mut svg = format!("<line class=\"fork\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{from}\" y2=\"{to}\"/>\n");
    let parent = lanes.iter().find(|lane| lane.timeline == parent)?;
    if let Some((_, end)) = parent.wal.filter(|(_, end)| *end < x) {
        svg.push_str(&format!(
            "<line class=\"expired\" x1=\"{end:.2}%\" x2=\"{x:.2}%\" y1=\"{from}\" y2=\"{from}\"/>\n"
        ));
    }
    Some(svg)
}

fn lane_svg(lane: &Lane, y: usize) -> String {
    let (top, height) = (y - HALF, 2 * HALF);
    let mut svg = format!(
        "<text class=\"name\" x=\"0\" y=\"{}\">Timeline {}<tspan class=\"about\" dx=\"8\">{}</tspan></text>\n",
        y - 25,
        lane.timeline,
        escape(&lane.about)
    );
    if let Some((from, to)) = lane.wal {
        svg.push_str(&format!(
            "<line class=\"wal\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"{y}\" y2=\"{y}\"/>\n"
        ));
    }
    let width = |stretch: &Stretch| (stretch.to - stretch.from).max(0.3);
    for Stretch { from, to, title } in &lane.expired {
        svg.push_str(&format!(
            "<line class=\"expired\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"{y}\" y2=\"{y}\"><title>{}</title></line>\n",
            escape(title)
        ));
    }
    for (stretches, class) in [(&lane.lost, "lost"), (&lane.reachable, "band")] {
        for stretch in stretches {
            svg.push_str(&format!(
                "<rect class=\"{class}\" x=\"{:.2}%\" y=\"{top}\" width=\"{:.2}%\" height=\"{height}\" rx=\"2\">\
                 <title>{}</title></rect>\n",
                stretch.from,
                width(stretch),
                escape(&stretch.title)
            ));
        }
    }
    // However short it is, what is missing must be seen.
    for Stretch { from, title, .. } in &lane.lost {
        svg.push_str(&format!(
            "<svg class=\"at\" x=\"{from:.2}%\" y=\"{y}\"><path class=\"alarm\" d=\"M-6 -20 L6 -20 L0 -10 Z\"/>\
             <line class=\"alarm-edge\" x1=\"0\" x2=\"0\" y1=\"-10\" y2=\"9\"/><title>{}</title></svg>\n",
            escape(title)
        ));
    }
    if let Some((_, x)) = lane.fork {
        svg.push_str(&format!("<circle class=\"origin\" cx=\"{x:.2}%\" cy=\"{y}\" r=\"4\"/>\n"));
    }
    for (class, apart) in [("wide", APART_WIDE), ("narrow", APART_NARROW)] {
        let marks: String = cluster(&lane.backups, apart).iter().map(|mark| mark_svg(mark, y)).collect();
        svg.push_str(&format!("<g class=\"{class}\">{marks}</g>\n"));
    }
    svg
}

fn mark_svg(mark: &Mark, y: usize) -> String {
    let state = if mark.faulty {
        " faulty"
    } else if mark.pinned {
        " pinned"
    } else {
        ""
    };
    let radius = if mark.count == 1 { 5 } else { 8 };
    let count = match mark.count {
        1 => String::new(),
        count => format!("<text class=\"count\" x=\"{:.2}%\" y=\"{}\">{count}</text>", mark.place, y + 3),
    };
    format!(
        "<circle class=\"backup{state}\" cx=\"{:.2}%\" cy=\"{y}\" r=\"{radius}\"><title>{}</title></circle>{count}",
        mark.place,
        escape(&mark.title)
    )
}

/// What the signs mean.
pub fn legend() -> Html {
    let line =
        |class: &str| format!("<svg><line class=\"{class}\" x1=\"0\" x2=\"20\" y1=\"6\" y2=\"6\"/></svg>");
    let rect = |class: &str| {
        format!("<svg><rect class=\"{class}\" x=\"0\" y=\"1\" width=\"20\" height=\"10\" rx=\"2\"/></svg>")
    };
    let dot = |class: &str| format!("<svg><circle class=\"{class}\" cx=\"10\" cy=\"6\" r=\"5\"/></svg>");
    let alarm = || {
        "<svg><rect class=\"lost\" x=\"8\" y=\"2\" width=\"12\" height=\"9\"/>\
         <path class=\"alarm\" d=\"M2 0 L14 0 L8 10 Z\"/></svg>"
            .to_string()
    };
    let items = [
        (dot("backup"), "backup, or several with their number"),
        (dot("backup pinned"), "pinned"),
        (dot("backup faulty"), "damaged or incomplete"),
        (rect("band"), "every moment can be reached"),
        (alarm(), "WAL is missing"),
        (line("expired"), "nothing, or nothing any more"),
        (dot("origin"), "a new timeline"),
    ];
    let items = items.map(|(sign, words)| format!("<li>{sign}{}</li>", escape(words)));
    Html(format!("<ul class=\"legend\">{}</ul>\n", items.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(place: f64) -> Mark {
        Mark { place, count: 1, pinned: false, faulty: false, title: format!("Backup at {place}") }
    }

    #[test]
    fn one_fault_among_many_backups_is_seen() {
        let marks =
            [one(1.0), Mark { faulty: true, ..one(1.5) }, one(2.0), Mark { pinned: true, ..one(9.0) }];
        let clusters = cluster(&marks, 3.0);
        assert_eq!(clusters.iter().map(|mark| mark.count).collect::<Vec<_>>(), [3, 1]);
        assert!(clusters[0].faulty && !clusters[0].pinned && clusters[1].pinned);
        assert_eq!(clusters[0].title, "3 backups up to at 2");
    }

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).expect("in range")
    }

    fn window(from: i64, to: i64, missing: bool) -> WindowSummary {
        WindowSummary {
            backup: "a".parse().expect("a name"),
            from_time: at(from),
            from_lsn: crate::pg::lsn::Lsn(1),
            to_time: Some(at(to)),
            to_lsn: crate::pg::lsn::Lsn(2),
            missing: missing.then(|| "000000010000000000000005".parse().expect("a name")),
            expired: false,
        }
    }

    fn path(windows: Vec<WindowSummary>) -> PathSummary {
        PathSummary {
            timeline: Timeline(2),
            ancestors: Vec::new(),
            windows,
            backups: Vec::new(),
            newest_segment: None,
            newest_time: Some(at(100)),
        }
    }

    #[test]
    fn a_lane_has_only_what_came_after_the_fork() {
        let axis = Axis::new(at(0), at(100));
        let path = path(vec![window(0, 10, true), window(20, 60, true)]);
        let places = |stretches: &[Stretch]| -> Vec<(f64, f64)> {
            stretches.iter().map(|stretch| (stretch.from, stretch.to)).collect()
        };
        let (reachable, lost, expired) = stretches(&path, None, &axis);
        let place = |hour| axis.place(at(hour));
        assert_eq!(places(&reachable), [(place(0), place(10)), (place(20), place(60))]);
        assert_eq!(places(&lost), [(place(10), place(20)), (place(60), place(100))]);
        assert_eq!(expired, []);
        let (reachable, lost, _) = stretches(&path, Some(at(30)), &axis);
        assert_eq!(places(&reachable), [(place(30), place(60))]);
        assert_eq!(places(&lost), [(place(60), place(100))]);
    }

    #[test]
    fn what_has_expired_is_not_lost() {
        let axis = Axis::new(at(0), at(100));
        let thinned = WindowSummary { expired: true, ..window(0, 10, true) };
        let (_, lost, expired) = stretches(&path(vec![thinned, window(20, 60, false)]), None, &axis);
        assert_eq!((lost.len(), expired.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn marks_do_not_overlap_and_none_is_lost(mut places in proptest::collection::vec(0.0f64..100.0, 0..80), apart in 0.5f64..20.0) {
            places.sort_by(f64::total_cmp);
            let marks: Vec<Mark> = places.into_iter().map(one).collect();
            let clusters = cluster(&marks, apart);
            prop_assert_eq!(clusters.iter().map(|mark| mark.count).sum::<usize>(), marks.len());
            for pair in clusters.windows(2) {
                prop_assert!(pair[1].place - pair[0].place >= apart);
            }
        }
    }
}
