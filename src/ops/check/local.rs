//! What only the server's own host can show: its pg_wal and wal-push's spool. Nothing here is an error: from
//! another host, or as another user, there is less to see.

use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::server::Server;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ops::backup::same_host;
use crate::ops::wal_push::outage;
use crate::pg::client::Client;
use crate::pg::control::ControlFile;
use crate::spool::Spool;

/// The server's data directory, on this host.
pub struct Local {
    pub data_directory: PathBuf,
    pub control: ControlFile,
}

impl Local {
    /// An error says why the data directory can't be seen from here.
    pub fn look(client: &mut Client, server: &Server) -> Result<Self> {
        let Some(directory) = &server.data_directory else {
            return Err(Error::configuration(format!(
                "the role \"{}\" may not see where the server's data directory is",
                server.role
            ))
            .with_hint(format!("grant pg_monitor to \"{}\"", server.role)));
        };
        let control = same_host::read_control(client, directory)?;
        Ok(Self { data_directory: directory.clone(), control })
    }

    pub fn pg_wal(&self) -> PathBuf {
        self.data_directory.join("pg_wal")
    }
}

/// What wal-push remembers of a repository that it could not reach.
pub fn spool(config: &Config, data_directory: &Path) -> Finding {
    const CHECK: &str = "spool";
    let owed = match outage::look(&Spool::of(config.spool.as_deref(), data_directory)) {
        Ok(owed) => owed,
        Err(error) => {
            return Finding::critical(CHECK, error.message())
                .because("that record says which WAL was dropped while the repository was away")
                .remedy(error.hint().unwrap_or("look at the file"));
        }
    };
    if let Some(gap) = owed.gaps.first() {
        return Finding::critical(CHECK, format!("WAL was dropped: {}", gap.story()))
            .because("no backup taken before can be restored beyond it, and the repository does not know of it yet")
            .remedy("bring the repository back, then take a backup");
    }
    match owed.failures {
        0 => Finding::ok(CHECK, "wal-push owes the repository nothing"),
        failures => Finding::warning(
            CHECK,
            format!("wal-push could not reach the repository {failures} times in a row"),
        )
        .because("WAL piles up in pg_wal meanwhile")
        .remedy("the server's log says why; is the repository's disk mounted there?"),
    }
}
