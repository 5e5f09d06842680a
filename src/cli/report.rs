//! The flags of `pgark report`, and what it prints.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::present::{self, bytes};
use super::{Output, print};
use crate::config::Config;
use crate::error::Result;
use crate::ops::info::Request;
use crate::ops::report;
use crate::pg::lsn::SystemId;

/// The version of the JSON shape in docs/schema/report.v1.json.
const VERSION: u32 = 1;

#[derive(Args)]
pub struct ReportArgs {
    /// Write a page that any browser shows, without network and scripts, in place of what is there
    #[arg(long, value_name = "FILE", required = true)]
    html: PathBuf,

    /// All clusters of the repository, not only the configured one
    #[arg(long)]
    all_clusters: bool,

    /// Which incarnation of the cluster, where pg_upgrade or initdb has made several; all unless told otherwise
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

impl ReportArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        let request =
            Request { all_clusters: self.all_clusters, system_id: self.system_id, now: Timestamp::now() };
        let written = report::run(config, &request, &self.html)?;
        let printed = match self.output {
            Output::Json => print(&present::json(&written, "report", VERSION)?)?,
            Output::Text => print(&format!("{}: {}", written.file.display(), bytes(written.bytes)))?,
        };
        Ok(written.worst.map_or(printed, |kind| ExitCode::from(kind.exit_code())))
    }
}
