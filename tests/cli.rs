//! What all programs share: where their configuration comes from, how they speak, how they end, and as whom
//! they refuse to run.

mod harness;
mod wal;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use harness::*;
use wal::*;

const PROGRAMS: [&str; 4] = ["pgark", "wal-push", "wal-fetch", "wal-receive"];

/// The id of the repository that `pgark init` finds.
fn id(pgark: &mut assert_cmd::Command) -> String {
    run(pgark.arg("init")).succeeds().trim().to_owned()
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let [file, environment, flag] = [TestRepo::init(), TestRepo::init(), TestRepo::init()];
    let ids = [&file, &environment, &flag].map(|repo| id(&mut repo.program("pgark")));
    let by_file = || file.program("pgark");
    let by_environment = || {
        let mut command = by_file();
        command.env("PGARK_REPO", environment.root());
        command
    };
    assert_eq!(id(&mut by_file()), ids[0]);
    assert_eq!(id(&mut by_environment()), ids[1]);
    assert_eq!(id(by_environment().arg("--repo").arg(flag.root())), ids[2]);
    assert_eq!(id(by_environment().arg("--repo").arg(format!("file://{}", flag.root().display()))), ids[2]);
    assert_eq!(id(by_file().arg("--config").arg(flag.config())), ids[2], "--config wins over PGARK_CONFIG");

    by_file().args(["--repo-id", &ids[0], "init"]).assert().success();
    file.configure(&format!("repo_id = {:?}", ids[1]));
    run(by_file().arg("init")).fails_with(2, "but the configuration pins");
    run(by_file().env("PGARK_REPO_ID", &ids[0]).arg("init")).succeeds();
    run(by_file().env("PGARK_REPO_ID", &ids[0]).args(["--repo-id", &ids[2], "init"])).fails_with(2, &ids[2]);
    let elsewhere = file.scratch().join("unmounted");
    run(by_file().arg("--repo").arg(&elsewhere).arg("init")).fails_with(2, "make it without repo_id");
    assert!(!elsewhere.exists(), "nothing is made in place of a repository that is known by its id");
}

#[test]
fn the_cluster_is_called_main_unless_told_otherwise() {
    let repo = TestRepo::init();
    let name = wal().segments(1)[1];
    let server = ServerDir::with(&[name]);
    let push = |cluster: &str, change: fn(&mut assert_cmd::Command)| {
        let mut push = repo.wal_push(server.path());
        change(&mut push);
        run(push.arg(format!("pg_wal/{name}"))).succeeds();
        assert_eq!(repo.matching(&format!("{name}.zst")).len(), repo.matching("cluster.json").len());
        assert!(repo.list().iter().any(|key| key.starts_with(&format!("{cluster}/"))), "{:?}", repo.list());
    };
    push("main", |_| ());
    repo.configure("cluster = \"in-file\"");
    push("in-file", |_| ());
    push("in-environment", |push| _ = push.env("PGARK_CLUSTER", "in-environment"));
    push("in-flag", |push| _ = push.env("PGARK_CLUSTER", "in-environment").args(["--cluster", "in-flag"]));
    assert_eq!(repo.matching("cluster.json").len(), 4);
}

#[test]
fn mistakes_in_the_configuration_are_shown_with_their_line() {
    let repo = TestRepo::init();
    repo.configure("cluster = \"main\"\nrepoid = \"x\"");
    let line = format!("{} line 3: unknown field `repoid`", repo.config().display());
    run(&mut repo.pgark(&["init"])).fails_with(2, &line);
    run(repo.program("wal-push").arg("pg_wal/x")).fails_with(2, &line);
    run(repo.program("wal-fetch").args(["00000002.history", "x"])).fails_with(202, &line);

    let repo = TestRepo::init();
    repo.configure("[fetch]\nretry = \"soon\"");
    run(repo.program("wal-fetch").args(["00000002.history", "x"]))
        .fails_with(202, "line 3: \"soon\" is not a duration");
    let repo = TestRepo::init();
    repo.configure("compression_level = 77");
    run(&mut repo.pgark(&["init"])).fails_with(2, "compression_level 77 is not one of zstd's");
}

#[test]
fn a_configuration_that_was_named_must_be_there() {
    run(pgark().args(["--config", "/nonexistent/x.toml", "init"]))
        .fails_with(6, "could not read configuration /nonexistent/x.toml: No such file");
    run(wal_fetch().env("PGARK_CONFIG", "/nonexistent/x.toml").args(["00000002.history", "x"]))
        .fails_with(206, "/nonexistent/x.toml");
}

#[test]
fn without_a_repository_it_says_how_to_name_one() {
    let server = ServerDir::with(&["00000002.history"]);
    let hint = "hint: give --repo, set PGARK_REPO, or write repo = \"/path\" into /etc/pgark/pgark.toml";
    run(pgark().arg("init")).fails_with(2, hint);
    run(wal_push().current_dir(server.path()).arg("pg_wal/00000002.history")).fails_with(2, hint);
    run(wal_fetch().current_dir(server.path()).args(["00000002.history", "x"])).fails_with(202, hint);
    for (repo, message) in [
        ("backup", "is not an absolute path"),
        ("", "is not an absolute path"),
        ("s3://bucket/x", "no store for s3://"),
    ] {
        run(pgark().args(["--repo", repo, "init"])).fails_with(2, message);
        run(wal_fetch().env("PGARK_REPO", repo).args(["00000002.history", "x"])).fails_with(202, message);
    }
}

#[test]
fn help_is_enough_to_work_from() {
    for name in PROGRAMS {
        let help = run(program(name).arg("--help")).succeeds();
        for part in [
            "Usage:",
            "--repo",
            "PGARK_REPO",
            "PGARK_CONFIG",
            "--log-format",
            "Exit codes: 0 ",
            "/etc/pgark/pgark.toml",
        ] {
            assert!(help.contains(part), "{name} --help says nothing of {part}: {help}");
        }
        let version = run(program(name).arg("--version")).succeeds();
        assert_eq!(version, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
    assert!(run(wal_push().arg("--help")).succeeds().contains("archive_command = 'wal-push %p'"));
    assert!(run(wal_fetch().arg("--help")).succeeds().contains("restore_command = 'wal-fetch %f %p'"));
}

#[test]
fn wrong_flags_never_look_like_an_answer() {
    let segment = "000000010000000000000001";
    let table: &[&[&str]] = &[
        &[],
        &[segment],
        &[segment, "x", "y"],
        &["--bogus", segment, "x"],
        &["--system-id", "seven", segment, "x"],
        &["--last-segment", "x", segment, "x"],
        &["--log-format", "xml", segment, "x"],
        &["--repo"],
        &["-q", "-v", segment, "x"],
        &["RECOVERYXLOG", "x"],
        &["", ""],
    ];
    for arguments in table {
        let outcome = run(wal_fetch().args(*arguments));
        assert_eq!(outcome.code, Some(202), "{arguments:?}: {outcome}");
        assert!(outcome.stdout.is_empty() && !outcome.stderr.is_empty(), "{outcome}");
    }
    run(wal_fetch().arg(OsStr::from_bytes(b"\xFF")).arg("x")).fails_with(202, "");
    run(wal_fetch().env("PGARK_LOG_FORMAT", "xml").args([segment, "x"])).fails_with(202, "xml");
    run(&mut wal_push()).fails_with(2, "Usage: wal-push");
    run(wal_push().args(["--bogus", "x"])).fails_with(2, "--bogus");
    run(wal_push().arg(OsStr::from_bytes(b"pg_wal/\xFF"))).fails_with(2, "is not a WAL file's name");
    run(&mut pgark()).fails_with(2, "Usage: pgark");
}

#[test]
fn a_machine_gets_json_lines() {
    let repo = TestRepo::not_initialised();
    let outcome = run(repo.program("wal-push").args(["--log-format", "json", "pg_wal/00000002.history"]));
    let lines: Vec<serde_json::Value> =
        outcome.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [error] = lines.as_slice() else { panic!("{outcome}") };
    assert_eq!((&error["level"], &error["kind"]), (&"ERROR".into(), &"transient".into()), "{outcome}");
    assert!(
        error["message"].as_str().is_some_and(|message| message.contains("00000002.history")),
        "{outcome}"
    );

    let server = ServerDir::with(&["00000002.history"]);
    let mut push = repo.wal_push(server.path());
    let outcome = run(push.env("PGARK_LOG_FORMAT", "json").arg("pg_wal/00000002.history"));
    let error: serde_json::Value = serde_json::from_str(&outcome.stderr).expect("JSON");
    assert_eq!((outcome.code, &error["kind"]), (Some(2), &"configuration".into()));
    assert_eq!(error["hint"], "`pgark init` creates one; or is the disk not mounted?");
}

#[test]
fn quiet_leaves_out_what_did_not_fail() {
    let repo = TestRepo::init();
    let last = *wal().segments(2).last().expect("a segment");
    let server = ServerDir::with(&[last]);
    let mut retrying = repo.wal_fetch(server.path());
    repo.configure("[fetch]\nretry = \"1ms\"");
    repo.damage("pgark.json", Damage::Delete);
    let said = run(retrying.args(["-q", last, "x"])).fails_with(202, "error: ");
    assert!(!said.contains("WARN"), "{said}");
    let said = run(repo.wal_fetch(server.path()).args([last, "x"])).fails_with(202, "error: ");
    assert!(said.contains("WARN"), "{said}");
}

#[test]
fn an_exit_code_does_not_depend_on_who_listens() {
    let repo = impatient();
    let name = wal().segments(1)[1];
    let server = ServerDir::with(&[name]);
    let fetch = program_path("wal-fetch").display().to_string();
    let shell = |script: &str| {
        let mut shell = server.shell(script);
        shell.env("PGARK_CONFIG", repo.config());
        shell.status().expect("run the shell").code()
    };
    for closed in ["2>&-", "2>/dev/full", ">&- 2>&- <&-"] {
        assert_eq!(shell(&format!("{fetch} {name} x {closed}")), Some(203), "{closed}");
        assert_eq!(shell(&format!("{fetch} --bogus {closed}")), Some(202), "{closed}");
    }
    server.push(&repo, name).succeeds();
    assert_eq!(shell(&format!("{fetch} 00000009.history x 2>&-")), Some(1));
    let init = format!("{} init", program_path("pgark").display());
    assert_eq!(shell(&format!("{init} > /dev/full")), Some(6), "the id can't be told");
}

#[test]
fn init_makes_a_repository_once() {
    let repo = TestRepo::not_initialised();
    let first = id(&mut repo.program("pgark"));
    assert_eq!(id(&mut repo.program("pgark")), first);
    assert_eq!(repo.list(), ["pgark.json"], "no probe is left");
    let deep = repo.scratch().join("new/deep/repo");
    let second = id(repo.program("pgark").arg("--repo").arg(&deep));
    assert_ne!(first, second);
    let text = fs::read_to_string(deep.join("pgark.json")).expect("read");
    assert!(text.contains(&second), "{text}");
}

#[test]
fn sixteen_inits_at_once_make_one_repository() {
    let repo = TestRepo::not_initialised();
    let start = || {
        let mut init = repo.std_program("pgark");
        init.arg("init").stdout(Stdio::piped()).spawn().expect("start pgark")
    };
    let started: Vec<_> = (0..16).map(|_| start()).collect();
    let mut ids: Vec<String> = started
        .into_iter()
        .map(|init| {
            let output = init.wait_with_output().expect("wait");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).expect("UTF-8")
        })
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(repo.list(), ["pgark.json"]);
}

#[test]
fn init_refuses_what_is_no_place_for_a_repository() {
    let repo = TestRepo::not_initialised();
    let precious = repo.scratch().write("repo/precious", "data");
    run(&mut repo.pgark(&["init"])).fails_with(4, "is no repository and not empty: it holds \"precious\"");
    assert_eq!(repo.list(), ["precious"]);
    fs::remove_file(precious).expect("removed");
    fs::create_dir(repo.root().join("lost+found")).expect("created");
    run(&mut repo.pgark(&["init"])).succeeds();
    let file = repo.scratch().write("file", "data");
    run(repo.program("pgark").arg("--repo").arg(&file).arg("init")).fails_with(4, "is not a directory");
    assert_eq!(fs::read_to_string(file).expect("read"), "data");
}

/// A program run as root, with a test's configuration.
fn as_root(program: &str, repo: &TestRepo) -> Command {
    let mut command = Command::new(program_path(program));
    command.env_clear().env("PGARK_CONFIG", repo.config()).stdin(Stdio::null());
    command
}

fn refused(command: &mut Command, code: i32) {
    let output = command.output().expect("run the program");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.contains("this runs as root, but "), "{message}");
    assert!(
        message.contains("hint: run it as the server's user, for example with `sudo -u postgres`"),
        "{message}"
    );
}

#[test]
fn root_is_refused_where_it_would_leave_what_the_server_can_not_read() {
    if !is_root() {
        eprintln!("skipped: only root can be refused as root");
        return;
    }
    let repo = TestRepo::init();
    let name = wal().segments(1)[1];
    let server = ServerDir::with(&[name]);
    let segment = format!("pg_wal/{name}");
    refused(as_root("wal-push", &repo).current_dir(server.path()).arg(&segment), 2);
    refused(as_root("wal-push", &repo).arg(server.path().join(&segment)), 2);
    refused(as_root("wal-fetch", &repo).current_dir(server.path()).args([name, "pg_wal/RECOVERYXLOG"]), 202);
    refused(as_root("pgark", &repo).arg("init"), 2);
    // Not in a data directory, but the repository is the server's.
    let copy = repo.scratch().write(name, wal().file(name));
    refused(as_root("wal-push", &repo).current_dir("/").arg(copy), 2);
    assert_eq!(repo.list(), ["pgark.json"]);
    assert_eq!(server.wal_files(), [name]);
}

#[test]
fn a_repository_of_root_is_warned_of() {
    if !is_root() {
        eprintln!("skipped: only root can make a repository of root");
        return;
    }
    let repo = TestRepo::not_initialised();
    let dir = tempfile::tempdir().expect("tempdir");
    let output =
        as_root("pgark", &repo).arg("--repo").arg(dir.path()).arg("init").output().expect("run pgark");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains("no server can use it"), "{message}");
}
