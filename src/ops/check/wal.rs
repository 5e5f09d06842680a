//! The archived WAL on the server's path: how old the newest is, what is missing since the oldest backup, and
//! whether the repository knows how the server's timeline came about.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use super::backups::Backup;
use super::finding::{Finding, Level, Limits, Measure};
use super::server::Server;
use super::words::{bytes, span};
use crate::error::Result;
use crate::pg::history::TimelineHistory;
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::repo::catalog::{Catalog, Missing};
use crate::repo::expired::Gone;
use crate::repo::{gap, streamed};

/// Runs of missing segments that are told one by one.
const TOLD: usize = 5;

/// Of a fresh segment, its first page's header: nothing was written since the switch (SizeOfXLogLongPHD).
const UNTOUCHED: u64 = 40;

/// The archive along the way that leads to the server's timeline.
pub struct Path<'a> {
    pub catalog: Catalog<'a>,
    pub history: TimelineHistory,
}

impl Path<'_> {
    pub fn name(&self, number: u64) -> SegmentName {
        self.catalog.name_on(&self.history, number)
    }

    fn names(&self, run: &RangeInclusive<u64>) -> String {
        match run.start() == run.end() {
            true => self.name(*run.start()).to_string(),
            false => format!("{} to {}", self.name(*run.start()), self.name(*run.end())),
        }
    }
}

/// The newest segment on the path, by its number.
pub fn newest(path: &Path<'_>, usable: &[Backup]) -> Result<Option<u64>> {
    let from = usable.first().map_or(0, |oldest| path.catalog.segment_size().segment_of(oldest.at.start));
    path.catalog.newest_on(&path.history, from)
}

/// How old the newest WAL is, and what the server wrote since. Old WAL is no trouble where nothing was written.
pub fn age(
    path: &Path<'_>,
    newest: Option<u64>,
    server: Option<&Server>,
    now: SystemTime,
    limits: &Limits<Duration>,
) -> Result<(Finding, Option<Measure>)> {
    const CHECK: &str = "wal_age";
    const WHY: &str = "what the server wrote since is lost with it";
    let Some(newest) = newest else {
        let finding = Finding::critical(CHECK, "no WAL of this server's timeline path is in the repository")
            .because("without WAL no backup can be restored")
            .remedy("see the finding about archiving");
        return Ok((finding, None));
    };
    let name = path.name(newest);
    let key = path.catalog.cluster().layout().segment(name)?;
    let stored = path.catalog.cluster().store().head(&key)?.modified;
    let age = now.duration_since(stored).unwrap_or_default();
    let behind = match server {
        Some(server) => Some(not_here(server.end, archived_up_to(path, newest)?)),
        None => None,
    };
    let level = if behind == Some(0) { Level::Ok } else { limits.of_large(&age) };
    let since = match behind {
        None => String::new(),
        Some(0) => ", and the server has written nothing since".to_string(),
        Some(behind) => format!("; {} that the server has are not here yet", bytes(behind)),
    };
    let finding =
        Finding::new(level, CHECK, format!("the newest segment, {name}, came {} ago{since}", span(age)))
            .because(WHY)
            .remedy("set archive_timeout, or run wal-receive; if archiving fails, see that finding");
    let seconds = Limits { warning: limits.warning.as_secs(), critical: limits.critical.as_secs() };
    Ok((finding, Some(Measure::new("last_wal_age_seconds", age.as_secs()).limits(seconds))))
}

/// The end of the WAL that is here: of the newest segment, or of what was streamed of the next.
fn archived_up_to(path: &Path<'_>, newest: u64) -> Result<Lsn> {
    let next = newest.saturating_add(1);
    let part = streamed::longest(path.catalog.cluster(), path.name(next))?;
    Ok(part.map_or_else(|| path.catalog.segment_size().start_of(next), |part| part.end))
}

fn not_here(end: Lsn, archived: Lsn) -> u64 {
    let behind = end.0.saturating_sub(archived.0);
    if behind <= UNTOUCHED { 0 } else { behind }
}

/// What is missing on the path between the oldest backup on it and the newest segment, but for what has expired.
pub fn missing(path: &Path<'_>, usable: &[Backup], newest: Option<u64>) -> Result<Missing> {
    let size = path.catalog.segment_size();
    let oldest = usable.iter().map(|backup| size.segment_of(backup.at.start)).min();
    let Some((from, to)) = oldest.zip(newest) else { return Ok(Missing::default()) };
    missing_between(path, from, to)
}

/// The same between two segments.
pub fn missing_between(path: &Path<'_>, from: u64, to: u64) -> Result<Missing> {
    let Missing { mut runs, .. } = path.catalog.missing(&path.history, from, to, usize::MAX)?;
    let size = path.catalog.segment_size();
    if !runs.is_empty() {
        let gone = Gone::read(path.catalog.cluster(), size)?;
        runs.retain(|run| !gone.has(&path.history, run, size));
    }
    let count = runs.iter().map(|run| run.end().saturating_sub(*run.start()).saturating_add(1)).sum();
    Ok(Missing { runs, count })
}

/// `here`: whether the server's pg_wal still has a missing segment.
pub fn holes(
    path: &Path<'_>,
    missing: &Missing,
    usable: &[Backup],
    here: impl Fn(SegmentName) -> bool,
) -> Vec<Finding> {
    const CHECK: &str = "holes";
    let Some(newest) = usable.last() else { return Vec::new() };
    if missing.runs.is_empty() {
        return vec![Finding::ok(CHECK, "no WAL is missing since the oldest backup of this server")];
    }
    let size = path.catalog.segment_size();
    let needed = size.segment_of(newest.at.start);
    let mut findings: Vec<Finding> = Vec::new();
    for run in missing.runs.iter().rev().take(TOLD) {
        let cuts_newest = *run.end() >= needed;
        let healable = run.clone().filter(|number| here(path.name(*number))).count();
        let story = gap::around(path.catalog.cluster(), path.name(*run.start()));
        let story = story.map_or(String::new(), |gap| format!(": {}", gap.story()));
        let what = format!("{} missing from the archive{story}", verb(&path.names(run), run));
        let level = if cuts_newest { Level::Critical } else { Level::Warning };
        findings.push(Finding::new(level, CHECK, what).because(why(cuts_newest)).remedy(remedy(
            healable,
            run,
            cuts_newest,
        )));
    }
    let untold = missing.runs.len().saturating_sub(TOLD);
    if untold > 0 {
        findings.push(
            Finding::warning(CHECK, format!("{untold} further runs of WAL before these are missing too"))
                .because(why(false))
                .remedy("`pgark info` shows all of them"),
        );
    }
    findings
}

fn verb(names: &str, run: &RangeInclusive<u64>) -> String {
    if run.start() == run.end() { format!("{names} is") } else { format!("{names} are") }
}

fn why(cuts_newest: bool) -> &'static str {
    if cuts_newest {
        "no backup can be restored beyond this: not even the newest one to now"
    } else {
        "backups from before it can't be restored beyond it; the newest one can"
    }
}

fn remedy(healable: usize, run: &RangeInclusive<u64>, cuts_newest: bool) -> String {
    let count = run.end().saturating_sub(*run.start()).saturating_add(1);
    match (healable, cuts_newest) {
        (0, true) => {
            "if another server's pg_wal still has it, run `pgark check --heal` there, or wal-push it; else \
                      take a backup now"
                .to_string()
        }
        (0, false) => {
            "if another server's pg_wal still has it, wal-push it; else nothing is to be done".to_string()
        }
        (here, _) => {
            format!("this server's pg_wal has {here} of the {count}: run `pgark check --heal` on its host")
        }
    }
}

/// Whether the repository knows the way to the server's timeline, and no other server took over from it.
pub fn timeline(path: &Path<'_>, known: bool, server: &Server) -> Result<Vec<Finding>> {
    const CHECK: &str = "timeline";
    let timeline = server.timeline;
    let mut findings = Vec::new();
    if known {
        findings.push(Finding::ok(CHECK, format!("the repository knows the server's timeline {timeline}")));
    } else {
        let file = WalFile::History(timeline);
        findings.push(
            Finding::critical(
                CHECK,
                format!("the repository lacks {file}, the history of the server's timeline"),
            )
            .because("a restore can't follow this timeline, and another promotion may take its number again")
            .remedy(format!(
                "run `pgark check --heal` on its host, or `wal-push pg_wal/{file}` in its data directory"
            )),
        );
    }
    findings.extend(taken_over(path, server)?);
    Ok(findings)
}

/// A timeline that left this server's before its end, and has WAL: another server was promoted.
fn taken_over(path: &Path<'_>, server: &Server) -> Result<Option<Finding>> {
    for (timeline, fork) in forks(&path.catalog, server)? {
        if path.catalog.newest(timeline)?.is_some() {
            return Ok(Some(
                Finding::warning("timeline", format!("timeline {timeline} left this server's at {fork} and archives too"))
                    .because("two servers go on from the same past: what is written here is on a branch that others may have left")
                    .remedy("if another server was promoted, stop this one and rebuild it as a standby; `pgark info` shows the timelines"),
            ));
        }
    }
    Ok(None)
}

fn forks(catalog: &Catalog<'_>, server: &Server) -> Result<Vec<(Timeline, Lsn)>> {
    let histories = catalog.histories()?;
    let left =
        |history: &TimelineHistory| history.switch_point(server.timeline).filter(|fork| *fork < server.end);
    let newest_first = histories.values().rev();
    Ok(newest_first.filter_map(|history| Some((history.timeline(), left(history)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::backups::tests::backup;
    use super::super::settings::tests::server;
    use super::*;
    use crate::pg::lsn::SegmentSize;
    use crate::repo::expired;
    use crate::repo::fixture::Fixture;
    use crate::repo::runs::Runs;
    use crate::repo::segment;
    use std::collections::BTreeMap;

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::try_from(MIB).expect("a size")
    }

    fn put(fixture: &Fixture, timeline: u32, numbers: &[u64]) {
        for number in numbers {
            let name = SegmentName::from_number(Timeline(timeline), *number, size());
            let key = fixture.cluster.layout().segment(name).expect("key");
            fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
        }
    }

    fn path<'a>(fixture: &'a Fixture, timeline: u32, history: &str) -> Path<'a> {
        let history = match history {
            "" => TimelineHistory::without_parents(Timeline(timeline)),
            text => TimelineHistory::parse(Timeline(timeline), text.as_bytes()).expect("a history"),
        };
        Path { catalog: Catalog::new(&fixture.cluster, size()), history }
    }

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_hole_is_critical_if_it_cuts_off_the_newest_backup() {
        let fixture = Fixture::create();
        put(&fixture, 1, &[1, 2, 4, 5, 6, 9]);
        let path = path(&fixture, 1, "");
        let backups = [backup("a", 1, MIB + 40, 9), backup("b", 1, 4 * MIB + 40, 1)];
        let newest = newest(&path, &backups).expect("listed");
        assert_eq!(newest, Some(9));
        let missing = missing(&path, &backups, newest).expect("listed");
        let findings = holes(&path, &missing, &backups, |name| name.segment == 8);
        assert_eq!(levels(&findings), [Level::Critical, Level::Warning]);
        let texts: Vec<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            texts[0],
            "000000010000000000000007 to 000000010000000000000008 are missing from the archive"
        );
        assert_eq!(texts[1], "000000010000000000000003 is missing from the archive");
        assert!(findings[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("has 1 of the 2")));
        let going = BTreeMap::from([(Timeline(1), Runs::from(3..=3))]);
        expired::note(&fixture.cluster, size(), &going).expect("noted");
        let left = super::missing(&path, &backups, Some(9)).expect("listed");
        assert_eq!(
            (left.runs.as_slice(), left.count),
            ([7..=8].as_slice(), 2),
            "what has expired is not missed"
        );
    }

    #[test]
    fn what_a_dead_primary_did_not_archive_is_a_hole_on_the_new_timeline() {
        let fixture = Fixture::create();
        put(&fixture, 1, &[1, 2]);
        put(&fixture, 2, &[5, 6]);
        let path = path(&fixture, 2, "1\t0/500028\tno recovery target specified\n");
        let backups = [backup("a", 1, MIB + 40, 1)];
        let missing = missing(&path, &backups, newest(&path, &backups).expect("listed")).expect("listed");
        assert_eq!(missing.runs, [3..=4]);
    }

    #[test]
    fn old_wal_is_no_trouble_while_nothing_is_written() {
        let fixture = Fixture::create();
        put(&fixture, 1, &[4]);
        let path = path(&fixture, 1, "");
        let limits = Limits { warning: Duration::from_secs(60), critical: Duration::from_secs(600) };
        let later = SystemTime::now() + Duration::from_secs(120);
        let level = |end: u64| {
            let server = Server { end: Lsn(end), ..server(&[]) };
            age(&path, Some(4), Some(&server), later, &limits).expect("looked").0.level
        };
        assert_eq!(level(5 * MIB + 40), Level::Ok);
        assert_eq!(level(5 * MIB + 41), Level::Warning);
        let part = streamed::StreamedPart { segment: path.name(5), end: Lsn(5 * MIB + 4096) };
        let key = fixture.cluster.layout().streamed(part.segment, part.end).expect("key");
        fixture.cluster.store().create(&key, &b"x"[..]).expect("created");
        assert_eq!(level(5 * MIB + 4096), Level::Ok);
        assert_eq!(age(&path, None, None, later, &limits).expect("looked").0.level, Level::Critical);
    }

    #[test]
    fn a_history_must_be_there_and_nobody_else_go_on_from_this_timeline() {
        let fixture = Fixture::create();
        let path = path(&fixture, 1, "");
        let judge = |known, end: u64| {
            let server = Server { end: Lsn(end), ..server(&[]) };
            levels(&timeline(&path, known, &server).expect("looked"))
        };
        assert_eq!(judge(true, 9 * MIB), [Level::Ok]);
        assert_eq!(judge(false, 9 * MIB), [Level::Critical]);
        segment::put_plain(&fixture.cluster, WalFile::History(Timeline(2)), b"1\t0/500028\tx\n")
            .expect("stored");
        assert_eq!(judge(true, 9 * MIB), [Level::Ok], "nothing was archived on it");
        put(&fixture, 2, &[5]);
        assert_eq!(judge(true, 9 * MIB), [Level::Ok, Level::Warning]);
        assert_eq!(judge(true, 5 * MIB), [Level::Ok], "it begins where this server has not been yet");
    }
}
