//! Drop something, find it, do what is said, and look: what was dropped is there, and so is the last commit before it.

use serde_json::Value;

use super::scene::Scene;
use crate::harness::*;

/// A way to lose a table, by what name it is found, and what it is called.
struct Case {
    name: &'static str,
    /// In the database postgres.
    sql: &'static [&'static str],
    flags: &'static [&'static str],
    fate: &'static str,
    /// What counts what was lost: 1000 before.
    look: &'static str,
    prepared: bool,
}

const PLAIN: Case = Case { name: "", sql: &[], flags: &[], fate: "dropped", look: "", prepared: false };

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "drop table",
            sql: &["drop table plain"],
            flags: &["--table", "public.plain"],
            look: "select count(*) from plain",
            ..PLAIN
        },
        Case {
            name: "truncate",
            sql: &["truncate emptied"],
            flags: &["--table", "postgres.public.emptied"],
            fate: "truncated",
            look: "select count(*) from emptied",
            ..PLAIN
        },
        Case {
            name: "rewrite",
            sql: &["alter table rewritten alter column b type int using 0"],
            flags: &["--table", "rewritten"],
            fate: "rewritten",
            look: "select count(*) from rewritten where b = 'x'",
            ..PLAIN
        },
        Case {
            name: "subtransaction",
            sql: &["begin; insert into other values (1); savepoint s; drop table nested; release s; commit"],
            flags: &["--table", "nested"],
            look: "select count(*) from nested",
            ..PLAIN
        },
        Case {
            name: "prepared",
            sql: &[
                "begin; drop table promised; prepare transaction 'it''s due'",
                "commit prepared 'it''s due'",
            ],
            flags: &["--table", "promised"],
            look: "select count(*) from promised",
            prepared: true,
            ..PLAIN
        },
        Case {
            name: "schema",
            sql: &["drop schema \"The Shop\" cascade"],
            flags: &["--table", "\"The Shop\".\"Order.s\""],
            look: "select count(*) from \"The Shop\".\"Order.s\"",
            ..PLAIN
        },
        Case {
            name: "partitioned",
            sql: &["drop table parts"],
            flags: &["--table", "parts"],
            look: "select count(*) from parts",
            ..PLAIN
        },
    ]
}

fn fill(source: &Cluster) {
    source.psql(
        "create table marker (name text primary key);
         create table other (a int);
         create schema \"The Shop\";
         create table \"The Shop\".\"Order.s\" as select a, repeat('x', 100) as b from generate_series(1, 1000) a;
         create view \"The Shop\".seen as select * from \"The Shop\".\"Order.s\";
         create table parts (a int) partition by range (a);
         create table parts_1 partition of parts for values from (0) to (2000);
         insert into parts select generate_series(1, 1000);",
    );
    for name in ["plain", "emptied", "rewritten", "nested", "promised"] {
        source.psql(&format!(
            "create table {name} (a int primary key, b text); insert into {name} select a, 'x' from generate_series(1, 1000) a"
        ));
    }
    source.psql("create database doomed");
    source.psql_in("doomed", "create table inside as select generate_series(1, 1000) a");
}

#[test]
fn what_was_lost_is_there_just_before_the_moment_that_is_found() {
    let scene = Scene::start(Cluster::builder());
    fill(&scene.source);
    scene.back_up();
    for (n, case) in cases().iter().enumerate() {
        scene.source.psql(&format!("insert into marker values ('before {n}')"));
        case.sql.iter().for_each(|sql| drop(scene.source.psql(sql)));
        scene.source.psql(&format!("insert into marker values ('after {n}')"));
    }
    scene.source.psql("insert into marker values ('before the database')");
    scene.source.psql("drop database doomed");
    scene.source.psql("insert into marker values ('after the database')");
    scene.source.archive_everything();
    let scratch = Scratch::new();

    for (n, case) in cases().iter().enumerate() {
        let hit = scene.find_one(case.flags);
        check_case(case, &hit);
        let restored = scene.restore(&scratch, case.name, &hit);
        if case.prepared {
            assert!(
                hit["restore"]["then"].as_str().expect("advice").contains("ROLLBACK PREPARED"),
                "{hit:#}"
            );
            let xid = &hit["xid"];
            let gid =
                restored.psql(&format!("select gid from pg_prepared_xacts where transaction = '{xid}'"));
            assert_eq!(gid, "it's due");
            restored.psql("rollback prepared 'it''s due'");
        }
        assert_eq!(restored.psql(case.look), "1000", "{}", case.name);
        let newest =
            "select name from marker order by substr(name, strpos(name, ' ') + 1) desc, name desc limit 1";
        assert_eq!(restored.psql(newest), format!("before {n}"), "{}", case.name);
    }
    let hit = scene.find_one(&["--table", "doomed.public.inside"]);
    assert_eq!((&hit["what"], &hit["database"]["name"]), (&"database-dropped".into(), &"doomed".into()));
    let restored = scene.restore(&scratch, "database", &hit);
    assert_eq!(restored.psql_in("doomed", "select count(*) from inside"), "1000");
    assert_eq!(restored.psql("select count(*) from marker where name ~ 'database'"), "1");
}

fn check_case(case: &Case, hit: &Value) {
    assert_eq!(hit["what"], "relations", "{}: {hit:#}", case.name);
    assert_eq!(hit["relations"][0]["fate"], case.fate, "{}: {hit:#}", case.name);
    assert_eq!(hit["prepared"] == true, case.prepared, "{}: {hit:#}", case.name);
    assert_eq!(hit["relations"][0]["database"]["name"], "postgres", "{}: {hit:#}", case.name);
}
