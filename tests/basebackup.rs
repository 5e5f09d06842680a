//! `basebackup` against a real PostgreSQL: what is in a backup, and when there is none.

mod harness;

use harness::*;

#[test]
fn a_backup_of_a_primary_is_made() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().archive_to(&repo).tablespace("fast").start();
    primary.pgbench_init(1);
    let said = run(repo.basebackup(&primary).args(["--label", "x"])).succeeds();
    assert!(said.contains("backup x of cluster main is complete"), "{said}");
    assert_eq!(repo.matching("/backup/x/").len(), 2);
    assert!(repo.matching("/lease/").is_empty());
}
