//! The replication client: the commands of a walsender, WAL that equals the server's own files, the end of
//! a timeline, slots that are taken, WAL that is gone, and how it gets in.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pgark::error::{Error, Kind};
use pgark::pg::conninfo::{ConnRequest, ConnSettings, Environment};
use pgark::pg::lsn::{Lsn, SegmentSize, Timeline};
use pgark::pg::names::SegmentName;
use pgark::pg::replication::{Created, Event, Login, Positions, Replication, SlotName};

use super::connecting::hint;
use super::encrypting::Encrypted;
use crate::harness::*;

const TIMEOUT: Duration = Duration::from_secs(60);

fn open(conninfo: &str, home: &Path, allow_md5: bool) -> Result<Replication, Error> {
    let request = ConnRequest {
        conninfo: Some(conninfo.into()),
        dbname: Some("replication".into()),
        ..ConnRequest::default()
    };
    let environment = Environment::new([("LANG", "C")]).with_home(home).with_user("nobody");
    let login = Login { application_name: "receiver".into(), allow_md5 };
    Replication::connect(&ConnSettings::resolve(&request, &environment)?, &login)
}

fn connected(cluster: &Cluster) -> Replication {
    open(&cluster.conninfo(), Path::new("/nonexistent"), false).expect("let in")
}

fn slot(name: &str) -> SlotName {
    name.parse().expect("a name")
}

fn lsn(cluster: &Cluster, sql: &str) -> Lsn {
    cluster.psql(sql).parse().expect("an LSN")
}

/// Streams from `start` on until `end`, acknowledging all; what came.
fn stream(from: &mut Replication, name: Option<&SlotName>, timeline: u32, start: Lsn, end: Lsn) -> Vec<u8> {
    let mut streaming = from.start(name, start, Timeline(timeline), TIMEOUT).expect("streams");
    let mut received = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while start.0 + (received.len() as u64) < end.0 {
        assert!(Instant::now() < deadline, "no more WAL after {} bytes", received.len());
        if let Event::Wal { start: at, bytes, .. } = streaming.next(deadline).expect("goes on") {
            assert_eq!(at.0, start.0 + received.len() as u64, "WAL comes without a gap");
            received.extend_from_slice(bytes);
        }
        let written = Lsn(start.0 + received.len() as u64);
        streaming.report(Positions { written, flushed: written }).expect("reported");
    }
    received
}

#[test]
fn the_server_says_what_it_is_and_manages_slots() {
    let cluster = Cluster::builder().wal_segment_mib(1).start();
    let mut connection = connected(&cluster);
    let identity = connection.identify().expect("identified");
    assert_eq!(
        identity.system_id.to_string(),
        cluster.psql("select system_identifier from pg_control_system()")
    );
    assert_eq!(identity.timeline, Timeline(1));
    assert!(identity.flushed <= lsn(&cluster, "select pg_current_wal_flush_lsn()"));
    assert_eq!(connection.major().map(|major| major.number()), Ok(pg_major()));
    assert_eq!(connection.segment_size().map(SegmentSize::bytes), Ok(1 << 20));

    assert_eq!(connection.create_slot(&slot("s1")), Ok(Created::New));
    assert_eq!(connection.create_slot(&slot("s1")), Ok(Created::AlreadyThere));
    let reserved = lsn(&cluster, "select restart_lsn from pg_replication_slots where slot_name = 's1'");
    if pg_major() >= 15 {
        let found = connection.read_slot(&slot("s1")).expect("read").expect("there");
        assert_eq!(found.restart_lsn, Some(reserved));
        assert_eq!(connection.read_slot(&slot("s2")), Ok(None));
    }
    assert_eq!(connection.drop_slot(&slot("s1")), Ok(true));
    assert_eq!(connection.drop_slot(&slot("s1")), Ok(false));
    assert_eq!(connection.history(Timeline(7)), Ok(None));
    assert_eq!(
        cluster.psql("select application_name from pg_stat_activity where backend_type = 'walsender'"),
        "receiver"
    );
}

#[test]
fn wal_that_is_streamed_equals_the_server_s_files() {
    let cluster = Cluster::builder().wal_segment_mib(1).start();
    let mut connection = connected(&cluster);
    connection.create_slot(&slot("s")).expect("created");
    let size = connection.segment_size().expect("a size");
    let start = size.start_of(size.segment_of(lsn(&cluster, "select pg_current_wal_lsn()")));
    cluster.psql("create table t as select i, repeat('x', 500) from generate_series(1, 20000) i");
    cluster.psql("select pg_switch_wal()");
    let end = size.start_of(size.segment_of(lsn(&cluster, "select pg_current_wal_flush_lsn()")));
    let received = stream(&mut connection, Some(&slot("s")), 1, start, end);
    for (index, chunk) in received.chunks_exact(1 << 20).enumerate() {
        let number = size.segment_of(start) + index as u64;
        let name = SegmentName::from_number(Timeline(1), number, size).to_string();
        let file = fs::read(cluster.data_dir().join("pg_wal").join(&name)).expect("a segment");
        assert!(file == chunk, "{name} differs");
    }
    assert!(received.len() >= 10 << 20);
    cluster.wait_sql(
        "select (restart_lsn >= pg_current_wal_flush_lsn() - 1048576)::text from pg_replication_slots",
        "true",
    );
}

#[test]
fn a_slot_that_is_taken_is_a_conflict_that_names_the_process() {
    let cluster = Cluster::start_new();
    let (mut holder, mut other) = (connected(&cluster), connected(&cluster));
    holder.create_slot(&slot("mine")).expect("created");
    let at = holder.identify().expect("identified").flushed;
    let _streaming = holder.start(Some(&slot("mine")), at, Timeline(1), TIMEOUT).expect("streams");
    let Err(error) = other.start(Some(&slot("mine")), at, Timeline(1), TIMEOUT) else { panic!("streams") };
    let pid = cluster.psql("select active_pid from pg_replication_slots");
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("\"mine\"") && error.message().contains(&pid), "{error}");
    let error = other.drop_slot(&slot("mine")).expect_err("in use");
    assert_eq!(error.kind(), Kind::Conflict);
    // The connection is as good as before.
    assert_eq!(other.identify().map(|identity| identity.timeline), Ok(Timeline(1)));
}

#[test]
fn wal_that_is_gone_is_told_from_every_other_failure() {
    let cluster = Cluster::builder().wal_segment_mib(1).set("min_wal_size", "2MB").start();
    let old = lsn(&cluster, "select pg_current_wal_lsn()");
    cluster.psql("create table t as select i, repeat('x', 500) from generate_series(1, 20000) i");
    cluster.psql("checkpoint; select pg_switch_wal(); checkpoint");
    let mut connection = connected(&cluster);
    let mut streaming = connection.start(None, old, Timeline(1), TIMEOUT).expect("begins");
    let error = loop {
        match streaming.next(Instant::now() + PATIENCE) {
            Ok(Event::Keepalive { .. }) => {}
            Ok(event) => panic!("{event:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.message().contains("has already been removed"), "{error}");

    let mut connection = connected(&cluster);
    let Err(error) = connection.start(None, old, Timeline(9), TIMEOUT) else { panic!("timeline 9 streams") };
    assert_eq!(error.kind(), Kind::Postgres, "{error}");
    assert!(error.message().starts_with("could not stream WAL of timeline 9 from "), "{error}");
}

#[test]
fn the_end_of_a_timeline_names_the_next_one() {
    let primary = Cluster::start_new();
    let standby = primary.standby().start();
    let start = lsn(&primary, "select pg_current_wal_flush_lsn()");
    primary.psql("create table t (a int)");
    standby.wait_for("the table", || standby.try_psql("select from t").is_ok());
    let mut connection = connected(&standby);
    let mut streaming = connection.start(None, start, Timeline(1), TIMEOUT).expect("streams");
    drop(primary);
    standby.promote();
    let (next, switch_lsn) = loop {
        match streaming.next(Instant::now() + PATIENCE).expect("goes on") {
            Event::EndOfTimeline { next, switch_lsn } => break (next, switch_lsn),
            Event::Nothing => panic!("no end of the timeline"),
            _ => {}
        }
    };
    let history = connection.history(next).expect("read").expect("there");
    assert_eq!(next, Timeline(2));
    assert!(String::from_utf8_lossy(&history).starts_with(&format!("1\t{switch_lsn}\t")));
    // Nothing is left to stream of the old timeline from there on: the server says so at once.
    let mut streaming = connection.start(None, switch_lsn, Timeline(1), TIMEOUT).expect("answers");
    let event = streaming.next(Instant::now() + PATIENCE).expect("an event");
    assert_eq!(event, Event::EndOfTimeline { next, switch_lsn });
    connection.start(None, switch_lsn, next, TIMEOUT).expect("streams on");
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let cluster = Cluster::start_new();
    let mut connection = connected(&cluster);
    let at = connection.identify().expect("identified").flushed;
    let pid = cluster.psql("select pid from pg_stat_activity where backend_type = 'walsender'");
    let pid = rustix::process::Pid::from_raw(pid.parse().expect("a pid")).expect("a pid");
    let mut streaming = connection.start(None, at, Timeline(1), Duration::from_secs(1)).expect("streams");
    // An idle server answers when it is asked.
    let idle = Instant::now() + Duration::from_secs(3);
    while Instant::now() < idle {
        streaming.next(idle).expect("alive");
    }
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        match streaming.next(deadline) {
            Ok(_) => assert!(Instant::now() < deadline, "the silence was not noticed"),
            Err(error) => break error,
        }
    };
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("continued");
    assert_eq!(error.kind(), Kind::Transient);
    assert!(error.message().contains("has sent nothing for 1 s"), "{error}");
}

#[test]
fn passwords_certificates_and_channels_are_as_in_other_sessions() {
    let server = Encrypted::start("/CN=x", "subjectAltName=DNS:db.example");
    server.cluster.psql("alter role postgres password 'secret'");
    let hba = "local all all trust\nhostssl replication all 127.0.0.1/32 scram-sha-256\n";
    fs::write(server.cluster.config_dir().join("pg_hba.conf"), hba).expect("written");
    server.cluster.reload();
    server.cluster.wait_sql("select count(*) from pg_hba_file_rules", "2");
    let connect = |rest: &str| open(&server.conninfo("db.example", rest), &server.files, false);
    let root = format!("sslmode=verify-full sslrootcert={}", server.file("ca.crt"));
    for rest in [
        format!("{root} channel_binding=require"),
        format!("{root} ssl_max_protocol_version=TLSv1.2 channel_binding=require"),
        format!("{root} channel_binding=disable"),
        "sslmode=require".to_string(),
        "sslmode=allow".to_string(),
    ] {
        let mut connection = connect(&format!("{rest} password=secret")).expect(&rest);
        assert_eq!(connection.identify().map(|identity| identity.timeline), Ok(Timeline(1)), "{rest}");
    }
    let refused = |rest: &str, message: &str, setting: &str| match connect(rest) {
        Ok(_) => panic!("{rest} was let in"),
        Err(error) => {
            assert!(error.message().contains(message) && hint(&error).contains(setting), "{error:?}")
        }
    };
    refused(&root, "wants a password", "PGPASSWORD");
    refused(&format!("{root} password=hush"), "password authentication failed", "PGPASSWORD");
    refused("sslmode=disable password=secret", "no pg_hba.conf entry", "pg_hba.conf");
    let elsewhere = server.conninfo("wrong.example", &format!("{root} password=secret"));
    let Err(error) = open(&elsewhere, &server.files, false) else { panic!("a wrong name was taken") };
    assert!(error.message().contains("TLS failed") && hint(&error).contains("PGHOST"), "{error:?}");
}

#[test]
fn md5_is_refused_unless_it_is_allowed() {
    let cluster = Cluster::builder().set("listen_addresses", "127.0.0.1").start();
    cluster.psql("set password_encryption = 'md5'; alter role postgres password 'secret'");
    let hba = "local all all trust\nhost replication all 127.0.0.1/32 md5\n";
    fs::write(cluster.config_dir().join("pg_hba.conf"), hba).expect("written");
    cluster.reload();
    cluster.wait_sql("select count(*) from pg_hba_file_rules", "2");
    let pgpass = format!("127.0.0.1:{}:replication:postgres:secret\n", cluster.port());
    let home = cluster.scratch().make_dir("home");
    fs::write(home.join(".pgpass"), pgpass).expect("written");
    fs::set_permissions(home.join(".pgpass"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", cluster.port());
    let Err(error) = open(&conninfo, &home, false) else { panic!("md5 was used") };
    assert!(error.message().contains("md5") && hint(&error).contains("scram-sha-256"), "{error:?}");
    open(&conninfo, &home, true).expect("let in with md5");
}

#[test]
fn of_several_hosts_the_one_is_taken_that_is_asked_for() {
    let primary = Cluster::start_new();
    let standby = primary.standby().start();
    let hosts = format!("{},{}", standby.socket_dir().display(), primary.socket_dir().display());
    let conninfo = |target: &str| {
        let ports = format!("{},{}", standby.port(), primary.port());
        format!("host={hosts} port={ports} user=postgres target_session_attrs={target}")
    };
    for (target, there) in
        [("any", &standby), ("primary", &primary), ("read-write", &primary), ("standby", &standby)]
    {
        let _connection = open(&conninfo(target), Path::new("/nonexistent"), false).expect(target);
        there.wait_sql(
            "select count(*) from pg_stat_activity where backend_type = 'walsender' and application_name = 'receiver'",
            "1",
        );
    }
    primary.stop(Stop::Fast);
    let Err(error) = open(&conninfo("primary"), Path::new("/nonexistent"), false) else {
        panic!("no primary")
    };
    assert!(error.message().contains("the server is a standby"), "{error}");
}
