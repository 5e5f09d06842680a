//! Promotions: of the standby that is streamed from, and of the one that takes over.

use super::scene::*;
use super::server;
use crate::harness::*;

#[test]
fn a_standby_that_is_promoted_while_it_streams_is_followed_to_its_new_timeline() {
    let (repo, primary) = (TestRepo::init(), server());
    let standby = primary.standby().start();
    let receiver = Receiver::start(&repo, &standby, &[]);
    receiver.wait_for_log("streaming timeline 1");
    let old = write_segments(&primary, 2);
    wait_for_segment(&repo, &old);
    primary.psql("create table at_the_end (a int)");
    primary.wait_replayed_by(&standby);
    primary.stop(Stop::Immediate);
    standby.promote();
    receiver.wait_for_log("timeline 2 goes on");
    let new = write_segments(&standby, 2);
    assert!(new.starts_with("00000002"), "{new}");
    wait_for_segment(&repo, &new);
    let status = once(&repo, &standby, &["--status", "--output", "json"]).succeeds();
    receiver.leave();

    let history = repo.read(&repo.only("/wal/00000002.history"));
    assert_eq!(history, std::fs::read(standby.data_dir().join("pg_wal/00000002.history")).expect("read"));
    let stored = segments(&repo);
    let first_new = stored.keys().find(|name| name.starts_with("00000002")).expect("there").clone();
    assert_holds(&stored, &segment_files(&standby.data_dir().join("pg_wal"), &first_new, &new));
    let switch = format!("{:08X}", 2) + &old[8..];
    assert!(first_new > switch, "the new timeline begins behind {old}: {first_new}");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["receiver"]["timeline"], 2);
    assert_eq!(status["running"], true);
}

/// As a client of both names them.
fn whichever_is_primary(one: &Cluster, other: &Cluster) -> String {
    format!(
        "host={},{} port={},{} user=postgres target_session_attrs=primary",
        one.socket_dir().display(),
        other.socket_dir().display(),
        one.port(),
        other.port()
    )
}

#[test]
fn after_a_failover_the_new_primary_among_several_hosts_is_streamed_from() {
    let (repo, primary) = (TestRepo::init(), server());
    let standby = primary.standby().start();
    let receiver = Receiver::start_at(&repo, &whichever_is_primary(&primary, &standby), &[]);
    receiver.wait_for_log("streaming timeline 1");
    let old = write_segments(&primary, 2);
    wait_for_segment(&repo, &old);
    primary.wait_replayed_by(&standby);
    primary.crash();
    receiver.wait_for_log("the server is a standby");
    standby.promote();
    receiver.wait_for_log("streaming timeline 2");
    let new = write_segments(&standby, 2);
    wait_for_segment(&repo, &new);
    receiver.leave();
    repo.only("/wal/00000002.history");
    let stored = segments(&repo);
    let numbers: Vec<u64> =
        stored.keys().map(|name| u64::from_str_radix(&name[8..], 16).expect("hex")).collect();
    let span = numbers.iter().max().expect("some") - numbers.iter().min().expect("some");
    assert!(span < numbers.len() as u64, "no segment is missing on the path: {:?}", stored.keys());
}

#[test]
fn a_failover_that_lost_wal_is_followed_from_its_switch_point_and_both_histories_are_kept() {
    let (repo, primary) = (TestRepo::init(), server());
    let standby = primary.standby().start();
    let receiver = Receiver::start_at(&repo, &whichever_is_primary(&primary, &standby), &[]);
    receiver.wait_for_log("streaming timeline 1");
    wait_for_segment(&repo, &write_segments(&primary, 1));
    primary.wait_replayed_by(&standby);
    standby.stop(Stop::Fast);
    let lost = write_segments(&primary, 4);
    wait_for_segment(&repo, &lost);
    let lost_end = primary.psql("select pg_current_wal_flush_lsn()");
    primary.crash();
    standby.start();
    standby.promote();
    receiver.wait_for_log("streaming timeline 2");
    standby.psql("create table on_the_new_timeline (a int)");
    // What the old timeline had is not taken for what the new one has.
    let within =
        format!("flush_lsn < pg_current_wal_flush_lsn() and pg_current_wal_flush_lsn() < '{lost_end}'");
    standby.wait_sql(&format!("select bool_and({within})::text from pg_stat_replication"), "true");
    let new = write_segments(&standby, 2);
    wait_for_segment(&repo, &new);
    receiver.leave();
    let stored = segments(&repo);
    assert!(stored.contains_key(&lost), "{:?}", stored.keys());
    let first_new = stored.keys().find(|name| name.starts_with("00000002")).expect("there").clone();
    assert!(first_new[8..] < lost[8..], "{first_new} begins before {lost} ends");
    assert_holds(&stored, &segment_files(&standby.data_dir().join("pg_wal"), &first_new, &new));
}
