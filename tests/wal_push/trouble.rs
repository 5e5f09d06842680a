//! A repository that is not there, not writable, or full: a clear error, nothing half-visible, and all is well
//! once it is back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::*;
use crate::wal::*;

fn a_segment() -> (&'static str, ServerDir) {
    let name = wal().segments(1)[1];
    (name, ServerDir::with(&[name]))
}

#[track_caller]
fn fails(server: &ServerDir, repo: &TestRepo, name: &str, message: &str) -> String {
    let outcome = server.push(repo, name);
    assert!(outcome.code.is_some_and(|code| (2..=125).contains(&code)), "{outcome}");
    assert!(outcome.stderr.contains(message), "should say {message:?}: {outcome}");
    outcome.stderr
}

#[track_caller]
fn works_again(server: &ServerDir, repo: &TestRepo, name: &str) {
    server.push(repo, name).succeeds();
    assert!(unzstd(repo, &repo.only(&format!("{name}.zst"))) == wal().file(name));
    assert_eq!(repo.matching("#"), Vec::<String>::new());
}

#[test]
fn an_unmounted_disk_is_no_empty_repository() {
    let Some(mut disk) = SmallDisk::mount(16 << 20) else { return };
    let repo = TestRepo::at(Scratch::new(), disk.path());
    run(&mut repo.pgark(&["init"])).succeeds();
    let (name, server) = a_segment();
    server.push(&repo, name).succeeds();
    disk.unmount();
    let message = fails(&server, &repo, name, "no repository here");
    assert!(message.contains("hint: `pgark init` creates one; or is the disk not mounted?"), "{message}");
    assert_eq!(fs::read_dir(disk.path()).expect("list").count(), 0, "something was written below the mount");
}

#[test]
fn a_missing_repository_is_named_and_never_created() {
    let repo = TestRepo::init();
    let (name, server) = a_segment();
    let elsewhere = repo.scratch().join("elsewhere");
    fs::rename(repo.root(), &elsewhere).expect("renamed");
    let message = fails(&server, &repo, name, "no repository here");
    assert!(message.contains(&repo.root().display().to_string()), "{message}");
    assert!(!repo.root().exists());
    fs::write(repo.root(), "a file").expect("written");
    fails(&server, &repo, name, "no repository here");
    fs::remove_file(repo.root()).expect("removed");
    fs::rename(&elsewhere, repo.root()).expect("renamed");
    works_again(&server, &repo, name);
}

#[test]
fn another_repository_than_the_pinned_one_is_refused() {
    let repo = TestRepo::init();
    let other = TestRepo::init();
    let id = run(&mut other.pgark(&["init"])).succeeds();
    repo.configure(&format!("repo_id = {:?}", id.trim()));
    let (name, server) = a_segment();
    fails(&server, &repo, name, "but the configuration pins");
    assert_eq!(repo.list(), ["pgark.json"]);
}

#[test]
fn an_unwritable_repository_is_named() {
    let repo = TestRepo::init();
    let (name, server) = a_segment();
    fs::set_permissions(repo.root(), fs::Permissions::from_mode(0o500)).expect("chmod");
    let message = fails(&server, &repo, name, "Permission denied");
    assert!(message.contains(&repo.root().display().to_string()), "{message}");
    assert!(message.contains("hint: run this as the operating system user that owns it"), "{message}");
    assert_eq!(repo.list(), ["pgark.json"]);
    fs::set_permissions(repo.root(), fs::Permissions::from_mode(0o700)).expect("chmod");
    works_again(&server, &repo, name);
}

#[test]
fn a_read_only_disk_is_named() {
    let repo = TestRepo::init();
    let (name, server) = a_segment();
    {
        let Some(_guard) = ReadOnly::mount(repo.root()) else { return };
        let message = fails(&server, &repo, name, "Read-only file system");
        assert!(message.contains("hint: mount that file system read-write"), "{message}");
        assert_eq!(repo.list(), ["pgark.json"]);
    }
    works_again(&server, &repo, name);
}

#[test]
fn a_full_disk_keeps_nothing_half_written() {
    let Some(disk) = SmallDisk::mount(1 << 20) else { return };
    let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
    run(&mut repo.pgark(&["init"])).succeeds();
    let (name, server) = a_segment();
    // Until less is left than a stored segment takes, but enough for cluster.json.
    let hog = disk.path().join("hog");
    fs::write(&hog, vec![1; (1 << 20) - (32 << 10)]).expect("fill the disk");
    let message = fails(&server, &repo, name, "No space left on device");
    assert!(message.contains("hint: free some space on that file system"), "{message}");
    assert_eq!(repo.matching(name), Vec::<String>::new());
    fs::write(&hog, "").expect("make room");
    works_again(&server, &repo, name);
}

#[test]
fn a_disk_without_any_room_is_as_good_as_a_full_one() {
    let Some(disk) = SmallDisk::mount(64 << 10) else { return };
    let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
    run(&mut repo.pgark(&["init"])).succeeds();
    let hog = disk.path().join("hog");
    let mut size = 60 << 10;
    while fs::write(&hog, vec![1; size]).is_err() {
        size -= 4096;
    }
    let (name, server) = a_segment();
    fails(&server, &repo, name, "could not ");
    assert_eq!(repo.matching("wal/"), Vec::<String>::new());
}

#[test]
fn a_stored_segment_that_is_damaged_is_not_taken_for_the_same() {
    for damage in
        [Damage::FlipByte(100), Damage::FlipByte(20_000), Damage::Truncate(9000), Damage::Truncate(10)]
    {
        let repo = TestRepo::init();
        let (name, server) = a_segment();
        server.push(&repo, name).succeeds();
        let key = repo.only(name);
        repo.damage(&key, damage);
        let message = fails(&server, &repo, name, &key);
        assert!(message.contains("hint: move the damaged object out of the repository"), "{message}");
        fs::rename(repo.path(&key), repo.scratch().join("damaged")).expect("moved away");
        works_again(&server, &repo, name);
    }
}

#[test]
fn a_host_without_threads_to_spare_is_slow_but_archives() {
    let repo = TestRepo::init();
    let name = wal().segments(1)[1];
    let server = ServerDir::with(&[name]);
    let mut limited = command("/bin/bash");
    limited.args(["-c", "ulimit -u 1 && exec \"$0\" -vv \"$@\""]).arg(program_path("wal-push"));
    limited.arg(format!("pg_wal/{name}")).current_dir(server.path()).env("PGARK_CONFIG", repo.config());
    let output = limited.output().expect("run the shell");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("could not start another thread"), "{log}");
    works_again(&server, &repo, name);
}

#[test]
fn who_holds_the_lock_for_too_long_is_named() {
    let repo = TestRepo::init();
    repo.configure("[push]\nlock_wait = \"0s\"");
    let (name, server) = a_segment();
    let directory = repo.root().join("main").join(&wal().system_id).join("lock");
    let made = command("/bin/mkdir").arg("-p").arg(&directory).status();
    assert!(made.expect("run mkdir").success());
    let file = fs::File::open(repo.scratch().write(directory.join(name), "")).expect("opened");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    fails(&server, &repo, name, "could not lock");
    drop(file);
    works_again(&server, &repo, name);
}
