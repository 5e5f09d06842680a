//! Pins: a backup that is pinned is never expired, until the pin's time if it has one. A backup may have
//! several pins, of several people. `docs/repository-format.md`, "Pins", is the norm.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::layout::{Id, Name};
use super::records::{self, Found, Record};
use super::{Cluster, backup};
use crate::error::{Kind, Result};

/// Keeps a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Of the backup.
    pub label: Name,
    /// None: until it is unpinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When and where it was pinned, by the host's clock.
    pub created: Timestamp,
    pub host: String,
}

impl Record for Pin {
    const KIND: &'static str = "pin";
    const FORMAT: &'static str = "pgark pin";
    const VERSION: u32 = 1;
}

impl Pin {
    /// Whether the pin keeps its backup at that time.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Pins a backup. The header is read AFTER the pin is durable: `expire` looks for pins right before it deletes a
/// header, so either it sees the pin or we see that the backup has gone, and say so (`Kind::NotFound`).
pub fn put(cluster: &Cluster, pin: &Pin) -> Result<Id> {
    backup::read(cluster, &pin.label)?;
    let id = records::put(cluster, pin)?;
    match backup::read(cluster, &pin.label) {
        Ok(_) => Ok(id),
        Err(error) if error.kind() == Kind::NotFound => {
            records::delete::<Pin>(cluster, id)?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// All pins, oldest first; those that have run out too.
pub fn list(cluster: &Cluster) -> Result<Vec<Found<Pin>>> {
    records::list(cluster)
}

/// Removes all pins of a backup, which need not exist any more. Returns how many there were.
pub fn remove(cluster: &Cluster, label: &Name) -> Result<u64> {
    let mut removed = 0;
    for pin in list(cluster)?.into_iter().filter(|pin| pin.record.label == *label) {
        removed += u64::from(records::delete::<Pin>(cluster, pin.id)?);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::fixture::{Fixture, name};

    fn pin(label: &str, until: Option<&str>) -> Pin {
        Pin {
            label: name(label),
            until: until.map(|text| text.parse().expect("time")),
            note: Some("before the migration".into()),
            created: "2026-11-23T03:10:00Z".parse().expect("time"),
            host: "db1".into(),
        }
    }

    #[test]
    fn a_backup_has_any_number_of_pins_and_they_go_together() {
        let fixture = Fixture::create();
        for label in ["a", "b"] {
            fixture.backup(label, Id::random().expect("id"), &[]);
        }
        for pinned in [pin("a", None), pin("a", Some("2027-01-01T00:00:00Z")), pin("b", None)] {
            put(&fixture.cluster, &pinned).expect("pinned");
        }
        assert_eq!(list(&fixture.cluster).map(|pins| pins.len()), Ok(3));
        assert_eq!(remove(&fixture.cluster, &name("a")), Ok(2));
        assert_eq!(remove(&fixture.cluster, &name("a")), Ok(0));
        assert_eq!(list(&fixture.cluster).map(|pins| pins[0].record.label.clone()), Ok(name("b")));
    }

    #[test]
    fn a_backup_that_is_not_there_cannot_be_pinned() {
        let fixture = Fixture::create();
        let error = put(&fixture.cluster, &pin("a", None)).expect_err("no backup");
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(list(&fixture.cluster), Ok(vec![]), "and no pin is left");
    }

    #[test]
    fn a_pin_holds_until_its_time() {
        let at = |text: &str| text.parse::<Timestamp>().expect("time");
        let pinned = pin("a", Some("2027-01-01T00:00:00Z"));
        assert!(pinned.holds_at(at("2026-12-31T23:59:59Z")));
        assert!(!pinned.holds_at(at("2027-01-01T00:00:00Z")));
        assert!(pin("a", None).holds_at(at("2999-01-01T00:00:00Z")));
    }
}
