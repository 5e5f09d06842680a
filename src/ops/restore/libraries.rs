//! The libraries that the server loads at its start: one that this host lacks, and it does not start.

use std::path::Path;

use super::Request;
use crate::error::{Error, Result};
use crate::pg::binaries::Binaries;
use crate::pg::settings_value::parse_list;
use crate::repo::backup::BackupHeader;

/// Libraries that do nothing but run jobs or subscriptions, and that nobody needs to read data. A quarantined
/// server is started without them.
const RUNNERS: [&str; 5] = ["bdr", "pg_cron", "pg_partman_bgw", "pglogical", "spock"];

/// Refuses a preload library that is not installed here.
pub fn check(header: &BackupHeader, request: &Request, binaries: Option<&Binaries>) -> Result<()> {
    let Some(directory) = binaries.and_then(Binaries::library_directory) else { return Ok(()) };
    let libraries = loaded(request.setting(header, "shared_preload_libraries"), request.takeover)?;
    let missing: Vec<&String> =
        libraries.iter().filter(|library| !is_installed(library, &directory)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let rest: Vec<&str> =
        libraries.iter().filter(|library| !missing.contains(library)).map(String::as_str).collect();
    let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
    Err(Error::configuration(format!(
        "shared_preload_libraries names what is not installed in {}: {}",
        directory.display(),
        names.join(", ")
    ))
    .with_hint(format!(
        "install the packages, or start without: --set shared_preload_libraries='{}'",
        rest.join(",")
    )))
}

/// The libraries that the restored server loads.
pub fn loaded(setting: Option<&str>, takeover: bool) -> Result<Vec<String>> {
    let mut libraries =
        parse_list(setting.unwrap_or("")).map_err(|error| error.context("shared_preload_libraries"))?;
    libraries.retain(|library| takeover || !is_runner(library));
    Ok(libraries)
}

/// Those that it would load if it took over.
pub fn left_out(setting: Option<&str>) -> Result<Vec<String>> {
    let mut libraries =
        parse_list(setting.unwrap_or("")).map_err(|error| error.context("shared_preload_libraries"))?;
    libraries.retain(|library| is_runner(library));
    Ok(libraries)
}

fn is_runner(library: &str) -> bool {
    let name = Path::new(library).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    RUNNERS.contains(&name.trim_end_matches(".so"))
}

/// As expand_dynamic_library_name (dfmgr.c): a name without a slash is looked for in $libdir, here always,
/// though dynamic_library_path could say otherwise; the suffix may be left out.
fn is_installed(library: &str, directory: &Path) -> bool {
    let name = library.strip_prefix("$libdir/").unwrap_or(library);
    let path = directory.join(name);
    path.is_file() || path.with_file_name(format!("{}.so", file_name(&path))).is_file()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_as_the_server_finds_them() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("auto_explain.so"), "").expect("written");
        for library in ["auto_explain", "auto_explain.so", "$libdir/auto_explain"] {
            assert!(is_installed(library, dir.path()), "{library}");
        }
        let absolute = dir.path().join("auto_explain").display().to_string();
        assert!(is_installed(&absolute, Path::new("/nowhere")));
        assert!(!is_installed("auto", dir.path()) && !is_installed("gone", dir.path()));
    }

    #[test]
    fn what_runs_jobs_is_loaded_only_by_a_successor() {
        let setting = Some("pg_stat_statements, pg_cron,\"$libdir/pglogical.so\"");
        assert_eq!(loaded(setting, false), Ok(vec!["pg_stat_statements".to_string()]));
        assert_eq!(loaded(setting, true).map(|libraries| libraries.len()), Ok(3));
        assert_eq!(left_out(setting).map(|libraries| libraries.len()), Ok(2));
        assert_eq!(loaded(None, false), Ok(vec![]));
    }
}
