//! A connection for physical replication: the few commands of a walsender, and WAL as it is written
//! (protocol.sgml, "Streaming Replication Protocol"). Settings, hosts and TLS are those of `client`.
//!
//! Refuses servers that do not speak as PostgreSQL 14 to 18 do. Invariant: an error of kind
//! [`Kind::NotFound`] means that the server does not have the WAL any more, [`Kind::Conflict`] that another
//! connection holds the slot, [`Kind::Configuration`] that the slot or the server can't be used this way,
//! [`Kind::Transient`] that the connection is lost.

mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod messages;
mod slot;
mod startup;
mod streaming;
mod transport;
mod wire;

use std::io;
use std::time::{Duration, Instant};

use postgres::config::SslMode as Encryption;

pub use slot::SlotName;
pub use streaming::{Event, Positions, Streaming};

use crate::error::{Error, Kind, Result};
use crate::pg::client::failure::{Failure, Refusal};
use crate::pg::client::hosts::{self, Attempt, Connector};
use crate::pg::conninfo::{ConnSettings, HostSettings, TargetSession};
use crate::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use crate::pg::names::WalFile;
use crate::pg::settings_value::{MemoryUnit, parse_memory};
use crate::pg::version::PgMajor;
use startup::Told;
use transport::Transport;
use wire::{Wire, put};

/// No command here takes long.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// No result here has more rows.
const MOST_ROWS: usize = 16;

/// SQLSTATEs (errcodes.txt).
const DUPLICATE_OBJECT: &str = "42710";
const OBJECT_IN_USE: &str = "55006";
const UNDEFINED_FILE: &str = "58P01";
const UNDEFINED_OBJECT: &str = "42704";
const NOT_IN_PREREQUISITE_STATE: &str = "55000";

/// How to get in, beyond what libpq's settings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// What pg_stat_replication and synchronous_standby_names call us, unless the settings name another.
    pub application_name: String,
    /// Whether a server that asks for md5 gets it.
    pub allow_md5: bool,
}

/// What the server says it is (IDENTIFY_SYSTEM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub system_id: SystemId,
    pub timeline: Timeline,
    /// Up to where it has flushed WAL; a standby, received it.
    pub flushed: Lsn,
}

/// A physical slot (READ_REPLICATION_SLOT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The oldest WAL that it keeps; None: none, because it was never used, or has been invalidated.
    pub restart_lsn: Option<Lsn>,
}

/// What [`Replication::create_slot`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    AlreadyThere,
}

/// A connection that takes commands. Dropping it closes it.
pub struct Replication {
    wire: Wire,
    told: Told,
}

type Row = Vec<Option<Vec<u8>>>;

impl Replication {
    /// Connects to the first of the hosts that lets us in and is what `target_session` asks for.
    pub fn connect(settings: &ConnSettings, login: &Login) -> Result<Self> {
        settings.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        hosts::connect(settings, &Walsenders { settings, login }, "for replication")
    }

    pub fn identify(&mut self) -> Result<Identity> {
        let row = self.one_row("IDENTIFY_SYSTEM")?;
        let column = |index: usize| text(&row, index).ok_or_else(|| protocol_error("to IDENTIFY_SYSTEM"));
        let timeline = column(1)?.parse().map_err(|_| protocol_error("to IDENTIFY_SYSTEM"))?;
        Ok(Identity {
            system_id: column(0)?.parse()?,
            timeline: Timeline(timeline),
            flushed: column(2)?.parse()?,
        })
    }

    pub fn major(&mut self) -> Result<PgMajor> {
        let number = self.show("server_version_num")?;
        let parsed = number.parse().map_err(|_| protocol_error("to SHOW server_version_num"))?;
        PgMajor::from_version_num(parsed)
    }

    pub fn segment_size(&mut self) -> Result<SegmentSize> {
        SegmentSize::try_from(parse_memory(&self.show("wal_segment_size")?, MemoryUnit::Bytes)?)
    }

    fn show(&mut self, setting: &str) -> Result<String> {
        let row = self.one_row(&format!("SHOW {setting}"))?;
        text(&row, 0).ok_or_else(|| protocol_error("to SHOW"))
    }

    /// Creates a slot that keeps WAL from the last checkpoint on.
    pub fn create_slot(&mut self, slot: &SlotName) -> Result<Created> {
        // repl_gram.y: 15 put the options into parentheses.
        let options = if self.major()?.number() >= 15 { "(RESERVE_WAL)" } else { "RESERVE_WAL" };
        match self.command(&format!("CREATE_REPLICATION_SLOT \"{slot}\" PHYSICAL {options}")) {
            Ok(_) => Ok(Created::New),
            Err(Failed::Refused(refusal)) if refusal.code == DUPLICATE_OBJECT => Ok(Created::AlreadyThere),
            Err(failed) => Err(failed.into_error_of(&format!("create the replication slot {slot}"))),
        }
    }

    /// What PostgreSQL 15 and newer tell of a slot here; None: there is none. 14 tells it in SQL alone.
    pub fn read_slot(&mut self, slot: &SlotName) -> Result<Option<Slot>> {
        let row = self.one_row(&format!("READ_REPLICATION_SLOT \"{slot}\""))?;
        if text(&row, 0).is_none() {
            return Ok(None);
        }
        Ok(Some(Slot { restart_lsn: text(&row, 1).map(|lsn| lsn.parse()).transpose()? }))
    }

    /// False: there was none.
    pub fn drop_slot(&mut self, slot: &SlotName) -> Result<bool> {
        match self.command(&format!("DROP_REPLICATION_SLOT \"{slot}\"")) {
            Ok(_) => Ok(true),
            Err(Failed::Refused(refusal)) if refusal.code == UNDEFINED_OBJECT => Ok(false),
            Err(failed) => Err(failed.into_error_of(&format!("drop the replication slot {slot}"))),
        }
    }

    /// The history file of a timeline; None: the server does not have it.
    pub fn history(&mut self, timeline: Timeline) -> Result<Option<Vec<u8>>> {
        match self.command(&format!("TIMELINE_HISTORY {timeline}")) {
            Ok(rows) => match rows.into_iter().next().map(|row| row.into_iter().nth(1)) {
                Some(Some(Some(content))) => Ok(Some(content)),
                _ => Err(protocol_error("to TIMELINE_HISTORY")),
            },
            Err(Failed::Refused(refusal)) if refusal.code == UNDEFINED_FILE => Ok(None),
            Err(failed) => Err(failed.into_error_of(&format!("read {}", WalFile::History(timeline)))),
        }
    }

    /// Has the WAL of a timeline sent from `start` on. `timeout` is how long the server may be silent.
    pub fn start(
        &mut self,
        slot: Option<&SlotName>,
        start: Lsn,
        timeline: Timeline,
        timeout: Duration,
    ) -> Result<Streaming<'_>> {
        // 14 refuses otherwise, and takes the timeline from there, which a promotion changes.
        self.identify()?;
        let slot = slot.map(|slot| format!("SLOT \"{slot}\" ")).unwrap_or_default();
        let what = format!("stream WAL of timeline {timeline} from {start}");
        self.send_query(&format!("START_REPLICATION {slot}PHYSICAL {start} TIMELINE {timeline}"))
            .map_err(Failed::into_error(&what))?;
        if self.copies().map_err(Failed::into_error(&what))? {
            return Ok(Streaming::new(self, timeout, None));
        }
        let rows = self.results().map_err(Failed::into_error(&what))?;
        let ended = rows.first().and_then(|row| messages::end_of_timeline(row));
        match ended {
            Some(ended) => Ok(Streaming::new(self, timeout, Some(ended))),
            None => Err(protocol_error("to START_REPLICATION")),
        }
    }

    /// Whether the server begins to stream. False: there is nothing to stream, and a result follows.
    fn copies(&mut self) -> std::result::Result<bool, Failed> {
        loop {
            match self.read()? {
                messages::COPY_BOTH => return Ok(true),
                messages::ROW_DESCRIPTION => return Ok(false),
                messages::ERROR => return Err(self.refusal_and_ready()?),
                _ => self.note_or_refuse()?,
            }
        }
    }

    /// Runs a command that gives at most a few rows.
    fn command(&mut self, command: &str) -> std::result::Result<Vec<Row>, Failed> {
        self.send_query(command)?;
        self.results()
    }

    fn one_row(&mut self, command: &str) -> Result<Row> {
        let rows = self.command(command).map_err(Failed::into_error(&format!("run {command}")))?;
        rows.into_iter().next().ok_or_else(|| protocol_error(&format!("to {command}")))
    }

    fn send_query(&mut self, command: &str) -> std::result::Result<(), Failed> {
        let mut message = Vec::new();
        put(&mut message, b'Q', format!("{command}\0").as_bytes());
        self.wire.send(&message).map_err(|cause| Failed::Lost(lost(&cause)))
    }

    /// The rows up to where the server is ready for the next command.
    fn results(&mut self) -> std::result::Result<Vec<Row>, Failed> {
        let mut rows = Vec::new();
        loop {
            match self.read()? {
                messages::DATA_ROW => {
                    let row = self.wire.message().and_then(|message| messages::row(message.body));
                    rows.push(row.ok_or_else(|| Failed::Lost(protocol_error("in a result")))?);
                    if rows.len() > MOST_ROWS {
                        return Err(Failed::Lost(protocol_error("in a result")));
                    }
                }
                messages::READY => return Ok(rows),
                messages::ERROR => return Err(self.refusal_and_ready()?),
                messages::ROW_DESCRIPTION | messages::COMMAND_COMPLETE => {}
                // What was under way when the stream ended.
                messages::COPY_DATA | messages::COPY_DONE => {}
                _ => self.note_or_refuse()?,
            }
        }
    }

    /// Goes on to the next message; its tag.
    fn read(&mut self) -> std::result::Result<u8, Failed> {
        let read = self.wire.next(Instant::now() + COMMAND_LIMIT);
        match read.map_err(|cause| Failed::Lost(lost(&cause)))? {
            Some(message) => Ok(message.tag),
            None => {
                let limit = COMMAND_LIMIT.as_secs();
                Err(Failed::Lost(Error::transient(format!("the server did not answer within {limit} s"))))
            }
        }
    }

    /// After an error the server gets ready for the next command.
    fn refusal_and_ready(&mut self) -> std::result::Result<Failed, Failed> {
        let refusal = self.wire.message().map(|message| messages::refusal(message.body));
        while self.read()? != messages::READY {}
        Ok(refusal.map_or_else(|| Failed::Lost(protocol_error("in an error")), Failed::Refused))
    }

    fn note_or_refuse(&mut self) -> std::result::Result<(), Failed> {
        let Some(message) = self.wire.message() else { return Ok(()) };
        match message.tag {
            messages::NOTICE => tell(message.body),
            messages::PARAMETER => {}
            _ => return Err(Failed::Lost(protocol_error("to a command"))),
        }
        Ok(())
    }
}

impl Drop for Replication {
    /// Terminate, so that the server lets go of the slot at once. One that is gone does not need it.
    fn drop(&mut self) {
        let mut message = Vec::new();
        put(&mut message, b'X', &[]);
        drop(self.wire.send(&message));
    }
}

/// Opens connections.
struct Walsenders<'a> {
    settings: &'a ConnSettings,
    login: &'a Login,
}

impl Connector for Walsenders<'_> {
    type Session = Replication;

    fn attempt(&self, host: &HostSettings, encryption: Encryption) -> Attempt<Replication> {
        let (settings, login, host) = (self.settings.clone(), self.login.clone(), host.clone());
        let open = move || {
            let transport = Transport::open(&settings, &host, encryption)?;
            let (wire, told) = startup::start(transport, &settings, &host, &login)?;
            Ok(Replication { wire, told })
        };
        match self.settings.connect_timeout {
            None => open(),
            Some(limit) => hosts::within(limit, open)?,
        }
    }

    fn check(&self, session: Replication, wanted: TargetSession) -> Attempt<Replication> {
        match hosts::objection(wanted, session.told.standby, session.told.read_only || session.told.standby) {
            None => Ok(session),
            Some(objection) => Err(Failure::wrong_session(objection)),
        }
    }
}

/// Why a command failed.
enum Failed {
    Refused(Refusal),
    Lost(Error),
}

impl Failed {
    fn into_error_of(self, what: &str) -> Error {
        match self {
            Failed::Refused(refusal) => refused(what, &refusal),
            Failed::Lost(error) => error,
        }
    }

    fn into_error(what: &str) -> impl Fn(Failed) -> Error {
        move |failed| failed.into_error_of(what)
    }
}

/// "could not <what>: <the server's sentence>".
fn refused(what: &str, refusal: &Refusal) -> Error {
    let error = refusal.error(&format!("could not {what}"));
    let kind = match refusal.code.as_str() {
        UNDEFINED_FILE => Kind::NotFound,
        OBJECT_IN_USE => Kind::Conflict,
        NOT_IN_PREREQUISITE_STATE => Kind::Configuration,
        _ => return error,
    };
    match error.hint() {
        Some(hint) => Error::new(kind, error.message()).with_hint(hint),
        None => Error::new(kind, error.message()),
    }
}

fn lost(cause: &io::Error) -> Error {
    Error::transient(format!("the connection to PostgreSQL was lost: {cause}"))
        .with_hint("look into the server's log")
}

fn protocol_error(place: &str) -> Error {
    Error::transient(format!("the server's answer {place} is not what PostgreSQL says there"))
}

fn text(row: &[Option<Vec<u8>>], column: usize) -> Option<String> {
    row.get(column)?.as_deref().map(messages::text)
}

/// A notice of the server.
fn tell(body: &[u8]) {
    tracing::info!("PostgreSQL says: {}", messages::refusal(body).sentence());
}
