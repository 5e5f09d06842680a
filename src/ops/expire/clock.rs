//! What time it is, for whoever deletes by age. `docs/decisions/expiry-clock.md` has the reasons.
//!
//! No clock is believed alone. *Now* is the earliest of three: this host's clock; the store's, as the newest
//! WAL was stored; the servers', as the newest transaction or backup ended. One that runs ahead changes nothing, and
//! one that runs behind keeps more. Where all three are one and the same clock, a jump ahead shows as a long
//! silence: within a span that is looked back, the longest silence of more than [`QUIET`] is not counted.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// So long nothing may be heard of a cluster without any doubt about its clock.
const QUIET: SignedDuration = SignedDuration::from_hours(48);

const HOUR: i64 = 3600;

/// When something is known to have been stored or to have ended. Counted by the hour, so that its size depends on
/// years and not on WAL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    hours: BTreeSet<i64>,
    /// When the newest WAL of some timeline was stored, by the store's clock.
    store: Option<Timestamp>,
    /// When the newest transaction or backup of some timeline ended, by its server's clock.
    server: Option<Timestamp>,
}

impl Evidence {
    pub fn heard(&mut self, at: Timestamp) {
        self.hours.insert(at.as_second().div_euclid(HOUR));
    }

    /// When the newest WAL of a timeline was stored.
    pub fn stored(&mut self, at: Timestamp) {
        self.heard(at);
        self.store = self.store.max(Some(at));
    }

    /// When the newest transaction or backup of a timeline ended.
    pub fn ended(&mut self, at: Timestamp) {
        self.heard(at);
        self.server = self.server.max(Some(at));
    }
}

/// Which of the three clocks *now* is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Host,
    Store,
    Server,
}

/// The time, and what was before.
#[derive(Clone, Debug)]
pub struct Clock {
    pub now: Timestamp,
    pub source: Source,
    evidence: Evidence,
}

/// A span looked back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub begin: Timestamp,
    /// The silence that was not counted.
    pub silence: Option<(Timestamp, Timestamp)>,
}

impl Clock {
    /// `host` is this host's clock.
    pub fn new(host: Timestamp, evidence: Evidence) -> Self {
        let told =
            [(Some(host), Source::Host), (evidence.store, Source::Store), (evidence.server, Source::Server)];
        let known = told.into_iter().filter_map(|(at, source)| Some((at?, source)));
        let (now, source) = known.min_by_key(|(at, _)| *at).unwrap_or((host, Source::Host));
        Self { now, source, evidence }
    }

    /// Where a span that ends now begins.
    pub fn back(&self, span: Duration) -> Reach {
        let mut reach = Reach { begin: earlier(self.now, span), silence: None };
        // What is reached further back may hold a longer silence still.
        while let Some((from, to)) = self.longest_silence(reach.begin) {
            let begin = earlier(earlier(self.now, span), to.duration_since(from).unsigned_abs());
            if begin >= reach.begin {
                break;
            }
            reach = Reach { begin, silence: Some((from, to)) };
        }
        reach
    }

    /// The longest doubtful silence of which a part lies behind `begin`.
    fn longest_silence(&self, begin: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let hour = |hour: &i64| Timestamp::from_second(hour.saturating_mul(HOUR)).ok();
        let heard: Vec<Timestamp> = self
            .evidence
            .hours
            .iter()
            .filter_map(hour)
            .filter(|at| *at < self.now)
            .chain([self.now])
            .collect();
        let gaps = heard.windows(2).filter_map(|pair| match pair {
            [from, to] => Some((*from, *to)),
            _ => None,
        });
        gaps.filter(|(from, to)| *to > begin && to.duration_since(*from) > QUIET)
            .max_by_key(|(from, to)| to.duration_since(*from))
    }
}

/// Saturating: a window of a thousand years keeps everything.
pub fn earlier(at: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    at.checked_sub(span).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86400);

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// Something is heard every six hours from the first of November on, `days` long.
    fn november(days: i64) -> Evidence {
        let mut evidence = Evidence::default();
        for six_hours in 0..days * 4 {
            let time = at("2026-11-01T00:00:00Z") + SignedDuration::from_hours(six_hours * 6);
            evidence.stored(time);
            evidence.ended(time);
        }
        evidence
    }

    #[test]
    fn now_is_what_the_slowest_of_three_clocks_says() {
        let sane = at("2026-11-21T00:30:00Z");
        let (ahead, behind) = (at("2030-01-01T00:00:00Z"), at("1999-01-01T00:00:00Z"));
        let newest = at("2026-11-20T18:00:00Z");
        for (host, store, server, now, source) in [
            (sane, newest, newest, newest, Source::Store),
            (ahead, newest, newest, newest, Source::Store),
            (sane, ahead, newest, newest, Source::Server),
            (sane, newest, ahead, newest, Source::Store),
            (ahead, ahead, newest, newest, Source::Server),
            (sane, ahead, ahead, sane, Source::Host),
            (behind, newest, newest, behind, Source::Host),
            (sane, behind, newest, behind, Source::Store),
            (sane, newest, behind, behind, Source::Server),
        ] {
            let evidence = Evidence { store: Some(store), server: Some(server), ..november(20) };
            let clock = Clock::new(host, evidence);
            assert_eq!((clock.now, clock.source), (now, source), "{host} {store} {server}");
        }
        assert_eq!(Clock::new(sane, Evidence::default()).now, sane);
    }

    #[test]
    fn a_span_is_what_it_says_while_something_is_heard_every_day() {
        let clock = Clock::new(at("2026-11-21T00:30:00Z"), november(20));
        assert_eq!(clock.back(14 * DAY), Reach { begin: at("2026-11-06T18:00:00Z"), silence: None });
        assert_eq!(clock.back(Duration::ZERO).begin, clock.now);
        let begin = clock.back(90 * DAY).begin;
        assert_eq!(begin, at("2026-08-22T18:00:00Z"), "of before the first evidence nothing is known");
        assert_eq!(clock.back(Duration::MAX).begin, Timestamp::MIN);
    }

    #[test]
    fn a_jump_of_all_clocks_shortens_no_span() {
        let mut evidence = november(20);
        // Three days on, by clocks that say 2030.
        for hour in 0..72 {
            let time = at("2030-01-01T00:00:00Z") + SignedDuration::from_hours(hour);
            evidence.stored(time);
            evidence.ended(time);
        }
        let clock = Clock::new(at("2030-01-04T00:00:00Z"), evidence);
        let reach = clock.back(14 * DAY);
        assert_eq!(clock.now, at("2030-01-03T23:00:00Z"));
        let silence = (at("2026-11-20T18:00:00Z"), at("2030-01-01T00:00:00Z"));
        assert_eq!(reach.silence, Some(silence));
        let heard = silence.0.duration_since(reach.begin) + clock.now.duration_since(silence.1);
        assert_eq!(heard, SignedDuration::from_hours(14 * 24));
    }

    #[test]
    fn a_server_that_was_off_keeps_what_it_had() {
        let mut evidence = november(20);
        evidence.stored(at("2027-02-01T00:00:00Z"));
        evidence.ended(at("2027-02-01T00:00:00Z"));
        let clock = Clock::new(at("2027-02-01T01:00:00Z"), evidence);
        assert_eq!(clock.back(14 * DAY).begin, at("2026-11-06T18:00:00Z"));
        assert_eq!(clock.back(DAY).begin, at("2026-11-19T18:00:00Z"));
    }

    #[test]
    fn of_several_silences_only_the_longest_is_doubted() {
        let mut evidence = Evidence::default();
        for week in 0..30 {
            let time = at("2026-01-04T00:00:00Z") + SignedDuration::from_hours(week * 7 * 24);
            evidence.stored(time);
            evidence.ended(time);
        }
        let clock = Clock::new(at("2027-01-01T00:00:00Z"), evidence);
        assert_eq!(clock.now.duration_since(clock.back(14 * DAY).begin), SignedDuration::from_hours(21 * 24));
    }

    proptest! {
        #[test]
        fn a_longer_span_begins_no_later_and_none_begins_too_late(
            hours in proptest::collection::vec(0i64..5000, 0..40),
            one in 0u64..100,
            more in 0u64..100,
        ) {
            let mut evidence = Evidence::default();
            let origin = at("2026-01-01T00:00:00Z");
            hours.iter().for_each(|hour| evidence.heard(origin + SignedDuration::from_hours(*hour)));
            let clock = Clock::new(origin + SignedDuration::from_hours(5000), evidence);
            let short = clock.back(one as u32 * DAY);
            let long = clock.back((one + more) as u32 * DAY);
            prop_assert!(long.begin <= short.begin);
            prop_assert!(short.begin <= earlier(clock.now, one as u32 * DAY));
        }
    }
}
