//! How far a recovery is: over a connection once the server accepts one, and before that by the title of
//! the process that replays.
//!
//! pg_control knows the rest (`ControlFile::min_recovery_point`), a checkpoint late.

use std::fs;
use std::path::PathBuf;

use crate::error::Result;
use crate::pg::client::{Client, Row};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::names::SegmentName;
use crate::pg::time::Timestamp;

/// What a server says about its recovery, also after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryProgress {
    pub in_recovery: bool,
    /// The end of the last record that was replayed; it stays when recovery is over.
    pub replayed: Option<Lsn>,
    /// The time of the last commit or abort that was replayed; it stays too.
    pub replayed_time: Option<Timestamp>,
    pub pause: Pause,
    /// The timeline that is replayed, or written once recovery is over.
    pub timeline: Option<Timeline>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    No,
    Requested,
    Paused,
}

/// Some of the functions fail outside recovery and some in it: `case` calls those that do not.
const QUESTION: &str = "select pg_is_in_recovery(),
    pg_last_wal_replay_lsn()::text,
    (extract(epoch from pg_last_xact_replay_timestamp()) * 1000000)::int8,
    case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() end,
    case when pg_is_in_recovery() then (select min_recovery_end_timeline::int8 from pg_control_recovery())
         else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8 end";

impl RecoveryProgress {
    pub fn ask(client: &mut Client) -> Result<Self> {
        // Recovery can end between two of the functions. Then the second question is not in recovery.
        let row = client.query_one(QUESTION, &[]).or_else(|_| client.query_one(QUESTION, &[]))?;
        Self::from_row(&row)
    }

    fn from_row(row: &Row) -> Result<Self> {
        let replayed = row.get::<Option<&str>>(1)?.map(str::parse).transpose()?;
        let pause = match row.get::<Option<&str>>(3)? {
            Some("paused") => Pause::Paused,
            Some("pause requested") => Pause::Requested,
            _ => Pause::No,
        };
        let timeline = row.get::<Option<i64>>(4)?.and_then(|number| u32::try_from(number).ok());
        Ok(Self {
            in_recovery: row.get(0)?,
            replayed,
            replayed_time: row.get::<Option<i64>>(2)?.and_then(Timestamp::from_unix),
            pause,
            timeline: timeline.filter(|number| *number > 0).map(Timeline),
        })
    }
}

/// The segment that a server's startup process replays or waits for, as its title says. None before it
/// has read one, after recovery, and with update_process_title off.
pub fn replayed_segment(postmaster: i32) -> Option<SegmentName> {
    children(postmaster).into_iter().find_map(|child| {
        let title = fs::read(child.join("cmdline")).ok()?;
        segment_in_title(&String::from_utf8_lossy(&title))
    })
}

/// Processes come and go while we look, so none of this is an error.
fn children(parent: i32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let processes = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_child = |process: &PathBuf| {
        fs::read_to_string(process.join("stat")).is_ok_and(|stat| parent_in_stat(&stat) == Some(parent))
    };
    processes.filter(is_child).collect()
}

/// The fourth field of /proc/PID/stat, behind a name in parentheses that may hold anything.
fn parent_in_stat(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// "postgres: startup recovering 000000010000000000000003", with the cluster's name before "startup" if it
/// has one; "waiting for" while the archive is asked (xlogrecovery.c).
fn segment_in_title(title: &str) -> Option<SegmentName> {
    let title = title.trim_end_matches(['\0', ' ']);
    let (before, name) = title.rsplit_once(' ')?;
    let replays = before.ends_with("startup recovering") || before.ends_with("startup waiting for");
    if replays { name.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn titles_of_the_startup_process_name_a_segment() {
        for title in [
            "postgres: startup recovering 0000000A0000000000000003\0",
            "postgres: my cluster: startup waiting for 0000000A0000000000000003",
        ] {
            assert_eq!(
                segment_in_title(title).map(|name| name.to_string()).as_deref(),
                Some("0000000A0000000000000003")
            );
        }
        for title in [
            "",
            "postgres: startup",
            "postgres: startup recovering",
            "postgres: archiver last was 000000010000000000000003",
            "postgres: walsender startup streaming 0/3000000",
        ] {
            assert_eq!(segment_in_title(title), None, "{title:?}");
        }
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in_stat("12 (post) gres)) S 34 12 12 0"), Some(34));
        assert_eq!(parent_in_stat("12 (x) S"), None);
        assert_eq!(parent_in_stat(""), None);
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,60}") {
            segment_in_title(&text);
            parent_in_stat(&text);
        }
    }
}
