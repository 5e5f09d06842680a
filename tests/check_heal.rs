//! `pgark check --heal` after real failovers: what the dead primary did not archive comes from the new one.

mod harness;
// A check by the real program, with its JSON. Shared with `check.rs`, which uses all of it.
#[allow(dead_code)]
#[path = "check/scene.rs"]
mod scene;

use std::fs;

use harness::*;
use scene::{Scene, check, healthy};

/// A failover that left a hole.
struct Failover {
    repo: TestRepo,
    /// The new primary, on timeline 2; archives there.
    server: Cluster,
    /// The segments of timeline 1 that were not archived, but for the last, unfinished one.
    lost: Vec<String>,
    rows: String,
}

/// A primary whose archiving broke, and the standby that took over from it.
fn fail_over(archives: bool) -> Failover {
    let Scene { repo, server: primary } = Scene::new();
    // No checkpoint may recycle what is to be brought while the test runs.
    let mut standby = primary.standby().set("wal_keep_size", "64MB");
    if !archives {
        standby = standby.set("archive_mode", "off");
    }
    let standby = standby.start();
    primary.append_config("archive_command = 'false'");
    primary.reload();
    primary.wait_sql("show archive_command", "false");
    let mut lost = Vec::new();
    for _ in 0..3 {
        primary.psql("insert into t select generate_series(1, 3000)");
        lost.push(primary.switch_wal());
    }
    primary.psql("insert into t values (1)");
    primary.wait_replayed_by(&standby);
    primary.crash();
    standby.promote();
    if archives {
        standby.append_config(&format!("archive_command = '{} %p'", program_path("wal-push").display()));
        standby.reload();
    }
    standby.psql("insert into t values (2)");
    if archives {
        standby.archive_everything();
    }
    let rows = standby.psql("select count(*) from t");
    Failover { repo, server: standby, lost, rows }
}

impl Failover {
    fn stored(&self, name: &str) -> Vec<String> {
        let mut found = self.repo.matching(&format!("{name}.zst"));
        // What a killed creation leaves beside is no object.
        found.retain(|key| key.ends_with(".zst"));
        found
    }

    fn heal(&self) -> scene::Checked {
        check(&self.repo, &self.server, &["--heal"])
    }

    /// A restore to the end of the archive has all rows.
    fn restores(&self) {
        let scratch = Scratch::new();
        let restored = self.repo.restore(&scratch, "latest", &[]);
        assert_eq!(restored.psql("select count(*) from t"), self.rows);
    }
}

#[test]
fn a_hole_that_a_failover_left_is_found_healed_and_restored_across() {
    let failed = fail_over(true);
    let before = check(&failed.repo, &failed.server, &[]);
    assert_eq!(before.code, Some(2));
    before.finds(&["critical holes"]);
    let hole = &before.of("holes")[0];
    assert!(hole["what"].as_str().is_some_and(|what| what.contains(&failed.lost[0])), "{hole}");
    assert!(hole["remedy"].as_str().is_some_and(|remedy| remedy.contains("--heal")), "{hole}");
    let healed = failed.heal();
    healed.finds(&[]);
    assert_eq!(healed.code, Some(0));
    let files: Vec<&str> = healed.json["healed"]
        .as_array()
        .expect("files")
        .iter()
        .filter_map(|it| it["file"].as_str())
        .collect();
    assert_eq!(files, failed.lost);
    for name in &failed.lost {
        assert_eq!(failed.stored(name).len(), 1, "{name}");
    }
    failed.restores();
    assert_eq!(failed.heal().json["healed"].as_array().map(Vec::len), Some(0), "once is enough");
}

#[test]
fn the_unfinished_last_segment_of_the_old_timeline_is_never_brought_as_a_whole_one() {
    // Without archiving PostgreSQL leaves it in pg_wal under its own name.
    let failed = fail_over(false);
    let pg_wal = failed.server.data_dir().join("pg_wal");
    let history = fs::read_to_string(pg_wal.join("00000002.history")).expect("a history");
    let fork = history.split_whitespace().nth(1).expect("a switch point").to_owned();
    let last =
        failed.server.psql(&format!("select '00000001' || substr(pg_walfile_name('{fork}'::pg_lsn), 9)"));
    assert!(pg_wal.join(&last).exists(), "it is not there: the test proves nothing");
    let ended = failed.server.switch_wal();
    let healed = check(&failed.repo, &failed.server, &["--heal", "--no-switch"]);
    // archive_mode is off, and that is told; but all that was written is there now.
    assert!(healed.of("holes")[0]["level"] == "ok", "{:#}", healed.json);
    assert!(healed.of("timeline")[0]["level"] == "ok", "{:#}", healed.json);
    assert_eq!(failed.stored(&last), Vec::<String>::new());
    assert_eq!(failed.stored(&ended).len(), 1);
    assert_eq!(failed.repo.matching("00000002.history").len(), 1, "the history is healed, too");
    failed.restores();
}

#[test]
fn what_is_not_whole_or_not_what_its_name_says_is_not_brought() {
    let failed = fail_over(true);
    let pg_wal = failed.server.data_dir().join("pg_wal");
    damage_file(&pg_wal.join(&failed.lost[0]), Damage::FlipByte(8192 * 3 + 200));
    // As a recycled file: the content of another segment.
    fs::copy(pg_wal.join(&failed.lost[2]), pg_wal.join(&failed.lost[1])).expect("copied");
    let checked = failed.heal();
    checked.finds(&["critical holes"]);
    assert_eq!(failed.stored(&failed.lost[0]), Vec::<String>::new());
    assert_eq!(failed.stored(&failed.lost[1]), Vec::<String>::new());
    assert_eq!(failed.stored(&failed.lost[2]).len(), 1);
}

#[test]
fn healing_needs_the_servers_own_host_and_user() {
    let Scene { repo, server } = Scene::new();
    server.psql("create role plain login");
    let checked = check(&repo, &server, &["--heal", "--no-switch", "-U", "plain"]);
    checked.finds(&["critical heal", "unknown backlog"]);
    let remedy = checked.of("heal")[0]["remedy"].clone();
    assert_eq!(remedy, "grant pg_monitor to \"plain\"");
}

#[test]
fn killed_anywhere_it_leaves_nothing_half_done_and_goes_on() {
    let failed = fail_over(true);
    let mut kills = 0;
    for number in 1.. {
        let mut command = failed.repo.std_program("pgark");
        command.args(["check", "--heal", "--no-switch", "--no-record"]).envs(failed.server.env());
        let (outcome, _) = run_with_fault(command, Fault::kill_at(number).under(failed.repo.root()));
        if outcome.code.is_some() {
            break;
        }
        kills += 1;
        // What a killed creation leaves beside the object, as a backup's sweep removes it: else every further run
        // would make one more attempt at a free name, and be killed there.
        for staged in failed.repo.list().iter().filter(|key| key.contains('#')) {
            failed.repo.damage(staged, Damage::Delete);
        }
        for stored in failed.lost.iter().flat_map(|name| failed.stored(name)) {
            let tested =
                std::process::Command::new("zstd").arg("-tq").arg(failed.repo.path(&stored)).status();
            assert!(tested.expect("start zstd").success(), "{stored} is half there");
        }
    }
    assert!(kills > 3, "it was killed {kills} times only");
    failed.heal().finds(&[]);
    failed.restores();
}

#[test]
fn a_healthy_cluster_needs_no_healing() {
    let repo = TestRepo::init();
    let server = healthy().archive_to(&repo).start();
    run(&mut repo.basebackup(&server)).succeeds();
    let checked = check(&repo, &server, &["--heal"]);
    checked.finds(&[]);
    assert_eq!(checked.json["healed"].as_array().map(Vec::len), Some(0));
}
