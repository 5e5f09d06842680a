//! wal-push: PostgreSQL's archive_command.

use std::process::ExitCode;

use pgark::cli::{self, wal_push};
use pgark::error::Kind;

fn main() -> ExitCode {
    cli::run(Kind::exit_code, wal_push::run)
}
