//! What pgark reads of PostgreSQL's files, against what PostgreSQL's own programs say of the same files.

use std::collections::HashMap;

use jiff::Timestamp;
use pgark::pg::control::{ControlFile, FILE_SIZE};

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
