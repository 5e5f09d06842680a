//! `pgark metrics` by the real program: what it says of a real archive, where the text goes, and that dashboard,
//! alerts and documentation speak of the metrics that there are.

mod harness;
use harness::*;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

/// The names of metrics in a text of any kind.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    words.filter(|word| word.starts_with("pgark_")).map(String::from).collect()
}

/// The value of the only sample that begins so.
fn value(text: &str, name: &str) -> f64 {
    let mut samples = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let sample = samples.next().unwrap_or_else(|| panic!("no {name} in {text}"));
    assert_eq!(samples.next(), None, "several of {name}");
    sample.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{sample}"))
}

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).expect("read")
}

#[test]
fn a_real_archive_has_all_metrics_and_dashboard_and_alerts_use_no_others() {
    let repo = TestRepo::init();
    let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
    run(&mut repo.basebackup(&primary)).succeeds();
    primary.psql("create table t as select 1 as a");
    primary.archive_everything();
    let before = run(&mut repo.pgark(&["metrics"])).succeeds();
    assert!(!before.contains("pgark_check_") && !before.contains("pgark_verify_"), "nobody looked yet");
    run(&mut repo.pgark(&["verify"])).succeeds();
    let checked = run(repo.pgark(&["check", "--no-switch"]).envs(primary.env()));
    let text = run(&mut repo.pgark(&["metrics"])).succeeds();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert_eq!(value(&text, "pgark_verify_sound"), 1.0);
    assert_eq!(value(&text, "pgark_verify_damaged_objects"), 0.0);
    assert_eq!(value(&text, "pgark_damaged_packs"), 0.0);
    assert_eq!(Some(value(&text, "pgark_check_status")), checked.code.map(f64::from), "{checked}");
    let server =
        text.lines().find(|line| line.contains("check=\"server\"")).unwrap_or_else(|| panic!("{text}"));
    assert!(server.starts_with("pgark_check_finding_status{") && server.ends_with(" 0.0"), "{server}");
    assert_eq!(value(&text, "pgark_backups"), 1.0);
    assert_eq!(value(&text, "pgark_up"), 1.0);
    assert_eq!(value(&text, "pgark_backups_broken"), 0.0);
    assert_eq!(value(&text, "pgark_wal_missing_segments"), 0.0);
    assert_eq!(value(&text, "pgark_window_interrupted"), 0.0);
    let (from, to) = (
        value(&text, "pgark_window_from_timestamp_seconds"),
        value(&text, "pgark_window_to_timestamp_seconds"),
    );
    assert!(from <= to, "{from} to {to}");
    let files = fs::read_dir(repo.path(&repo.only("backup.json")).parent().expect("a parent"))
        .expect("listed")
        .map(|file| file.expect("listed").metadata().expect("there").len())
        .sum::<u64>();
    assert!(text.contains("kind=\"backups\"") && text.contains(&format!("}} {files}.0")), "{files}: {text}");

    let there = names(&text);
    let documented = names(&document("metrics.md"));
    assert_eq!(there, documented, "docs/metrics.md lists what there is");
    for user in ["monitoring/alerts.yml", "monitoring/grafana-dashboard.json"] {
        let used = names(&document(user));
        assert!(!used.is_empty());
        assert!(used.is_subset(&there), "{user} uses {:?}", used.difference(&there));
    }
}

#[test]
fn the_dashboard_is_json_and_its_panels_do_not_overlap() {
    let board: serde_json::Value =
        serde_json::from_str(&document("monitoring/grafana-dashboard.json")).expect("json");
    let mut taken = BTreeSet::new();
    for panel in board["panels"].as_array().expect("panels") {
        let place = |side: &str| panel["gridPos"][side].as_u64().expect("a number");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
    }
    assert!(!taken.is_empty());
}

#[test]
fn a_repository_that_cannot_be_read_is_down_and_nothing_else_is_said() {
    let repo = TestRepo::golden();
    fs::rename(repo.root(), repo.scratch().join("elsewhere")).expect("unmounted");
    let file = repo.scratch().make_dir("collector").join("pgark.prom");
    let mut metrics = repo.pgark(&["metrics", "--textfile"]);
    run(metrics.arg(&file)).fails_with(2, "no repository here");
    let text = fs::read_to_string(&file).expect("written");
    assert_eq!(value(&text, "pgark_up"), 0.0);
    let expected = BTreeSet::from(["pgark_collected_timestamp_seconds".to_string(), "pgark_up".to_string()]);
    assert_eq!(names(&text), expected);
}

#[test]
fn the_textfile_is_replaced_whole_and_everyone_may_read_it() {
    let repo = TestRepo::golden();
    let file = repo.scratch().make_dir("collector").join("pgark.prom");
    for _ in 0..2 {
        assert_eq!(run(repo.pgark(&["metrics", "--textfile"]).arg(&file)).succeeds(), "");
        assert!(fs::read_to_string(&file).expect("written").ends_with("# EOF\n"));
    }
    assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o644);
    let left = fs::read_dir(file.parent().expect("a parent")).expect("listed").count();
    assert_eq!(left, 1, "nothing but the file");
    let mut metrics = repo.pgark(&["metrics", "--textfile", "/nowhere/pgark.prom"]);
    run(&mut metrics).fails_with(6, "/nowhere");
}

#[test]
fn they_are_served_over_http_until_a_signal_comes() {
    let repo = TestRepo::golden();
    let mut command = repo.std_program("pgark");
    command.args(["metrics", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
    let mut server = command.spawn().expect("started");
    let mut said = String::new();
    let mut log = BufReader::new(server.stderr.take().expect("piped"));
    log.read_line(&mut said).expect("a line");
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("no address in {said:?}"));
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("pgark_backups{"), "{answer}");
    let pid = rustix::process::Pid::from_raw(server.id().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    assert!(server.wait().expect("ended").success());
}
