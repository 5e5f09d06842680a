//! Disks that are full for a while, under servers that archive: the server goes on, says what is wrong, and archives
//! everything once there is room.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use harness::*;

/// Takes all the room of a disk.
fn fill(disk: &SmallDisk) -> PathBuf {
    let hog = disk.path().join("hog");
    let full = fs::write(&hog, vec![1; 128 << 20]).expect_err("the disk is full");
    assert_eq!(full.raw_os_error(), Some(28), "{full}");
    hog
}

/// The whole segments in pg_wal up to one of them.
fn segments(server: &Cluster, last: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(server.data_dir().join("pg_wal")).expect("list").map(|it| it.expect("entry"));
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    let wanted = named.filter(|(name, _)| name.len() == 24 && name.as_str() <= last);
    wanted.map(|(name, path)| (name, fs::read(path).expect("read"))).collect()
}

#[track_caller]
fn assert_archived(repo: &TestRepo, segments: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in segments {
        let key = repo.only(&format!("/{name}.zst"));
        let stored = zstd::decode_all(&repo.read(&key)[..]).expect("zstd");
        assert!(stored == *bytes, "{name} is not what was archived");
    }
}

/// Writes segments, which a server whose archive is full must go on to do.
fn write(server: &Cluster, count: usize) {
    server.psql("create table if not exists t (i int, filler text)");
    for _ in 0..count {
        server.psql("insert into t select i, md5(i::text) from generate_series(1, 3000) i");
        server.switch_wal();
    }
}

#[test]
fn a_server_goes_on_while_its_repository_is_full_and_then_catches_up() {
    let Some(disk) = SmallDisk::mount(64 << 20) else { return };
    let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
    run(&mut repo.pgark(&["init"])).succeeds();
    let builder = Cluster::builder().wal_segment_mib(1).set("wal_keep_size", "1GB");
    let server = builder.archive_to(&repo).start();
    run(repo.basebackup(&server).args(["--label", "before"])).succeeds();
    let hog = fill(&disk);
    write(&server, 8);
    server.wait_for_log("No space left on device");
    server.wait_for_log("hint: free some space on that file system");
    assert_eq!(server.psql("select count(*) from t"), "24000");
    // The disk's other users, too, are told.
    let said = run(repo.basebackup(&server).args(["--wal-timeout", "5s"]));
    assert!([Some(6), Some(7)].contains(&said.code), "{said}");
    assert!(said.stderr.contains("No space left on device") || said.stderr.contains("archive"), "{said}");
    fs::remove_file(hog).expect("room");
    let last = server.archive_everything();
    assert_archived(&repo, &segments(&server, &last));
    let verified = run(&mut repo.pgark(&["verify"]));
    assert_eq!(verified.code, Some(0), "{verified}");
    run(repo.basebackup(&server).args(["--label", "after"])).succeeds();
    let scratch = Scratch::new();
    let restored = repo.restore(&scratch, "data", &["--backup", "before"]);
    assert_eq!(restored.psql("select count(*) from t"), "24000");
}

#[test]
fn an_expiry_on_a_full_disk_deletes_nothing_until_it_has_room_for_its_lease() {
    let Some(disk) = SmallDisk::mount(64 << 20) else { return };
    let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
    run(&mut repo.pgark(&["init"])).succeeds();
    let server = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    for label in ["one", "two"] {
        run(repo.basebackup(&server).args(["--label", label])).succeeds();
    }
    server.archive_everything();
    drop(server);
    let hog = fill(&disk);
    let before = repo.list();
    let expire = || run(&mut repo.pgark(&["expire", "--keep-last", "1"]));
    expire().fails_with(6, "hint: free some space on that file system");
    assert_eq!(repo.list(), before);
    let size = fs::metadata(&hog).expect("stat").len();
    let file = fs::File::options().write(true).open(&hog).expect("open");
    file.set_len(size - (256 << 10)).expect("a little room");
    expire().succeeds();
    assert!(!repo.list().iter().any(|key| key.contains("/backup/one/")), "{:#?}", repo.list());
    let verified = run(&mut repo.pgark(&["verify"]));
    assert_eq!(verified.code, Some(0), "{verified}");
}

#[test]
fn a_server_archives_though_the_spool_of_its_pushes_is_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount(1 << 20) else { return };
    let repo = TestRepo::init();
    repo.configure(&format!("spool = {:?}", disk.path()));
    let hog = fill(&disk);
    let builder = Cluster::builder().wal_segment_mib(1).set("wal_keep_size", "1GB");
    let server = builder.archive_to(&repo).start();
    write(&server, 6);
    let last = server.archive_everything();
    assert_archived(&repo, &segments(&server, &last));
    fs::remove_file(hog).expect("room");
    write(&server, 6);
    let last = server.archive_everything();
    assert_archived(&repo, &segments(&server, &last));
}

/// A server that could not archive for a while, and its `wal-push` of the first segment that waits.
fn backlog() -> (Cluster, Vec<String>) {
    let builder = Cluster::builder().wal_segment_mib(1).set("archive_mode", "on");
    let server = builder.set("archive_command", "false").start();
    write(&server, 4);
    let status = fs::read_dir(server.data_dir().join("pg_wal/archive_status")).expect("list");
    let names = status.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
    names.sort();
    (server, names)
}

fn push(repo: &TestRepo, server: &Cluster, name: &str, fault: Fault, spool: &Path) -> (Outcome, Vec<Call>) {
    let mut push = repo.std_program("wal-push");
    push.current_dir(server.data_dir()).arg(format!("pg_wal/{name}"));
    run_with_fault(push, fault.under(spool))
}

#[test]
fn a_push_whose_spool_fails_at_any_change_archives_all_the_same() {
    let (server, names) = backlog();
    let spool = server.data_dir().join("pg_wal/pgark.spool");
    let fresh = || {
        if spool.exists() {
            fs::remove_dir_all(&spool).expect("removed");
        }
        TestRepo::init()
    };
    let (outcome, calls) = push(&fresh(), &server, &names[0], Fault::none(), &spool);
    outcome.succeeds();
    assert!(calls.len() > 3, "{calls:#?}");
    for n in 1..=calls.len() {
        for fault in [
            Fault::fail_at(n, Errno::IO),
            Fault::fail_from(n, Errno::IO),
            Fault::fail_from(n, Errno::NOSPC),
            Fault::kill_at(n),
        ] {
            let repo = fresh();
            let (outcome, _) = push(&repo, &server, &names[0], fault, &spool);
            assert!([Some(0), None].contains(&outcome.code), "{:?}: {outcome}", calls[n - 1]);
            for name in &names {
                push(&repo, &server, name, Fault::none(), &spool).0.succeeds();
            }
            let pg_wal = server.data_dir().join("pg_wal");
            let expected =
                names.iter().map(|name| (name.clone(), fs::read(pg_wal.join(name)).expect("read")));
            assert_archived(&repo, &expected.collect());
        }
    }
}
