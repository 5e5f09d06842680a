//! A timeline path drawn as a line of text: a scale of time with the backups as marks, solid where every moment
//! can be reached, dotted where none can. Pure.
//!
//! Invariants: columns grow with time; two windows are told apart as long as there is a column between them to
//! be had; nothing is drawn outside the width.

use jiff::Timestamp;

/// What characters there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    Unicode,
    Ascii,
}

/// Columns from one mark to the next, at least.
const APART: usize = 3;

/// A cell of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Nothing,
    /// Between windows.
    Gap,
    Window,
    /// The end of the archive.
    End,
    /// A window's end, where WAL is missing.
    Missing,
    Fork,
    Backup,
}

impl Cell {
    pub fn glyph(self, glyphs: Glyphs) -> char {
        let (unicode, ascii) = match self {
            Cell::Nothing => (' ', ' '),
            Cell::Gap => ('┄', '.'),
            Cell::Window => ('─', '-'),
            Cell::End => ('┤', '|'),
            Cell::Missing => ('╳', 'x'),
            Cell::Fork => ('◇', '+'),
            Cell::Backup => ('●', 'o'),
        };
        if glyphs == Glyphs::Unicode { unicode } else { ascii }
    }
}

/// A stretch of time of which every moment can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub from: Timestamp,
    pub to: Timestamp,
    /// WAL is missing behind it that should be there.
    pub cut: bool,
}

/// What is on one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// In order.
    pub windows: Vec<Stretch>,
    pub backups: Vec<Timestamp>,
    /// Where the path left another timeline.
    pub forks: Vec<Timestamp>,
    /// The newest WAL, behind the last window or not.
    pub newest: Option<Timestamp>,
}

/// The stretch of time that all lines show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    pub from: Timestamp,
    pub to: Timestamp,
    /// At least 1.
    pub columns: usize,
}

impl Scale {
    /// From the first window to the end of all. None when there is no window.
    pub fn over(tracks: &[Track], columns: usize) -> Option<Self> {
        let windows = || tracks.iter().flat_map(|track| &track.windows);
        let from = windows().map(|window| window.from).min()?;
        let newest = tracks.iter().filter_map(|track| track.newest);
        let to = windows().map(|window| window.to).chain(newest).max()?;
        Some(Self { from, to: to.max(from), columns: columns.max(1) })
    }

    pub fn column(&self, at: Timestamp) -> usize {
        between((self.from, 0), (self.to, self.columns.saturating_sub(1)), at)
    }

    /// The moment that a column stands for.
    pub fn moment(&self, column: usize) -> Timestamp {
        let last = self.columns.saturating_sub(1).max(1);
        let span = self.to.as_second().saturating_sub(self.from.as_second());
        let past = i128::from(span) * column.min(last) as i128 / last as i128;
        Timestamp::from_second(self.from.as_second().saturating_add(past as i64)).unwrap_or(self.to)
    }
}

/// A moment and its column.
type Anchor = (Timestamp, usize);

/// The column of a moment between two others; at one of them outside.
fn between((from, left): Anchor, (to, right): Anchor, at: Timestamp) -> usize {
    let micros = |time: Timestamp| i128::from(time.as_microsecond());
    let (span, past) = (micros(to) - micros(from), micros(at.clamp(from, to.max(from))) - micros(from));
    let columns = right.saturating_sub(left) as i128;
    if span <= 0 {
        return left;
    }
    left.saturating_add(usize::try_from((2 * past * columns + span) / (2 * span)).unwrap_or(0))
}

/// The cells of a path's line, as many as the scale has columns.
pub fn draw(track: &Track, scale: &Scale) -> Vec<Cell> {
    let mut cells = vec![Cell::Nothing; scale.columns];
    let anchors = anchors(track, scale);
    let mut fill = |from: usize, to: usize, cell: Cell| {
        cells.iter_mut().take(to.saturating_add(1)).skip(from).for_each(|place| *place = cell);
    };
    let first = anchors.first().map(|(_, column)| *column);
    let newest = track.newest.map(|newest| column(&anchors, scale, newest));
    if let (Some(first), Some(newest)) = (first, newest.max(anchors.last().map(|(_, column)| *column))) {
        fill(first, newest, Cell::Gap);
    }
    for (window, ends) in track.windows.iter().zip(anchors.chunks(2)) {
        if let [(_, from), (_, to)] = ends {
            fill(*from, *to, Cell::Window);
            fill(*to, *to, if window.cut { Cell::Missing } else { Cell::End });
        }
    }
    let on_scale = |moments: &[Timestamp]| -> Vec<usize> {
        // What lies before the first window belongs to another line.
        let from = anchors.first().map_or(scale.from, |(begin, _)| *begin);
        let shown = moments.iter().filter(|at| (from..=scale.to).contains(at));
        shown.map(|at| column(&anchors, scale, *at)).collect()
    };
    let begins: Vec<usize> = anchors.iter().step_by(2).map(|(_, column)| *column).collect();
    mark(&mut cells, &thin(on_scale(&track.backups), &begins), Cell::Backup);
    mark(&mut cells, &on_scale(&track.forks), Cell::Fork);
    cells
}

/// Puts marks on the line, but never over the end of a window.
fn mark(cells: &mut [Cell], columns: &[usize], mark: Cell) {
    for column in columns {
        match cells.get_mut(*column) {
            Some(Cell::End | Cell::Missing) | None => {}
            Some(cell) => *cell = mark,
        }
    }
}

/// Of marks that stand too close to each other one stands for several, so that the line is seen between them. Those
/// with which windows begin stay.
fn thin(mut columns: Vec<usize>, begins: &[usize]) -> Vec<usize> {
    columns.sort();
    columns.dedup();
    let mut last: Option<usize> = None;
    columns.retain(|column| {
        let far = last.is_none_or(|last| column.saturating_sub(last) >= APART);
        let stays = far || begins.contains(column);
        if stays {
            last = Some(*column);
        }
        stays
    });
    columns
}

/// The begins and ends of the windows with their columns, pushed apart so that windows that differ show.
fn anchors(track: &Track, scale: &Scale) -> Vec<Anchor> {
    let mut anchors: Vec<Anchor> = Vec::new();
    for window in &track.windows {
        for at in [window.from, window.to] {
            // The clock may have been set back between them.
            let at = anchors.last().map_or(at, |(before, _)| at.max(*before));
            anchors.push((at, scale.column(at)));
        }
    }
    let natural: Vec<usize> = anchors.iter().map(|(_, column)| *column).collect();
    for ((_, column), pushed) in anchors.iter_mut().zip(push_apart(&natural, scale.columns)) {
        *column = pushed;
    }
    anchors
}

/// Columns of begin, end, begin, end …: a window of its own column at least, and one between two of them. As they
/// are when there is no room for that.
fn push_apart(natural: &[usize], columns: usize) -> Vec<usize> {
    // From an end to the next begin, two; from a begin to its end, one if there is room.
    let step = |place: usize, wide: usize| if place.is_multiple_of(2) { 2 } else { wide };
    let windows = natural.len() / 2;
    let wide = usize::from(windows.saturating_mul(3) <= columns);
    if windows.saturating_mul(2) > columns.saturating_add(1) {
        return natural.to_vec();
    }
    let mut pushed: Vec<usize> = Vec::with_capacity(natural.len());
    for (place, column) in natural.iter().enumerate() {
        let least = pushed.last().map_or(0, |before| before + step(place, wide));
        pushed.push(least.max(*column));
    }
    let mut most = columns.saturating_sub(1);
    for (place, column) in pushed.iter_mut().enumerate().rev() {
        *column = most.min(*column);
        most = column.saturating_sub(step(place, wide));
    }
    pushed
}

/// The column of any moment on a line whose windows were pushed apart.
fn column(anchors: &[Anchor], scale: &Scale, at: Timestamp) -> usize {
    // A window of no length has two columns all the same: its begin is at the first.
    if let Some((_, begin)) = anchors.iter().step_by(2).find(|(time, _)| *time == at) {
        return *begin;
    }
    let behind = anchors.partition_point(|(time, _)| *time <= at);
    let before = behind.checked_sub(1).and_then(|place| anchors.get(place)).copied();
    match (before, anchors.get(behind).copied()) {
        (Some(before), Some(next)) => between(before, next, at),
        (Some(before), None) => {
            between(before, (scale.to, scale.columns.saturating_sub(1).max(before.1)), at)
        }
        (None, Some(next)) => between((scale.from, 0), next, at),
        (None, None) => scale.column(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn stretch(from: i64, to: i64) -> Stretch {
        Stretch { from: at(from), to: at(to), cut: false }
    }

    fn text(track: &Track, scale: &Scale) -> String {
        draw(track, scale).into_iter().map(|cell| cell.glyph(Glyphs::Ascii)).collect()
    }

    #[test]
    fn a_path_is_read_from_left_to_right() {
        let track = Track {
            windows: vec![Stretch { cut: true, ..stretch(0, 20) }, stretch(25, 40)],
            backups: vec![at(0), at(10), at(25)],
            forks: vec![at(30)],
            newest: Some(at(40)),
        };
        let scale = Scale::over(std::slice::from_ref(&track), 41).expect("windows");
        assert_eq!(text(&track, &scale), "o---------o---------x....o----+---------|");
        let glyphs: String =
            draw(&track, &scale).into_iter().map(|cell| cell.glyph(Glyphs::Unicode)).collect();
        assert_eq!(glyphs, "●─────────●─────────╳┄┄┄┄●────◇─────────┤");
    }

    #[test]
    fn of_many_backups_some_stand_for_several() {
        let track = Track {
            windows: vec![Stretch { cut: true, ..stretch(0, 18) }, stretch(20, 40)],
            backups: (0..40).map(at).collect(),
            forks: vec![at(30)],
            newest: None,
        };
        let scale = Scale::over(std::slice::from_ref(&track), 41).expect("windows");
        assert_eq!(text(&track, &scale), "o--o--o--o--o--o--x.o--o--o--o+-o--o--o-|");
        let later = Track { windows: track.windows[1..].to_vec(), ..track };
        assert_eq!(text(&later, &scale), "                    o--o--o--o+-o--o--o-|");
    }

    #[test]
    fn wal_behind_the_last_window_is_dotted() {
        let track = Track {
            windows: vec![Stretch { cut: true, ..stretch(0, 10) }],
            backups: vec![at(0)],
            forks: vec![],
            newest: Some(at(20)),
        };
        let scale = Scale::over(std::slice::from_ref(&track), 21).expect("windows");
        assert_eq!(text(&track, &scale), "o---------x..........");
    }

    #[test]
    fn short_windows_of_a_long_time_are_still_seen() {
        let track = Track {
            windows: vec![stretch(0, 1), stretch(2, 3), stretch(1_000_000, 1_000_001)],
            backups: vec![],
            forks: vec![],
            newest: None,
        };
        let scale = Scale::over(std::slice::from_ref(&track), 20).expect("windows");
        assert_eq!(text(&track, &scale), "-|.-|.............-|");
    }

    #[test]
    fn no_window_no_scale() {
        assert_eq!(Scale::over(&[Track::default()], 80), None);
        let scale = Scale { from: at(5), to: at(5), columns: 4 };
        assert_eq!(text(&Track::default(), &scale), "    ");
        let track = Track { windows: vec![stretch(5, 5)], backups: vec![at(5)], ..Track::default() };
        assert_eq!(text(&track, &scale), "o|  ");
    }

    proptest! {
        #[test]
        fn columns_grow_with_time_and_windows_that_differ_show(
            lengths in proptest::collection::vec((1i64..100_000, 0i64..100_000), 1..12),
            backups in proptest::collection::vec(0i64..1_000_000, 0..20),
            columns in 1usize..120,
        ) {
            let mut now = 0;
            let mut windows = Vec::new();
            for (pause, length) in lengths {
                now += pause;
                windows.push(stretch(now, now + length));
                now += length;
            }
            let track = Track { windows: windows.clone(), newest: Some(at(now)), ..Track::default() };
            let scale = Scale::over(std::slice::from_ref(&track), columns).expect("windows");
            let cells = draw(&track, &scale);
            prop_assert_eq!(cells.len(), columns);
            // As many solid stretches as windows.
            let solid = |cell: &Cell| matches!(cell, Cell::Window | Cell::End | Cell::Missing);
            let stretches = cells.split(|cell| !solid(cell)).filter(|run| !run.is_empty()).count();
            if windows.len() * 2 <= columns + 1 {
                prop_assert_eq!(stretches, windows.len(), "{:?}", text(&track, &scale));
            }
            let anchors = anchors(&track, &scale);
            let mut moments: Vec<Timestamp> = backups.iter().map(|second| at(*second)).collect();
            moments.extend(windows.iter().flat_map(|window| [window.from, window.to]));
            moments.sort();
            let places: Vec<usize> = moments.iter().map(|moment| column(&anchors, &scale, *moment)).collect();
            prop_assert!(places.is_sorted() && places.iter().all(|place| *place < columns), "{:?}", places);
            // A backup within a window is drawn within it.
            for (window, ends) in windows.iter().zip(anchors.chunks(2)) {
                let place = column(&anchors, &scale, window.from);
                prop_assert!((ends[0].1..=ends[1].1).contains(&place));
            }
        }
    }
}
