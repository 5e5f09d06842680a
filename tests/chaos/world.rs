//! The servers: a primary, a standby, the receiver, pgbench, and how each is made. Archives go through wal-push,
//! streams through wal-receive, into one repository.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgark::pg::history::TimelineHistory;
use pgark::pg::lsn::Timeline;
use postgres::{Client, NoTls};

use super::dice::{Dice, say};
use super::jobs::Jobs;
use super::journal::Point;
use super::ledger;
use super::stage::{Kind, Moment, Stage};
use crate::harness::*;
use crate::receiver::Receiver;

/// A server that a restore made lives below a directory of its own, which goes after it.
pub struct Server {
    pub cluster: Cluster,
    _home: Option<Scratch>,
}

pub struct World<'a> {
    pub stage: &'a Stage,
    pub repo: &'a TestRepo,
    pub dice: Dice,
    pub primary: Server,
    pub standby: Option<Server>,
    pub receiver: Option<Receiver>,
    pub load: Option<Load>,
    pub jobs: Jobs<'a>,
    pub names: u32,
}

/// wal-push, killed after as many seconds as a file says, which notes that down. 0 is no limit: timeout(1). The server
/// hears of a failure, not of a signal, for which it would let its archiver rest for ten seconds.
fn write_push(repo: &TestRepo) {
    let push = with_config(repo, "wal-push", "\"$1\"");
    let dir = repo.scratch().path().display();
    let script = format!(
        "#!/bin/sh\ntimeout -s KILL \"$(cat {dir}/fuse)\" {push}\ncode=$?\n\
         if [ $code = 137 ]; then echo killed >> {dir}/killed; code=1; fi\nexit $code\n"
    );
    repo.scratch().write("push", script);
    repo.scratch().write("fuse", "0");
}

fn archive_command(repo: &TestRepo) -> String {
    format!("sh {} %p", repo.scratch().join("push").display())
}

fn with_config(repo: &TestRepo, program: &str, rest: &str) -> String {
    format!("{} --config {} {rest}", program_path(program).display(), repo.config().display())
}

impl<'a> World<'a> {
    /// With pgbench's tables, the ledger and a first backup. No client is let in yet.
    pub fn new(stage: &'a Stage, repo: &'a TestRepo, seed: u64) -> Self {
        let mut dice = Dice::new(seed, "director");
        let segment = *dice.pick(&[1, 1, 2, 4, 16]).expect("some");
        let checksums = dice.chance(80);
        let mut builder = Cluster::builder().wal_segment_mib(segment).checksums(checksums).tablespace("fast");
        write_push(repo);
        builder = builder.set("archive_mode", "on").set("archive_command", archive_command(repo));
        for (name, value) in settings(&mut dice) {
            builder = builder.set(name, value);
        }
        say("director", &format!("segments of {segment} MiB, data checksums: {checksums}"));
        let primary = Server { cluster: builder.start(), _home: None };
        primary.cluster.pgbench_init(1);
        ledger::create(&primary.cluster);
        run(repo.basebackup(&primary.cluster).args(["--label", "first"])).succeeds();
        let jobs = Jobs::new(stage, repo);
        let (standby, receiver, load) = (None, None, None);
        Self { stage, repo, dice, primary, standby, receiver, load, jobs, names: 0 }
    }

    /// The first standby, as pg_basebackup makes one. All others come from the archive.
    pub fn copy_standby(&mut self) {
        let fetch = with_config(self.repo, "wal-fetch", "%f %p");
        let standby = self.primary.cluster.standby().set("restore_command", fetch).start();
        self.standby = Some(Server { cluster: standby, _home: None });
    }

    /// Lets clients in.
    pub fn open(&mut self, timeline: u32) {
        self.stage.open(self.primary.cluster.conninfo(), timeline);
        self.start_load();
    }

    pub fn timeline(&self) -> u32 {
        self.stage.place().expect("open").timeline
    }

    /// Pgbench ends whenever its server does.
    pub fn start_load(&mut self) {
        self.load = None;
        self.load = Some(self.primary.cluster.pgbench_in_background(&["-c", "2", "-R", "120"]));
    }

    pub fn start_receiver(&mut self) {
        let synchronous: &[&str] =
            if self.stage.guarded.load(Ordering::SeqCst) { &["--synchronous"] } else { &[] };
        self.start_receiver_with(synchronous);
    }

    pub fn start_receiver_with(&mut self, arguments: &[&str]) {
        self.receiver = Some(Receiver::start(self.repo, &self.primary.cluster, arguments));
    }

    /// From here on a commit waits until the receiver has it on its disk.
    pub fn guard(&mut self) {
        if self.stage.guarded.load(Ordering::SeqCst) {
            return;
        }
        if let Some(receiver) = self.receiver.take() {
            receiver.leave();
        }
        self.start_receiver_with(&["--synchronous"]);
        self.primary.cluster.psql("alter system set synchronous_standby_names = 'pgark'");
        self.primary.cluster.reload();
        let synchronous = "select count(*) from pg_stat_replication where application_name = 'pgark' and sync_state = 'sync'";
        self.wait_for_receiver(synchronous, "1");
        // The flag is for transactions that begin with it set, and no older one is in between.
        let held = self.stage.hold();
        self.stage.guarded.store(true, Ordering::SeqCst);
        drop(held);
        self.stage.count("times that commits began to wait for the receiver");
    }

    pub fn unguard(&mut self) {
        self.stage.guarded.store(false, Ordering::SeqCst);
        self.primary.cluster.psql("alter system reset synchronous_standby_names");
        self.primary.cluster.reload();
    }

    /// As [`Cluster::wait_sql`], but a receiver that ended is told at once, with what it said.
    pub fn wait_for_receiver(&mut self, query: &str, expected: &str) {
        let (primary, receiver) = (&self.primary.cluster, self.receiver.as_mut().expect("it runs"));
        primary.wait_for(&format!("{query} to give {expected}"), || {
            assert!(receiver.is_running(), "the receiver ended: {}", receiver.log());
            primary.try_psql(query).is_ok_and(|answer| answer == expected)
        });
    }

    /// A standby out of the archive, which streams from the primary.
    pub fn restore_standby(&mut self) {
        self.standby = None;
        let conninfo = self.primary.cluster.conninfo();
        let arguments = ["--standby", "--primary-conninfo", &conninfo].map(str::to_owned);
        let standby = self.restore(&arguments);
        let archive = archive_command(self.repo);
        standby.cluster.psql("alter system set archive_mode = on");
        standby.cluster.psql(&format!("alter system set archive_command = '{archive}'"));
        standby.cluster.restart();
        self.standby = Some(standby);
        self.stage.count("standbys restored");
    }

    pub fn restore(&self, arguments: &[String]) -> Server {
        let home = Scratch::new();
        let (data, map) = (home.join("data"), format!("fast={}", home.join("fast").display()));
        let bootstrap_restore = |more: &[&str]| {
            let mut command = self.repo.bootstrap_restore();
            command.arg("-D").arg(&data).arg("--socket-dir").arg(home.make_dir("s"));
            run(command.args(["--tablespace-map", &map]).args(arguments).args(more))
        };
        let mut outcome = bootstrap_restore(&[]);
        let around = outcome.code != Some(0) && prepared_on_the_wrong_timeline(&outcome.stderr);
        if around {
            self.stage.count("restores again with hot_standby = off");
            outcome = bootstrap_restore(&["--set", "hot_standby=off", "--replace"]);
        }
        outcome.succeeds();
        let cluster = Cluster::adopt(&data);
        if around {
            cluster.psql("alter system set hot_standby = on");
        }
        Server { cluster, _home: Some(home) }
    }

    /// The standby, if there is one that lives. One that met PostgreSQL's mistake is made anew from a new backup.
    pub fn living_standby(&mut self) -> Option<&Server> {
        let standby = self.standby.as_ref()?;
        if !standby.cluster.is_running() {
            let said = standby.cluster.log_tail();
            assert!(prepared_on_the_wrong_timeline(&said), "the standby ended: {said}");
            self.stage.count("standbys made anew from a new backup");
            self.jobs.finish();
            run(&mut self.repo.basebackup(&self.primary.cluster)).succeeds();
            self.restore_standby();
        }
        self.standby.as_ref()
    }

    /// The history of the primary's timeline, as it lies in its pg_wal.
    pub fn history(&self) -> TimelineHistory {
        let query = "select timeline_id from pg_control_checkpoint()";
        let control: u32 = self.primary.cluster.psql(query).parse().expect("a number");
        let named =
            self.primary.cluster.psql("select substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)");
        let timeline = u32::from_str_radix(&named, 16).expect("hex").max(control);
        let path = self.primary.cluster.data_dir().join(format!("pg_wal/{timeline:08X}.history"));
        let content = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        TimelineHistory::parse(Timeline(timeline), &content).expect("a history")
    }

    pub fn point(&self) -> Point {
        let mut client = Client::connect(&self.primary.cluster.conninfo(), NoTls).expect("connected");
        ledger::point(&mut client).expect("a point")
    }

    /// Lets time pass, and writes moments down.
    pub fn pass(&mut self, milliseconds: u64) {
        let until = Instant::now() + Duration::from_millis(milliseconds);
        while Instant::now() < until && !self.stage.ended() {
            self.dice.pause(40..=250);
            self.record();
            self.jobs.look();
        }
    }

    pub fn record(&mut self) {
        let timeline = self.timeline();
        let kind = match self.dice.below(3) {
            0 => Kind::Lsn,
            1 => Kind::Time,
            _ => Kind::Name(self.next_name("point"), None),
        };
        let mut client = Client::connect(&self.primary.cluster.conninfo(), NoTls).expect("connected");
        let point = match &kind {
            Kind::Name(name, _) => restore_point(&mut client, name),
            _ => ledger::point(&mut client),
        };
        let point =
            point.unwrap_or_else(|error| panic!("a moment: {error}\n{}", self.primary.cluster.log_tail()));
        self.stage.chronicle().moments.push(Moment { timeline, point, kind });
        self.stage.count("moments written down");
    }

    /// A moment of which the content of all tables is known: nobody writes until it is written down.
    pub fn record_content(&mut self) {
        let timeline = self.timeline();
        let held = self.stage.hold();
        let mut client = Client::connect(&self.primary.cluster.conninfo(), NoTls).expect("connected");
        // Who wrote there waits for the end of its commit; who has not yet can't.
        client
            .batch_execute(
                "set synchronous_commit = local; begin; lock table pgbench_history in exclusive mode",
            )
            .expect("locked");
        let content = self.primary.cluster.content();
        let name = self.next_name("content");
        let point = restore_point(&mut client, &name).expect("a restore point");
        client.batch_execute("commit").expect("unlocked");
        drop(held);
        let kind = Kind::Name(name, Some(content));
        self.stage.chronicle().moments.push(Moment { timeline, point, kind });
        self.stage.count("moments with the content of all tables");
    }

    pub fn next_name(&mut self, of: &str) -> String {
        self.names += 1;
        format!("{of}-{}", self.names)
    }
}

/// A hot standby that replays the shutdown checkpoint with which a timeline begins reads pending prepared transactions
/// under the name of the timeline before (StandbyRecoverPreparedTransactions in twophase.c, by
/// XLogReadDetermineTimeline with the last replayed timeline): a segment that has been archived under the new name
/// alone. What it can't find ends it. Without hot_standby it does not look.
pub fn prepared_on_the_wrong_timeline(said: &str) -> bool {
    said.contains("requested WAL segment") && said.contains("has already been removed")
}

/// A restore point that a crash can't take back: the end of its transaction writes the WAL out.
fn restore_point(client: &mut Client, name: &str) -> Result<Point, postgres::Error> {
    client.batch_execute("set synchronous_commit = local")?;
    let row = client.query_one(
        "select (pg_create_restore_point($1) - '0/0')::bigint,
                (extract(epoch from clock_timestamp()) * 1000000)::bigint, pg_current_xact_id()::text",
        &[&name],
    )?;
    Ok(Point { lsn: row.get::<_, i64>(0).unsigned_abs(), time: row.get(1) })
}

fn settings(dice: &mut Dice) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        ("archive_timeout", "3s"),
        ("max_prepared_transactions", "30"),
        // A new primary has what the old one did not archive, and a new receiver what the old one did not get.
        ("wal_keep_size", "512MB"),
        ("max_wal_size", "96MB"),
        ("checkpoint_timeout", "30s"),
        ("autovacuum_naptime", "3s"),
        ("wal_retrieve_retry_interval", "300ms"),
        ("wal_receiver_timeout", "10s"),
        ("deadlock_timeout", "200ms"),
        // Recovery, too, wants it while a tablespace is to be dropped again.
        ("allow_in_place_tablespaces", "on"),
    ];
    if pg_major() >= 17 && dice.chance(50) {
        settings.push(("summarize_wal", "on"));
    }
    if dice.chance(30) {
        settings.push(("wal_compression", "on"));
    }
    if dice.chance(30) {
        settings.push(("wal_level", "logical"));
    }
    settings
}
