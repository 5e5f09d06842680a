//! Where a repository is, as flags, environment and configuration file give it: an absolute path or a URL.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The place of a repository. This version knows directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(PathBuf);

impl Location {
    pub fn parse(text: &str) -> Result<Self> {
        let path = match text.split_once("://") {
            None => text,
            _ if text.starts_with('/') => text,
            Some(("file", path)) => path,
            Some((scheme, _)) => {
                return Err(Error::configuration(format!("repository \"{text}\": no store for {scheme}://"))
                    .with_hint("this version keeps repositories in a directory: give its absolute path"));
            }
        };
        if !Path::new(path).is_absolute() {
            return Err(Error::configuration(format!("repository \"{text}\" is not an absolute path")).with_hint(
                "the server runs archive_command in its data directory, where a relative path would end up",
            ));
        }
        Ok(Self(PathBuf::from(path)))
    }

    /// The directory of a local repository.
    pub fn directory(&self) -> &Path {
        &self.0
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_an_absolute_path_or_a_file_url() {
        for good in ["/srv/pgark", "file:///srv/pgark"] {
            assert_eq!(Location::parse(good).map(|l| l.to_string()), Ok("/srv/pgark".to_string()));
        }
        let named_oddly = Location::parse("/srv/a://b").expect("a path");
        assert_eq!(Location::parse(&named_oddly.to_string()), Ok(named_oddly));
        for bad in ["", "pgark", "./x", "file://x/y", "s3://bucket/x"] {
            assert!(Location::parse(bad).is_err_and(|error| error.hint().is_some()), "{bad}");
        }
    }
}
