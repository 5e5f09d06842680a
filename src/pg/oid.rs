//! Object identifiers: how PostgreSQL names databases, tablespaces and relation files on disk.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An object identifier; 0 is none (InvalidOid). Relation file numbers are of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Oid(pub u32);

impl Oid {
    /// The tablespace pg_default: `base/` (pg_tablespace.dat).
    pub const DEFAULT_TABLESPACE: Oid = Oid(1663);
    /// The tablespace pg_global: `global/`.
    pub const GLOBAL_TABLESPACE: Oid = Oid(1664);

    /// The decimal number that is part of a file name: as PostgreSQL writes it, without a sign or
    /// leading zeros, and not 0. None for anything else.
    pub fn from_file_name(text: &str) -> Option<Oid> {
        let written_so = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        if written_so { text.parse().ok().map(Oid) } else { None }
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_postgresql_writes_is_the_number_in_a_file_name() {
        assert_eq!(Oid::from_file_name("4294967295"), Some(Oid(u32::MAX)));
        for bad in ["", "0", "01", "+1", "-1", "1 ", "4294967296", "1a", "\u{661}"] {
            assert_eq!(Oid::from_file_name(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_in_a_file_name_is_written_back_the_same(text in "\\PC{0,12}|[0-9]{1,11}") {
            if let Some(oid) = Oid::from_file_name(&text) {
                prop_assert_eq!(oid.to_string(), text);
            }
        }
    }
}
