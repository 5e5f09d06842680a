//! The password file, ~/.pgpass (passwordFromFile and pwdfMatchesString in libpq's fe-connect.c).
//!
//! Refuses, with a warning and as libpq does, a file that others can read; a file that is not there or
//! can't be read is no error. Invariant: a password leaves this module only as a `Password`, whose `Debug`
//! form does not show it.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A secret. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// What a password is looked up by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login<'a> {
    /// The host name, else the address; `localhost` for a default socket directory.
    pub host: &'a str,
    pub port: u16,
    pub dbname: &'a str,
    pub user: &'a str,
}

/// The file's contents, or None with a warning if it must not be used.
pub(super) fn read(path: &Path) -> (Option<Vec<u8>>, Option<String>) {
    let name = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return (None, None);
        }
        Err(cause) => return (None, Some(format!("ignoring the password file {name}: {cause}"))),
    };
    if !metadata.is_file() {
        return (None, Some(format!("ignoring the password file {name}: it is not a plain file")));
    }
    if metadata.mode() & 0o077 != 0 {
        let cure = "chmod 0600 makes it usable";
        return (None, Some(format!("ignoring the password file {name}: others have access to it; {cure}")));
    }
    match std::fs::read(path) {
        Ok(contents) => (Some(contents), None),
        Err(cause) => (None, Some(format!("ignoring the password file {name}: {cause}"))),
    }
}

/// The password of the first line that matches.
pub(super) fn find(contents: &[u8], login: Login<'_>) -> Option<Password> {
    let port = login.port.to_string();
    let wanted = [login.host, &port, login.dbname, login.user];
    contents.split(|byte| *byte == b'\n').find_map(|line| {
        let line = strip_crlf(line);
        if line.starts_with(b"#") {
            return None;
        }
        let rest = wanted.iter().try_fold(line, |rest, token| match_field(rest, token.as_bytes()))?;
        Some(Password(unescape(rest)))
    })
}

/// pg_strip_crlf.
fn strip_crlf(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    line.get(..end).unwrap_or_default()
}

/// What follows the field and its colon, if the field is `*` or is `token`, with `\` before `:` and `\`.
fn match_field<'a>(line: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut line = line;
    let mut token = token;
    loop {
        let (mut byte, mut rest) = line.split_first()?;
        let escaped = *byte == b'\\';
        if escaped {
            (byte, rest) = rest.split_first()?;
        }
        match token.split_first() {
            None if *byte == b':' && !escaped => return Some(rest),
            Some((expected, following)) if expected == byte => token = following,
            _ => return None,
        }
        line = rest;
    }
}

/// The password field: it ends at a bare colon.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut password = Vec::new();
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => password.push(bytes.next().copied().unwrap_or(b'\\')),
            _ => password.push(byte),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn password(file: &str, host: &str, user: &str) -> Option<String> {
        let login = Login { host, port: 5432, dbname: "db", user };
        find(file.as_bytes(), login).map(|found| String::from_utf8_lossy(found.reveal()).into_owned())
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        let file = "#h:5432:db:u:no\nother:*:*:u:no\nh:5433:*:u:no\nh:*:db:u:first\nh:*:db:u:second\n";
        assert_eq!(password(file, "h", "u").as_deref(), Some("first"));
        assert_eq!(password(file, "h", "v"), None);
        assert_eq!(password("*:*:*:*:p\r\n", "h", "u").as_deref(), Some("p"));
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        assert_eq!(password(r"\:\:1:5432:db:u:p", "::1", "u").as_deref(), Some("p"));
        assert_eq!(password(r"h:*:*:a\\b:p", "h", r"a\b").as_deref(), Some("p"));
        assert_eq!(password(r"h:*:*:u:a\:b\\c:rest", "h", "u").as_deref(), Some(r"a:b\c"));
        assert_eq!(password("h:*:*:u:a\\", "h", "u").as_deref(), Some("a\\"));
        // As libpq: a colon that the name has need not be escaped.
        assert_eq!(password("::1:5432:db:u:p", "::1", "u").as_deref(), Some("p"));
    }

    #[test]
    fn short_lines_match_nothing() {
        for file in ["", "h", "h:5432", "h:5432:db:u", "*", "*:*:*:*", "\\"] {
            assert_eq!(password(file, "h", "u"), None, "{file:?}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored_with_a_warning() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pgpass");
        fs::write(&path, "*:*:*:*:hush\n").expect("written");
        for (mode, usable) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o601, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
            let (contents, warning) = read(&path);
            assert_eq!((contents.is_some(), warning.is_none()), (usable, usable), "{mode:o}");
        }
        assert!(read(directory.path()).1.is_some_and(|warning| warning.contains("not a plain file")));
        assert_eq!(read(&directory.path().join("absent")), (None, None));
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(format!("{:?}", Password::new("hush")), "Password(***)");
    }

    proptest! {
        #[test]
        fn looking_up_never_panics(file in proptest::collection::vec(any::<u8>(), 0..80), host in "\\PC{0,8}") {
            let login = Login { host: &host, port: 1, dbname: "d", user: "u" };
            find(&file, login);
        }

        #[test]
        fn every_user_and_password_can_be_written(user in "[a:\\\\é]{1,8}", secret in "[b:\\\\é]{0,8}") {
            let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            let file = format!("h:*:*:{}:{}", escape(&user), escape(&secret));
            prop_assert_eq!(password(&file, "h", &user), Some(secret));
        }
    }
}
