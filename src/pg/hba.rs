//! Which files belong to pg_hba.conf and pg_ident.conf: what their lines include.
//!
//! Words and quotes as next_token and next_field_expand (hba.c): `@file` in a list of databases or users, and
//! from 16 on the directives `include`, `include_if_exists` and `include_dir`. Nothing is checked that the
//! server checks; a file that is missing is left out, as the server does after a reload.

mod flatten;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use flatten::flatten;

use super::settings::Source;
use crate::error::{IoContext, Result};

/// CONF_FILE_MAX_DEPTH.
const MAX_DEPTH: u32 = 10;

/// The file and all that it includes, sorted. Those that are not there are not among them.
pub fn files(main: &Path, source: &dyn Source) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    visit(main, source, 0, &mut found)?;
    Ok(found)
}

fn visit(path: &Path, source: &dyn Source, depth: u32, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH || found.contains(path) {
        return Ok(());
    }
    let text = match source.read(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            tracing::warn!("{} is not there, though it is included", path.display());
            return Ok(());
        }
        Err(cause) => return Err(cause).doing(|| format!("read {}", path.display())),
    };
    found.insert(path.to_path_buf());
    let directory = path.parent().unwrap_or(Path::new("/"));
    for include in includes(&text) {
        match include {
            Include::File(name) => visit(&directory.join(name), source, depth + 1, found)?,
            Include::Directory(name) => {
                for file in directory_files(&directory.join(name), source)? {
                    visit(&file, source, depth + 1, found)?;
                }
            }
        }
    }
    Ok(())
}

/// As GetConfFilesInDir: `*.conf` that are not hidden.
fn directory_files(directory: &Path, source: &dyn Source) -> Result<Vec<PathBuf>> {
    let wanted = |path: &PathBuf| {
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        name.ends_with(b".conf") && !name.starts_with(b".")
    };
    match source.list(directory) {
        Ok(files) => Ok(files.into_iter().filter(wanted).collect()),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(cause).doing(|| format!("list {}", directory.display())),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Include {
    File(PathBuf),
    Directory(PathBuf),
}

fn includes(text: &[u8]) -> Vec<Include> {
    let mut found = Vec::new();
    for line in logical_lines(text) {
        let words = words(&line);
        let path = |word: &Word| PathBuf::from(OsStr::from_bytes(&word.text));
        match words.as_slice() {
            [first, file, ..] if first.is(b"include") || first.is(b"include_if_exists") => {
                found.push(Include::File(path(file)));
            }
            [first, directory, ..] if first.is(b"include_dir") => {
                found.push(Include::Directory(path(directory)));
            }
            words => {
                let listed = words.iter().filter_map(Word::listed_file);
                found.extend(listed.map(|name| Include::File(PathBuf::from(OsStr::from_bytes(name)))));
            }
        }
    }
    found
}

/// A backslash at the end of a line continues it.
fn logical_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    for part in text.split(|byte| *byte == b'\n') {
        let part = part.strip_suffix(b"\r").unwrap_or(part);
        match part.strip_suffix(b"\\") {
            Some(part) => line.extend_from_slice(part),
            None => {
                line.extend_from_slice(part);
                lines.push(std::mem::take(&mut line));
            }
        }
    }
    lines.push(line);
    lines
}

#[derive(Debug, Default)]
struct Word {
    text: Vec<u8>,
    /// It begins with a quote: "@x" is then no file.
    quoted: bool,
}

impl Word {
    fn is(&self, keyword: &[u8]) -> bool {
        !self.quoted && self.text == keyword
    }

    fn listed_file(&self) -> Option<&[u8]> {
        self.text.strip_prefix(b"@").filter(|name| !self.quoted && !name.is_empty())
    }
}

/// The words of a line up to a comment. Blanks and commas part them, but not within quotes.
fn words(line: &[u8]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut in_quotes = false;
    for byte in line {
        match byte {
            b'#' if !in_quotes => break,
            b' ' | b'\t' | b',' if !in_quotes => words.extend(word.take()),
            b'"' => {
                in_quotes = !in_quotes;
                word.get_or_insert(Word { quoted: true, ..Word::default() });
            }
            other => word.get_or_insert_default().text.push(*other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::settings::Disk;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<String> {
        let name = |include: &Include| match include {
            Include::File(path) => path.display().to_string(),
            Include::Directory(path) => format!("{}/", path.display()),
        };
        includes(text.as_bytes()).iter().map(name).collect()
    }

    #[test]
    fn includes_are_found_as_the_server_finds_them() {
        for (text, expected) in [
            ("host all all 127.0.0.1/32 trust\n", &[] as &[&str]),
            ("local @dbs all,@users peer # @comment", &["dbs", "users"]),
            ("local \"@quoted\" \"@also\"x peer", &[]),
            ("local @\"with space\" all peer", &["with space"]),
            (
                "include other.conf\ninclude_if_exists \"a b\"\ninclude_dir hba.d",
                &["other.conf", "a b", "hba.d/"],
            ),
            ("local all \\\n  @users peer\r\n", &["users"]),
            ("\"include\" x\n", &[]),
            ("@\n# include x\n", &[]),
        ] {
            assert_eq!(names(text), expected, "{text:?}");
        }
    }

    #[test]
    fn files_are_collected_relative_to_those_that_include_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        std::fs::create_dir(dir.path().join("d")).expect("made");
        write("hba", "include d/one.conf\ninclude_dir d\nlocal @gone all peer\ninclude hba\n");
        write("d/one.conf", "local @list all peer\n");
        write("d/list", "a\nb\n");
        write("d/.hidden.conf", "");
        write("d/two.conf", "include ../hba\n");
        write("d/three", "");
        let found = files(&dir.path().join("hba"), &Disk).expect("read");
        let found: BTreeSet<PathBuf> =
            found.iter().map(|path| path.canonicalize().expect("it is there")).collect();
        let base = dir.path().canonicalize().expect("it is there");
        let expected = ["d/list", "d/one.conf", "d/two.conf", "hba"].map(|name| base.join(name));
        assert_eq!(found, BTreeSet::from(expected));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(text: Vec<u8>) {
            includes(&text);
        }
    }
}
