//! The server's backup mode: it begins with `pg_backup_start` (`pg_start_backup` up to 14) and ends with
//! `pg_backup_stop`, or with the session. A backup whose session was lost is worth nothing, because
//! backup_label, which says where recovery begins, comes with the stop.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::pg::client::Client;
use crate::pg::conninfo::ConnSettings;
use crate::pg::label::BackupLabel;
use crate::pg::lsn::Lsn;
use crate::pg::version::PgMajor;
use crate::repo::backup::CheckpointMode;
use crate::repo::layout::Name;
use crate::threads;

/// How often the session is seen to be alive while files are copied.
const PING_EVERY: Duration = Duration::from_secs(2);

/// How long the server may take to answer that.
const PING_LIMIT: Duration = Duration::from_secs(60);

/// `clock_timestamp()` as jiff parses it.
const NOW: &str = "to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// A session in backup mode. Dropped, the server leaves backup mode when it notices.
pub struct BackupMode {
    client: Client,
    major: PgMajor,
    in_recovery: bool,
    pub start: Lsn,
    pub start_time: Timestamp,
    pinged: Instant,
}

/// What the server gave at the end.
pub struct Stopped {
    pub lsn: Lsn,
    pub time: Timestamp,
    pub label: BackupLabel,
    /// The file backup_label.
    pub label_text: String,
    pub tablespace_map: String,
}

impl BackupMode {
    /// Begins. Waits for a checkpoint; when interrupted meanwhile, ends the session from another one.
    pub fn start(
        mut client: Client,
        settings: &ConnSettings,
        label: &Name,
        checkpoint: CheckpointMode,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let (major, fast) = (client.major()?, checkpoint == CheckpointMode::Fast);
        let in_recovery = client.query_one("select pg_is_in_recovery()", &[])?.get(0)?;
        let function =
            if major.number() >= 15 { "pg_backup_start($1, $2)" } else { "pg_start_backup($1, $2, false)" };
        let sql = format!("select {function}::text, {NOW}");
        let label = label.as_str();
        let row = interruptible(&mut client, settings, interrupt, |client| {
            client.query_one(&sql, &[&label, &fast])
        })?;
        let (start, time): (&str, &str) = (row.get(0)?, row.get(1)?);
        let (start, start_time) = (start.parse()?, parse_time(time)?);
        Ok(Self { client, major, in_recovery, start, start_time, pinged: Instant::now() })
    }

    /// An error when the session is lost or the server was promoted. Asks the server every two seconds.
    pub fn check(&mut self) -> Result<()> {
        if self.pinged.elapsed() < PING_EVERY {
            return Ok(());
        }
        self.pinged = Instant::now();
        let lost = |error: Error| error.context("the backup is lost with its session");
        self.client.check_alive(PING_LIMIT).map_err(lost)?;
        let now: bool = self.client.query_one("select pg_is_in_recovery()", &[]).map_err(lost)?.get(0)?;
        if now != self.in_recovery {
            return Err(Error::postgres("could not go on: the standby was promoted during the backup")
                .with_hint("run it again"));
        }
        Ok(())
    }

    /// Ends, without waiting for the archive: that has a limit of its own (`archive`). The session is still
    /// open then.
    pub fn stop(mut self) -> Result<(Stopped, Client)> {
        let function =
            if self.major.number() >= 15 { "pg_backup_stop(false)" } else { "pg_stop_backup(false, false)" };
        let sql = format!("select lsn::text, labelfile, spcmapfile, {NOW} from {function}");
        let row = self.client.query_one(&sql, &[])?;
        let (lsn, time): (&str, &str) = (row.get(0)?, row.get(3)?);
        let label_text: String = row.get(1)?;
        let label = BackupLabel::parse(label_text.as_bytes())?;
        let lsn = lsn.parse()?;
        if label.start != self.start || lsn < label.start {
            return Err(Error::postgres(format!(
                "the backup began at {} and ended at {lsn}, but its label says {}",
                self.start, label.start
            )));
        }
        let tablespace_map: Option<String> = row.get(2)?;
        let stopped = Stopped {
            lsn,
            time: parse_time(time)?,
            label,
            label_text,
            tablespace_map: tablespace_map.unwrap_or_default(),
        };
        Ok((stopped, self.client))
    }
}

fn parse_time(text: &str) -> Result<Timestamp> {
    text.parse().map_err(|cause| Error::bug(format!("could not read the server's time {text}: {cause}")))
}

/// Runs a statement that may take minutes. When interrupted, the server ends our session, and so the
/// statement: it does not look at its socket while it waits.
fn interruptible<T: Send>(
    client: &mut Client,
    settings: &ConnSettings,
    interrupt: &Interrupt,
    run: impl FnOnce(&mut Client) -> Result<T> + Send,
) -> Result<T> {
    let session: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0)?;
    std::thread::scope(|scope| {
        let statement = threads::start(scope, "statement", || run(client))?;
        while !statement.is_finished() {
            if let Err(interrupted) = interrupt.sleep(Duration::from_millis(20)) {
                if let Err(error) = end_session(settings, session) {
                    tracing::warn!("could not end the session that begins the backup: {error}");
                }
                return Err(interrupted);
            }
        }
        statement.join().map_err(|_| Error::bug("a statement panicked"))?
    })
}

fn end_session(settings: &ConnSettings, session: i32) -> Result<()> {
    let ended = Client::connect(settings)?.query_one("select pg_terminate_backend($1)", &[&session])?;
    ended.get::<bool>(0).map(drop)
}
