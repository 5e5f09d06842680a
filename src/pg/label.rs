//! The three small files of a backup that PostgreSQL writes: backup_label, the backup history file that
//! goes to the archive, and tablespace_map.
//!
//! Parses what the server writes (do_pg_backup_start and do_pg_backup_stop up to 15, xlogbackup.c from
//! 16), and refuses the rest: lines in another order, a timeline that contradicts the segment's name, a
//! label that pg_rewind made. The label text is the user's and may hold anything, newlines too.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::lsn::{Lsn, SegmentSize, Timeline};
use super::names::{SegmentName, WalFile};
use super::oid::Oid;
use crate::error::{Error, Result};

/// Where a backup was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupSource {
    Primary,
    Standby,
}

/// The content of backup_label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where recovery begins: the checkpoint's redo pointer.
    pub start: Lsn,
    /// The segment that holds `start`.
    pub start_segment: SegmentName,
    /// Where the checkpoint record is.
    pub checkpoint: Lsn,
    pub source: BackupSource,
    /// In the server's log_timezone, with its abbreviation: for people only.
    pub start_time: String,
    pub label: String,
    pub start_timeline: Timeline,
    /// The start of the backup that this one is an increment to (PostgreSQL 17 and later).
    pub incremental_from: Option<(Lsn, Timeline)>,
}

/// The content of a backup history file (`….backup`). Only primaries write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupHistory {
    pub label: BackupLabel,
    /// The end of the backup's last record: WAL up to here makes the backup consistent.
    pub stop: Lsn,
    /// As written. When `stop` is on a boundary, 14 and 15 name the segment before it, 16 and later the
    /// one that begins there.
    pub stop_segment: SegmentName,
    pub stop_time: String,
    pub stop_timeline: Timeline,
}

impl BackupLabel {
    pub fn parse(content: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(content);
        let mut lines = Lines { file: "backup_label", rest: &text };
        let (start, start_segment) = lines.location("START WAL LOCATION: ")?;
        let label = lines.rest_of_label(start, start_segment)?;
        lines.end()?;
        Ok(label)
    }

    /// Checks that the named segment holds the start, which takes the segment size to know.
    pub fn check_segment(&self, size: SegmentSize) -> Result<()> {
        let expected = SegmentName::containing(self.start_timeline, self.start, size);
        if self.start_segment == expected {
            return Ok(());
        }
        let (start, found) = (self.start, self.start_segment);
        Err(Error::corrupt(format!(
            "could not use the backup label: {start} is in segment {expected}, not in {found}"
        )))
    }
}

impl BackupHistory {
    pub fn parse(content: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(content);
        let mut lines = Lines { file: "backup history file", rest: &text };
        let (start, start_segment) = lines.location("START WAL LOCATION: ")?;
        let (stop, stop_segment) = lines.location("STOP WAL LOCATION: ")?;
        let mut label = lines.rest_of_label(start, start_segment)?;
        let stop_time = lines.text("STOP TIME: ")?.to_string();
        let stop_timeline = lines.timeline("STOP TIMELINE: ")?;
        label.incremental_from = lines.incremental_from()?;
        lines.end()?;
        if stop < start || stop_timeline != stop_segment.timeline {
            return Err(lines.refused("its stop contradicts its start or timeline"));
        }
        Ok(Self { label, stop, stop_segment, stop_time, stop_timeline })
    }

    /// The file's name: the segment that holds the start, with the timeline of the stop, and the start's
    /// offset in it (BackupHistoryFileName).
    pub fn file_name(&self, size: SegmentSize) -> WalFile {
        let segment = SegmentName::containing(self.stop_timeline, self.label.start, size);
        let offset = self.label.start.0 % size.bytes();
        WalFile::BackupHistory(segment, offset as u32)
    }

    /// Checks that the content is of the file with this name.
    pub fn check_name(&self, name: WalFile, size: SegmentSize) -> Result<()> {
        self.label.check_segment(size)?;
        let expected = self.file_name(size);
        if name == expected {
            return Ok(());
        }
        Err(Error::corrupt(format!("could not use {name}: by its content its name is {expected}")))
    }
}

/// What is left to read of one of the two files.
struct Lines<'a> {
    file: &'static str,
    rest: &'a str,
}

impl<'a> Lines<'a> {
    fn refused(&self, cause: &str) -> Error {
        Error::corrupt(format!("could not read {}: {cause}", self.file))
    }

    /// The rest of the next line, which must begin with `key`.
    fn text(&mut self, key: &str) -> Result<&'a str> {
        let line = self.rest.split_once('\n').and_then(|(line, rest)| Some((line.strip_prefix(key)?, rest)));
        let missing = || self.refused(&format!("expected a line \"{}\"", key.trim_end()));
        let (value, rest) = line.ok_or_else(missing)?;
        self.rest = rest;
        Ok(value)
    }

    fn parsed<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
        let value = self.text(key)?;
        let unexpected = || self.refused(&format!("\"{key}{value}\" is not what PostgreSQL writes"));
        parse(value).ok_or_else(unexpected)
    }

    /// "<LSN> (file <segment>)"
    fn location(&mut self, key: &str) -> Result<(Lsn, SegmentName)> {
        self.parsed(key, |value| {
            let (lsn, segment) = value.strip_suffix(')')?.split_once(" (file ")?;
            Some((lsn.parse().ok()?, segment.parse().ok()?))
        })
    }

    fn lsn(&mut self, key: &str) -> Result<Lsn> {
        self.parsed(key, |value| value.parse().ok())
    }

    fn timeline(&mut self, key: &str) -> Result<Timeline> {
        self.parsed(key, |value| Oid::from_file_name(value).map(|number| Timeline(number.0)))
    }

    fn rest_of_label(&mut self, start: Lsn, start_segment: SegmentName) -> Result<BackupLabel> {
        let checkpoint = self.lsn("CHECKPOINT LOCATION: ")?;
        self.parsed("BACKUP METHOD: ", |method| (method == "streamed").then_some(()))?;
        let source = self.parsed("BACKUP FROM: ", |source| match source {
            "primary" => Some(BackupSource::Primary),
            "standby" => Some(BackupSource::Standby),
            _ => None,
        })?;
        let start_time = self.text("START TIME: ")?.to_string();
        let label = self.label()?.to_string();
        let start_timeline = self.timeline("START TIMELINE: ")?;
        if start_timeline != start_segment.timeline || checkpoint < start {
            return Err(self.refused("its timeline, start and checkpoint contradict each other"));
        }
        let incremental_from = self.incremental_from()?;
        Ok(BackupLabel {
            start,
            start_segment,
            checkpoint,
            source,
            start_time,
            label,
            start_timeline,
            incremental_from,
        })
    }

    /// The label's lines: all before the last START TIMELINE, since the label may hold such a line itself.
    fn label(&mut self) -> Result<&'a str> {
        let text = self.rest.strip_prefix("LABEL: ");
        let split = text.and_then(|text| text.split_at_checked(text.rfind("\nSTART TIMELINE: ")?));
        let missing = || self.refused("expected the lines \"LABEL:\" and \"START TIMELINE:\"");
        let (label, rest) = split.ok_or_else(missing)?;
        self.rest = rest.strip_prefix('\n').unwrap_or(rest);
        Ok(label)
    }

    fn incremental_from(&mut self) -> Result<Option<(Lsn, Timeline)>> {
        if !self.rest.starts_with("INCREMENTAL FROM LSN: ") {
            return Ok(None);
        }
        let lsn = self.lsn("INCREMENTAL FROM LSN: ")?;
        Ok(Some((lsn, self.timeline("INCREMENTAL FROM TLI: ")?)))
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.refused("it goes on after its last line")) }
    }
}

/// A line of tablespace_map: where the link `pg_tblspc/<oid>` pointed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceLink {
    pub oid: Oid,
    pub location: PathBuf,
}

/// Parses tablespace_map as read_tablespace_map (xlogrecovery.c) does: "<oid> <path>" and a newline;
/// newlines, carriage returns and backslashes in the path are escaped by a backslash. A tablespace that
/// is named twice is refused.
pub fn parse_tablespace_map(content: &[u8]) -> Result<Vec<TablespaceLink>> {
    let refused = |cause: &str| Error::corrupt(format!("could not read tablespace_map: {cause}"));
    let mut links: Vec<TablespaceLink> = Vec::new();
    for line in unescaped_lines(content).ok_or_else(|| refused("its last line does not end"))? {
        let link = tablespace_link(&line).ok_or_else(|| {
            refused(&format!("\"{}\" is not an oid and a path", String::from_utf8_lossy(&line)))
        })?;
        if links.iter().any(|other| other.oid == link.oid) {
            return Err(refused(&format!("tablespace {} is named twice", link.oid)));
        }
        links.push(link);
    }
    Ok(links)
}

/// None when the last line is not terminated.
fn unescaped_lines(content: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut escaped = false;
    for byte in content {
        match byte {
            b'\n' | b'\r' if !escaped => {
                if !line.is_empty() {
                    lines.push(std::mem::take(&mut line));
                }
            }
            b'\\' if !escaped => escaped = true,
            _ => {
                line.push(*byte);
                escaped = false;
            }
        }
    }
    (line.is_empty() && !escaped).then_some(lines)
}

/// The path may begin with spaces: exactly one stands before it.
fn tablespace_link(line: &[u8]) -> Option<TablespaceLink> {
    let (oid, path) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
    let oid = Oid::from_file_name(std::str::from_utf8(oid).ok()?)?;
    let path = path.get(1..).filter(|path| !path.is_empty() && !path.contains(&0))?;
    Some(TablespaceLink { oid, location: PathBuf::from(OsString::from_vec(path.to_vec())) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LABEL: &str = "START WAL LOCATION: 1/3000028 (file 000000020000000100000003)\n\
        CHECKPOINT LOCATION: 1/3000060\nBACKUP METHOD: streamed\nBACKUP FROM: standby\n\
        START TIME: 2026-11-23 04:05:06 CET\nLABEL: nightly\nSTART TIMELINE: 2\n";

    const HISTORY: &str = "START WAL LOCATION: 1/3000028 (file 000000020000000100000003)\n\
        STOP WAL LOCATION: 1/4000138 (file 000000020000000100000004)\n\
        CHECKPOINT LOCATION: 1/3000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-23 04:05:06 CET\nLABEL: nightly\nSTART TIMELINE: 2\n\
        STOP TIME: 2026-11-23 04:09:06 CET\nSTOP TIMELINE: 2\n";

    fn size(mib: u64) -> SegmentSize {
        SegmentSize::try_from(mib << 20).expect("a valid size")
    }

    #[test]
    fn a_backup_label_is_read() {
        let label = BackupLabel::parse(LABEL.as_bytes()).expect("as PostgreSQL writes it");
        let expected = BackupLabel {
            start: Lsn(0x1_0300_0028),
            start_segment: "000000020000000100000003".parse().expect("a segment"),
            checkpoint: Lsn(0x1_0300_0060),
            source: BackupSource::Standby,
            start_time: "2026-11-23 04:05:06 CET".into(),
            label: "nightly".into(),
            start_timeline: Timeline(2),
            incremental_from: None,
        };
        assert_eq!(label, expected);
        assert_eq!(label.check_segment(size(16)), Ok(()));
        assert!(
            label
                .check_segment(size(1))
                .is_err_and(|error| error.message().contains("000000020000000100000030"))
        );
    }

    #[test]
    fn an_incremental_backup_names_what_it_builds_on() {
        let content = format!("{LABEL}INCREMENTAL FROM LSN: 0/9000028\nINCREMENTAL FROM TLI: 1\n");
        let label = BackupLabel::parse(content.as_bytes()).expect("as PostgreSQL 17 writes it");
        assert_eq!(label.incremental_from, Some((Lsn(0x900_0028), Timeline(1))));
    }

    #[test]
    fn a_backup_history_file_is_read_and_knows_its_name() {
        let history = BackupHistory::parse(HISTORY.as_bytes()).expect("as PostgreSQL writes it");
        assert_eq!((history.stop, history.stop_timeline), (Lsn(0x1_0400_0138), Timeline(2)));
        assert_eq!(history.stop_time, "2026-11-23 04:09:06 CET");
        assert_eq!(history.label.source, BackupSource::Primary);
        let name = |text: &str| text.parse::<WalFile>().expect("a name");
        assert_eq!(history.check_name(name("000000020000000100000003.00000028.backup"), size(16)), Ok(()));
        for other in [
            "000000020000000100000003.00000060.backup",
            "000000030000000100000003.00000028.backup",
            "000000020000000100000004.00000028.backup",
            "000000020000000100000003",
        ] {
            let error = history.check_name(name(other), size(16)).expect_err(other);
            assert!(
                error.message().contains("its name is 000000020000000100000003.00000028.backup"),
                "{error}"
            );
        }
        assert!(history.check_name(name("000000020000000100000003.00000028.backup"), size(64)).is_err());
    }

    #[test]
    fn a_label_may_hold_anything_even_lines_of_the_file() {
        for text in [
            "",
            " ",
            "a\nb",
            "x\nSTART TIMELINE: 7",
            "\nSTART TIMELINE: 7\nSTOP TIME: no\nSTOP TIMELINE: 7",
            "\r\n",
        ] {
            let label = BackupLabel::parse(LABEL.replace("nightly", text).as_bytes()).expect(text);
            assert_eq!((label.label.as_str(), label.start_timeline), (text, Timeline(2)));
            let history = BackupHistory::parse(HISTORY.replace("nightly", text).as_bytes()).expect(text);
            assert_eq!((history.label.label.as_str(), history.stop_timeline), (text, Timeline(2)));
        }
    }

    #[test]
    fn a_label_that_is_no_utf_8_is_read_all_the_same() {
        let mut content = LABEL.as_bytes().to_vec();
        let at = LABEL.find("nightly").expect("there");
        content[at] = 0xE9;
        assert!(BackupLabel::parse(&content).is_ok_and(|label| label.label == "\u{fffd}ightly"));
    }

    #[test]
    fn what_postgresql_does_not_write_is_refused() {
        for (from, to, cause) in [
            ("START WAL", "START", "expected a line \"START WAL LOCATION:\""),
            ("1/3000028 ", "1/x ", "is not what PostgreSQL writes"),
            (" (file", " (dir", "is not what PostgreSQL writes"),
            ("000000020000000100000003", "00000002000000010000000", "is not what PostgreSQL writes"),
            ("streamed", "pg_rewind", "\"BACKUP METHOD: pg_rewind\" is not what"),
            ("FROM: standby", "FROM: master", "is not what PostgreSQL writes"),
            ("START TIMELINE: 2", "START TIMELINE: 3", "contradict each other"),
            ("START TIMELINE: 2", "START TIMELINE: -2", "is not what PostgreSQL writes"),
            ("START TIMELINE: 2", "START TIMELINE: 2\nmore", "it goes on after its last line"),
            ("START TIMELINE: 2\n", "START TIMELINE: 2", "expected a line \"START TIMELINE:\""),
            ("START TIMELINE: 2\n", "", "expected the lines \"LABEL:\" and \"START TIMELINE:\""),
            ("1/3000060", "0/3000060", "contradict each other"),
        ] {
            let error = BackupLabel::parse(LABEL.replace(from, to).as_bytes()).expect_err(to);
            assert!(error.message().contains(cause), "{from} -> {to}: {error}");
            assert!(error.message().starts_with("could not read backup_label: "), "{error}");
        }
        for (from, to) in [
            ("STOP WAL", "STOP"),
            ("1/4000138", "1/3000000"),
            ("STOP TIMELINE: 2", "STOP TIMELINE: 3"),
            ("STOP TIMELINE: 2\n", ""),
        ] {
            assert!(BackupHistory::parse(HISTORY.replace(from, to).as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(BackupLabel::parse(HISTORY.as_bytes()).is_err());
        assert!(BackupHistory::parse(LABEL.as_bytes()).is_err());
    }

    #[test]
    fn a_tablespace_map_is_read_as_the_server_reads_it() {
        let links =
            parse_tablespace_map(b"16384 /fast\r\n16385  two  spaces \n\n16386 /a\\\nb\\\\c\\\rd\xE9\n");
        let links = links.expect("valid");
        let expected = [
            (16384, b"/fast".to_vec()),
            (16385, b" two  spaces ".to_vec()),
            (16386, b"/a\nb\\c\rd\xE9".to_vec()),
        ];
        for (link, (oid, location)) in links.iter().zip(expected) {
            assert_eq!(
                link,
                &TablespaceLink { oid: Oid(oid), location: OsString::from_vec(location).into() }
            );
        }
        assert_eq!(links.len(), 3);
        assert_eq!(parse_tablespace_map(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_damaged_tablespace_map_is_refused() {
        for content in [
            "16384 /fast",
            "16384 /fast\\\n",
            "16384\n",
            "16384 \n",
            " /fast\n",
            "16384/fast\n",
            "0 /fast\n",
            "-1 /fast\n",
            "99999999999 /fast\n",
            "16384 /fa\0st\n",
            "16384 /fast\n16384 /slow\n",
        ] {
            assert!(parse_tablespace_map(content.as_bytes()).is_err(), "{content:?}");
        }
    }

    /// As do_pg_backup_start writes a line of tablespace_map.
    fn escaped(path: &[u8]) -> Vec<u8> {
        let escape = |byte: &u8| match byte {
            b'\n' | b'\r' | b'\\' => vec![b'\\', *byte],
            _ => vec![*byte],
        };
        path.iter().flat_map(escape).collect()
    }

    proptest! {
        #[test]
        fn parsing_never_panics(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(BackupLabel::parse(&content).is_err());
            prop_assert!(BackupHistory::parse(&content).is_err());
            if let Ok(links) = parse_tablespace_map(&content) {
                prop_assert!(links.iter().all(|link| link.oid.0 > 0));
            }
        }

        #[test]
        fn a_cut_or_damaged_file_never_panics(history: bool, at in 0usize..420, byte: u8, cut: bool) {
            let mut content = if history { HISTORY } else { LABEL }.as_bytes().to_vec();
            let at = at % content.len();
            content[at] = byte;
            content.truncate(if cut { at } else { content.len() });
            let label = BackupLabel::parse(&content);
            prop_assert!(!cut || label.is_err());
            prop_assert!(!cut || BackupHistory::parse(&content).is_err());
        }

        #[test]
        fn every_location_survives_the_map(oid in 1u32.., path in proptest::collection::vec(1u8.., 1..40)) {
            let content = [format!("{oid} ").into_bytes(), escaped(&path), b"\n".to_vec()].concat();
            let location = PathBuf::from(OsString::from_vec(path));
            prop_assert_eq!(parse_tablespace_map(&content), Ok(vec![TablespaceLink { oid: Oid(oid), location }]));
        }
    }
}
