//! Relation files: where they are in a data directory, and what their names say.
//!
//! Paths are relative to the data directory: `base/<database>/<name>`, `global/<name>` and
//! `pg_tblspc/<tablespace>/PG_<major>_<catalog version>/<database>/<name>` (GetRelationPath, relpath.c). A
//! name is `<number>[_<fork>][.<segment>]`, for temporary relations with `t<backend>_` before it. Only what
//! PostgreSQL itself writes is taken for a relation file, as parse_filename_for_nontemp_relation (reinit.c)
//! does from 17 on: no leading zeros, no segment 0.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::oid::Oid;
use super::page::BlockNumber;
use super::version::PgMajor;

/// One of the files that together are a relation (ForkNumber, forkNames in relpath.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    Main,
    FreeSpaceMap,
    VisibilityMap,
    /// What an unlogged relation is reset to after a crash.
    Init,
}

impl Fork {
    const ALL: [Fork; 4] = [Fork::Main, Fork::FreeSpaceMap, Fork::VisibilityMap, Fork::Init];

    /// With its underscore; nothing for the main fork.
    fn suffix(self) -> &'static str {
        match self {
            Fork::Main => "",
            Fork::FreeSpaceMap => "_fsm",
            Fork::VisibilityMap => "_vm",
            Fork::Init => "_init",
        }
    }
}

/// What the name of a relation file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationName {
    /// The number of the backend that a temporary relation belongs to.
    pub temporary: Option<u32>,
    /// The relation's file number (relfilenode), which is not its oid in pg_class.
    pub number: Oid,
    pub fork: Fork,
    /// Which of the files of a large fork, from 0.
    pub file: u32,
}

impl RelationName {
    /// None for any other file.
    pub fn parse(name: &str) -> Option<Self> {
        let (temporary, name) = match name.strip_prefix('t') {
            Some(rest) => {
                let (backend, rest) = rest.split_once('_')?;
                (Some(number(backend)?), rest)
            }
            None => (None, name),
        };
        let (name, file) = match name.split_once('.') {
            Some((name, file)) => (name, Oid::from_file_name(file)?.0),
            None => (name, 0),
        };
        let digits = name.find('_').unwrap_or(name.len());
        let (relation, suffix) = name.split_at_checked(digits)?;
        let fork = Fork::ALL.into_iter().find(|fork| fork.suffix() == suffix)?;
        Some(Self { temporary, number: Oid::from_file_name(relation)?, fork, file })
    }

    /// The number of the file's first page within the fork; `blocks_per_file` is the control file's.
    pub fn first_block(&self, blocks_per_file: u32) -> BlockNumber {
        BlockNumber(self.file.wrapping_mul(blocks_per_file))
    }
}

/// Digits only. Backends are counted from 0 or 1, by the major.
fn number(text: &str) -> Option<u32> {
    let zero = (text == "0").then_some(0);
    zero.or_else(|| Oid::from_file_name(text).map(|number| number.0))
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backend) = self.temporary {
            write!(f, "t{backend}_")?;
        }
        write!(f, "{}{}", self.number, self.fork.suffix())?;
        if self.file > 0 {
            write!(f, ".{}", self.file)?;
        }
        Ok(())
    }
}

/// A directory of relation files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationDirectory {
    pub tablespace: Oid,
    /// 0 for the relations that all databases share.
    pub database: Oid,
}

impl RelationDirectory {
    /// None for any other directory, among them those that another major made in a tablespace.
    pub fn parse(path: &Path, major: PgMajor) -> Option<Self> {
        Self::from_parts(&parts(path)?, major)
    }

    fn from_parts(parts: &[&str], major: PgMajor) -> Option<Self> {
        match parts {
            ["global"] => Some(Self { tablespace: Oid::GLOBAL_TABLESPACE, database: Oid(0) }),
            ["base", database] => {
                let database = Oid::from_file_name(database)?;
                Some(Self { tablespace: Oid::DEFAULT_TABLESPACE, database })
            }
            ["pg_tblspc", tablespace, version, database] if *version == major.tablespace_directory() => {
                let tablespace = Oid::from_file_name(tablespace)
                    .filter(|oid| ![Oid::DEFAULT_TABLESPACE, Oid::GLOBAL_TABLESPACE].contains(oid))?;
                Some(Self { tablespace, database: Oid::from_file_name(database)? })
            }
            _ => None,
        }
    }

    /// GetDatabasePath.
    pub fn path(&self, major: PgMajor) -> PathBuf {
        match self.tablespace {
            Oid::GLOBAL_TABLESPACE => PathBuf::from("global"),
            Oid::DEFAULT_TABLESPACE => PathBuf::from(format!("base/{}", self.database)),
            other => format!("pg_tblspc/{other}/{}/{}", major.tablespace_directory(), self.database).into(),
        }
    }
}

/// The storage of a relation, as the WAL names it (RelFileLocator; RelFileNode up to 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RelFileLocator {
    pub tablespace: Oid,
    /// 0 for the relations that all databases share.
    pub database: Oid,
    pub number: Oid,
}

impl fmt::Display for RelFileLocator {
    /// As pg_waldump does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

/// A relation file: where it is and what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    pub directory: RelationDirectory,
    pub name: RelationName,
}

impl RelationFile {
    /// None for any other file. The pages of relation files, and nothing else, carry checksums.
    pub fn parse(path: &Path, major: PgMajor) -> Option<Self> {
        let parts = parts(path)?;
        let (name, directory) = parts.split_last()?;
        let directory = RelationDirectory::from_parts(directory, major)?;
        Some(Self { directory, name: RelationName::parse(name)? })
    }

    /// GetRelationPath.
    pub fn path(&self, major: PgMajor) -> PathBuf {
        self.directory.path(major).join(self.name.to_string())
    }
}

/// The components of a relative path without `.` and `..`, all of them UTF-8.
fn parts(path: &Path) -> Option<Vec<&str>> {
    let part = |component| match component {
        Component::Normal(part) => part.to_str(),
        _ => None,
    };
    path.components().map(part).collect()
}

/// Of the file names in one `RelationDirectory`, in any order, those of unlogged relations that a backup
/// leaves out: each fork, but not the init fork, of a relation that has an init fork. Recovery makes the
/// others anew from it (ResetUnloggedRelations, reinit.c). The same rule as sendDir's in basebackup.c.
pub fn unlogged<N: AsRef<OsStr>>(names: &[N]) -> impl Iterator<Item = &OsStr> {
    let parsed = |name: &N| name.as_ref().to_str().and_then(RelationName::parse);
    let has_init: BTreeSet<Oid> = names
        .iter()
        .filter_map(parsed)
        .filter(|name| name.fork == Fork::Init && name.file == 0 && name.temporary.is_none())
        .map(|name| name.number)
        .collect();
    let is_unlogged = move |name: &RelationName| {
        name.fork != Fork::Init && name.temporary.is_none() && has_init.contains(&name.number)
    };
    names.iter().filter(move |name| parsed(name).is_some_and(|name| is_unlogged(&name))).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn major(number: u32) -> PgMajor {
        PgMajor::try_from(number).expect("supported")
    }

    fn file(path: &str) -> Option<RelationFile> {
        RelationFile::parse(Path::new(path), major(15))
    }

    #[test]
    fn names_are_read_as_postgresql_writes_them() {
        for (text, temporary, number, fork, file) in [
            ("16384", None, 16384, Fork::Main, 0),
            ("16384.1", None, 16384, Fork::Main, 1),
            ("16384_fsm", None, 16384, Fork::FreeSpaceMap, 0),
            ("16384_vm.12", None, 16384, Fork::VisibilityMap, 12),
            ("4294967295_init", None, u32::MAX, Fork::Init, 0),
            ("t3_16384", Some(3), 16384, Fork::Main, 0),
            ("t0_16384_fsm.2", Some(0), 16384, Fork::FreeSpaceMap, 2),
        ] {
            let expected = RelationName { temporary, number: Oid(number), fork, file };
            assert_eq!(RelationName::parse(text), Some(expected), "{text}");
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn other_names_are_no_relation_files() {
        for name in [
            "",
            "PG_VERSION",
            "pg_filenode.map",
            "pg_internal.init",
            "pg_control",
            "0",
            "016384",
            "16384.",
            "16384.0",
            "16384.01",
            "16384.1.2",
            "16384_",
            "16384_main",
            "16384_fsmx",
            "16384_fsm_vm",
            "16384x",
            "42949672960",
            "t_16384",
            "t3",
            "t3_",
            "t03_16384",
            "tx_16384",
            "t3_t3_16384",
            "_fsm",
            "-1",
        ] {
            assert_eq!(RelationName::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_file_of_a_large_relation_knows_its_first_block() {
        let name = RelationName::parse("16384.3").expect("a relation file");
        assert_eq!(name.first_block(131_072), BlockNumber(393_216));
    }

    #[test]
    fn relation_files_are_found_in_their_three_kinds_of_place() {
        for (path, tablespace, database) in [
            ("base/5/16384", 1663, 5),
            ("global/1262_fsm", 1664, 0),
            ("pg_tblspc/16390/PG_15_202209061/5/16384.1", 16390, 5),
        ] {
            let found = file(path).expect(path);
            let expected = RelationDirectory { tablespace: Oid(tablespace), database: Oid(database) };
            assert_eq!(found.directory, expected, "{path}");
            assert_eq!(found.path(major(15)), Path::new(path));
        }
    }

    #[test]
    fn files_elsewhere_are_no_relation_files() {
        for path in [
            "16384",
            "base/16384",
            "base/5/6/16384",
            "base/x/16384",
            "base/pgsql_tmp/16384",
            "global/5/16384",
            "pg_xact/0000",
            "pg_tblspc/16390/16384",
            "pg_tblspc/16390/PG_14_202107181/5/16384",
            "pg_tblspc/x/PG_15_202209061/5/16384",
            "pg_tblspc/1663/PG_15_202209061/5/16384",
            "/base/5/16384",
            "../base/5/16384",
            "base/../base/5/16384",
            "",
        ] {
            assert_eq!(file(path), None, "{path:?}");
        }
        assert!(file("base/5/16384").is_some());
    }

    #[test]
    fn of_unlogged_relations_only_the_init_forks_are_kept() {
        let names = [
            "16384",
            "16384.1",
            "16384_fsm",
            "16384_init",
            "16385",
            "163840",
            "16386_init.1",
            "16386",
            "16387_vm",
            "t3_16384",
            "t3_16388_init",
            "16388",
            "PG_VERSION",
        ];
        let skipped: Vec<&OsStr> = unlogged(&names).collect();
        assert_eq!(skipped, ["16384", "16384.1", "16384_fsm"]);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(path in "\\PC{0,40}", major_number in 14u32..=18) {
            let parsed = RelationFile::parse(Path::new(&path), major(major_number));
            prop_assert!(parsed.is_none_or(|file| file.path(major(major_number)) == Path::new(&path)));
        }

        #[test]
        fn what_looks_like_a_relation_file_is_written_back_the_same(
            path in "(base/[0-9]{1,5}|global|pg_tblspc/[0-9]{1,2}/PG_18_202506291/[0-9]{1,2})/t?[0-9]{0,2}_?[0-9]{0,11}(_(fsm|vm|init|x))?(.[0-9]{0,3})?",
        ) {
            if let Some(file) = RelationFile::parse(Path::new(&path), major(18)) {
                prop_assert_eq!(file.path(major(18)), Path::new(&path));
            }
        }

        #[test]
        fn an_unlogged_file_always_has_its_init_fork_beside_it(names in proptest::collection::vec("[12](_init|_fsm|_vm)?(.1)?", 0..9)) {
            for name in unlogged(&names) {
                let name = name.to_str().expect("it was a string");
                let init = format!("{}_init", &name[..1]);
                prop_assert!(names.contains(&init));
                prop_assert!(!name.contains("init"));
            }
        }
    }
}
