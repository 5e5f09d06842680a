//! PostgreSQL's major versions: which are supported, and the numbers that give a major away.
//!
//! Invariant: a `PgMajor` is one that pgark knows. A major's released catalog version never changes
//! (catversion.h), so the two identify each other; betas and forks have others and are refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Major version, catalog version (catversion.h), format version of pg_control (pg_control.h).
const SUPPORTED: [(u32, u32, u32); 5] = [
    (14, 202_107_181, 1300),
    (15, 202_209_061, 1300),
    (16, 202_307_071, 1300),
    (17, 202_406_281, 1700),
    (18, 202_506_291, 1800),
];

/// A supported major version of PostgreSQL: 14 to 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PgMajor(u32);

impl PgMajor {
    /// Every supported major, oldest first.
    pub fn all() -> impl Iterator<Item = PgMajor> {
        SUPPORTED.iter().map(|(major, ..)| PgMajor(*major))
    }

    pub fn number(self) -> u32 {
        self.0
    }

    /// From `server_version_num`, such as 150018.
    pub fn from_version_num(version_num: u32) -> Result<Self> {
        Self::try_from(version_num / 10_000)
    }

    /// From the catalog version, which pg_control and the names of tablespace directories hold.
    pub fn from_catalog_version(catalog_version: u32) -> Result<Self> {
        let known = SUPPORTED.iter().find(|(_, catalog, _)| *catalog == catalog_version);
        known.map(|(major, ..)| PgMajor(*major)).ok_or_else(|| {
            unsupported(format!("catalog version {catalog_version} is not one that is supported"))
        })
    }

    pub fn catalog_version(self) -> u32 {
        SUPPORTED.iter().find(|(major, ..)| *major == self.0).map_or(0, |(_, catalog, _)| *catalog)
    }

    /// PG_CONTROL_VERSION.
    pub fn control_version(self) -> u32 {
        SUPPORTED.iter().find(|(major, ..)| *major == self.0).map_or(0, |(.., control)| *control)
    }

    /// The directory that this major makes in a tablespace's location (TABLESPACE_VERSION_DIRECTORY).
    pub fn tablespace_directory(self) -> String {
        format!("PG_{}_{}", self.0, self.catalog_version())
    }
}

impl TryFrom<u32> for PgMajor {
    type Error = Error;

    fn try_from(major: u32) -> Result<Self> {
        let known = PgMajor::all().find(|known| known.0 == major);
        known.ok_or_else(|| unsupported(format!("PostgreSQL {major} is not supported")))
    }
}

impl From<PgMajor> for u32 {
    fn from(major: PgMajor) -> u32 {
        major.0
    }
}

impl FromStr for PgMajor {
    type Err = Error;

    /// The content of a PG_VERSION file, without its newline.
    fn from_str(text: &str) -> Result<Self> {
        let major = text.parse::<u32>();
        major.map_err(|_| unsupported(format!("\"{text}\" is not a major version of PostgreSQL")))?.try_into()
    }
}

impl fmt::Display for PgMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn unsupported(message: String) -> Error {
    let majors: Vec<String> = PgMajor::all().map(|major| major.to_string()).collect();
    Error::postgres(message)
        .with_hint(format!("supported are the releases of PostgreSQL {}", majors.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_major_is_found_by_each_of_its_numbers() {
        for major in PgMajor::all() {
            assert_eq!(PgMajor::try_from(major.number()), Ok(major));
            assert_eq!(PgMajor::from_version_num(major.number() * 10_000 + 23), Ok(major));
            assert_eq!(PgMajor::from_catalog_version(major.catalog_version()), Ok(major));
            assert_eq!(major.to_string().parse(), Ok(major));
            assert!(major.control_version() >= 1300);
        }
        assert_eq!(PgMajor::try_from(15).map(PgMajor::tablespace_directory), Ok("PG_15_202209061".into()));
    }

    #[test]
    fn other_versions_are_refused_with_the_list_of_those_that_are_not() {
        let errors = [
            PgMajor::try_from(13),
            PgMajor::try_from(19),
            PgMajor::from_version_num(90_624),
            PgMajor::from_catalog_version(202_007_201),
            "9.6".parse(),
            "".parse(),
        ];
        for error in errors.map(|refused| refused.expect_err("unsupported")) {
            assert!(error.hint().is_some_and(|hint| hint.contains("14, 15, 16, 17, 18")), "{error}");
        }
    }

    #[test]
    fn json_holds_the_number() {
        let json = serde_json::to_string(&PgMajor(17)).expect("a number");
        assert_eq!(json, "17");
        assert!(serde_json::from_str::<PgMajor>("13").is_err());
    }
}
