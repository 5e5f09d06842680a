//! The flags of `pgark verify`, and what it prints.

mod text;

use std::num::{NonZeroU64, NonZeroUsize};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::present::{self, Style};
use super::{Common, Output, print};
use crate::config::{Config, parse_duration};
use crate::error::{Kind, Result};
use crate::ident::Name;
use crate::ops::verify::report::{Report, Verdict};
use crate::ops::verify::{self, Budget, Request, Scope};
use crate::pg::lsn::SystemId;

/// The version of the JSON shape in docs/schema/verify.v1.json.
const VERSION: u32 = 1;

const AFTER_HELP: &str = "Exit codes: 0 all that was verified is sound; 2 wrong flags, configuration or host; \
3 no such backup or cluster; 5 something is damaged or missing (what, and what it costs, is on standard output); \
6 something could not be read, the rest is sound; 70 a bug in pgark";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct VerifyArgs {
    /// Only this backup, and the WAL that makes it consistent; without, everything
    #[arg(long, value_name = "LABEL", conflicts_with = "budget")]
    backup: Option<Name>,

    /// Only so long, such as 10min: the next one goes on where this one ends, until everything had its turn
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    budget: Option<Duration>,

    /// As --for, but so many objects or parts of large ones
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["budget", "backup"])]
    for_objects: Option<NonZeroU64>,

    /// Decompress what backups stored, too, and compare each file's slices with the map
    #[arg(long)]
    deep: bool,

    /// Parallel workers; as many as there are cores unless told otherwise
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Read at most so much in a second, all workers together, such as 50MB
    #[arg(long, value_name = "BYTES", value_parser = super::basebackup::rate)]
    rate_limit: Option<NonZeroU64>,

    /// Which incarnation of the cluster, where pg_upgrade or initdb has made several; without, all
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

impl VerifyArgs {
    pub fn run(self, common: &Common, config: &Config) -> Result<ExitCode> {
        let request = self.request(common);
        let report = verify::run(config, &request)?;
        let printed = match self.output {
            Output::Json => print(&present::json(&report, "verify", VERSION)?)?,
            Output::Text => print(&text::text(&report, Style::of_stdout(), Timestamp::now()))?,
        };
        Ok(exit_code(&report).map_or(printed, |kind| ExitCode::from(kind.exit_code())))
    }

    fn request(&self, common: &Common) -> Request {
        let budget = self.budget.map(Budget::Time);
        let budget = budget.or(self.for_objects.map(|most| Budget::Units(most.get())));
        let scope = match (&self.backup, budget) {
            (Some(label), _) => Scope::Backup(label.clone()),
            (None, Some(budget)) => Scope::Sample(budget),
            (None, None) => Scope::Everything,
        };
        Request {
            scope,
            system_id: self.system_id,
            deep: self.deep,
            jobs: self.jobs,
            rate_limit: self.rate_limit,
            display: common.display(),
        }
    }
}

fn exit_code(report: &Report) -> Option<Kind> {
    match report.verdict {
        Verdict::Sound => None,
        Verdict::Damaged => Some(Kind::Corrupt),
        Verdict::Incomplete => Some(Kind::Transient),
    }
}
