//! The flags of `pgark find`, and what it prints.

mod text;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};
use jiff::Zoned;

use super::connection::Connection;
use super::present::{self, Style};
use super::restore::{time, timeline, told, with_hint};
use super::{Common, Output, print};
use crate::config::{Config, parse_duration};
use crate::error::{Kind, Result};
use crate::ops::find::query::{Bound, Query, Range, Storage, TableName};
use crate::ops::find::report::Report;
use crate::ops::find::{self, Request};
use crate::ops::restore::target::{PointName, Xid};
use crate::pg::lsn::{SystemId, Timeline};
use crate::pg::time::Timestamp;

/// The version of the JSON shape in docs/schema/find.v1.json.
const VERSION: u32 = 1;

const AFTER_HELP: &str = "Each hit comes with the flags for `bootstrap-restore` that lead to the moment just before it; \
without --exclusive they lead to the moment just after.\n\n\
Exit codes: 0 found; 2 wrong flags, configuration or host; 3 nothing of the kind is in the archive, or no such cluster; \
5 some WAL is damaged and was not searched (what was found is on standard output); 6 something could not be read; \
70 a bug in pgark";

#[derive(Args)]
#[command(after_help = AFTER_HELP, group = ArgGroup::new("what").required(true).args(
    ["points", "around", "xid", "dropped", "relfilenode", "table"]))]
pub struct FindArgs {
    /// Named restore points; all, or those of this name
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    points: Option<Option<PointName>>,

    /// Transactions that ended around a time, such as "2026-11-22 10:00:00+00" or "10 minutes ago"
    #[arg(long, value_name = "TIME", value_parser = time)]
    around: Option<Timestamp>,

    /// How far from that time they may be
    #[arg(long, value_name = "SPAN", value_parser = parse_duration, default_value = "10min", requires = "around")]
    within: Duration,

    /// The end of a transaction, by its id
    #[arg(long, value_name = "XID", value_parser = told::<Xid>)]
    xid: Option<Xid>,

    /// Transactions that dropped or truncated relations, or dropped a database
    #[arg(long)]
    dropped: bool,

    /// With --dropped: those, too, that only wrote a relation anew (VACUUM FULL, CLUSTER, REINDEX …)
    #[arg(long, requires = "dropped")]
    rewritten: bool,

    /// What dropped, truncated or rewrote the relation with this storage, as pg_waldump and pg_relation_filepath
    /// name it
    #[arg(long, value_name = "[SPC/]DB/REL", value_parser = told::<Storage>)]
    relfilenode: Option<Storage>,

    /// What dropped, truncated or rewrote the relation of this name
    #[arg(long, value_name = "[DB.][SCHEMA.]NAME", value_parser = told::<TableName>)]
    table: Option<TableName>,

    /// List at most so many: the newest, or the nearest to --around; 0: all
    #[arg(long, value_name = "COUNT", default_value = "50")]
    limit: usize,

    /// Parallel workers; as many as there are cores unless told otherwise
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// Do not ask the source server for names of databases and schemas
    #[arg(long)]
    no_server: bool,

    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
#[command(next_help_heading = "Where to look (default: all archived WAL)")]
struct PlaceArgs {
    /// From this time or LSN on
    #[arg(long, value_name = "TIME|LSN", value_parser = bound)]
    since: Option<Bound>,

    /// Up to this time or LSN
    #[arg(long, value_name = "TIME|LSN", value_parser = bound)]
    until: Option<Bound>,

    /// Only on the path to this timeline
    #[arg(long, value_name = "NUMBER", value_parser = timeline)]
    timeline: Option<Timeline>,

    /// Which incarnation of the cluster, where pg_upgrade or initdb has made several; without, all
    #[arg(long, value_name = "NUMBER", value_parser = told::<SystemId>)]
    system_id: Option<SystemId>,
}

fn bound(text: &str) -> std::result::Result<Bound, String> {
    Bound::parse(text, &Zoned::now()).map_err(|error| with_hint(&error))
}

impl FindArgs {
    pub fn run(self, common: &Common, config: &Config) -> Result<ExitCode> {
        let request = self.request(common);
        let report = find::run(config, &request)?;
        let printed = match self.output {
            Output::Json => print(&present::json(&report, "find", VERSION)?)?,
            Output::Text => print(&text::text(&report, Style::of_stdout()))?,
        };
        Ok(exit_code(&report).map_or(printed, |kind| ExitCode::from(kind.exit_code())))
    }

    fn query(&self) -> Query {
        let around = self.around.map(|time| Query::Around { time, within: self.within });
        let asked = self.points.clone().map(Query::Points).or(around);
        let asked = asked.or(self.xid.map(Query::Transaction)).or(self.relfilenode.map(Query::Storage));
        let asked = asked.or_else(|| self.table.clone().map(Query::Table));
        asked.unwrap_or(Query::Dropped { rewritten: self.rewritten })
    }

    fn request(&self, common: &Common) -> Request {
        Request {
            query: self.query(),
            range: Range { since: self.place.since, until: self.place.until },
            timeline: self.place.timeline,
            system_id: self.place.system_id,
            limit: NonZeroUsize::new(self.limit),
            jobs: self.jobs,
            connection: (!self.no_server).then(|| self.connection.request()),
            display: common.display(),
        }
    }
}

/// Damage before all else: what was looked for may be in it.
fn exit_code(report: &Report) -> Option<Kind> {
    report.worst().or((report.found == 0).then_some(Kind::NotFound))
}
