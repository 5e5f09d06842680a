//! TLS, passwords, slots by hand, the status, and the service manager.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::scene::*;
use super::server;
use crate::harness::*;

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("openssl: {error}; apt-get install openssl"));
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_that_demands_tls_and_scram_is_received_from() {
    let server = Cluster::builder().wal_segment_mib(1).set("listen_addresses", "127.0.0.1").build();
    let data = server.data_dir();
    openssl(
        &data,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.crt -days 30 \
         -subj /CN=db.example -addext subjectAltName=DNS:db.example",
    );
    for name in ["server.key", "server.crt"] {
        let content = fs::read(data.join(name)).expect("made by openssl");
        server.scratch().write(Path::new("data").join(name), content);
        fs::set_permissions(data.join(name), PermissionsExt::from_mode(0o600)).expect("mode");
    }
    server.append_config("ssl = on");
    server.start();
    server.psql("create role receiver login replication password 'secret'");
    let hba = "local all all trust\nhostssl replication receiver 127.0.0.1/32 scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), hba).expect("written");
    server.reload();
    server.wait_sql("select count(*) from pg_hba_file_rules", "2");

    let repo = TestRepo::init();
    let trusted = repo.scratch().write("root.crt", fs::read(data.join("server.crt")).expect("read"));
    let conninfo = |rest: &str| {
        format!("host=db.example hostaddr=127.0.0.1 port={} user=receiver {rest}", server.port())
    };
    let verified = format!("sslmode=verify-full sslrootcert={}", trusted.display());
    for rest in
        [&format!("{verified} password=secret channel_binding=require"), "sslmode=require password=secret"]
    {
        let receiver = Receiver::start_at(&repo, &conninfo(rest), &["--synchronous"]);
        receiver.wait_for_log("streaming timeline 1");
        let ssl = "select bool_and(ssl)::text from pg_stat_ssl join pg_stat_replication using (pid)";
        server.wait_sql(ssl, "true");
        wait_for_segment(&repo, &write_segments(&server, 2));
        receiver.leave();
    }
    // What can't get in says why, and goes on trying.
    for (rest, message) in [
        ("sslmode=disable password=secret", "no pg_hba.conf entry"),
        ("sslmode=require password=wrong", "password authentication failed"),
        ("sslmode=require", "wants a password"),
    ] {
        let mut receiver = Receiver::start_at(&repo, &conninfo(rest), &[]);
        receiver.wait_for_log(message);
        assert!(receiver.is_running());
        receiver.leave();
    }
    let log = all_logs(&repo);
    assert!(!log.contains("secret"), "a password is in the log: {log}");
}

#[test]
fn slots_are_created_and_dropped_by_hand_and_an_existing_one_is_used_as_it_is() {
    let (repo, server) = (TestRepo::init(), server());
    let create = || once(&repo, &server, &["--create-slot-only", "--slot", "mine"]).succeeds();
    assert_eq!(create(), "slot mine is created\n");
    assert_eq!(create(), "slot mine was there already\n");
    let reserved = server.psql("select pg_walfile_name(restart_lsn) from pg_replication_slots");
    let last = write_segments(&server, 3);
    // Nothing before the first connection is lost.
    let receiver = Receiver::start(&repo, &server, &["--slot", "mine"]);
    wait_for_segment(&repo, &last);
    receiver.leave();
    assert_holds(&segments(&repo), &segment_files(&server.data_dir().join("pg_wal"), &reserved, &last));
    let drop = || once(&repo, &server, &["--drop-slot", "--slot", "mine"]).succeeds();
    assert_eq!(drop(), "slot mine is dropped\n");
    assert_eq!(drop(), "slot mine was not there\n");
}

#[test]
fn the_status_tells_positions_and_lag_also_when_nothing_runs() {
    let (repo, server) = (TestRepo::init(), server());
    let status = |arguments: &[&str]| once(&repo, &server, &[&["--status"], arguments].concat()).succeeds();
    let none = status(&[]);
    assert!(none.contains("none ever ran here") && none.contains("slot:     there is none"), "{none}");
    repo.configure("[receive]\nlag_limit = \"1MiB\"\n");
    let receiver = Receiver::start(&repo, &server, &[]);
    wait_for_segment(&repo, &write_segments(&server, 1));
    let json =
        || -> serde_json::Value { serde_json::from_str(&status(&["--output", "json"])).expect("JSON") };
    wait_for("a record", || status(&[]), || json()["receiver"]["connected"] == true);
    assert_eq!(json()["running"], true);
    receiver.leave();
    write_segments(&server, 3);
    let behind = json();
    assert_eq!((&behind["running"], &behind["receiver"]["connected"]), (&false.into(), &false.into()));
    assert!(behind["server"]["slot"]["behind"].as_u64().expect("a number") > 2 << 20, "{behind}");
    assert!(status(&[]).contains("does not run"));
    // The repository is away, so the slot falls behind, which is said.
    let receiver = Receiver::start(&repo, &server, &[]);
    receiver.wait_for_log("the server keeps that much WAL for it");
    receiver.leave();
    server.stop(Stop::Fast);
    let gone = json();
    assert!(gone["server_error"].as_str().is_some_and(|error| error.contains("could not connect")), "{gone}");
}

#[test]
fn a_service_manager_is_told_when_it_streams_and_that_it_lives() {
    let (repo, server) = (TestRepo::init(), server());
    let path = repo.scratch().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("mode");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut command = repo.std_program("wal-receive");
    command.envs(server.env()).arg("--spool").arg(spool(&repo));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let receiver = Receiver::spawn(&repo, command);
    let mut heard = Vec::new();
    while !(heard.iter().any(|said: &String| said == "READY=1\n")
        && heard.iter().any(|said| said == "WATCHDOG=1\n"))
    {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a message");
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    std::thread::sleep(Duration::from_millis(10));
    receiver.leave();
    assert!(heard.iter().any(|said| said.starts_with("STATUS=")), "{heard:?}");
}

#[test]
fn it_runs_side_by_side_with_archive_command() {
    let repo = TestRepo::init();
    let server = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    let receiver = Receiver::start(&repo, &server, &["--synchronous"]);
    receiver.wait_for_log("streaming timeline 1");
    server.pgbench_init(1);
    server.pgbench(&["-c", "2", "-t", "500"]);
    let last = server.archive_everything();
    wait_for_segment(&repo, &last);
    receiver.leave();
    let stored = segments(&repo);
    let expected = segment_files(&server.data_dir().join("pg_wal"), "", &last);
    assert_holds(&stored, &expected);
    assert_eq!(server.psql("select failed_count from pg_stat_archiver"), "0");
}
