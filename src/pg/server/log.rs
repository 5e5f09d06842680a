//! Why a server ended, in its own words: the last FATAL or PANIC of its log since we started it.
//!
//! Knows PostgreSQL's stderr format with any log_line_prefix, in English. Messages to clients that came too
//! early or were turned away are not reasons. Invariant: at most the last MiB of a log is read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{IoContext, Result};

const LIMIT: u64 = 1 << 20;

/// FATAL messages that end a client's session, not the server.
const OF_SESSIONS: [&str; 12] = [
    "the database system is ",
    "password authentication failed",
    "no pg_hba.conf entry",
    "role \"",
    "database \"",
    "sorry, too many clients",
    "remaining connection slots",
    "connection to client lost",
    "terminating connection",
    "terminating walreceiver",
    "could not connect to the primary server",
    "terminating background worker",
];

/// Messages that only say that something was wrong, and how the line before begins that says what.
const VAGUE: [(&str, &str); 5] = [
    ("contains errors", "LOG:  "),
    ("could not create any TCP/IP sockets", "could not bind "),
    ("could not create any Unix-domain sockets", "could not bind "),
    ("could not restore file", "error: "),
    ("could not load server certificate", "LOG:  "),
];

/// What the log says about the end of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One sentence, with its detail.
    pub sentence: String,
    pub hint: Option<String>,
}

/// Where a log ended before a server was started, so that older messages are not taken for its own.
pub fn length(log: &Path) -> Result<u64> {
    match std::fs::metadata(log) {
        Ok(metadata) => Ok(metadata.len()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(cause) => Err(cause).doing(|| format!("look at the log {}", log.display())),
    }
}

/// What was written to a log since it had `start` bytes, at most the last MiB.
pub fn since(log: &Path, start: u64) -> Result<String> {
    let read = || {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(LIMIT))))?;
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = read().doing(|| format!("read the log {}", log.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The reason that a log gives. None if it gives none.
pub fn reason(log: &str) -> Option<Reason> {
    let lines: Vec<&str> = log.lines().collect();
    let fatal = |line: &&str| message(line, &["FATAL:  ", "PANIC:  "]).is_some_and(is_of_server);
    let Some(at) = lines.iter().rposition(fatal) else { return last_words(&lines) };
    let (before, from) = lines.split_at_checked(at)?;
    let (line, after) = from.split_first()?;
    let mut sentence = message(line, &["FATAL:  ", "PANIC:  "])?.to_string();
    // What belongs to a message follows it: lines with a tab, then DETAIL, HINT, CONTEXT, STATEMENT.
    let detail = addition(after, "DETAIL:  ");
    let mut hint = addition(after, "HINT:  ");
    if let Some((why, own_hint)) = explanation(before, &sentence) {
        sentence = format!("{sentence}: {why}");
        hint = hint.or(own_hint);
    }
    if let Some(detail) = detail {
        sentence = format!("{sentence} ({detail})");
    }
    Some(Reason { sentence, hint })
}

fn is_of_server(message: &str) -> bool {
    !OF_SESSIONS.iter().any(|start| message.starts_with(start))
}

/// What follows the first of these words in a line.
fn message<'a>(line: &'a str, words: &[&str]) -> Option<&'a str> {
    words.iter().find_map(|word| line.split_once(word).map(|(_, message)| message))
}

/// The detail or hint of the message before these lines, if it has one.
fn addition(after: &[&str], word: &str) -> Option<String> {
    let belongs = |line: &&&str| {
        line.starts_with('\t')
            || message(line, &["DETAIL:  ", "HINT:  ", "CONTEXT:  ", "LOCATION:  ", "STATEMENT:  "]).is_some()
    };
    after.iter().take_while(belongs).find_map(|line| message(line, &[word])).map(String::from)
}

/// For a message that only says that something was wrong: the last line before it that says what.
fn explanation(before: &[&str], sentence: &str) -> Option<(String, Option<String>)> {
    let (_, start) = VAGUE.iter().find(|(vague, _)| sentence.contains(vague))?;
    let at = before.iter().rposition(|line| line.contains(start))?;
    let (_, from) = before.split_at_checked(at)?;
    let (line, after) = from.split_first()?;
    let text = message(line, &["LOG:  ", "error: "]).unwrap_or(line);
    Some((text.to_string(), addition(after, "HINT:  ")))
}

/// A program that could not even start says something without PostgreSQL's words.
fn last_words(lines: &[&str]) -> Option<Reason> {
    let plain = |line: &&&str| {
        !line.trim().is_empty() && message(line, &["LOG:  ", "FATAL:  ", "HINT:  ", "DETAIL:  "]).is_none()
    };
    let last = lines.iter().rev().find(plain)?;
    Some(Reason { sentence: last.trim().to_string(), hint: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sentence(log: &str) -> Option<String> {
        reason(log).map(|reason| reason.sentence)
    }

    #[test]
    fn the_last_fatal_message_is_the_reason_with_its_detail_and_hint() {
        let log = "2026-11-22 10:00:00 UTC [7] LOG:  starting PostgreSQL 15\n\
            2026-11-22 10:00:01 UTC [9] FATAL:  could not find redo location referenced by checkpoint record\n\
            2026-11-22 10:00:01 UTC [9] DETAIL:  It is gone.\n\
            2026-11-22 10:00:01 UTC [9] HINT:  If you are restoring from a backup, touch \"recovery.signal\".\n\
            \tIf you are not, remove it.\n\
            2026-11-22 10:00:01 UTC [7] LOG:  startup process (PID 9) exited with exit code 1\n\
            2026-11-22 10:00:01 UTC [7] LOG:  aborting startup due to startup process failure\n";
        let expected = Reason {
            sentence: "could not find redo location referenced by checkpoint record (It is gone.)".into(),
            hint: Some("If you are restoring from a backup, touch \"recovery.signal\".".into()),
        };
        assert_eq!(reason(log), Some(expected));
    }

    #[test]
    fn clients_that_were_turned_away_are_no_reason() {
        let log = "FATAL:  recovery ended before configured recovery target was reached\n\
            FATAL:  the database system is starting up\nFATAL:  the database system is not yet accepting connections\n\
            DETAIL:  Consistent recovery state has not been yet reached.\n\
            FATAL:  password authentication failed for user \"x\"\nFATAL:  role \"y\" does not exist\n";
        assert_eq!(
            sentence(log).as_deref(),
            Some("recovery ended before configured recovery target was reached")
        );
    }

    #[test]
    fn a_detail_of_another_message_is_not_added() {
        let log =
            "x PANIC:  could not locate a valid checkpoint record\nx LOG:  other\nx DETAIL:  of the other\n";
        assert_eq!(sentence(log).as_deref(), Some("could not locate a valid checkpoint record"));
    }

    #[test]
    fn a_vague_message_is_explained_by_the_line_before() {
        for (log, expected) in [
            (
                "LOG:  syntax error in file \"/c\" line 3, near end of line\nFATAL:  configuration file \"/c\" contains errors\n",
                "configuration file \"/c\" contains errors: syntax error in file \"/c\" line 3, near end of line",
            ),
            (
                "LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\nHINT:  Is another postmaster already running?\n\
                 WARNING:  could not create listen socket for \"localhost\"\nFATAL:  could not create any TCP/IP sockets\n",
                "could not create any TCP/IP sockets: could not bind IPv4 address \"127.0.0.1\": Address already in use",
            ),
            (
                "error: could not read the repository: gone\nhint: mount it\n\
                 FATAL:  could not restore file \"0000\" from archive: child process exited with exit code 206\n",
                "could not restore file \"0000\" from archive: child process exited with exit code 206: could not read the repository: gone",
            ),
        ] {
            assert_eq!(sentence(log).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_program_that_could_not_start_is_quoted() {
        let log = "postgres: error while loading shared libraries: libicu.so: no such file\n\n";
        assert_eq!(
            sentence(log).as_deref(),
            Some("postgres: error while loading shared libraries: libicu.so: no such file")
        );
        assert_eq!(reason("LOG:  shutting down\n"), None);
        assert_eq!(reason(""), None);
    }

    #[test]
    fn only_what_came_since_the_start_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        assert_eq!(length(&path), Ok(0));
        std::fs::write(&path, "FATAL:  old\n").expect("written");
        let start = length(&path).expect("a length");
        std::fs::write(&path, "FATAL:  old\nLOG:  new\n").expect("written");
        assert_eq!(since(&path, start).as_deref(), Ok("LOG:  new\n"));
        std::fs::write(&path, vec![b'x'; (LIMIT + 100) as usize]).expect("written");
        assert_eq!(since(&path, 5).map(|text| text.len() as u64), Ok(LIMIT));
    }

    proptest! {
        #[test]
        fn reading_never_panics(log in "((FATAL|LOG|HINT|DETAIL|error): {1,2}(contains errors|x|é)?\\n?\\t?){0,8}") {
            reason(&log);
        }
    }
}
