//! Does WAL really get here? On a primary a segment is forced out and waited for, until it is in the repository
//! and its header says what it should. Then what the server tells of its archiver and of what waits for it.

use std::time::{Duration, Instant};

use super::finding::{Finding, Limits, Measure};
use super::server::{self, Server, Waiting};
use super::settings::Way;
use crate::error::{Error, Kind, Result};
use crate::interrupt::Interrupt;
use crate::ops::backup::archive::Archiver;
use crate::pg::client::Client;
use crate::pg::names::SegmentName;
use crate::repo::{Cluster, segment};

const CHECK: &str = "segment_arrives";
const POLL: Duration = Duration::from_millis(100);

/// So many failures since we asked for a segment are enough, as in `basebackup`.
const FAILURES: i64 = 3;

/// What is tried.
pub struct Trial<'a> {
    pub cluster: &'a Cluster,
    pub way: &'a Way,
    pub limit: Duration,
    pub interrupt: &'a Interrupt,
}

impl Trial<'_> {
    /// Ends a segment on the server, waits for it, and says how that went.
    pub fn run(&self, client: &mut Client, server: &Server) -> Result<Finding> {
        if !server::may(client, "pg_switch_wal()")? {
            return Ok(not_allowed(&server.role));
        }
        let before = Archiver::ask(client)?;
        // So that there is something to switch away from (RequestXLogSwitch does nothing at a boundary).
        client.query("select pg_logical_emit_message(false, 'pgark', 'does archiving work?')", &[])?;
        let name: String = client.query_one_text("select pg_walfile_name(pg_switch_wal())", &[])?;
        let name: SegmentName = name.parse()?;
        let started = Instant::now();
        loop {
            if let Some(finding) = self.arrived(name, started)? {
                return Ok(finding);
            }
            let now = Archiver::ask(client)?;
            let decided = now.claims(name) || now.failures >= before.failures.saturating_add(FAILURES);
            if decided || started.elapsed() >= self.limit {
                self.cluster.repository().confirm()?;
                let late = self.arrived(name, started)?;
                return Ok(late.unwrap_or_else(|| self.missing(name, &before, &now)));
            }
            self.interrupt.sleep(POLL)?;
        }
    }

    fn arrived(&self, name: SegmentName, started: Instant) -> Result<Option<Finding>> {
        match segment::read_header(self.cluster, name) {
            Ok(header) if header.facts.damage.is_empty() => {
                let seconds = started.elapsed().as_secs_f64();
                let what =
                    format!("{name}, just ended by a WAL switch, was in the repository after {seconds:.1} s");
                Ok(Some(Finding::ok(CHECK, what)))
            }
            Ok(header) => Ok(Some(damaged(name, &header.facts.damage.first))),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Ok(Some(unreadable(name, &error))),
        }
    }

    fn missing(&self, name: SegmentName, before: &Archiver, now: &Archiver) -> Finding {
        const WHY: &str =
            "what the server writes now can't be restored, and its pg_wal grows until the disk is full";
        let how = self.way.describe();
        if now.claims(name) {
            let cluster = self.cluster.name();
            return Finding::critical(
                CHECK,
                format!("the server says that it archived {name}, but it is not a segment of cluster {cluster} here"),
            )
            .because("the WAL goes somewhere else, so no backup here can be restored to now")
            .remedy(format!("give {how} the same repository and cluster name as this check"));
        }
        let what = match (&now.last_failed, now.failures.saturating_sub(before.failures)) {
            (Some(file), failures @ 1..) => {
                format!("archiving failed {failures} times since the WAL switch, last for {file}")
            }
            _ => format!("{name} did not arrive in the repository within {} s", self.limit.as_secs()),
        };
        Finding::critical(CHECK, what).because(WHY).remedy(match self.way {
            Way::None(_) => "set up archive_command = 'wal-push %p', or run wal-receive".to_string(),
            Way::Receiver => "look at the log of wal-receive, and `wal-receive --status`".to_string(),
            _ => format!(
                "the server's log has the messages of {how}; run it by hand as the server's user to see more"
            ),
        })
    }
}

fn not_allowed(role: &str) -> Finding {
    Finding::unknown(
        CHECK,
        format!("the role \"{role}\" may not switch WAL, so it was not seen that a segment arrives"),
    )
    .because("settings alone do not prove that WAL gets into the repository")
    .remedy(format!(
        "grant execute on function pg_switch_wal() to \"{role}\"; or leave it out with --no-switch"
    ))
}

fn unreadable(name: SegmentName, error: &Error) -> Finding {
    Finding::critical(CHECK, format!("{name} arrived in the repository, but can't be read: {error}"))
        .because("the newest WAL is not worth anything there")
        .remedy(error.hint().unwrap_or("look at the repository's disk, then run `pgark verify`"))
}

fn damaged(name: SegmentName, damage: &[crate::pg::wal::Damage]) -> Finding {
    let first = damage.first().map(ToString::to_string).unwrap_or_default();
    Finding::critical(CHECK, format!("{name} arrived in the repository, but is damaged {first}"))
        .because("that is how the server has it: its disk or memory damages WAL")
        .remedy("look at the server's hardware, and take a backup: recovery stops at the damage")
}

/// What pg_stat_archiver tells. To be asked behind the trial, which gives a failing archiver a chance.
pub fn archiver(client: &mut Client, way: &Way) -> Result<Option<Finding>> {
    if !matches!(way, Way::Command(_) | Way::Library(_)) {
        return Ok(None);
    }
    Archiver::ask(client).map(|archiver| Some(judge_archiver(&archiver, way)))
}

fn judge_archiver(archiver: &Archiver, way: &Way) -> Finding {
    const CHECK: &str = "archiver";
    let failing =
        archiver.failed_ago.filter(|failed| archiver.archived_ago.is_none_or(|done| *failed < done));
    let (Some(failed), Some(file)) = (failing, &archiver.last_failed) else {
        let what = match &archiver.last_archived {
            Some(file) => format!(
                "the archiver works: {file} was the last, {:.0} s ago",
                archiver.archived_ago.unwrap_or(0.0)
            ),
            None => "the archiver has not archived anything since the statistics were reset".to_string(),
        };
        return Finding::ok(CHECK, what);
    };
    let since =
        archiver.archived_ago.map_or(String::new(), |ago| format!("; the last success was {ago:.0} s ago"));
    Finding::critical(
        CHECK,
        format!(
            "the archiver fails: {file}, {failed:.0} s ago, {} failures in all{since}",
            archiver.failures
        ),
    )
    .because("WAL piles up in pg_wal until its disk is full and the server stops, and none of it is safe")
    .remedy(format!("the server's log has the messages of {}", way.describe()))
}

/// What waits in pg_wal for the archiver.
pub fn backlog(waiting: Option<Waiting>, role: &str, limits: &Limits<u64>) -> (Finding, Option<Measure>) {
    const CHECK: &str = "backlog";
    let Some(waiting) = waiting else {
        let finding = Finding::unknown(
            CHECK,
            format!("the role \"{role}\" may not see how much WAL waits to be archived"),
        )
        .because("a queue that grows ends with a full disk")
        .remedy(format!("grant pg_monitor to \"{role}\""));
        return (finding, None);
    };
    let level = limits.of_large(&waiting.segments);
    let what = match waiting.segments {
        0 => "no WAL waits to be archived".to_string(),
        count => {
            format!("{count} segments wait to be archived, the first since {} s", waiting.since.as_secs())
        }
    };
    let finding = Finding::new(level, CHECK, what)
        .because("archiving does not keep up: what waits is lost with the server, and pg_wal grows")
        .remedy("see the finding of the archiver; raise push.jobs, or put the repository on a faster disk");
    (finding, Some(Measure::new("waiting_segments", waiting.segments).limits(*limits)))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn archiver(archived_ago: Option<f64>, failed_ago: Option<f64>) -> Level {
        let archiver = Archiver {
            last_archived: archived_ago.map(|_| "000000010000000000000005".into()),
            archived_ago,
            failures: 3,
            last_failed: failed_ago.map(|_| "000000010000000000000006".into()),
            failed_ago,
        };
        judge_archiver(&archiver, &Way::Command("wal-push %p".into())).level
    }

    #[test]
    fn the_archiver_fails_when_the_last_thing_it_did_was_to_fail() {
        assert_eq!(archiver(Some(5.0), None), Level::Ok);
        assert_eq!(archiver(Some(5.0), Some(60.0)), Level::Ok);
        assert_eq!(archiver(None, None), Level::Ok);
        assert_eq!(archiver(Some(60.0), Some(5.0)), Level::Critical);
        assert_eq!(archiver(None, Some(5.0)), Level::Critical);
    }

    #[test]
    fn a_queue_is_judged_by_its_length_and_what_is_not_seen_is_unknown() {
        let limits = Limits { warning: 16, critical: 128 };
        let level =
            |segments| backlog(Some(Waiting { segments, since: Duration::ZERO }), "r", &limits).0.level;
        assert_eq!([0, 15, 16, 128].map(level).map(Level::exit_code), [0, 0, 1, 2]);
        let (unseen, measure) = backlog(None, "r", &limits);
        assert_eq!((unseen.level, measure), (Level::Unknown, None));
        assert!(unseen.remedy.is_some_and(|remedy| remedy == "grant pg_monitor to \"r\""));
    }
}
