//! Large segments: memory does not grow with them.

use std::io::{Read, copy};
use std::path::Path;

use crate::harness::*;
use crate::wal::*;

/// What `wal-push` may take besides the compressed segment, whatever the segment's size: its chunks, its
/// code and its libraries' tables. A debug build takes a little more than a release.
const BASE_KIB: u64 = 24 << 10;

fn server_with(name: &str, size: u64, number: u64, fill: impl FnOnce(&mut std::fs::File)) -> ServerDir {
    let server = ServerDir::new();
    let path = server.path().join("pg_wal").join(name);
    synthetic_segment(&path, size, number, fill);
    server
}

fn push_within(repo: &TestRepo, server: &ServerDir, name: &str, limit_kib: u64) {
    let (status, peak) = peak_memory(server.push_command(repo, name));
    assert!(status.success(), "{status}");
    assert!(peak < limit_kib, "wal-push took {peak} KiB");
}

fn fetch_within(repo: &TestRepo, server: &ServerDir, name: &str, limit_kib: u64) {
    let (status, peak) = peak_memory(server.fetch_command(repo, name));
    assert!(status.success(), "{status}");
    assert!(peak < limit_kib, "wal-fetch took {peak} KiB");
    let pg_wal = server.path().join("pg_wal");
    assert!(same(&pg_wal.join(name), &pg_wal.join("RECOVERYXLOG")), "{name} came back changed");
}

fn same(a: &Path, b: &Path) -> bool {
    tool(&["sh", "-c", &format!("cmp '{}' '{}' && echo same", a.display(), b.display())]) == b"same\n"
}

#[test]
fn a_segment_of_one_gib_takes_no_more_memory_than_a_small_one() {
    let repo = TestRepo::init();
    let name = "000000010000000200000001";
    let server = server_with(name, 1 << 30, 9, |_| ());
    push_within(&repo, &server, name, BASE_KIB);
    let header = header(&repo, &repo.only(name));
    assert_eq!((&header["segment_size"], &header["facts"]["switch"]), (&(1 << 30).into(), &true.into()));
    assert!(header["facts"].get("damage").is_none(), "{header}");
    fetch_within(&repo, &server, name, BASE_KIB);
}

#[test]
fn a_segment_that_does_not_compress_goes_by_way_of_a_spool_file() {
    let repo = TestRepo::init();
    let spool = repo.scratch().make_dir("a spool");
    repo.configure(&format!("spool = {:?}", spool.display().to_string()));
    let name = "000000010000000000000003";
    let server = server_with(name, 128 << 20, 3, |file| {
        copy(&mut noise().take(100 << 20), file).expect("write noise");
    });
    push_within(&repo, &server, name, BASE_KIB + (96 << 10));
    assert_eq!(repo.list().len(), 3, "{:?}", repo.list());
    assert_eq!(std::fs::read_dir(&spool).expect("list").count(), 0);
    fetch_within(&repo, &server, name, BASE_KIB);
    run(repo.wal_push(server.path()).arg(format!("pg_wal/{name}"))).succeeds();

    let other = server_with(name, 128 << 20, 3, |file| {
        copy(&mut noise().take((100 << 20) - 1), file).expect("write noise");
    });
    other.push(&repo, name).fails_with(4, "already archived with other content");
    assert_eq!(repo.list().len(), 3, "{:?}", repo.list());
}

#[test]
fn a_missing_spool_directory_is_named() {
    let repo = TestRepo::init();
    repo.configure("spool = \"/nonexistent/spool\"");
    let name = "000000010000000000000003";
    let server = server_with(name, 128 << 20, 3, |file| {
        copy(&mut noise().take(100 << 20), file).expect("write noise");
    });
    server.push(&repo, name).fails_with(6, "write a spool file in /nonexistent/spool");
    assert_eq!(repo.matching(name), Vec::<String>::new());
}
