//! The key of an object: slash-separated parts of plain ASCII, so that it is the same in every store.
//! Only `repo::layout` makes keys; this type holds what a key may be.

use object_store::path::Path;

use crate::error::{Error, Result};

/// A key, relative to the repository's root. Refuses empty parts, `.` and `..`, and every character that
/// some store would encode or a file system would treat specially ('#' marks unfinished local uploads).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Path);

impl Key {
    pub fn new(text: &str) -> Result<Self> {
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if !text.split('/').all(plain) {
            return Err(Error::configuration(format!("\"{text}\" can't be a key in a repository"))
                .with_hint("use letters, digits, '.', '-' and '_' only"));
        }
        Path::parse(text).map(Key).map_err(|cause| Error::bug(format!("key \"{text}\": {cause}")))
    }

    /// The root: the prefix of every key. Only for listings.
    pub fn root() -> Self {
        Key(Path::default())
    }

    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The part after the last slash.
    pub fn last(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or("")
    }

    /// All but the last part.
    pub(super) fn parent(&self) -> Self {
        let parent = self.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        Key(Path::from(parent))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn found(path: Path) -> Self {
        Key(path)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_never_leaves_the_repository() {
        for bad in ["", "/", "a//b", "../x", "a/../b", "a/.", "a b", "a#1", "a\\b", "\u{e9}", "/etc/passwd"] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Key::new("main/7/wal/x.zst").map(|key| key.last().to_string()), Ok("x.zst".to_string()));
    }

    proptest! {
        #[test]
        fn every_accepted_key_is_its_text(text in "\\PC{0,40}") {
            if let Ok(key) = Key::new(&text) {
                prop_assert_eq!(key.as_str(), text);
            }
        }
    }
}
