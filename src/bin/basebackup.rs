//! basebackup: copies a running cluster into the repository.

use std::process::ExitCode;

use pgark::cli::{self, basebackup::BasebackupArgs};
use pgark::error::Kind;

fn main() -> ExitCode {
    cli::run(Kind::exit_code, |args: BasebackupArgs, config| args.run(config))
}
