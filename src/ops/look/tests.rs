//! Looking at what is in a repository, and at nothing else.

use super::list::{Entry, Request, list};
use super::*;
use crate::config::Overrides;
use crate::repo::fixture::Fixture;

fn config(fixture: &Fixture) -> Config {
    let repo = Some(fixture.dir.path().display().to_string());
    Config::resolve(&Overrides { repo, ..Overrides::default() }).expect("a configuration")
}

fn listed(fixture: &Fixture, prefix: Option<&str>, recursive: bool) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let request = Request { prefix: prefix.map(str::to_string), recursive };
    list(&config(fixture), &request, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

#[test]
fn all_keys_are_listed_in_order_and_level_by_level() {
    let fixture = Fixture::create();
    for (key, bytes) in [("main/a.b", 1), ("main/a/x", 2), ("main/a0", 3), ("main/b/c/d", 4)] {
        let key = Key::new(key).expect("a key");
        fixture.cluster.store().create(&key, vec![0; bytes]).expect("created");
    }
    let keys = |prefix, recursive| -> Vec<String> {
        let entries = listed(&fixture, prefix, recursive).expect("listed");
        entries.into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(keys(None, false), ["main/", "pgark.json"]);
    assert_eq!(keys(Some("main"), false), ["main/a/", "main/a.b", "main/a0", "main/b/"]);
    assert_eq!(keys(Some("main/"), true), ["main/a/x", "main/a.b", "main/a0", "main/b/c/d"]);
    assert_eq!(keys(Some("main/b/c/d"), false), ["main/b/c/d"]);
    let sizes: Vec<Option<u64>> =
        listed(&fixture, Some("main"), false).expect("listed").iter().map(|entry| entry.size_bytes).collect();
    assert_eq!(sizes, [None, Some(1), Some(3), None]);
}

#[test]
fn what_is_not_there_and_what_lies_outside_is_refused() {
    let fixture = Fixture::create();
    let outside = fixture.dir.path().parent().expect("a parent").join("outside");
    let cat = |key: &str| cat(&config(&fixture), key, Decoding::Stored, &mut std::io::sink());
    for key in ["../outside", "/etc/passwd", "main/../../outside", "a//b", "", "main/x#1"] {
        assert!(cat(key).is_err_and(|error| error.kind() == Kind::Configuration), "{key}");
        assert!(key.is_empty() || listed(&fixture, Some(key), true).is_err(), "{key}");
    }
    assert!(cat("main/nothing").is_err_and(|error| error.kind() == Kind::NotFound));
    assert!(listed(&fixture, Some("main/nothing"), true).is_err_and(|error| error.kind() == Kind::NotFound));
    std::fs::remove_file(fixture.dir.path().join("pgark.json")).expect("removed");
    assert!(cat("main/nothing").is_err_and(|error| error.kind() == Kind::Configuration));
    assert!(!outside.exists());
}

#[test]
fn a_file_is_whole_or_not_there_and_never_overwritten() {
    let fixture = Fixture::create();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x");
    get(&config(&fixture), "pgark.json", Decoding::Stored, &file).expect("gotten");
    let stored = std::fs::read(fixture.dir.path().join("pgark.json")).expect("read");
    assert_eq!(std::fs::read(&file).expect("read"), stored);
    std::fs::write(&file, "precious").expect("written");
    let again = get(&config(&fixture), "pgark.json", Decoding::Stored, &file);
    assert!(again.is_err_and(|error| error.kind() == Kind::Conflict));
    assert_eq!(std::fs::read(&file).expect("read"), b"precious");
    std::fs::remove_file(&file).expect("removed");
    assert!(get(&config(&fixture), "main/nothing", Decoding::Stored, &file).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
}

#[test]
fn what_is_no_object_can_not_be_decoded() {
    let fixture = Fixture::create();
    for key in [
        "main/notes.txt",
        "main/7/notes",
        "x/000000010000000000000003.zst",
        "main/7/x/000000010000000000000003.zst",
    ] {
        fixture.cluster.store().create(&Key::new(key).expect("a key"), &b"x"[..]).expect("created");
        let outcome = cat(&config(&fixture), key, Decoding::Content, &mut std::io::sink());
        assert!(outcome.is_err_and(|error| error.kind() == Kind::Configuration), "{key}");
    }
}
