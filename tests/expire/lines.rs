//! Several timelines, and several incarnations of a cluster.

use crate::harness::*;
use crate::scene::*;

#[test]
fn after_a_failover_both_timelines_keep_their_newest_backup_and_its_data() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    primary.psql("create table t (a int primary key, filler text)");
    let mut content = std::collections::BTreeMap::new();
    for (n, label) in ["a", "b"].into_iter().enumerate() {
        change(&primary, n);
        content.insert(label, primary.content());
        backup(&repo, &primary, label);
        primary.archive_everything();
    }
    let standby = primary.standby().restore_from(&repo).start();
    change(&primary, 2);
    content.insert("fork", primary.content());
    primary.archive_everything();
    primary.wait_replayed_by(&standby);
    standby.promote();
    // The old primary goes on beside it.
    change(&primary, 3);
    content.insert("old", primary.content());
    primary.archive_everything();
    primary.stop(Stop::Fast);
    for (n, label) in [(4, "c"), (5, "d")] {
        change(&standby, n);
        content.insert(label, standby.content());
        backup(&repo, &standby, label);
    }
    change(&standby, 6);
    content.insert("new", standby.content());
    standby.archive_everything();
    drop((primary, standby));
    age(&repo, std::time::Duration::from_secs(2 * 86_400));

    let said = expire(&repo, &["--keep-last", "1"]);
    assert_eq!(labels(&said, true), ["b", "d"], "{said:#}");
    assert_eq!(repo.matching(".history").len(), 1);
    let scratch = Scratch::new();
    for (target, arguments) in [
        ("b", &["--backup", "b", "--target", "immediate"][..]),
        ("old", &["--target-timeline", "1"]),
        ("d", &["--backup", "d", "--target", "immediate"]),
        ("new", &[]),
    ] {
        let restored = repo.restore(&scratch, target, arguments);
        restored.assert_content(&content[target]);
        restored.assert_sound();
    }
    let verified = run(&mut repo.pgark(&["verify"]));
    assert_eq!(verified.code, Some(0), "{verified}");
    let again = expire(&repo, &["--keep-last", "1"]);
    assert_eq!(labels(&again, false), Vec::<String>::new());
}

#[test]
fn each_incarnation_keeps_its_newest_backup_and_one_alone_can_be_expired() {
    let repo = TestRepo::init();
    let mut ids = Vec::new();
    let mut content = Vec::new();
    for incarnation in ["old", "new"] {
        let server = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
        server.psql("create table t (a int primary key, filler text)");
        for n in 0..2 {
            change(&server, n);
            backup(&repo, &server, &format!("{incarnation}{n}"));
        }
        change(&server, 2);
        server.archive_everything();
        content.push(server.content());
        ids.push(server.system_identifier());
    }
    let arguments = ["--keep-last", "1", "--system-id", &ids[1]];
    let said = expire(&repo, &arguments);
    assert_eq!(labels(&said, false), ["new0"]);
    assert_eq!(incarnation(&said)["system_id"], ids[1].as_str());
    assert_eq!(headers(&repo).len(), 3);
    let said = expire(&repo, &["--keep-last", "1"]);
    assert_eq!(said["incarnations"].as_array().map(Vec::len), Some(2));
    let mut left = headers(&repo);
    left.sort();
    assert_eq!(left, ["new1", "old1"]);
    let scratch = Scratch::new();
    for (id, content) in ids.iter().zip(&content) {
        repo.restore(&scratch, id, &["--system-id", id]).assert_content(content);
    }
    run(&mut repo.pgark(&["expire", "--keep-last", "1", "--system-id", "7"]))
        .fails_with(3, "system identifier 7");
}
