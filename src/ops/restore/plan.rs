//! The plan of a restore: everything that was decided, before anything is written. What the operator
//! reads, and what the next steps follow.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::choose::{Choice, Stop};
use super::debian::Registration;
use super::directory::Clearing;
use super::streamed::Ends;
use super::survey::Survey;
use super::tablespaces::Assigned;
use super::target::{Action, Aim, Target};
use crate::error::Result;
use crate::pg::binaries::Binaries;
use crate::pg::lsn::{Lsn, SegmentSize};
use crate::pg::names::SegmentName;
use crate::pg::recovery::{self, Recovery, Role, Standby, ToTarget};
use crate::pg::settings_file::Setting;
use crate::pg::version::PgMajor;
use crate::repo::Cluster;
use crate::repo::backup::BackupHeader;
use crate::repo::streamed::StreamedPart;

/// What recovery does and where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub header: BackupHeader,
    pub choice: Choice,
    pub survey: Survey,
    pub aim: Aim,
    pub action: Action,
    /// None: recovery ends at the target.
    pub standby: Option<StandbyOf>,
    /// The operator named the backup.
    pub asked_backup: bool,
    pub segment_size: SegmentSize,
    /// Streamed parts that end their timelines.
    pub ends: Ends,
}

/// A standby, and whom it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandbyOf {
    /// None: it follows the archive only.
    pub primary_conninfo: Option<String>,
    pub primary_slot_name: Option<String>,
}

/// The server that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPlan {
    /// None when it is not started here.
    pub binaries: Option<Binaries>,
    pub port: u16,
    pub socket_directory: PathBuf,
    pub role: Role,
    /// The words of restore_command, without the file's name and path.
    pub fetch: Vec<String>,
    pub set: Vec<Setting>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub cluster: Cluster,
    pub decision: Decision,
    pub data: PathBuf,
    /// The cluster of Debian's that it will be.
    pub debian: Option<Registration>,
    pub clearing: Clearing,
    /// Directories of tablespaces that are emptied with the data directory.
    pub freed: Vec<(PathBuf, PgMajor)>,
    pub tablespaces: Vec<Assigned>,
    /// Directories in which replay creates tablespaces, and which are not there.
    pub made_for_replay: Vec<PathBuf>,
    pub server: ServerPlan,
    pub notes: Vec<String>,
}

impl Decision {
    /// The first and the last segment that recovery needs.
    pub fn segments(&self) -> (SegmentName, SegmentName) {
        let name = |number: u64| {
            let timeline = self.choice.path.path_timeline_for_segment(number, self.segment_size);
            SegmentName::from_number(timeline, number, self.segment_size)
        };
        (name(*self.choice.segments.start()), name(*self.choice.segments.end()))
    }

    /// The streamed part that recovery gets in place of the last segment.
    pub fn streamed(&self) -> Option<StreamedPart> {
        self.ends.at(self.segments().1)
    }

    /// Bytes of the WAL that recovery needs.
    pub fn wal_bytes(&self) -> u64 {
        let count =
            self.choice.segments.end().saturating_sub(*self.choice.segments.start()).saturating_add(1);
        count.saturating_mul(self.segment_size.bytes())
    }

    /// The settings of recovery. `fetch` are the words of restore_command.
    pub fn recovery(&self, fetch: &[String]) -> Result<Recovery> {
        let mut words: Vec<&str> = fetch.iter().map(String::as_str).collect();
        if let Some(standby) = &self.standby {
            return Ok(Recovery::Standby(Standby {
                restore_command: recovery::restore_command(&words)?,
                primary_conninfo: standby.primary_conninfo.clone(),
                primary_slot_name: standby.primary_slot_name.clone(),
            }));
        }
        let last = self.segments().1.to_string();
        words.extend(["--last-segment", &last]);
        let streamed = self.streamed().map(|part| part.to_string());
        words.extend(streamed.iter().flat_map(|part| ["--streamed", part]));
        let (target, inclusive) = self.recovery_target();
        Ok(Recovery::ToTarget(ToTarget {
            restore_command: recovery::restore_command(&words)?,
            target,
            inclusive,
            action: match self.action {
                Action::Pause => recovery::TargetAction::Pause,
                Action::Promote => recovery::TargetAction::Promote,
                Action::Shutdown => recovery::TargetAction::Shutdown,
            },
            timeline: self.choice.path.timeline(),
        }))
    }

    fn recovery_target(&self) -> (recovery::Target, bool) {
        let inclusive = self.aim.inclusive;
        match (&self.choice.stop, &self.aim.target) {
            (Stop::End { last_record }, _) => (recovery::Target::Lsn(*last_record), true),
            (Stop::Lsn(_), Target::Lsn(lsn)) | (Stop::Lsn(lsn), _) => {
                (recovery::Target::Lsn(*lsn), inclusive)
            }
            (Stop::At(_), Target::Time(time)) => (recovery::Target::Time(*time), inclusive),
            (Stop::At(_), Target::Xid(xid)) => (recovery::Target::Xid(u64::from(xid.0)), inclusive),
            (Stop::At(_), Target::Name(name)) => (recovery::Target::Name(name.as_str().into()), true),
            (Stop::At(landmark), _) => (recovery::Target::Lsn(landmark.lsn), inclusive),
            (Stop::Consistent, _) => (recovery::Target::Immediate, true),
        }
    }

    /// Where recovery ends, for people.
    pub fn end(&self) -> String {
        let ended = |xid: Option<u32>| match xid {
            Some(xid) => format!("the end of transaction {xid}"),
            None => "restore point".to_string(),
        };
        match &self.choice.stop {
            _ if self.standby.is_some() => "never: the server stays a standby".into(),
            Stop::Consistent => {
                format!("as soon as the backup is consistent, at LSN {}", self.header.consistent_lsn)
            }
            Stop::Lsn(lsn) => {
                let side = if self.aim.inclusive { "behind" } else { "before" };
                format!("{side} the first record from the target on, at LSN {lsn}")
            }
            Stop::At(landmark) => {
                let by_time = matches!(self.aim.target, Target::Time(_));
                let side = if by_time || !self.aim.inclusive { "before" } else { "behind" };
                let time = landmark.time.map(|time| format!(" at {time}")).unwrap_or_default();
                format!("{side} {}{time} (LSN {})", ended(landmark.xid), landmark.lsn)
            }
            Stop::End { last_record } => format!("behind the last archived record (LSN {last_record})"),
        }
    }

    /// The timelines from the backup's to the last, with the LSNs at which they change.
    pub fn path(&self) -> Vec<(crate::pg::lsn::Timeline, Option<Lsn>)> {
        let path = &self.choice.path;
        let first = self.choice.backup.start_timeline;
        let entries = path.entries().iter().filter(|entry| entry.timeline >= first);
        let mut steps: Vec<_> = entries.map(|entry| (entry.timeline, Some(entry.switch_lsn))).collect();
        steps.push((path.timeline(), None));
        steps
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { header, choice, aim, .. } = &self.decision;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, text: &dyn fmt::Display| {
            writeln!(f, "  {name:<12}{text}")
        };
        writeln!(
            f,
            "Plan: restore {} (system identifier {}, PostgreSQL {}) into {}",
            self.cluster.name(),
            self.cluster.system_id(),
            header.server.major,
            self.data.display()
        )?;
        line(f, "target", &aim.target)?;
        line(f, "recovery", &format_args!("ends {}", self.decision.end()))?;
        line(
            f,
            "backup",
            &format_args!(
                "{}, ended {} at LSN {}: {}",
                header.label,
                choice.backup.stop_time,
                header.consistent_lsn,
                if self.decision.asked_backup {
                    "the one that was asked for"
                } else {
                    "the newest from which the target can be reached"
                }
            ),
        )?;
        line(f, "timeline", &self.timeline_text())?;
        let (first, last) = self.decision.segments();
        let count = choice.segments.clone().count();
        let streamed = self.decision.streamed();
        let whole = if streamed.is_some() { " but the end of the last" } else { "" };
        line(
            f,
            "WAL",
            &format_args!("{first} to {last}, all of {count} segments{whole} are in the repository"),
        )?;
        if let Some(part) = streamed {
            line(f, "streamed", &self.streamed_text(part))?;
        }
        line(f, "files", &format_args!("{}, {} bytes", header.map.files, header.map.raw_bytes))?;
        for place in &self.tablespaces {
            let from = if place.mapped {
                format!(" (at the source {})", place.source.display())
            } else {
                String::new()
            };
            line(f, "tablespace", &format_args!("{} at {}{from}", place.name, place.location.display()))?;
        }
        for directory in &self.made_for_replay {
            line(
                f,
                "directory",
                &format_args!("{}, in which replay creates a tablespace", directory.display()),
            )?;
        }
        line(f, "server", &self.server_text())?;
        if let Some(registration) = &self.debian {
            line(f, "cluster", registration)?;
        }
        if self.clearing.empty {
            let server = if self.clearing.stop_server { "its server is stopped and " } else { "" };
            line(f, "before that", &format_args!("{server}what is in the data directory now is removed"))?;
        }
        self.notes.iter().try_for_each(|note| line(f, "note", note))
    }
}

impl Plan {
    fn streamed_text(&self, part: StreamedPart) -> String {
        let bytes = part.end.0 % self.decision.segment_size.bytes();
        format!(
            "the last {bytes} bytes, up to LSN {}, come from a streamed part of {}: what followed is not in the \
             repository",
            part.end, part.segment
        )
    }

    fn timeline_text(&self) -> String {
        let steps = self.decision.path().into_iter().map(|(timeline, until)| match until {
            Some(until) => format!("{timeline} up to {until}"),
            None => timeline.to_string(),
        });
        steps.collect::<Vec<_>>().join(", then ")
    }

    fn server_text(&self) -> String {
        let server = &self.server;
        let role = match server.role {
            Role::Quarantine => "quarantined: archives nothing, starts no subscriptions or jobs",
            Role::Takeover => "takes over: archives and runs jobs as the source did",
        };
        let program = match &server.binaries {
            Some(binaries) => {
                format!("PostgreSQL {} in {}", binaries.version(), binaries.directory().display())
            }
            None => "not started".to_string(),
        };
        format!("{program}, port {}, socket in {}; {role}", server.port, server.socket_directory.display())
    }

    /// The directory of each tablespace.
    pub fn locations(&self) -> BTreeMap<crate::pg::oid::Oid, PathBuf> {
        self.tablespaces.iter().map(|place| (place.oid, place.location.clone())).collect()
    }
}
