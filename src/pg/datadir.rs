//! Walking a data directory and its tablespaces: what a backup copies, in the order of its paths.
//!
//! Follows sendDir and sendTablespace (basebackup.c): what is left out, unlogged relations by their init
//! fork, of a tablespace only the directory of this major. Files come and go under the walk: what is gone
//! when it is looked at is left out, what came after its directory was listed is not seen; WAL has both.
//!
//! Differs in symbolic links: where the server keeps its own files they are followed, because a backup
//! without what is behind them restores nothing; elsewhere they are skipped, and reported.
//!
//! Invariants: paths come sorted component by component, bytewise; memory does not grow with the number
//! of files.

mod sorted_names;

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::exclude::{Exclusion, excluded};
use super::oid::Oid;
use super::relfile::{Fork, RelationDirectory, RelationName};
use super::version::PgMajor;
use crate::error::{Error, IoContext, Result};
use sorted_names::sorted_names;

/// Where the server keeps what it can't do without. In `pg_tblspc` links are the rule, and known.
const SERVERS_OWN: [&str; 8] =
    ["base", "global", "pg_commit_ts", "pg_logical", "pg_multixact", "pg_tblspc", "pg_twophase", "pg_xact"];

/// A tablespace that was linked to when the data directory was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    pub oid: Oid,
    /// Where `pg_tblspc/<oid>` points; None for a directory in that place (allow_in_place_tablespaces).
    pub location: Option<PathBuf>,
}

/// Something that the walk found, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Relative to the data directory, which is the empty path itself.
    pub path: PathBuf,
    pub kind: FoundKind,
    /// Permission bits.
    pub mode: u32,
    /// In whole seconds.
    pub modified: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// A directory, or a link to one that counts as one.
    Directory,
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
    },
    /// Not copied, and somebody might miss it.
    Skipped { reason: &'static str },
}

/// A data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    major: PgMajor,
    tablespaces: Vec<Tablespace>,
    /// Locations of tablespaces inside the data directory, relative to it: they are walked as tablespaces.
    nested: Vec<PathBuf>,
}

impl DataDir {
    /// Notes the tablespaces that there are. Call it after the backup started: what is created later is in
    /// the WAL, and is not walked.
    pub fn open(path: &Path, major: PgMajor) -> Result<Self> {
        let tablespaces = read_tablespaces(&path.join("pg_tblspc"))?;
        let resolved = canonical(path)?;
        let mut nested = Vec::new();
        for location in tablespaces.iter().filter_map(|tablespace| tablespace.location.as_deref()) {
            // Relative links are not what PostgreSQL makes, but what some tools leave.
            let location = canonical(&path.join("pg_tblspc").join(location))?;
            nested.extend(location.strip_prefix(&resolved).ok().map(Path::to_path_buf));
        }
        Ok(Self { path: path.to_path_buf(), major, tablespaces, nested })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn major(&self) -> PgMajor {
        self.major
    }

    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// Shows `visit` everything that a backup copies, directories before what they hold. Ends with the
    /// first error of `visit`.
    pub fn walk(&self, visit: &mut impl FnMut(Found) -> Result<()>) -> Result<()> {
        let root = self.path.metadata().doing(|| format!("look at {}", self.path.display()))?;
        visit(Found::new(PathBuf::new(), classify(&root), &root))?;
        self.walk_directory(Path::new(""), visit)
    }

    fn walk_directory(&self, directory: &Path, visit: &mut impl FnMut(Found) -> Result<()>) -> Result<()> {
        let holds_relations = RelationDirectory::parse(directory, self.major).is_some();
        let mut names = sorted_names(&self.path.join(directory))?;
        while let Some(name) = names.next()? {
            if holds_relations && self.is_unlogged(directory, name.to_str())? {
                continue;
            }
            match self.look(directory.join(name))? {
                Some(found) if found.kind == FoundKind::Directory => self.walk_into(found, visit)?,
                Some(found) => visit(found)?,
                None => {}
            }
        }
        Ok(())
    }

    fn walk_into(&self, found: Found, visit: &mut impl FnMut(Found) -> Result<()>) -> Result<()> {
        let path = found.path.clone();
        visit(found)?;
        let emptied = excluded(&path, true, self.major) == Exclusion::SkipContents;
        if emptied || self.nested.contains(&path) {
            return Ok(());
        }
        self.check_tablespace(&path)?;
        self.walk_directory(&path, visit)
    }

    /// What is at `path`; None when it is excluded or gone.
    fn look(&self, path: PathBuf) -> Result<Option<Found>> {
        let Some(metadata) = present(self.path.join(&path).symlink_metadata(), &path)? else {
            return Ok(None);
        };
        let target = if metadata.is_symlink() { self.target(&path)? } else { Some(metadata.clone()) };
        let is_dir = target.as_ref().is_some_and(Metadata::is_dir);
        let exclusion = excluded(&path, is_dir, self.major);
        // Nobody misses a socket: a server makes its own.
        let is_socket = metadata.file_type().is_socket();
        if exclusion == Exclusion::Skip || is_socket || self.is_later_tablespace(&path) {
            return Ok(None);
        }
        if metadata.is_symlink() && exclusion == Exclusion::Copy && !is_servers_own(&path) {
            let kind = FoundKind::Skipped { reason: "it is a symbolic link" };
            return Ok(Some(Found::new(path, kind, &metadata)));
        }
        let target = target.ok_or_else(|| dangling(&path))?;
        Ok(Some(Found::new(path, classify(&target), &target)))
    }

    /// What a link points to; None when that is not there.
    fn target(&self, path: &Path) -> Result<Option<Metadata>> {
        present(self.path.join(path).metadata(), path)
    }

    /// Whether the relation file is one of an unlogged relation that recovery makes anew from its init fork
    /// (ResetUnloggedRelations, reinit.c).
    fn is_unlogged(&self, directory: &Path, name: Option<&str>) -> Result<bool> {
        let parsed = name.and_then(RelationName::parse);
        let Some(name) = parsed.filter(|name| name.fork != Fork::Init && name.temporary.is_none()) else {
            return Ok(false);
        };
        let init_fork = directory.join(RelationName { fork: Fork::Init, file: 0, ..name }.to_string());
        Ok(present(self.path.join(&init_fork).symlink_metadata(), &init_fork)?.is_some())
    }

    /// A tablespace's link that was not there when the directory was opened.
    fn is_later_tablespace(&self, path: &Path) -> bool {
        let known = |oid| self.tablespaces.iter().any(|tablespace| tablespace.oid == oid);
        tablespace_of(path).is_some_and(|oid| !known(oid))
    }

    /// A tablespace always has its version directory (create_tablespace_directories, tablespace.c). Without
    /// it, its file system is probably not mounted, and the backup would lack all that is in it.
    fn check_tablespace(&self, path: &Path) -> Result<()> {
        let version = path.join(self.major.tablespace_directory());
        if tablespace_of(path).is_none() || self.target(&version)?.is_some() {
            return Ok(());
        }
        Err(Error::postgres(format!(
            "could not copy tablespace {}: there is no {} in it",
            path.display(),
            self.major.tablespace_directory()
        ))
        .with_hint("is its file system mounted?"))
    }
}

/// The tablespace whose place is `pg_tblspc/<oid>`, if `path` is that.
fn tablespace_of(path: &Path) -> Option<Oid> {
    Oid::from_file_name(path.strip_prefix("pg_tblspc").ok()?.to_str()?)
}

fn read_tablespaces(directory: &Path) -> Result<Vec<Tablespace>> {
    let mut tablespaces = Vec::new();
    let mut names = sorted_names(directory)?;
    while let Some(name) = names.next()? {
        let Some(oid) = name.to_str().and_then(Oid::from_file_name) else { continue };
        let path = directory.join(name);
        match std::fs::read_link(&path) {
            Ok(location) => tablespaces.push(Tablespace { oid, location: Some(location) }),
            // EINVAL: it is no link.
            Err(cause) if cause.kind() == ErrorKind::InvalidInput => {
                tablespaces.push(Tablespace { oid, location: None });
            }
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            Err(cause) => return Err(cause).doing(|| format!("read link {}", path.display())),
        }
    }
    Ok(tablespaces)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().doing(|| format!("resolve {}", path.display()))
}

/// None for what is not there, also because a directory above it went away.
fn present(found: std::io::Result<Metadata>, path: &Path) -> Result<Option<Metadata>> {
    match found {
        Ok(metadata) => Ok(Some(metadata)),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause).doing(|| format!("look at {}", path.display())),
    }
}

fn is_servers_own(path: &Path) -> bool {
    path.components().next().is_some_and(|top| SERVERS_OWN.iter().any(|own| top.as_os_str() == *own))
}

fn dangling(path: &Path) -> Error {
    Error::postgres(format!("could not copy {}: the link points to nothing", path.display()))
        .with_hint("is the file system mounted to which it points?")
}

impl Found {
    fn new(path: PathBuf, kind: FoundKind, metadata: &Metadata) -> Self {
        // A time that no calendar has is nobody's loss.
        let modified = Timestamp::from_second(metadata.mtime()).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { path, kind, mode: metadata.mode() & 0o7777, modified }
    }
}

fn classify(metadata: &Metadata) -> FoundKind {
    let kind = metadata.file_type();
    if kind.is_dir() {
        FoundKind::Directory
    } else if kind.is_file() {
        FoundKind::File { size: metadata.len() }
    } else {
        FoundKind::Skipped { reason: "it is neither a file nor a directory" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const VERSION: &str = "PG_15_202209061";

    fn major() -> PgMajor {
        PgMajor::try_from(15).expect("supported")
    }

    /// A directory with these files ("dir/" for an empty directory); each holds its own name.
    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("tempdir");
        for path in paths {
            let full = root.path().join(path);
            let directory = if path.ends_with('/') { full.as_path() } else { full.parent().expect("inside") };
            std::fs::create_dir_all(directory).expect("made");
            if !path.ends_with('/') {
                std::fs::write(&full, path).expect("written");
            }
        }
        root
    }

    /// The paths below the data directory, with a slash behind directories and a question mark behind what is
    /// skipped.
    fn walked(dir: &DataDir) -> Result<Vec<String>> {
        let mut found = Vec::new();
        dir.walk(&mut |entry| {
            let mark = match entry.kind {
                FoundKind::Directory => "/",
                FoundKind::File { .. } => "",
                FoundKind::Skipped { .. } => "?",
            };
            found.push(format!("{}{mark}", entry.path.display()));
            Ok(())
        })?;
        assert_eq!(found.first().map(String::as_str), Some("/"), "the data directory itself");
        found.remove(0);
        Ok(found)
    }

    fn walk(root: &Path) -> Result<Vec<String>> {
        walked(&DataDir::open(root, major())?)
    }

    #[test]
    fn paths_come_sorted_by_component_and_without_what_is_excluded() {
        let root = tree(&[
            "PG_VERSION",
            "base/1/PG_VERSION",
            "base/1/1259",
            "base/10/1259",
            "base/1-x",
            "base/pgsql_tmp/pgsql_tmp1.0",
            "global/pg_control",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/",
            "pg_tblspc/",
            "postmaster.pid",
        ]);
        let expected = [
            "PG_VERSION",
            "base/",
            "base/1/",
            "base/1/1259",
            "base/1/PG_VERSION",
            "base/1-x",
            "base/10/",
            "base/10/1259",
            "global/",
            "global/pg_control",
            "pg_tblspc/",
            "pg_wal/",
        ];
        assert_eq!(walk(root.path()).expect("walked"), expected);
    }

    #[test]
    fn modes_and_sizes_are_those_on_disk() {
        let root = tree(&["base/5/16384", "pg_tblspc/"]);
        let file = root.path().join("base/5/16384");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("chmod");
        std::fs::set_permissions(root.path().join("base"), PermissionsExt::from_mode(0o750)).expect("chmod");
        let mut found = Vec::new();
        let dir = DataDir::open(root.path(), major()).expect("opened");
        dir.walk(&mut |entry| {
            found.push((entry.path.display().to_string(), entry.kind, entry.mode));
            Ok(())
        })
        .expect("walked");
        assert_eq!(found[1], ("base".to_string(), FoundKind::Directory, 0o750));
        assert_eq!(found[3], ("base/5/16384".to_string(), FoundKind::File { size: 12 }, 0o640));
    }

    #[test]
    fn of_unlogged_relations_the_init_fork_is_left_and_elsewhere_names_mean_nothing() {
        let root = tree(&[
            "base/5/16384",
            "base/5/16384.1",
            "base/5/16384_fsm",
            "base/5/16384_init",
            "base/5/16385",
            "mine/16384",
            "mine/16384_init",
            "pg_tblspc/",
        ]);
        let found = walk(root.path()).expect("walked");
        let files: Vec<&str> = found.iter().map(String::as_str).filter(|path| !path.ends_with('/')).collect();
        assert_eq!(files, ["base/5/16384_init", "base/5/16385", "mine/16384", "mine/16384_init"]);
    }

    #[test]
    fn of_a_tablespace_only_this_majors_directory_is_walked() {
        let location = tree(&[&format!("{VERSION}/5/16390"), "PG_14_202107181/5/16390", "precious"]);
        let root = tree(&["base/", "pg_tblspc/16386/PG_15_202209061/5/7"]);
        symlink(location.path(), root.path().join("pg_tblspc/16385")).expect("linked");
        let dir = DataDir::open(root.path(), major()).expect("opened");
        let linked = Tablespace { oid: Oid(16385), location: Some(location.path().to_path_buf()) };
        assert_eq!(dir.tablespaces(), [linked, Tablespace { oid: Oid(16386), location: None }]);
        let expected = [
            "base/".to_string(),
            "pg_tblspc/".to_string(),
            "pg_tblspc/16385/".to_string(),
            format!("pg_tblspc/16385/{VERSION}/"),
            format!("pg_tblspc/16385/{VERSION}/5/"),
            format!("pg_tblspc/16385/{VERSION}/5/16390"),
            "pg_tblspc/16386/".to_string(),
            format!("pg_tblspc/16386/{VERSION}/"),
            format!("pg_tblspc/16386/{VERSION}/5/"),
            format!("pg_tblspc/16386/{VERSION}/5/7"),
        ];
        assert_eq!(walked(&dir).expect("walked"), expected);
        symlink(location.path(), root.path().join("pg_tblspc/16999")).expect("linked");
        assert_eq!(walked(&dir).expect("walked"), expected, "a tablespace of later is in the WAL");
    }

    #[test]
    fn a_tablespace_inside_the_data_directory_is_walked_once() {
        let root = tree(&[&format!("inside/ts/{VERSION}/5/16390"), "pg_tblspc/"]);
        symlink(root.path().join("inside/ts"), root.path().join("pg_tblspc/16385")).expect("linked");
        let found = walk(root.path()).expect("walked");
        let files: Vec<&String> = found.iter().filter(|path| path.ends_with("16390")).collect();
        assert_eq!(files, [&format!("pg_tblspc/16385/{VERSION}/5/16390")]);
        assert!(found.contains(&"inside/ts/".to_string()));
    }

    #[test]
    fn a_tablespace_that_is_not_mounted_is_an_error() {
        let location = tempfile::tempdir().expect("tempdir");
        let root = tree(&["pg_tblspc/"]);
        symlink(location.path(), root.path().join("pg_tblspc/16385")).expect("linked");
        let error = walk(root.path()).expect_err("an empty location");
        assert!(error.message().contains("tablespace pg_tblspc/16385"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("mounted")));
    }

    #[test]
    fn links_are_followed_where_the_server_keeps_its_files_and_reported_elsewhere() {
        let elsewhere = tree(&["5/16384", "000000010000000000000001"]);
        let root = tree(&["pg_tblspc/"]);
        for name in ["base", "log", "pg_wal", "server.key"] {
            symlink(elsewhere.path(), root.path().join(name)).expect("linked");
        }
        std::os::unix::net::UnixListener::bind(root.path().join(".s.PGSQL.5432")).expect("a socket");
        let expected = [
            "base/",
            "base/000000010000000000000001",
            "base/5/",
            "base/5/16384",
            "log?",
            "pg_tblspc/",
            "pg_wal/",
            "server.key?",
        ];
        assert_eq!(walk(root.path()).expect("walked"), expected);
        symlink("/nonexistent/pgark", root.path().join("global")).expect("linked");
        assert!(walk(root.path()).is_err_and(|error| error.message().contains("global: the link points")));
    }

    #[test]
    fn what_goes_while_it_is_walked_is_left_out() {
        let root = tree(&["base/5/16384", "base/6/16384", "base/7", "pg_tblspc/"]);
        let mut found = Vec::new();
        let dir = DataDir::open(root.path(), major()).expect("opened");
        dir.walk(&mut |entry| {
            if entry.path == Path::new("base/5") {
                std::fs::remove_dir_all(root.path().join("base/6")).expect("removed");
                std::fs::remove_file(root.path().join("base/7")).expect("removed");
            }
            if entry.path == Path::new("base/5/16384") {
                std::fs::remove_dir_all(root.path().join("base/5")).expect("removed");
            }
            found.push(entry.path.display().to_string());
            Ok(())
        })
        .expect("walked");
        assert_eq!(found, ["", "base", "base/5", "base/5/16384", "pg_tblspc"]);
    }
}
