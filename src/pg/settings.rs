//! The settings of a cluster as its configuration files give them: postgresql.conf, what it includes, and
//! postgresql.auto.conf over all (ParseConfigFile, ParseConfigFp and ParseConfigDirectory in guc-file.l).
//!
//! Refuses what the server refuses to start with: syntax errors, missing files, files nested too deep.
//! Invariant: of several values the last one counts, in the order in which the server reads.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::settings_file::{Line, MARKER, lines, parse_line};
use crate::error::{Error, IoContext, Result};

/// What ALTER SYSTEM writes, in the data directory.
pub const AUTO_CONF: &str = "postgresql.auto.conf";

/// As guc-file.l.
const MAX_DEPTH: u32 = 10;

/// Where configuration files are read from: this host, or the contents of a backup.
pub trait Source {
    /// The whole content of a file. `NotFound` for one that is not there.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The files (not directories) in a directory, in any order.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
}

/// The files of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Source for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            // A link to nowhere is an error that names itself when it is read.
            if !path.is_dir() {
                files.push(path);
            }
        }
        Ok(files)
    }
}

/// One line that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In lower case.
    pub name: String,
    pub value: String,
    pub file: PathBuf,
    /// Counted from 1.
    pub line: u32,
}

/// All settings of some files, in the order in which the server reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub entries: Vec<Entry>,
    /// Each file that was read.
    pub files: Vec<PathBuf>,
    /// The text of the main file with that of the included files in place of each include.
    pub flat: Vec<u8>,
}

impl Settings {
    /// A main configuration file with what it includes.
    pub fn read(config_file: &Path, source: &dyn Source) -> Result<Self> {
        let mut settings = Self::default();
        settings.read_file(config_file, source, 0)?;
        Ok(settings)
    }

    /// What a server runs with: the main file, then the data directory's postgresql.auto.conf, if any.
    /// `flat` and the first of `files` are of the main file.
    pub fn effective(config_file: &Path, data_directory: &Path, source: &dyn Source) -> Result<Self> {
        let mut settings = Self::read(config_file, source)?;
        let auto = data_directory.join(AUTO_CONF);
        let mut over = Self::default();
        if over.read_if_there(&auto, source, 0)? {
            settings.entries.append(&mut over.entries);
            settings.files.append(&mut over.files);
        }
        Ok(settings)
    }

    /// The entry that counts.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.name.eq_ignore_ascii_case(name))
    }

    /// The value that counts; None if the server's default does.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|entry| entry.value.as_str())
    }

    fn read_if_there(&mut self, path: &Path, source: &dyn Source, depth: u32) -> Result<bool> {
        match source.read(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause).doing(|| format!("read configuration file {}", path.display())),
            Ok(text) => self.parse(&text, path, source, depth).map(|()| true),
        }
    }

    fn read_file(&mut self, path: &Path, source: &dyn Source, depth: u32) -> Result<()> {
        let text = source.read(path).doing(|| format!("read configuration file {}", path.display()))?;
        self.parse(&text, path, source, depth)
    }

    fn parse(&mut self, text: &[u8], path: &Path, source: &dyn Source, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::postgres(format!(
                "could not read configuration file {}: files are included deeper than {MAX_DEPTH} levels",
                path.display()
            )));
        }
        self.files.push(path.to_path_buf());
        for (number, line) in (1..).zip(lines(text)) {
            let at = Place { file: path, line: number };
            match parse_line(line) {
                Line::Blank => self.copy(line),
                Line::Bad => return Err(at.error("syntax error")),
                Line::Setting { name, value } if is_include(&name) => {
                    self.flat.extend_from_slice(MARKER.as_bytes());
                    self.copy(line);
                    self.include(&name, &value, at, source, depth + 1)?;
                }
                Line::Setting { name, value } => {
                    self.entries.push(Entry { name, value, file: path.to_path_buf(), line: number });
                    self.copy(line);
                }
            }
        }
        Ok(())
    }

    fn copy(&mut self, line: &[u8]) {
        self.flat.extend_from_slice(line);
        self.flat.push(b'\n');
    }

    fn include(
        &mut self,
        name: &str,
        value: &str,
        at: Place<'_>,
        source: &dyn Source,
        depth: u32,
    ) -> Result<()> {
        if value.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
            return Err(at.error(format!("{name} names nothing")));
        }
        let path = absolute(Path::new(value), at.file);
        if path == at.file {
            return Err(at.error("the file includes itself"));
        }
        let there = match name {
            "include" => self.read_file(&path, source, depth).map(|()| true),
            "include_if_exists" => self.read_if_there(&path, source, depth),
            _ => self.include_directory(&path, source, depth).map(|()| true),
        };
        let note = match there.map_err(|error| error.context(at.describe()))? {
            true => format!("{MARKER}end of {}", path.display()),
            false => format!("{MARKER}there is no {}", path.display()),
        };
        self.copy(note.replace(['\n', '\r'], " ").as_bytes());
        Ok(())
    }

    /// Every `*.conf` that is not hidden, in the order of their bytes.
    fn include_directory(&mut self, directory: &Path, source: &dyn Source, depth: u32) -> Result<()> {
        let listed = source.list(directory);
        let mut files = listed.doing(|| format!("read configuration directory {}", directory.display()))?;
        files.retain(|path| {
            let name = path.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
            name.len() > ".conf".len() && name.ends_with(b".conf") && !name.starts_with(b".")
        });
        files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
        files.iter().try_for_each(|file| self.read_file(file, source, depth))
    }
}

fn is_include(name: &str) -> bool {
    matches!(name, "include" | "include_if_exists" | "include_dir")
}

#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Path,
    line: u32,
}

impl Place<'_> {
    fn describe(self) -> String {
        format!("{}, line {}", self.file.display(), self.line)
    }

    fn error(self, cause: impl std::fmt::Display) -> Error {
        Error::postgres(format!("could not read configuration file {}: {cause}", self.describe()))
            .with_hint("the server would not start with it either: correct that line")
    }
}

/// AbsoluteConfigLocation: relative to the directory of the including file, `.` and `..` resolved by name.
fn absolute(path: &Path, including_file: &Path) -> PathBuf {
    let joined = including_file.parent().unwrap_or(Path::new("/")).join(path);
    let mut clean = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Files in memory.
    struct Files(BTreeMap<PathBuf, Vec<u8>>);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            Self(files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect())
        }
    }

    impl Source for Files {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
            let inside: Vec<_> =
                self.0.keys().filter(|path| path.parent() == Some(directory)).cloned().collect();
            if inside.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(inside) }
        }
    }

    fn read(files: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(Path::new("/etc/pg/postgresql.conf"), &Files::new(files))
    }

    #[test]
    fn includes_are_read_in_place_and_the_last_value_counts() {
        let settings = read(&[
            (
                "/etc/pg/postgresql.conf",
                "a = 1\nInclude 'sub/x.conf'\nb = 1\ninclude_dir 'conf.d'\ninclude_if_exists 'no'\nc=1",
            ),
            ("/etc/pg/sub/x.conf", "a = 2\ninclude '../y.conf'\n"),
            ("/etc/pg/y.conf", "b = 2\nd = 4"),
            ("/etc/pg/conf.d/a.conf", "e = a\nc = 9"),
            ("/etc/pg/conf.d/B.conf", "e = B"),
            ("/etc/pg/conf.d/.h.conf", "e = hidden"),
            ("/etc/pg/conf.d/.conf", "e = hidden"),
            ("/etc/pg/conf.d/a.conf~", "e = backup"),
        ])
        .expect("reads");
        let get = |name| settings.get(name).unwrap_or("none");
        assert_eq!((get("A"), get("b"), get("c"), get("d"), get("e")), ("2", "1", "1", "4", "a"));
        let entry = settings.entry("d").expect("there");
        assert_eq!((entry.file.as_path(), entry.line), (Path::new("/etc/pg/y.conf"), 2));
        assert_eq!(settings.files.len(), 5);
        assert_eq!(settings.get("include"), None);
    }

    #[test]
    fn the_flat_text_says_the_same_without_includes() {
        let files = [
            ("/etc/pg/postgresql.conf", "a = 1 # one\ninclude 'x'\na = 3\ninclude_if_exists none\n"),
            ("/etc/pg/x", "a = 2\nb = 'x'"),
        ];
        let settings = read(&files).expect("reads");
        assert_eq!(
            String::from_utf8_lossy(&settings.flat),
            "a = 1 # one\n# pgark: include 'x'\na = 2\nb = 'x'\n# pgark: end of /etc/pg/x\na = 3\n\
             # pgark: include_if_exists none\n# pgark: there is no /etc/pg/none\n"
        );
        let flat = String::from_utf8(settings.flat.clone()).expect("text");
        let again = read(&[("/etc/pg/postgresql.conf", flat.as_str())]).expect("reads");
        let values = |settings: &Settings| -> Vec<(String, String)> {
            settings.entries.iter().map(|entry| (entry.name.clone(), entry.value.clone())).collect()
        };
        assert_eq!(values(&again), values(&settings));
    }

    #[test]
    fn what_alter_system_set_counts_over_all() {
        let files = Files::new(&[("/c", "a = 1\nb = 1"), ("/data/postgresql.auto.conf", "a = 2")]);
        let settings = Settings::effective(Path::new("/c"), Path::new("/data"), &files).expect("reads");
        assert_eq!((settings.get("a"), settings.get("b")), (Some("2"), Some("1")));
        assert_eq!(settings.flat, b"a = 1\nb = 1\n");
        let without = Settings::effective(Path::new("/c"), Path::new("/nowhere"), &files).expect("reads");
        assert_eq!(without.get("a"), Some("1"));
    }

    #[test]
    fn what_the_server_refuses_is_refused_with_its_place() {
        for (text, message) in [
            ("a = 1\nb c d\n", "postgresql.conf, line 2: syntax error"),
            ("include 'postgresql.conf'", "includes itself"),
            ("include ''", "include names nothing"),
            ("\ninclude 'gone'", "postgresql.conf, line 2: could not read configuration file /etc/pg/gone"),
            ("include_dir 'gone'", "could not read configuration directory /etc/pg/gone"),
        ] {
            let error = read(&[("/etc/pg/postgresql.conf", text)]).expect_err(text);
            assert!(error.message().contains(message), "{error}");
        }
        assert!(read(&[]).is_err());
    }

    #[test]
    fn a_circle_of_includes_ends() {
        let error =
            read(&[("/etc/pg/postgresql.conf", "include 'x'"), ("/etc/pg/x", "include 'postgresql.conf'")]);
        assert!(error.is_err_and(|error| error.message().contains("deeper than 10 levels")));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "[a='\\n .includefxst_#]{0,60}") {
            let _ = read(&[("/etc/pg/postgresql.conf", text.as_str()), ("/etc/pg/x", text.as_str())]);
        }
    }
}
