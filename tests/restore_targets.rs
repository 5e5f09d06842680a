//! A cluster that was backed up under load comes back exactly as it was, at every kind of target.

mod harness;

use std::path::Path;
use std::process::Child;

use harness::*;

/// Short transactions of another database: rows, and tables that come and go.
const SHOP: &str = "\
insert into orders (amount, note) values (random() * 100, repeat('x', 400));
update orders set amount = amount + 1 where id = (select max(id) from orders);
drop table if exists churn_:client_id;
create table churn_:client_id as select generate_series(1, 300) as a;
drop table churn_:client_id;
";

/// A restore, and what must be in it; None for a moment that nobody could look at.
struct Case {
    name: &'static str,
    arguments: Vec<String>,
    content: Option<Content>,
}

impl Case {
    fn new(name: &'static str, arguments: &[&str], content: Content) -> Self {
        Self {
            name,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            content: Some(content),
        }
    }
}

#[test]
fn every_kind_of_target_brings_back_what_was_there() {
    let repo = TestRepo::init();
    let source = source(&repo);
    back_up_under_load(&repo, &source);
    // What a stopped pgbench had begun is over before anybody looks.
    source.wait_sql("select count(*) from pg_stat_activity where backend_type = 'client backend'", "1");
    let cases = live_through(&source);
    source.psql("checkpoint");
    let tablespaces = source.scratch().join("ts");
    let before = listing(&tablespaces);

    side_by_side(&cases, |case| case.name, |case| check(&repo, &tablespaces, case));

    assert_same(&listing(&tablespaces), &before);
    source.assert_checksums();
}

/// pgbench in the database postgres, other tables in others, two tablespaces, unlogged tables in each.
fn source(repo: &TestRepo) -> Cluster {
    let builder = Cluster::builder().archive_to(repo).tablespace("fast").tablespace("slow");
    let source = builder.set("autovacuum", "off").start();
    source.pgbench_init(1);
    source.psql(
        "create table marker (name text primary key);
         alter table pgbench_history set tablespace fast;
         create index on pgbench_accounts (abalance, aid) tablespace slow;
         create database shop tablespace slow;
         create database \"odd 'name'\";",
    );
    source
        .psql_in("odd 'name'", "create table kept as select a, md5(a::text) from generate_series(1, 5000) a");
    source.psql_in("shop", "create table orders (id bigserial primary key, amount numeric, note text)");
    for (database, tablespace) in [("postgres", "fast"), ("shop", "pg_default")] {
        let unlogged = format!(
            "create unlogged table cache (id bigserial primary key, a text) tablespace {tablespace};
             insert into cache (a) select md5(i::text) from generate_series(1, 10000) i;"
        );
        source.psql_in(database, &unlogged);
    }
    source.scratch().write("shop.sql", SHOP);
    source
}

/// Databases are made and dropped and tables rewritten too while the backup runs.
fn back_up_under_load(repo: &TestRepo, source: &Cluster) {
    let script = source.scratch().join("shop.sql");
    let script = script.to_str().expect("UTF-8");
    let _tellers = source.pgbench_in_background(&["-c", "4"]);
    let _shop = source.pgbench_in_background(&["-c", "2", "-f", script, "shop"]);
    let mut backup = repo.std_program("basebackup");
    backup.envs(source.env()).args(["--label", "busy", "--rate-limit", "25MB"]);
    let mut backup = backup.spawn().expect("start basebackup");
    let mut round = 1;
    while is_unfinished(&mut backup) {
        source.psql(&format!(
            "create database born_{round} template \"odd 'name'\";
             drop database if exists born_{};
             vacuum full pgbench_tellers;
             truncate marker;",
            round - 1
        ));
        round += 1;
    }
    assert!(backup.wait().expect("wait for basebackup").success());
    assert!(round > 1, "the backup ended before anything happened");
}

fn is_unfinished(child: &mut Child) -> bool {
    child.try_wait().expect("wait for basebackup").is_none()
}

/// Goes on writing, and notes at some moments what is there and how to get back to it.
fn live_through(source: &Cluster) -> Vec<Case> {
    let mut cases = vec![Case {
        name: "immediate",
        arguments: vec!["--target".into(), "immediate".into()],
        content: None,
    }];

    work(source, "time");
    let (content, time) = (source.content(), source.now());
    cases.push(Case::new("time", &["--target-time", &time], content));

    work(source, "lsn");
    let content = source.content();
    // Inclusive: the first record from there on is replayed too, and this one changes nothing.
    let lsn = source.psql(
        "select pg_current_wal_insert_lsn();
         select pg_logical_emit_message(false, 'test', 'x') \\g /dev/null",
    );
    cases.push(Case::new("lsn", &["--target-lsn", &lsn], content));

    work(source, "xid");
    let before = source.content();
    let xid = source.psql("insert into marker values ('the transaction') returning pg_current_xact_id()");
    cases.push(Case::new("xid", &["--target-xid", &xid], source.content()));
    cases.push(Case::new("xid-exclusive", &["--target-xid", &xid, "--exclusive"], before));

    work(source, "name");
    let content = source.content();
    source.psql("select pg_create_restore_point('before the ''drop''')");
    source.psql("drop table pgbench_history; drop database \"odd 'name'\"; drop table cache;");
    cases.push(Case::new("name", &["--target-name", "before the 'drop'"], content));

    source.psql("create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))");
    source.psql("update pgbench_tellers set tbalance = 0; update pgbench_branches set bbalance = 0");
    // Without a sequence: 15.18 and its contemporaries lose unlogged ones that recovery creates (seq_redo left
    // their init fork in memory).
    source.psql("update pgbench_accounts set abalance = 0; create unlogged table cache (a text)");
    work(source, "latest");
    let content = source.content();
    source.archive_everything();
    cases.push(Case::new("latest", &[], content));
    cases
}

/// Some transactions of each kind, and a row that says when.
fn work(source: &Cluster, marker: &str) {
    let script = source.scratch().join("shop.sql");
    source.pgbench(&["-c", "4", "-t", "60"]);
    source.pgbench(&["-c", "2", "-t", "20", "-f", script.to_str().expect("UTF-8"), "shop"]);
    source.psql(&format!("insert into marker values ('{marker}')"));
    source.psql("insert into cache (a) values ('unlogged')");
}

fn check(repo: &TestRepo, tablespaces: &Path, case: &Case) {
    let scratch = Scratch::new();
    let mut arguments: Vec<String> = case.arguments.clone();
    for name in ["fast", "slow"] {
        // By name or by location, as the operator likes.
        let old = if name == "fast" { name.to_owned() } else { tablespaces.join(name).display().to_string() };
        arguments.extend(["--tablespace-map".to_owned(), format!("{old}={}", scratch.join(name).display())]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let restored = repo.restore(&scratch, "data", &arguments);
    if let Some(content) = &case.content {
        restored.assert_content(content);
    }
    restored.assert_balanced();
    assert_eq!(restored.psql("select pg_is_in_recovery()"), "f");
    let here = restored
        .psql("select pg_tablespace_location(oid) from pg_tablespace where oid > 16383 order by spcname");
    assert_eq!(here, format!("{}\n{}", scratch.join("fast").display(), scratch.join("slow").display()));
    unlogged_tables_are_empty_and_work(&restored);
    restored.assert_sound();
    restored.assert_checksums();
    restored.start();
    restored.assert_balanced();
}

fn unlogged_tables_are_empty_and_work(restored: &Cluster) {
    for database in ["postgres", "shop"] {
        assert_eq!(restored.psql_in(database, "select count(*) from cache"), "0");
        restored.psql_in(database, "insert into cache (a) values ('new')");
        assert_eq!(restored.psql_in(database, "select a from cache"), "new");
    }
}
