//! The flags of `wal-push`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::{Common, EXIT_CODES, HasCommon};
use crate::config::Config;
use crate::error::Result;
use crate::ops;

/// Store one WAL file in the repository; exit 0 only when it is durable there
///
/// In postgresql.conf: archive_command = 'wal-push %p'
#[derive(Parser)]
#[command(name = "wal-push", version, after_help = EXIT_CODES)]
pub struct Args {
    /// Segments pushed at a time while more wait; 4 unless there are fewer cores [config: push.jobs]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
    /// The WAL file, as PostgreSQL's %p names it: a segment, .partial, .history or .backup file
    path: PathBuf,

    #[command(flatten)]
    common: Common,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

pub fn run(args: Args, config: &Config) -> Result<ExitCode> {
    let mut config = config.clone();
    config.push.jobs = args.jobs.unwrap_or(config.push.jobs);
    ops::wal_push::run(&config, &args.path).map(|_| ExitCode::SUCCESS)
}
