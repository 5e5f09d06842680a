//! `pgark expire`, with a cut at each change: what a header names is deleted after the header is gone for good.

use crate::Powered;
use crate::harness::*;

fn expire(powered: &Powered, fault: Fault) -> (Outcome, Vec<Call>) {
    let mut command = powered.repo.std_program("pgark");
    command.args(["expire", "--keep-last", "1"]);
    run_with_fault(command, fault.under(powered.repo.root()))
}

fn copy(of: &LossyDisk) -> Powered {
    let disk = of.copy().expect("as before");
    let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
    Powered { disk, repo }
}

#[test]
fn a_cut_at_any_change_of_an_expiry_leaves_no_header_without_what_it_names() {
    let Some(powered) = Powered::new(96) else { return };
    let server = Cluster::builder().wal_segment_mib(1).archive_to(&powered.repo).start();
    for label in ["one", "two", "three"] {
        run(powered.repo.basebackup(&server).args(["--label", label])).succeeds();
        server.archive_everything();
    }
    drop(server);
    let Powered { disk: mut original, repo: _ } = powered;
    original.unmount();
    let counted = copy(&original);
    let (outcome, calls) = expire(&counted, Fault::none());
    outcome.succeeds();
    assert!(calls.iter().filter(|call| call.name.starts_with("unlink")).count() > 8, "{calls:#?}");
    for n in moments("cuts in an expiry", calls.len() + 1, 12) {
        let mut powered = copy(&original);
        let what = format!("without power instead of {:?}", calls.get(n - 1));
        expire(&powered, Fault::kill_at(n));
        powered.cut();
        powered.verifies(&what);
        assert!(powered.has_backup("three"), "{what}");
        expire(&powered, Fault::none()).0.succeeds();
        powered.verifies(&what);
        assert!(!powered.has_backup("one") && powered.has_backup("three"), "{what}");
    }
}
