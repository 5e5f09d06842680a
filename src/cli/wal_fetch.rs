//! The flags of `wal-fetch`, and what its answers are as exit codes.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::{Common, FETCH_EXIT_CODES, HasCommon};
use crate::config::Config;
use crate::error::Result;
use crate::ops::wal_fetch::{self, Outcome, Request};
use crate::pg::lsn::SystemId;
use crate::pg::names::{SegmentName, WalFile};
use crate::repo::streamed::StreamedPart;

/// Bring one WAL file back from the repository, verified
///
/// In postgresql.conf: restore_command = 'wal-fetch %f %p'
#[derive(Parser)]
#[command(name = "wal-fetch", version, after_help = FETCH_EXIT_CODES)]
pub struct Args {
    /// The last segment that the recovery target needs, as bootstrap-restore writes it
    #[arg(long, value_name = "SEGMENT")]
    last_segment: Option<SegmentName>,
    /// Deliver the streamed part of a segment, with zeros behind it, while the whole is not there, as
    /// bootstrap-restore writes it; never with archive_mode = always
    #[arg(long, value_name = "SEGMENT@LSN")]
    streamed: Option<StreamedPart>,
    /// Whose WAL; by default the system identifier in global/pg_control of the data directory
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,
    /// Threads that bring a segment, and segments prefetched at a time; 3 unless there are fewer cores
    /// [config: fetch.jobs]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
    /// Keep the next segments ready: what wal-fetch starts by itself
    #[arg(long, hide = true)]
    prefetch: bool,
    /// The WAL file's name: PostgreSQL's %f
    file: WalFile,
    /// Where to put it, relative to the data directory: PostgreSQL's %p
    target: PathBuf,

    #[command(flatten)]
    common: Common,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// 1 is PostgreSQL's "not in the archive"; everything but the two answers is an error.
pub fn run(args: Args, config: &Config) -> Result<ExitCode> {
    let Args { file, target, last_segment, streamed, system_id, jobs, prefetch, .. } = args;
    let mut config = config.clone();
    config.fetch.jobs = jobs.unwrap_or(config.fetch.jobs);
    let request = Request { file, target, last_segment, streamed, system_id };
    if prefetch {
        return wal_fetch::prefetch(&config, &request).map(|()| ExitCode::SUCCESS);
    }
    wal_fetch::run(&config, &request).map(|outcome| match outcome {
        Outcome::Delivered => ExitCode::SUCCESS,
        Outcome::Absent => ExitCode::from(1),
    })
}
