//! What only some majors of PostgreSQL have is restored there: settings about WAL and recovery, databases that
//! are copied file by file, tablespaces inside the data directory.

mod harness;

use harness::*;

/// Settings that touch WAL, recovery, slots or how files are read: the major that they came with, name, a value
/// that is not the default.
const SETTINGS: &[(u32, &str, &str)] = &[
    (14, "recovery_init_sync_method", "syncfs"),
    (15, "recovery_prefetch", "on"),
    (15, "wal_decode_buffer_size", "1MB"),
    (16, "reserved_connections", "3"),
    (17, "allow_alter_system", "off"),
    (17, "summarize_wal", "on"),
    (18, "idle_replication_slot_timeout", "1d"),
    (18, "io_method", "sync"),
    (18, "max_active_replication_origins", "7"),
];

/// Settings that are the source's own, and what they are in a copy: the first and the last major that has them.
const SOURCES_OWN: &[(u32, u32, &str, &str, &str)] = &[
    (14, 14, "stats_temp_directory", "/tmp", "pg_stat_tmp"),
    (14, 15, "promote_trigger_file", "/promote", ""),
    (17, u32::MAX, "sync_replication_slots", "on", "off"),
    (17, u32::MAX, "synchronized_standby_slots", "nobody", ""),
];

#[test]
fn settings_that_came_with_a_major_are_restored_and_those_of_the_source_alone_are_not() {
    let repo = TestRepo::init();
    let kept: Vec<_> = SETTINGS.iter().filter(|(since, ..)| *since <= pg_major()).collect();
    let own = SOURCES_OWN.iter().filter(|(first, last, ..)| (*first..=*last).contains(&pg_major()));
    let own: Vec<_> = own.collect();
    let mut builder = Cluster::builder().archive_to(&repo).wal_segment_mib(1).set("wal_level", "logical");
    for (_, name, value) in &kept {
        builder = builder.set(name, value);
    }
    for (.., name, value, _) in &own {
        builder = builder.set(name, value);
    }
    let source = builder.start();
    run(&mut repo.basebackup(&source)).succeeds();
    source.psql("create table t as select a, md5(a::text) from generate_series(1, 10000) a");
    let (content, lsn) = (source.content(), source.current_lsn());
    source.archive_everything();

    let scratch = Scratch::new();
    let restored = repo.restore(&scratch, "data", &["--target-lsn", &lsn]);
    restored.assert_content(&content);
    let kept = kept.iter().map(|(_, name, value)| (*name, *value, *value));
    let own = own.iter().map(|(.., name, value, here)| (*name, *value, *here));
    for (name, there, here) in kept.chain(own) {
        assert_eq!(source.psql(&format!("show {name}")), there, "{name} of the source");
        assert_eq!(restored.psql(&format!("show {name}")), here, "{name} of the copy");
    }
    if pg_major() >= 17 {
        restored.psql("checkpoint");
        restored.wait_sql("select count(*) > 0 from pg_available_wal_summaries()", "t");
    }
    restored.assert_sound();
}

#[test]
fn databases_copied_by_file_and_tablespaces_in_place_are_restored_and_replayed() {
    // Up to 14 every database is copied by file.
    let [by_file, by_wal] =
        if pg_major() < 15 { ["", ""] } else { ["strategy file_copy", "strategy wal_log"] };
    let repo = TestRepo::init();
    let source = Cluster::builder().archive_to(&repo).wal_segment_mib(1).start();
    let make = |when: &str| {
        source.psql(&format!("set allow_in_place_tablespaces = on; create tablespace in_{when} location ''"));
        source.psql(&format!(
            "create table t_{when} tablespace in_{when} as select a, md5(a::text) from generate_series(1, 5000) a"
        ));
        source.psql(&format!("create database by_file_{when} {by_file}"));
        source.psql(&format!("create database by_wal_{when} {by_wal} tablespace in_{when}"));
        for database in ["by_file", "by_wal"] {
            let database = format!("{database}_{when}");
            source.psql_in(&database, "create table t as select generate_series(1, 5000) a");
        }
    };
    make("before");
    run(&mut repo.basebackup(&source)).succeeds();
    make("after");
    let (content, lsn) = (source.content(), source.current_lsn());
    source.psql("drop database by_file_after; drop database by_wal_before");
    source.archive_everything();

    let scratch = Scratch::new();
    let restored = repo.restore(&scratch, "data", &["--target-lsn", &lsn, "--exclusive"]);
    restored.assert_content(&content);
    let inside = "select count(*) from pg_tablespace where pg_tablespace_location(oid) like 'pg_tblspc/%'";
    assert_eq!(restored.psql(inside), "2");
    restored.assert_sound();
    restored.assert_checksums();
}
