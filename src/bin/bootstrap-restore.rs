//! bootstrap-restore: creates a server like the one that was backed up, as it was at a chosen moment.

use std::process::ExitCode;

use pgark::cli::{self, restore::RestoreArgs};
use pgark::error::Kind;
use pgark::ops;

fn main() -> ExitCode {
    cli::run(Kind::exit_code, |args: RestoreArgs, config| {
        args.leave_root()?;
        let report = ops::restore::run(config, &args.request()?, |plan| args.show(plan))?;
        args.print(&report)
    })
}
