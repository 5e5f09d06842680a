//! How the receiver is: a record in the spool every few seconds, a line in the log every minute, and what
//! `--status` shows of both and of the slot.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use serde::{Deserialize, Serialize};

use super::notify::{Notifier, ServiceManager};
use crate::error::{Error, Result};
use crate::pg::lsn::{Lsn, SystemId, Timeline};
use crate::spool::sealed;

/// Its name in the spool.
pub(super) const RECORD: &str = "status.json";
/// Between two records.
const RECORD_EVERY: Duration = Duration::from_secs(2);
/// Between two lines in the log, and two warnings.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// A receiver at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub slot: String,
    /// None: it has not been connected yet.
    pub system_id: Option<SystemId>,
    pub timeline: Option<Timeline>,
    pub connected: bool,
    /// Up to where the server has flushed WAL, as far as we know.
    pub server: Lsn,
    pub received: Lsn,
    /// What is reported to the server as flushed, so where the slot stands.
    pub flushed: Lsn,
    /// All up to here is in the repository.
    pub archived: Lsn,
    /// Files and bytes that wait in the spool for the repository.
    pub waiting_files: usize,
    pub waiting_bytes: u64,
    pub updated: jiff::Timestamp,
}

impl Status {
    /// WAL that the server keeps for us, bytes.
    pub fn lag(&self) -> u64 {
        self.server.0.saturating_sub(self.flushed.0)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = if self.connected { "streaming" } else { "not connected" };
        let timeline = self.timeline.map(|timeline| format!(" timeline {timeline}")).unwrap_or_default();
        write!(
            f,
            "{connected}{timeline}: received {} of {}, flushed {}, archived {}; slot {} is {} behind",
            self.received,
            self.server,
            self.flushed,
            self.archived,
            self.slot,
            HumanBytes(self.lag())
        )?;
        if self.waiting_files > 0 {
            write!(
                f,
                "; {} files ({}) wait in the spool",
                self.waiting_files,
                HumanBytes(self.waiting_bytes)
            )?;
        }
        Ok(())
    }
}

/// Tells how we are when it is time.
pub(super) struct Pulse {
    pub notifier: Notifier,
    lag_limit: u64,
    recorded: Option<Instant>,
    told: Instant,
    warned: Option<Instant>,
}

impl Pulse {
    pub fn new(manager: &ServiceManager, lag_limit: u64) -> Self {
        let notifier = Notifier::new(manager);
        Self { notifier, lag_limit, recorded: None, told: Instant::now(), warned: None }
    }

    /// To be called often. True: it is time to [`Pulse::tell`].
    pub fn beat(&mut self) -> bool {
        self.notifier.alive();
        self.recorded.is_none_or(|recorded| recorded.elapsed() >= RECORD_EVERY)
    }

    pub fn tell(&mut self, spool: &Path, status: &Status) {
        self.recorded = Some(Instant::now());
        self.record(spool, status);
        self.warn_of_lag(status);
        if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            tracing::info!("{status}");
        }
    }

    /// For `--status`, and for the service manager.
    pub fn record(&mut self, spool: &Path, status: &Status) {
        self.notifier.status(&status.to_string());
        if let Err(error) = sealed::place(&spool.join(RECORD), status) {
            tracing::warn!("{error}; --status shows what was before");
        }
    }

    /// A slot that is far behind may fill the server's disk.
    fn warn_of_lag(&mut self, status: &Status) {
        let due = self.warned.is_none_or(|warned| warned.elapsed() >= LINE_EVERY);
        if status.lag() > self.lag_limit && due {
            self.warned = Some(Instant::now());
            tracing::warn!(
                "slot {} is {} behind: the server keeps that much WAL for it (limit: {})",
                status.slot,
                HumanBytes(status.lag()),
                HumanBytes(self.lag_limit)
            );
        }
    }
}

/// What `--status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether a receiver runs here now.
    pub running: bool,
    /// What it said last; None: none ever ran here.
    pub receiver: Option<Status>,
    /// What the server says, if it can be reached.
    pub server: Option<ServerSide>,
    /// Why it can't.
    pub server_error: Option<String>,
}

/// The server's view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerSide {
    pub system_id: SystemId,
    pub timeline: Timeline,
    pub flushed: Lsn,
    /// None: there is no such slot.
    pub slot: Option<SlotSide>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlotSide {
    /// The oldest WAL that it keeps; None: none.
    pub restart_lsn: Option<Lsn>,
    /// Bytes.
    pub behind: Option<u64>,
}

impl Report {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.receiver {
            None => writeln!(f, "receiver: none ever ran here")?,
            Some(status) => {
                let running = if self.running { "runs" } else { "does not run" };
                writeln!(f, "receiver: {running}, pid {}, as of {}", status.pid, status.updated)?;
                writeln!(f, "          {status}")?;
            }
        }
        match (&self.server, &self.server_error) {
            (Some(server), _) => write!(f, "{server}"),
            (None, Some(error)) => write!(f, "server:   {error}"),
            (None, None) => write!(f, "server:   not asked"),
        }
    }
}

impl fmt::Display for ServerSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "server:   timeline {}, flushed {}", self.timeline, self.flushed)?;
        match self.slot {
            None => write!(f, "slot:     there is none"),
            Some(SlotSide { restart_lsn: Some(restart), behind }) => {
                write!(f, "slot:     keeps WAL from {restart} on, {}", HumanBytes(behind.unwrap_or(0)))
            }
            Some(SlotSide { restart_lsn: None, .. }) => write!(f, "slot:     keeps no WAL"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            pid: 7,
            slot: "pgark".into(),
            system_id: Some(SystemId(7)),
            timeline: Some(Timeline(2)),
            connected: true,
            server: Lsn(0x500_0400),
            received: Lsn(0x500_0300),
            flushed: Lsn(0x500_0000),
            archived: Lsn(0x500_0000),
            waiting_files: 0,
            waiting_bytes: 0,
            updated: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn one_line_tells_all_positions_and_the_lag() {
        assert_eq!(
            status().to_string(),
            "streaming timeline 2: received 0/5000300 of 0/5000400, flushed 0/5000000, archived 0/5000000; \
             slot pgark is 1.00 KiB behind"
        );
        let waiting = Status { waiting_files: 2, waiting_bytes: 32 << 20, connected: false, ..status() };
        assert!(waiting.to_string().starts_with("not connected timeline 2"));
        assert!(waiting.to_string().ends_with("; 2 files (32.00 MiB) wait in the spool"));
    }

    #[test]
    fn a_report_is_for_people_and_machines() {
        let slot = SlotSide { restart_lsn: Some(Lsn(0x500_0000)), behind: Some(0x400) };
        let server = ServerSide {
            system_id: SystemId(7),
            timeline: Timeline(2),
            flushed: Lsn(0x500_0400),
            slot: Some(slot),
        };
        let report =
            Report { running: true, receiver: Some(status()), server: Some(server), server_error: None };
        let text = report.to_string();
        assert!(
            text.contains("receiver: runs, pid 7") && text.contains("keeps WAL from 0/5000000 on"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json().expect("JSON")).expect("JSON");
        assert_eq!(json["receiver"]["archived"], "0/5000000");
        assert_eq!(json["server"]["slot"]["behind"], 1024);
        let none = Report { running: false, receiver: None, server: None, server_error: Some("gone".into()) };
        assert_eq!(none.to_string(), "receiver: none ever ran here\nserver:   gone");
    }

    #[test]
    fn a_record_is_written_and_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut pulse = Pulse::new(&ServiceManager::default(), 0);
        assert!(pulse.beat());
        pulse.tell(dir.path(), &status());
        assert!(!pulse.beat(), "not again at once");
        assert_eq!(sealed::read::<Status>(&dir.path().join(RECORD)), Some(status()));
    }
}
