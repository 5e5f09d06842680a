//! `bootstrap-restore` against a real PostgreSQL: every kind of target, from one source.

mod harness;

use harness::*;

#[test]
fn everything_archived_comes_back() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).start();
    primary.psql("create table t as select generate_series(1, 1000) as a");
    run(&mut repo.basebackup(&primary)).succeeds();
    primary.psql("insert into t values (1001)");
    primary.archive_everything();
    let scratch = Scratch::new();
    let target = scratch.join("data");
    let said = run(repo.bootstrap_restore().arg("-D").arg(&target).arg("--socket-dir").arg(scratch.path()))
        .succeeds();
    eprintln!("{said}");
    let restored = Cluster::adopt(&target);
    assert_eq!(restored.psql("select count(*) from t"), "1001");
}
