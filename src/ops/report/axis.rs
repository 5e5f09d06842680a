//! A scale of time across the width of the page, in per cent, so that it fits a desk and a phone. Pure.
//!
//! Invariant: places grow with time and lie within the page.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// What is left free at both sides, so that marks at the ends are seen whole.
const MARGIN: f64 = 1.5;

/// Seconds between two ticks: what people count in.
const STEPS: [i64; 16] = [
    1,
    10,
    60,
    600,
    1800,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    30 * DAY,
    91 * DAY,
    365 * DAY,
];
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
/// A Monday.
const WEEK_BEGINS: i64 = 4 * DAY;

/// Ticks, at most: the labels of that many fit a phone.
const MOST: i64 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    from: Timestamp,
    to: Timestamp,
}

/// A moment on the axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    pub place: f64,
    pub label: String,
}

impl Axis {
    pub fn new(from: Timestamp, to: Timestamp) -> Self {
        Self { from, to: to.max(from) }
    }

    /// Where a moment is, in per cent of the width; what lies outside is at the end.
    pub fn place(&self, at: Timestamp) -> f64 {
        let span = self.to.as_millisecond().saturating_sub(self.from.as_millisecond());
        let past = at.clamp(self.from, self.to).as_millisecond().saturating_sub(self.from.as_millisecond());
        let share = if span > 0 { past as f64 / span as f64 } else { 0.0 };
        MARGIN + share * (100.0 - 2.0 * MARGIN)
    }

    /// Round moments, few enough that their labels have room.
    pub fn ticks(&self) -> Vec<Tick> {
        let (from, to) = (self.from.as_second(), self.to.as_second());
        let span = to.saturating_sub(from);
        let years = span / (MOST * 365 * DAY) + 1;
        let step = STEPS.into_iter().find(|step| span / step < MOST).unwrap_or(years * 365 * DAY);
        let offset = if step % (7 * DAY) == 0 { WEEK_BEGINS } else { 0 };
        let first = (from - offset).div_euclid(step).saturating_mul(step) + offset;
        let moments = (0..=MOST + 1).map(|count| first + count * step).filter(|at| (from..=to).contains(at));
        moments.filter_map(|at| self.tick(Timestamp::from_second(at).ok()?, step)).collect()
    }

    fn tick(&self, at: Timestamp, step: i64) -> Option<Tick> {
        let format = match step {
            ..60 => "%H:%M:%S",
            60..DAY => "%H:%M",
            DAY..200_000_000 if step < 300 * DAY => "%b %-d",
            _ => "%Y-%m",
        };
        let label = jiff::fmt::strtime::format(format, &at.to_zoned(TimeZone::UTC)).ok()?;
        Some(Tick { place: self.place(at), label })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn axis(from: &str, to: &str) -> Axis {
        Axis::new(from.parse().expect("time"), to.parse().expect("time"))
    }

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_at_round_moments() {
        let day = axis("2026-11-22T07:30:00Z", "2026-11-22T21:00:00Z");
        assert_eq!(labels(&day), ["09:00", "12:00", "15:00", "18:00", "21:00"]);
        let month = axis("2026-10-24T09:00:00Z", "2026-11-23T09:00:00Z");
        assert_eq!(labels(&month), ["Oct 26", "Nov 2", "Nov 9", "Nov 16", "Nov 23"]);
        let years = axis("2001-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
        assert!((2..=6).contains(&labels(&years).len()), "{:?}", labels(&years));
        let moment = axis("2026-11-22T07:30:00Z", "2026-11-22T07:30:00Z");
        assert_eq!(labels(&moment), ["07:30:00"]);
    }

    proptest! {
        #[test]
        fn places_grow_with_time_and_stay_on_the_page(
            from in 0i64..2_000_000_000,
            span in 0i64..2_000_000_000,
            mut moments in proptest::collection::vec(0i64..4_000_000_000, 1..20),
        ) {
            let at = |second| Timestamp::from_second(second).expect("in range");
            let axis = Axis::new(at(from), at(from + span));
            moments.sort();
            let places: Vec<f64> = moments.iter().map(|moment| axis.place(at(*moment))).collect();
            prop_assert!(places.is_sorted());
            prop_assert!(places.iter().all(|place| (0.0..=100.0).contains(place)));
            let ticks = axis.ticks();
            prop_assert!(ticks.len() <= 6);
            prop_assert!(ticks.is_sorted_by(|a, b| a.place < b.place));
        }
    }
}
