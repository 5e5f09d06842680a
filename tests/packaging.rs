//! The Debian package: its sample configuration, its units, the generator that opens the repository to them, and, where
//! root, debootstrap, systemd-nspawn and cargo-deb are there, the package itself in a Debian of its own.

mod harness;
use harness::*;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgark::config::{Config, Overrides};

/// What has no default, and what depends on the machine's cores: examples in the sample.
const EXAMPLES: [&str; 14] = [
    "repo",
    "repo_id",
    "spool",
    "wal_queue_max",
    "push.jobs",
    "fetch.jobs",
    "backup.jobs",
    "restore.jobs",
    "recovery_window",
    "keep_last",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
];
const TABLES: [&str; 6] = ["push", "fetch", "receive", "backup", "restore", "expire"];
const SERVICES: [&str; 5] =
    ["wal-receive@", "basebackup@", "pgark-verify@", "pgark-metrics@", "pgark-check@"];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn sample() -> String {
    fs::read_to_string(packaging().join("pgark.toml")).expect("the sample configuration")
}

/// The table of each line `#key = value` of the sample, its key, and the line without the mark.
fn settings(sample: &str) -> Vec<(String, String, String)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in sample.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_string();
        }
        let key = line.strip_prefix('#').and_then(|rest| rest.split_once(" = ")).map(|(key, _)| key);
        if let Some(key) = key.filter(|key| !key.is_empty() && !key.contains(' ')) {
            found.push((table.clone(), key.to_string(), line[1..].to_string()));
        }
    }
    found
}

fn resolve(text: &str) -> pgark::error::Result<Config> {
    let scratch = Scratch::new();
    let file = scratch.path().join("pgark.toml");
    fs::write(&file, text).expect("write");
    let mut config = Config::resolve(&Overrides { file: Some(file), ..Overrides::default() })?;
    // Where it was read is of no interest.
    config.file = None;
    Ok(config)
}

/// The keys that the program knows in a table ("" for the top), as it tells them when it refuses another.
fn known(table: &str) -> BTreeSet<String> {
    let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let refused = resolve(&format!("{header}zzz = 1\n")).expect_err("no such key");
    let (_, names) = refused.message().split_once("expected ").expect("the keys are told");
    let keys = names.split('`').skip(1).step_by(2).map(str::to_string);
    keys.filter(|key| !TABLES.contains(&key.as_str())).collect()
}

#[test]
fn the_sample_configuration_explains_every_key_there_is() {
    let sample = sample();
    let mut explained = settings(&sample);
    for table in [""].iter().chain(&TABLES) {
        let keys = known(table);
        assert!(!keys.is_empty(), "[{table}]");
        for key in keys {
            let at = explained.iter().position(|(t, k, _)| t == table && *k == key);
            let at = at.unwrap_or_else(|| panic!("the sample has no {key} in [{table}]"));
            explained.remove(at);
        }
    }
    assert!(explained.is_empty(), "the program does not know {explained:?}");
}

#[test]
fn the_sample_configuration_changes_nothing_and_shows_the_defaults() {
    let sample = sample();
    let unchanged = resolve(&sample).expect("the sample as it is");
    let defaults = resolve("").expect("defaults");
    assert_eq!(unchanged, defaults);

    let mut shown = String::new();
    let mut everything = String::new();
    for line in sample.lines() {
        if line.starts_with('[') {
            shown += &format!("{line}\n");
            everything += &format!("{line}\n");
        }
        if let [(_, key, setting)] = settings(line).as_slice() {
            let table = shown.rsplit('[').next().and_then(|rest| rest.split(']').next()).unwrap_or("");
            let qualified = format!("{table}.{key}");
            everything += &format!("{setting}\n");
            if !EXAMPLES.contains(&key.as_str()) && !EXAMPLES.contains(&qualified.as_str()) {
                shown += &format!("{setting}\n");
            }
        }
    }
    let shown = resolve(&shown).expect("the values shown as defaults");
    assert_eq!(shown, defaults);
    resolve(&everything).expect("the examples are good values, too");
}

/// Each unit as an instance of its template, with our own programs in place of the installed ones.
fn instances(scratch: &Scratch) -> Vec<PathBuf> {
    let built = program_path("pgark").parent().expect("a directory").display().to_string();
    let mut units = Vec::new();
    for entry in fs::read_dir(packaging().join("systemd")).expect("units") {
        let template = entry.expect("unit").path();
        let name = template.file_name().expect("name").to_str().expect("UTF-8").replace('@', "@main");
        let text = fs::read_to_string(&template).expect("unit");
        let text =
            text.replace("/usr/bin", &built).replace("/usr/lib/pgark", &packaging().display().to_string());
        let unit = scratch.path().join(name);
        fs::write(&unit, text).expect("write");
        units.push(unit);
    }
    units.sort();
    assert_eq!(units.len(), 9, "{units:?}");
    units
}

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status();
    found.expect("start sh").success()
}

#[test]
fn every_unit_is_sound_and_tightly_closed() {
    if !has("systemd-analyze") {
        eprintln!("skipped: systemd-analyze is missing (apt-get install systemd)");
        return;
    }
    let scratch = Scratch::new();
    let units = instances(&scratch);
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output();
    let verified = verified.expect("start systemd-analyze");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    for unit in units.iter().filter(|unit| unit.extension().is_some_and(|kind| kind == "service")) {
        // 10 is wide open, 2.0 is "OK".
        let mut security = Command::new("systemd-analyze");
        let output = security.args(["security", "--offline=true", "--threshold=20"]).arg(unit).output();
        let output = output.expect("start systemd-analyze");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", unit.display());
    }
}

#[test]
fn no_unit_could_remove_the_memory_of_the_running_server() {
    for service in SERVICES {
        let path = packaging().join(format!("systemd/{service}.service"));
        let unit = fs::read_to_string(path).expect("unit");
        let lines: Vec<&str> = unit.lines().collect();
        assert!(lines.contains(&"User=postgres"), "{service}");
        assert!(!lines.iter().any(|line| line.starts_with("RemoveIPC")), "{service}");
        for needed in ["ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "UMask=0027"]
        {
            assert!(lines.contains(&needed), "{service} has no {needed}");
        }
        assert!(lines.contains(&"EnvironmentFile=-/etc/pgark/%i.env"), "{service}");
    }
}

/// What the generator makes of a configuration: the drop-in of a service.
fn generated(toml: &str, env: &str, service: &str) -> Option<String> {
    let scratch = Scratch::new();
    let (etc, target) = (scratch.make_dir("etc"), scratch.make_dir("units"));
    fs::write(etc.join("pgark.toml"), toml).expect("write");
    fs::write(etc.join("main.env"), env).expect("write");
    let mut generator = Command::new(packaging().join("pgark-generator"));
    let output =
        generator.env("PGARK_ETC", &etc).args([&target, &target, &target]).output().expect("start it");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    fs::read_to_string(target.join(format!("{service}.service.d/50-pgark-generator.conf"))).ok()
}

#[test]
fn the_services_may_write_where_the_configuration_says() {
    let toml = "repo = \"/backup/my pgark\" # here\nspool = '/fast/spool'\n[push]\nrepo = \"/not/this\"\n";
    let expected = "[Unit]\nRequiresMountsFor=\"/backup/my pgark\"\nRequiresMountsFor=\"/srv/50%%\"\n[Service]\n\
        ReadWritePaths=-\"/backup/my pgark\"\nReadWritePaths=-\"/fast/spool\"\nReadWritePaths=-\"/srv/50%%\"\n";
    for service in ["wal-receive@", "basebackup@", "pgark-verify@"] {
        let made = generated(toml, "#PGARK_REPO=/no\nPGARK_REPO=file:///srv/50%\n", service);
        assert_eq!(made.as_deref(), Some(expected), "{service}");
    }
    let check = generated("repo = \"file:///r\"\n", "", "pgark-check@");
    assert_eq!(check.as_deref(), Some("[Service]\nReadWritePaths=-\"/r\"\n"), "it tells of a missing disk");
    assert_eq!(generated(toml, "", "pgark-metrics@"), None, "it only reads");
}

#[test]
fn without_a_repository_nothing_is_opened() {
    for toml in ["", "#repo = \"/r\"\n", "repo = \"relative\"\n", "[x]\nrepo = \"/r\"\n", &sample()] {
        assert_eq!(generated(toml, "#PGARK_REPO=/r\n", "basebackup@"), None, "{toml}");
    }
}

#[test]
fn the_package_installs_runs_upgrades_and_goes_and_every_repository_stays() {
    let missing = ["cargo-deb", "debootstrap", "systemd-nspawn"].into_iter().find(|program| !has(program));
    if let Some(program) = missing {
        eprintln!(
            "skipped: {program} is missing (apt-get install debootstrap systemd-container; cargo install --locked cargo-deb)"
        );
        return;
    }
    let scratch = Scratch::new();
    let package = scratch.path().join("pgark.deb");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The programs that the tests were built with: those of a release would take minutes to build.
    let mut build = Command::new(root.join("scripts/deb.sh"));
    let built = build.args(["--no-build", "--profile", "dev", "--fast", "--output"]).arg(&package).output();
    let built = built.expect("start scripts/deb.sh");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let tried =
        Command::new(root.join("packaging/test")).arg(&package).output().expect("start packaging/test");
    let said =
        format!("{}{}", String::from_utf8_lossy(&tried.stdout), String::from_utf8_lossy(&tried.stderr));
    // 77: it can't run here, and says why.
    assert!(matches!(tried.status.code(), Some(0 | 77)), "{said}");
    eprintln!("{said}");
}
