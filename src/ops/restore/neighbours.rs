//! Other servers on this host: which data directories have one running, and what their tablespace links
//! lead to. A directory that one of them uses is never emptied.
//!
//! Only processes of our own user can be looked at; others' directories we could not empty anyway.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The data directories of running servers, but for `except`: those in which a process works.
pub fn data_directories(except: &Path) -> BTreeSet<PathBuf> {
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
    // Processes come and go, and most are not ours: what can't be read is no neighbour.
    let directories =
        processes.flatten().filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    let except = except.canonicalize().unwrap_or_else(|_| except.to_path_buf());
    directories.filter(|directory| *directory != except && directory.join("PG_VERSION").is_file()).collect()
}

/// Where the links in a data directory's pg_tblspc lead, without symbolic links.
pub fn linked_from(data: &Path) -> BTreeSet<PathBuf> {
    let Ok(links) = fs::read_dir(data.join("pg_tblspc")) else { return BTreeSet::new() };
    links.flatten().filter_map(|link| link.path().canonicalize().ok()).collect()
}

/// The running server, other than that of `data`, whose tablespace is at `location`.
pub fn user_of(location: &Path, data: &Path) -> Option<PathBuf> {
    let location = location.canonicalize().ok()?;
    data_directories(data).into_iter().find(|neighbour| linked_from(neighbour).contains(&location))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_location_that_a_running_neighbour_links_to_is_its() {
        let dir = tempfile::tempdir().expect("a directory");
        let [data, other, location] = ["data", "other", "location"].map(|name| dir.path().join(name));
        for path in [&data, &other, &location] {
            fs::create_dir_all(path.join("pg_tblspc")).expect("made");
            fs::write(path.join("PG_VERSION"), "15\n").expect("written");
        }
        std::os::unix::fs::symlink(&location, other.join("pg_tblspc/16400")).expect("linked");
        assert_eq!(user_of(&location, &data), None);
        let mut server = Command::new("sleep").arg("600").current_dir(&other).spawn().expect("started");
        let (found, itself) = (user_of(&location, &data), user_of(&location, &other));
        server.kill().expect("killed");
        server.wait().expect("ended");
        assert_eq!(found, other.canonicalize().ok());
        assert_eq!(itself, None);
    }
}
