//! The system of containers in docker/: its files agree with each other, and on a Docker engine it comes up, survives
//! what it should, and restores (docker/test does that, and is a program for people too).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn docker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn read(name: &str) -> String {
    let path = docker().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The services of compose.yaml, each with its lines.
fn services() -> BTreeMap<String, Vec<String>> {
    let compose = read("compose.yaml");
    let lines = compose.lines().skip_while(|line| *line != "services:").skip(1);
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
        match line.strip_prefix("  ").and_then(|line| line.strip_suffix(':')) {
            Some(name) if !name.starts_with([' ', '#']) => current = name.to_owned(),
            _ => services.entry(current.clone()).or_default().push(line.trim().to_owned()),
        }
    }
    services.remove("");
    services
}

/// `${NAME:-default}` in compose.yaml, each with its default.
fn variables() -> BTreeSet<(String, String)> {
    let compose = read("compose.yaml");
    let parts = compose.split("${").skip(1);
    parts
        .map(|part| {
            let inside = part.split('}').next().expect("a part");
            let (name, default) =
                inside.split_once(":-").unwrap_or_else(|| panic!("{inside} has no default"));
            (name.to_owned(), default.to_owned())
        })
        .collect()
}

#[test]
fn every_setting_of_the_compose_file_is_in_dot_env_with_its_default() {
    let file = read(".env");
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut settings: BTreeSet<(String, String)> =
        lines.map(|line| split(line).expect("NAME=value")).collect();
    // Compose's own.
    assert!(settings.remove(&("COMPOSE_PROJECT_NAME".to_owned(), "pgark".to_owned())));
    assert_eq!(settings, variables());
}

#[test]
fn pgadmin_lists_every_server_of_the_compose_file_and_no_other() {
    let listed: serde_json::Value = serde_json::from_str(&read("pgadmin/servers.json")).expect("JSON");
    let listed = listed["Servers"].as_object().expect("servers").values();
    let listed: BTreeSet<(String, u64)> = listed
        .map(|server| {
            assert_eq!(server["Name"], server["Host"]);
            assert_eq!(server["Username"], "postgres");
            assert_eq!(server["PassFile"], "/.pgpass", "where pgAdmin puts PGPASS_FILE");
            let host = server["Host"].as_str().expect("a host");
            (host.to_owned(), server["Port"].as_u64().expect("a port"))
        })
        .collect();
    let is_server =
        |lines: &Vec<String>| lines.iter().any(|line| line.starts_with("ports:") && line.contains(":5432\""));
    let servers = services().into_iter().filter(|(_, lines)| is_server(lines));
    let servers: BTreeSet<(String, u64)> = servers.map(|(name, _)| (name, 5432)).collect();
    assert_eq!(listed, servers);
    assert_eq!(listed.len(), 2, "primary and restore_target");
}

#[test]
fn every_service_says_whether_it_is_well_and_in_which_profile_it_is() {
    let has = |lines: &[String], word: &str| lines.iter().any(|line| line.starts_with(word));
    for (name, lines) in services() {
        // One ends at once, the other is somebody else's image.
        let exempt = ["repository", "pgadmin"].contains(&name.as_str());
        assert_eq!(has(&lines, &format!("healthcheck: {{test: [CMD, healthy, {name}]")), !exempt, "{name}");
        let profile = match name.as_str() {
            "restore_target" => Some("restore"),
            "pgadmin" => Some("tools"),
            _ => None,
        };
        let expected = profile.map(|profile| format!("profiles: [{profile}]"));
        assert_eq!(lines.iter().find(|line| line.starts_with("profiles:")), expected.as_ref(), "{name}");
    }
}

/// Why there is nothing to run the containers with, if that is so. `PGARK_TEST_DOCKERD` makes docker/test start an
/// engine of its own, as root: that takes longer, so it does not happen unasked.
fn no_engine() -> Option<String> {
    if std::env::var_os("PGARK_TEST_DOCKERD").is_some() {
        return None;
    }
    let by_hand =
        "`make compose-test` runs it, and as root starts an engine of its own if dockerd is installed";
    match Command::new("docker").arg("info").output() {
        Err(error) => Some(format!("there is no docker here ({error}); {by_hand}")),
        Ok(output) if !output.status.success() => Some(format!("no Docker engine answers; {by_hand}")),
        Ok(_) => None,
    }
}

/// Past the test runner, which shows what a test prints only if it fails.
fn say_skipped(why: &str) {
    let line = format!("\nSKIPPED: the system of containers in docker/ was not tried: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
}

#[test]
fn the_system_comes_up_and_restores_and_survives_what_it_should() {
    if let Some(why) = no_engine() {
        return say_skipped(&why);
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_pgark")).parent().expect("a directory");
    let mut test = Command::new("timeout");
    test.args(["--kill-after=60", "1800"]).arg(docker().join("test")).arg("--programs").arg(programs);
    let status = test.status().expect("timeout is part of coreutils");
    // 77: it was skipped, and has said why.
    assert!(matches!(status.code(), Some(0 | 77)), "docker/test: {status}");
}
