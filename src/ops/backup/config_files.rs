//! Configuration that lives outside the data directory, as Debian keeps it: postgresql.conf, pg_hba.conf and
//! pg_ident.conf with all that they include. A restored data directory alone would not start.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use super::copy::ConfigFile;
use super::server::Server;
use crate::error::{IoContext, Result};
use crate::pg::hba;
use crate::pg::settings::{Disk, Settings};
use crate::repo::map::{Attributes, FileMode, MapPath};

/// The files that the walk of the data directory does not bring, in the order of the map.
pub fn outside(server: &Server) -> Result<Vec<ConfigFile>> {
    let data_directory = &server.data_directory;
    let inside = data_directory.canonicalize().doing(|| format!("resolve {}", data_directory.display()))?;
    let mut files = Vec::new();
    for path in in_use(server)? {
        let resolved = path.canonicalize().doing(|| format!("resolve {}", path.display()))?;
        // The walk skips links in the data directory, wherever they lead.
        if path.is_symlink() || !resolved.starts_with(&inside) {
            files.push(config_file(&path)?);
        }
    }
    files.sort_by(|a, b| a.attributes.path.cmp(&b.attributes.path));
    files.dedup_by(|a, b| a.attributes.path == b.attributes.path);
    Ok(files)
}

/// Every file that the server read its configuration from.
fn in_use(server: &Server) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let main = Path::new(server.setting("config_file"));
    match Settings::read(main, &Disk) {
        Ok(settings) => files.extend(settings.files),
        // Somebody is in the middle of editing it; the server runs on with what it read before.
        Err(error) => {
            tracing::warn!("{error}; the backup has {} without what it includes", main.display());
            files.insert(main.to_path_buf());
        }
    }
    for setting in ["hba_file", "ident_file"] {
        files.extend(hba::files(Path::new(server.setting(setting)), &Disk)?);
    }
    files.iter().map(|path| tidy(path)).collect()
}

/// The path without `.` and `..`, which includes may bring and maps do not have. A `..` behind a symbolic link
/// leads elsewhere, so such a path is resolved.
fn tidy(path: &Path) -> Result<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) {
        return path.canonicalize().doing(|| format!("resolve {}", path.display()));
    }
    Ok(path.components().collect())
}

fn config_file(path: &Path) -> Result<ConfigFile> {
    let metadata = path.metadata().doing(|| format!("look at {}", path.display()))?;
    let attributes = Attributes {
        path: MapPath::config(path)?,
        mode: FileMode::from_st_mode(metadata.mode()),
        mtime: Timestamp::from_second(metadata.mtime()).unwrap_or(Timestamp::UNIX_EPOCH),
    };
    Ok(ConfigFile { attributes, size: metadata.len() })
}
