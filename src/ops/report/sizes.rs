//! Sizes over time: what WAL and backups added to the store, day by day, as bars.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::html::{Html, escape};
use super::map::anchor;
use crate::ops::info::summary::Incarnation;
use crate::words::bytes;

/// Bars, at most and at least: fewer days leave room, more share bars.
const MOST: i64 = 60;
const LEAST: i64 = 7;

/// Pixels.
const HEIGHT: f64 = 120.0;
const TOP: f64 = 18.0;

/// What some days added.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    first: Date,
    last: Date,
    wal: u64,
    backups: u64,
}

/// The bars, oldest first, up to the newest day.
fn bars(incarnation: &Incarnation, now: Timestamp) -> Vec<Bar> {
    let mut added: BTreeMap<Date, Added> = BTreeMap::new();
    for day in &incarnation.days {
        added.entry(day.day).or_default().0 += day.stored_bytes;
    }
    for backup in &incarnation.backups {
        added.entry(date(backup.stop_time)).or_default().1 += backup.stored_bytes;
    }
    divide(&added, date(now))
}

/// Bytes of WAL and of backups.
type Added = (u64, u64);

/// As many days to each bar that there are few enough; the last day is the newest, or today.
fn divide(added: &BTreeMap<Date, Added>, today: Date) -> Vec<Bar> {
    let (Some((first, _)), Some((newest, _))) = (added.first_key_value(), added.last_key_value()) else {
        return Vec::new();
    };
    let last = (*newest).max(today);
    let days = last.duration_since(*first).as_hours() / 24 + 1;
    let each = (days + MOST - 1) / MOST;
    let count = (days + each - 1) / each;
    let bar = |back: i64| {
        let last = last.checked_sub(Span::new().days(back * each)).ok()?;
        let first = last.checked_sub(Span::new().days(each - 1)).ok()?;
        let (wal, backups) =
            added.range(first..=last).fold((0, 0), |sum, (_, day)| (sum.0 + day.0, sum.1 + day.1));
        Some(Bar { first, last, wal, backups })
    };
    (0..count.max(LEAST)).rev().filter_map(bar).collect()
}

fn date(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// The chart, or nothing where nothing was stored.
pub fn draw(incarnation: &Incarnation, now: Timestamp) -> Option<Html> {
    let bars = bars(incarnation, now);
    let most = bars.iter().map(|bar| bar.wal.saturating_add(bar.backups)).max().filter(|most| *most > 0)?;
    let bottom = TOP + HEIGHT;
    let height = bottom + 20.0;
    let mut svg = format!("<svg role=\"img\" aria-label=\"Bytes stored by day\" height=\"{height}\">\n");
    let half = TOP + HEIGHT / 2.0;
    for y in [TOP, half] {
        svg.push_str(&format!("<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>\n"));
    }
    svg.push_str(&format!("<text x=\"0\" y=\"{}\">{}</text>\n", TOP - 5.0, escape(bytes(most))));
    let slot = 100.0 / bars.len().max(1) as f64;
    for (place, bar) in bars.iter().enumerate() {
        svg.push_str(&bar_svg(bar, place as f64 * slot, slot, most));
    }
    svg.push_str(&format!("<line class=\"base\" x1=\"0\" x2=\"100%\" y1=\"{bottom}\" y2=\"{bottom}\"/>\n"));
    svg.push_str(&labels(&bars, slot, height - 4.0));
    svg.push_str("</svg>\n");
    Some(Html(svg))
}

fn bar_svg(bar: &Bar, x: f64, slot: f64, most: u64) -> String {
    let tall = |bytes: u64| HEIGHT * bytes as f64 / most as f64;
    let (wal, backups) = (tall(bar.wal), tall(bar.backups));
    let (x, width, bottom) = (x + slot * 0.1, slot * 0.8, TOP + HEIGHT);
    let part = |class: &str, y: f64, height: f64| match height > 0.0 {
        true => format!(
            "<rect class=\"{class}\" x=\"{x:.2}%\" y=\"{y:.1}\" width=\"{width:.2}%\" height=\"{:.1}\"/>",
            height.max(0.5)
        ),
        false => String::new(),
    };
    let days =
        if bar.first == bar.last { bar.last.to_string() } else { format!("{} to {}", bar.first, bar.last) };
    let title = format!("{days}: {} of WAL, {} of backups", bytes(bar.wal), bytes(bar.backups));
    format!(
        "<g><title>{}</title>{}{}</g>\n",
        escape(title),
        part("bar-wal", bottom - wal, wal),
        part("bar-backup", bottom - wal - backups, backups)
    )
}

/// The first day, the last, and one between.
fn labels(bars: &[Bar], slot: f64, y: f64) -> String {
    let last = bars.len().saturating_sub(1);
    let mut places = vec![0, last / 2, last];
    places.dedup();
    let label = |place: usize| {
        let bar = bars.get(place)?;
        let x = (place as f64 + 0.5) * slot;
        let day = escape(bar.last.strftime("%b %-d"));
        Some(format!("<text x=\"{x:.2}%\" y=\"{y}\" text-anchor=\"{}\">{day}</text>\n", anchor(x)))
    };
    places.into_iter().filter_map(label).collect()
}

pub fn legend() -> Html {
    let item = |class: &str, words: &str| {
        format!(
            "<li><svg><rect class=\"{class}\" x=\"4\" y=\"1\" width=\"12\" height=\"10\"/></svg>{words}</li>"
        )
    };
    let items = [item("bar-wal", "WAL, as stored"), item("bar-backup", "what backups wrote")];
    Html(format!("<ul class=\"legend\">{}</ul>\n", items.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn day(number: i64) -> Date {
        Date::constant(2026, 1, 1).checked_add(Span::new().days(number)).expect("in range")
    }

    #[test]
    fn a_young_archive_has_a_bar_for_each_day_and_room_for_more() {
        let added = BTreeMap::from([(day(10), (7, 0)), (day(12), (1, 2))]);
        let bars = divide(&added, day(12));
        assert_eq!(bars.len(), 7);
        assert_eq!(bars.last(), Some(&Bar { first: day(12), last: day(12), wal: 1, backups: 2 }));
        assert_eq!(bars[4], Bar { first: day(10), last: day(10), wal: 7, backups: 0 });
        assert_eq!(divide(&BTreeMap::new(), day(0)), []);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_there_are_few_bars(
            days in proptest::collection::btree_map(0i64..3000, (0u64..1000, 0u64..1000), 1..50),
            today in 0i64..4000,
        ) {
            let added: BTreeMap<Date, Added> = days.iter().map(|(number, bytes)| (day(*number), *bytes)).collect();
            let bars = divide(&added, day(today));
            prop_assert!((LEAST..=MOST).contains(&(bars.len() as i64)), "{}", bars.len());
            let sum = |of: fn(&Bar) -> u64| bars.iter().map(of).sum::<u64>();
            prop_assert_eq!(sum(|bar| bar.wal), days.values().map(|bytes| bytes.0).sum::<u64>());
            prop_assert_eq!(sum(|bar| bar.backups), days.values().map(|bytes| bytes.1).sum::<u64>());
            for pair in bars.windows(2) {
                prop_assert_eq!(pair[0].last.tomorrow()?, pair[1].first);
            }
        }
    }
}
