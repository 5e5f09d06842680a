//! What an object holds, in a form that people and ordinary tools read: WAL as the server wrote it, maps and the lists of
//! packs as JSON lines, the rest as the text that it is. With the checks that the object itself makes possible.

use std::io::{Read, Write};

use serde::Serialize;

use crate::error::{Error, IoContext, Kind, Result};
use crate::pg::history::TimelineHistory;
use crate::pg::label::BackupHistory;
use crate::pg::names::WalFile;
use crate::repo::wal_object::WalObject;
use crate::repo::{Cluster, Repository, backup, layout, pack, to_json};
use crate::store::Key;

/// How an object is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoding {
    /// As it is.
    Stored,
    /// What it holds.
    Content,
    /// What the header of a stored segment says.
    Header,
}

/// More than any text that a repository has.
const MAX_TEXT: u64 = 64 << 20;

/// What an object holds.
pub fn content(repository: &Repository, key: &Key, mut sink: &mut dyn Write) -> Result<()> {
    let owner = Owner::of(repository, key);
    if let (Some(owner), Some(wal)) = (&owner, WalObject::parse(key)) {
        return wal.read(&owner.at_home(key, &wal.key(&owner.cluster)?)?.cluster, &mut sink).map(drop);
    }
    match key.last() {
        "files.jsonl.zst" => lines_of_map(repository, key, sink),
        last if last.ends_with(".pack") => {
            let owner = owner.ok_or_else(|| unknown(key))?;
            let id = layout::parse_pack(key).ok_or_else(|| unknown(key))?;
            let owner = owner.at_home(key, &owner.cluster.layout().pack(id)?)?;
            frames_of_pack(&owner.cluster, id, sink)
        }
        _ => text(repository, key, owner.as_ref(), sink),
    }
}

/// The header of a stored segment.
pub fn header(repository: &Repository, key: &Key, sink: &mut dyn Write) -> Result<()> {
    let (Some(owner), Some(wal)) = (Owner::of(repository, key), WalObject::parse(key)) else {
        return Err(Error::configuration(format!("{key} is no stored segment, so it has no header"))
            .with_hint("--decode without =header shows what it holds"));
    };
    let owner = owner.at_home(key, &wal.key(&owner.cluster)?)?;
    let header = wal.read_header(&owner.cluster)?;
    put(sink, &to_json(&header)?)
}

/// The cluster to which an object belongs, by its key.
struct Owner {
    cluster: Cluster,
}

impl Owner {
    fn of(repository: &Repository, key: &Key) -> Option<Self> {
        let mut parts = key.as_str().split('/');
        let (name, system_id) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next()?;
        Some(Self { cluster: repository.cluster(&name, system_id) })
    }

    /// Decoding goes by what the key's last part names. That must lie where the key is.
    fn at_home(&self, key: &Key, home: &Key) -> Result<&Self> {
        if key == home {
            return Ok(self);
        }
        Err(Error::configuration(format!("{key} lies where nobody looks for it; its place is {home}"))
            .with_hint("without --decode its bytes can be had"))
    }
}

fn unknown(key: &Key) -> Error {
    Error::configuration(format!("could not decode {key}: a repository has no such objects"))
        .with_hint("without --decode its bytes can be had")
}

fn put(sink: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    sink.write_all(bytes).doing(|| "write what was decoded")
}

/// The lines of all chunks. zstd skips the list, and checks what it decompresses.
fn lines_of_map(repository: &Repository, key: &Key, sink: &mut dyn Write) -> Result<()> {
    let name = repository.store().name(key);
    let reader = repository.store().reader(key)?;
    let damaged = |cause: &std::io::Error| Error::corrupt(format!("could not decompress {name}: {cause}"));
    let mut decoder = zstd::stream::read::Decoder::new(reader).map_err(|cause| damaged(&cause))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = decoder.read(&mut buffer).map_err(|cause| damaged(&cause))?;
        match buffer.get(..length).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => put(sink, bytes)?,
            None => return Ok(()),
        }
    }
}

/// A JSON object for each frame.
fn frames_of_pack(cluster: &Cluster, id: layout::PackId, sink: &mut dyn Write) -> Result<()> {
    for frame in pack::list_frames(cluster, id)? {
        put(sink, &line(&frame)?)?;
    }
    Ok(())
}

fn line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut line =
        serde_json::to_vec(value).map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))?;
    line.push(b'\n');
    Ok(line)
}

/// Headers, records and histories: they are text already, which is checked.
fn text(repository: &Repository, key: &Key, owner: Option<&Owner>, sink: &mut dyn Write) -> Result<()> {
    let (store, name) = (repository.store(), repository.store().name(key));
    let size = store.head(key)?.size;
    if size > MAX_TEXT {
        return Err(unknown(key));
    }
    let bytes = store.get(key)?;
    if key.last().ends_with(".json") {
        check_json(&bytes, &name)?;
        if let (Some(owner), "backup.json") = (owner, key.last()) {
            let label = backup_label(key).ok_or_else(|| unknown(key))?;
            backup::read(&owner.cluster, &label)?;
        }
        return put(sink, &bytes);
    }
    match key.last().parse() {
        Ok(WalFile::History(timeline)) => {
            TimelineHistory::parse(timeline, &bytes).map_err(|error| error.context(name))?;
        }
        Ok(WalFile::BackupHistory(..)) => {
            BackupHistory::parse(&bytes).map_err(|error| error.context(name))?;
        }
        _ => return Err(unknown(key)),
    }
    put(sink, &bytes)
}

fn check_json(bytes: &[u8], name: &str) -> Result<()> {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
        .map(drop)
        .map_err(|cause| Error::new(Kind::Corrupt, format!("could not read {name}: {cause}")))
}

/// The label in `<cluster>/<system-id>/backup/<label>/backup.json`.
fn backup_label(key: &Key) -> Option<crate::ident::Name> {
    key.as_str().rsplit('/').nth(1)?.parse().ok()
}
