//! Sizes, spans and moments as people read them, in results, findings and reports alike.

use std::time::Duration;

use indicatif::BinaryBytes;
use jiff::Timestamp;

/// "1.2 GiB"
pub fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// The two largest units of a span: "2 d 4 h", "3 min 10 s", "0 s".
pub fn span(span: Duration) -> String {
    const UNITS: [(&str, u64); 5] = [("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1)];
    let seconds = span.as_secs();
    let first = UNITS.iter().position(|(_, size)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut words = Vec::new();
    for (unit, size) in UNITS.iter().skip(first).take(2) {
        if rest / size > 0 || words.is_empty() {
            words.push(format!("{} {unit}", rest / size));
        }
        rest %= size;
    }
    words.join(" ")
}

/// "3 h 12 min ago". What lies in the future, because a clock is wrong, is told as such.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    match Duration::try_from(now.duration_since(since)) {
        Ok(past) => format!("{} ago", span(past)),
        Err(_) => format!("in {}", span(since.duration_since(now).unsigned_abs())),
    }
}

/// "1 backup", "2 backups".
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A moment as people and `--target-time` read it, to the second: "2026-11-22 10:00:00+00".
pub fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S+00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let day = 86400;
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (190, "3 min 10 s"),
            (3600, "1 h"),
            (3601, "1 h"),
            (2 * day + 4 * 3600 + 59, "2 d 4 h"),
            (400 * day, "1 y 35 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn ages_tell_the_future_as_such() {
        let at = |text: &str| text.parse::<Timestamp>().expect("time");
        let now = at("2026-11-23T12:00:00Z");
        assert_eq!(age(at("2026-11-23T08:48:00Z"), now), "3 h 12 min ago");
        assert_eq!(age(now, now), "0 s ago");
        assert_eq!(age(at("2026-11-23T13:00:00Z"), now), "in 1 h");
        assert_eq!(moment(at("2026-11-23T13:00:00.5Z")), "2026-11-23 13:00:00+00");
    }

    proptest! {
        #[test]
        fn longer_spans_are_never_told_as_shorter_by_a_unit(seconds in 0_u64..10_000_000_000) {
            let words = span(Duration::from_secs(seconds));
            let units: Vec<&str> = words.split(' ').skip(1).step_by(2).collect();
            prop_assert!(!units.is_empty() && units.len() <= 2, "{}", words);
        }
    }
}
