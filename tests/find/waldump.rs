//! A busy server: every drop, restore point and commit that pg_waldump tells is found, at the same LSNs, and names are
//! those that the server had told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::scene::Scene;
use crate::harness::*;

/// Tables that come and go in several sessions, some in subtransactions, some rolled back.
const CHURN: &str = "\
create table churn_:client_id (a int primary key, b text);
insert into churn_:client_id select a, repeat(md5(a::text), 80) from generate_series(1, 20) a;
truncate churn_:client_id;
begin;
savepoint one;
drop table churn_:client_id;
rollback to one;
savepoint two;
alter table churn_:client_id add c int;
release two;
commit;
begin;
drop table churn_:client_id;
rollback;
create temporary table t (a int);
drop table t;
drop table churn_:client_id;
";

/// A record of pg_waldump: LSN, rmgr, xid and description.
struct Record {
    lsn: String,
    rmgr: String,
    desc: String,
}

/// From a segment of the archive to the end.
fn waldump(dir: &Path, first: &str, last: &str) -> Vec<Record> {
    let output =
        pg_command("pg_waldump").arg("-p").arg(dir).args([first, last]).output().expect("pg_waldump");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let field = |line: &str, from: &str, to: &str| {
        let (_, rest) = line.split_once(from).unwrap_or_else(|| panic!("no {from:?} in {line:?}"));
        rest.split_once(to).map_or(rest, |(value, _)| value).trim().to_string()
    };
    let record = |line: &str| Record {
        lsn: plain(&field(line, "lsn: ", ",")),
        rmgr: field(line, "rmgr: ", " "),
        desc: field(line, "desc: ", "\n"),
    };
    text.lines().filter(|line| line.starts_with("rmgr: ")).map(record).collect()
}

/// Without leading zeros.
fn plain(lsn: &str) -> String {
    lsn.parse::<pgark::pg::lsn::Lsn>().expect("an LSN").to_string()
}

/// The files that a commit removes, as pg_waldump tells them: "rels: base/5/16384 base/5/16385;".
fn removed(record: &Record) -> BTreeSet<String> {
    let listed = record.desc.split_once("rels: ").map(|(_, rest)| rest.split(';').next().unwrap_or_default());
    listed
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|path| path.strip_prefix("base/"))
        .map(str::to_owned)
        .collect()
}

fn lsns(hits: &[Value]) -> Vec<String> {
    hits.iter().map(|hit| hit["lsn"].as_str().expect("an LSN").to_owned()).collect()
}

/// The archived WAL as files.
fn unpack(scene: &Scene, scratch: &Scratch) -> (String, String) {
    let keys: Vec<String> =
        scene.repo.matching("/wal/").into_iter().filter(|key| key.ends_with(".zst")).collect();
    let mut names = Vec::new();
    for key in keys {
        let bytes = zstd::decode_all(scene.repo.read(&key).as_slice()).expect("a segment is a zstd file");
        let name = key.rsplit('/').next().and_then(|last| last.strip_suffix(".zst")).expect("a name");
        std::fs::write(scratch.join(name), bytes).expect("write a segment");
        names.push(name.to_owned());
    }
    (names.first().expect("segments").clone(), names.last().expect("segments").clone())
}

fn live(scene: &Scene) {
    scene.source.scratch().write("churn.sql", CHURN);
    let script = scene.source.scratch().join("churn.sql");
    scene.source.pgbench_init(1);
    let script = script.to_str().expect("UTF-8");
    for round in 0..3 {
        scene.source.run_client("pgbench", &["-n", "-c", "3", "-t", "15", "-f", script]);
        scene.source.psql(&format!(
            "select pg_create_restore_point('round {round}');
             vacuum full pgbench_tellers; reindex table pgbench_branches; cluster pgbench_accounts using pgbench_accounts_pkey;"
        ));
        scene.source.psql("checkpoint");
    }
    scene.source.archive_everything();
}

fn compare(builder: ClusterBuilder) {
    let scene = Scene::start(builder);
    live(&scene);
    let scratch = Scratch::new();
    let (first, last) = unpack(&scene, &scratch);
    let records = waldump(scratch.path(), &first, &last);
    let ends = |kind: &str| -> Vec<&Record> {
        records.iter().filter(|it| it.rmgr == "Transaction" && it.desc.starts_with(kind)).collect()
    };

    let points = scene.find(&["--points", "--limit", "0"]);
    let expected: Vec<String> = records
        .iter()
        .filter(|it| it.rmgr == "XLOG" && it.desc.starts_with("RESTORE_POINT"))
        .map(|it| it.lsn.clone())
        .collect();
    assert_eq!(lsns(&points), expected);

    let around = scene.find(&["--around", "1 second ago", "--within", "1h", "--limit", "0"]);
    let of = |what: &str| -> Vec<String> {
        lsns(&around.iter().filter(|hit| hit["what"] == what).cloned().collect::<Vec<_>>())
    };
    let told = |ends: &[&Record]| ends.iter().map(|it| it.lsn.clone()).collect::<Vec<_>>();
    // pg_waldump begins with the first record that it can read, as we do.
    assert_eq!(of("commit"), told(&ends("COMMIT")));
    assert_eq!(of("abort"), told(&ends("ABORT")));

    let hits = scene.find(&["--dropped", "--rewritten", "--limit", "0"]);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for hit in &hits {
        let files =
            hit["relations"].as_array().expect("relations").iter().filter_map(|it| it["storage"].as_str());
        let files = files.map(|file| file.strip_prefix("1663/").expect("in pg_default").to_owned());
        found.insert(hit["lsn"].as_str().expect("an LSN").to_owned(), files.collect());
        assert_eq!(hit.get("unnamed"), None, "{hit:#}");
        for relation in hit["relations"].as_array().expect("relations") {
            assert!(relation["name"].is_string(), "{hit:#}");
        }
    }
    found.retain(|_, files| !files.is_empty());
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for commit in ends("COMMIT") {
        expected.insert(commit.lsn.clone(), removed(commit));
    }
    expected.retain(|_, files| !files.is_empty());
    // A transaction that made storage and dropped it lost nothing.
    let own = |lsn: &String| expected[lsn].clone();
    let missed: Vec<&String> = expected.keys().filter(|lsn| !found.contains_key(*lsn)).collect();
    assert!(missed.is_empty(), "{missed:?}: {:?}", missed.iter().map(|lsn| own(lsn)).collect::<Vec<_>>());
    for (lsn, files) in &found {
        assert!(files.is_subset(&expected[lsn]), "{lsn}: {files:?} {:?}", expected[lsn]);
    }

    for (flags, fate, count) in [
        (&["--table", "churn_0"][..], "dropped", 45),
        (&["--table", "public.churn_1"], "truncated", 45),
        (&["--table", "pgbench_tellers"], "rewritten", 3),
        (&["--table", "pgbench_accounts"], "rewritten", 3),
    ] {
        let hits = scene.find(&[flags, &["--limit", "0"]].concat());
        let of = hits.iter().filter(|hit| hit["relations"][0]["fate"] == fate).count();
        assert_eq!(of, count, "{flags:?} {fate}");
    }
}

#[test]
fn everything_that_pg_waldump_tells_is_found() {
    compare(Cluster::builder());
}

#[test]
fn compressed_pages_and_logical_wal_tell_the_same() {
    let kinds: &[&str] = if pg_major() == 14 { &["on"] } else { &["pglz", "lz4", "zstd"] };
    for kind in kinds {
        // Not every build has all of them.
        let knows = Cluster::builder().set("wal_compression", kind).set("wal_level", "logical");
        compare(knows);
    }
}

#[test]
fn names_are_found_after_vacuum_full_of_the_catalogs() {
    let scene = Scene::start(Cluster::builder());
    scene.source.psql("create table before (a int); create schema s; create table s.other (a int)");
    scene.source.psql("vacuum full pg_class; vacuum full pg_namespace; vacuum full pg_database");
    scene.source.psql("drop table before; checkpoint");
    scene.source.psql("drop table s.other");
    scene.source.archive_everything();
    for (flags, schema) in
        [(&["--table", "before", "--no-server"][..], "public"), (&["--table", "s.other", "--no-server"], "s")]
    {
        let hit = scene.find_one(flags);
        assert_eq!(hit["relations"][0]["schema"], schema, "{hit:#}");
    }
    // The record that told where the catalogs went is out of the range; the server knows.
    let late = scene.find_one(&["--table", "s.other"])["lsn"].as_str().expect("an LSN").to_owned();
    let hit = scene.find_one(&["--table", "s.other", "--since", &late]);
    assert_eq!(hit["relations"][0]["schema"], "s", "{hit:#}");
}
