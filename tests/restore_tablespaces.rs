//! A clone beside its live source, with tablespaces: the source keeps every file, whatever the WAL replays.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use harness::*;
use pgark::pg::version::PgMajor;

/// A source with a backup, whose tablespaces come and go afterwards.
struct Source {
    repo: TestRepo,
    cluster: Cluster,
    /// Before anything happened to the tablespaces.
    early: String,
    /// After a tablespace of the backup and one that came later were dropped; their directories are empty.
    dropped: String,
    /// The next transaction to end is the one that makes a tablespace where the dropped one was.
    between: String,
    /// After a tablespace was created that is still there.
    late: String,
}

impl Source {
    fn new() -> Self {
        let repo = TestRepo::init();
        let builder = Cluster::builder().archive_to(&repo).tablespace("kept").tablespace("doomed");
        let cluster = builder.set("autovacuum", "off").start();
        for name in ["kept", "doomed"] {
            cluster.psql(&format!(
                "create table in_{name} tablespace {name} as select a, md5(a::text) from generate_series(1, 20000) a"
            ));
        }
        run(repo.basebackup(&cluster).args(["--label", "one"])).succeeds();
        cluster.psql("update in_kept set a = -a");
        let early = cluster.now();
        // Recovery to a time stops at the next commit: what a transaction does before its own is replayed.
        cluster.psql("create table barrier (a int)");

        let passing = create_tablespace(&cluster, "passing");
        cluster.psql(
            "create table in_passing tablespace passing as select generate_series(1, 20000) a;
             drop table in_passing; drop table in_doomed;",
        );
        cluster.psql("drop tablespace passing; drop tablespace doomed");
        let dropped = cluster.now();
        cluster.psql("create table another (a int)");
        let between = cluster.now();
        assert_eq!(fs::read_dir(passing).expect("the operator's directory stays").count(), 0);

        // Where another one was, which the backup has, and where none was.
        let again = cluster.tablespace_dir("doomed");
        cluster.psql(&format!("create tablespace again location '{}'", again.display()));
        create_tablespace(&cluster, "late");
        for name in ["again", "late"] {
            cluster.psql(&format!(
                "create table in_{name} tablespace {name} as select generate_series(1, 20000) a"
            ));
        }
        let late = cluster.now();
        cluster.psql("create table the_end (a int)");
        cluster.archive_everything();
        cluster.psql("checkpoint");
        Self { repo, cluster, early, dropped, between, late }
    }

    /// Everything that is the source's but for the logs and its own books: all relations, all tablespaces.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = listing(&self.cluster.scratch().join("ts"));
        for part in ["base", "pg_tblspc", "pg_xact", "pg_multixact", "PG_VERSION", "postgresql.conf"] {
            files.extend(listing(&self.cluster.data_dir().join(part)));
        }
        files
    }

    fn restore(&self, data: &Path, arguments: &[&str]) -> Outcome {
        let sockets = Scratch::new();
        let mut command = self.repo.bootstrap_restore();
        command.arg("-D").arg(data).arg("--socket-dir").arg(sockets.path()).args(arguments);
        run(&mut command)
    }
}

fn create_tablespace(cluster: &Cluster, name: &str) -> PathBuf {
    let location = cluster.scratch().make_dir(Path::new("ts").join(name));
    cluster.psql(&format!("create tablespace {name} location '{}'", location.display()));
    location
}

fn mapping(name: &str, to: &Path) -> String {
    format!("{name}={}", to.display())
}

#[test]
fn the_source_keeps_every_file_beside_its_clones() {
    let source = Source::new();
    let before = source.files();
    clones_that_drop_and_create_tablespaces(&source);
    assert_same(&source.files(), &before);
    refusals(&source);
    assert_same(&source.files(), &before);
    clone_replaced_by_another(&source);
    assert_same(&source.files(), &before);

    source.cluster.crash();
    source.cluster.start();
    source.cluster.assert_sound();
    for name in ["kept", "again", "late"] {
        assert_eq!(source.cluster.psql(&format!("select count(*) from in_{name}")), "20000");
    }
    source.cluster.assert_checksums();
}

fn clones_that_drop_and_create_tablespaces(source: &Source) {
    let cases = [("early", &source.early, "doomed kept"), ("dropped", &source.dropped, "kept")];
    let repo = &source.repo;
    side_by_side(
        &cases,
        |case| case.0,
        |(_, time, tablespaces)| {
            let scratch = Scratch::new();
            let [kept, doomed] = ["kept", "doomed"].map(|name| mapping(name, &scratch.join(name)));
            let maps = ["--target-time", time, "--tablespace-map", &kept, "--tablespace-map", &doomed];
            let clone = repo.restore(&scratch, "data", &maps);
            let query =
                "select string_agg(spcname, ' ' order by spcname) from pg_tablespace where oid > 16383";
            assert_eq!(&clone.psql(query), tablespaces);
            assert_eq!(clone.psql("select count(*), max(a) from in_kept"), "20000|-1");
            clone.assert_sound();
            // What the clone drops now is its own as well.
            clone.psql("drop table in_kept; drop tablespace kept");
            if tablespaces.contains("doomed") {
                clone.psql("drop table in_doomed; drop tablespace doomed");
            }
            clone.assert_checksums();
        },
    );
}

fn refusals(source: &Source) {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    let [kept, doomed] = ["kept", "doomed"].map(|name| mapping(name, &scratch.join(name)));
    let occupied = scratch.make_dir("occupied");
    let version = PgMajor::try_from(pg_major()).expect("supported").tablespace_directory();
    scratch.make_dir(Path::new("occupied").join(&version));
    let not_empty = format!("{version} is a tablespace in use here");
    let inside = mapping("kept", &data.join("kept"));
    let together = mapping("kept", &scratch.join("doomed"));
    let in_use = mapping("kept", &source.cluster.tablespace_dir("late"));
    let full = mapping("kept", &occupied);
    let both = |first: &str| {
        let words = ["--target-time", &source.early, "--tablespace-map", first, "--tablespace-map", &doomed];
        words.map(str::to_owned).to_vec()
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let maps = ["--tablespace-map", &kept, "--tablespace-map", &doomed];
    let late = &source.late;
    let cases: [(&str, Vec<String>, &[&str]); 9] = [
        (
            "nothing is mapped",
            words(&["--target-time", &source.early]),
            &["could not put tablespace kept at", "is a tablespace in use here", "--tablespace-map kept="],
        ),
        (
            "one of two is mapped",
            words(&["--target-time", &source.early, "--tablespace-map", &doomed]),
            &["could not put tablespace kept at", "--tablespace-map kept="],
        ),
        ("onto the source's", both(&in_use), &["is a tablespace in use here"]),
        ("onto what is not empty", both(&full), &[&not_empty]),
        ("into the data directory", both(&inside), &["the data directory is"]),
        ("both to one place", both(&together), &["tablespace", "goes there"]),
        (
            "an unknown one",
            words(&["--tablespace-map", "nonsense=/nowhere"]),
            &["the backup has no tablespace \"nonsense\"", "kept"],
        ),
        (
            "created in the WAL and there",
            words(&[&["--target-time", late.as_str()], &maps[..]].concat()),
            &["it creates tablespace", "is a tablespace in use here", "--target-lsn"],
        ),
        (
            "created by a transaction that ends behind the target",
            words(&[&["--target-time", source.between.as_str()], &maps[..]].concat()),
            &["it creates tablespace", "ts/doomed/PG_", "is a tablespace in use here"],
        ),
    ];
    for (name, arguments, expected) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let outcome = source.restore(&data, &arguments);
        assert!(outcome.code.is_some_and(|code| code != 0), "{name}: {outcome}");
        for part in expected {
            assert!(outcome.stderr.contains(part), "{name} should say {part:?}: {outcome}");
        }
        assert!(!data.exists(), "{name}: something was written");
        assert!(!scratch.join("kept").exists() && !scratch.join("doomed").exists(), "{name}");
    }
    let foreign = scratch.write(Path::new("occupied").join(&version).join("precious"), "x");
    assert!(foreign.exists());
}

/// `--replace` empties what the clone's own restore filled, and nothing that another directory links to.
fn clone_replaced_by_another(source: &Source) {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    let [kept, doomed] = ["kept", "doomed"].map(|name| mapping(name, &scratch.join(name)));
    let maps = ["--target-time", &source.early, "--tablespace-map", &kept, "--tablespace-map", &doomed];
    let clone = source.repo.restore(&scratch, "data", &maps);
    let said =
        source.restore(&data, &[&maps[..], &["--replace"]].concat()).fails_with(4, "a server runs in it");
    assert!(said.contains("--replace-running"), "{said}");
    clone.psql("create table gone tablespace kept as select 1 as a");
    clone.stop(Stop::Fast);
    // A link that somebody made by hand leads to the source.
    let link = data.join("pg_tblspc/99999");
    std::os::unix::fs::symlink(source.cluster.tablespace_dir("late"), link).expect("link");
    let again = source.repo.restore(&scratch, "data", &[&maps[..], &["--replace"]].concat());
    assert_eq!(again.psql("select to_regclass('gone') is null"), "t");
    assert_eq!(again.psql("select count(*) from in_doomed"), "20000");
    again.assert_sound();
}

#[test]
fn a_tablespace_made_during_the_backup_stays_the_sources() {
    let repo = TestRepo::init();
    let source = Cluster::builder().archive_to(&repo).set("autovacuum", "off").start();
    source.psql("create table filler as select a, repeat(md5(a::text), 20) from generate_series(1, 30000) a");
    let mut backup = repo.std_program("basebackup");
    let mut backup =
        backup.envs(source.env()).args(["--rate-limit", "15MB"]).spawn().expect("start basebackup");
    // pg_start_backup up to 14.
    let begun = "select count(*) from pg_stat_activity
                  where query ~ 'pg_(backup_start|start_backup)[(]' and state = 'idle'";
    source.wait_sql(begun, "1");
    let born = create_tablespace(&source, "born");
    source.psql("create table in_born tablespace born as select generate_series(1, 20000) a");
    let unfinished = backup.try_wait().expect("look after basebackup").is_none();
    assert!(unfinished, "the backup was too quick for this test");
    assert!(backup.wait().expect("wait for basebackup").success());
    source.archive_everything();
    source.psql("checkpoint");

    let before = listing(&born);
    let scratch = Scratch::new();
    let data = scratch.join("data");
    let restore = |arguments: &[&str]| {
        let mut command = repo.bootstrap_restore();
        command.arg("-D").arg(&data).arg("--socket-dir").arg(scratch.make_dir("s")).args(arguments);
        run(&mut command)
    };
    for target in ["immediate", "latest"] {
        let said = restore(&["--target", target]).fails_with(2, "is a tablespace in use here");
        assert!(said.contains(&born.display().to_string()) && !data.exists(), "{said}");
    }
    assert_same(&listing(&born), &before);

    // Once the source has no use for the place, replay may make it again there.
    source.psql("drop table in_born; drop tablespace born");
    restore(&["--target", "immediate"]).succeeds();
    let clone = Cluster::adopt(&data);
    assert_eq!(clone.psql("select count(*) from in_born"), "20000");
    clone.assert_sound();
    clone.psql("drop table in_born; drop tablespace born");
    clone.assert_checksums();
}
