//! Where a file of a backup belongs: a root and a path relative to it.
//!
//! Invariant: a `MapPath` stays below its root whatever it is joined to: no empty part, no `.` or `..`, no NUL,
//! not absolute. The order is the one in which a tree is walked with each directory's names sorted by their
//! bytes: part by part, so that a directory comes right before what it contains.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::repo::escape::{escape, unescape};

/// PATH_MAX: no file has a longer path.
const LONGEST: usize = 4096;

/// What a path is relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// The data directory. A tablespace's files are below `pg_tblspc/<oid>`.
    #[default]
    Data,
    /// Configuration that lives outside the data directory. The path is the file's absolute path without
    /// the leading slash.
    Config,
}

impl Root {
    pub(super) fn is_data(&self) -> bool {
        *self == Root::Data
    }
}

/// A place below a root. The root itself is the empty path, written ".".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MapPath {
    root: Root,
    path: Vec<u8>,
}

impl MapPath {
    /// `path` is relative; "." or nothing means the root itself.
    pub fn new(root: Root, path: &[u8]) -> Result<Self> {
        if path.is_empty() || path == b"." {
            return Ok(Self { root, path: Vec::new() });
        }
        let fine = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        if path.len() >= LONGEST || !path.split(|byte| *byte == b'/').all(fine) {
            return Err(Error::corrupt(format!("\"{}\" is not a path of a backup", escape(path))));
        }
        Ok(Self { root, path: path.to_vec() })
    }

    /// A path in the data directory.
    pub fn data(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(Root::Data, path.as_ref().as_os_str().as_bytes())
    }

    /// A configuration file outside the data directory, by its absolute path.
    pub fn config(absolute: impl AsRef<Path>) -> Result<Self> {
        let path = absolute.as_ref().as_os_str().as_bytes();
        Self::new(Root::Config, path.strip_prefix(b"/").unwrap_or(path))
    }

    pub fn root(&self) -> Root {
        self.root
    }

    /// Relative to the root; empty for the root itself.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The text of the path in a map.
    pub(super) fn text(&self) -> String {
        if self.path.is_empty() { ".".to_string() } else { escape(&self.path) }
    }

    pub(super) fn from_text(root: Root, text: &str) -> Result<Self> {
        let path = Self::new(root, &unescape(text)?)?;
        // "" and "./x" must not be second spellings.
        if path.text() == text { Ok(path) } else { Err(Error::corrupt(format!("\"{text}\" is not a path"))) }
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }
}

impl Ord for MapPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.root.cmp(&other.root).then_with(|| self.parts().cmp(other.parts()))
    }
}

impl PartialOrd for MapPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for MapPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.root {
            Root::Data => f.write_str(&self.text()),
            Root::Config => write!(f, "/{}", escape(&self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_leave_their_root_are_refused() {
        for bad in ["/", "/etc", "..", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b", &"x".repeat(4096)] {
            assert!(MapPath::data(bad).is_err(), "{bad:?}");
        }
        for text in ["", "./a", "%41", "..", "a%2Fb"] {
            assert!(MapPath::from_text(Root::Data, text).is_err(), "{text:?}");
        }
        assert_eq!(
            MapPath::config("/etc/x.conf").map(|path| path.to_string()),
            Ok("/etc/x.conf".to_string())
        );
    }

    #[test]
    fn a_directory_comes_right_before_what_it_contains() {
        let walked = [".", "base", "base/5", "base/5/1259", "base/5/1259.1", "base.old", "base0"];
        let paths: Vec<MapPath> = walked.iter().map(|path| MapPath::data(path).expect("path")).collect();
        assert!(paths.is_sorted_by(|a, b| a < b));
        assert!(paths.iter().all(|path| *path < MapPath::config("/a").expect("path")));
    }

    proptest! {
        #[test]
        fn a_path_survives_its_text(bytes in "[a%\u{e9}./]{0,12}", odd: u8) {
            let bytes = [bytes.as_bytes(), &[odd]].concat();
            if let Ok(path) = MapPath::new(Root::Data, &bytes) {
                prop_assert_eq!(MapPath::from_text(Root::Data, &path.text()), Ok(path.clone()));
                prop_assert!(!Path::new("/x").join(path.as_path()).components().any(|part| part.as_os_str() == ".."));
            }
        }
    }
}
