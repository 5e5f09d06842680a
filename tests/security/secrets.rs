//! A password reaches the server and nothing else: no log, error, list of processes, header, record or result, in
//! whatever way it was given. Files of the cluster that hold one are in its backup, as they must be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::*;

const SECRET: &str = "hush-4711-hush";

/// How a password is given.
struct Way {
    name: &'static str,
    conninfo: String,
    environment: Option<(&'static str, String)>,
}

struct Stage {
    repo: TestRepo,
    server: Cluster,
}

impl Stage {
    fn new() -> Self {
        let repo = TestRepo::init();
        let server =
            Cluster::builder().archive_to(&repo).set("listen_addresses", "127.0.0.1").wal_segment_mib(1);
        let server = server.start();
        server.psql(&format!(
            "alter role postgres password '{SECRET}';
             alter system set primary_conninfo = 'host=elsewhere user=r password={SECRET}'"
        ));
        let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(server.data_dir().join("pg_hba.conf"), hba).expect("written");
        server.reload();
        server.wait_for("the password to be asked for", || {
            let address = format!("host=127.0.0.1 port={} user=postgres", server.port());
            server
                .client("psql")
                .args(["-w", "-c", "select", &address])
                .output()
                .is_ok_and(|o| !o.status.success())
        });
        Self { repo, server }
    }

    fn address(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.server.port())
    }

    /// A file that only its owner may read.
    fn private(&self, name: &str, content: &str) -> PathBuf {
        let path = self.repo.scratch().write(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        path
    }

    /// The ways to give a password.
    fn ways(&self, password: &str) -> Vec<Way> {
        let (address, port) = (self.address(), self.server.port());
        let at = |path: PathBuf| path.display().to_string();
        let service = format!("[s]\nhost=127.0.0.1\nport={port}\nuser=postgres\npassword={password}\n");
        let service = at(self.private("service", &service));
        let passfile = at(self.private("passfile", &format!("*:*:*:*:{password}\n")));
        let uri = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
        let way =
            |name, conninfo, environment: Option<(&'static str, String)>| Way { name, conninfo, environment };
        vec![
            way("PGPASSWORD", address.clone(), Some(("PGPASSWORD", password.to_owned()))),
            way("PGPASSFILE", address.clone(), Some(("PGPASSFILE", passfile))),
            way("service", "service=s".to_owned(), Some(("PGSERVICEFILE", service))),
            way("conninfo", format!("{address} password={password}"), None),
            way("URI", uri, None),
        ]
    }
}

#[track_caller]
fn no_secret(place: &str, text: impl AsRef<[u8]>) {
    let found = text.as_ref().windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    assert!(!found, "a password is in {place}");
}

/// Whatever can be read with ordinary tools.
fn search_repository(repo: &TestRepo) {
    for key in repo.list() {
        let object = repo.read(&key);
        no_secret(&key, &object);
        // The files of the cluster and its WAL are what they are.
        if key.ends_with("files.jsonl.zst") {
            no_secret(&key, zstd::decode_all(object.as_slice()).expect("zstd"));
        }
    }
}

#[test]
fn a_password_is_in_no_log_error_header_or_result() {
    let stage = Stage::new();
    let logs: [&[&str]; 2] = [&["-vv"], &["-vv", "--log-format", "json"]];
    for log in logs {
        // The wrong one is as secret.
        for (right, password) in [(true, SECRET.to_owned()), (false, format!("{SECRET}-wrong"))] {
            for Way { name, conninfo, environment } in stage.ways(&password) {
                let mut backup = stage.repo.program("basebackup");
                backup.args(log).arg("-d").arg(&conninfo).envs(environment.clone());
                let mut check = stage.repo.pgark(&["check", "--output", "json"]);
                check.args(log).arg("-d").arg(&conninfo).envs(environment);
                let (backup, check) = (run(&mut backup), run(&mut check));
                assert_eq!(backup.code == Some(0), right, "{name}: {}", backup.stderr.replace(SECRET, "***"));
                for outcome in [backup, check] {
                    no_secret(&format!("what is printed with {name}"), outcome.stdout + &outcome.stderr);
                }
            }
        }
    }
    for verb in ["info", "report", "metrics", "verify"] {
        let outcome = run(stage.repo.pgark(&[verb, "-vv"]).env("PGPASSWORD", SECRET));
        no_secret(verb, outcome.stdout + &outcome.stderr);
    }
    search_repository(&stage.repo);
}

/// Command lines and environments of the processes that work in a directory.
fn processes(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("list") {
        let process = entry.expect("an entry").path();
        if fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory)) {
            for what in ["cmdline", "environ"] {
                let path = process.join(what);
                // It may have ended.
                found.extend(fs::read(&path).map(|content| (path.display().to_string(), content)));
            }
        }
    }
    found
}

#[test]
fn a_restored_server_knows_no_password_of_ours_nor_of_its_sources_primary() {
    let stage = Stage::new();
    run(stage.repo.basebackup(&stage.server).args(["--label", "one"])).succeeds();
    let scratch = Scratch::new();
    let target = scratch.join("data");
    let mut restore = stage.repo.bootstrap_restore();
    restore.arg("-D").arg(&target).arg("--socket-dir").arg(scratch.make_dir("s")).args([
        "-vv",
        "--target",
        "immediate",
    ]);
    let outcome = run(restore.env("PGPASSWORD", SECRET));
    no_secret("what a restore prints", format!("{}{}", outcome.stdout, outcome.stderr));
    outcome.succeeds();
    let restored = Cluster::adopt(&target);
    assert_eq!(restored.psql("show primary_conninfo"), "");
    for (place, content) in processes(&target) {
        no_secret(&place, content);
    }
    for name in ["postgresql.conf", "postgresql.auto.conf", "pgark-restore.json", "pgark-restore.log"] {
        no_secret(name, fs::read(target.join(name)).expect("read"));
    }
    let auto = fs::read_to_string(target.join("postgresql.auto.conf")).expect("read");
    assert!(auto.contains("it would stream from the source's primary: primary_conninfo"), "{auto}");
}
