//! `wal-push` as the archive_command of real servers.

use crate::harness::*;
use crate::wal::*;

fn archive_of(mebibytes: u32) {
    let repo = TestRepo::init();
    let server = Cluster::builder().wal_segment_mib(mebibytes).archive_to(&repo).start();
    server.psql("create table t as select generate_series(1, 100000) as a");
    let first = server.archive_everything();
    let second = server.archive_everything();
    for name in [first, second] {
        let key = repo.only(&format!("{name}.zst"));
        let header = header(&repo, &key);
        assert_eq!(header["segment_size"], mebibytes << 20);
        assert!(header["facts"].get("damage").is_none(), "{header}");
        assert_eq!(header["facts"]["switch"], true);
        assert_eq!(unzstd(&repo, &key).len(), (mebibytes as usize) << 20);
    }
    assert_eq!(server.psql("select failed_count from pg_stat_archiver"), "0");
}

#[test]
fn a_server_with_segments_of_16_mib_archives() {
    archive_of(16);
}

#[test]
fn a_server_with_segments_of_64_mib_archives() {
    archive_of(64);
}

#[test]
fn paths_with_spaces_and_quotes_work_without_a_shell_in_between() {
    let scratch = Scratch::new();
    let home = scratch.make_dir("it's \"my\" $HOME");
    let root = home.join("the repo");
    let config = home.join("pg ark.toml");
    std::fs::write(&config, format!("repo = {:?}\n", root.display().to_string())).expect("written");
    run(pgark().arg("init").env("PGARK_CONFIG", &config)).succeeds();
    let quoted = config.display().to_string().replace('"', "\\\"").replace('$', "\\$");
    let push = format!("{} --config \"{quoted}\" %p", program_path("wal-push").display());
    let server =
        Cluster::builder().wal_segment_mib(1).set("archive_mode", "on").set("archive_command", push).start();
    let name = server.archive_everything();
    assert!(TestRepo::at(scratch, root).only(&name).ends_with(".zst"));
}

#[test]
fn a_data_directory_with_spaces_and_quotes_is_fine() {
    let repo = TestRepo::init();
    let server = ServerDir::named("a \"data\" directory's name");
    let name = wal().segments(1)[0];
    server.put(name, wal().file(name));
    server.push(&repo, name).succeeds();
    // By hand, from somewhere else.
    let path = server.put(wal().ending(".backup"), wal().file(wal().ending(".backup")));
    run(repo.program("wal-push").arg(server.path().join(path))).succeeds();
}

#[test]
fn a_server_that_was_promoted_while_archiving_was_off_brings_its_history() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    let standby = primary.standby().set("archive_mode", "off").start();
    primary.psql("create table t as select generate_series(1, 1000) as a");
    primary.wait_replayed_by(&standby);
    standby.promote();
    standby.append_config("archive_mode = on");
    standby.restart();
    let segment = standby.archive_everything();
    assert!(segment.starts_with("00000002"), "{segment}");
    let history = std::fs::read(standby.data_dir().join("pg_wal/00000002.history")).expect("a history");
    assert!(repo.read(&repo.only("00000002.history")) == history);
}

#[test]
fn two_primaries_on_one_timeline_are_told_so() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    let copy = primary.standby().build();
    // A copy that was started without recovery, as when somebody forgets standby.signal.
    std::fs::remove_file(copy.data_dir().join("standby.signal")).expect("removed");
    copy.start();
    primary.psql("create table t as select generate_series(1, 1000) as a");
    copy.psql("create table u as select generate_series(1, 1000) as a");
    primary.archive_everything();
    copy.switch_wal();
    copy.wait_for_log("is already archived with other content");
    copy.wait_sql("select failed_count > 0 from pg_stat_archiver", "t");
}
