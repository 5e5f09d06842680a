//! pg_hba.conf or pg_ident.conf as one file, with everything in it that its lines include: so that a
//! restored server needs no file outside its data directory.
//!
//! Invariant: nobody gets in who did not before. A list of names that is not there becomes one name that
//! nobody has.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{MAX_DEPTH, Word, directory_files, logical_lines, words};
use crate::error::{Error, IoContext, Result};
use crate::pg::settings::Source;
use crate::pg::settings_file::MARKER;

/// Matches no database and no user.
const NOBODY: &[u8] = b"\"\"";

/// The text of the file with that of the included files in their place.
pub fn flatten(main: &Path, source: &dyn Source) -> Result<Vec<u8>> {
    let mut flat = Vec::new();
    let text = source.read(main).doing(|| format!("read {}", main.display()))?;
    append(&text, main, source, 0, &mut flat)?;
    Ok(flat)
}

fn append(text: &[u8], path: &Path, source: &dyn Source, depth: u32, flat: &mut Vec<u8>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::postgres(format!(
            "could not read {}: files are included deeper than {MAX_DEPTH} levels",
            path.display()
        )));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut lines = logical_lines(text.strip_suffix(b"\n").unwrap_or(text));
    // What follows the last line, or its backslash.
    lines.pop_if(|line| line.is_empty());
    for line in lines {
        let words = words(&line);
        let named = |word: &Word| directory.join(OsStr::from_bytes(&word.text));
        let included = match words.as_slice() {
            [first, file, ..] if first.is(b"include") || first.is(b"include_if_exists") => vec![named(file)],
            [first, directory, ..] if first.is(b"include_dir") => {
                let mut files = directory_files(&named(directory), source)?;
                files.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
                files
            }
            _ => {
                flat.extend(expand_lists(&line, directory, source, depth)?);
                flat.push(b'\n');
                continue;
            }
        };
        flat.extend([MARKER.as_bytes(), &line, b"\n"].concat());
        for file in included {
            if let Some(text) = read(&file, source)? {
                append(&text, &file, source, depth + 1, flat)?;
            }
        }
    }
    Ok(())
}

/// None for a file that is not there.
fn read(path: &Path, source: &dyn Source) -> Result<Option<Vec<u8>>> {
    match source.read(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some).doing(|| format!("read {}", path.display())),
    }
}

/// A line with the names in place of each `@file`.
fn expand_lists(line: &[u8], directory: &Path, source: &dyn Source, depth: u32) -> Result<Vec<u8>> {
    let mut expanded = Vec::with_capacity(line.len());
    for piece in pieces(line) {
        let file = match piece {
            Piece::Word(word) => words(word).first().and_then(|word| word.listed_file().map(<[u8]>::to_vec)),
            Piece::Between(_) => None,
        };
        match (file, piece) {
            (Some(file), _) => {
                let names = names(&directory.join(OsStr::from_bytes(&file)), source, depth + 1)?;
                expanded.extend(if names.is_empty() { NOBODY.to_vec() } else { names.join(b",".as_slice()) });
            }
            (None, Piece::Word(text) | Piece::Between(text)) => expanded.extend_from_slice(text),
        }
    }
    Ok(expanded)
}

/// The names in a file that a line lists with `@`, as they are written there.
fn names(path: &Path, source: &dyn Source, depth: u32) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let text = if depth > MAX_DEPTH { None } else { read(path, source)? };
    let directory = path.parent().unwrap_or(Path::new("/"));
    for line in logical_lines(&text.unwrap_or_default()) {
        for piece in pieces(&line) {
            let Piece::Word(text) = piece else { continue };
            match words(text).first().and_then(Word::listed_file) {
                Some(file) => {
                    found.extend(names(&directory.join(OsStr::from_bytes(file)), source, depth + 1)?);
                }
                None => found.push(text.to_vec()),
            }
        }
    }
    Ok(found)
}

/// A word with its quotes, or what stands between words: blanks, commas, the comment.
enum Piece<'a> {
    Word(&'a [u8]),
    Between(&'a [u8]),
}

fn pieces(line: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.first() {
        let length = match first {
            b'#' => rest.len(),
            b' ' | b'\t' | b',' => rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b',')).count(),
            _ => word_length(rest),
        };
        let (piece, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        let between = matches!(first, b'#' | b' ' | b'\t' | b',');
        pieces.push(if between { Piece::Between(piece) } else { Piece::Word(piece) });
        rest = behind;
    }
    pieces
}

fn word_length(text: &[u8]) -> usize {
    let mut in_quotes = false;
    let end = text.iter().position(|byte| {
        in_quotes ^= *byte == b'"';
        !in_quotes && matches!(byte, b'#' | b' ' | b'\t' | b',')
    });
    end.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::settings::Disk;
    use proptest::prelude::*;

    fn flat(files: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let flat = flatten(&dir.path().join("hba"), &Disk).expect("flattened");
        String::from_utf8(flat).expect("text")
    }

    #[test]
    fn lines_without_includes_stay_as_they_are() {
        let text = "# a comment, @x\nlocal  all\tpostgres,\"@y\" peer # @z\nhost all all ::1/128 md5\n";
        assert_eq!(flat(&[("hba", text)]), text);
    }

    #[test]
    fn lists_of_names_are_written_into_the_line() {
        let files = [
            ("hba", "local @dbs,extra @\"the users\" peer\nlocal @gone all trust"),
            ("dbs", "one # two\n\"three four\", +five\n@sub/more\n"),
            ("sub/more", "@last\nsix"),
            ("sub/last", "seven"),
            ("the users", "alice"),
        ];
        assert_eq!(
            flat(&files),
            "local one,\"three four\",+five,seven,six,extra alice peer\nlocal \"\" all trust\n"
        );
    }

    #[test]
    fn included_files_take_the_place_of_the_line() {
        let files = [
            ("hba", "include d/one.conf\ninclude_if_exists no\ninclude_dir d\nlocal all all reject"),
            ("d/one.conf", "local @list all peer"),
            ("d/list", "x"),
            ("d/a.conf", "local a all peer"),
            ("d/.b.conf", "local b all trust"),
        ];
        let without_comments: Vec<String> =
            flat(&files).lines().filter(|line| !line.starts_with('#')).map(str::to_string).collect();
        let expected = ["local x all peer", "local a all peer", "local x all peer", "local all all reject"];
        assert_eq!(without_comments, expected);
    }

    #[test]
    fn a_circle_of_includes_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("hba"), "include hba").expect("written");
        assert!(
            flatten(&dir.path().join("hba"), &Disk).is_err_and(|error| error.message().contains("deeper"))
        );
        std::fs::write(dir.path().join("hba"), "local @hba all peer").expect("written");
        assert!(flatten(&dir.path().join("hba"), &Disk).is_ok());
    }

    proptest! {
        #[test]
        fn pieces_put_together_are_the_line(line: Vec<u8>) {
            let together: Vec<u8> = pieces(&line).into_iter().flat_map(|piece| match piece {
                Piece::Word(text) | Piece::Between(text) => text.to_vec(),
            }).collect();
            prop_assert_eq!(together, line);
        }
    }
}
