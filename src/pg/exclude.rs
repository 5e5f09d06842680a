//! What a backup of a data directory leaves out.
//!
//! The lists are those of basebackup.c (excludeDirContents, excludeFiles, sendDir, sendTablespace), the same
//! from 14 to 18. Two differences: PostgreSQL looks for these names in every directory, here they count only
//! where the server puts them, so that nobody's file is lost for its name; and left out besides are
//! the signal files and the remains of an earlier restore, which would mislead a restored server, and
//! lost+found, which only root may read. Unlogged relations are not known by their name: see `relfile::unlogged`.

use std::path::Path;

use super::relfile::RelationFile;
use super::version::PgMajor;

/// What to do with a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    Copy,
    /// Keep the directory itself, empty; if it is a symbolic link, a directory in its place.
    SkipContents,
    Skip,
}

/// Their contents are made anew when a server starts, or belong to this server alone; pg_wal comes from
/// the archive.
const EMPTIED: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];

/// Files right in the data directory.
const SKIPPED: [&str; 13] = [
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles",
    "current_logfiles.tmp",
    "pgark-restore-incomplete",
    "pgark-restore.json",
    "pgark-restore.log",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "tablespace_map",
    "tablespace_map.old",
];

/// Those of them that a restored server, or the next restore, would take for its own.
const MISLEADING: [&str; 5] =
    ["backup_label", "pgark-restore-incomplete", "pgark-restore.json", "postmaster.pid", "tablespace_map"];

/// What a backup does with `path`, relative to the data directory. `is_dir` is also true for a symbolic
/// link to a directory. Whatever lies in a skipped or emptied directory is skipped.
pub fn excluded(path: &Path, is_dir: bool, major: PgMajor) -> Exclusion {
    let text = path.to_string_lossy();
    let parts: Vec<&str> = text.split('/').collect();
    let skip = match parts.as_slice() {
        [top] if is_dir && EMPTIED.contains(top) => return Exclusion::SkipContents,
        // Of a file system that is mounted there; root's alone.
        ["lost+found", ..] => true,
        [top] => !is_dir && (SKIPPED.contains(top) || top.ends_with(".signal")),
        [top, ..] if EMPTIED.contains(top) => true,
        // Another major, before pg_upgrade or after, keeps its own directory beside ours; the rest of the
        // location is not PostgreSQL's.
        ["pg_tblspc", _, version, ..] if *version != major.tablespace_directory() => true,
        ["base" | "global" | "pg_tblspc", .., name] => !is_dir && is_rebuilt(path, name, major),
        _ => false,
    };
    let is_temporary = |part: &&str| part.starts_with("pgsql_tmp") || *part == ".DS_Store";
    if skip || parts.iter().any(is_temporary) { Exclusion::Skip } else { Exclusion::Copy }
}

/// Whether a server that starts with this file or directory, relative to its data directory, would be misled, or
/// it lies outside of what is PostgreSQL's: no backup holds it, and no restore makes it. tablespace_map would
/// re-point the links of tablespaces (xlogrecovery.c, read_tablespace_map); a tablespace's location may be
/// anywhere, and only the part of the major version in it is the tablespace.
///
/// All of it is what [`excluded`] skips: a backup that is what one should be restores.
pub fn misleads(path: &Path, is_dir: bool, major: PgMajor) -> bool {
    let text = path.to_string_lossy();
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["pg_tblspc", _, version, ..] => *version != major.tablespace_directory(),
        [top] if !is_dir => top.ends_with(".signal") || MISLEADING.contains(top),
        _ => false,
    }
}

/// The relation cache, also under its temporary name, and temporary relations.
fn is_rebuilt(path: &Path, name: &str, major: PgMajor) -> bool {
    let is_temporary = |file: RelationFile| file.name.temporary.is_some();
    name.starts_with("pg_internal.init") || RelationFile::parse(path, major).is_some_and(is_temporary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn decide(path: &str, is_dir: bool) -> Exclusion {
        excluded(Path::new(path), is_dir, PgMajor::try_from(15).expect("supported"))
    }

    #[test]
    fn what_would_mislead_a_restored_server_is_told() {
        let misleads = |path, is_dir| {
            let misleads = misleads(Path::new(path), is_dir, PgMajor::try_from(15).expect("supported"));
            assert!(!misleads || decide(path, is_dir) == Exclusion::Skip, "a backup has {path}");
            misleads
        };
        for path in [
            "backup_label",
            "pg_tblspc/16390/.ssh",
            "pg_tblspc/16390/PG_14_202107181/5/1259",
            "pgark-restore.json",
            "postmaster.pid",
            "recovery.signal",
            "standby.signal",
            "tablespace_map",
        ] {
            assert!(misleads(path, false), "{path}");
        }
        assert!(misleads("pg_tblspc/16390/.ssh", true));
        for path in ["", "base/5/tablespace_map", "log/x.signal", "pg_tblspc/16390/PG_15_202209061/5/1259"] {
            assert!(!misleads(path, false), "{path}");
        }
        assert!(!misleads("standby.signal", true), "a directory misleads nobody");
    }

    #[test]
    fn what_a_restored_server_needs_is_copied() {
        for path in [
            "PG_VERSION",
            "backup_label.mine",
            "base/5/16384",
            "base/5/16384_init",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/postmaster.pid",
            "global/pg_control",
            "log/postmaster.pid",
            "log/recovery.signal",
            "log/t3_16384",
            "mine/pg_internal.init",
            "mine/pg_wal/000000010000000000000001",
            "pg_commit_ts/0000",
            "pg_hba.conf",
            "pg_logical/snapshots/0-1.snap",
            "pg_stat/pgstat.stat",
            "pg_tblspc/16390/PG_15_202209061/5/16384",
            "pg_twophase/000002E1",
            "postgresql.auto.conf",
        ] {
            assert_eq!(decide(path, false), Exclusion::Copy, "{path}");
        }
        for path in ["", "base", "base/5", "pg_tblspc", "pg_tblspc/16390", "pg_tblspc/16390/PG_15_202209061"]
        {
            assert_eq!(decide(path, true), Exclusion::Copy, "{path}");
        }
    }

    #[test]
    fn what_belongs_to_the_running_server_alone_is_skipped() {
        for path in [
            "backup_label",
            "backup_label.old",
            "backup_manifest",
            "base/5/pg_internal.init",
            "base/5/pg_internal.init.1234",
            "base/5/t3_16384",
            "base/5/t3_16384_fsm.1",
            "base/pgsql_tmp/pgsql_tmp1234.0",
            "current_logfiles",
            "current_logfiles.tmp",
            "global/pg_internal.init",
            "pg_tblspc/16390/PG_15_202209061/5/t3_16384",
            "pg_tblspc/16390/PG_15_202209061/pgsql_tmp/pgsql_tmp1234.0.sharedfileset/0.0",
            "postgresql.auto.conf.tmp",
            "postmaster.opts",
            "postmaster.pid",
            "recovery.signal",
            "standby.signal",
            "tablespace_map",
            "tablespace_map.old",
        ] {
            assert_eq!(decide(path, false), Exclusion::Skip, "{path}");
        }
        assert_eq!(decide("lost+found", true), Exclusion::Skip);
        assert_eq!(decide("mine/lost+found", true), Exclusion::Copy);
        assert_eq!(decide("base/pgsql_tmp", true), Exclusion::Skip);
        assert_eq!(decide("pgsql_tmp", true), Exclusion::Skip);
    }

    #[test]
    fn some_directories_are_kept_empty() {
        for directory in EMPTIED {
            assert_eq!(decide(directory, true), Exclusion::SkipContents, "{directory}");
            assert_eq!(decide(&format!("{directory}/x"), false), Exclusion::Skip, "{directory}");
            assert_eq!(decide(directory, false), Exclusion::Copy, "a file of that name: {directory}");
        }
        for path in ["pg_wal/archive_status", "pg_wal/summaries", "pg_replslot/slot"] {
            assert_eq!(decide(path, true), Exclusion::Skip, "{path}");
        }
    }

    #[test]
    fn another_majors_files_in_a_tablespace_are_skipped() {
        let path = Path::new("pg_tblspc/16390/PG_14_202107181");
        for (major, expected) in [(14, Exclusion::Copy), (15, Exclusion::Skip)] {
            let major = PgMajor::try_from(major).expect("supported");
            assert_eq!(excluded(path, true, major), expected);
            assert_eq!(excluded(&path.join("5/16384"), false, major), expected);
        }
    }

    #[test]
    fn a_name_that_is_no_utf_8_is_judged_by_its_place() {
        let major = PgMajor::try_from(18).expect("supported");
        for (directory, expected) in [("log", Exclusion::Copy), ("pg_wal", Exclusion::Skip)] {
            let path = Path::new(directory).join(OsStr::from_bytes(b"caf\xE9"));
            assert_eq!(excluded(&path, false, major), expected);
        }
    }

    proptest! {
        #[test]
        fn deciding_never_panics(path in "\\PC{0,40}", is_dir: bool) {
            let decided = decide(&path, is_dir);
            prop_assert!(is_dir || decided != Exclusion::SkipContents);
        }

        #[test]
        fn nothing_below_an_emptied_directory_is_copied(top in 0usize..8, rest in "[a-z]{1,8}(/[a-z]{1,8})?", is_dir: bool) {
            let path = format!("{}/{rest}", EMPTIED[top]);
            prop_assert_eq!(decide(&path, is_dir), Exclusion::Skip);
        }
    }
}
