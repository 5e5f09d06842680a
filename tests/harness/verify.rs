//! Is a server's data right? What every table holds, whether pgbench's books balance, and what
//! PostgreSQL's own checkers say.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::cluster::{Cluster, Stop};
use super::host::pg_command;

/// For each permanent table, "database/table", the number of its rows and a digest over all of them.
pub type Content = BTreeMap<String, String>;

/// For each permanent table, a query for its name, the number of rows and a digest that no order changes.
const CONTENT: &str = r#"
select format($f$select %L, count(*), coalesce(md5(string_agg(md5(r::text), '' order by md5(r::text))), '') from %s r$f$,
              c.oid::regclass, c.oid::regclass)
  from pg_class c join pg_namespace n on n.oid = relnamespace
 where relkind in ('r', 'm') and relpersistence = 'p' and nspname !~ '^pg_' and nspname <> 'information_schema'
 order by 1 \gexec
"#;

/// Every transaction of pgbench adds the same delta to an account, a teller, a branch and the history.
const BALANCES: &str = "
select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
       (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)";

impl Cluster {
    pub fn databases(&self) -> Vec<String> {
        // Nobody can connect to one of which a DROP DATABASE was interrupted (DATCONNLIMIT_INVALID_DB, pg_database.h).
        let valid = "select datname from pg_database where datallowconn and datconnlimit <> -2 order by 1";
        let names = self.psql(valid);
        names.lines().filter(|name| *name != "template1").map(str::to_owned).collect()
    }

    /// What all tables of all databases hold.
    pub fn content(&self) -> Content {
        let mut content = Content::new();
        for database in self.databases() {
            for row in self.psql_in(&database, CONTENT).lines() {
                let (table, rest) = row.split_once('|').expect("a name and what is in it");
                content.insert(format!("{database}/{table}"), rest.to_owned());
            }
        }
        content
    }

    /// Panics with the tables that differ.
    #[track_caller]
    pub fn assert_content(&self, expected: &Content) {
        assert_same(&self.content(), expected);
    }

    /// pgbench's transactions are there wholly or not at all.
    #[track_caller]
    pub fn assert_balanced(&self) {
        let sums = self.psql(BALANCES);
        let sums: Vec<&str> = sums.split('|').collect();
        assert!(sums.iter().all(|sum| Some(sum) == sums.first()), "pgbench's sums differ: {sums:?}");
    }

    /// pg_amcheck over all databases: heaps, indexes, and each heap row in its indexes. The server must not be
    /// in recovery.
    #[track_caller]
    pub fn assert_sound(&self) {
        let arguments = ["--all", "--install-missing", "--heapallindexed", "--parent-check", "--jobs=2"];
        let said = self.run_client("pg_amcheck", &arguments);
        assert!(said.trim().is_empty(), "pg_amcheck: {said}");
    }

    /// pg_checksums over the whole cluster, which is stopped for it.
    #[track_caller]
    pub fn assert_checksums(&self) {
        if self.is_running() {
            self.stop(Stop::Fast);
        }
        let output = pg_command("pg_checksums").arg("--check").arg("-D").arg(self.data_dir()).output();
        let output = output.expect("start pg_checksums");
        assert!(output.status.success(), "pg_checksums: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Each file, directory and link below `dir`: mode, owner, and what is in it. Links are not followed.
pub fn listing(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry.unwrap_or_else(|error| panic!("list {}: {error}", dir.display()));
        let path = entry.path();
        let metadata = entry.metadata().unwrap_or_else(|error| panic!("stat {}: {error}", path.display()));
        let content = if metadata.is_symlink() {
            format!("-> {}", fs::read_link(path).expect("read a link").display())
        } else if metadata.is_file() {
            let bytes = fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            format!("{} bytes {}", bytes.len(), blake3::hash(&bytes).to_hex())
        } else {
            "directory".to_owned()
        };
        let (mode, owner) = (metadata.permissions().mode(), metadata.uid());
        found.insert(path.display().to_string(), format!("{mode:o} {owner} {content}"));
    }
    found
}

/// Panics with the differences alone: two whole maps are too long to read.
#[track_caller]
pub fn assert_same(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let differing: Vec<String> = expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)))
        .filter(|key| found.get(*key) != expected.get(*key))
        .map(|key| format!("{key}: {:?}, should be {:?}", found.get(key), expected.get(key)))
        .collect();
    assert!(differing.is_empty(), "{} differences:\n{}", differing.len(), differing.join("\n"));
}
