//! What the server says about itself, asked in a few statements that change nothing. What the role may not see is
//! left open, with the grant that would show it: a check must work as a role with pg_monitor.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::pg::client::{Client, Row};
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};

const SETTINGS: [&str; 12] = [
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
    "data_checksums",
    "data_directory",
    "fsync",
    "full_page_writes",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "wal_level",
    "wal_segment_size",
];

/// A server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Such as "15.18".
    pub version: String,
    pub role: String,
    pub system_id: SystemId,
    pub in_recovery: bool,
    pub timeline: Timeline,
    pub segment_size: SegmentSize,
    /// Where the WAL ends: written on a primary, replayed on a standby.
    pub end: Lsn,
    /// By how much its clock differs from ours.
    pub clock_difference: Duration,
    /// None: the role may not see it.
    pub data_directory: Option<PathBuf>,
    pub settings: Settings,
}

/// What pg_settings shows: plain numbers in the unit of each setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(pub BTreeMap<String, String>);

impl Settings {
    fn ask(client: &mut Client) -> Result<Self> {
        let sql = "select name, setting from pg_settings where name = any($1)";
        let mut settings = BTreeMap::new();
        for row in client.query(sql, &[&SETTINGS.as_slice()])? {
            settings.insert(row.get(0)?, row.get(1)?);
        }
        Ok(Self(settings))
    }

    /// None: the role may not see it, or this major does not have it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }
}

impl Server {
    pub fn ask(client: &mut Client) -> Result<Self> {
        client.major()?;
        let settings = Settings::ask(client)?;
        let row = client.query_one(
            "select current_setting('server_version'), current_user::text, pg_is_in_recovery(),
                (select system_identifier::text from pg_control_system())",
            &[],
        )?;
        let in_recovery: bool = row.get(2)?;
        let (timeline, end) = if in_recovery { replayed(client)? } else { written(client)? };
        let version: String = row.get(0)?;
        Ok(Self {
            version: version.split(' ').next().unwrap_or_default().to_string(),
            role: row.get(1)?,
            system_id: row.get::<&str>(3)?.parse()?,
            in_recovery,
            timeline,
            segment_size: segment_size(&settings)?,
            end,
            clock_difference: clock_difference(client)?,
            data_directory: settings.get("data_directory").map(PathBuf::from),
            settings,
        })
    }

    pub fn is_primary(&self) -> bool {
        !self.in_recovery
    }
}

fn segment_size(settings: &Settings) -> Result<SegmentSize> {
    let bytes = settings.number("wal_segment_size").and_then(|bytes| u64::try_from(bytes).ok());
    SegmentSize::try_from(bytes.ok_or_else(|| Error::postgres("could not learn the server's segment size"))?)
}

fn written(client: &mut Client) -> Result<(Timeline, Lsn)> {
    let row = client.query_one(
        "select pg_current_wal_insert_lsn()::text, pg_walfile_name(pg_current_wal_insert_lsn())",
        &[],
    )?;
    let segment: crate::pg::names::SegmentName = row.get::<&str>(1)?.parse()?;
    Ok((segment.timeline, row.get::<&str>(0)?.parse()?))
}

/// A standby does not say on which timeline it is; its control file lags behind a little.
fn replayed(client: &mut Client) -> Result<(Timeline, Lsn)> {
    let row = client.query_one(
        "select coalesce(pg_last_wal_replay_lsn()::text, '0/0'),
            greatest(min_recovery_end_timeline, (select timeline_id from pg_control_checkpoint()))
         from pg_control_recovery()",
        &[],
    )?;
    let timeline = u32::try_from(row.get::<i32>(1)?).ok().filter(|timeline| *timeline > 0);
    let timeline = timeline.ok_or_else(|| Error::postgres("could not learn the server's timeline"))?;
    Ok((Timeline(timeline), row.get::<&str>(0)?.parse()?))
}

/// Asked once: what the answer takes is not its clock's fault, so it counts to neither side.
fn clock_difference(client: &mut Client) -> Result<Duration> {
    let before = SystemTime::now();
    let row = client.query_one("select (extract(epoch from clock_timestamp()) * 1000000)::bigint", &[])?;
    let after = SystemTime::now();
    let unix = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let theirs = Duration::from_micros(u64::try_from(row.get::<i64>(0)?).unwrap_or_default());
    let (before, after) = (unix(before), unix(after));
    Ok(theirs.saturating_sub(after).max(before.saturating_sub(theirs)))
}

/// A replication slot that is there to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    pub physical: bool,
    pub active: bool,
    /// Bytes of WAL between what the slot keeps and the end; None: it keeps none.
    pub behind: Option<u64>,
    /// Bytes that its reader has not flushed; None: nobody reads, or the role may not see it.
    pub unflushed: Option<u64>,
    /// "reserved", "extended", "unreserved" or "lost".
    pub wal_status: Option<String>,
}

pub fn slots(client: &mut Client, end: Lsn) -> Result<Vec<Slot>> {
    let sql = "select slot_name::text, slot_type = 'physical', active, restart_lsn::text, wal_status,
            (select flush_lsn::text from pg_stat_replication where pid = active_pid)
         from pg_replication_slots where not temporary order by slot_name";
    client.query(sql, &[])?.iter().map(|row| slot(row, end)).collect()
}

fn slot(row: &Row, end: Lsn) -> Result<Slot> {
    let behind = |column| -> Result<Option<u64>> {
        let lsn = row.get::<Option<&str>>(column)?.map(str::parse::<Lsn>).transpose()?;
        Ok(lsn.map(|lsn| end.0.saturating_sub(lsn.0)))
    };
    Ok(Slot {
        name: row.get(0)?,
        physical: row.get(1)?,
        active: row.get(2)?,
        behind: behind(3)?,
        unflushed: behind(5)?,
        wal_status: row.get(4)?,
    })
}

/// The transaction that was prepared longest ago: its name and since when, if there is any.
pub fn oldest_prepared(client: &mut Client) -> Result<Option<(String, Duration)>> {
    let sql = "select gid, greatest(0, extract(epoch from clock_timestamp() - prepared))::bigint
         from pg_prepared_xacts order by prepared limit 1";
    let rows = client.query(sql, &[])?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some((row.get(0)?, Duration::from_secs(u64::try_from(row.get::<i64>(1)?).unwrap_or_default()))))
}

/// The WAL files that wait for archive_command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub segments: u64,
    /// Since the first of them is ready.
    pub since: Duration,
}

/// None: the role may not look.
pub fn waiting(client: &mut Client) -> Result<Option<Waiting>> {
    if !may(client, "pg_ls_archive_statusdir()")? {
        return Ok(None);
    }
    let sql =
        "select count(*), coalesce(extract(epoch from clock_timestamp() - min(modification)), 0)::bigint
         from pg_ls_archive_statusdir() where name ~ '^[0-9A-F]{24}\\.ready$'";
    let row = client.query_one(sql, &[])?;
    let number = |column| -> Result<u64> { Ok(u64::try_from(row.get::<i64>(column)?).unwrap_or_default()) };
    Ok(Some(Waiting { segments: number(0)?, since: Duration::from_secs(number(1)?) }))
}

/// Whether the role may call a function.
pub fn may(client: &mut Client, function: &str) -> Result<bool> {
    client.query_one("select has_function_privilege($1, 'execute')", &[&function])?.get(0)
}
