//! The names in one directory, sorted by their bytes, in bounded memory.
//!
//! A directory of a database with a million relations holds millions of names. So names are collected up
//! to a limit, sorted, and written as a run to an unlinked temporary file when there are more; reading
//! merges the runs. Invariant: memory is the limit and one small buffer for each run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::error::{IoContext, Result};

/// Bytes of names that are held in memory at once.
const LIMIT: usize = 2 << 20;

/// A buffer for each run; with `LIMIT`, a directory of ten million names needs 2 MiB of them.
const RUN_BUFFER: usize = 16 << 10;

/// The names of a directory's entries, in order. A directory that is gone has none.
pub fn sorted_names(directory: &Path) -> Result<SortedNames> {
    let what = || format!("list {}", directory.display());
    let mut sorter = Sorter::new(LIMIT);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return sorter.finish().doing(what),
        Err(cause) => return Err(cause).doing(what),
    };
    for entry in entries {
        sorter.add(&entry.doing(what)?.file_name()).doing(what)?;
    }
    sorter.finish().doing(what)
}

/// Collects names until they are all there.
struct Sorter {
    limit: usize,
    held: Names,
    runs: Vec<File>,
}

/// Names without an allocation for each: they lie one after the other, and their ends say where.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Names {
    fn push(&mut self, name: &OsStr) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.ends.push(self.bytes.len());
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).filter_map(|(start, end)| self.bytes.get(*start..*end))
    }

    fn sorted(&self) -> Self {
        let mut order: Vec<&[u8]> = self.iter().collect();
        order.sort_unstable();
        let mut sorted = Names::default();
        order.into_iter().for_each(|name| sorted.push(OsStr::from_bytes(name)));
        sorted
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        self.bytes.get(start..*self.ends.get(index)?)
    }
}

impl Sorter {
    fn new(limit: usize) -> Self {
        Self { limit, held: Names::default(), runs: Vec::new() }
    }

    fn add(&mut self, name: &OsStr) -> std::io::Result<()> {
        self.held.push(name);
        if self.held.size() < self.limit {
            return Ok(());
        }
        let names = std::mem::take(&mut self.held);
        self.runs.push(write_run(&names.sorted())?);
        Ok(())
    }

    fn finish(self) -> std::io::Result<SortedNames> {
        let mut sources = vec![Source::Memory { names: self.held.sorted(), next: 0 }];
        for mut run in self.runs {
            run.rewind()?;
            sources.push(Source::Run(BufReader::with_capacity(RUN_BUFFER, run)));
        }
        let mut names = SortedNames { sources, heads: BinaryHeap::new() };
        for source in 0..names.sources.len() {
            names.advance(source)?;
        }
        Ok(names)
    }
}

/// A name cannot hold a zero byte, so that is what ends one.
fn write_run(names: &Names) -> std::io::Result<File> {
    let mut run = BufWriter::new(tempfile::tempfile()?);
    for name in names.iter() {
        run.write_all(name)?;
        run.write_all(&[0])?;
    }
    run.into_inner().map_err(std::io::IntoInnerError::into_error)
}

enum Source {
    Memory { names: Names, next: usize },
    Run(BufReader<File>),
}

impl Source {
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        match self {
            Source::Memory { names, next } => {
                let name = names.get(*next).map(<[u8]>::to_vec);
                *next += 1;
                Ok(name)
            }
            Source::Run(run) => read_name(run),
        }
    }
}

fn read_name(run: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut name = Vec::new();
    if run.read_until(0, &mut name)? == 0 {
        return Ok(None);
    }
    name.pop();
    Ok(Some(name))
}

/// Names in the order of their bytes.
pub struct SortedNames {
    sources: Vec<Source>,
    /// The next name of each source that has one.
    heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
}

impl SortedNames {
    fn advance(&mut self, source: usize) -> std::io::Result<()> {
        let next = self.sources.get_mut(source).map_or(Ok(None), Source::next)?;
        self.heads.extend(next.map(|name| Reverse((name, source))));
        Ok(())
    }

    /// The next name; an error only when a temporary file can't be read.
    pub fn next(&mut self) -> Result<Option<OsString>> {
        let Some(Reverse((name, source))) = self.heads.pop() else { return Ok(None) };
        self.advance(source).doing(|| "read a temporary file with the names in a directory")?;
        Ok(Some(OsString::from_vec(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(mut names: SortedNames) -> Vec<OsString> {
        let mut found = Vec::new();
        while let Some(name) = names.next().expect("readable") {
            found.push(name);
        }
        found
    }

    fn sorted_with(limit: usize, names: &[OsString]) -> Vec<OsString> {
        let mut sorter = Sorter::new(limit);
        names.iter().for_each(|name| sorter.add(name).expect("written"));
        all(sorter.finish().expect("readable"))
    }

    #[test]
    fn the_names_of_a_directory_come_in_the_order_of_their_bytes() {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in ["b", "a_fsm", "a.1", "a10", "a", "B"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        std::fs::create_dir(dir.path().join("a-dir")).expect("made");
        let names = all(sorted_names(dir.path()).expect("listed"));
        assert_eq!(names, ["B", "a", "a-dir", "a.1", "a10", "a_fsm", "b"]);
    }

    #[test]
    fn a_directory_that_is_gone_has_no_names_and_one_that_is_a_file_is_an_error() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(all(sorted_names(&dir.path().join("gone")).expect("fine")).is_empty());
        std::fs::write(dir.path().join("file"), "").expect("written");
        assert!(
            sorted_names(&dir.path().join("file")).is_err_and(|e| e.message().contains("could not list"))
        );
    }

    proptest! {
        #[test]
        fn however_many_runs_there_are_the_order_is_the_same(
            names in proptest::collection::vec(proptest::collection::vec(1u8.., 0..9), 0..60),
            limit in 1usize..200,
        ) {
            let names: Vec<OsString> = names.into_iter().map(OsString::from_vec).collect();
            let mut expected = names.clone();
            expected.sort();
            prop_assert_eq!(sorted_with(limit, &names), expected);
        }
    }
}
