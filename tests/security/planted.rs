//! Links and directories that somebody planted where a program is about to write, and a repository that says where a
//! tablespace goes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::harness::*;
use crate::wal::*;

/// Spoils a spool, perhaps by what is elsewhere.
type Plant = fn(&Path, &Scratch);

#[test]
fn a_spool_that_others_can_write_to_is_not_used() {
    let plant: [(&str, Plant); 3] = [
        ("open to all", |spool, _| {
            fs::set_permissions(spool, fs::Permissions::from_mode(0o777)).expect("chmod")
        }),
        ("a link to a directory that is open to all", |spool, elsewhere| {
            let open = elsewhere.make_dir("open");
            fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("chmod");
            fs::remove_dir(spool).expect("removed");
            symlink(open, spool).expect("linked");
        }),
        ("another user's", |spool, _| {
            if is_root() {
                std::os::unix::fs::chown(spool, Some(0), Some(0)).expect("chown");
            }
            fs::set_permissions(spool, fs::Permissions::from_mode(0o777)).expect("chmod");
        }),
    ];
    for (name, plant) in plant {
        let (repo, server, elsewhere) =
            (impatient(), ServerDir::with(&wal().segments(1)[..3]), Scratch::new());
        fs::create_dir(server.path().join("pg_wal/archive_status")).expect("made");
        let spool =
            elsewhere.make_dir(server.path().join("pg_wal/pgark.spool").strip_prefix("/").expect("absolute"));
        let own = server.path().join("pg_wal/pgark.spool");
        fs::rename(spool, &own).expect("moved");
        plant(&own, &elsewhere);
        let first = wal().segments(1)[0];
        server.push(&repo, first).succeeds();
        server.remove(first);
        server.fetch(&repo, first).succeeds();
        assert_eq!(server.delivered().as_deref(), Some(wal().file(first)), "{name}");
        let entries = fs::read_dir(&own).expect("list").count();
        assert_eq!(entries, 0, "{name}: something was written");
    }
}

/// A source with a tablespace, and its backup.
struct Stage {
    repo: TestRepo,
    scratch: Scratch,
    source: Cluster,
}

impl Stage {
    fn new() -> Self {
        let repo = TestRepo::init();
        let source = Cluster::builder().archive_to(&repo).tablespace("fast").wal_segment_mib(1).start();
        source.psql("create table t tablespace fast as select generate_series(1, 1000) a");
        run(repo.basebackup(&source).args(["--label", "one"])).succeeds();
        Self { repo, scratch: Scratch::new(), source }
    }

    fn restore(&self, name: &str, fast: Option<&Path>) -> Outcome {
        let mut command = self.repo.bootstrap_restore();
        command.arg("-D").arg(self.scratch.join(name)).arg("--socket-dir").arg(self.scratch.make_dir("s"));
        if let Some(fast) = fast {
            command.arg("--tablespace-map").arg(format!("fast={}", fast.display()));
        }
        run(command.args(["--target", "immediate"]))
    }
}

#[test]
fn what_is_planted_in_a_tablespaces_directory_is_refused_and_the_directory_closed() {
    let stage = Stage::new();
    let open = |name: &str| {
        let directory = stage.scratch.make_dir(name);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("chmod");
        directory
    };
    let (planted, victim) = (open("planted"), stage.scratch.make_dir("victim"));
    let version =
        fs::read_dir(stage.source.tablespace_dir("fast")).expect("list").next().expect("a directory");
    symlink(&victim, planted.join(version.expect("an entry").file_name())).expect("planted");
    stage.restore("refused", Some(&planted)).fails_with(2, "is a tablespace in use here");
    assert_eq!(fs::read_dir(&victim).expect("list").count(), 0);
    assert!(!stage.scratch.join("refused").exists());

    let fast = open("fast");
    stage.restore("data", Some(&fast)).succeeds();
    assert_eq!(
        fast.metadata().expect("stat").permissions().mode() & 0o022,
        0,
        "others could plant links later"
    );
    assert_eq!(Cluster::adopt(&stage.scratch.join("data")).psql("select count(*) from t"), "1000");
}

#[test]
fn a_repository_that_sends_a_tablespace_elsewhere_is_refused() {
    let stage = Stage::new();
    let location = stage.source.tablespace_dir("fast").display().to_string();
    for (name, elsewhere, code, expected) in [
        ("relative", "escaped".to_owned(), 5, "where none can be"),
        ("above", format!("{}/../escaped", stage.scratch.path().display()), 5, "where none can be"),
        ("empty", String::new(), 5, "where none can be"),
        ("root", "/".to_owned(), 2, "could not put tablespace fast at /"),
        (
            "the data directory",
            stage.scratch.join("the data directory").display().to_string(),
            2,
            "the data directory",
        ),
        ("the source's", location.clone(), 2, "is a tablespace in use here"),
    ] {
        forge_header(&stage.repo, "one", |header| header.replace(&location, &elsewhere));
        stage.restore(name, None).fails_with(code, expected);
        assert!(!stage.scratch.join(name).exists(), "{name}");
        forge_backup(&stage.repo, "one", |backup| {
            backup.header["tablespaces"][0]["location"] = location.clone().into()
        });
    }
    // A location that is somebody's own: nothing but the tablespace's own directory may come there.
    let home = stage.scratch.make_dir("home");
    forge_backup(&stage.repo, "one", |backup| {
        let oid = backup.header["tablespaces"][0]["oid"].clone();
        backup.insert(map_line("file", &format!("pg_tblspc/{oid}/.profile"), 0, serde_json::json!([])));
    });
    stage.restore("home-data", Some(&home)).fails_with(5, "no backup holds");
    assert!(!home.join(".profile").exists());
}
