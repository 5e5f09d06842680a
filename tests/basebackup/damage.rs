//! Damaged pages: reported by relation and block, in the header, the result and the exit status.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::harness::*;
use crate::stored;

const BLOCK: u64 = 8192;

/// A primary with a table of some hundred blocks in a database of its own, and the table's file.
fn cluster_with_table(repo: &TestRepo) -> (Cluster, PathBuf) {
    let primary = Cluster::builder().archive_to(repo).start();
    primary.psql("create database shop");
    primary
        .psql_in("shop", "create schema s; create table s.orders as select generate_series(1, 50000) as a");
    let path = primary.psql_in("shop", "select pg_relation_filepath('s.orders')");
    (primary, path.into())
}

/// Overwrites bytes of the stopped server's file.
fn overwrite(primary: &Cluster, path: &PathBuf, offset: u64, bytes: &[u8]) {
    primary.stop(Stop::Fast);
    let file = std::fs::File::options().write(true).open(primary.data_dir().join(path)).expect("open");
    file.write_all_at(bytes, offset).expect("overwritten");
    primary.start();
}

#[test]
fn damaged_pages_are_reported_by_relation_and_block_and_the_backup_stands() {
    let repo = TestRepo::init();
    let (primary, path) = cluster_with_table(&repo);
    overwrite(&primary, &path, 3 * BLOCK + 4000, b"damage");
    // Garbage all over, its LSN included: one that pg_basebackup takes for newer than the backup.
    overwrite(&primary, &path, 7 * BLOCK, &[b'x'; BLOCK as usize]);
    // A page that calls itself new, and is not.
    overwrite(&primary, &path, 9 * BLOCK, &[0; 24]);
    let outcome = run(repo.basebackup(&primary).args(["--label", "x", "--output", "json"]));
    assert_eq!(outcome.code, Some(8), "{outcome}");
    assert!(outcome.stderr.contains("DAMAGED PAGES: 3"), "{outcome}");
    let json: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let pages = &json["damaged_pages"];
    assert_eq!(pages["count"], 3);
    let blocks: Vec<_> =
        pages["first"].as_array().expect("a list").iter().map(|page| &page["block"]).collect();
    assert_eq!(blocks, [3, 7, 9]);
    assert_eq!(pages["first"][0]["path"], path.display().to_string());
    assert_eq!(pages["first"][0]["relation"], "s.orders");

    let backup = stored::read(&repo, "x");
    assert_eq!(backup.header.damaged_pages.count, 3);
    let on_disk = std::fs::read(primary.data_dir().join(&path)).expect("read");
    assert!(backup.files[&path.display().to_string()].1 == on_disk, "the file is copied as it is");
}

#[test]
fn whoever_asks_for_it_gets_no_backup_of_a_damaged_cluster() {
    let repo = TestRepo::init();
    let (primary, path) = cluster_with_table(&repo);
    overwrite(&primary, &path, 3 * BLOCK + 4000, b"damage");
    let outcome = run(repo.basebackup(&primary).arg("--fail-on-damaged-pages"));
    outcome.fails_with(5, "1 pages of the cluster are damaged, the first is block 3 of");
    assert_eq!(repo.matching("/backup/"), Vec::<String>::new());
    assert_eq!(repo.matching("/pack/"), Vec::<String>::new());
}

#[test]
fn without_checksums_nothing_is_claimed() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().checksums(false).archive_to(&repo).start();
    let output = run(repo.basebackup(&primary).args(["--output", "json"])).succeeds();
    let json: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(json["damaged_pages"]["count"], 0);
    assert!(!stored::read(&repo, json["label"].as_str().expect("a label")).header.data_checksums);
}
