//! The clusters that postgresql-common knows, whether they run or not, and what it takes for their data directories and
//! ports (PgCommon.pm: get_versions, get_version_clusters, cluster_data_directory, get_cluster_port).
//!
//! One whose configuration can't be read is named and passed over: it is another user's, and that its port is taken
//! shows when it runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};
use crate::pg::settings::{Disk, Settings};

/// PostgreSQL's own.
const DEFAULT_PORT: u16 = 5432;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// "15/main"; also of versions that pgark does not know.
    pub name: String,
    pub data: Option<PathBuf>,
    pub port: u16,
}

/// All of them, in the order of their names. `etc` is where their configuration is.
pub(super) fn all(etc: &Path) -> Result<Vec<Registered>> {
    let mut found = Vec::new();
    for version in names(etc)? {
        let is_version = version.chars().all(|c| c.is_ascii_digit() || c == '.');
        let directory = etc.join(&version);
        if !is_version || !directory.is_dir() {
            continue;
        }
        for cluster in names(&directory)? {
            let conf = directory.join(&cluster).join("postgresql.conf");
            // A link that leads nowhere is a cluster, too.
            if conf.symlink_metadata().is_ok() {
                found.push(read(format!("{version}/{cluster}"), &conf));
            }
        }
    }
    Ok(found)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let doing = || format!("list {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.doing(doing)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.doing(doing)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn read(name: String, conf: &Path) -> Registered {
    let settings = Settings::read(conf, &Disk).and_then(|main| match main.get("data_directory") {
        Some(data) => Settings::effective(conf, Path::new(data), &Disk),
        None => Ok(main),
    });
    let settings = settings.unwrap_or_else(|error| {
        tracing::warn!("the port and the data directory of cluster {name} are not known: {error}");
        Settings::default()
    });
    let port = settings.get("port").and_then(|port| port.parse().ok()).unwrap_or(DEFAULT_PORT);
    Registered { name, data: settings.get("data_directory").map(PathBuf::from), port }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{host, register};
    use super::*;

    #[test]
    fn all_that_pg_lsclusters_shows_are_found() {
        let host = host();
        let (etc, data) = (&host.layout.etc, host.layout.data.join("15/main"));
        assert_eq!(all(&etc.join("missing")), Ok(Vec::new()));
        fs::create_dir_all(etc.join("15/empty")).expect("made");
        fs::create_dir_all(etc.join("notes/x")).expect("made");
        fs::write(etc.join("notes/x/postgresql.conf"), "").expect("written");
        fs::create_dir_all(&data).expect("made");
        // ALTER SYSTEM counts more than the file.
        fs::write(data.join("postgresql.auto.conf"), "port = '5444'\n").expect("written");
        register(&host.layout, "15/main", &format!("port = 5432\ndata_directory = '{}'\n", data.display()));
        register(&host.layout, "9.6/old", "# nothing\n");
        register(&host.layout, "16/broken", "include 'missing'\n");
        let found = all(etc).expect("listed");
        let shown: Vec<_> = found.iter().map(|cluster| (cluster.name.as_str(), cluster.port)).collect();
        assert_eq!(shown, [("15/main", 5444), ("16/broken", 5432), ("9.6/old", 5432)]);
        assert_eq!(found[0].data.as_deref(), Some(data.as_path()));
    }
}
