//! A healthy cluster with a backup, and checks of it.

use serde_json::Value;

use crate::harness::*;

/// What never depends on the machine that tests run on.
const ANY_DISK: [&str; 4] = ["--warn-free", "0", "--crit-free", "0"];

pub struct Scene {
    pub repo: TestRepo,
    pub server: Cluster,
}

pub fn healthy() -> ClusterBuilder {
    Cluster::builder().wal_segment_mib(1).set("fsync", "on").set("archive_timeout", "60")
}

impl Scene {
    pub fn new() -> Self {
        let repo = TestRepo::init();
        let server = healthy().archive_to(&repo).start();
        server.psql("create table t (a int)");
        run(&mut repo.basebackup(&server)).succeeds();
        Self { repo, server }
    }

    pub fn check(&self, arguments: &[&str]) -> Checked {
        check(&self.repo, &self.server, arguments)
    }

    /// Writes and archives so many segments.
    pub fn write_segments(&self, count: usize) {
        for _ in 0..count {
            self.server.psql("insert into t select generate_series(1, 100)");
            self.server.archive_everything();
        }
    }
}

/// What `pgark check --output json` said.
#[derive(Debug)]
pub struct Checked {
    pub code: Option<i32>,
    pub json: Value,
}

pub fn check(repo: &TestRepo, server: &Cluster, arguments: &[&str]) -> Checked {
    let mut command = repo.pgark(&["check", "--output", "json"]);
    if !arguments.contains(&"--warn-free") {
        command.args(ANY_DISK);
    }
    let outcome = run(command.args(arguments).envs(server.env()));
    let json: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("no JSON: {outcome}"));
    assert_matches_schema("check", &json);
    assert_eq!(json["exit_code"].as_i64().map(|code| code as i32), outcome.code);
    Checked { code: outcome.code, json }
}

impl Checked {
    /// "level check" of all findings that are not well, sorted.
    pub fn trouble(&self) -> Vec<String> {
        let findings = self.json["findings"].as_array().expect("findings");
        let bad = findings.iter().filter(|finding| finding["level"] != "ok");
        let mut trouble: Vec<String> = bad
            .map(|finding| {
                assert!(finding["why"].is_string() && finding["remedy"].is_string(), "{finding}");
                format!(
                    "{} {}",
                    finding["level"].as_str().expect("a level"),
                    finding["check"].as_str().expect("a check")
                )
            })
            .collect();
        trouble.sort();
        trouble
    }

    /// The findings of one check.
    pub fn of(&self, check: &str) -> Vec<Value> {
        let findings = self.json["findings"].as_array().expect("findings");
        findings.iter().filter(|finding| finding["check"] == check).cloned().collect()
    }

    #[track_caller]
    pub fn finds(&self, expected: &[&str]) {
        assert_eq!(self.trouble(), expected, "{:#}", self.json);
    }
}
