//! What a fuzzer calls: one function for each kind of bytes that come from outside. Only in tests and with the
//! feature `fuzzing`; `fuzz/` has a cargo-fuzz target and a corpus for each.
//!
//! None may panic, hang or allocate without bounds, whatever it is given; and what is accepted must mean one thing:
//! written again and read again it is the same. Where a checksum stands before the parser it is made right first,
//! or a fuzzer would see nothing but wrong checksums.

use std::fmt::{Debug, Display};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::config;
use crate::error::Error;
use crate::ident::Name;
use crate::location::Location;
use crate::pg::control::{self, ControlFile};
use crate::pg::hba;
use crate::pg::history::TimelineHistory;
use crate::pg::label::{BackupLabel, parse_tablespace_map};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::relfile::{RelationFile, RelationName};
use crate::pg::replication;
use crate::pg::settings::{Settings, Source};
use crate::pg::settings_file;
use crate::pg::version::PgMajor;
use crate::pg::wal;
use crate::repo::fixture::{Fixture, name};
use crate::repo::map::{Entry, MapReader};
use crate::repo::{backup, layout, segment};
use crate::store::Key;

/// One kind of input.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const TARGETS: [Target; 12] = [
    Target { name: "names", run: names },
    Target { name: "history", run: history },
    Target { name: "pg_control", run: pg_control },
    Target { name: "wal_segment", run: wal::fuzz::segment },
    Target { name: "wal_record", run: wal::fuzz::record },
    Target { name: "stored_segment", run: stored_segment },
    Target { name: "segment_header", run: segment::fuzz },
    Target { name: "map", run: map },
    Target { name: "backup_header", run: backup_header },
    Target { name: "configuration", run: configuration },
    Target { name: "server_files", run: server_files },
    Target { name: "replication", run: replication::fuzz::stream },
];

/// Runs one of them.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no target {name}")).run)(data);
}

thread_local! {
    /// For what is read from a repository only.
    static REPOSITORY: Fixture = Fixture::create();
}

/// It was understood or refused, and that is all.
fn ignore<T>(outcome: T) {
    drop(std::hint::black_box(outcome));
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// What is accepted is written as something that means the same.
fn round_trip<T: FromStr<Err = Error> + Display + Debug + PartialEq>(text: &str) {
    if let Ok(parsed) = text.parse::<T>() {
        assert_eq!(parsed.to_string().parse::<T>(), Ok(parsed), "{text:?}");
    }
}

fn names(data: &[u8]) {
    let Some(text) = text(data) else { return };
    round_trip::<SegmentName>(text);
    round_trip::<WalFile>(text);
    round_trip::<Name>(text);
    round_trip::<Lsn>(text);
    ignore(RelationName::parse(text));
    for major in PgMajor::all() {
        ignore(RelationFile::parse(Path::new(text), major));
    }
    if let Ok(location) = Location::parse(text) {
        assert_eq!(Location::parse(&location.to_string()), Ok(location), "{text:?}");
    }
    if let Ok(key) = Key::new(text) {
        ignore((layout::parse_wal(&key), layout::parse_pack(&key), layout::parse_history(&key)));
        ignore((layout::parse_partial(&key), layout::parse_streamed(&key), layout::parse_id(&key)));
    }
}

fn history(data: &[u8]) {
    let Some((timeline, content)) = data.split_first() else { return };
    let timeline = Timeline(u32::from(*timeline));
    if let Ok(history) = TimelineHistory::parse(timeline, content) {
        assert_eq!(history.timeline(), timeline);
        for entry in history.entries() {
            assert!(entry.timeline < timeline);
        }
    }
}

fn pg_control(data: &[u8]) {
    ignore(ControlFile::parse(data));
    control::fuzz(data);
}

fn stored_segment(data: &[u8]) {
    let name: SegmentName = "00000001000000000000000A".parse().expect("a segment");
    REPOSITORY.with(|fixture| {
        let file = fixture.file(&fixture.cluster.layout().segment(name).expect("a key"));
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        std::fs::write(file, data).expect("written");
        let mut raw = Vec::new();
        if let Ok(header) = segment::read(&fixture.cluster, name, &mut raw) {
            assert_eq!(raw.len() as u64, header.raw_size());
        }
        ignore(segment::read_header(&fixture.cluster, name));
    });
}

fn map(data: &[u8]) {
    let Some(lines) = text(data) else { return };
    REPOSITORY.with(|fixture| {
        let summary = fixture.raw_map("fuzz", ".", lines);
        if let Ok(map) = MapReader::open(&fixture.cluster, &name("fuzz"), &summary) {
            map.iter().flatten().for_each(|chunk| chunk.entries.iter().for_each(stays_inside));
        }
        let key = fixture.cluster.layout().backup_map(&name("fuzz")).expect("a key");
        std::fs::remove_file(fixture.file(&key)).expect("removed");
    });
}

fn stays_inside(entry: &Entry) {
    let path = entry.attributes().path.as_path();
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    assert!(path.components().all(is_plain), "{path:?} leads out of the target");
}

fn backup_header(data: &[u8]) {
    ignore(backup::fuzz(data));
}

fn configuration(data: &[u8]) {
    let Some(text) = text(data) else { return };
    config::fuzz(text);
}

/// One file; what it includes is not there.
struct OnlyFile<'a>(&'a [u8]);

impl Source for OnlyFile<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new(MAIN_FILE) { Ok(self.0.to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn list(&self, _directory: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

const MAIN_FILE: &str = "/etc/postgresql/main.conf";

fn server_files(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        ignore(settings_file::parse_line(line));
    }
    ignore(BackupLabel::parse(data));
    ignore(parse_tablespace_map(data));
    ignore(hba::files(Path::new(MAIN_FILE), &OnlyFile(data)));
    ignore(Settings::read(Path::new(MAIN_FILE), &OnlyFile(data)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Mutations of each input, in a test; a fuzzer makes millions.
    const MUTATIONS: usize = 40;

    fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = fs::read_dir(&directory).unwrap_or_else(|_| panic!("no {}", directory.display()));
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("listed").path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).expect("read"))).collect()
    }

    /// Small and good enough: an xorshift, as Marsaglia gives it.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end.max(1) as u64) as usize
        }
    }

    fn mutate(dice: &mut Dice, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=dice.below(4) {
            let at = dice.below(bytes.len());
            match dice.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
                1 if !bytes.is_empty() => {
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'/', b'\n'][dice.below(8)]
                }
                2 => bytes.truncate(at),
                3 => bytes.insert(at, dice.below(256) as u8),
                4 => {
                    let from = dice.below(other.len());
                    let length = dice.below(other.len() - from + 1);
                    bytes.splice(at..at, other[from..from + length].iter().copied());
                }
                _ => {
                    let end = (at + dice.below(9)).min(bytes.len());
                    drop(bytes.drain(at.min(end)..end));
                }
            }
        }
        bytes
    }

    #[test]
    fn no_input_of_the_corpus_nor_what_is_near_it_is_too_much() {
        for target in &TARGETS {
            let inputs = corpus(target.name);
            assert!(!inputs.is_empty(), "fuzz/corpus/{} is empty", target.name);
            for (number, (path, input)) in inputs.iter().enumerate() {
                (target.run)(input);
                let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ number as u64);
                for mutation in 0..MUTATIONS {
                    let other = &inputs[dice.below(inputs.len())].1;
                    let mutant = mutate(&mut dice, input, other);
                    let survived = std::panic::catch_unwind(|| (target.run)(&mutant));
                    assert!(survived.is_ok(), "mutation {mutation} of {}: {mutant:?}", path.display());
                }
            }
        }
    }

    #[test]
    fn every_target_has_its_program_and_no_program_is_without_one() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
        let mut programs: Vec<String> = fs::read_dir(&directory)
            .expect("listed")
            .map(|file| file.expect("listed").path().file_stem().expect("a name").display().to_string())
            .collect();
        programs.sort();
        let mut targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        targets.sort_unstable();
        assert_eq!(programs, targets);
        let manifest = fs::read_to_string(directory.with_file_name("Cargo.toml")).expect("read");
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "fuzz/Cargo.toml lacks {target}");
        }
    }
}
