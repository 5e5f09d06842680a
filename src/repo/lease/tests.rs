//! Who gets a lease, who keeps it, and who loses it.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::repo::fixture::{Fixture, name};
use crate::repo::to_json;

fn acquire(fixture: &Fixture, label: &str) -> Result<Lease> {
    Lease::acquire(&fixture.cluster, Purpose::backup(&name(label)), Id::random()?)
}

/// Puts a lease of some other process into the repository. Returns its run.
fn plant(fixture: &Fixture, process: Process, age: Duration) -> Id {
    let (run, object) = (Id::random().expect("id"), Id::random().expect("id"));
    let record = Record {
        version: VERSION,
        kind: LeaseKind::Backup,
        run,
        label: Some(name("theirs")),
        wal: None,
        process,
        started: Timestamp::now(),
        renews: Some(Id::random().expect("id")),
    };
    let key = fixture.cluster.layout().lease(object).expect("key");
    fixture.cluster.store().create(&key, to_json(&record).expect("json")).expect("created");
    set_age(fixture, &key, age);
    run
}

fn set_age(fixture: &Fixture, key: &crate::store::Key, age: Duration) {
    let file = File::options().write(true).open(fixture.file(key)).expect("opened");
    file.set_modified(SystemTime::now() - age).expect("set");
}

fn elsewhere() -> Process {
    Process { boot_id: "another".into(), host: "db2".into(), pid: 77, ..Process::current().expect("current") }
}

fn dead_here() -> Process {
    let here = Process::current().expect("current");
    Process { start_time: here.start_time + 1, ..here }
}

fn leases(fixture: &Fixture) -> usize {
    fixture.objects().iter().filter(|object| object.starts_with("lease/")).count()
}

#[test]
fn one_at_a_time_holds_the_lease_and_the_other_is_told_who() {
    let fixture = Fixture::create();
    let lease = acquire(&fixture, "first").expect("acquired");
    let error = acquire(&fixture, "second").err().expect("refused");
    assert_eq!(error.kind(), Kind::Conflict);
    let process = Process::current().expect("current");
    for part in ["first", &process.host, &process.user, &format!("process {} ", process.pid)] {
        assert!(error.message().contains(part), "{error}: {part}");
    }
    assert_eq!(leases(&fixture), 1, "the second withdrew");
    lease.still_held().expect("held");
    lease.release().expect("released");
    assert_eq!(leases(&fixture), 0);
    drop(acquire(&fixture, "third").expect("acquired"));
    assert_eq!(leases(&fixture), 0, "dropping releases too");
}

#[test]
fn of_many_that_start_together_at_most_one_holds_the_lease_at_any_time() {
    let fixture = Fixture::create();
    let holders = AtomicUsize::new(0);
    let acquired = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| match acquire(&fixture, "racer") {
                Ok(lease) => {
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                    lease.still_held().expect("held");
                    acquired.fetch_add(1, Ordering::SeqCst);
                    holders.fetch_sub(1, Ordering::SeqCst);
                    lease.release().expect("released");
                }
                Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
            });
        }
    });
    assert_eq!(leases(&fixture), 0);
    drop(acquire(&fixture, "later").expect("nothing is left in the way"));
}

#[test]
fn a_dead_process_here_is_stale_at_once_and_one_elsewhere_after_its_time() {
    let nearly = TTL - Duration::from_secs(60);
    let over = TTL + Duration::from_secs(60);
    let ages = Duration::from_secs(24 * 3600);
    for (process, age, stale) in [
        (dead_here(), Duration::ZERO, true),
        (Process::current().expect("current"), ages, false),
        (elsewhere(), nearly, false),
        (elsewhere(), over, true),
    ] {
        let fixture = Fixture::create();
        plant(&fixture, process.clone(), age);
        match acquire(&fixture, "ours") {
            Ok(_lease) => assert!(stale && leases(&fixture) == 1, "{process:?} {age:?}"),
            Err(error) => {
                assert!(!stale && leases(&fixture) == 1, "{process:?} {age:?}: {error}");
                assert!(error.message().contains("theirs"), "{error}");
            }
        }
    }
}

#[test]
fn the_error_says_when_a_lease_elsewhere_lapses() {
    let fixture = Fixture::create();
    plant(&fixture, elsewhere(), Duration::ZERO);
    let error = acquire(&fixture, "ours").err().expect("refused");
    assert!(error.message().contains("process 77") && error.message().contains("db2"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("lapses at 2")), "{error:?}");
}

#[test]
fn a_clock_that_was_set_back_makes_no_lease_stale() {
    let fixture = Fixture::create();
    let run = plant(&fixture, elsewhere(), Duration::ZERO);
    let object = fixture.objects().into_iter().find(|object| object.starts_with("lease/")).expect("lease");
    let path = fixture.file(&fixture.cluster.layout().root().expect("key")).join(object);
    let future = SystemTime::now() + 3 * TTL;
    File::options().write(true).open(path).and_then(|file| file.set_modified(future)).expect("set");
    assert!(acquire(&fixture, "ours").is_err());
    assert_eq!(list(&fixture.cluster).expect("list")[0].record.as_ref().map(|record| record.run), Some(run));
}

#[test]
fn renewing_leaves_an_object_that_a_listing_in_progress_can_see() {
    let fixture = Fixture::create();
    let lease = acquire(&fixture, "ours").expect("acquired");
    let mut before: Vec<String> = fixture.objects();
    for round in 1..5 {
        lease.renew_now().expect("renewed");
        let after = fixture.objects();
        assert_eq!(after.len(), 2, "round {round}");
        assert!(before.iter().any(|object| after.contains(object)), "no listing sees none of them");
        let held = list(&fixture.cluster).expect("list");
        assert_eq!(held.len(), 1, "one run");
        before = after;
    }
    lease.release().expect("released");
    assert_eq!(leases(&fixture), 0);
}

#[test]
fn a_lease_that_somebody_took_for_stale_is_lost_for_good() {
    let fixture = Fixture::create();
    let lease = acquire(&fixture, "ours").expect("acquired");
    for object in list(&fixture.cluster).expect("list").iter().flat_map(|held| &held.objects) {
        fixture.cluster.store().delete(&object.key).expect("deleted");
    }
    assert!(lease.renew_now().is_err_and(|error| error.kind() == Kind::Conflict));
    assert_eq!(leases(&fixture), 0, "a lost lease does not come back");
    assert!(lease.still_held().is_err_and(|error| error.kind() == Kind::Conflict));
    drop(acquire(&fixture, "next").expect("free"));
}

#[test]
fn a_repository_that_is_out_of_reach_does_not_lose_the_lease() {
    let fixture = Fixture::create();
    let lease = acquire(&fixture, "ours").expect("acquired");
    let (here, away) = (fixture.dir.path().to_path_buf(), fixture.dir.path().with_extension("away"));
    std::fs::rename(&here, &away).expect("unmounted");
    assert!(lease.still_held().is_err_and(|error| error.kind() != Kind::Conflict));
    assert!(lease.renew_now().is_err_and(|error| error.kind() != Kind::Conflict));
    std::fs::rename(&away, &here).expect("mounted");
    lease.still_held().expect("still held");
    lease.renew_now().expect("renewed");
}

#[test]
fn a_lease_that_can_not_be_read_is_respected_until_it_lapses() {
    for text in ["{}", "", r#"{"version":2,"kind":"backup"}"#] {
        let fixture = Fixture::create();
        let key = fixture.cluster.layout().lease(Id::random().expect("id")).expect("key");
        fixture.cluster.store().create(&key, text.as_bytes().to_vec()).expect("created");
        let error = acquire(&fixture, "ours").err().expect("refused");
        assert!(error.kind() == Kind::Conflict && error.message().contains(key.as_str()), "{error}");
        set_age(&fixture, &key, TTL + Duration::from_secs(60));
        let lease = acquire(&fixture, "ours").expect("lapsed");
        assert_eq!(leases(&fixture), 1);
        drop(lease);
    }
}

#[test]
fn an_expiry_begins_beside_a_backup_but_a_backup_waits_for_an_expiry() {
    let fixture = Fixture::create();
    let expire = || Lease::acquire(&fixture.cluster, Purpose::expire(), Id::random()?);
    let backup = acquire(&fixture, "first").expect("acquired");
    let expiry = expire().expect("beside a backup");
    drop(backup);
    let error = expire().err().expect("one at a time");
    assert!(error.message().starts_with("an expiry is running already: process "), "{error}");
    let error = acquire(&fixture, "second").err().expect("refused");
    assert!(error.message().starts_with("an expiry is running already: process "), "{error}");
    let mut expiry = Some(expiry);
    let purpose = Purpose::backup(&name("third"));
    let waiting = Lease::acquire_after(&fixture.cluster, purpose, Id::random().expect("id"), |by: &Held| {
        let kind = by.record.as_ref().map(|record| record.kind);
        assert_eq!(kind, Some(LeaseKind::Expire));
        expiry.take().map_or(Ok(false), |expiry| expiry.release().map(|()| true))
    });
    drop(waiting.expect("after it"));
    assert_eq!(leases(&fixture), 0);
}

#[test]
fn restores_are_in_nobodys_way_and_say_what_they_need() {
    let fixture = Fixture::create();
    let first = "000000010000000000000002".parse().expect("a name");
    let wal = NeededWal { first, timeline: Timeline(2) };
    let restore =
        || Lease::acquire(&fixture.cluster, Purpose::restore(&name("one"), wal), Id::random().expect("id"));
    let held = [restore().expect("acquired"), restore().expect("another")];
    drop(acquire(&fixture, "backup").expect("beside them"));
    drop(Lease::acquire(&fixture.cluster, Purpose::expire(), Id::random().expect("id")).expect("beside"));
    let listed = list(&fixture.cluster).expect("listed");
    let needs: Vec<_> = listed.iter().filter_map(|held| held.record.as_ref()?.wal).collect();
    assert_eq!(needs, [wal, wal]);
    drop(held);
    assert_eq!(leases(&fixture), 0);
}

#[test]
fn of_a_backup_and_an_expiry_that_start_together_one_sees_the_other() {
    for _ in 0..30 {
        let fixture = Fixture::create();
        let (backup, expiry) = std::thread::scope(|scope| {
            let backup = scope.spawn(|| acquire(&fixture, "ours"));
            let expire = || {
                let lease = Lease::acquire(&fixture.cluster, Purpose::expire(), Id::random()?)?;
                let seen = list(&fixture.cluster)?.len() > 1;
                Ok::<_, Error>((lease, seen))
            };
            let expiry = scope.spawn(expire);
            (backup.join().expect("joined"), expiry.join().expect("joined").expect("acquired"))
        });
        assert!(backup.is_err() || expiry.1, "neither saw the other");
    }
}
