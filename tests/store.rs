//! What every store promises (see `pgark::store`), tried on each store that there is: today a directory. A new store
//! adds a line to `every_store!`.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pgark::error::Kind;
use pgark::location::Location;
use pgark::store::{Created, Key, Level, Store};
use std::io::Read;

/// A store of its own for one test, empty.
struct Fresh {
    store: Store,
    /// Of a local store.
    dir: tempfile::TempDir,
}

fn local() -> Fresh {
    let dir = tempfile::tempdir().expect("tempdir");
    let location = Location::parse(&dir.path().display().to_string()).expect("location");
    Fresh { store: Store::open(&location).expect("opened"), dir }
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn names(keys: impl IntoIterator<Item = Key>) -> Vec<String> {
    keys.into_iter().map(|key| key.to_string()).collect()
}

/// Each promise becomes a test of each store.
macro_rules! every_store {
    ($($promise:ident),* $(,)?) => {
        mod local_directory {
            $(#[test] fn $promise() { super::$promise(&super::local().store); })*
        }
    };
}

every_store!(
    an_object_is_created_once,
    of_sixteen_creators_one_wins_and_nobody_sees_half_an_object,
    a_missing_object_is_not_found_and_nothing_else_is,
    ranges_are_exact_and_an_object_that_ends_early_is_corrupt,
    listings_show_one_level_or_all,
    an_object_is_deleted_once,
    many_objects_are_deleted_at_once_and_what_stays_can_be_listed,
    an_upload_shows_nothing_before_it_is_finished,
    a_dropped_upload_leaves_nothing,
    a_promoted_object_has_its_new_name_only,
    promoting_never_replaces,
    large_objects_come_back,
    a_lock_is_held_by_one,
    the_size_and_age_of_an_object_are_known,
);

fn an_object_is_created_once(store: &Store) {
    let key = key("a/b/c");
    assert_eq!(store.create(&key, &b"first"[..]), Ok(Created::New));
    assert_eq!(store.create(&key, &b"second"[..]), Ok(Created::AlreadyThere));
    assert_eq!(store.create(&key, &b"first"[..]), Ok(Created::AlreadyThere));
    assert_eq!(store.get(&key), Ok(Bytes::from_static(b"first")));
    assert_eq!(store.settle(&key), Ok(()));
    assert_eq!(store.create(&self::key("a/b/empty"), Bytes::new()), Ok(Created::New));
    assert_eq!(store.get(&self::key("a/b/empty")), Ok(Bytes::new()));
}

fn of_sixteen_creators_one_wins_and_nobody_sees_half_an_object(store: &Store) {
    const SIZE: usize = 300_000;
    let key = key("race/object");
    let start = Barrier::new(17);
    let created: Vec<Created> = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..16_u8)
            .map(|n| {
                let (start, key) = (&start, &key);
                scope.spawn(move || {
                    let content = vec![n; SIZE];
                    start.wait();
                    store.create(key, content).expect("created or not")
                })
            })
            .collect();
        start.wait();
        // Whoever looks meanwhile finds nothing, or all of one.
        while !creators.iter().all(|creator| creator.is_finished()) {
            if let Ok(seen) = store.get(&key) {
                assert_eq!(seen.len(), SIZE);
                assert!(seen.iter().all(|byte| *byte == seen[0]));
            }
        }
        creators.into_iter().map(|creator| creator.join().expect("joined")).collect()
    });
    let winners: Vec<usize> = (0..16).filter(|n| created[*n] == Created::New).collect();
    assert_eq!(winners.len(), 1);
    assert!(store.get(&key).expect("there").iter().all(|byte| usize::from(*byte) == winners[0]));
}

fn a_missing_object_is_not_found_and_nothing_else_is(store: &Store) {
    store.create(&key("a/b"), &b"x"[..]).expect("created");
    for missing in ["nothing", "a/c", "b/b", "a"] {
        let missing = key(missing);
        assert_eq!(store.get(&missing).map_err(|error| error.kind()), Err(Kind::NotFound));
        assert_eq!(store.head(&missing).map_err(|error| error.kind()), Err(Kind::NotFound));
        assert_eq!(store.reader(&missing).map(drop).map_err(|error| error.kind()), Err(Kind::NotFound));
        assert_eq!(store.get_range(&missing, 0..1).map_err(|error| error.kind()), Err(Kind::NotFound));
        assert_eq!(store.exists(&missing), Ok(false));
        let message = store.get(&missing).expect_err("missing").message().to_string();
        assert!(message.starts_with("could not read ") && message.contains(missing.as_str()), "{message}");
    }
    assert_eq!(store.exists(&key("a/b")), Ok(true));
}

fn ranges_are_exact_and_an_object_that_ends_early_is_corrupt(store: &Store) {
    let key = key("object");
    store.create(&key, &b"0123456789"[..]).expect("created");
    assert_eq!(store.get_range(&key, 2..5), Ok(Bytes::from_static(b"234")));
    assert_eq!(store.get_range(&key, 0..10), Ok(Bytes::from_static(b"0123456789")));
    for beyond in [5..11, 9..100] {
        let error = store.get_range(&key, beyond).expect_err("it ends before");
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    }
    assert!(store.get_range(&key, 10..20).is_err());
}

fn listings_show_one_level_or_all(store: &Store) {
    for text in ["p/2", "p/1", "p/q/3", "p/q/r/4", "other/5"] {
        store.create(&key(text), text.as_bytes().to_vec()).expect("created");
    }
    let level = store.level(&key("p")).expect("listed");
    assert_eq!(names(level.objects.iter().map(|meta| meta.key.clone())), ["p/1", "p/2"]);
    assert_eq!(names(level.prefixes), ["p/q"]);
    assert_eq!(store.level(&key("nothing")), Ok(Level::default()));
    // A prefix is a whole part of a key.
    assert_eq!(store.level(&key("oth")), Ok(Level::default()));
    let walked: BTreeSet<String> = store
        .walk(&key("p"))
        .map(|meta| {
            let meta = meta.expect("walked");
            assert_eq!(meta.size, meta.key.as_str().len() as u64);
            meta.key.to_string()
        })
        .collect();
    assert_eq!(walked.into_iter().collect::<Vec<_>>(), ["p/1", "p/2", "p/q/3", "p/q/r/4"]);
    assert_eq!(store.walk(&key("nothing")).count(), 0);
}

fn an_object_is_deleted_once(store: &Store) {
    let key = key("a/b");
    store.create(&key, &b"x"[..]).expect("created");
    assert_eq!(store.delete(&key), Ok(true));
    assert_eq!(store.delete(&key), Ok(false));
    assert_eq!(store.exists(&key), Ok(false));
    assert_eq!(store.create(&key, &b"y"[..]), Ok(Created::New));
}

fn many_objects_are_deleted_at_once_and_what_stays_can_be_listed(store: &Store) {
    let keys: Vec<Key> = ["x/a/1", "x/a/2", "x/b/1", "x/c"].map(key).to_vec();
    for key in &keys {
        store.create(key, &b"x"[..]).expect("created");
    }
    assert_eq!(store.delete_durably(&keys[..3]), Ok(3));
    assert_eq!(store.delete_durably(&keys), Ok(1), "those that are gone are no error");
    assert_eq!(store.delete_durably([&key("never/was/there")]), Ok(0));
    store.create(&key("x/a/3"), &b"x"[..]).expect("created");
    for prefix in ["x/a", "x/b", "x/b", "never"] {
        store.forget_empty(&key(prefix)).expect("forgotten");
    }
    let Level { prefixes, objects } = store.level(&key("x")).expect("listed");
    assert_eq!((names(prefixes), objects.len()), (vec!["x/a".to_string()], 0), "what is not empty stays");
    assert_eq!(store.create(&key("x/b/1"), &b"y"[..]), Ok(Created::New));
}

fn an_upload_shows_nothing_before_it_is_finished(store: &Store) {
    let key = key("up/load");
    let mut upload = store.upload(&key).expect("started");
    for part in 0..3_u8 {
        upload.write(Bytes::from(vec![part; 5 << 20])).expect("written");
        assert_eq!(store.exists(&key), Ok(false));
        assert_eq!(store.level(&self::key("up")).map(|level| level.objects.len()), Ok(0));
    }
    upload.write(Bytes::from_static(b"the end")).expect("written");
    upload.finish().expect("finished");
    let content = store.get(&key).expect("there");
    assert_eq!(content.len(), (15 << 20) + 7);
    assert_eq!((content[0], content[5 << 20], &content[15 << 20..]), (0, 1, &b"the end"[..]));
}

fn a_dropped_upload_leaves_nothing(store: &Store) {
    let mut upload = store.upload(&key("up/load")).expect("started");
    upload.write(Bytes::from_static(b"half")).expect("written");
    drop(upload);
    assert_eq!(store.exists(&key("up/load")), Ok(false));
    assert_eq!(store.walk(&key("up")).count(), 0);
}

fn a_promoted_object_has_its_new_name_only(store: &Store) {
    let (from, to) = (key("staging/x"), key("a/b/final"));
    store.create(&from, &b"content"[..]).expect("created");
    assert_eq!(store.promote(&from, &to), Ok(Created::New));
    assert_eq!(store.get(&to), Ok(Bytes::from_static(b"content")));
    assert_eq!(store.exists(&from), Ok(false));
    let error = store.promote(&from, &key("a/b/other")).expect_err("nothing to promote");
    assert_eq!(error.kind(), Kind::NotFound);
}

fn promoting_never_replaces(store: &Store) {
    let (from, to) = (key("staging/x"), key("a/b/final"));
    store.create(&to, &b"first"[..]).expect("created");
    store.create(&from, &b"second"[..]).expect("created");
    assert_eq!(store.promote(&from, &to), Ok(Created::AlreadyThere));
    assert_eq!(store.get(&to), Ok(Bytes::from_static(b"first")));
    assert_eq!(store.exists(&from), Ok(false));
}

fn large_objects_come_back(store: &Store) {
    let key = key("large");
    let content: Vec<u8> = (0..9_000_000_u32).map(|n| (n / 7) as u8).collect();
    let parts = [Bytes::copy_from_slice(&content[..1000]), Bytes::copy_from_slice(&content[1000..])];
    let payload: object_store::PutPayload = parts.into_iter().collect();
    assert_eq!(store.create(&key, payload), Ok(Created::New));
    let mut reader = store.reader(&key).expect("opened");
    assert_eq!(reader.size, content.len() as u64);
    let mut back = Vec::new();
    reader.read_to_end(&mut back).expect("read");
    assert!(back == content);
}

fn a_lock_is_held_by_one(store: &Store) {
    let (one, other) = (key("lock/one"), key("lock/other"));
    let held = store.lock(&one, Duration::ZERO).expect("free");
    assert_eq!(
        store.lock(&one, Duration::ZERO).map(drop).map_err(|error| error.kind()),
        Err(Kind::Transient)
    );
    let _unrelated = store.lock(&other, Duration::ZERO).expect("free");
    drop(held);
    drop(store.lock(&one, Duration::ZERO).expect("free again"));
}

fn the_size_and_age_of_an_object_are_known(store: &Store) {
    store.create(&key("old"), &b"12345"[..]).expect("created");
    store.create(&key("new"), &b""[..]).expect("created");
    let (old, new) = (store.head(&key("old")).expect("there"), store.head(&key("new")).expect("there"));
    assert_eq!((old.size, new.size), (5, 0));
    assert!(old.modified <= new.modified);
}

#[test]
fn a_local_store_needs_its_directory_and_does_not_make_it() {
    let Fresh { store, dir } = local();
    let location = Location::parse(&dir.path().display().to_string()).expect("location");
    let path = dir.path().to_path_buf();
    dir.close().expect("removed");
    for error in [
        Store::open(&location).map(drop).expect_err("not there"),
        store.create(&key("a/b"), &b"x"[..]).map(drop).expect_err("not there"),
        store.lock(&key("lock/x"), Duration::ZERO).map(drop).expect_err("not there"),
        store.upload(&key("x")).map(drop).expect_err("not there"),
    ] {
        assert!(error.message().contains(&path.display().to_string()), "{error}");
    }
    assert!(!path.exists());
    fs::write(&path, "a file").expect("written");
    assert_eq!(Store::open(&location).map(drop).map_err(|error| error.kind()), Err(Kind::NotFound));
    fs::remove_file(path).expect("removed");
}

#[test]
fn a_local_store_sweeps_what_killed_writers_left_and_no_object() {
    let Fresh { store, dir } = local();
    store.create(&key("a/object"), &b"x"[..]).expect("created");
    for staged in ["a/object#1", "a/other#27"] {
        fs::write(dir.path().join(staged), "half").expect("written");
    }
    fs::write(dir.path().join("a/no#number"), "a person's").expect("written");
    assert_eq!(store.sweep_staged(&key("a"), SystemTime::now() - Duration::from_secs(3600)), Ok(0));
    assert_eq!(store.sweep_staged(&key("a"), SystemTime::now()), Ok(2));
    let mut left: Vec<String> = fs::read_dir(dir.path().join("a"))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["no#number", "object"]);
    assert_eq!(store.sweep_staged(&key("nothing"), SystemTime::now()), Ok(0));
}
