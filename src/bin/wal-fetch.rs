//! wal-fetch: PostgreSQL's restore_command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pgark::cli::{self, Common, HasCommon};
use pgark::ops::wal_fetch::{self, Outcome, Request};
use pgark::pg::{lsn::SystemId, names::SegmentName, names::WalFile};

/// Bring one WAL file back from the repository, verified
///
/// In postgresql.conf: restore_command = 'wal-fetch %f %p'
#[derive(Parser)]
#[command(name = "wal-fetch", version, after_help = cli::FETCH_EXIT_CODES)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// The last segment that the recovery target needs, as bootstrap-restore writes it
    #[arg(long, value_name = "SEGMENT")]
    last_segment: Option<SegmentName>,
    /// Whose WAL; by default the system identifier in global/pg_control of the data directory
    #[arg(long, value_name = "NUMBER")]
    system_id: Option<SystemId>,
    /// The WAL file's name: PostgreSQL's %f
    file: WalFile,
    /// Where to put it, relative to the data directory: PostgreSQL's %p
    target: PathBuf,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() -> ExitCode {
    cli::run(wal_fetch::exit_code, |args: Args, config| {
        let Args { file, target, last_segment, system_id, .. } = args;
        wal_fetch::run(config, &Request { file, target, last_segment, system_id }).map(
            |outcome| match outcome {
                Outcome::Delivered => ExitCode::SUCCESS,
                Outcome::Absent => ExitCode::from(1),
            },
        )
    })
}
