//! The data directory that is to be: what is there now, whether it may be replaced, and emptying it.
//!
//! Refuses whatever is not a data directory, one of another cluster, and one with a running server unless
//! that was confirmed apart. Invariant: a directory is marked as incomplete, durably, before its first
//! file goes; pg_control goes first, and without it no server starts.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::record::{self, INCOMPLETE, Record};
use crate::durable;
use crate::error::{Error, IoContext, Kind, Result};
use crate::pg::control::ControlFile;
use crate::pg::lsn::SystemId;
use crate::pg::server::{self, PidFile};
use crate::pg::version::PgMajor;

/// What the operator allows to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replace {
    Nothing,
    /// A directory in which no server runs.
    Stopped,
    /// Also one with a running server, which is stopped.
    Running,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Absent,
    Empty,
    /// A restore that did not finish.
    Incomplete(Option<Box<Record>>),
    Cluster(Box<FoundCluster>),
    /// Something else: the first thing in it.
    Other(String),
    NotADirectory,
}

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCluster {
    /// None when its pg_control can't be read.
    pub system_id: Option<SystemId>,
    pub running: Option<PidFile>,
    /// Of the restore that made it.
    pub record: Option<Record>,
}

/// What has to be done before the first file is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clearing {
    pub stop_server: bool,
    /// Whether there is anything to remove.
    pub empty: bool,
    /// The restore that made what is there.
    pub record: Option<Record>,
}

/// Looks without touching anything.
pub fn look(data: &Path) -> Result<Found> {
    let listed = match fs::read_dir(data) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(cause) if cause.kind() == io::ErrorKind::NotADirectory => return Ok(Found::NotADirectory),
        listed => listed.doing(|| format!("list {}", data.display()))?,
    };
    let mut names = Vec::new();
    for entry in listed {
        let entry = entry.doing(|| format!("list {}", data.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if names.iter().any(|name| name == INCOMPLETE) {
        return Ok(Found::Incomplete(Record::read(data)?.map(Box::new)));
    }
    if names.iter().any(|name| name == "PG_VERSION") {
        return Ok(Found::Cluster(Box::new(FoundCluster {
            system_id: system_id(data)?,
            running: server::status(data)?,
            record: Record::read(data)?,
        })));
    }
    Ok(names.into_iter().next().map_or(Found::Empty, Found::Other))
}

/// None when there is no pg_control or nothing can be made of it.
fn system_id(data: &Path) -> Result<Option<SystemId>> {
    match ControlFile::read(data) {
        Ok(control) => Ok(Some(control.system_id)),
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Postgres) => Ok(None),
        Err(_) if !ControlFile::path(data).exists() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a cluster with this system identifier may be restored there, and what has to go first.
pub fn judge(data: &Path, found: &Found, replace: Replace, system_id: SystemId) -> Result<Clearing> {
    let refuse = |cause: String, hint: &str| {
        Err(Error::conflict(format!("could not restore into {}: {cause}", data.display())).with_hint(hint))
    };
    match found {
        Found::Absent | Found::Empty => Ok(Clearing::default()),
        Found::NotADirectory => refuse("it is not a directory".into(), "name a directory with -D"),
        Found::Other(name) => refuse(
            format!("it is no data directory and not empty: it holds \"{name}\""),
            "name an empty directory, or one that does not exist yet; --replace removes only data directories",
        ),
        Found::Incomplete(_) if replace == Replace::Nothing => {
            refuse("an unfinished restore is in it".into(), "add --replace to remove that first")
        }
        Found::Incomplete(record) => {
            let record = record.as_deref().cloned();
            Ok(Clearing { stop_server: false, empty: true, record })
        }
        Found::Cluster(cluster) => judge_cluster(cluster, replace, system_id, refuse),
    }
}

fn judge_cluster(
    cluster: &FoundCluster,
    replace: Replace,
    system_id: SystemId,
    refuse: impl Fn(String, &str) -> Result<Clearing>,
) -> Result<Clearing> {
    if let Some(other) = cluster.system_id.filter(|found| *found != system_id) {
        return refuse(
            format!("it is the data directory of another cluster, with system identifier {other}"),
            "name another directory, or remove that one yourself",
        );
    }
    match &cluster.running {
        Some(server) if replace < Replace::Running => {
            let port = server.port.map(|port| format!(" on port {port}")).unwrap_or_default();
            refuse(
                format!("a server runs in it{port} (process {})", server.pid),
                "name another directory; or, if that server shall be stopped and its data removed, add --replace-running",
            )
        }
        _ if replace == Replace::Nothing => refuse(
            "it is a data directory".into(),
            "name an empty directory; or, if the data in it shall be removed, add --replace",
        ),
        running => {
            Ok(Clearing { stop_server: running.is_some(), empty: true, record: cluster.record.clone() })
        }
    }
}

/// Refuses a directory that belongs to somebody else, or that can't be made.
pub fn check_access(data: &Path) -> Result<()> {
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(existing, access)
        .map_err(|cause| Error::io(format!("write to {}", existing.display()), &cause.into()))?;
    let metadata = existing.metadata().doing(|| format!("look at {}", existing.display()))?;
    let us = rustix::process::geteuid().as_raw();
    if existing == data && metadata.uid() != us {
        return Err(Error::configuration(format!(
            "could not restore into {}: it belongs to user id {}, not to us ({us}), and PostgreSQL insists",
            data.display(),
            metadata.uid()
        ))
        .with_hint(
            "run this as the user that the server shall run as, for example with `sudo -u postgres`",
        ));
    }
    Ok(())
}

/// Makes the directory, or empties it and the tablespaces that are `freed` with it, and marks it as incomplete
/// before anything else. Its record goes behind the tablespaces: killed in between, a later run still knows
/// whose they are.
pub fn prepare(data: &Path, clearing: &Clearing, freed: &[(PathBuf, PgMajor)]) -> Result<()> {
    durable::create_dir_all(data, durable::PRIVATE)?;
    keep_others_out(data, clearing)?;
    record::mark_incomplete(data)?;
    if !clearing.empty {
        return Ok(());
    }
    let control = ControlFile::path(data);
    record::remove_file(&control)?;
    if let Some(global) = control.parent().filter(|global| global.is_dir()) {
        durable::sync_dir(global)?;
    }
    freed.iter().try_for_each(|(location, major)| record::release(location, *major))?;
    for entry in entries(data)? {
        if entry.file_name().is_some_and(|name| name == INCOMPLETE) {
            continue;
        }
        let is_directory =
            entry.symlink_metadata().doing(|| format!("look at {}", entry.display()))?.is_dir();
        if is_directory { record::remove_tree(&entry) } else { record::remove_file(&entry) }?;
    }
    durable::sync_dir(data)
}

/// A directory that was there may be open to others, who could put links where files are to be written. It gets the
/// source's mode with its files.
fn keep_others_out(data: &Path, clearing: &Clearing) -> Result<()> {
    fs::set_permissions(data, Permissions::from_mode(durable::PRIVATE))
        .doing(|| format!("keep others out of {}", data.display()))?;
    match entries(data)?.first() {
        Some(planted) if !clearing.empty => Err(Error::conflict(format!(
            "could not restore into {}: somebody just made {}",
            data.display(),
            planted.display()
        ))),
        _ => Ok(()),
    }
}

fn entries(data: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(data).doing(|| format!("list {}", data.display()))?;
    let entries =
        listed.map(|entry| entry.map(|entry| entry.path()).doing(|| format!("list {}", data.display())));
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    fn pid_file() -> PidFile {
        PidFile::parse("4711\n/data\n1763800000\n5433\n/run/pg\nlocalhost\n  12345  67\nready   \n")
            .expect("a pid")
    }

    fn cluster(system_id: Option<u64>, running: bool) -> Found {
        let running = running.then(pid_file);
        Found::Cluster(Box::new(FoundCluster { system_id: system_id.map(SystemId), running, record: None }))
    }

    #[test]
    fn only_what_was_confirmed_is_replaced() {
        use Replace::{Nothing, Running, Stopped};
        let table: [(Found, [Option<&str>; 3]); 8] = [
            (Found::Absent, [None, None, None]),
            (Found::Empty, [None, None, None]),
            (Found::NotADirectory, [Some("not a directory"); 3]),
            (Found::Other("photos".into()), [Some("it holds \"photos\""); 3]),
            (Found::Incomplete(None), [Some("unfinished restore"), None, None]),
            (cluster(Some(7), false), [Some("it is a data directory"), None, None]),
            (cluster(None, true), [Some("on port 5433 (process 4711)"), Some("a server runs in it"), None]),
            (cluster(Some(8), false), [Some("another cluster, with system identifier 8"); 3]),
        ];
        for (found, expected) in table {
            for (replace, expected) in [Nothing, Stopped, Running].into_iter().zip(expected) {
                let judged = judge(Path::new("/data"), &found, replace, SystemId(7));
                match expected {
                    None => assert!(judged.is_ok(), "{found:?} {replace:?}"),
                    Some(cause) => {
                        let error = judged.expect_err("refused");
                        assert!(error.message().contains(cause) && error.hint().is_some(), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_running_server_is_stopped_only_if_there_is_one() {
        let judged = |found| judge(Path::new("/d"), &found, Replace::Running, SystemId(7)).expect("allowed");
        assert!(judged(cluster(Some(7), true)).stop_server);
        let stopped = judged(cluster(Some(7), false));
        assert!(!stopped.stop_server && stopped.empty);
        assert_eq!(judged(Found::Absent), Clearing::default());
    }

    #[test]
    fn a_directory_is_known_by_what_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data");
        assert_eq!(look(&path), Ok(Found::Absent));
        fs::create_dir(&path).expect("made");
        assert_eq!(look(&path), Ok(Found::Empty));
        fs::write(path.join("lost+found"), "").expect("written");
        assert_eq!(look(&path), Ok(Found::Other("lost+found".into())));
        fs::write(path.join("PG_VERSION"), "15\n").expect("written");
        let found = FoundCluster { system_id: None, running: None, record: None };
        assert_eq!(look(&path), Ok(Found::Cluster(Box::new(found))));
        record::mark_incomplete(&path).expect("marked");
        assert_eq!(look(&path), Ok(Found::Incomplete(None)));
        assert_eq!(look(&path.join("PG_VERSION")), Ok(Found::NotADirectory));
    }

    #[test]
    fn emptying_leaves_the_mark_and_what_links_lead_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, elsewhere) = (dir.path().join("data"), dir.path().join("elsewhere"));
        fs::create_dir_all(data.join("global")).expect("made");
        fs::create_dir_all(data.join("pg_tblspc")).expect("made");
        fs::create_dir(&elsewhere).expect("made");
        fs::write(elsewhere.join("precious"), "x").expect("written");
        fs::write(data.join("global/pg_control"), "x").expect("written");
        std::os::unix::fs::symlink(&elsewhere, data.join("pg_tblspc/16400")).expect("linked");
        std::os::unix::fs::symlink(&elsewhere, data.join("pg_wal")).expect("linked");
        record(&[]).write(&data).expect("written");
        prepare(&data, &Clearing { stop_server: false, empty: true, record: None }, &[]).expect("emptied");
        assert_eq!(entries(&data), Ok(vec![data.join(INCOMPLETE)]));
        assert!(elsewhere.join("precious").exists());
    }

    #[test]
    fn an_open_directory_is_closed_and_refused_if_somebody_was_faster() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("opened");
        open();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("pgark-restore-config")).expect("planted");
        let error = prepare(dir.path(), &Clearing::default(), &[]).expect_err("planted");
        assert!(error.message().contains("somebody just made"), "{error}");
        fs::remove_file(dir.path().join("pgark-restore-config")).expect("removed");
        open();
        prepare(dir.path(), &Clearing::default(), &[]).expect("prepared");
        assert_eq!(dir.path().metadata().expect("there").permissions().mode() & 0o777, durable::PRIVATE);
    }

    #[test]
    fn a_new_directory_is_marked_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("a/b");
        prepare(&data, &Clearing::default(), &[]).expect("made");
        assert_eq!(look(&data), Ok(Found::Incomplete(None)));
        assert!(check_access(&data).is_ok());
    }
}
