//! Judges the server's settings: does WAL leave it, does the WAL hold what a restore needs, would a crash of the
//! host cost the cluster.
//!
//! The settings of archiving are the primary's business; on a standby those of its own are told and not judged.

use std::time::Duration;

use super::command::PushCommand;
use super::finding::{Finding, Level};
use super::server::{Server, Settings, Slot};
use crate::pg::replication::SlotName;

/// How WAL leaves the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    Command(String),
    Library(String),
    /// Through the slot of wal-receive.
    Receiver,
    /// It does not, and why.
    None(&'static str),
}

impl Way {
    pub fn of(settings: &Settings, slots: &[Slot], ours: &SlotName) -> Self {
        match Self::of_settings(settings) {
            Way::None(_) if is_received(slots, ours) => Way::Receiver,
            way => way,
        }
    }

    fn of_settings(settings: &Settings) -> Self {
        let text = |name| settings.get(name).filter(|value| !value.is_empty());
        match (settings.is("archive_mode", "off"), text("archive_library"), text("archive_command")) {
            (true, ..) => Way::None("archive_mode is off"),
            (false, Some(library), _) => Way::Library(library.to_string()),
            (false, None, Some(command)) => Way::Command(command.to_string()),
            (false, None, None) => Way::None("archive_command is empty"),
        }
    }

    /// As the subject of a sentence about its messages.
    pub fn describe(&self) -> String {
        match self {
            Way::Command(command) => format!("archive_command = '{command}'"),
            Way::Library(library) => format!("archive_library = '{library}'"),
            Way::Receiver => "wal-receive".to_string(),
            Way::None(why) => format!("nothing: {why}"),
        }
    }
}

/// Whether a receiver reads our slot at this moment.
pub fn is_received(slots: &[Slot], ours: &SlotName) -> bool {
    slots.iter().any(|slot| slot.name == ours.as_str() && slot.physical && slot.active)
}

/// Findings about all settings. `rpo`: so much time of work may be lost at most, if somebody said.
pub fn judge(server: &Server, way: &Way, received: bool, rpo: Option<Duration>) -> Vec<Finding> {
    let settings = &server.settings;
    let mut findings = vec![archiving(server, way)];
    findings.push(wal_level(settings));
    if server.is_primary() {
        findings.extend(archive_timeout(settings, received, rpo));
    }
    findings.push(full_page_writes(settings));
    findings.push(fsync(settings));
    findings.push(checksums(settings));
    findings.extend(wal_senders(settings));
    findings
}

fn archiving(server: &Server, way: &Way) -> Finding {
    const CHECK: &str = "archiving";
    const SET: &str = "set archive_mode = on (needs a restart) and archive_command = 'wal-push %p' in \
                       postgresql.conf, or run wal-receive";
    if server.in_recovery && !server.settings.is("archive_mode", "always") {
        return Finding::ok(CHECK, "a standby does not archive; its primary does, or wal-receive");
    }
    match way {
        Way::Receiver => Finding::ok(CHECK, "wal-receive streams the WAL through its slot"),
        Way::None(why) => Finding::critical(CHECK, format!("WAL is not archived: {why}"))
            .because("no backup can be restored beyond its own end, and new ones can't be completed")
            .remedy(SET),
        Way::Library(library) => Finding::warning(CHECK, format!("archive_library = '{library}' archives"))
            .because("archive_command is ignored while a library is set, so wal-push is not called")
            .remedy("set archive_library = '' and archive_command = 'wal-push %p', unless the library brings WAL here"),
        Way::Command(command) if PushCommand::parse(command).is_none() => {
            Finding::warning(CHECK, format!("archive_command does not call wal-push: {command}"))
                .because("what brings WAL into this repository is not known, and so not what its success means")
                .remedy("set archive_command = 'wal-push %p'; a script that ends in it is fine, if its name says so")
        }
        Way::Command(command) => Finding::ok(CHECK, format!("archive_command calls wal-push: {command}")),
    }
}

fn wal_level(settings: &Settings) -> Finding {
    const CHECK: &str = "wal_level";
    match settings.get(CHECK) {
        None => unseen(CHECK),
        Some("minimal") => Finding::critical(CHECK, "wal_level is minimal")
            .because("such WAL lacks what a restore needs: no backup can be taken or rolled forward")
            .remedy("set wal_level = replica and restart the server, then take a backup"),
        Some(level) => Finding::ok(CHECK, format!("wal_level is {level}")),
    }
}

fn archive_timeout(settings: &Settings, received: bool, rpo: Option<Duration>) -> Option<Finding> {
    const CHECK: &str = "archive_timeout";
    let seconds = u64::try_from(settings.number(CHECK)?).unwrap_or_default();
    let told = match seconds {
        0 => "archive_timeout is off".to_string(),
        seconds => format!("archive_timeout is {seconds} s"),
    };
    let too_long = match rpo {
        _ if received => false,
        None => seconds == 0,
        Some(rpo) => seconds == 0 || Duration::from_secs(seconds) > rpo,
    };
    if !too_long {
        return Some(Finding::ok(CHECK, told));
    }
    let wished = rpo.map_or(60, |rpo| rpo.as_secs().max(1));
    Some(
        Finding::warning(CHECK, told)
            .because("WAL leaves the server when a segment is full, or after this time: what is younger is lost with it")
            .remedy(format!("set archive_timeout = '{wished}s', or run wal-receive, which loses next to nothing")),
    )
}

fn full_page_writes(settings: &Settings) -> Finding {
    const CHECK: &str = "full_page_writes";
    match settings.get(CHECK) {
        None => unseen(CHECK),
        Some("off") => Finding::warning(CHECK, "full_page_writes is off")
            .because("a crash of the host can leave torn pages, which the next backup copies; and PostgreSQL refuses backups on a standby then")
            .remedy("set full_page_writes = on, unless the file system can't tear a page"),
        Some(_) => Finding::ok(CHECK, "full_page_writes is on"),
    }
}

fn fsync(settings: &Settings) -> Finding {
    const CHECK: &str = "fsync";
    match settings.get(CHECK) {
        None => unseen(CHECK),
        Some("off") => Finding::critical(CHECK, "fsync is off")
            .because("a crash of the host destroys the cluster, and nothing tells whether what was archived before agrees with it")
            .remedy("set fsync = on and reload the server's configuration"),
        Some(_) => Finding::ok(CHECK, "fsync is on"),
    }
}

fn checksums(settings: &Settings) -> Finding {
    const CHECK: &str = "data_checksums";
    match settings.get(CHECK) {
        None => unseen(CHECK),
        Some("off") => Finding::warning(CHECK, "data checksums are off")
            .because("pages that the disk damages are copied into every backup, and nobody notices")
            .remedy("stop the server once and run `pg_checksums --enable`"),
        Some(_) => Finding::ok(CHECK, "data checksums are on"),
    }
}

fn wal_senders(settings: &Settings) -> Option<Finding> {
    const CHECK: &str = "max_wal_senders";
    (settings.number(CHECK)? == 0).then(|| {
        Finding::warning(CHECK, "max_wal_senders is 0")
            .because("neither wal-receive nor a standby can stream WAL from this server")
            .remedy("set max_wal_senders = 10 and restart the server")
    })
}

/// All of these settings can be seen by everybody, so this is a server that we do not know.
fn unseen(name: &str) -> Finding {
    Finding::new(Level::Unknown, name, format!("the server does not show {name}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};

    pub fn server(changed: &[(&str, &str)]) -> Server {
        let mut settings = Settings::default();
        for (name, value) in [
            ("archive_mode", "on"),
            ("archive_command", "wal-push %p"),
            ("archive_library", ""),
            ("archive_timeout", "60"),
            ("data_checksums", "on"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("max_wal_senders", "10"),
            ("wal_level", "replica"),
        ]
        .iter()
        .chain(changed)
        {
            settings.0.insert((*name).to_string(), (*value).to_string());
        }
        Server {
            version: "15.18".into(),
            role: "monitor".into(),
            system_id: SystemId(7),
            in_recovery: false,
            timeline: Timeline(1),
            segment_size: SegmentSize::try_from(1 << 20).expect("a size"),
            end: Lsn(5 << 20),
            clock_difference: Duration::ZERO,
            data_directory: None,
            settings,
        }
    }

    fn ours() -> SlotName {
        "pgark".parse().expect("a name")
    }

    fn slot(name: &str, active: bool) -> Slot {
        let (behind, unflushed, wal_status) = (Some(0), None, Some("reserved".into()));
        Slot { name: name.into(), physical: true, active, behind, unflushed, wal_status }
    }

    /// The findings that are not well, as "level check".
    fn trouble(server: &Server, slots: &[Slot], rpo: Option<u64>) -> Vec<String> {
        let way = Way::of(&server.settings, slots, &ours());
        let findings = judge(server, &way, is_received(slots, &ours()), rpo.map(Duration::from_secs));
        let bad = findings.iter().filter(|finding| finding.level != Level::Ok);
        bad.map(|finding| {
            assert!(finding.why.is_some() && finding.remedy.is_some(), "{finding:?}");
            format!("{} {}", finding.level.word(), finding.check)
        })
        .collect()
    }

    #[test]
    fn each_bad_setting_is_one_finding() {
        assert_eq!(trouble(&server(&[]), &[], None), Vec::<String>::new());
        for (name, value, expected) in [
            ("archive_mode", "off", "CRITICAL archiving"),
            ("archive_command", "", "CRITICAL archiving"),
            ("archive_command", "cp %p /a/%f", "WARNING archiving"),
            ("archive_library", "basic_archive", "WARNING archiving"),
            ("archive_timeout", "0", "WARNING archive_timeout"),
            ("data_checksums", "off", "WARNING data_checksums"),
            ("fsync", "off", "CRITICAL fsync"),
            ("full_page_writes", "off", "WARNING full_page_writes"),
            ("max_wal_senders", "0", "WARNING max_wal_senders"),
            ("wal_level", "minimal", "CRITICAL wal_level"),
        ] {
            assert_eq!(trouble(&server(&[(name, value)]), &[], None), [expected], "{name} = {value}");
        }
    }

    #[test]
    fn a_receiver_at_its_slot_replaces_archiving() {
        let off = server(&[("archive_mode", "off"), ("archive_timeout", "0")]);
        assert_eq!(trouble(&off, &[slot("pgark", true)], Some(1)), Vec::<String>::new());
        let expected = ["CRITICAL archiving", "WARNING archive_timeout"];
        assert_eq!(trouble(&off, &[slot("pgark", false), slot("other", true)], None), expected);
    }

    #[test]
    fn the_loss_that_is_accepted_limits_archive_timeout() {
        let five_minutes = server(&[("archive_timeout", "300")]);
        assert_eq!(trouble(&five_minutes, &[], Some(300)), Vec::<String>::new());
        assert_eq!(trouble(&five_minutes, &[], Some(299)), ["WARNING archive_timeout"]);
    }

    #[test]
    fn a_standby_need_not_archive() {
        let standby =
            Server { in_recovery: true, ..server(&[("archive_mode", "off"), ("archive_timeout", "0")]) };
        assert_eq!(trouble(&standby, &[], None), Vec::<String>::new());
        let always =
            Server { in_recovery: true, ..server(&[("archive_mode", "always"), ("archive_command", "")]) };
        assert_eq!(trouble(&always, &[], None), ["CRITICAL archiving"]);
    }
}
