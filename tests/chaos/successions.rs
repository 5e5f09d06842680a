//! One primary ends and another takes its place: a standby that is promoted, or a restore that takes over. Then the
//! archive is healed, the receiver follows, and a new standby is made from the archive.

use std::fs;
use std::time::{Duration, Instant};

use super::dice::say;
use super::journal::{Journal, Upto};
use super::ledger;
use super::restoring;
use super::stage::{Moment, show_lsn};
use super::world::World;
use crate::checks;
use crate::harness::*;

/// How the old primary ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Killed,
    /// It shuts down; all that it wrote is archived and with the standby.
    Stopped,
    /// It runs on for a while, without clients of ours, and archives on its timeline.
    Fenced,
}

impl World<'_> {
    pub fn fail_over(&mut self, ending: Ending) {
        self.jobs.trouble();
        if self.living_standby().is_none() {
            return;
        }
        let standby = self.standby.take().expect("it lives");
        let timeline = self.timeline();
        // Who waits for the receiver would wait until its server is gone.
        if ending == Ending::Killed {
            self.primary.cluster.crash();
        }
        self.stage.close();
        match ending {
            Ending::Stopped => {
                self.load = None;
                self.primary.cluster.stop(Stop::Fast);
            }
            Ending::Killed | Ending::Fenced => {}
        }
        // Not waiting in SQL: a snapshot that replay has to wait for would hold itself up, or be cancelled.
        standby.cluster.wait_sql("select pg_promote(false)", "t");
        standby.cluster.wait_for("the promotion", || {
            assert!(standby.cluster.is_running(), "the standby ended: {}", standby.cluster.log_tail());
            standby.cluster.try_psql("select pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
        });
        if ending == Ending::Fenced {
            self.dice.pause(0..=2000);
            self.primary.cluster.crash();
        }
        self.end_receiver();
        self.load = None;
        self.primary = standby;
        self.stage.count(&format!("promotions, the old primary {ending:?}").to_lowercase());
        self.enthrone(timeline, Upto::Lsn);
        self.heal();
        self.follow();
    }

    /// Back to some moment, by a restore that takes over.
    pub fn go_back(&mut self) {
        let timeline = self.timeline();
        let Some(moment) = self.moment_to_go_back_to(timeline) else { return };
        say("director", &format!("goes back to {:?} at {}", moment.arguments(), show_lsn(moment.point.lsn)));
        self.jobs.trouble();
        self.end_primary();
        self.end_receiver();
        let mut arguments = moment.arguments();
        arguments.extend(["--target-timeline".to_owned(), timeline.to_string(), "--takeover".to_owned()]);
        self.primary = self.restore(&arguments);
        self.stage.count("successors restored to a moment");
        self.enthrone(timeline, |_| moment.upto());
        self.begin_anew();
    }

    /// The primary and its disk are gone. What was acknowledged by two is in the repository.
    pub fn lose_the_disk(&mut self) {
        self.guard();
        self.pass(1500);
        self.jobs.trouble();
        let timeline = self.timeline();
        self.standby = None;
        self.primary.cluster.crash();
        self.stage.close();
        self.load = None;
        fs::remove_dir_all(self.primary.cluster.data_dir()).expect("lost");
        if self.dice.chance(50) {
            self.receiver.take().expect("it runs").kill();
            self.start_receiver_with(&["--synchronous"]);
            self.stage.count("wal-receive killed");
        }
        let receiver = self.receiver.take().expect("it runs");
        receiver.wait_for_log("the next attempt follows");
        receiver.leave();
        self.primary = self.restore(&["--takeover".to_owned()]);
        self.stage.count("disks of primaries lost");
        self.enthrone(timeline, |_| Upto::Guarded);
        self.begin_anew();
    }

    fn end_primary(&mut self) {
        self.standby = None;
        if self.dice.chance(50) {
            self.primary.cluster.crash();
            self.stage.close();
            self.load = None;
        } else {
            self.stage.close();
            self.load = None;
            self.primary.cluster.stop(Stop::Fast);
        }
    }

    fn end_receiver(&mut self) {
        let Some(receiver) = self.receiver.take() else { return };
        if self.dice.chance(50) { receiver.kill() } else { receiver.leave() }
    }

    fn moment_to_go_back_to(&mut self, timeline: u32) -> Option<Moment> {
        // Of what is written now, nothing is archived yet.
        self.primary.cluster.archive_everything();
        let repo = restoring::Stored::look(self.repo);
        let chronicle = self.stage.chronicle();
        let moments = chronicle.moments.iter().filter(|moment| moment.timeline == timeline);
        let mut reached: Vec<Moment> =
            moments.filter(|moment| repo.reaches(&chronicle, timeline, moment.point)).cloned().collect();
        drop(chronicle);
        let newest = reached.len().saturating_sub(40);
        let recent = reached.split_off(newest);
        self.dice.pick(&recent).cloned()
    }

    /// The primary is a new one: what it has must be right, and is what its timeline begins with.
    fn enthrone(&mut self, parent: u32, upto: impl Fn(u64) -> Upto) {
        let cluster = &self.primary.cluster;
        cluster.wait_sql("select pg_is_in_recovery()", "f");
        cluster.psql("alter system reset synchronous_standby_names");
        cluster.reload();
        let history = self.history();
        let timeline = history.timeline().0;
        let fork = history.entries().last().expect("a parent").switch_lsn.0;
        assert_eq!(history.parent().map(|it| it.0), Some(parent), "{history:?}");
        let found = ledger::chains(cluster);
        let at = self.point();
        let mut chronicle = self.stage.chronicle();
        let old = &chronicle.branches[&parent].journal;
        if let Err(wrong) = old.judge(&upto(fork), &found) {
            panic!(
                "timeline {timeline}, from {parent} at {}: {wrong}\n{}",
                show_lsn(fork),
                cluster.log_tail()
            );
        }
        let counts: Vec<usize> = found.iter().map(Vec::len).collect();
        let journal: Journal = old.fork(&counts, at);
        let lost: usize = old.lanes.iter().zip(&counts).map(|(lane, count)| lane.len() - count).sum();
        chronicle.branch(history, journal);
        drop(chronicle);
        let lsn = show_lsn(fork);
        say(
            "director",
            &format!("timeline {timeline} began at {lsn} of {parent}, without the last {lost} commits"),
        );
        self.open(timeline);
    }

    /// A new receiver and a new standby.
    fn follow(&mut self) {
        self.start_receiver();
        self.pass(300);
        self.restore_standby();
    }

    /// After a restore that took over a standby begins with a backup of the new timeline: see
    /// `prepared_on_the_wrong_timeline`.
    fn begin_anew(&mut self) {
        self.jobs.finish();
        run(&mut self.repo.basebackup(&self.primary.cluster)).succeeds();
        self.follow();
    }

    /// What the old primary had not archived comes from the new one.
    fn heal(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = checks::check(self.repo, &self.primary.cluster, &["--heal", "--no-switch"]);
            let healed = said.json["healed"].as_array().map_or(0, Vec::len);
            (0..healed).for_each(|_| self.stage.count("segments and histories healed"));
            let open = ["holes", "timeline"].map(|check| said.of(check));
            if open.iter().flatten().all(|finding| finding["level"] == "ok") {
                return;
            }
            // What the archiver is about to bring is left to it.
            assert!(Instant::now() < deadline, "not healed: {open:#?}\n{}", self.primary.cluster.log_tail());
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
