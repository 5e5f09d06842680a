//! basebackup: copies a running cluster into the repository.

use std::process::ExitCode;

use pgark::cli::{self, basebackup::BasebackupArgs};
use pgark::error::Kind;
use pgark::ops;

fn main() -> ExitCode {
    cli::run(Kind::exit_code, |args: BasebackupArgs, config| {
        ops::backup::run(config, &args.request()).and_then(|report| args.print(&report))
    })
}
