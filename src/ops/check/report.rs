//! The result of a check: what monitoring plugins print, and what a program reads.

use std::time::Duration;

use jiff::Timestamp;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::finding::{Finding, Level, Measure, worst};
use super::heal::Healed;
use super::server::Server;
use crate::pg::lsn::{Lsn, SystemId, Timeline};
use crate::repo::layout::{Id, Name};

/// All that was seen.
#[derive(Clone, Debug)]
pub struct Report {
    pub cluster: Name,
    pub system_id: Option<SystemId>,
    /// None: it could not be opened.
    pub repository: Option<Id>,
    /// Where the check ran, and when by its clock.
    pub host: String,
    pub started: Timestamp,
    pub duration: Duration,
    /// None: it could not be reached.
    pub server: Option<ServerSide>,
    pub findings: Vec<Finding>,
    pub healed: Vec<Healed>,
    pub measures: Vec<Measure>,
}

/// What the server said about itself.
#[derive(Clone, Debug, Serialize)]
pub struct ServerSide {
    pub version: String,
    pub in_recovery: bool,
    pub timeline: Timeline,
    pub lsn: Lsn,
}

impl ServerSide {
    pub fn of(server: &Server) -> Self {
        let Server { version, in_recovery, timeline, end, .. } = server;
        Self { version: version.clone(), in_recovery: *in_recovery, timeline: *timeline, lsn: *end }
    }
}

impl Report {
    pub fn level(&self) -> Level {
        worst(&self.findings)
    }

    /// The findings, worst first.
    pub fn sorted(&self) -> Vec<&Finding> {
        let mut findings: Vec<&Finding> = self.findings.iter().collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        findings
    }

    /// One sentence: the worst that was found, and how much else.
    pub fn summary(&self) -> String {
        let bad = || self.sorted().into_iter().filter(|finding| finding.level != Level::Ok);
        let Some(first) = bad().next() else {
            return format!("{}: {} checks, nothing to complain about", self.cluster, self.findings.len());
        };
        let others = match bad().count().saturating_sub(1) {
            0 => String::new(),
            1 => " (and another finding)".to_string(),
            count => format!(" (and {count} other findings)"),
        };
        format!("{}: {}{others}", self.cluster, first.what)
    }

    /// The line that a monitoring system reads: level, summary, performance data.
    pub fn plugin_line(&self) -> String {
        let data: Vec<String> = self.measures.iter().map(Measure::perfdata).collect();
        let line = plugin_line(self.level(), &self.summary());
        if data.is_empty() { line } else { format!("{line} | {}", data.join(" ")) }
    }
}

/// The same of a check that did not come to an end.
pub fn plugin_line(level: Level, summary: &str) -> String {
    format!("PGARK {} - {}", level.word(), one_line(summary))
}

/// A bar begins performance data wherever it stands in a plugin's output.
pub fn one_line(text: &str) -> String {
    text.replace('|', "\u{a6}").replace(['\n', '\r'], " ")
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Report", 13)?;
        object.serialize_field("level", &self.level())?;
        object.serialize_field("exit_code", &self.level().exit_code())?;
        object.serialize_field("summary", &self.summary())?;
        object.serialize_field("cluster", &self.cluster)?;
        object.serialize_field("system_id", &self.system_id)?;
        object.serialize_field("repository", &self.repository)?;
        object.serialize_field("host", &self.host)?;
        object.serialize_field("started", &self.started)?;
        object.serialize_field("duration_seconds", &self.duration.as_secs_f64())?;
        object.serialize_field("server", &self.server)?;
        object.serialize_field("findings", &self.sorted())?;
        object.serialize_field("healed", &self.healed)?;
        object.serialize_field("measures", &self.measures)?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>, measures: Vec<Measure>) -> Report {
        Report {
            cluster: "main".parse().expect("a name"),
            system_id: None,
            repository: None,
            host: "db1".into(),
            started: Timestamp::UNIX_EPOCH,
            duration: Duration::ZERO,
            server: None,
            findings,
            healed: vec![],
            measures,
        }
    }

    #[test]
    fn the_first_line_is_one_that_monitoring_systems_read() {
        let fine = report(vec![Finding::ok("a", "fine")], vec![Measure::new("waiting_segments", 0)]);
        assert_eq!(
            fine.plugin_line(),
            "PGARK OK - main: 1 checks, nothing to complain about | waiting_segments=0;;;0"
        );
        let bad = vec![
            Finding::ok("a", "fine"),
            Finding::warning("b", "so so"),
            Finding::critical("c", "archive_command = 'a | b'\nfails"),
            Finding::unknown("d", "who knows"),
        ];
        assert_eq!(
            report(bad, vec![]).plugin_line(),
            "PGARK CRITICAL - main: archive_command = 'a \u{a6} b' fails (and 2 other findings)"
        );
    }

    #[test]
    fn json_has_the_worst_first() {
        let report = report(vec![Finding::ok("a", "fine"), Finding::warning("b", "so so")], vec![]);
        let json = serde_json::to_value(&report).expect("json");
        assert_eq!(json["findings"][0]["check"], "b");
        assert_eq!((&json["level"], &json["exit_code"]), (&"warning".into(), &1.into()));
    }
}
