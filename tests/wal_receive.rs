//! `wal-receive` against real servers: what it brings, also when it, its server or its disk fails.

mod harness;

#[path = "wal_receive/access.rs"]
mod access;
#[path = "wal_receive/acknowledged.rs"]
mod acknowledged;
#[path = "wal_receive/coverage.rs"]
mod coverage;
#[path = "wal_receive/failing.rs"]
mod failing;
#[path = "wal_receive/following.rs"]
mod following;
#[path = "wal_receive/losing.rs"]
mod losing;
#[path = "wal_receive/refusals.rs"]
mod refusals;
#[path = "wal_receive/scene.rs"]
mod scene;

use harness::*;
use scene::*;

/// Small segments, so that many fit into a short test.
fn server() -> Cluster {
    Cluster::builder().wal_segment_mib(1).start()
}

#[test]
fn what_is_streamed_is_stored_and_the_unfinished_segment_with_it() {
    let (repo, server) = (TestRepo::init(), server());
    let receiver = Receiver::start(&repo, &server, &[]);
    receiver.wait_for_log("streaming timeline 1");
    let last = write_segments(&server, 5);
    wait_for_segment(&repo, &last);
    server.psql("create table in_the_unfinished_segment (a int)");
    let written = server.psql("select pg_current_wal_flush_lsn()");
    server.wait_sql(
        &format!("select bool_and(write_lsn >= '{written}')::text from pg_stat_replication"),
        "true",
    );
    receiver.leave();

    let stored = segments(&repo);
    let first = stored.keys().next().expect("a segment").clone();
    assert_holds(&stored, &segment_files(&server.data_dir().join("pg_wal"), &first, &last));
    let part = repo.only(".streamed.");
    assert!(!part.contains(&last), "{part}");
    let fragment = zstd::decode_all(&repo.read(&part)[..]).expect("zstd");
    assert!(fragment.len() > 8192 && fragment.len() < 1 << 20, "{}", fragment.len());
}

#[test]
fn a_segment_that_takes_long_to_fill_is_stored_as_far_as_it_is() {
    let (repo, server) = (TestRepo::init(), server());
    let receiver = Receiver::start(&repo, &server, &["--partial-every", "1s"]);
    let parts = || -> Vec<String> {
        repo.matching(".streamed.").into_iter().filter(|key| key.ends_with(".zst")).collect()
    };
    server.psql("create table t (a int)");
    wait_for("a part", || receiver.log(), || !parts().is_empty());
    let first = parts();
    server.psql("insert into t select generate_series(1, 100)");
    let longer = || parts().last().is_some_and(|part| *part > first[0]);
    wait_for("a longer part", || receiver.log(), longer);
    // Nothing is written, so nothing more is stored; the whole segment replaces its parts.
    let last = server.psql("select pg_walfile_name(pg_current_wal_lsn())");
    server.psql("select pg_switch_wal()");
    wait_for_segment(&repo, &last);
    let swept = || parts().iter().all(|part| !part.contains(&last));
    wait_for("the sweep of the parts", || format!("{:#?}", repo.list()), swept);
    receiver.leave();
}
