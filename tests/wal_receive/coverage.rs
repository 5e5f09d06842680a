//! Whether all that a receiver reported as flushed is there: compared with what its server still has in pg_wal, whose
//! segments are of 1 MiB on timeline 1.

use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::harness::*;

pub const SEGMENT: u64 = 1 << 20;

/// What the server was told last: the slot keeps it (walsender.c, PhysicalConfirmReceivedLocation). In bytes.
pub fn flushed(server: &Cluster, slot: &str) -> u64 {
    let lsn = "select restart_lsn - '0/0'::pg_lsn from pg_replication_slots where slot_name";
    server.psql(&format!("{lsn} = '{slot}'")).parse().expect("a number of bytes")
}

/// All WAL there is in the repository or, if one is given, in the spool.
#[track_caller]
pub fn expect_covered(server: &Cluster, repo: &TestRepo, spool: Option<&Path>, wal: Range<u64>) {
    // Nothing is there of where the slot began as long as nothing was reported.
    let mut start = if wal.is_empty() { wal.end } else { wal.start - wal.start % SEGMENT };
    while start < wal.end {
        let name = format!("00000001{:08X}{:08X}", start >> 32, (start & 0xFFFF_FFFF) / SEGMENT);
        let wanted = usize::try_from(SEGMENT.min(wal.end - start)).expect("a size");
        let mut copies = stored(repo, &name);
        copies.extend(spool.into_iter().flat_map(|spool| spooled(spool, &name)));
        let written = fs::read(server.data_dir().join("pg_wal").join(&name)).expect("the server has it");
        assert!(
            copies.iter().any(|copy| copy.get(..wanted) == Some(&written[..wanted])),
            "of {name} {wanted} bytes were reported as flushed, and there are {:?}",
            copies.iter().map(Vec::len).collect::<Vec<_>>()
        );
        start += SEGMENT;
    }
}

/// What the repository has of a segment, whole or as far as it was streamed.
pub fn stored(repo: &TestRepo, name: &str) -> Vec<Vec<u8>> {
    let keys = repo.matching(&format!("/{name}"));
    let keys = keys.iter().filter(|key| key.ends_with(".zst"));
    keys.map(|key| zstd::decode_all(&repo.read(key)[..]).expect("zstd")).collect()
}

fn spooled(spool: &Path, name: &str) -> Vec<Vec<u8>> {
    let entries = walkdir::WalkDir::new(spool).into_iter().map(|entry| entry.expect("an entry"));
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
    ours.map(|entry| fs::read(entry.path()).expect("read")).collect()
}
