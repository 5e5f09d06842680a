//! wal-push: PostgreSQL's archive_command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pgark::cli::{self, Common, HasCommon};
use pgark::error::Kind;
use pgark::ops;

/// Store one WAL file in the repository; exit 0 only when it is durable there
///
/// In postgresql.conf: archive_command = 'wal-push %p'
#[derive(Parser)]
#[command(name = "wal-push", version, after_help = cli::EXIT_CODES)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// The WAL file, as PostgreSQL's %p names it: a segment, .partial, .history or .backup file
    path: PathBuf,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() -> ExitCode {
    cli::run(Kind::exit_code, |args: Args, config| {
        ops::wal_push::run(config, &args.path).map(|_| ExitCode::SUCCESS)
    })
}
