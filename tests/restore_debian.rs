//! `bootstrap-restore --debian`: the restored server is a cluster of Debian's own, which its own tools show, start, stop
//! and drop. On the real host, with names that no other cluster has.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harness::*;

/// A cluster of the test among those of the host; dropped with it.
struct OnHost {
    name: String,
    _turn: MutexGuard<'static, ()>,
}

/// One at a time: ports are given out in order, and two that look at the same time find the same one.
static TURN: Mutex<()> = Mutex::new(());

impl OnHost {
    /// None where these tools are missing or not ours to use, which is printed.
    fn new(purpose: &str) -> Option<Self> {
        let versions = Path::new("/etc/postgresql").join(pg_major().to_string());
        let programs = format!("/usr/lib/postgresql/{}/bin/postgres", pg_major());
        let may =
            |test: &str, path: &Path| command("test").arg(test).arg(path).status().expect("test").success();
        if !may("-x", Path::new("/usr/bin/pg_ctlcluster")) || !may("-x", Path::new(&programs)) {
            eprintln!("skipped: there is no PostgreSQL {} of Debian's here", pg_major());
            return None;
        }
        if !may("-w", &versions) || !may("-w", Path::new("/var/log/postgresql")) {
            eprintln!("skipped: this needs the user postgres, or root, to write to {}", versions.display());
            return None;
        }
        // A test that failed has cleaned up as well.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self { name: format!("pgark_{purpose}_{}", std::process::id()), _turn: turn })
    }

    fn full_name(&self) -> String {
        format!("{}/{}", pg_major(), self.name)
    }

    fn config(&self, file: &str) -> PathBuf {
        Path::new("/etc/postgresql").join(self.full_name()).join(file)
    }

    fn data(&self) -> PathBuf {
        Path::new("/var/lib/postgresql").join(self.full_name())
    }

    fn log(&self) -> PathBuf {
        format!("/var/log/postgresql/postgresql-{}-{}.log", pg_major(), self.name).into()
    }

    /// One of postgresql-common's programs, as the server's user.
    fn tool(&self, program: &str, arguments: &[&str]) -> Outcome {
        let mut command = assert_cmd::Command::from_std(command(program));
        run(command.timeout(PATIENCE).arg(pg_major().to_string()).arg(&self.name).args(arguments))
    }

    /// Its line in the list, in words; None if it is not there.
    fn listed(&self) -> Option<Vec<String>> {
        let mut command = assert_cmd::Command::from_std(command("pg_lsclusters"));
        let list = run(command.arg("--no-header")).succeeds();
        let mut lines =
            list.lines().map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>());
        lines.find(|words| words.get(1) == Some(&self.name))
    }

    fn state(&self) -> String {
        self.listed().expect("it is listed")[3].clone()
    }

    fn restore(&self, repo: &TestRepo, arguments: &[&str]) -> Outcome {
        let mut command = repo.bootstrap_restore();
        run(command.arg("--debian").arg(self.full_name()).args(arguments))
    }

    fn psql(&self, query: &str) -> String {
        let port = self.listed().expect("it is listed")[2].clone();
        let mut psql = pg_command("psql");
        psql.args([
            "-XAtq",
            "-h",
            "/var/run/postgresql",
            "-U",
            "postgres",
            "-p",
            &port,
            "-c",
            query,
            "postgres",
        ]);
        run(&mut assert_cmd::Command::from_std(psql)).succeeds().trim().to_string()
    }
}

impl Drop for OnHost {
    fn drop(&mut self) {
        if self.listed().is_some() {
            let dropped = self.tool("pg_dropcluster", &["--stop"]);
            assert!(std::thread::panicking() || dropped.code == Some(0), "{dropped}");
        }
        // A restore that did not finish.
        if self.data().exists() {
            fs::remove_dir_all(self.data()).expect("removed");
        }
        if self.log().exists() {
            fs::remove_file(self.log()).expect("removed");
        }
    }
}

/// A backup of a cluster of Debian's layout, a transaction behind it, and a dropped table behind that; the LSN before.
fn archived() -> (TestRepo, Cluster, String) {
    let repo = TestRepo::init();
    let source = Cluster::builder().archive_to(&repo).debian().set("work_mem", "5MB").start();
    source.psql("create table t as select 1 as a");
    run(&mut repo.basebackup(&source)).succeeds();
    source.psql("insert into t values (2)");
    let before = source.psql("select pg_current_wal_lsn()");
    source.psql("drop table t");
    source.archive_everything();
    (repo, source, before)
}

#[test]
fn debian_s_own_tools_show_start_stop_and_drop_the_restored_cluster() {
    let Some(host) = OnHost::new("whole") else { return };
    let (repo, source, before) = archived();
    let said = host.restore(&repo, &["--target-lsn", &before]).succeeds();
    assert!(said.contains(&format!("{}, as pg_lsclusters shows it", host.full_name())), "{said}");

    let listed = host.listed().expect("it is listed");
    assert_eq!(listed[3], "online");
    assert_eq!(listed[4], "postgres");
    assert_eq!(listed[5], host.data().display().to_string());
    assert_eq!(listed[6], host.log().display().to_string());
    assert_eq!(host.psql("select sum(a) from t"), "3");
    for (setting, expected) in [
        ("config_file", host.config("postgresql.conf").display().to_string()),
        ("hba_file", host.config("pg_hba.conf").display().to_string()),
        ("ident_file", host.config("pg_ident.conf").display().to_string()),
        ("data_directory", host.data().display().to_string()),
        ("external_pid_file", format!("/var/run/postgresql/{}-{}.pid", pg_major(), host.name)),
        ("work_mem", "5MB".to_string()),
        ("archive_mode", "off".to_string()),
    ] {
        assert_eq!(host.psql(&format!("show {setting}")), expected, "{setting}");
    }
    for (file, mode) in [
        ("", 0o755),
        ("postgresql.conf", 0o644),
        ("pg_hba.conf", 0o640),
        ("pg_ident.conf", 0o640),
        ("start.conf", 0o644),
        ("pg_ctl.conf", 0o644),
        ("environment", 0o644),
    ] {
        let path = host.config(file);
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, mode, "{}", path.display());
    }
    for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        assert!(!host.data().join(file).exists(), "{file} is in one place only");
    }
    assert!(fs::read_to_string(host.config("start.conf")).expect("read").contains("\nmanual\n"));

    host.tool("pg_ctlcluster", &["stop"]).succeeds();
    assert_eq!(host.state(), "down");
    host.tool("pg_ctlcluster", &["start"]).succeeds();
    assert_eq!(host.state(), "online");
    assert_eq!(host.psql("select sum(a) from t"), "3");
    assert_eq!(source.psql("select 1"), "1", "the source is as it was");

    host.tool("pg_dropcluster", &["--stop"]).succeeds();
    assert_eq!(host.listed(), None);
    for left in [host.config(""), host.data(), host.log()] {
        assert!(!left.exists(), "{} is left", left.display());
    }
}

#[test]
fn a_cluster_is_restored_again_only_when_that_was_confirmed_and_keeps_its_port() {
    let Some(host) = OnHost::new("again") else { return };
    let (repo, _source, before) = archived();
    host.restore(&repo, &[]).succeeds();
    let port = host.listed().expect("it is listed")[2].clone();
    assert_eq!(host.psql("select count(*) from pg_tables where tablename = 't'"), "0");
    let refused = host.restore(&repo, &["--target-lsn", &before]).fails_with(4, "it exists");
    assert!(refused.contains("--replace"), "{refused}");
    host.restore(&repo, &["--replace"]).fails_with(4, "a server runs in it");
    assert_eq!(host.state(), "online");
    host.restore(&repo, &["--target-lsn", &before, "--replace-running"]).succeeds();
    assert_eq!(host.psql("select sum(a) from t"), "3");
    assert_eq!(host.listed().expect("it is listed")[2], port);
    host.tool("pg_ctlcluster", &["stop"]).succeeds();
    host.restore(&repo, &["--target-lsn", &before, "--replace", "--no-start"]).succeeds();
    assert_eq!(host.state(), "down,recovery");
    host.tool("pg_ctlcluster", &["start"]).succeeds();
    wait_for("recovery", || host.state(), || host.state() == "online");
    assert_eq!(host.psql("select sum(a) from t"), "3");
}

#[test]
fn what_fails_registers_nothing() {
    let Some(host) = OnHost::new("fails") else { return };
    let (repo, _source, _) = archived();
    host.restore(&repo, &["--dry-run"]).succeeds();
    assert!(!host.config("").exists() && !host.data().exists() && !host.log().exists());
    for pack in repo.matching("/pack/") {
        repo.damage(&pack, Damage::FlipByte(5000));
    }
    host.restore(&repo, &[]).fails_with(5, "is incomplete and no server starts in it");
    assert_eq!(host.listed(), None);
    assert!(!host.config("").exists() && !host.log().exists());
}

#[test]
fn killed_anywhere_it_is_registered_with_all_files_or_not_at_all_and_the_next_restore_completes_it() {
    let Some(host) = OnHost::new("killed") else { return };
    let (repo, _source, _) = archived();
    let restore = || {
        let mut restore = repo.std_program("bootstrap-restore");
        restore.arg("--debian").arg(host.full_name()).args(["--replace", "--no-start"]);
        restore
    };
    let etc = host.config("");
    let (outcome, calls) = run_with_fault(restore(), Fault::none().under(&etc));
    outcome.succeeds();
    assert!(calls.len() > 20, "{calls:?}");
    // From the second on, each begins with what the one before it left.
    for n in 1..=calls.len() {
        let (outcome, _) = run_with_fault(restore(), Fault::kill_at(n).under(&etc));
        assert_eq!(outcome.code, None, "killed at {n}: {outcome}");
        if host.config("postgresql.conf").exists() {
            assert!(host.data().join("global/pg_control").exists(), "half a cluster, killed at {n}");
            for file in ["pg_hba.conf", "pg_ident.conf", "start.conf", "pg_ctl.conf", "environment"] {
                assert!(host.config(file).exists(), "{file} is missing, killed at {n}");
            }
        }
    }
    run(&mut assert_cmd::Command::from_std(restore())).succeeds();
    host.tool("pg_ctlcluster", &["start"]).succeeds();
    wait_for("recovery", || host.state(), || host.state() == "online");
    let left = fs::read_dir(&etc).expect("there").count();
    assert_eq!(left, 6, "nothing is left of those that were killed");
}

#[test]
fn another_cluster_of_that_name_is_never_replaced() {
    let Some(host) = OnHost::new("other") else { return };
    let (repo, _source, _) = archived();
    host.tool("pg_createcluster", &["--quiet", "--no-status", "--", "--no-sync"]).succeeds();
    let before = (listing(&host.config("")), listing(&host.data()));
    host.restore(&repo, &["--replace-running"]).fails_with(4, "of another cluster, with system identifier");
    let elsewhere = repo.scratch().join("elsewhere");
    let elsewhere = elsewhere.to_str().expect("UTF-8");
    host.restore(&repo, &["--replace-running", "-D", elsewhere]).fails_with(4, "its data directory is");
    let other = format!("{}/{}x", pg_major(), host.name);
    let data = host.data().display().to_string();
    let mut taken = repo.bootstrap_restore();
    run(taken.args(["--debian", &other, "-D", &data, "--replace"])).fails_with(4, "is the data directory of");
    assert_same(&listing(&host.config("")), &before.0);
    assert_same(&listing(&host.data()), &before.1);
}

#[test]
fn root_restores_as_the_user_that_owns_debian_s_clusters() {
    let Some(host) = OnHost::new("root") else { return };
    if !is_root() {
        eprintln!("skipped: this needs root");
        return;
    }
    let (repo, _source, before) = archived();
    let mut restore = assert_cmd::Command::new(program_path("bootstrap-restore"));
    restore.timeout(PATIENCE).env_clear().env("PGARK_CONFIG", repo.config()).env("PATH", "/usr/bin:/bin");
    restore.arg("--debian").arg(host.full_name()).args(["--target-lsn", &before]);
    run(&mut restore).succeeds();
    assert_eq!(host.listed().expect("it is listed")[3..5], ["online", "postgres"]);
    assert_eq!(host.psql("select sum(a) from t"), "3");
}
