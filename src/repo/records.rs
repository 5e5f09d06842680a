//! Records: what changes over time — pins, results of checks and verifications — as small JSON objects that
//! are created once, whole, under a random id, and deleted; never edited. Each kind has a directory of its
//! own: `<cluster>/<system-id>/<kind>/<id>.json`. `docs/repository-format.md`, "Records", is the norm.
//!
//! Refuses to overlook a record that can't be read: whoever decides by them must know all. Only of news, by which
//! nobody decides, that is no more than a warning.

use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::layout::{self, Id};
use super::{Cluster, parse_versioned, to_json};
use crate::error::{Error, Kind, Result};
use crate::store::Created;

/// One kind of records.
pub trait Record: Serialize + DeserializeOwned {
    /// The directory: "pin".
    const KIND: &'static str;
    /// What `format` says in the object: "pgark pin".
    const FORMAT: &'static str;
    /// The version that this program writes, and the newest that it reads.
    const VERSION: u32;
}

/// A record that the repository has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    pub id: Id,
    /// When it was created, by the store's clock.
    pub created: SystemTime,
    pub record: T,
}

/// The object: the record between its format and version and nothing else.
#[derive(Serialize, Deserialize)]
struct Object<T> {
    format: String,
    version: u32,
    #[serde(flatten)]
    record: T,
}

/// Creates a record; durable when this returns its id.
pub fn put<T: Record>(cluster: &Cluster, record: &T) -> Result<Id> {
    let id = Id::random()?;
    let key = cluster.layout().record(T::KIND, id)?;
    let object = Object { format: T::FORMAT.to_string(), version: T::VERSION, record };
    match cluster.store().create(&key, to_json(&object)?)? {
        Created::New => Ok(id),
        Created::AlreadyThere => Err(Error::bug(format!("a random key was taken: {key}"))),
    }
}

/// All records of a kind, oldest first. One that can't be read is an error.
pub fn list<T: Record>(cluster: &Cluster) -> Result<Vec<Found<T>>> {
    let mut found = Vec::new();
    for object in cluster.store().level(&cluster.layout().records(T::KIND)?)?.objects {
        let Some(id) = layout::parse_id(&object.key) else { continue };
        match cluster.store().get(&object.key) {
            Ok(bytes) => {
                let record = parse(&bytes, &cluster.store().name(&object.key))?;
                found.push(Found { id, created: object.modified, record });
            }
            // Deleted since it was listed.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by_key(|found| (found.created, found.id));
    Ok(found)
}

/// The records of a kind that nobody decides by, oldest first. If one can't be read, there are none.
pub fn news<T: Record>(cluster: &Cluster) -> Result<Vec<Found<T>>> {
    match list(cluster) {
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Configuration) => {
            tracing::warn!("{error}; all records of that kind are passed over");
            Ok(Vec::new())
        }
        found => found,
    }
}

/// Deletes a record; false when there was none.
pub fn delete<T: Record>(cluster: &Cluster, id: Id) -> Result<bool> {
    cluster.store().delete(&cluster.layout().record(T::KIND, id)?)
}

fn parse<T: Record>(bytes: &[u8], name: &str) -> Result<T> {
    parse_versioned::<Object<T>>(bytes, name, (T::FORMAT, T::VERSION)).map(|object| object.record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::fixture::Fixture;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Note {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    }

    impl Record for Note {
        const KIND: &'static str = "note";
        const FORMAT: &'static str = "pgark note";
        const VERSION: u32 = 1;
    }

    fn note(text: &str) -> Note {
        Note { text: text.to_string(), number: Some(u64::MAX) }
    }

    #[test]
    fn records_are_listed_until_they_are_deleted() {
        let fixture = Fixture::create();
        assert_eq!(list::<Note>(&fixture.cluster), Ok(vec![]));
        let first = put(&fixture.cluster, &note("first")).expect("put");
        let second = put(&fixture.cluster, &note("second")).expect("put");
        let mut listed: Vec<(Id, Note)> = list::<Note>(&fixture.cluster)
            .expect("listed")
            .into_iter()
            .map(|found| (found.id, found.record))
            .collect();
        listed.sort_by_key(|(_, note)| note.text.clone());
        assert_eq!(listed, [(first, note("first")), (second, note("second"))]);
        assert_eq!(delete::<Note>(&fixture.cluster, first), Ok(true));
        assert_eq!(delete::<Note>(&fixture.cluster, first), Ok(false));
        assert_eq!(list::<Note>(&fixture.cluster).map(|notes| notes.len()), Ok(1));
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_and_what_is_no_record_is_not() {
        let fixture = Fixture::create();
        let write = |name: &str, text: &str| {
            let directory = fixture.cluster.layout().records("note").expect("key");
            let key = crate::store::Key::new(&format!("{directory}/{name}")).expect("key");
            fixture.cluster.store().delete(&key).expect("deleted");
            fixture.cluster.store().create(&key, text.as_bytes().to_vec()).expect("created");
        };
        write("README", "hello");
        assert_eq!(list::<Note>(&fixture.cluster), Ok(vec![]));
        let id = format!("{}.json", Id::random().expect("id"));
        for (text, kind, expected) in [
            (r#"{"format":"pgark note","version":2,"text":[]}"#, Kind::Configuration, "version 2"),
            (r#"{"format":"pgark pin","version":1,"text":""}"#, Kind::Configuration, "pgark pin"),
            (r#"{"format":"pgark note","version":1}"#, Kind::Corrupt, "text"),
            ("{", Kind::Corrupt, &id),
        ] {
            write(&id, text);
            let error = list::<Note>(&fixture.cluster).expect_err(text);
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
