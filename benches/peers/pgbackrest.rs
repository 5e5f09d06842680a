//! pgBackRest as its user guide has it for speed: zstd or lz4, four processes, bundles, asynchronous archiving
//! where a row says so. Without log files, which costs it nothing.

use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Scratch};
use crate::measure::Call;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Zst3,
    Lz4,
}

impl Compression {
    fn settings(self) -> &'static str {
        match self {
            Self::Zst3 => "compress-type=zst\ncompress-level=3\n",
            Self::Lz4 => "compress-type=lz4\n",
        }
    }
}

/// A repository of pgBackRest's with its configuration and its spool.
pub struct PgBackRest {
    scratch: Scratch,
    config: PathBuf,
}

impl PgBackRest {
    /// For a data directory whose server does not run.
    pub fn beside(data_directory: &Path, compression: Compression, asynchronous: bool) -> Self {
        let made = Self::configure(data_directory, compression, asynchronous, "");
        made.call("stanza-create").args(["--no-online"]).run();
        made
    }

    /// For a server that runs.
    pub fn of(cluster: &Cluster, compression: Compression) -> Self {
        let socket = cluster.socket_dir().display();
        let server = format!("pg1-port={}\npg1-socket-path={socket}\npg1-user=postgres\n", cluster.port());
        let made = Self::configure(&cluster.data_dir(), compression, false, &server);
        made.call("stanza-create").run();
        made
    }

    fn configure(data_directory: &Path, compression: Compression, asynchronous: bool, server: &str) -> Self {
        let scratch = Scratch::new();
        let path = |name: &str| scratch.make_dir(name).display().to_string();
        let global = [
            ("repo1-path", path("repo")),
            ("repo1-retention-full", "2".into()),
            ("repo1-bundle", "y".into()),
            ("process-max", "4".into()),
            ("start-fast", "y".into()),
            ("archive-async", if asynchronous { "y" } else { "n" }.into()),
            ("archive-get-queue-max", "1GiB".into()),
            ("spool-path", path("spool")),
            ("lock-path", path("lock")),
            ("log-path", path("log")),
            ("log-level-console", "error".into()),
            ("log-level-file", "off".into()),
        ];
        let global: String = global.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let stanza = format!("pg1-path={}\n{server}", data_directory.display());
        let text = format!("[global]\n{global}{}\n[bench]\n{stanza}", compression.settings());
        let config = scratch.write("pgbackrest.conf", text);
        Self { scratch, config }
    }

    pub fn repository(&self) -> PathBuf {
        self.scratch.join("repo")
    }

    /// Prefetched and pushed segments are forgotten.
    pub fn empty_spool(&self) {
        let spool = self.scratch.join("spool");
        std::fs::remove_dir_all(&spool).expect("remove the spool");
        self.scratch.make_dir("spool");
    }

    /// Options come first in all that is added to it.
    pub fn call(&self, command: &str) -> Call {
        let config = format!("--config={}", self.config.display());
        Call::new("/usr/bin/pgbackrest").args([config.as_str(), "--stanza=bench", command])
    }
}
