//! The server that asks. A fetch can outlive it (`kill -9` of the postmaster); a new server may then run in
//! the data directory and read under the same name, RECOVERYXLOG, what the old fetch puts there. So the old
//! one must not put anything there any more.

use std::path::Path;

use crate::error::{Error, Result};
use crate::pg::server;

/// Which server ran in the data directory when the fetch began; none for a person's fetch beside a server
/// that is down.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskingServer<'a> {
    directory: Option<&'a Path>,
    running: Option<Started>,
}

/// A process id may be used again, together with the start time it is not.
type Started = (i32, Option<i64>);

impl<'a> AskingServer<'a> {
    pub(super) fn of(directory: Option<&'a Path>) -> Result<Self> {
        Ok(Self { directory, running: running(directory)? })
    }

    /// The data directory, if a server runs in it.
    pub(super) fn directory(&self) -> Option<&'a Path> {
        self.directory.filter(|_| self.running.is_some())
    }

    pub(super) fn is_still_there(&self) -> Result<bool> {
        Ok(self.running.is_none() || running(self.directory)? == self.running)
    }

    /// To be asked right before a file gets its name.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_still_there()? {
            return Ok(());
        }
        Err(Error::postgres("the server that asked for this WAL file is gone: it is not delivered"))
    }
}

fn running(directory: Option<&Path>) -> Result<Option<Started>> {
    let found = directory.map(server::status).transpose()?.flatten();
    Ok(found.map(|file| (file.pid, file.started)))
}
