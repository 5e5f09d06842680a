//! postgresql.conf.sample: a server takes every line of it, commented-out ones included.

mod harness;

use harness::*;

#[test]
fn a_server_takes_the_sample_and_archives_with_it() {
    let sample = include_str!("../postgresql.conf.sample");
    let repo = TestRepo::init();
    let cluster = Cluster::builder().server_env("PGARK_CONFIG", repo.config().display()).build();
    cluster.append_config(&uncommented(sample));
    // The sample relies on PATH, which the tests do not let the programs be in.
    let push = program_path("wal-push");
    cluster.append_config(&format!("archive_command = '{} %p'", push.display()));
    cluster.start();
    let wrong = "select coalesce(name, '') || ' ' || error from pg_file_settings where error is not null";
    assert_eq!(cluster.psql(wrong), "");
    let segment = cluster.archive_everything();
    repo.only(&segment);
}

/// `#setting = value` becomes a setting; prose stays a comment. PostgreSQL 14 knows no archive_library.
fn uncommented(sample: &str) -> String {
    let is_setting = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let lines = sample.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if is_setting(rest) && (pg_major() > 14 || !rest.starts_with("archive_library")) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}
