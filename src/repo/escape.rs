//! File names in JSON. PostgreSQL and its operators name files with any bytes; JSON holds Unicode only.
//!
//! The text is the name's own UTF-8, except that `%` is written `%25` and each byte that is not part of
//! valid UTF-8 as `%XX` in upper-case hex. Invariant: one name has one text and one text one name; other
//! texts are refused.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The text of a name.
pub fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for piece in chunk.valid().split_inclusive('%') {
            match piece.strip_suffix('%') {
                Some(before) => text.extend([before, "%25"]),
                None => text.push_str(piece),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
    text
}

/// The name of a text that [`escape`] made.
pub fn unescape(text: &str) -> Result<Vec<u8>> {
    let refused = || Error::corrupt(format!("\"{text}\" is not an escaped file name"));
    let mut pieces = text.split('%');
    let mut name = pieces.next().unwrap_or("").as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or_else(refused)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).map_err(|_| refused())?;
        name.extend_from_slice(&byte);
        name.extend_from_slice(rest.as_bytes());
    }
    if escape(&name) == text { Ok(name) } else { Err(refused()) }
}

/// A path that is stored in JSON as an escaped text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredPath(pub PathBuf);

impl StoredPath {
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl From<PathBuf> for StoredPath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Serialize for StoredPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(self.0.as_os_str().as_bytes()))
    }
}

impl<'de> Deserialize<'de> for StoredPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = unescape(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        Ok(Self(OsString::from_vec(name).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_stay_as_they_are_and_odd_bytes_are_escaped() {
        assert_eq!(escape("base/5/1259 \u{e9}\"".as_bytes()), "base/5/1259 \u{e9}\"");
        assert_eq!(escape(b"100%\xff\xc3(\n"), "100%25%FF%C3(\n");
        assert_eq!(unescape("100%25%FF"), Ok(b"100%\xff".to_vec()));
    }

    #[test]
    fn a_text_that_no_name_has_is_refused() {
        for bad in ["%", "%2", "%41", "%ff", "%C3%A9", "%zz", "%\u{e9}", "100%"] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_its_text(name: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&name)), Ok(name));
        }

        #[test]
        fn every_text_is_the_one_of_its_name(text in "[%0-9A-F\u{e9}a]{0,12}") {
            if let Ok(name) = unescape(&text) {
                prop_assert_eq!(escape(&name), text);
            }
        }
    }
}
