//! What pgark reads of PostgreSQL's files, against what PostgreSQL's own programs say of the same files.

mod harness;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use harness::*;
use jiff::Timestamp;
use pgark::pg::control::{ControlFile, FILE_SIZE};
use pgark::pg::exclude::{Exclusion, excluded};
use pgark::pg::history::TimelineHistory;
use pgark::pg::label::{BackupHistory, BackupLabel, BackupSource, parse_tablespace_map};
use pgark::pg::lsn::{Lsn, Timeline};
use pgark::pg::names::SegmentName;
use pgark::pg::page::{BlockNumber, BlockSize, Page, PageState, pages};
use pgark::pg::relfile::{RelationDirectory, RelationFile, unlogged};
use pgark::pg::version::PgMajor;

/// Every line of pg_controldata that a `ControlFile` has a field for, as pg_controldata writes it.
fn as_pg_controldata_writes(control: &ControlFile) -> Vec<(&'static str, String)> {
    let on = |on: bool| if on { "on" } else { "off" }.to_string();
    let time = |time: Timestamp| time.strftime("%a %b %e %H:%M:%S %Y").to_string();
    let settings = &control.recovery_settings;
    vec![
        ("pg_control version number", control.major.control_version().to_string()),
        ("Catalog version number", control.major.catalog_version().to_string()),
        ("Database system identifier", control.system_id.to_string()),
        ("Database cluster state", control.state.as_str().to_string()),
        ("pg_control last modified", time(control.time)),
        ("Latest checkpoint location", control.checkpoint.to_string()),
        ("Latest checkpoint's REDO location", control.redo.to_string()),
        ("Latest checkpoint's TimeLineID", control.checkpoint_timeline.to_string()),
        ("Latest checkpoint's full_page_writes", on(control.full_page_writes)),
        (
            "Latest checkpoint's NextXID",
            format!("{}:{}", control.next_xid.0 >> 32, control.next_xid.0 & 0xFFFF_FFFF),
        ),
        ("Time of latest checkpoint", time(control.checkpoint_time)),
        ("Fake LSN counter for unlogged rels", control.unlogged_lsn.to_string()),
        ("Minimum recovery ending location", control.min_recovery_point.to_string()),
        ("Min recovery ending loc's timeline", control.min_recovery_timeline.to_string()),
        ("Backup start location", control.backup_start_point.to_string()),
        ("Backup end location", control.backup_end_point.to_string()),
        ("End-of-backup record required", if control.backup_end_required { "yes" } else { "no" }.to_string()),
        ("wal_level setting", control.wal_level.as_str().to_string()),
        ("wal_log_hints setting", on(control.wal_log_hints)),
        ("max_connections setting", settings.max_connections.to_string()),
        ("max_worker_processes setting", settings.max_worker_processes.to_string()),
        ("max_wal_senders setting", settings.max_wal_senders.to_string()),
        ("max_prepared_xacts setting", settings.max_prepared_transactions.to_string()),
        ("max_locks_per_xact setting", settings.max_locks_per_transaction.to_string()),
        ("track_commit_timestamp setting", on(control.track_commit_timestamp)),
        ("Maximum data alignment", control.max_align.to_string()),
        ("Database block size", control.block_size.bytes().to_string()),
        ("Blocks per segment of large relation", control.blocks_per_file.to_string()),
        ("WAL block size", control.wal_block_size.to_string()),
        ("Bytes per WAL segment", control.segment_size.bytes().to_string()),
        ("Data page checksum version", control.data_checksum_version.to_string()),
    ]
}

/// `pg_controldata` in the C locale and UTC.
fn assert_agrees(control: &ControlFile, pg_controldata: &str) {
    let said: HashMap<&str, &str> = pg_controldata
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim_start()))
        .collect();
    for (name, value) in as_pg_controldata_writes(control) {
        assert_eq!(said.get(name), Some(&value.as_str()), "{name}, of PostgreSQL {}", control.major);
    }
}

#[test]
fn control_files_of_standbys_of_all_majors_agree_with_what_pg_controldata_said() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pg_control");
    for major in 14..=18 {
        let mut bytes = std::fs::read(directory.join(format!("{major}.bin"))).expect("in the repository");
        bytes.resize(FILE_SIZE, 0);
        let control = ControlFile::parse(&bytes).expect("a real file");
        assert_eq!(control.major.number(), major);
        let said =
            std::fs::read_to_string(directory.join(format!("{major}.txt"))).expect("in the repository");
        assert_agrees(&control, &said);
    }
}

fn assert_agrees_with_pg_controldata(cluster: &Cluster) -> ControlFile {
    let control = ControlFile::read(&cluster.data_dir()).expect("read pg_control");
    assert_eq!(control.major.number(), pg_major());
    let output = pg_command("pg_controldata").arg(cluster.data_dir()).output().expect("run pg_controldata");
    assert_agrees(&control, &String::from_utf8_lossy(&output.stdout));
    control
}

#[test]
fn control_files_agree_with_pg_controldata_whatever_the_cluster_was_doing() {
    let primary = Cluster::builder().wal_segment_mib(1).set("wal_log_hints", "on").start();
    primary.psql("create table t as select generate_series(1, 1000) as a");
    let standby = primary.standby().start();
    primary.wait_replayed_by(&standby);
    // Recoveries that stop short of the end of the backup that they start from: a primary's, a standby's.
    for (source, timeline_known) in [(&primary, false), (&standby, true)] {
        let cut_off = source.standby().set("recovery_target_lsn", "0/1").build();
        cut_off.spawn();
        cut_off.wait_exit();
        let control = assert_agrees_with_pg_controldata(&cut_off);
        assert!(control.backup_start_point.is_valid(), "{control:?}");
        assert_eq!(control.backup_end_point.is_valid(), timeline_known, "{control:?}");
    }
    standby.stop(Stop::Fast);
    assert!(assert_agrees_with_pg_controldata(&standby).min_recovery_point.is_valid());
    primary.crash();
    assert_eq!(assert_agrees_with_pg_controldata(&primary).state.as_str(), "in production");
}

/// Every file and directory below `top`, relative to it, through the links in pg_tblspc.
fn walk(top: &Path) -> Vec<(PathBuf, bool)> {
    let relative = |entry: walkdir::DirEntry| {
        let path = entry.path().strip_prefix(top).expect("below").to_path_buf();
        (path, entry.file_type().is_dir())
    };
    let entries = walkdir::WalkDir::new(top).min_depth(1).follow_links(true).sort_by_file_name();
    entries.into_iter().map(|entry| relative(entry.expect("walk"))).collect()
}

struct Damaged {
    path: PathBuf,
    block: BlockNumber,
    state: PageState,
}

/// Verifies the checksums of a cluster that is down: how many files and pages it has, and which are damaged.
fn verify(data_dir: &Path) -> (usize, usize, Vec<Damaged>) {
    let control = ControlFile::read(data_dir).expect("read pg_control");
    let (mut files, mut blocks, mut damaged) = (0, 0, Vec::new());
    for (path, _) in walk(data_dir) {
        let Some(file) = RelationFile::parse(&path, control.major) else { continue };
        let bytes = fs::read(data_dir.join(&path)).expect("read a relation file");
        let first = file.name.first_block(control.blocks_per_file);
        files += 1;
        for (index, page) in pages(&bytes, control.block_size).enumerate() {
            blocks += 1;
            let block = first.plus(u32::try_from(index).expect("a block"));
            let state = page.verify(block);
            if state.is_damaged() {
                damaged.push(Damaged { path: path.clone(), block, state });
            }
        }
    }
    (files, blocks, damaged)
}

/// What `pg_checksums --check` prints, both streams.
fn pg_checksums(cluster: &Cluster) -> String {
    let mut command = pg_command("pg_checksums");
    let output = command.args(["--check", "-D"]).arg(cluster.data_dir()).output().expect("run pg_checksums");
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// The number behind `name` in what pg_checksums prints.
fn counted(said: &str, name: &str) -> usize {
    let value = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{said}"));
    value.trim().parse().expect("a number")
}

fn flip_a_bit(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[offset] ^= 1;
    fs::write(path, bytes).expect("write");
}

#[test]
fn page_checksums_agree_with_pg_checksums() {
    let cluster = Cluster::builder().tablespace("fast").start();
    cluster.pgbench_init(1);
    cluster.pgbench(&["-c", "2", "-t", "50"]);
    cluster.psql("create unlogged table u tablespace fast as select generate_series(1, 5000) as a");
    let accounts = cluster.psql("select pg_relation_filepath('pgbench_accounts')");
    cluster.stop(Stop::Fast);

    let (files, blocks, damaged) = verify(&cluster.data_dir());
    let said = pg_checksums(&cluster);
    assert_eq!((files, blocks), (counted(&said, "Files scanned:"), counted(&said, "Blocks scanned:")));
    assert!(damaged.is_empty() && counted(&said, "Bad checksums:") == 0, "{said}");

    flip_a_bit(&cluster.data_dir().join(&accounts), 7 * 8192 + 4000);
    let said = pg_checksums(&cluster);
    assert_eq!(counted(&said, "Bad checksums:"), 1, "{said}");
    let (_, _, damaged) = verify(&cluster.data_dir());
    let [Damaged { path, block, state: PageState::Bad { expected, found } }] = damaged.as_slice() else {
        panic!("expected one bad page, found {}", damaged.len());
    };
    assert_eq!((path.as_path(), *block), (Path::new(&accounts), BlockNumber(7)));
    let line = format!("block 7: calculated checksum {expected:X} but block contains {found:X}");
    assert!(said.contains(&line), "{line}\n{said}");
}

#[test]
fn blocks_are_counted_on_across_the_files_of_a_large_relation() {
    let cluster = Cluster::builder().build();
    let mut page = vec![0x5A; 8192];
    let size = BlockSize::try_from(8192).expect("a block size");
    let checksum = Page::new(&page, size).expect("a page").checksum(BlockNumber(2 * 131_072));
    page[8..10].copy_from_slice(&checksum.to_ne_bytes());
    cluster.scratch().write("data/base/1/99999.2", &page);
    assert_eq!(counted(&pg_checksums(&cluster), "Bad checksums:"), 0);
    assert!(verify(&cluster.data_dir()).2.is_empty());
}

/// What our rules choose of a data directory.
fn chosen(data_dir: &Path, major: PgMajor) -> BTreeSet<PathBuf> {
    let all = walk(data_dir);
    let names_in = |directory: &Path| -> Vec<_> {
        let inside = all.iter().filter(|(path, _)| path.parent() == Some(directory));
        inside.filter_map(|(path, _)| path.file_name()).collect()
    };
    let directories = all.iter().filter(|(path, _)| RelationDirectory::parse(path, major).is_some());
    let unlogged_files: BTreeSet<PathBuf> = directories
        .flat_map(|(path, _)| unlogged(&names_in(path)).map(|name| path.join(name)).collect::<Vec<_>>())
        .collect();
    let copied = |(path, is_dir): &&(PathBuf, bool)| {
        excluded(path, *is_dir, major) != Exclusion::Skip && !unlogged_files.contains(path)
    };
    all.iter().filter(copied).map(|(path, _)| path.clone()).collect()
}

#[test]
fn a_backup_chooses_the_files_that_pg_basebackup_chooses() {
    let cluster = Cluster::builder().set("autovacuum", "off").tablespace("fast").start();
    cluster.psql("create unlogged table u as select generate_series(1, 5000) as a; vacuum u");
    cluster.psql("create unlogged table v tablespace fast as select 1 as a; create database other");
    cluster
        .psql("create table w tablespace fast as select generate_series(1, 5000) as a; vacuum w; checkpoint");
    let major = PgMajor::try_from(pg_major()).expect("supported");
    for left_over in [
        "data/base/5/t3_99999",
        "data/base/5/t3_99999_fsm.1",
        "data/base/5/notes",
        "data/base/pgsql_tmp/pgsql_tmp4711.0",
        "data/pg_stat_tmp/left.over",
        "data/pg_replslot/left.over",
        "data/postgresql.auto.conf.tmp",
        "data/backup_manifest",
        &format!("ts/fast/{}/pgsql_tmp/pgsql_tmp4711.0", major.tablespace_directory()),
        "ts/fast/PG_12_201909212/left.over",
    ] {
        cluster.scratch().make_dir(Path::new(left_over).parent().expect("a directory"));
        cluster.scratch().write(left_over, b"left over");
    }

    let (copy, fast) = (cluster.scratch().join("copy"), cluster.scratch().join("copy-of-fast"));
    let mapping = format!("{}={}", cluster.tablespace_dir("fast").display(), fast.display());
    let copy_text = copy.display().to_string();
    cluster.run_client(
        "pg_basebackup",
        &["-D", &copy_text, "-T", &mapping, "-X", "none", "-c", "fast", "--no-sync", "--no-manifest"],
    );
    let theirs: BTreeSet<PathBuf> = walk(&copy)
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path != Path::new("backup_label") && path.parent() != Some(Path::new("pg_wal")))
        .collect();
    assert!(theirs.contains(Path::new("base/5/notes")));
    assert_eq!(chosen(&cluster.data_dir(), major), theirs);
}

/// Takes a backup by SQL, as the functions of this major are called: backup_label and tablespace_map.
fn backup_by_sql(cluster: &Cluster, label: &str) -> (String, String) {
    let (start, stop) = if pg_major() < 15 {
        ("pg_start_backup", "pg_stop_backup(false, false)")
    } else {
        ("pg_backup_start", "pg_backup_stop(false)")
    };
    let exclusive = if pg_major() < 15 { ", false" } else { "" };
    let answer = cluster.psql(&format!(
        "select {start}('{label}', true{exclusive}) \\g /dev/null
         select labelfile || '@@' || spcmapfile || '@@' from {stop}"
    ));
    let mut parts = answer.split("@@").map(str::to_owned);
    (parts.next().expect("a label"), parts.next().expect("a map"))
}

#[test]
fn the_files_of_a_backup_are_read_as_the_server_wrote_them() {
    // With an archive that never takes it, the backup history file stays in pg_wal.
    let cluster = Cluster::builder().wal_segment_mib(4).set("archive_mode", "on");
    let cluster = cluster.set("archive_command", "/bin/false").start();
    let location = cluster.scratch().make_dir("odd \\ name \n of a tablespace");
    cluster.psql(&format!("create tablespace odd location '{}'", location.display()));
    let (label, map) = backup_by_sql(&cluster, "first line\nSTART TIMELINE: 7");
    let size = ControlFile::read(&cluster.data_dir()).expect("read pg_control").segment_size;

    let label = BackupLabel::parse(label.as_bytes()).expect("the server's own label");
    assert_eq!(label.label, "first line\nSTART TIMELINE: 7");
    assert_eq!((label.start_timeline, label.source), (Timeline(1), BackupSource::Primary));
    assert_eq!(label.check_segment(size), Ok(()));

    let links = parse_tablespace_map(map.as_bytes()).expect("the server's own map");
    let oid = cluster.psql("select oid from pg_tablespace where spcname = 'odd'");
    let found: Vec<(String, &Path)> =
        links.iter().map(|link| (link.oid.to_string(), link.location.as_path())).collect();
    assert_eq!(found, [(oid, location.as_path())]);

    let names = walk(&cluster.data_dir().join("pg_wal"));
    let names: Vec<&str> = names.iter().filter_map(|(path, _)| path.to_str()).collect();
    let name = names.iter().find(|name| name.ends_with(".backup")).expect("a backup history file");
    let content = fs::read(cluster.data_dir().join("pg_wal").join(name)).expect("read it");
    let history = BackupHistory::parse(&content).expect("the server's own file");
    assert_eq!(history.label, label);
    assert_eq!(history.check_name(name.parse().expect("a name"), size), Ok(()));
}

fn history_of(cluster: &Cluster, timeline: u32) -> TimelineHistory {
    let path = cluster.data_dir().join(format!("pg_wal/{timeline:08X}.history"));
    let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    TimelineHistory::parse(Timeline(timeline), &content).expect("the server's own file")
}

fn lsn(cluster: &Cluster) -> Lsn {
    cluster.current_lsn().parse().expect("an LSN")
}

#[test]
fn a_history_file_tells_the_path_of_two_promotions() {
    let first = Cluster::builder().wal_segment_mib(1).set("wal_keep_size", "200MB").start();
    let second = first.standby().start();
    let third = second.standby().start();
    let on_first = lsn(&first);
    first.wait_replayed_by(&second);
    second.promote();
    second.psql("create table t as select generate_series(1, 50000) as a");
    let on_second = lsn(&second);
    second.wait_replayed_by(&third);
    third.promote();
    third.psql("create table u as select generate_series(1, 50000) as a");
    let on_third = lsn(&third);

    let history = history_of(&third, 3);
    let timelines: Vec<u32> = history.entries().iter().map(|entry| entry.timeline.0).collect();
    assert_eq!(timelines, [1, 2]);
    assert!(history.entries().iter().all(|entry| entry.reason == "no recovery target specified"));
    for (end, timeline) in [(on_first, 1), (on_second, 2), (on_third, 3)] {
        assert!(history.descends_from(Timeline(timeline), end), "{end}");
    }
    let size = ControlFile::read(&third.data_dir()).expect("read pg_control").segment_size;
    for switch in history.entries().iter().map(|entry| entry.switch_lsn) {
        let number = size.segment_of(switch);
        let name = SegmentName::from_number(history.path_timeline_for_segment(number, size), number, size);
        assert!(third.data_dir().join("pg_wal").join(name.to_string()).exists(), "{name}");
    }
}

/// The switch points of such a path decrease: `TimelineHistory` is made for them.
#[test]
fn a_recovery_that_stops_before_the_fork_of_its_target_timeline_names_it_as_its_parent() {
    let archive = Scratch::new();
    let primary = Cluster::builder()
        .set("archive_mode", "on")
        .set("archive_command", format!("cp %p {}/%f", archive.path().display()))
        .set("restore_command", format!("cp {}/%f %p", archive.path().display()))
        .start();
    let standby = primary.standby().start();
    let restored = primary.standby().set("recovery_target_timeline", 2).build();
    primary.psql("create table t as select 1 as a");
    let target = lsn(&primary);
    primary.psql("insert into t select generate_series(2, 50000)");
    primary.wait_replayed_by(&standby);
    primary.stop(Stop::Fast);
    standby.promote();
    standby.archive_everything();
    restored.append_config(&format!("recovery_target_lsn = '{target}'\nrecovery_target_action = 'promote'"));
    restored.start();
    restored.wait_sql("select pg_is_in_recovery()", "f");

    let (fork, history) = (history_of(&standby, 2).entries()[0].switch_lsn, history_of(&restored, 3));
    let [first, second] = history.entries() else { panic!("{history:?}") };
    assert_eq!((first.timeline, first.switch_lsn), (Timeline(1), fork));
    assert!(second.timeline == Timeline(2) && target < second.switch_lsn && second.switch_lsn < fork);
    assert_eq!(history.timeline_of(target), Timeline(1));
    assert_eq!(history.timeline_of(second.switch_lsn), Timeline(3));
    assert_eq!(history.switch_point(Timeline(1)), Some(second.switch_lsn));
}
