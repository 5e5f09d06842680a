//! Recoveries with the settings that `pg/recovery` makes, followed and explained by `pg/server`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pgark::error::{Error, Result};
use pgark::pg::client::Client;
use pgark::pg::conninfo::{ConnSettings, Environment};
use pgark::pg::control::ControlFile;
use pgark::pg::lsn::{Lsn, Timeline};
use pgark::pg::recovery::{
    Configuration, Minimums, Recovery, Role, Standby, Target, TargetAction, ToTarget, restore_command,
    role_settings,
};
use pgark::pg::server::{
    Launch, Pause, RecoveryProgress, Server, State, Stop as StopMode, free_port, replayed_segment,
    socket_directory_value, stop,
};
use pgark::pg::settings::{Disk, Settings};
use pgark::pg::settings_file::Setting;

use super::starting::{binaries, run_as};
use crate::harness::*;

/// A Debian-style primary that archives into a directory, whose configuration points at itself wherever it
/// can, and a base backup of it.
struct Source {
    cluster: Cluster,
    archive: PathBuf,
    base: PathBuf,
    /// Holds the archive.
    _scratch: Scratch,
}

impl Source {
    fn new() -> Self {
        let scratch = Scratch::new();
        let archive = scratch.make_dir("archive with 100%");
        let copy = format!(
            "test ! -f \"{0}/%f\" && cp \"%p\" \"{0}/%f\"",
            archive.display().to_string().replace('%', "%%")
        );
        let cluster = Cluster::builder()
            .debian()
            .set("archive_mode", "on")
            .set("archive_command", copy)
            .set("max_connections", 123)
            .set("max_prepared_transactions", 7)
            .start();
        cluster.psql("create table t (a int)");
        let base = cluster.scratch().join("base");
        let base_name = base.display().to_string();
        cluster.run_client("pg_basebackup", &["-D", &base_name, "-X", "none", "-c", "fast"]);
        for setting in [
            "synchronous_standby_names = 'nobody'",
            "recovery_target_name = 'left over'",
            "recovery_min_apply_delay = '1h'",
            "primary_conninfo = 'host=nowhere'",
            "max_connections = 20",
        ] {
            cluster.psql(&format!("alter system set {setting}"));
        }
        Self { cluster, archive, base, _scratch: scratch }
    }

    fn insert(&self, value: i32) -> Lsn {
        self.cluster.psql(&format!("set synchronous_commit = local; insert into t values ({value})"));
        self.cluster.current_lsn().parse().expect("an LSN")
    }

    fn fetch(&self) -> String {
        let script = format!("cp -- \"{}/$1\" \"$2\"", self.archive.display());
        restore_command(&["sh", "-c", &script, "fetch"]).expect("a command")
    }

    fn to(&self, target: Target, action: TargetAction) -> Recovery {
        let restore_command = self.fetch();
        Recovery::ToTarget(ToTarget {
            restore_command,
            target,
            inclusive: true,
            action,
            timeline: Timeline(1),
        })
    }
}

/// A restored data directory; its server, if any, is stopped at the end.
struct Restored {
    scratch: Scratch,
    data: PathBuf,
    sockets: PathBuf,
    port: u16,
}

impl Restored {
    fn new(source: &Source, recovery: &Recovery, role: Role) -> Self {
        let scratch = Scratch::new();
        let sockets = scratch.make_dir("s, with a comma");
        let data = scratch.join("data");
        let mut copy = command("cp");
        let copied = copy.arg("-a").arg(&source.base).arg(&data).status().expect("cp");
        assert!(copied.success());
        let port = free_port(&sockets).expect("a port");
        let restored = Self { scratch, data, sockets, port };
        restored.configure(source, recovery, role).expect("configured");
        restored
    }

    /// What a restore does with the configuration.
    fn configure(&self, source: &Source, recovery: &Recovery, role: Role) -> Result<()> {
        let config = source.cluster.config_dir();
        let settings =
            Settings::effective(&config.join("postgresql.conf"), &source.cluster.data_dir(), &Disk)?;
        let mut add = role_settings(role);
        add.extend(recovery.settings()?);
        add.extend(
            Minimums::of_control(&ControlFile::read(&self.data)?.recovery_settings).missing_in(&settings),
        );
        add.push(Setting::new("port", self.port.to_string()));
        add.push(Setting::new(
            "unix_socket_directories",
            socket_directory_value(&self.sockets.display().to_string()),
        ));
        add.push(Setting::new("cluster_name", "a copy"));
        let auto = fs::read(source.cluster.data_dir().join("postgresql.auto.conf")).expect("read");
        let files = Configuration::restored(&settings.flat, &auto, role, &add)?;
        self.write("postgresql.conf", &files.postgresql_conf);
        self.write("postgresql.auto.conf", &files.auto_conf);
        self.write(recovery.signal_file(), b"");
        for name in ["pg_hba.conf", "pg_ident.conf"] {
            self.write(name, &fs::read(config.join(name)).expect("read"));
        }
        Ok(())
    }

    fn write(&self, name: &str, content: &[u8]) {
        self.scratch.write(self.data.join(name), content);
    }

    fn start(&self, settings: &[Setting]) -> Server {
        let launch = Launch {
            binaries: &binaries(),
            data_directory: &self.data,
            config_file: None,
            settings,
            log: &self.scratch.join("server.log"),
            run_as: run_as(),
        };
        Server::start(&launch).expect("started")
    }

    fn failure(&self, settings: &[Setting]) -> Error {
        let mut server = self.start(settings);
        loop {
            if let State::Ended(status) = server.state().expect("a state") {
                return server.failure(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn connect(&self) -> Client {
        let environment = Environment::new([("PGUSER", "postgres"), ("PGHOST", "/elsewhere")]);
        Client::connect(&ConnSettings::local(&self.sockets, self.port, &environment).expect("resolved"))
            .expect("let in")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("server.log")).unwrap_or_default()
    }

    fn follow(&self, client: &mut Client, done: impl Fn(&RecoveryProgress) -> bool) -> RecoveryProgress {
        let mut progress = None;
        wait_for(
            "the recovery",
            || self.log(),
            || {
                progress = Some(RecoveryProgress::ask(client).expect("an answer"));
                progress.as_ref().is_some_and(&done)
            },
        );
        progress.expect("asked")
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        stop(&self.data, StopMode::Immediate, PATIENCE).expect("stopped");
    }
}

fn text(client: &mut Client, sql: &str) -> String {
    client.query_one_text(sql, &[]).expect("a text")
}

#[test]
fn a_copy_recovers_to_its_target_pauses_and_goes_its_own_way() {
    let source = Source::new();
    source.insert(1);
    let target = source.insert(2);
    source.insert(3);
    source.cluster.archive_everything();
    let archived = fs::read_dir(&source.archive).expect("read").count();
    let restored =
        Restored::new(&source, &source.to(Target::Lsn(target), TargetAction::Pause), Role::Quarantine);
    let mut server = restored.start(&[]);
    assert_eq!(server.wait_ready(Some(PATIENCE)), Ok(State::Ready), "{}", restored.log());
    let mut client = restored.connect();
    let paused = restored.follow(&mut client, |progress| progress.pause == Pause::Paused);
    assert!(paused.in_recovery && paused.replayed.is_some_and(|lsn| lsn >= target), "{paused:?} {target}");
    assert_eq!(paused.timeline, Some(Timeline(1)));
    assert!(paused.replayed_time.is_some());
    assert_eq!(replayed_segment(server.pid()).map(|segment| segment.timeline), Some(Timeline(1)));
    assert_eq!(text(&mut client, "select string_agg(a::text, ' ' order by a) from public.t"), "1 2");

    client.query("select pg_wal_replay_resume()", &[]).expect("resumed");
    let ended = restored.follow(&mut client, |progress| !progress.in_recovery);
    assert_eq!((ended.timeline, ended.replayed), (Some(Timeline(2)), paused.replayed));
    // It would wait for ever if synchronous_standby_names were still there.
    client.execute("insert into public.t values (4)", &[]).expect("written");
    for (name, value) in [
        ("archive_mode", "off"),
        ("archive_command", "(disabled)"),
        ("max_connections", "123"),
        ("max_prepared_transactions", "7"),
        ("synchronous_standby_names", ""),
        ("max_logical_replication_workers", "0"),
        ("cron.launch_active_jobs", "off"),
        ("cluster_name", "a copy"),
        ("external_pid_file", ""),
        ("primary_conninfo", ""),
        ("recovery_min_apply_delay", "0"),
    ] {
        assert_eq!(text(&mut client, &format!("show {name}")), value, "{name}");
    }
    let data = restored.data.display().to_string();
    assert_eq!(text(&mut client, "show data_directory"), data);
    assert_eq!(text(&mut client, "show hba_file"), format!("{data}/pg_hba.conf"));
    client.query("select pg_switch_wal()", &[]).expect("switched");
    server.stop(StopMode::Fast, PATIENCE).expect("stopped");
    assert_eq!(fs::read_dir(&source.archive).expect("read").count(), archived);
}

#[test]
fn every_kind_of_target_is_understood_by_the_server() {
    let source = Source::new();
    source.insert(1);
    let xid = source.cluster.psql("set synchronous_commit = local; begin; insert into t values (2); select pg_current_xact_id(); commit");
    let time = source.cluster.now();
    source.cluster.psql("select pg_create_restore_point('it''s \\ 100% here')");
    source.insert(3);
    source.cluster.archive_everything();
    for (target, expected) in [
        (Target::EndOfArchive, "1 2 3"),
        (Target::Time(time.parse().expect("a time")), "1 2"),
        (Target::Xid(xid.parse().expect("an xid")), "1 2"),
        (Target::Name("it's \\ 100% here".into()), "1 2"),
        (Target::Immediate, ""),
    ] {
        let recovery = source.to(target.clone(), TargetAction::Promote);
        let restored = Restored::new(&source, &recovery, Role::Quarantine);
        let mut server = restored.start(&[]);
        server.wait_ready(Some(PATIENCE)).expect("ready");
        let mut client = restored.connect();
        restored.follow(&mut client, |progress| !progress.in_recovery);
        let rows =
            text(&mut client, "select coalesce(string_agg(a::text, ' ' order by a), '') from public.t");
        assert_eq!(rows, expected, "{target:?}");
    }
}

#[test]
fn a_recovery_that_falls_short_or_breaks_says_why() {
    let source = Source::new();
    source.insert(1);
    source.cluster.archive_everything();
    let missed = source.to(Target::Name("never made".into()), TargetAction::Promote);
    let error = Restored::new(&source, &missed, Role::Quarantine).failure(&[]);
    assert!(
        error.message().ends_with("ended: recovery ended before configured recovery target was reached"),
        "{error}"
    );

    let broken = Recovery::ToTarget(ToTarget {
        restore_command: restore_command(&["sh", "-c", "echo 'error: the disk is gone' >&2; exit 206", "x"])
            .expect("a command"),
        target: Target::Immediate,
        inclusive: true,
        action: TargetAction::Promote,
        timeline: Timeline(1),
    });
    let error = Restored::new(&source, &broken, Role::Quarantine).failure(&[]);
    assert!(error.message().contains("could not restore file"), "{error}");
    assert!(
        error.message().ends_with("child process exited with exit code 206: the disk is gone"),
        "{error}"
    );

    let recovery = source.to(Target::EndOfArchive, TargetAction::Promote);
    let error =
        Restored::new(&source, &recovery, Role::Quarantine).failure(&[Setting::new("max_connections", "50")]);
    assert!(
        error.message().contains("max_connections = 50 is a lower setting than on the primary"),
        "{error}"
    );
}

#[test]
fn a_reason_is_found_in_the_collected_log_too() {
    let source = Source::new();
    source.insert(1);
    source.cluster.archive_everything();
    let missed = source.to(Target::Name("never made".into()), TargetAction::Promote);
    let restored = Restored::new(&source, &missed, Role::Takeover);
    let error = restored.failure(&[Setting::new("logging_collector", "on")]);
    assert!(
        error.message().ends_with("ended: recovery ended before configured recovery target was reached"),
        "{error}"
    );
    assert!(!restored.log().contains("recovery ended before"));
}

#[test]
fn a_standby_waits_for_more() {
    let source = Source::new();
    let last = source.insert(1);
    source.cluster.archive_everything();
    let standby =
        Standby { restore_command: source.fetch(), primary_conninfo: None, primary_slot_name: None };
    let restored = Restored::new(&source, &Recovery::Standby(standby), Role::Quarantine);
    let mut server = restored.start(&[]);
    server.wait_ready(Some(PATIENCE)).expect("ready");
    let mut client = restored.connect();
    restored.follow(&mut client, |progress| progress.replayed.is_some_and(|lsn| lsn >= last));
    let more = source.insert(2);
    source.cluster.archive_everything();
    let progress = restored.follow(&mut client, |progress| progress.replayed.is_some_and(|lsn| lsn >= more));
    assert!(progress.in_recovery && progress.pause == Pause::No);
}
