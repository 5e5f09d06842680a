//! The flags of `pgark info`, and what it prints.

mod backup;
mod drawing;
mod text;
mod track;

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::present::{self, Style};
use super::{Output, print};
use crate::config::Config;
use crate::error::{Kind, Result};
use crate::ident::Name;
use crate::ops::info::{self, Request};
use crate::pg::lsn::SystemId;
use text::Look;
use track::Glyphs;

/// The version of the JSON shapes in docs/schema/info.v1.json and docs/schema/info-backup.v1.json.
const VERSION: u32 = 1;

#[derive(Args)]
pub struct InfoArgs {
    /// Tell all of one backup
    #[arg(value_name = "BACKUP", conflicts_with = "all_clusters")]
    backup: Option<Name>,

    /// All clusters of the repository, not only the configured one
    #[arg(long)]
    all_clusters: bool,

    /// List every backup, not only the newest and those that stand out
    #[arg(long)]
    all: bool,

    /// Which incarnation of the cluster, where pg_upgrade or initdb has made several; all unless told otherwise
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

impl InfoArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        let request =
            Request { all_clusters: self.all_clusters, system_id: self.system_id, now: Timestamp::now() };
        let look = Look { style: Style::of_stdout(), glyphs: glyphs(), all: self.all };
        if let Some(label) = &self.backup {
            let detail = info::detail::look(config, &request, label)?;
            return match self.output {
                Output::Json => print(&present::json(&detail, "info backup", VERSION)?),
                Output::Text => print(&backup::text(&detail, look)),
            };
        }
        let summary = info::look(config, &request)?;
        let printed = match self.output {
            Output::Json => print(&present::json(&summary, "info", VERSION)?)?,
            Output::Text => print(&text::summary(&summary, look))?,
        };
        // What can't be read was listed; the exit code says so to whoever only looks at that.
        Ok(summary.worst().map_or(printed, |kind: Kind| ExitCode::from(kind.exit_code())))
    }
}

/// What the locale can show, by the first of these that is set (setlocale(3)).
fn glyphs() -> Glyphs {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let charset = locale.unwrap_or_default().to_ascii_lowercase();
    if charset.contains("utf-8") || charset.contains("utf8") { Glyphs::Unicode } else { Glyphs::Ascii }
}
