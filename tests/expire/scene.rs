//! A repository with five backups over changing data, the first of them pinned: made once, copied for each test. The
//! recovery window begins between the fourth and the fifth.

use std::collections::BTreeMap;
use std::io::{PipeReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use crate::harness::*;

pub const LABELS: [&str; 5] = ["one", "two", "three", "four", "five"];
pub const KEPT: [&str; 3] = ["one", "four", "five"];
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone)]
pub struct Facts {
    /// What the tables held as each backup was taken.
    pub content: BTreeMap<&'static str, Content>,
    /// From here on nothing was written for two seconds; what there was then.
    pub quiet: Timestamp,
    pub middle: Content,
    pub end: Content,
}

struct Original {
    repo: TestRepo,
    facts: Facts,
}

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    primary.psql("create table t (a int primary key, filler text)");
    let mut content = BTreeMap::new();
    let (mut quiet, mut middle) = (None, Content::new());
    for (n, label) in LABELS.iter().enumerate() {
        change(&primary, 2 * n);
        content.insert(*label, primary.content());
        backup(&repo, &primary, label);
        change(&primary, 2 * n + 1);
        primary.archive_everything();
        if *label == "four" {
            middle = primary.content();
            quiet = Some(moment(&primary.now()));
            std::thread::sleep(Duration::from_millis(2500));
        }
    }
    primary.psql("create table last as select 1 as a");
    let end = primary.content();
    primary.archive_everything();
    drop(primary);
    run(&mut repo.pgark(&["pin", "one"])).succeeds();
    // So that a second run takes what a killed one left of those that it does not know.
    age(&repo, 2 * DAY);
    let facts = Facts { content, quiet: quiet.expect("it was quiet"), middle, end };
    Original { repo, facts }
});

/// Some megabytes of WAL: rows that come, change and go, and tables.
pub fn change(server: &Cluster, n: usize) {
    let first = n * 2000;
    server.psql(&format!(
        "insert into t select a, repeat(md5(a::text), 8) from generate_series({first}, {first} + 1999) a;
         update t set filler = 'changed {n}' where a % 7 = {n} % 7;
         delete from t where a % 11 = {n} % 11;
         create table t{n} as select * from t where a % 3 = 0;
         drop table if exists t{};",
        n.wrapping_sub(2)
    ));
}

pub fn backup(repo: &TestRepo, server: &Cluster, label: &str) {
    run(repo.basebackup(server).args(["--label", label])).succeeds();
}

pub fn moment(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Makes packs and maps that old, as they are where anything expires.
pub fn age(repo: &TestRepo, age: Duration) {
    for key in repo.matching("/pack/").into_iter().chain(repo.matching("files.jsonl.zst")) {
        let file = std::fs::File::options().write(true).open(repo.path(&key)).expect("open");
        file.set_modified(SystemTime::now() - age).expect("set");
    }
}

pub struct Scene {
    pub repo: TestRepo,
    pub facts: Facts,
    /// The flag's value: the window begins while nothing was written.
    pub window: String,
}

impl Scene {
    pub fn new() -> Self {
        let original = &*ORIGINAL;
        let repo = copy(&original.repo);
        let now = moment(expire(&repo, &["--keep-last", "1", "--dry-run"])["now"].as_str().expect("a time"));
        let since = now.duration_since(original.facts.quiet).as_millis();
        let window = format!("{} seconds", (since - 500) / 1000);
        Self { repo, facts: original.facts.clone(), window }
    }

    pub fn arguments(&self) -> [&str; 2] {
        ["--recovery-window", &self.window]
    }

    pub fn expire(&self) -> Value {
        expire(&self.repo, &self.arguments())
    }

    /// Each kept backup is whole, with the WAL that makes it consistent.
    #[track_caller]
    pub fn expect_kept(&self, what: &str) {
        for label in KEPT {
            let verified = run(&mut self.repo.pgark(&["verify", "--backup", label]));
            assert_eq!(verified.code, Some(0), "{what}: {verified}");
        }
    }
}

pub fn copy(of: &TestRepo) -> TestRepo {
    let repo = TestRepo::not_initialised();
    let copied = Command::new("cp").arg("-a").arg(of.root().join(".")).arg(repo.root()).status();
    assert!(copied.expect("start cp").success(), "copy the repository");
    // What a restore can't fetch once it need not try again.
    repo.configure("[fetch]\nretry = \"0s\"\nhistory_retry = \"0s\"");
    repo
}

/// What `pgark expire` says, which must succeed and have its documented shape.
#[track_caller]
pub fn expire(repo: &TestRepo, arguments: &[&str]) -> Value {
    let said = run(repo.pgark(&["expire", "--output", "json"]).args(arguments)).succeeds();
    let json = serde_json::from_str(&said).expect("JSON");
    assert_matches_schema("expire", &json);
    json
}

/// The only incarnation.
#[track_caller]
pub fn incarnation(json: &Value) -> &Value {
    assert_eq!(json["incarnations"].as_array().map(Vec::len), Some(1), "{json:#}");
    &json["incarnations"][0]
}

/// The labels that the plan keeps, or those that it does not.
pub fn labels(json: &Value, kept: bool) -> Vec<String> {
    let backups = incarnation(json)["backups"].as_array().expect("a list");
    let wanted = backups.iter().filter(|backup| backup["keep"] == kept);
    wanted.map(|backup| backup["label"].as_str().expect("a label").to_owned()).collect()
}

/// What is left to the next run.
pub fn postponed(json: &Value) -> String {
    incarnation(json)["done"]["postponed"].to_string()
}

/// All objects, but not what verifications remember, nor what was never published.
pub fn state(repo: &TestRepo) -> Vec<String> {
    let parts = ["/wal/", "/backup/", "/pack/", "/lease/", "/pin/", "/gap/", "/staging/"];
    repo.list()
        .into_iter()
        .filter(|key| !key.contains('#') && parts.iter().any(|part| key.contains(part)))
        .collect()
}

pub fn headers(repo: &TestRepo) -> Vec<String> {
    let found = repo.matching("/backup.json");
    found.iter().map(|key| key.rsplit('/').nth(1).expect("a label").to_owned()).collect()
}

/// Until a run of another program has its lease.
pub fn wait_for_lease(repo: &TestRepo, kind: &str) {
    wait_for(&format!("the lease of a {kind}"), String::new, || {
        repo.matching("/lease/").iter().filter(|key| !key.contains('#')).any(|key| {
            // It may be gone again, or not be whole yet.
            let text = std::fs::read_to_string(repo.path(key)).unwrap_or_default();
            text.contains(&format!("\"kind\":\"{kind}\"")) || text.contains(&format!("\"kind\": \"{kind}\""))
        })
    });
}

/// An expiry that holds its lease and has planned, and goes on when somebody reads what it prints.
pub fn stopped_expiry(repo: &TestRepo, arguments: &[&str]) -> (Child, PipeReader) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // pipe(7): so much fits in, and the next write waits.
    writer.write_all(&[b'x'; 65_536]).expect("written");
    let mut command = repo.std_program("pgark");
    command.arg("expire").args(arguments).stdout(writer).stderr(Stdio::piped());
    let child = command.spawn().expect("started");
    // proc(5), /proc/pid/syscall: the number of the call that it waits in, and its arguments.
    let printing = format!("{} 0x1 ", libc::SYS_write);
    wait_for("it to print its plan", String::new, || {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", child.id())).expect("a process");
        call.starts_with(&printing)
    });
    (child, reader)
}
