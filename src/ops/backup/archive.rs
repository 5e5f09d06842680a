//! Whether WAL gets into the repository: before the copy, that archiving works at all; after it, that the
//! segments are there without which the backup can't be made consistent.
//!
//! On a primary one segment is forced out when nothing else proves that archiving works. On a standby
//! nobody can force anything: the primary archives, when a segment is full or archive_timeout passes.

use std::time::{Duration, Instant};

use super::server::Server;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::pg::client::Client;
use crate::pg::lsn::{Lsn, SegmentSize, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::progress::{self, Display};
use crate::repo::Cluster;
use crate::repo::catalog::Catalog;

/// How long archiving may take to show that it works, unless the limit for the end is shorter.
const CHECK_LIMIT: Duration = Duration::from_secs(120);

/// So old may be the last success that still proves it, in seconds.
const RECENT: f64 = 3600.0;

/// So many failures since we asked for a segment are enough: the archiver tries three times in a row
/// (NUM_ARCHIVE_RETRIES in pgarch.c).
const FAILURES: i64 = 3;

const POLL: Duration = Duration::from_millis(200);

/// What takes longer is told about, and then again and again.
const TELL_AFTER: Duration = Duration::from_secs(2);
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Looks for WAL in one cluster's part of the repository.
pub struct Archive<'a> {
    pub cluster: &'a Cluster,
    pub size: SegmentSize,
    pub interrupt: &'a Interrupt,
    pub display: Display,
    pub limit: Duration,
}

/// The WAL that makes a backup consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    pub start: Lsn,
    /// Up to here, not included.
    pub end: Lsn,
    /// The one that leads through `end`.
    pub timeline: Timeline,
}

/// What pg_stat_archiver says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Archiver {
    pub last_archived: Option<String>,
    /// Seconds.
    pub archived_ago: Option<f64>,
    pub failures: i64,
    pub last_failed: Option<String>,
    /// Seconds.
    pub failed_ago: Option<f64>,
}

impl Archiver {
    pub fn ask(client: &mut Client) -> Result<Self> {
        let sql =
            "select last_archived_wal, extract(epoch from clock_timestamp() - last_archived_time)::float8,
            failed_count, last_failed_wal, extract(epoch from clock_timestamp() - last_failed_time)::float8
            from pg_stat_archiver";
        let row = client.query_one(sql, &[])?;
        Ok(Self {
            last_archived: row.get(0)?,
            archived_ago: row.get(1)?,
            failures: row.get(2)?,
            last_failed: row.get(3)?,
            failed_ago: row.get(4)?,
        })
    }

    /// The file whose archiving proves that it works, if it is where it belongs.
    fn proof(&self) -> Option<WalFile> {
        let succeeded = self.archived_ago.filter(|ago| *ago < RECENT)?;
        let failed_since = self.failed_ago.is_some_and(|failed| failed <= succeeded);
        self.last_archived.as_ref().filter(|_| !failed_since)?.parse().ok()
    }

    /// Whether the server believes that it archived this segment.
    pub fn claims(&self, segment: SegmentName) -> bool {
        let last = self.last_archived.as_deref().and_then(|name| name.get(..24));
        last.and_then(|name| name.parse::<SegmentName>().ok()).is_some_and(|last| last >= segment)
    }
}

impl Archive<'_> {
    fn catalog(&self) -> Catalog<'_> {
        Catalog::new(self.cluster, self.size)
    }

    /// An error unless WAL of this server gets into the repository.
    pub fn check(&self, client: &mut Client, server: &Server) -> Result<()> {
        if server.in_recovery {
            self.check_standby(client, server)
        } else {
            self.check_primary(client, server)
        }
    }

    fn check_primary(&self, client: &mut Client, server: &Server) -> Result<()> {
        if let Err(refusal) = refuse_unset(server)
            && !is_streamed(client)?
        {
            return Err(refusal);
        }
        let before = Archiver::ask(client)?;
        if before.proof().map_or(Ok(false), |file| self.holds(file))? {
            return Ok(());
        }
        // So that there is something to switch away from (RequestXLogSwitch does nothing at a boundary).
        client.query("select pg_logical_emit_message(false, 'pgark', 'does archiving work?')", &[])?;
        let segment: String = client.query_one_text("select pg_walfile_name(pg_switch_wal())", &[])?;
        self.await_forced(client, server, segment.parse()?, &before)
    }

    fn holds(&self, file: WalFile) -> Result<bool> {
        let layout = self.cluster.layout();
        match file {
            WalFile::Segment(name) => self.catalog().exists(name),
            WalFile::BackupHistory(name, offset) => {
                self.cluster.store().exists(&layout.backup_history(name, offset)?)
            }
            WalFile::History(timeline) => self.cluster.store().exists(&layout.history(timeline)?),
            WalFile::Partial(_) => Ok(false),
        }
    }

    fn await_forced(
        &self,
        client: &mut Client,
        server: &Server,
        segment: SegmentName,
        before: &Archiver,
    ) -> Result<()> {
        let limit = self.limit.min(CHECK_LIMIT);
        let deadline = Instant::now() + limit;
        loop {
            if self.catalog().exists(segment)? {
                return Ok(());
            }
            let now = Archiver::ask(client)?;
            // Who says that it is archived is not waited for: it would be here.
            let decided = now.claims(segment) || now.failures >= before.failures + FAILURES;
            if decided || Instant::now() >= deadline {
                self.cluster.repository().confirm()?;
                if self.catalog().exists(segment)? {
                    return Ok(());
                }
                return Err(self.not_archived(server, segment, before, &now, limit));
            }
            self.interrupt.sleep(POLL)?;
        }
    }

    fn not_archived(
        &self,
        server: &Server,
        segment: SegmentName,
        before: &Archiver,
        now: &Archiver,
        limit: Duration,
    ) -> Error {
        let how = how_it_archives(server);
        if now.claims(segment) {
            let cluster = self.cluster.name();
            return Error::postgres(format!(
                "archiving does not reach this repository: the server archived {segment}, but not as a segment of \
                 cluster {cluster} here"
            ))
            .with_hint(format!("do {how} and this program have the same repository and cluster name?"));
        }
        let failures = now.failures - before.failures;
        let what = match (&now.last_failed, failures) {
            (Some(file), 1..) => format!("it failed {failures} times, last for {file}"),
            _ => format!("{segment} was not archived within {} seconds", limit.as_secs()),
        };
        Error::postgres(format!("archiving does not work: {what}")).with_hint(format!(
            "the server's log has the messages of {how}; run it by hand as the server's user to see more"
        ))
    }

    /// The primary archives: what shows that it does are segments about as new as what was replayed here.
    fn check_standby(&self, client: &mut Client, server: &Server) -> Result<()> {
        let control = &server.control;
        let timeline = match control.min_recovery_timeline {
            Timeline(0) => control.checkpoint_timeline,
            timeline => timeline,
        };
        let replayed: String = client.query_one_text("select pg_last_wal_replay_lsn()::text", &[])?;
        let current = self.size.segment_of(replayed.parse()?);
        let deadline = Instant::now() + self.limit.min(CHECK_LIMIT);
        loop {
            let path = self.catalog().history(timeline)?;
            let from = current.saturating_sub(1);
            let newest = path.map_or(Ok(None), |path| self.catalog().newest_on(&path, from))?;
            if newest.is_some() || current == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.cluster.repository().confirm()?;
                let expected = SegmentName::from_number(timeline, from, self.size);
                return Err(Error::postgres(format!(
                    "the primary does not archive into this repository: this standby replayed up to {replayed}, \
                     and neither {expected} nor a later segment is here"
                ))
                .with_hint("set up archive_command on the primary, with this repository and cluster name"));
            }
            self.interrupt.sleep(POLL)?;
        }
    }

    /// Waits until the WAL that a backup needs is in the repository. Returns the timeline that its end is on:
    /// a standby may follow a new timeline that forks behind it.
    pub fn wait(&self, needed: &Needed, from_standby: bool) -> Result<Timeline> {
        let first = self.size.segment_of(needed.start);
        let last = self.size.segment_before(needed.end).max(first);
        let started = Instant::now();
        let mut tell_at = started + TELL_AFTER;
        let mut from = first;
        loop {
            let missing = match self.catalog().history(needed.timeline)? {
                None => WalFile::History(needed.timeline),
                Some(path) => match self.catalog().first_missing(&path, from, last)? {
                    None => return Ok(path.timeline_of(Lsn(needed.end.0.saturating_sub(1)))),
                    Some(number) => {
                        from = number;
                        WalFile::Segment(self.catalog().name_on(&path, number))
                    }
                },
            };
            let last = SegmentName::from_number(needed.timeline, last, self.size);
            if started.elapsed() >= self.limit {
                self.cluster.repository().confirm()?;
                return Err(self.gave_up(missing, last, from_standby));
            }
            if Instant::now() >= tell_at {
                tell_at = Instant::now() + TELL_EVERY;
                progress::notice(self.display, &self.waiting_for(missing, last, from_standby)?);
            }
            self.interrupt.sleep(POLL)?;
        }
    }

    fn waiting_for(&self, missing: WalFile, last: SegmentName, from_standby: bool) -> Result<String> {
        let newest = match self.catalog().newest(last.timeline)? {
            None => "none is there yet".to_string(),
            Some(name) => {
                let stored = self.cluster.store().head(&self.cluster.layout().segment(name)?)?.modified;
                let ago = stored.elapsed().map_or(0, |ago| ago.as_secs());
                format!("the newest there is {name}, stored {ago} s ago")
            }
        };
        let who = if from_standby {
            "; the primary archives it when it is full or archive_timeout has passed"
        } else {
            ""
        };
        Ok(format!("waiting for {missing} in the repository (needed up to {last}; {newest}){who}"))
    }

    fn gave_up(&self, missing: WalFile, last: SegmentName, from_standby: bool) -> Error {
        let hint = if from_standby {
            "on the primary: set archive_timeout, or run `select pg_switch_wal()`; or give --wal-timeout more time"
        } else {
            "pg_stat_archiver and the server's log say how archiving goes; or give --wal-timeout more time"
        };
        Error::postgres(format!(
            "could not complete the backup: {missing} did not arrive in the repository within {} seconds \
             (needed up to {last})",
            self.limit.as_secs()
        ))
        .with_hint(hint)
    }
}

/// An error when the settings say that nothing is archived.
fn refuse_unset(server: &Server) -> Result<()> {
    let what = if server.setting("archive_mode") == "off" {
        "archive_mode is off"
    } else if server.setting("archive_command").is_empty() && server.setting("archive_library").is_empty() {
        "archive_command is empty"
    } else {
        return Ok(());
    };
    Err(Error::configuration(format!("could not back up: {what}, and a backup is nothing without its WAL"))
        .with_hint(
            "set archive_mode = on (needs a restart) and archive_command = 'wal-push %p' in postgresql.conf, \
             or run wal-receive",
        ))
}

/// Whether somebody streams WAL through a slot: `wal-receive`, perhaps. The forced segment proves it.
fn is_streamed(client: &mut Client) -> Result<bool> {
    let sql = "select exists (select from pg_replication_slots where slot_type = 'physical' and active)";
    client.query_one(sql, &[])?.get(0)
}

fn how_it_archives(server: &Server) -> String {
    if refuse_unset(server).is_err() {
        return "wal-receive (nothing else archives)".to_string();
    }
    match server.setting("archive_library") {
        "" => format!("archive_command = '{}'", server.setting("archive_command")),
        library => format!("archive_library = '{library}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archiver() -> Archiver {
        Archiver {
            last_archived: Some("000000010000000000000005".into()),
            archived_ago: Some(10.0),
            ..Archiver::default()
        }
    }

    #[test]
    fn only_a_recent_success_without_a_later_failure_proves_anything() {
        assert!(archiver().proof().is_some());
        assert!(Archiver { failed_ago: Some(60.0), ..archiver() }.proof().is_some());
        assert!(Archiver { failed_ago: Some(5.0), ..archiver() }.proof().is_none());
        assert!(Archiver { archived_ago: Some(RECENT + 1.0), ..archiver() }.proof().is_none());
        assert!(Archiver { last_archived: Some("nonsense".into()), ..archiver() }.proof().is_none());
        assert!(Archiver::default().proof().is_none());
    }

    #[test]
    fn a_later_segment_or_its_backup_history_file_claims_the_earlier_ones() {
        let claims = |last: &str, segment: &str| {
            Archiver { last_archived: Some(last.into()), ..Archiver::default() }
                .claims(segment.parse().expect("a segment"))
        };
        assert!(claims("000000010000000000000005", "000000010000000000000005"));
        assert!(claims("000000010000000000000006.00000028.backup", "000000010000000000000005"));
        assert!(!claims("000000010000000000000004", "000000010000000000000005"));
        assert!(!claims("00000002.history", "000000010000000000000005"));
    }
}
