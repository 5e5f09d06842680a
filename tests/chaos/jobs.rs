//! Backups, expiries and verifications that run beside everything else, some of them killed; and what they may end
//! with: success, or an error that says so if something was taken from them meanwhile. Never a finding of damage.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dice::say;
use super::stage::Stage;
use crate::harness::*;

/// What is wrong with the host or the repository, nothing found, conflict, input or output, PostgreSQL.
const TROUBLE: [i32; 5] = [2, 3, 4, 6, 7];

struct Job {
    what: String,
    child: Child,
    output: PathBuf,
    begun: Instant,
    kill_after: Option<Duration>,
    /// A server or the repository was taken from it.
    troubled: bool,
}

pub struct Jobs<'a> {
    stage: &'a Stage,
    repo: &'a TestRepo,
    running: Vec<Job>,
    started: usize,
}

impl<'a> Jobs<'a> {
    pub fn new(stage: &'a Stage, repo: &'a TestRepo) -> Self {
        Self { stage, repo, running: Vec::new(), started: 0 }
    }

    pub fn runs(&self, what: &str) -> bool {
        self.running.iter().any(|job| job.what.starts_with(what))
    }

    pub fn start(&mut self, what: &str, mut command: Command, kill_after: Option<Duration>) {
        self.started += 1;
        let output = self.stage.dir.join(format!("job-{}", self.started));
        let file = File::create(&output).expect("a file for what it says");
        command.stdout(file.try_clone().expect("dup")).stderr(file);
        let child = command.spawn().expect("started");
        let kill = kill_after.map_or(String::new(), |after| format!(", to be killed after {after:?}"));
        say("director", &format!("{what}, process {}{kill}", child.id()));
        let begun = Instant::now();
        self.running.push(Job { what: what.to_owned(), child, output, begun, kill_after, troubled: false });
    }

    pub fn trouble(&mut self) {
        self.running.iter_mut().for_each(|job| job.troubled = true);
    }

    /// Kills those whose time has come, and looks how those ended that did.
    pub fn look(&mut self) {
        for mut job in std::mem::take(&mut self.running) {
            if job.kill_after.is_some_and(|after| job.begun.elapsed() > after) {
                job.child.kill().expect("killed");
            }
            match job.child.try_wait().expect("asked for") {
                None => self.running.push(job),
                Some(status) => self.ended(&job, status),
            }
        }
    }

    fn ended(&self, job: &Job, status: std::process::ExitStatus) {
        let said = std::fs::read_to_string(&job.output).expect("what it said");
        let how = match status.code() {
            Some(0) => "done",
            None if job.kill_after.is_some() && status.signal() == Some(9) => "killed",
            Some(code) if job.troubled && TROUBLE.contains(&code) => "in vain",
            _ => panic!("{}: {status}, troubled: {}\n{said}", job.what, job.troubled),
        };
        if how == "in vain" {
            let cause = said.lines().find(|line| line.contains("could not")).unwrap_or_default();
            say("director", &format!("{} ended with {status}: {cause}", job.what));
        }
        self.stage.count(&format!("{} {how}", job.what));
    }

    pub fn finish(&mut self) {
        wait_for(
            "the jobs to end",
            || "see above".to_owned(),
            || {
                self.look();
                self.running.is_empty()
            },
        );
    }

    /// Nothing is damaged and every backup restores. WAL may be missing at the end of a timeline that was left: its
    /// primary died before it had archived all, several segments at a time. On the living one, only for a moment.
    pub fn verify(&self, timeline: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = run(&mut self.repo.pgark(&["verify", "--deep", "--output", "json"]));
            if said.code == Some(0) {
                break;
            }
            assert_eq!(said.code, Some(5), "{said}");
            let json: Value = serde_json::from_str(&said.stdout).expect("JSON");
            let mut waits = false;
            for system in json["systems"].as_array().expect("a list") {
                assert_eq!(system["damaged"]["count"], 0, "{json:#}");
                let backups = system["backups"].as_array().expect("a list");
                assert!(backups.iter().all(|backup| backup["state"] == "restores"), "{json:#}");
                let holes = system["holes"]["first"].as_array().expect("a list");
                waits |= holes.iter().any(|hole| hole["timeline"] == timeline && hole["retention"] == false);
            }
            if !waits {
                self.stage.count("verifications that found holes in timelines that were left");
                break;
            }
            assert!(Instant::now() < deadline, "the hole stays: {json:#}");
            std::thread::sleep(Duration::from_millis(500));
        }
        self.stage.count("verifications");
    }
}
