//! What the WAL that will be replayed says: tablespaces that it creates at their original paths, settings
//! that recovery needs, where recovery could not pass, and what the operator should know.

use std::ops::{ControlFlow, RangeInclusive};

use super::choose::{Archive, Choice, Stop};
use super::target::{Aim, Target};
use crate::error::{Error, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::Lsn;
use crate::pg::oid::Oid;
use crate::pg::recovery::Minimums;
use crate::pg::time::Timestamp;
use crate::pg::wal::{RawText, SegmentFacts, Sought, TablespaceAction, Unfinished, WalLevel};

/// Places of damage and later restore points that a plan names, at most.
const NAMED: usize = 5;

/// A tablespace that replay will create, at the path that the source used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTablespace {
    pub oid: Oid,
    pub path: RawText,
    pub lsn: Lsn,
}

/// All of it, for the records from the backup's start to the stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    pub created: Vec<CreatedTablespace>,
    /// Replay makes a tablespace inside the data directory.
    pub in_place: bool,
    pub minimums: Minimums,
    /// Places where the archived WAL is not as PostgreSQL writes it: recovery may not get past them.
    pub damage: Vec<String>,
    /// The latest end of a transaction: at the end of the archive of all, else in the segments before that in
    /// which recovery stops.
    pub last_end: Option<Timestamp>,
    /// Further restore points of the name that is the target.
    pub namesakes: u64,
}

/// Goes through the facts of all segments that recovery needs. `configured` are the settings at the backup's
/// start. Refuses a stretch of wal_level = minimal, which recovery does not pass.
pub fn survey<A: Archive>(archive: &A, choice: &Choice, aim: &Aim, configured: Minimums) -> Result<Survey> {
    let mut survey = Survey {
        created: Vec::new(),
        in_place: false,
        minimums: configured,
        damage: Vec::new(),
        last_end: None,
        namesakes: 0,
    };
    let replayed = Replayed { from: choice.backup.start, until: last_replayed(choice, aim.inclusive) };
    let last = *choice.segments.end();
    let to_the_end = matches!(choice.stop, Stop::End { .. });
    archive.facts(&choice.path, choice.segments.clone(), &mut |segment, facts| {
        if segment < last || to_the_end {
            survey.last_end = survey.last_end.max(facts.latest_time);
        }
        survey.note(&facts, &replayed)?;
        if let Some(unfinished) = facts.unfinished.filter(Unfinished::may_matter) {
            survey.note(&archive.join(&choice.path, segment, &unfinished)?, &replayed)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let (Target::Name(name), Stop::At(found)) = (&aim.target, &choice.stop) {
        let name = RawText::from(name.as_str());
        let behind = archive.segment_size().segment_of(found.lsn)..=choice.archived;
        survey.namesakes = namesakes(archive, &choice.path, behind, &name, found.end_lsn)?;
    }
    Ok(survey)
}

/// The LSNs of the records that are replayed.
struct Replayed {
    from: Lsn,
    until: Lsn,
}

impl Replayed {
    fn contains(&self, lsn: Lsn) -> bool {
        (self.from..=self.until).contains(&lsn)
    }
}

/// The last LSN at which a record that is replayed can begin. The ends of transactions and the restore points
/// at which recovery stops are no records that are looked for here, so their side does not matter.
fn last_replayed(choice: &Choice, inclusive: bool) -> Lsn {
    let before = |lsn: Lsn| Lsn(lsn.0.saturating_sub(1));
    match &choice.stop {
        // Recovery stops before the next record.
        Stop::Consistent => before(choice.backup.consistent),
        Stop::Lsn(lsn) if !inclusive => before(*lsn),
        _ => choice.lsn(),
    }
}

impl Survey {
    fn note(&mut self, facts: &SegmentFacts, replayed: &Replayed) -> Result<()> {
        for change in facts.tablespaces.first.iter().filter(|change| replayed.contains(change.lsn)) {
            let TablespaceAction::Created(path) = &change.change else { continue };
            // An empty path lies inside the data directory.
            if path.as_bytes().is_empty() {
                self.in_place = true;
            } else {
                self.created.push(CreatedTablespace { oid: change.oid, path: path.clone(), lsn: change.lsn });
            }
        }
        for change in facts.settings.first.iter().filter(|change| replayed.contains(change.lsn)) {
            if change.settings.wal_level == WalLevel::Minimal {
                return Err(minimal(change.lsn));
            }
            self.minimums = self.minimums.and_later(&change.settings);
        }
        if !facts.tablespaces.is_complete() || !facts.settings.is_complete() {
            return Err(Error::corrupt(format!(
                "could not plan this restore: a segment from {} on changes more tablespaces or settings than \
                 its header lists",
                facts.first_lsn.unwrap_or(replayed.from)
            )));
        }
        let room = NAMED.saturating_sub(self.damage.len());
        let damage = facts.damage.first.iter().filter(|damage| damage.lsn >= replayed.from);
        self.damage.extend(damage.take(room).map(ToString::to_string));
        Ok(())
    }
}

fn minimal(lsn: Lsn) -> Error {
    Error::not_found(format!(
        "could not plan this restore: at {lsn} the server was set to wal_level = minimal, and recovery does \
         not pass that"
    ))
    .with_hint(format!(
        "take a target before it (--target-lsn {lsn} --exclusive), or one behind a backup that began later"
    ))
}

/// How many restore points of a name lie behind an LSN.
fn namesakes<A: Archive>(
    archive: &A,
    path: &TimelineHistory,
    segments: RangeInclusive<u64>,
    name: &RawText,
    behind: Lsn,
) -> Result<u64> {
    let sought = Sought::RestorePoint(name.clone());
    let mut count = 0;
    archive.facts(path, segments, &mut |_, facts| {
        if sought.may_be_in(&facts) {
            let same = |point: &&crate::pg::wal::RestorePoint| point.name == *name && point.lsn >= behind;
            count += facts.restore_points.first.iter().filter(same).count() as u64;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::super::choose::choose;
    use super::super::choose::fake::Record::{CreateTablespace, End, Other, Point};
    use super::super::choose::fake::{Fake, lsn, second};
    use super::*;
    use crate::pg::control::RecoverySettings;

    fn minimums() -> Minimums {
        Minimums::of_control(&RecoverySettings {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
        })
    }

    fn archive() -> Fake {
        Fake::new()
            .segment(1, 1, &[CreateTablespace(1, "/before"), Other, CreateTablespace(2, "/during"), Other])
            .segment(1, 2, &[End(10, 100), Point("p", 105), CreateTablespace(3, "/after"), Other])
            .segment(
                1,
                3,
                &[End(11, 110), CreateTablespace(4, ""), CreateTablespace(5, "/later"), Point("p", 120)],
            )
            .backup("one", 1, lsn(1, 1), lsn(1, 3), 60)
    }

    fn surveyed(fake: &Fake, target: Target) -> Survey {
        surveyed_to(fake, &Aim { target, inclusive: true, timeline: None })
    }

    fn surveyed_to(fake: &Fake, aim: &Aim) -> Survey {
        let choice = choose(fake, &fake.histories, &fake.backups, aim, second(1_000_000)).expect("reachable");
        survey(fake, &choice, aim, minimums()).expect("surveyed")
    }

    fn paths(survey: &Survey) -> Vec<String> {
        survey.created.iter().map(|created| created.path.to_string()).collect()
    }

    #[test]
    fn only_tablespaces_created_between_start_and_stop_count() {
        let all = surveyed(&archive(), Target::Latest);
        assert_eq!(
            (paths(&all), all.in_place),
            (["/during", "/after", "/later"].map(str::to_owned).to_vec(), true)
        );
        assert_eq!(all.last_end, Some(second(110)));
        let until = surveyed(&archive(), Target::Time(second(105)));
        assert_eq!(paths(&until), ["/during", "/after"]);
        assert_eq!(until.last_end, Some(second(100)));
        let immediate = surveyed(&archive(), Target::Immediate);
        assert_eq!((paths(&immediate), immediate.in_place), (vec!["/during".to_owned()], false));
    }

    #[test]
    fn a_target_before_a_creation_is_before_it_to_the_record() {
        let at = |record, inclusive| {
            let target = Target::Lsn(lsn(2, record));
            paths(&surveyed_to(&archive(), &Aim { target, inclusive, timeline: None }))
        };
        assert_eq!(at(1, true), ["/during"]);
        assert_eq!(at(2, false), ["/during"]);
        assert_eq!(at(2, true), ["/during", "/after"]);
    }

    #[test]
    fn a_creation_that_two_segments_share_counts_too() {
        let fake = Fake::new()
            .segment(1, 1, &[Other, Other, CreateTablespace(7, "/shared")])
            .spilling(1, 1)
            .segment(1, 2, &[Other])
            .backup("one", 1, lsn(1, 0), lsn(1, 1), 60);
        assert_eq!(paths(&surveyed(&fake, Target::Latest)), ["/shared"]);
    }

    #[test]
    fn further_restore_points_of_the_name_are_counted() {
        let survey = surveyed(&archive(), Target::Name("p".parse().expect("a name")));
        assert_eq!(survey.namesakes, 1);
    }
}
