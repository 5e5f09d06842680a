//! A repository with two backups, WAL behind each, a promotion and WAL of the new timeline: made once, copied for
//! each test that damages it.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use crate::harness::*;

/// What a server filled.
pub struct Original {
    repo: TestRepo,
    facts: Facts,
}

/// Names of objects in it.
#[derive(Clone)]
pub struct Facts {
    pub system_id: String,
    /// Behind backup one, before backup two.
    pub middle: String,
    /// Behind backup two, on timeline 1.
    pub late: String,
    /// Of timeline 2.
    pub newest: String,
}

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    let fill = |server: &Cluster, name: &str| {
        server.psql(&format!("create table {name} as select generate_series(1, 20000) as a"));
        server.archive_everything()
    };
    fill(&primary, "zero");
    run(repo.basebackup(&primary).args(["--label", "one"])).succeeds();
    let middle = fill(&primary, "first");
    fill(&primary, "second");
    run(repo.basebackup(&primary).args(["--label", "two"])).succeeds();
    let late = fill(&primary, "third");
    fill(&primary, "fourth");
    let standby = primary.standby().restore_from(&repo).start();
    // One that only fetched ends with its last whole segment, and then there is no .partial.
    primary.wait_streaming();
    primary.wait_replayed_by(&standby);
    primary.stop(Stop::Fast);
    standby.promote();
    let newest = fill(&standby, "fifth");
    let system_id = standby.system_identifier();
    drop((primary, standby));
    Original { repo, facts: Facts { system_id, middle, late, newest } }
});

/// A copy of the repository.
pub struct Scene {
    pub repo: TestRepo,
    pub facts: Facts,
}

impl Scene {
    pub fn new() -> Self {
        let original = &*ORIGINAL;
        let repo = TestRepo::not_initialised();
        let from = original.repo.root().join(".");
        let copied = Command::new("cp").arg("-a").arg(from).arg(repo.root()).status().expect("start cp");
        assert!(copied.success(), "copy the repository");
        // What a restore can't fetch once it need not try again.
        repo.configure("[fetch]\nretry = \"0s\"\nhistory_retry = \"0s\"");
        Self { repo, facts: original.facts.clone() }
    }

    /// The one key with all these parts.
    #[track_caller]
    pub fn key(&self, parts: &[&str]) -> String {
        let mut found = self.repo.list();
        found.retain(|key| parts.iter().all(|part| key.contains(part)));
        assert_eq!(found.len(), 1, "{parts:?} in {:#?}", self.repo.list());
        found.remove(0)
    }

    pub fn segment(&self, name: &str) -> String {
        self.key(&[&format!("/{name}.zst")])
    }

    /// The packs of a backup, the largest first.
    pub fn packs(&self, label: &str) -> Vec<String> {
        let header = self.header(label);
        let mut packs: Vec<(u64, String)> = header["packs"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|pack| {
                (pack["size"].as_u64().expect("a size"), pack["id"].as_str().expect("an id").to_owned())
            })
            .collect();
        packs.sort();
        packs.into_iter().rev().map(|(_, id)| self.key(&[&id])).collect()
    }

    pub fn header(&self, label: &str) -> Value {
        let header = self.repo.read(&self.key(&[&format!("/backup/{label}/backup.json")]));
        serde_json::from_slice(&header).expect("JSON")
    }

    /// The segment in which a backup starts.
    pub fn start_of(&self, label: &str) -> String {
        self.header(label)["start"]["redo_segment"].as_str().expect("a name").to_owned()
    }

    pub fn replace(&self, key: &str, content: impl AsRef<[u8]>) {
        self.repo.replace(key, content);
    }

    pub fn verify(&self, arguments: &[&str]) -> Verified {
        verify(&self.repo, arguments)
    }
}

/// What `pgark verify --output json` said.
pub struct Verified {
    pub outcome: Outcome,
    pub json: Value,
}

pub fn verify(repo: &TestRepo, arguments: &[&str]) -> Verified {
    let outcome = run(repo.pgark(&["verify", "--output", "json"]).args(arguments));
    let json = serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null);
    if json != Value::Null {
        assert_matches_schema("verify", &json);
    }
    Verified { outcome, json }
}

impl Verified {
    pub fn system(&self) -> &Value {
        assert_eq!(self.json["systems"].as_array().map(Vec::len), Some(1), "{}", self.outcome);
        &self.json["systems"][0]
    }

    /// What was said of damaged objects: key and sentence.
    pub fn damaged(&self) -> Vec<(String, String)> {
        let first = self.system()["damaged"]["first"].as_array().expect("a list");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        first.iter().map(|object| (text(&object["key"]), text(&object["what"]))).collect()
    }

    /// The labels of backups that do not restore.
    pub fn lost(&self) -> Vec<String> {
        let backups = self.system()["backups"].as_array().expect("a list");
        let lost = backups.iter().filter(|backup| backup["state"] == "lost");
        lost.map(|backup| backup["label"].as_str().expect("a label").to_owned()).collect()
    }

    /// The damaged files of a backup.
    pub fn files(&self, label: &str) -> Vec<String> {
        let backups = self.system()["backups"].as_array().expect("a list");
        let backup = backups.iter().find(|backup| backup["label"] == label).expect("that backup");
        let files = backup["files"]["first"].as_array().expect("a list");
        files.iter().map(|file| file.as_str().expect("a name").to_owned()).collect()
    }

    /// The windows as "timeline backup", `which` being before or after.
    pub fn windows(&self, which: &str) -> Vec<String> {
        let windows = self.system()["windows"][which].as_array().expect("a list");
        let window = |window: &Value| {
            format!("{} {}", window["timeline"], window["backup"].as_str().expect("a label"))
        };
        windows.iter().map(window).collect()
    }

    #[track_caller]
    pub fn is_sound(&self) {
        assert_eq!(self.outcome.code, Some(0), "{}", self.outcome);
        assert_eq!(self.json["verdict"], "sound");
        assert_eq!(self.lost(), Vec::<String>::new());
        assert_eq!(self.damaged(), []);
    }
}
