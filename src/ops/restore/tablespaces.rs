//! Where tablespaces go. The trap of every restore beside a live source: the server's own tablespace_map, and
//! the replay of CREATE TABLESPACE, lead to the source's directories, and a DROP TABLESPACE in the copy then
//! removes the source's files (tblspc_redo and destroy_tablespace_directories in tablespace.c).
//!
//! So the links are ours, and a location is refused when it holds a directory of this major version already:
//! at the original path, at a mapped one, and where WAL to be replayed creates a tablespace, since PostgreSQL
//! knows only the original path there. Freed by `--replace` is only what was made for that data directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use super::survey::CreatedTablespace;
use crate::error::{Error, IoContext, Result};
use crate::pg::oid::Oid;
use crate::pg::version::PgMajor;
use crate::repo::backup::Tablespace;

/// `--tablespace-map OLD=NEW`: OLD is a tablespace's name or its location at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub old: String,
    pub new: PathBuf,
}

impl FromStr for Mapping {
    type Err = Error;

    /// As pg_basebackup's --tablespace-mapping: an equals sign within a path is written `\=`.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match (character, parts.last_mut()) {
                ('\\', Some(part)) if characters.peek() == Some(&'=') => {
                    part.push('=');
                    characters.next();
                }
                ('=', _) => parts.push(String::new()),
                (other, Some(part)) => part.push(other),
                (_, None) => {}
            }
        }
        match parts.as_slice() {
            [old, new] if !old.is_empty() && new.starts_with('/') => {
                Ok(Self { old: old.clone(), new: clean(Path::new(new)) })
            }
            _ => Err(Error::configuration(format!("\"{text}\" does not say where a tablespace goes"))
                .with_hint(
                    "write OLD=NEW: the tablespace's name or its location at the source, and an absolute path here",
                )),
        }
    }
}

/// Without a slash at the end or `.` within, so that paths compare.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

/// PostgreSQL makes a location absolute and canonical before it keeps it (tablespace.c, CreateTableSpace).
fn is_canonical(location: &Path) -> bool {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    location.is_absolute()
        && location.components().all(plain)
        && !location.as_os_str().as_bytes().contains(&0)
}

/// A tablespace of the backup and its place here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub oid: Oid,
    pub name: String,
    /// At the source.
    pub source: PathBuf,
    pub location: PathBuf,
    /// The operator named this very location.
    pub mapped: bool,
}

/// Gives each tablespace its place: the mapped one, else the source's.
pub fn assign(tablespaces: &[Tablespace], mappings: &[Mapping]) -> Result<Vec<Assigned>> {
    if let Some(odd) = tablespaces.iter().find(|tablespace| !is_canonical(tablespace.location.as_path())) {
        return Err(Error::corrupt(format!(
            "the backup says that tablespace {} was at \"{}\", where none can be",
            odd.name,
            odd.location.as_path().display()
        )));
    }
    let known = |mapping: &Mapping| tablespaces.iter().any(|tablespace| is_meant(mapping, tablespace));
    if let Some(unknown) = mappings.iter().find(|mapping| !known(mapping)) {
        return Err(unknown_tablespace(&unknown.old, tablespaces));
    }
    let place = |tablespace: &Tablespace| {
        let mapping = mappings.iter().rev().find(|mapping| is_meant(mapping, tablespace));
        let source = clean(tablespace.location.as_path());
        Assigned {
            oid: tablespace.oid,
            name: tablespace.name.clone(),
            location: mapping.map_or_else(|| source.clone(), |mapping| mapping.new.clone()),
            source,
            mapped: mapping.is_some(),
        }
    };
    Ok(tablespaces.iter().map(place).collect())
}

/// Refuses places that are one, or inside the data directory, or around it: of the tablespaces and of those
/// that replay creates. `real` resolves symbolic links ([`real_path`]).
pub fn refuse_meetings(
    assigned: &[Assigned],
    created: &[CreatedTablespace],
    data: &Path,
    real: impl Fn(&Path) -> PathBuf,
) -> Result<()> {
    let data = real(data);
    let mut taken: BTreeMap<PathBuf, &Assigned> = BTreeMap::new();
    for place in assigned {
        let location = real(&place.location);
        if location.starts_with(&data) || data.starts_with(&location) {
            return Err(refuse(place, format!("the data directory is {}", data.display())));
        }
        if let Some(other) = taken.insert(location, place) {
            return Err(refuse(place, format!("tablespace {} goes there", other.name)));
        }
    }
    for created in created {
        let location = real(&path_of(created));
        if let Some(place) = taken.get(&location).filter(|place| place.oid != created.oid) {
            let cause =
                format!("at {} the WAL to be replayed creates tablespace {} there", created.lsn, created.oid);
            return Err(refuse(place, cause));
        }
    }
    Ok(())
}

/// The path that the record holds.
pub fn path_of(created: &CreatedTablespace) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(created.path.as_bytes()))
}

/// The path without symbolic links, as far as it exists.
pub fn real_path(path: &Path) -> PathBuf {
    let resolved = path.ancestors().find_map(|above| {
        let real = above.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(above).ok()?))
    });
    resolved.map_or_else(|| path.to_path_buf(), |resolved| clean(&resolved))
}

fn is_meant(mapping: &Mapping, tablespace: &Tablespace) -> bool {
    mapping.old == tablespace.name || clean(Path::new(&mapping.old)) == clean(tablespace.location.as_path())
}

fn unknown_tablespace(old: &str, tablespaces: &[Tablespace]) -> Error {
    let known: Vec<String> = tablespaces
        .iter()
        .map(|tablespace| format!("{} at {}", tablespace.name, tablespace.location.as_path().display()))
        .collect();
    let error = Error::configuration(format!("the backup has no tablespace \"{old}\" to map"));
    match known.is_empty() {
        true => error.with_hint("it has no tablespaces at all: leave --tablespace-map out"),
        false => error.with_hint(format!("it has these: {}", known.join(", "))),
    }
}

fn refuse(place: &Assigned, cause: String) -> Error {
    Error::configuration(format!(
        "could not put tablespace {} at {}: {cause}",
        place.name,
        place.location.display()
    ))
    .with_hint(map_hint(&place.name))
}

fn map_hint(name: &str) -> String {
    format!("put it somewhere else with --tablespace-map {name}=/another/directory")
}

/// What is found at a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Absent,
    /// A directory of ours without this major version's part.
    Free,
    /// It holds this directory of the major version: a tablespace of somebody.
    Used(PathBuf),
    /// The path, or the directory in which it would be made, can't be used, and why.
    Unusable(String),
}

/// Looks at a location without touching it.
pub fn look(location: &Path, major: PgMajor) -> Result<Found> {
    let metadata = match fs::metadata(location) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(absent(location)),
        found => found.doing(|| format!("look at {}", location.display()))?,
    };
    if !metadata.is_dir() {
        return Ok(Found::Unusable("it is not a directory".into()));
    }
    for entry in fs::read_dir(location).doing(|| format!("list {}", location.display()))? {
        let entry = entry.doing(|| format!("list {}", location.display()))?;
        let prefix = format!("PG_{major}_");
        if entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
            return Ok(Found::Used(entry.path()));
        }
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us && us != 0 {
        return Ok(Found::Unusable(format!("it belongs to user id {}, not to us ({us})", metadata.uid())));
    }
    Ok(Found::Free)
}

/// As PostgreSQL does when it makes a tablespace (tablespace.c, create_tablespace_directories): from here on nobody
/// else can put a link where a file is to be written. What was put there before is refused.
pub fn keep_others_out(location: &Path, major: PgMajor) -> Result<()> {
    let mode =
        fs::metadata(location).doing(|| format!("look at {}", location.display()))?.permissions().mode();
    if mode & 0o022 != 0 {
        fs::set_permissions(location, Permissions::from_mode(mode & 0o755))
            .doing(|| format!("keep others from writing to {}", location.display()))?;
    }
    match look(location, major)? {
        Found::Used(path) => Err(Error::conflict(format!(
            "could not restore into {}: somebody just made {}",
            location.display(),
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// The nearest directory that exists must let us make the rest.
fn absent(location: &Path) -> Found {
    let existing = location.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    match rustix::fs::access(existing, access) {
        Ok(()) => Found::Absent,
        Err(cause) => Found::Unusable(format!(
            "it is not there, and we can't make it in {}: {cause}",
            existing.display()
        )),
    }
}

/// Whether a tablespace of a restored data directory is a directory there and no link (allow_in_place_tablespaces).
pub fn any_in_place(data: &Path) -> Result<bool> {
    let links = data.join("pg_tblspc");
    for entry in fs::read_dir(&links).doing(|| format!("list {}", links.display()))? {
        let entry = entry.doing(|| format!("list {}", links.display()))?;
        let kind = entry.file_type().doing(|| format!("look at {}", entry.path().display()))?;
        if kind.is_dir() && entry.file_name().as_bytes().iter().all(u8::is_ascii_digit) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses a place of a tablespace of the backup. `freed` are the locations that `--replace` empties.
pub fn check(place: &Assigned, found: &Found, freed: &BTreeSet<PathBuf>) -> Result<()> {
    match found {
        Found::Absent | Found::Free => Ok(()),
        Found::Used(_) if freed.contains(&place.location) => Ok(()),
        Found::Used(directory) => {
            Err(refuse(place, format!("{} is a tablespace in use here", directory.display())))
        }
        Found::Unusable(cause) => Err(refuse(place, cause.clone())),
    }
}

/// Refuses a path at which the WAL to be replayed creates a tablespace. No mapping helps there.
pub fn check_created(created: &CreatedTablespace, found: &Found) -> Result<()> {
    let cause = match found {
        Found::Absent | Found::Free => return Ok(()),
        Found::Used(directory) => format!("{} is a tablespace in use here", directory.display()),
        Found::Unusable(cause) => cause.clone(),
    };
    Err(Error::configuration(format!(
        "could not replay the WAL up to the target here: at {} it creates tablespace {} at {}, and {cause}",
        created.lsn, created.oid, created.path
    ))
    .with_hint(format!(
        "PostgreSQL knows no other path there: restore on another host or in a container, take a backup that \
         began later, or a target before that (--target-lsn {} --exclusive)",
        created.lsn
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::lsn::Lsn;

    fn tablespaces() -> Vec<Tablespace> {
        [(16_400, "fast", "/ssd/fast"), (16_401, "slow", "/hdd/slow")]
            .map(|(oid, name, location)| Tablespace {
                oid: Oid(oid),
                name: name.into(),
                location: PathBuf::from(location).into(),
            })
            .to_vec()
    }

    fn assigned(mappings: &[&str]) -> Result<Vec<(String, bool)>> {
        let mappings: Vec<Mapping> = mappings.iter().map(|text| text.parse().expect("a mapping")).collect();
        let assigned = assign(&tablespaces(), &mappings)?;
        refuse_meetings(&assigned, &[created("/wal")], Path::new("/restore/data"), |path| {
            if path == Path::new("/alias") { "/hdd/slow".into() } else { path.to_path_buf() }
        })?;
        Ok(assigned.iter().map(|place| (place.location.display().to_string(), place.mapped)).collect())
    }

    fn created(path: &str) -> CreatedTablespace {
        CreatedTablespace { oid: Oid(7), path: path.into(), lsn: Lsn(0x30000A0) }
    }

    fn places(places: [(&str, bool); 2]) -> Result<Vec<(String, bool)>> {
        Ok(places.map(|(place, mapped)| (place.to_string(), mapped)).to_vec())
    }

    #[test]
    fn a_tablespace_is_mapped_by_its_name_or_by_its_old_location() {
        assert_eq!(assigned(&[]), places([("/ssd/fast", false), ("/hdd/slow", false)]));
        assert_eq!(assigned(&["fast=/x"]), places([("/x", true), ("/hdd/slow", false)]));
        assert_eq!(assigned(&["/hdd/slow/=/y/./z/"]), places([("/ssd/fast", false), ("/y/z", true)]));
        assert_eq!(
            assigned(&["fast=/a", "fast=/b", "slow=/hdd/slow"]),
            places([("/b", true), ("/hdd/slow", true)])
        );
    }

    #[test]
    fn a_location_that_no_server_has_is_refused() {
        for odd in ["relative", "", "/a/../b", "../b", "/a\0b"] {
            let mut forged = tablespaces();
            forged[1].location = PathBuf::from(odd).into();
            let error = assign(&forged, &[]).expect_err(odd);
            assert!(error.message().contains("tablespace slow was at"), "{error}");
        }
    }

    #[test]
    fn a_location_is_closed_to_others_before_it_is_written_to() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("opened");
        keep_others_out(dir.path(), major()).expect("closed");
        assert_eq!(dir.path().metadata().expect("there").permissions().mode() & 0o777, 0o755);
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("PG_15_202209061")).expect("planted");
        let error = keep_others_out(dir.path(), major()).expect_err("planted");
        assert!(error.message().contains("somebody just made"), "{error}");
    }

    #[test]
    fn places_that_meet_are_refused() {
        for (mappings, cause) in [
            (&["fast=/x", "slow=/x"][..], "tablespace fast goes there"),
            (&["fast=/alias"], "tablespace fast goes there"),
            (&["fast=/wal"], "at 0/30000A0 the WAL to be replayed creates tablespace 7 there"),
            (&["fast=/restore/data/ts"], "the data directory is"),
            (&["fast=/restore"], "the data directory is"),
            (&["fats=/x"], "no tablespace \"fats\""),
        ] {
            let error = assigned(mappings).expect_err(cause);
            assert!(error.message().contains(cause) && error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn a_mapping_is_two_paths_and_an_equals_sign() {
        let parse = |text: &str| text.parse::<Mapping>().map(|mapping| (mapping.old, mapping.new));
        assert_eq!(parse(r"/a\=b=/c\=d"), Ok(("/a=b".into(), "/c=d".into())));
        assert_eq!(parse(r"a\b=/c"), Ok((r"a\b".into(), "/c".into())));
        for bad in ["", "=", "a=", "=/b", "a=b", "a=/b=/c", "a"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    fn major() -> PgMajor {
        PgMajor::try_from(15).expect("supported")
    }

    #[test]
    fn a_location_is_free_unless_this_major_version_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(look(dir.path(), major()), Ok(Found::Free));
        fs::create_dir(dir.path().join("PG_14_202107181")).expect("made");
        assert_eq!(look(dir.path(), major()), Ok(Found::Free));
        assert_eq!(look(&dir.path().join("a/b"), major()), Ok(Found::Absent));
        let used = dir.path().join("PG_15_202209061");
        fs::create_dir(&used).expect("made");
        assert_eq!(look(dir.path(), major()), Ok(Found::Used(used)));
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(matches!(look(&file, major()), Ok(Found::Unusable(_))));
        assert!(matches!(look(&file.join("below"), major()), Ok(Found::Unusable(_)) | Err(_)));
    }

    #[test]
    fn a_tablespace_in_place_is_a_directory_with_a_number_for_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let links = dir.path().join("pg_tblspc");
        fs::create_dir_all(links.join("lost+found")).expect("made");
        std::os::unix::fs::symlink(dir.path(), links.join("16400")).expect("linked");
        assert_eq!(any_in_place(dir.path()), Ok(false));
        fs::create_dir(links.join("16401")).expect("made");
        assert_eq!(any_in_place(dir.path()), Ok(true));
        assert!(any_in_place(&links).is_err(), "no such directory");
    }

    #[test]
    fn a_real_path_has_no_links_as_far_as_it_exists() {
        let dir = tempfile::tempdir().expect("a directory");
        let real = dir.path().canonicalize().expect("real");
        std::os::unix::fs::symlink(&real, dir.path().join("link")).expect("linked");
        assert_eq!(real_path(&dir.path().join("link/a/b")), real.join("a/b"));
        assert_eq!(real_path(Path::new("/")), Path::new("/"));
    }

    #[test]
    fn what_is_in_use_is_refused_mapped_or_not_unless_it_is_emptied() {
        let used = Found::Used("/x/PG_15_202209061".into());
        let mut place = Assigned {
            oid: Oid(1),
            name: "fast".into(),
            source: "/x".into(),
            location: "/x".into(),
            mapped: false,
        };
        for mapped in [false, true] {
            place.mapped = mapped;
            let error = check(&place, &used, &BTreeSet::new()).expect_err("in use");
            assert!(error.message().contains("in use here"), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("--tablespace-map fast=")));
            assert!(check(&place, &used, &BTreeSet::from(["/x".into()])).is_ok());
        }
        assert!(check(&place, &Found::Unusable("no".into()), &BTreeSet::from(["/x".into()])).is_err());
    }

    #[test]
    fn what_replay_creates_needs_its_original_path() {
        let created = created("/x");
        assert!(check_created(&created, &Found::Free).is_ok());
        let error = check_created(&created, &Found::Used("/x/PG_15_1".into())).expect_err("in use");
        assert!(error.hint().is_some_and(|hint| hint.contains("--target-lsn 0/30000A0 --exclusive")));
    }
}
