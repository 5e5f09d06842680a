//! wal-fetch: PostgreSQL's restore_command.

use std::process::ExitCode;

use pgark::cli::{self, wal_fetch};
use pgark::ops;

fn main() -> ExitCode {
    cli::run(ops::wal_fetch::exit_code, wal_fetch::run)
}
