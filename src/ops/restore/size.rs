//! How many bytes a restore needs, and where.
//!
//! Counted is the whole size of the files, since the server may fill what is zeros now. Where that is more than
//! there is, only what will be written counts: zeros are holes, and a cluster may have more of them than a disk.

use std::path::{Path, PathBuf};

use super::Request;
use super::plan::Decision;
use super::source::Source;
use super::space::{self, Demand};
use super::tablespaces::Assigned;
use crate::error::Result;
use crate::repo::map::{Entry, FilePart, MapReader, Slice};
use crate::words;

/// WAL that recovery may have on disk at once, at most: the default of max_wal_size.
const MOST_WAL: u64 = 1 << 30;
/// Segments that a server writes at its start and after its promotion.
const OWN_SEGMENTS: u64 = 3;

/// Which bytes of a file count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Whole,
    /// All but zeros.
    Written,
}

impl Counted {
    fn of(self, part: &FilePart) -> u64 {
        let data =
            |slice: &Slice| if let Slice::Data { length, .. } = slice { u64::from(*length) } else { 0 };
        match self {
            Counted::Whole => part.size.unwrap_or(0),
            Counted::Written => part.slices.iter().map(data).sum(),
        }
    }
}

/// What the restore puts where.
pub fn demands(
    source: &Source,
    request: &Request,
    decision: &Decision,
    assigned: &[Assigned],
    counted: Counted,
) -> Result<Vec<Demand>> {
    let wal = decision.wal_bytes().min(MOST_WAL).saturating_add(OWN_SEGMENTS * decision.segment_size.bytes());
    let total = match counted {
        Counted::Whole => decision.header.map.raw_bytes,
        Counted::Written => bytes_below(source, decision, Path::new(""), counted)?,
    };
    let demand = |directory: &PathBuf, bytes| Demand { directory: directory.clone(), bytes };
    let mut demands = vec![demand(&request.data, wal)];
    let home = space::device_of(&request.data)?;
    let mut outside: u64 = 0;
    for place in assigned {
        // Only then it matters which file belongs to which tablespace.
        if space::device_of(&place.location)? != home {
            let below = Path::new("pg_tblspc").join(place.oid.to_string());
            let bytes = bytes_below(source, decision, &below, counted)?;
            outside = outside.saturating_add(bytes);
            demands.push(demand(&place.location, bytes));
        }
    }
    demands.push(demand(&request.data, total.saturating_sub(outside)));
    Ok(demands)
}

/// Of the files whose paths begin so.
fn bytes_below(source: &Source, decision: &Decision, below: &Path, counted: Counted) -> Result<u64> {
    let mut bytes: u64 = 0;
    let map = MapReader::open(&source.cluster, &decision.header.label, &decision.header.map)?;
    for chunk in map.iter() {
        for entry in chunk?.entries {
            if let Entry::File(part) = entry
                && part.attributes.path.as_path().starts_with(below)
            {
                bytes = bytes.saturating_add(counted.of(&part));
            }
        }
    }
    Ok(bytes)
}

/// For a restore that fits only without the zeros.
pub fn note(whole: &[Demand], written: &[Demand]) -> String {
    let sum = |demands: &[Demand]| demands.iter().fold(0u64, |sum, demand| sum.saturating_add(demand.bytes));
    format!(
        "the restore writes {}; with the zeros that its files have as holes they are {}, and there is no room \
         for that when the server fills them",
        words::bytes(sum(written)),
        words::bytes(sum(whole))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::digest::SliceDigest;
    use crate::repo::map::{Attributes, FileMode, MapPath};

    fn part(size: Option<u64>) -> FilePart {
        let attributes = Attributes {
            path: MapPath::data("base/5/1").expect("a path"),
            mode: FileMode::from_st_mode(0o600),
            mtime: jiff::Timestamp::UNIX_EPOCH,
        };
        let data = Slice::Data { length: 8192, frame: 0, offset: 0, digest: SliceDigest::of(b"") };
        let slices = vec![data, Slice::Zeros { length: 1 << 30 }, data];
        FilePart { attributes, at: 0, slices, size }
    }

    #[test]
    fn a_file_counts_once_and_without_its_zeros_where_these_do_not_count() {
        let whole = (1 << 30) + 16384;
        assert_eq!(Counted::Whole.of(&part(Some(whole))), whole);
        assert_eq!(Counted::Whole.of(&part(None)), 0, "its last part has the size");
        assert_eq!(Counted::Written.of(&part(Some(whole))), 16384);
        assert_eq!(Counted::Written.of(&part(None)), 16384);
    }

    #[test]
    fn the_note_has_both_sums() {
        let demand = |bytes| Demand { directory: "/x".into(), bytes };
        let said = note(&[demand(1 << 40), demand(1 << 30)], &[demand(1 << 30), demand(1 << 30)]);
        assert!(said.contains("writes 2.00 GiB;") && said.contains("are 1.00 TiB,"), "{said}");
    }
}
