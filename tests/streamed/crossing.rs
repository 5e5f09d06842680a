//! A record that begins in the last whole segment and ends in the part that was streamed of the next one.

use pgark::pg::lsn::Lsn;
use pgark::repo::streamed::StreamedPart;

use crate::harness::*;
use crate::parts::*;

/// A message of so many bytes into the WAL, of no transaction. Where its record ends.
fn write(server: &Cluster, bytes: &str) -> Lsn {
    let query = format!("select pg_logical_emit_message(false, 'pgark', repeat('x', ({bytes})::int))");
    server.psql(&query).parse().expect("an LSN")
}

#[test]
fn a_record_is_replayed_if_and_only_if_all_of_it_was_streamed() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    primary.psql("create table t (name text)");
    run(repo.basebackup(&primary).args(["--label", "one"])).succeeds();
    primary.archive_everything();
    note(&primary, "archived");
    // Up to shortly before the end of the segment, then beyond it.
    let before = write(&primary, "1048576 - (pg_current_wal_insert_lsn() - '0/0') % 1048576 - 30000");
    let end = write(&primary, "60000");
    let last_whole = primary.psql(&format!("select pg_walfile_name('{before}')"));
    let segment = primary.psql(&format!("select pg_walfile_name('{end}')"));
    assert_ne!(last_whole, segment);
    // Its commit brings all of it to the disk.
    note(&primary, "too late");
    primary.wait_sql(&format!("select last_archived_wal >= '{last_whole}' from pg_stat_archiver"), "t");
    let part = |end| StreamedPart { segment: segment.parse().expect("a name"), end };
    let wal = segment_file(&primary, part(end));
    primary.crash();

    let scratch = Scratch::new();
    for (name, streamed_to, replayed_to) in
        [("cut-off", Lsn(end.0 - 100), before), ("all", end, end), ("and-more", Lsn(end.0 + 20), end)]
    {
        store(&repo, part(streamed_to), &wal);
        let restored = repo.restore(&scratch, name, &["--action", "pause"]);
        assert_eq!(restored.psql("select pg_last_wal_replay_lsn()"), replayed_to.to_string(), "{name}");
        assert_eq!(names(&restored), "archived", "{name}");
        restored.psql("select pg_wal_replay_resume()");
        restored.wait_sql("select pg_is_in_recovery()", "f");
        note(&restored, name);
    }
}
