//! The rules that count periods: of each of the most recent N days (weeks, months, years) in which a good backup
//! ended, the last one is kept.
//!
//! "The last" is so in the order of the WAL: one that no other of that period comes behind on any line. So on both
//! sides of a fork there may be a last one. A time that is not believed counts for no period, but may be of any up to
//! that of the next believed one.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::lines::Line;
use super::periods::{Period, Which};
use super::plan::Kept;
use super::reason::Reason;
use crate::config::Expire;

/// Applies all of them.
pub fn periods(facts: &Facts, lines: &[Line<'_>], policy: &Expire, kept: &mut Kept) {
    let rules = [
        (Period::Day, policy.keep_daily),
        (Period::Week, policy.keep_weekly),
        (Period::Month, policy.keep_monthly),
        (Period::Year, policy.keep_yearly),
    ];
    let (believed, doubtful) = good(lines);
    for (period, count) in rules {
        let Some(count) = count else { continue };
        let mut groups: BTreeMap<Which, Vec<usize>> = BTreeMap::new();
        for index in &believed {
            if let Some(backup) = facts.backups.get(*index) {
                groups.entry(period.of(backup.stop)).or_default().push(*index);
            }
        }
        let recent: Vec<(Which, Vec<usize>)> = groups.into_iter().rev().take(count.get() as usize).collect();
        for (_, group) in &recent {
            for index in group.iter().filter(|index| is_last(**index, group, lines)) {
                let Some(backup) = facts.backups.get(*index) else { continue };
                kept.keep(*index, Reason::Period { period, name: period.name(backup.stop) });
            }
        }
        let oldest = recent.last().map(|(which, _)| *which).filter(|_| recent.len() == count.get() as usize);
        for (index, latest) in &doubtful {
            if oldest.is_none_or(|oldest| period.of(*latest) >= oldest) {
                kept.keep(*index, Reason::PerhapsPeriod { period });
            }
        }
    }
}

/// Good backups whose time is believed on every line, and the others with the latest time that they may have.
fn good(lines: &[Line<'_>]) -> (BTreeSet<usize>, BTreeMap<usize, jiff::Timestamp>) {
    let mut believed = BTreeSet::new();
    let mut doubtful: BTreeMap<usize, jiff::Timestamp> = BTreeMap::new();
    for backup in lines.iter().flat_map(Line::good) {
        if backup.believed {
            believed.insert(backup.index);
        } else {
            let latest = doubtful.entry(backup.index).or_insert(backup.time);
            *latest = backup.time.max(*latest);
        }
    }
    believed.retain(|index| !doubtful.contains_key(index));
    (believed, doubtful)
}

fn is_last(index: usize, group: &[usize], lines: &[Line<'_>]) -> bool {
    !group.iter().any(|other| lines.iter().any(|line| line.has_in_order(index, *other)))
}
