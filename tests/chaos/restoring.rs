//! Restores beside everything else: to a random moment that can be reached, some of them killed on the way, each
//! compared with what the clients know about that moment.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgark::pg::lsn::{Lsn, SegmentSize, Timeline};
use pgark::pg::names::SegmentName;
use serde_json::Value;

use super::dice::{Dice, say};
use super::journal::{Fate, Point, Upto};
use super::kills::{children, kill, title};
use super::ledger;
use super::stage::{Chronicle, EndsAll, Kind, Stage, show_lsn, show_time};
use super::world::prepared_on_the_wrong_timeline;
use crate::harness::*;

/// What a backup's header says.
struct Backup {
    timeline: Timeline,
    consistent: Lsn,
    /// Microseconds since 1970.
    stopped: i64,
}

/// What the repository has.
pub struct Stored {
    backups: Vec<Backup>,
    segments: BTreeSet<String>,
    size: Option<SegmentSize>,
}

impl Stored {
    /// Objects come and go meanwhile.
    pub fn look(repo: &TestRepo) -> Self {
        let mut stored = Self { backups: Vec::new(), segments: BTreeSet::new(), size: None };
        for entry in walkdir::WalkDir::new(repo.root()).into_iter().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "backup.json" {
                stored.read_header(entry.path());
            }
            stored
                .segments
                .extend(name.strip_suffix(".zst").filter(|name| name.len() == 24).map(str::to_owned));
        }
        stored
    }

    fn read_header(&mut self, path: &Path) {
        let Ok(text) = fs::read_to_string(path) else { return };
        let header: Value = serde_json::from_str(&text).expect("a header is whole when it is there");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let stopped: jiff::Timestamp = text(&header["stop"]["time"]).parse().expect("a time");
        let timeline = header["stop"]["timeline"].as_u64().expect("a number");
        self.backups.push(Backup {
            timeline: Timeline(u32::try_from(timeline).expect("a timeline")),
            consistent: text(&header["consistent_lsn"]).parse().expect("an LSN"),
            stopped: stopped.as_microsecond(),
        });
        let size = header["segment_size"].as_u64().expect("a size");
        self.size = Some(SegmentSize::try_from(size).expect("a size"));
    }

    /// Whether a server can be restored to that point: a backup ended well before it on its path, and the timeline's
    /// WAL is there beyond it.
    pub fn reaches(&self, chronicle: &Chronicle, timeline: u32, point: Point) -> bool {
        let (Some(size), Some(branch)) = (self.size, chronicle.branches.get(&timeline)) else { return false };
        let history = &branch.history;
        // The clocks of backups tick in seconds.
        let usable = self.backups.iter().filter(|backup| {
            history.descends_from(backup.timeline, backup.consistent)
                && backup.consistent.0 <= point.lsn
                && backup.stopped + 1_500_000 <= point.time
        });
        let Some(begin) = usable.map(|backup| backup.consistent).max() else { return false };
        let fork = history.entries().last().map_or(begin, |entry| entry.switch_lsn.max(begin));
        let last = size.segment_of(Lsn(point.lsn)) + 1;
        (size.segment_of(fork)..=last).all(|number| {
            let name = SegmentName::from_number(Timeline(timeline), number, size);
            self.segments.contains(&name.to_string())
        })
    }
}

pub struct Restorer<'a> {
    stage: &'a Stage,
    repo: &'a TestRepo,
    dice: Dice,
}

/// Where to, and what that means.
struct Aim {
    timeline: u32,
    point: Point,
    arguments: Vec<String>,
    upto: Upto,
    content: Option<Content>,
}

impl<'a> Restorer<'a> {
    pub fn new(stage: &'a Stage, repo: &'a TestRepo, seed: u64) -> Self {
        Self { stage, repo, dice: Dice::new(seed, "restorer") }
    }

    pub fn work(mut self) {
        let _ends = EndsAll(self.stage);
        while !self.stage.ended() {
            match self.choose() {
                Some(aim) => self.restore(&aim),
                None => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn choose(&mut self) -> Option<Aim> {
        let stored = Stored::look(self.repo);
        let chronicle = self.stage.chronicle();
        if self.dice.chance(25) {
            return self.choose_transaction(&stored, &chronicle);
        }
        let wanted = self.dice.below(4);
        let kind = |kind: &Kind| match kind {
            Kind::Lsn => 0,
            Kind::Time => 1,
            Kind::Name(_, None) => 2,
            Kind::Name(_, Some(_)) => 3,
        };
        let reached = chronicle.moments.iter().filter(|moment| {
            kind(&moment.kind) == wanted && stored.reaches(&chronicle, moment.timeline, moment.point)
        });
        let reached: Vec<_> = reached.collect();
        let moment = (*self.dice.pick(&reached)?).clone();
        drop(chronicle);
        let content = match &moment.kind {
            Kind::Name(_, content) => content.clone(),
            Kind::Lsn | Kind::Time => None,
        };
        let (arguments, upto) = (moment.arguments(), moment.upto());
        Some(Aim { timeline: moment.timeline, point: moment.point, arguments, upto, content })
    }

    fn choose_transaction(&mut self, stored: &Stored, chronicle: &Chronicle) -> Option<Aim> {
        let timelines: Vec<u32> = chronicle.branches.keys().copied().collect();
        let timeline = *self.dice.pick(&timelines)?;
        let branch = &chronicle.branches[&timeline];
        let fork = branch.history.entries().last().map_or(0, |entry| entry.switch_lsn.0);
        let lane = self.dice.below(ledger::LANES);
        let entries = branch.journal.lanes[lane].iter().enumerate();
        let acknowledged = entries.filter_map(|(place, entry)| {
            let known = matches!(entry.fate, Fate::Acknowledged { .. }) && entry.before.lsn > fork;
            Some((place, entry.xid, entry.before, entry.after.filter(|_| known)?))
        });
        // A backup must have ended before it began: it may have been prepared long before it was committed.
        let reached: Vec<_> = acknowledged
            .filter(|(_, _, before, after)| {
                stored.reaches(chronicle, timeline, Point { lsn: after.lsn, time: before.time })
            })
            .filter(|(_, _, before, _)| stored.reaches(chronicle, timeline, *before))
            .collect();
        let &(place, xid, _, point) = self.dice.pick(&reached)?;
        let exclusive = self.dice.chance(40);
        // As the WAL has it: without the epoch.
        let mut arguments = vec!["--target-xid".to_owned(), (xid & 0xFFFF_FFFF).to_string()];
        arguments.extend(exclusive.then(|| "--exclusive".to_owned()));
        let upto = Upto::Transaction { lane, place, exclusive };
        Some(Aim { timeline, point, arguments, upto, content: None })
    }

    fn restore(&mut self, aim: &Aim) {
        let scratch = Scratch::new();
        let shown = format!(
            "{} on timeline {} ({}, {})",
            aim.arguments.join(" "),
            aim.timeline,
            show_lsn(aim.point.lsn),
            show_time(aim.point.time)
        );
        say("restorer", &shown);
        let begun = Instant::now();
        let absences = self.stage.absences.load(Ordering::SeqCst);
        let mut around: &[&str] = &[];
        for attempt in 0.. {
            let (status, disturbed) = self.attempt(aim, &scratch, attempt, around);
            if status.success() {
                break;
            }
            let said = fs::read_to_string(scratch.join("said")).expect("what it said");
            if around.is_empty() && prepared_on_the_wrong_timeline(&said) {
                around = &["--set", "hot_standby=off"];
                self.stage.count("restores again with hot_standby = off");
                continue;
            }
            let away = absences != self.stage.absences.load(Ordering::SeqCst) || absences % 2 == 1;
            let expired = !Stored::look(self.repo).reaches(&self.stage.chronicle(), aim.timeline, aim.point);
            if away || expired {
                let why = if away { "the repository was away" } else { "what it needs has expired" };
                say("restorer", &format!("given up: {why}"));
                self.stage.count(&format!("restores given up: {why}"));
                return;
            }
            let trouble =
                disturbed && attempt < 5 && status.code().is_none_or(|code| code != 5 && code != 70);
            assert!(trouble, "{shown}: {status}\n{said}");
            self.stage.count("restores killed or failed, and begun again");
        }
        let data = scratch.join("data");
        let restored = Cluster::adopt(&data).with_log(&data.join("pgark-restore.log"));
        self.compare(aim, &restored, &shown);
        drop(restored);
        say("restorer", &format!("right, after {:.1} s", begun.elapsed().as_secs_f64()));
        self.stage.count("restores compared");
    }

    /// One run of bootstrap-restore, and whether it was disturbed.
    fn attempt(&mut self, aim: &Aim, scratch: &Scratch, attempt: u32, more: &[&str]) -> (ExitStatus, bool) {
        let (data, file) = (scratch.join("data"), File::create(scratch.join("said")).expect("a file"));
        let mut command = self.command(aim, scratch);
        command.args(more);
        if attempt > 0 {
            command.arg("--replace-running");
        }
        command.stdout(file.try_clone().expect("dup")).stderr(file);
        let mut child = command.spawn().expect("started");
        let kills = attempt < 3;
        let kill_after =
            (kills && self.dice.chance(25)).then(|| Duration::from_millis(self.dice.within(20..=2500)));
        let fetches = kills && self.dice.chance(15);
        let prefetchers = self.dice.chance(40);
        let (begun, mut disturbed) = (Instant::now(), false);
        loop {
            if let Some(status) = child.try_wait().expect("asked for") {
                return (status, disturbed);
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the restore does not end: {}",
                scratch.join("said").display()
            );
            if kill_after.is_some_and(|after| begun.elapsed() > after) && !disturbed {
                child.kill().expect("killed");
                disturbed = true;
                self.stage.count("bootstrap-restore killed");
            }
            for pid in children(&data, "wal-fetch") {
                let prefetches = title(pid).contains("--prefetch");
                // Who keeps files ready may die at any time; what the server has asked for stops its recovery.
                if self.dice.chance(10) && if prefetches { prefetchers } else { fetches } {
                    kill(pid);
                    disturbed |= !prefetches;
                    self.stage.count(if prefetches { "prefetchers killed" } else { "wal-fetch killed" });
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn command(&self, aim: &Aim, scratch: &Scratch) -> Command {
        let mut command = self.repo.std_program("bootstrap-restore");
        command.arg("-D").arg(scratch.join("data")).arg("--socket-dir").arg(scratch.make_dir("s"));
        command.arg("--tablespace-map").arg(format!("fast={}", scratch.join("fast").display()));
        command.args(&aim.arguments).args(["--target-timeline", &aim.timeline.to_string()]);
        command
    }

    fn compare(&mut self, aim: &Aim, restored: &Cluster, shown: &str) {
        let found = ledger::chains(restored);
        if let Err(wrong) = self.stage.chronicle().journal(aim.timeline).judge(&aim.upto, &found) {
            panic!("{shown}: {wrong}\n{}", restored.log_tail());
        }
        ledger::assert_deeds(restored);
        restored.assert_balanced();
        if let Some(content) = &aim.content {
            restored.assert_content(content);
            self.stage.count("restores of which every row was compared");
        }
        if self.dice.chance(50) {
            assert_sound(restored);
        }
        if restored.psql("show data_checksums") == "on" {
            restored.assert_checksums();
        }
    }
}

/// With the locks of what is prepared pg_amcheck would wait for ever.
pub fn assert_sound(server: &Cluster) {
    for gid in server.psql("select gid from pg_prepared_xacts").lines() {
        server.psql(&format!("rollback prepared '{gid}'"));
    }
    server.assert_sound();
}
