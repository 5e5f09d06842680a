//! `pgark info`: what the repository has, and where one can go back to.

mod harness;

#[path = "info/large.rs"]
mod large;
#[path = "info/servers.rs"]
mod servers;
#[path = "info/trouble.rs"]
mod trouble;

use harness::*;
use serde_json::Value;

/// What `pgark info --output json` says, which must have its documented shape; and how it ended.
#[track_caller]
fn info(repo: &TestRepo, arguments: &[&str]) -> (Value, Option<i32>) {
    let outcome = run(repo.pgark(&["info", "--output", "json"]).args(arguments));
    let json: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
    let kind = json["format"].as_str().expect("a format").replace("pgark ", "").replace(' ', "-");
    assert_matches_schema(&kind, &json);
    (json, outcome.code)
}

/// The only incarnation of the only cluster, when all can be read.
#[track_caller]
fn incarnation(repo: &TestRepo) -> Value {
    let (json, code) = info(repo, &[]);
    assert_eq!(code, Some(0), "{json:#}");
    assert_eq!(json["clusters"].as_array().map(Vec::len), Some(1));
    let incarnations = json["clusters"][0]["incarnations"].as_array().expect("a list");
    assert_eq!(incarnations.len(), 1, "{json:#}");
    assert_eq!(incarnations[0]["unreadable"], serde_json::json!([]));
    incarnations[0].clone()
}

/// What `pgark info` prints for people.
#[track_caller]
fn text(repo: &TestRepo, arguments: &[&str]) -> String {
    run(repo.pgark(&["info"]).args(arguments)).succeeds()
}

/// One member of every object in a list.
fn each<'a>(list: &'a Value, member: &str) -> Vec<&'a Value> {
    list.as_array().expect("a list").iter().map(|item| &item[member]).collect()
}
