//! Whether the data directory that a server names is the one at that path on this host.
//!
//! A standby has its primary's system identifier, and usually the same path. Run on the one and connected to
//! the other, a backup would be of one's files with the other's label: worthless, and nobody would notice
//! before it is needed. So the whole state in pg_control is compared, which a server writes all the time: two
//! servers agree on it only if it is one file.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::pg::client::Client;
use crate::pg::control::ControlFile;
use crate::pg::lsn::{Lsn, SystemId};

/// The server may write the file between our looking and its own.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What both sides can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    system_id: SystemId,
    written: Timestamp,
    checkpoint: Lsn,
    redo: Lsn,
    min_recovery_point: Lsn,
}

impl State {
    fn of(control: &ControlFile) -> Self {
        Self {
            system_id: control.system_id,
            written: control.time,
            checkpoint: control.checkpoint,
            redo: control.redo,
            min_recovery_point: control.min_recovery_point,
        }
    }

    fn ask(client: &mut Client) -> Result<Self> {
        let row = client.query_one(
            "select system_identifier::text, extract(epoch from pg_control_last_modified)::bigint,
                checkpoint_lsn::text, redo_lsn::text, min_recovery_end_lsn::text
             from pg_control_system(), pg_control_checkpoint(), pg_control_recovery()",
            &[],
        )?;
        let lsn = |column| row.get::<&str>(column)?.parse::<Lsn>();
        let written: i64 = row.get(1)?;
        Ok(Self {
            system_id: row.get::<&str>(0)?.parse()?,
            written: Timestamp::from_second(written)
                .map_err(|cause| Error::postgres(format!("could not read the server's time: {cause}")))?,
            checkpoint: lsn(2)?,
            redo: lsn(3)?,
            min_recovery_point: lsn(4)?,
        })
    }
}

/// The control file of the data directory on this host; an error unless it is this server's.
pub fn read_control(client: &mut Client, data_directory: &Path) -> Result<ControlFile> {
    if !ControlFile::path(data_directory).try_exists().unwrap_or(true) {
        return Err(elsewhere(data_directory, "but there is none here"));
    }
    for _ in 0..ATTEMPTS {
        let before = ControlFile::read(data_directory)?;
        let theirs = State::ask(client)?;
        let after = ControlFile::read(data_directory)?;
        if theirs == State::of(&before) || theirs == State::of(&after) {
            return Ok(after);
        }
        if theirs.system_id != after.system_id {
            let (here, there) = (after.system_id, theirs.system_id);
            let found = format!("but the one here has system identifier {here}, and the server's is {there}");
            return Err(elsewhere(data_directory, &found));
        }
        std::thread::sleep(PAUSE);
    }
    Err(elsewhere(
        data_directory,
        "but the one here is another server's of the same origin: a standby's, perhaps",
    ))
}

fn elsewhere(data_directory: &Path, found: &str) -> Error {
    let path = data_directory.display();
    Error::configuration(format!("could not back up: the server's data directory is {path}, {found}"))
        .with_hint(
            "basebackup reads the files itself: run it on the database host, or check PGHOST and PGPORT",
        )
}
