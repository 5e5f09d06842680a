//! pgark: the operator's view of the repository. Parses, calls one verb, prints what it found.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use pgark::cli::check::{self, CheckArgs};
use pgark::cli::expire::ExpireArgs;
use pgark::cli::find::FindArgs;
use pgark::cli::info::InfoArgs;
use pgark::cli::manual::{CompletionArgs, ManArgs};
use pgark::cli::metrics::MetricsArgs;
use pgark::cli::pin::{PinArgs, UnpinArgs};
use pgark::cli::repo::RepoArgs;
use pgark::cli::report::ReportArgs;
use pgark::cli::verify::VerifyArgs;
use pgark::cli::{self, Common, HasCommon};
use pgark::error::Kind;
use pgark::ops;

/// WAL archiving, base backups and restores for PostgreSQL: the operator's view
#[derive(Parser)]
#[command(name = "pgark", version, after_help = cli::EXIT_CODES)]
struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Say whether a running cluster is safe right now, as a monitoring plugin does
    Check(Box<CheckArgs>),
    /// Print what makes a shell complete the flags of all programs
    Completion(CompletionArgs),
    /// Delete the backups that no rule keeps, and the WAL that nobody needs any more
    Expire(ExpireArgs),
    /// Find a moment in the archived WAL, such as when a table was dropped, and how to restore to just before it
    Find(Box<FindArgs>),
    /// Show backups, WAL and where one can go back to; or one backup in full
    Info(InfoArgs),
    /// Create a repository in an empty (or new) directory and print its id; harmless when it exists
    Init,
    /// Write the man pages of all programs
    Man(ManArgs),
    /// The numbers of the repository for a monitor: OpenMetrics, as text or over HTTP
    Metrics(MetricsArgs),
    /// Keep a backup from being expired, or list what is kept
    Pin(PinArgs),
    /// Look at stored objects by their keys
    Repo(RepoArgs),
    /// Write what there is, and where one can go back to, as a page for the browser
    Report(ReportArgs),
    /// Let `pgark expire` decide about a backup again
    Unpin(UnpinArgs),
    /// Read what is stored back, check it, and say what is damaged and what that costs
    Verify(VerifyArgs),
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() -> ExitCode {
    let run = |args: Args, config: &_| match args.verb {
        Verb::Check(check) => check.run(config),
        Verb::Completion(completion) => completion.run(Args::command()),
        Verb::Expire(expire) => expire.run(config),
        Verb::Find(find) => find.run(&args.common, config),
        Verb::Info(info) => info.run(config),
        Verb::Init => ops::init::run(config).and_then(|initialised| cli::print(&initialised.id())),
        Verb::Man(man) => man.run(Args::command()),
        Verb::Metrics(metrics) => metrics.run(config),
        Verb::Pin(pin) => pin.run(config),
        Verb::Repo(repo) => repo.run(config),
        Verb::Report(report) => report.run(config),
        Verb::Unpin(unpin) => unpin.run(config),
        Verb::Verify(verify) => verify.run(&args.common, config),
    };
    match check::is_asked(Args::command()) {
        true => cli::run_announcing(check::exit_code, check::announce, run),
        false => cli::run(Kind::exit_code, run),
    }
}
