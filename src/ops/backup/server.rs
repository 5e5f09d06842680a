//! The server that is backed up: what it says about itself, and whether it can be backed up from here.
//!
//! Refuses a server whose data directory is not on this host, a role that may not do it, and settings with
//! which a backup is impossible. Nothing is changed and nothing is written here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::same_host;
use crate::error::{Error, Result};
use crate::host;
use crate::pg::client::Client;
use crate::pg::control::ControlFile;
use crate::pg::version::PgMajor;
use crate::repo::backup::{self, SETTINGS};

/// What is asked besides [`SETTINGS`], to decide whether archiving works.
const ARCHIVING: [&str; 2] = ["archive_command", "archive_library"];

/// A server that answered.
pub struct Server {
    pub version: backup::Server,
    pub data_directory: PathBuf,
    pub control: ControlFile,
    pub in_recovery: bool,
    settings: BTreeMap<String, String>,
}

impl Server {
    /// Asks the server, and looks whether its data directory is the one on this host.
    pub fn look(client: &mut Client) -> Result<Self> {
        let major = client.major()?;
        check_privileges(client, major)?;
        let settings = settings(client)?;
        let data_directory = PathBuf::from(needed(&settings, "data_directory")?);
        let control = same_host::read_control(client, &data_directory)?;
        host::refuse_foreign_root(&data_directory)?;
        let row = client.query_one("select version(), pg_is_in_recovery()", &[])?;
        let version = backup::Server { version: row.get(0)?, version_num: client.version_num(), major };
        let server = Self { version, data_directory, control, in_recovery: row.get(1)?, settings };
        server.check_wal_level()?;
        Ok(server)
    }

    pub fn major(&self) -> PgMajor {
        self.version.major
    }

    /// What SHOW says; empty for a setting that this major does not have.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// What the header keeps.
    pub fn kept_settings(&self) -> BTreeMap<String, String> {
        let kept = SETTINGS.iter().filter_map(|name| self.settings.get_key_value(*name));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn check_wal_level(&self) -> Result<()> {
        if self.setting("wal_level") != "minimal" {
            return Ok(());
        }
        Err(Error::configuration("could not back up: the server runs with wal_level = minimal").with_hint(
            "set wal_level = replica in postgresql.conf and restart the server: a backup is nothing without WAL",
        ))
    }
}

fn settings(client: &mut Client) -> Result<BTreeMap<String, String>> {
    let wanted: Vec<&str> = SETTINGS.iter().chain(&ARCHIVING).copied().collect();
    let sql = "select name, current_setting(name, true) from pg_settings where name = any($1)";
    let mut settings = BTreeMap::new();
    for row in client.query(sql, &[&wanted])? {
        settings.insert(row.get(0)?, row.get::<Option<String>>(1)?.unwrap_or_default());
    }
    Ok(settings)
}

fn needed<'a>(settings: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str> {
    let missing = || Error::postgres(format!("could not learn the setting {name} from the server"));
    settings.get(name).map(String::as_str).ok_or_else(missing)
}

/// What a role needs to back up a cluster, by the name of the grant that gives it.
fn needs(major: PgMajor) -> [&'static str; 2] {
    if major.number() >= 15 {
        ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"]
    } else {
        ["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"]
    }
}

fn check_privileges(client: &mut Client, major: PgMajor) -> Result<()> {
    let functions = needs(major);
    let row = client.query_one(
        "select current_user::text, pg_has_role('pg_read_all_settings', 'member'),
            (select bool_and(has_function_privilege(name, 'execute')) from unnest($1::text[]) name)",
        &[&functions.as_slice()],
    )?;
    let user: String = row.get(0)?;
    let (settings, backup): (bool, bool) = (row.get(1)?, row.get(2)?);
    if settings && backup {
        return Ok(());
    }
    let [start, stop] = functions;
    Err(Error::configuration(format!("could not back up: the role \"{user}\" may not do it")).with_hint(
        format!(
            "connect as a superuser, or let one run: grant pg_read_all_settings to \"{user}\"; \
             grant execute on function {start}, {stop}, pg_switch_wal() to \"{user}\""
        ),
    ))
}
