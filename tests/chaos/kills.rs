//! What goes wrong for a while: processes are killed, the repository is away; and what is done beside.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::dice::say;
use super::world::World;
use crate::harness::*;

impl World<'_> {
    /// The postmaster alone, or with all that it started.
    pub fn kill_server(&mut self, everything: bool) {
        self.jobs.trouble();
        if everything {
            self.primary.cluster.crash();
        } else {
            self.primary.cluster.kill_postmaster();
        }
        self.stage.count(if everything {
            "primaries killed with all children"
        } else {
            "postmasters killed"
        });
        self.dice.pause(0..=500);
        self.primary.cluster.start();
        self.start_load();
    }

    pub fn kill_standby(&mut self) {
        self.jobs.trouble();
        if self.living_standby().is_none() {
            return;
        }
        let standby = self.standby.as_ref().expect("it lives");
        standby.cluster.crash();
        self.dice.pause(0..=1500);
        standby.cluster.start();
        self.stage.count("standbys killed");
    }

    /// Any process of the primary's: PostgreSQL ends all others and recovers.
    pub fn kill_backend(&mut self) {
        self.jobs.trouble();
        let cluster = &self.primary.cluster;
        let checkpointer = "select pid from pg_stat_activity where backend_type = 'checkpointer'";
        let before = cluster.psql(checkpointer);
        let mut children = children(&cluster.data_dir(), "postgres");
        children.retain(|pid| *pid != cluster.pid());
        let Some(pid) = self.dice.pick(&children).copied() else { return };
        say("director", &format!("kills {}", title(pid)));
        kill(pid);
        // A process that had just left by itself is no loss to anybody.
        let until = Instant::now() + Duration::from_secs(3);
        let restarted =
            format!("select pid <> {before} from pg_stat_activity where backend_type = 'checkpointer'");
        cluster.wait_for("another checkpointer", || {
            cluster.try_psql(&restarted).is_ok_and(|answer| answer == "t") || Instant::now() > until
        });
        cluster.wait_sql("select 1", "1");
        self.stage.count("server processes killed");
        self.start_load();
    }

    /// Each wal-push for a while, after some milliseconds of its life.
    pub fn kill_pushes(&mut self) {
        let until = Instant::now() + Duration::from_millis(self.dice.within(500..=2500));
        while Instant::now() < until {
            let milliseconds = self.dice.within(1..=25);
            self.repo.scratch().write("fuse", format!("0.{milliseconds:03}"));
            self.primary.cluster.switch_wal();
            self.dice.pause(50..=250);
        }
        self.repo.scratch().write("fuse", "0");
        say("director", &format!("so far {} wal-push were killed", pushes_killed(self.repo)));
    }

    /// Commits that wait for it go on waiting.
    pub fn kill_receiver(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            receiver.kill();
            self.stage.count("wal-receive killed");
        }
        self.dice.pause(0..=600);
        self.start_receiver();
    }

    /// Nothing may come into being where it was: a repository that is not there is no empty one.
    pub fn take_repository_away(&mut self) {
        self.jobs.trouble();
        self.stage.absences.fetch_add(1, Ordering::SeqCst);
        let root = self.repo.root();
        let aside = self.repo.scratch().join("aside");
        fs::rename(root, &aside).expect("taken away");
        let milliseconds = self.dice.within(300..=4000);
        self.pass(milliseconds);
        assert!(!root.exists(), "something was made where the repository was: {:?}", listing(root));
        fs::rename(&aside, root).expect("put back");
        self.stage.absences.fetch_add(1, Ordering::SeqCst);
        self.stage.count("times that the repository was away");
    }

    pub fn start_backup(&mut self) {
        if self.jobs.runs("backup") {
            return;
        }
        let standby = if self.dice.chance(40) { self.living_standby() } else { None };
        let (from, env) = match standby {
            Some(standby) => ("the standby", standby.cluster.env()),
            None => ("the primary", self.primary.cluster.env()),
        };
        let mut command = self.repo.std_program("basebackup");
        command.envs(env);
        if self.dice.chance(50) {
            command.args(["--rate-limit", "20MB"]);
        }
        let kill_after = self.dice.chance(35).then(|| Duration::from_millis(self.dice.within(50..=3000)));
        self.jobs.start(&format!("backup of {from}"), command, kill_after);
    }

    pub fn start_expiry(&mut self) {
        if self.jobs.runs("expire") {
            return;
        }
        let mut command = self.repo.std_program("pgark");
        let kept = self.dice.within(2..=3).to_string();
        command.args(["expire", "--keep-last", &kept]);
        let kill_after = self.dice.chance(30).then(|| Duration::from_millis(self.dice.within(2..=80)));
        self.jobs.start("expire", command, kill_after);
    }

    pub fn switch_and_checkpoint(&mut self) {
        self.primary.cluster.switch_wal();
        self.primary.cluster.psql("checkpoint");
    }
}

pub fn pushes_killed(repo: &TestRepo) -> usize {
    fs::read_to_string(repo.scratch().join("killed")).unwrap_or_default().lines().count()
}

/// The processes of that name that work in the data directory.
pub fn children(directory: &Path, name: &str) -> Vec<i32> {
    let mut found = processes_inside(directory);
    found.retain(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name));
    found
}

/// What ps shows of it.
pub fn title(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

pub fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}
