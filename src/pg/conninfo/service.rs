//! Connection service files (parseServiceInfo and parseServiceFile in libpq's fe-connect.c): which files
//! are looked at, and how a group in one is read.
//!
//! Refuses a service that no file defines, a parameter that does not exist, and a group in a group. LDAP
//! lines are refused too. No error shows a value.

use std::io;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::params::Params;
use super::string::is_space;
use crate::error::{Error, IoContext, Result};

/// pg_service.conf's directory is built into libpq (SYSCONFDIR); these are Debian's, PGDG's for Red Hat,
/// and that of PostgreSQL built by hand.
const SYSTEM_DIRECTORIES: [&str; 3] =
    ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// What the service says. `file` is the user's own service file, when named explicitly.
pub(super) fn look_up(service: &str, file: Option<&str>, environment: &Environment) -> Result<Params> {
    let mut looked_at = Vec::new();
    for (path, required) in candidates(file, environment) {
        let text = match std::fs::read_to_string(&path) {
            Err(cause) if !required && is_absent(&cause) => continue,
            read => read.doing(|| format!("read the service file {}", path.display()))?,
        };
        if let Some(params) = parse(&text, service, &path)? {
            return Ok(params);
        }
        looked_at.push(path.display().to_string());
    }
    let seen = if looked_at.is_empty() {
        "there is no service file".into()
    } else {
        format!("looked at {}", looked_at.join(", "))
    };
    Err(Error::configuration(format!("could not find the service \"{service}\": {seen}"))
        .with_hint("define it in ~/.pg_service.conf, or unset PGSERVICE"))
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The files in the order of libpq, and whether each has to exist.
fn candidates(file: Option<&str>, environment: &Environment) -> Vec<(PathBuf, bool)> {
    let own = match file {
        Some(file) => Some((PathBuf::from(file), true)),
        None => environment.home().map(|home| (home.join(".pg_service.conf"), false)),
    };
    let system: Vec<PathBuf> = match environment.variable("PGSYSCONFDIR") {
        Some(directory) => vec![PathBuf::from(directory)],
        None => SYSTEM_DIRECTORIES.map(PathBuf::from).to_vec(),
    };
    let system = system.into_iter().map(|directory| (directory.join("pg_service.conf"), false));
    own.into_iter().chain(system).collect()
}

/// The parameters of the first group `[service]`, or None if the text has no such group.
fn parse(text: &str, service: &str, path: &Path) -> Result<Option<Params>> {
    let mut found: Option<Params> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let wanted = group.strip_prefix(service).is_some_and(|rest| rest.starts_with(']'));
            found = wanted.then(Params::default);
        } else if let Some(params) = found.as_mut() {
            add_line(line, params).map_err(|cause| {
                Error::configuration(format!(
                    "could not read the service file {}, line {number}: {cause}",
                    path.display()
                ))
            })?;
        }
    }
    Ok(found)
}

fn add_line(line: &str, params: &mut Params) -> std::result::Result<(), &'static str> {
    let (name, value) = line.split_once('=').ok_or("it has no \"=\"")?;
    if name == "service" || name == "servicefile" {
        return Err("a service can't name another one");
    }
    // The first one counts, as in libpq.
    if params.has(name) || params.set(name, value) {
        Ok(())
    } else {
        Err("there is no such connection parameter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "# comment\n\n[other]\nhost=x\n [main] \n  host=/run/pg \nport=5433\nport=1\npassword=a = b\n[main]\nuser=late\n";

    fn parse_text(text: &str, service: &str) -> Result<Option<Params>> {
        parse(text, service, Path::new("/f"))
    }

    #[test]
    fn the_first_group_of_that_name_counts_and_in_it_the_first_value() {
        let params = parse_text(FILE, "main").expect("reads").expect("has it");
        assert_eq!(params.get("host"), Some("/run/pg"));
        assert_eq!(params.get("port"), Some("5433"));
        assert_eq!(params.get("password"), Some("a = b"));
        assert_eq!(params.get("user"), None);
        assert_eq!(parse_text(FILE, "mai"), Ok(None));
    }

    #[test]
    fn a_bad_line_is_named_by_number_and_not_shown() {
        for line in ["hush", "passwort=hush", "service=hush", "user =hush"] {
            let error = parse_text(&format!("[a]\nhost=x\n{line}\n"), "a").expect_err(line);
            assert!(error.message().contains("/f, line 3"), "{error}");
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn bad_lines_of_other_groups_do_not_matter() {
        assert!(parse_text("x\n[b]\ny\n[a]\nhost=x\n", "a").is_ok_and(|found| found.is_some()));
    }

    #[test]
    fn the_own_file_comes_before_the_system_one_and_a_named_file_must_exist() {
        let home = tempfile::tempdir().expect("a directory");
        let system = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join(".pg_service.conf"), "[a]\nhost=own\n").expect("written");
        std::fs::write(system.path().join("pg_service.conf"), "[a]\nhost=system\n[b]\nhost=only\n")
            .expect("written");
        let environment =
            Environment::new([("PGSYSCONFDIR", system.path().display().to_string())]).with_home(home.path());
        let host =
            |service| look_up(service, None, &environment).map(|params| params.get("host").map(String::from));
        assert_eq!(host("a"), Ok(Some("own".into())));
        assert_eq!(host("b"), Ok(Some("only".into())));
        assert!(host("c").is_err_and(|error| error.message().contains("looked at")));
        assert!(look_up("b", Some("/nonexistent/file"), &environment).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[\\PC\\n\\[\\]=]{0,80}") {
            let _ = parse_text(&text, "a");
        }
    }
}
