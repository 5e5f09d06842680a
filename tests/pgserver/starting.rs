//! Starting, watching and stopping servers, and why they would not start.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pgark::pg::binaries::Binaries;
use pgark::pg::server::{Launch, Server, State, Status, Stop as StopMode, User, status, stop};
use pgark::pg::settings_file::Setting;
use pgark::pg::version::PgMajor;

use crate::harness::*;

/// The programs that the harness uses.
pub fn binaries() -> Binaries {
    let postgres = pg_command("postgres");
    let directory = Path::new(postgres.get_program()).parent().expect("a directory");
    let major = PgMajor::try_from(pg_major()).expect("a supported version");
    Binaries::find(major, Some(directory), None).expect("found")
}

pub fn run_as() -> Option<User> {
    is_root().then(|| User { uid: server_user().uid, gid: server_user().gid })
}

/// Starts a server of the harness's making with our own code.
fn start(cluster: &Cluster, settings: &[Setting]) -> Server {
    let launch = Launch {
        binaries: &binaries(),
        data_directory: &cluster.data_dir(),
        config_file: Some(&cluster.config_dir().join("postgresql.conf")),
        settings,
        log: &cluster.log_path(),
        run_as: run_as(),
    };
    Server::start(&launch).expect("started")
}

/// The sentence and the hint about a server that does not come up.
fn failure(cluster: &Cluster, settings: &[Setting]) -> (String, String) {
    let mut server = start(cluster, settings);
    let error = server.wait_ready(Some(PATIENCE)).expect_err("ended");
    (error.message().to_string(), error.hint().unwrap_or_default().to_string())
}

#[test]
fn a_server_is_started_seen_and_stopped() {
    let cluster = Cluster::builder().debian().build();
    let data = cluster.data_dir();
    assert_eq!(status(&data), Ok(None));
    let mut server = start(&cluster, &[Setting::new("work_mem", "5MB"), Setting::new("x.y", "it's a b")]);
    assert_eq!(server.wait_ready(Some(PATIENCE)), Ok(State::Ready));
    let seen = status(&data).expect("readable").expect("running");
    assert_eq!((seen.pid, seen.port, seen.status), (server.pid(), Some(cluster.port()), Some(Status::Ready)));
    assert_eq!(seen.socket_directory.as_deref(), Some(cluster.socket_dir()));
    assert_eq!(cluster.psql("show work_mem"), "5MB");
    assert_eq!(cluster.psql("show x.y"), "it's a b");
    assert_eq!(cluster.psql("show lc_messages"), "C");
    assert_eq!(stop(&data, StopMode::Fast, PATIENCE), Ok(true));
    assert!(matches!(server.state(), Ok(State::Ended(status)) if status.success()));
    assert_eq!(status(&data), Ok(None));
    assert_eq!(stop(&data, StopMode::Fast, PATIENCE), Ok(false));
    assert_eq!(server.stop(StopMode::Fast, PATIENCE), Ok(()));
}

#[test]
fn a_server_that_crashed_is_not_running() {
    let cluster = Cluster::start_new();
    assert!(status(&cluster.data_dir()).is_ok_and(|found| found.is_some()));
    cluster.crash();
    assert!(cluster.data_dir().join("postmaster.pid").exists());
    assert_eq!(status(&cluster.data_dir()), Ok(None));
}

#[test]
fn a_started_server_has_a_session_of_its_own_and_nothing_of_ours() {
    let cluster = Cluster::builder().build();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).expect("inheritable");
    let mut server = start(&cluster, &[]);
    server.wait_ready(Some(PATIENCE)).expect("ready");
    drop(writer);
    // The end of a pipe is seen only when nobody holds its other side.
    let end = std::io::read_to_string(reader).expect("the end");
    assert_eq!(end, "");
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("running");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    assert_eq!(fields[3], server.pid().to_string(), "its session: {stat}");
    server.stop(StopMode::Immediate, PATIENCE).expect("stopped");
}

#[test]
fn stopping_gives_up_when_a_client_stays() {
    let cluster = Cluster::builder().build();
    let mut server = start(&cluster, &[]);
    server.wait_ready(Some(PATIENCE)).expect("ready");
    let sleeping = cluster.client("psql").args(["-c", "select pg_sleep(600)"]).stderr(Stdio::null()).spawn();
    let mut sleeping = sleeping.expect("psql");
    cluster.wait_sql("select count(*) from pg_stat_activity where query like 'select pg_sleep%'", "1");
    let error = server.stop(StopMode::Smart, Duration::from_millis(300)).expect_err("a client stays");
    assert!(error.message().contains("could not stop the server"), "{error}");
    server.stop(StopMode::Fast, PATIENCE).expect("stopped");
    sleeping.wait().expect("psql ended");
}

#[test]
fn a_server_that_does_not_start_says_why_in_one_sentence() {
    let cluster = Cluster::builder().build();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    for (settings, sentence, hint) in [
        (
            vec![Setting::new("listen_addresses", "127.0.0.1"), Setting::new("port", port)],
            "could not create any TCP/IP sockets: could not bind IPv4 address \"127.0.0.1\": Address already in use",
            "Is another postmaster already running on port",
        ),
        (
            vec![Setting::new("shared_preload_libraries", "absent")],
            "could not access file \"absent\": No such file or directory",
            "its log is ",
        ),
        (
            vec![Setting::new("unix_socket_directories", "/nonexistent")],
            "could not create lock file \"/nonexistent/.s.PGSQL.",
            "its log is ",
        ),
        (
            vec![Setting::new("wrong_name", "1")],
            "unrecognized configuration parameter \"wrong_name\"",
            "its log is ",
        ),
    ] {
        let (found, found_hint) = failure(&cluster, &settings);
        assert!(found.contains(sentence), "{found}");
        assert!(
            found.starts_with(&format!("the server in {} ended: ", cluster.data_dir().display())),
            "{found}"
        );
        assert!(found_hint.starts_with(hint), "{found_hint}");
    }

    cluster.append_config("work_mem = lots\nport = here");
    let (found, _) = failure(&cluster, &[]);
    assert!(found.contains("contains errors: invalid value for parameter \"port\": \"here\""), "{found}");
}

#[test]
fn a_second_server_in_one_directory_is_refused() {
    let cluster = Cluster::start_new();
    let (sentence, hint) = failure(&cluster, &[]);
    assert!(sentence.contains("lock file \"postmaster.pid\" already exists"), "{sentence}");
    assert!(hint.contains("Is another postmaster"), "{hint}");
    assert_eq!(cluster.psql("select 1"), "1");
}

#[test]
fn root_is_refused_plainly() {
    if !is_root() {
        eprintln!("skipped root_is_refused_plainly: this does not run as root");
        return;
    }
    let cluster = Cluster::builder().build();
    for user in [None, Some(User { uid: 0, gid: 0 })] {
        let launch = Launch {
            binaries: &binaries(),
            data_directory: &cluster.data_dir(),
            config_file: None,
            settings: &[],
            log: &cluster.log_path(),
            run_as: user,
        };
        let error = Server::start(&launch).expect_err("root");
        assert!(error.message().contains("could not start a server as root"), "{error}");
    }
}

#[test]
fn the_library_directory_holds_the_servers_libraries() {
    let libraries = binaries().library_directory().expect("found");
    assert!(libraries.join("plpgsql.so").exists());
}
