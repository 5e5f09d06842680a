//! The name of a replication slot: lower-case letters, digits and underscores, at most 63
//! (ReplicationSlotValidateName). Refuses everything else, so that a name can't change a command.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// NAMEDATALEN, less the NUL.
const LONGEST: usize = 63;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotName(String);

impl SlotName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SlotName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if !text.is_empty() && text.len() <= LONGEST && text.bytes().all(fits) {
            return Ok(Self(text.to_string()));
        }
        Err(Error::configuration(format!("\"{text}\" can't be the name of a replication slot"))
            .with_hint("it has at most 63 lower-case letters, digits and underscores"))
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_postgresql_takes() {
        for good in ["pgark", "a", "_1", "2nd", &"x".repeat(63)] {
            assert_eq!(good.parse::<SlotName>().map(|name| name.to_string()), Ok(good.to_string()));
        }
        for bad in ["", "Pgark", "a-b", "a\"", "a b", "é", &"x".repeat(64)] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad:?}");
        }
    }
}
