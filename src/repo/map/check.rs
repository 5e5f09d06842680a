//! What must hold before a map is acted on, besides what the reader sees to: that it is all there, and that nothing
//! in it is what no backup holds. Whoever can write the repository can make every digest right.

use super::{Chunk, Entry, MapSummary};
use crate::error::{Error, Result};
use crate::pg::control::ControlFile;
use crate::pg::exclude;
use crate::pg::version::PgMajor;
use crate::repo::map::Root;

/// What the chunks that were read hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub files: u64,
    pub directories: u64,
    /// The sum of the sizes of all files.
    pub bytes: u64,
}

impl Totals {
    pub fn add(&mut self, chunk: &Chunk) {
        for entry in &chunk.entries {
            match entry {
                Entry::Directory(_) => self.directories += 1,
                Entry::File(part) => {
                    self.files += u64::from(part.size.is_some());
                    self.bytes = self.bytes.saturating_add(part.end().saturating_sub(part.at));
                }
            }
        }
    }

    /// An error unless this is what the backup's header says of its map.
    pub fn expect(self, said: &MapSummary) -> Result<()> {
        let expected = Self { files: said.files, directories: said.directories, bytes: said.raw_bytes };
        if self == expected {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "it has {} files of {} bytes in {} directories, expected {} of {} in {}",
            self.files, self.bytes, self.directories, expected.files, expected.bytes, expected.directories
        )))
    }
}

impl Chunk {
    /// An error if a restore of this major version must not make an entry. The last chunks hold the control file and
    /// nothing else: what they hold is written behind the configuration that a restore makes.
    pub fn refuse_strangers(&self, major: PgMajor) -> Result<()> {
        for entry in &self.entries {
            let path = &entry.attributes().path;
            let is_control = path.root() == Root::Data && path.as_path() == ControlFile::path("".as_ref());
            let is_file = matches!(entry, Entry::File(_));
            let fits = if self.is_final { is_control && is_file } else { !is_control };
            let strange = path.root() == Root::Data && exclude::misleads(path.as_path(), !is_file, major);
            if strange || !fits {
                return Err(Error::corrupt(format!("it holds {path}, which no backup holds there")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::attributes;
    use super::*;
    use crate::repo::map::{FilePart, MapPath, Slice};

    fn file(path: &str) -> Entry {
        let attributes = attributes(MapPath::data(path).expect("a path"));
        Entry::File(FilePart { attributes, at: 0, slices: vec![Slice::Zeros { length: 7 }], size: Some(7) })
    }

    fn chunk(entries: Vec<Entry>, is_final: bool) -> Chunk {
        Chunk { frames: Vec::new(), entries, is_final }
    }

    #[test]
    fn the_control_file_comes_last_and_alone() {
        let major = PgMajor::try_from(15).expect("supported");
        let control = || file("global/pg_control");
        for (entries, is_final, expected) in [
            (vec![control()], true, true),
            (vec![control()], false, false),
            (vec![file("postgresql.auto.conf"), control()], true, false),
            (vec![Entry::Directory(control().attributes().clone())], true, false),
            (vec![file("global/1262")], false, true),
            (vec![file("tablespace_map")], false, false),
        ] {
            let chunk = chunk(entries, is_final);
            assert_eq!(chunk.refuse_strangers(major).is_ok(), expected, "{chunk:?}");
        }
        let outside = MapPath::config("/etc/tablespace_map").expect("a path");
        let outside = Entry::Directory(attributes(outside));
        assert!(chunk(vec![outside], false).refuse_strangers(major).is_ok());
    }

    #[test]
    fn a_map_that_holds_more_or_less_than_its_header_says_is_told() {
        let mut totals = Totals::default();
        let directory = Entry::Directory(attributes(MapPath::data("base").expect("a path")));
        totals.add(&chunk(vec![directory, file("base/a"), file("base/b")], false));
        assert_eq!(totals, Totals { files: 2, directories: 1, bytes: 14 });
        let said = |files, directories, raw_bytes| MapSummary {
            size: 0,
            sha256: crate::pipe::digest::Sha256Digest::of(b""),
            list_sha256: crate::pipe::digest::Sha256Digest::of(b""),
            chunks: 1,
            files,
            directories,
            raw_bytes,
        };
        assert_eq!(totals.expect(&said(2, 1, 14)), Ok(()));
        for wrong in [said(1, 1, 14), said(2, 2, 14), said(2, 1, 15)] {
            let error = totals.expect(&wrong).expect_err("differs");
            assert!(error.message().contains("it has 2 files of 14 bytes in 1 directories"), "{error}");
        }
    }
}
