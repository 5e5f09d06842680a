//! wal-receive: streams WAL into the repository as it is written.

use std::process::ExitCode;

use pgark::cli::{self, wal_receive};
use pgark::error::Kind;

fn main() -> ExitCode {
    cli::run(Kind::exit_code, wal_receive::run)
}
