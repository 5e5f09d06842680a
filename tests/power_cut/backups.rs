//! `basebackup`, with a cut at each change that it makes to the repository, or right after it.

use std::process::Command;

use crate::harness::*;
use crate::{Powered, changes};

/// A server whose repository is on a disk that loses its power, and does not lose its own.
fn scene() -> Option<(Powered, Cluster)> {
    let powered = Powered::new(192)?;
    let server = Cluster::builder().wal_segment_mib(1).archive_to(&powered.repo).start();
    server.psql("create table t as select generate_series(1, 1000) as a");
    Some((powered, server))
}

fn backup(powered: &Powered, server: &Cluster, label: &str) -> Command {
    let mut command = powered.repo.std_program("basebackup");
    command.envs(server.env()).args(["--jobs", "2", "--label", label]);
    command
}

#[test]
fn a_backup_that_was_acknowledged_is_whole_after_a_cut() {
    let Some((mut powered, server)) = scene() else { return };
    for label in ["one", "two", "three"] {
        run(powered.repo.basebackup(&server).args(["--label", label])).succeeds();
        powered.cut();
        powered.verifies(label);
        assert!(powered.has_backup(label), "{:#?}", powered.repo.list());
    }
    let scratch = Scratch::new();
    let restored = powered.repo.restore(&scratch, "data", &["--backup", "one"]);
    assert_eq!(restored.psql("select count(*) from t"), "1000");
}

#[test]
fn a_cut_at_any_change_of_a_backup_leaves_no_header_without_what_it_names() {
    let Some((mut powered, server)) = scene() else { return };
    let calls = changes(backup(&powered, &server, "counted"), &powered.repo);
    let mut kept = "counted".to_owned();
    for n in moments("cuts in a backup", calls.len(), 8) {
        let (label, what) = (format!("cut-{n}"), format!("without power instead of {:?}", calls[n - 1]));
        let fault = Fault::kill_at(n).under(powered.repo.root());
        let (outcome, _) = run_with_fault(backup(&powered, &server, &label), fault);
        powered.cut();
        powered.verifies(&what);
        assert!(powered.has_backup(&kept), "{what}: {outcome}");
        kept = format!("after-{n}");
        run(powered.repo.basebackup(&server).args(["--label", &kept])).succeeds();
        // So that the disk does not fill up.
        run(powered.repo.pgark(&["expire"]).args(["--keep-last", "1"])).succeeds();
    }
}
