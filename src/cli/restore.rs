//! The flags of `bootstrap-restore`: one definition each, for parser and help; and what it prints.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{ArgGroup, Args, Parser, ValueEnum};
use jiff::Zoned;

use super::{Common, EXIT_CODES, HasCommon, Output, print};
use crate::error::{Error, IoContext, Result};
use crate::ident::Name;
use crate::ops::restore::Request;
use crate::ops::restore::debian::{self, DebianName, Layout};
use crate::ops::restore::directory::Replace;
use crate::ops::restore::plan::{Plan, StandbyOf};
use crate::ops::restore::report::Report;
use crate::ops::restore::tablespaces::Mapping;
use crate::ops::restore::target::{Action, Aim, PointName, Target, Xid, parse_time};
use crate::pg::lsn::{Lsn, SystemId, Timeline};
use crate::pg::settings_file::Setting;
use crate::pg::time::Timestamp;

/// Create a PostgreSQL server from a backup and the archived WAL, as the cluster was at a chosen moment
///
/// Plans first and prints the plan: which backup, which timeline, which WAL. Refuses before writing anything
/// whatever would not end well, and says what can be reached. Then restores the files, configures and starts
/// the server, and follows recovery to its end. Run it as the user that the server shall run as.
#[derive(Parser)]
#[command(
    name = "bootstrap-restore",
    version,
    after_help = EXIT_CODES,
    group = ArgGroup::new("targets").args(["target_time", "target_lsn", "target_xid", "target_name", "target"])
)]
pub struct RestoreArgs {
    /// The data directory to create: empty, or not there yet
    #[arg(
        short = 'D',
        long = "target-dir",
        visible_alias = "pgdata",
        value_name = "DIRECTORY",
        required_unless_present = "debian"
    )]
    data: Option<PathBuf>,

    /// Make it a cluster of Debian's, such as 15/restore_target: pg_lsclusters shows it, pg_ctlcluster and systemd start
    /// it; its data goes to /var/lib/postgresql/15/restore_target unless -D says otherwise
    #[arg(long, value_name = "VERSION/NAME", value_parser = told::<DebianName>, conflicts_with = "bin_dir")]
    debian: Option<DebianName>,

    /// Take the source's place: archive as it did, and run its subscriptions and jobs
    #[arg(long)]
    takeover: bool,

    /// Remove the data directory that is there (of the same cluster, no server running), or an unfinished restore
    #[arg(long)]
    replace: bool,

    /// As --replace, and stop the server that runs in it
    #[arg(long)]
    replace_running: bool,

    /// Put a tablespace, by its name or its location at the source, somewhere else; may be repeated
    #[arg(long, value_name = "OLD=NEW", value_parser = told::<Mapping>)]
    tablespace_map: Vec<Mapping>,

    /// A setting for the restored server, over the source's; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<Setting>,

    /// Parallel workers; as many as there are cores unless configured [config: restore.jobs]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Plan, print the plan, and stop there
    #[arg(long)]
    dry_run: bool,

    /// How the result looks on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,

    #[command(flatten)]
    aim: AimArgs,

    #[command(flatten)]
    standby: StandbyArgs,

    #[command(flatten)]
    server: ServerArgs,

    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
#[command(next_help_heading = "Where recovery ends (default: the end of the archive)")]
struct AimArgs {
    /// A time with its zone: "2026-11-22 10:00:00+00", "2026-11-22 10:00:00[Europe/Berlin]", "10 minutes ago"
    #[arg(long, value_name = "TIME", value_parser = time)]
    target_time: Option<Timestamp>,

    /// An LSN, such as 0/3000148
    #[arg(long, value_name = "LSN", value_parser = told::<Lsn>)]
    target_lsn: Option<Lsn>,

    /// The end of a transaction, by its id
    #[arg(long, value_name = "XID", value_parser = told::<Xid>)]
    target_xid: Option<Xid>,

    /// A restore point, by the name that pg_create_restore_point gave it
    #[arg(long, value_name = "NAME", value_parser = told::<PointName>)]
    target_name: Option<PointName>,

    /// The end of the backup, or the end of the archive
    #[arg(long, value_enum, value_name = "WHERE")]
    target: Option<Where>,

    /// The timeline to follow; the newest on which the target can be reached unless told otherwise
    #[arg(long, value_name = "NUMBER", value_parser = timeline)]
    target_timeline: Option<Timeline>,

    /// Stop right before the target, not behind it
    #[arg(long)]
    exclusive: bool,

    /// What the server does at the target
    #[arg(long, value_enum, default_value = "promote")]
    action: Action,

    /// The backup to begin with; the newest from which the target can be reached unless told otherwise
    #[arg(long, value_name = "LABEL", value_parser = told::<Name>)]
    backup: Option<Name>,

    /// Which incarnation of the cluster, where pg_upgrade or initdb has made several
    #[arg(long, value_name = "NUMBER", value_parser = told::<SystemId>)]
    system_id: Option<SystemId>,
}

#[derive(Args)]
#[command(next_help_heading = "Instead of an end: a standby")]
struct StandbyArgs {
    /// Create a standby, which goes on replaying
    #[arg(long, conflicts_with_all = ["targets", "target_timeline", "exclusive", "action", "takeover"])]
    standby: bool,

    /// The primary that it streams from; without, it follows the archive only
    #[arg(long, value_name = "CONNINFO", requires = "standby")]
    primary_conninfo: Option<String>,

    /// The replication slot that it uses there
    #[arg(long, value_name = "NAME", requires = "primary_conninfo")]
    primary_slot: Option<String>,
}

#[derive(Args)]
#[command(next_help_heading = "The server")]
struct ServerArgs {
    /// Its port; a free one unless told otherwise
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// The directory of its Unix socket; /var/run/postgresql if it can be written, else /tmp
    #[arg(long, value_name = "DIRECTORY")]
    socket_dir: Option<PathBuf>,

    /// Where PostgreSQL's programs are; looked for by pg_config, in PATH and where packages put them
    #[arg(long, value_name = "DIRECTORY")]
    bin_dir: Option<PathBuf>,

    /// Leave the server down: recovery begins when somebody starts it
    #[arg(long)]
    no_start: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    Immediate,
    Latest,
}

impl HasCommon for RestoreArgs {
    fn common(&self) -> &Common {
        &self.common
    }
}

impl RestoreArgs {
    /// As root, for a cluster of Debian's: goes on as the user that Debian's servers run as.
    pub fn leave_root(&self) -> Result<()> {
        match &self.debian {
            Some(name) => debian::leave_root(&Layout::of_host(), name, self.dry_run),
            None => Ok(()),
        }
    }

    pub fn request(&self) -> Result<Request> {
        let absolute =
            |path: &PathBuf| std::path::absolute(path).doing(|| format!("find {}", path.display()));
        let (aim, server) = (&self.aim, &self.server);
        let default = self.debian.as_ref().map(|name| Layout::of_host().data_of(name));
        // One of the two is there, the parser saw to it.
        let data = self.data.clone().or(default).unwrap_or_default();
        Ok(Request {
            data: absolute(&data)?,
            debian: self.debian.clone(),
            aim: Aim { target: aim.target(), inclusive: !aim.exclusive, timeline: aim.target_timeline },
            action: aim.action,
            backup: aim.backup.clone(),
            system_id: aim.system_id,
            standby: self.standby.standby.then(|| StandbyOf {
                primary_conninfo: self.standby.primary_conninfo.clone(),
                primary_slot_name: self.standby.primary_slot.clone(),
            }),
            takeover: self.takeover,
            replace: match (self.replace, self.replace_running) {
                (_, true) => Replace::Running,
                (true, false) => Replace::Stopped,
                (false, false) => Replace::Nothing,
            },
            tablespace_map: self.tablespace_map.clone(),
            set: self.set.clone(),
            jobs: self.jobs,
            port: server.port,
            socket_directory: server.socket_dir.as_ref().map(absolute).transpose()?,
            bin_dir: match &self.debian {
                Some(name) => Some(debian::bin_dir(name.major)),
                None => server.bin_dir.as_ref().map(absolute).transpose()?,
            },
            path: std::env::var_os("PATH"),
            start: !server.no_start,
            dry_run: self.dry_run,
            display: self.common.display(),
        })
    }

    /// Shows the plan to people at once; to machines it is part of the result.
    pub fn show(&self, plan: &Plan) -> Result<()> {
        match self.output {
            Output::Text => print(&plan.to_string().trim_end()).map(drop),
            Output::Json => Ok(()),
        }
    }

    pub fn print(&self, report: &Report) -> Result<ExitCode> {
        match self.output {
            Output::Text => print(report),
            Output::Json => print(&report.json()?),
        }
    }
}

impl AimArgs {
    fn target(&self) -> Target {
        let named = self.target_name.clone().map(Target::Name);
        let given = self.target_time.map(Target::Time).or(self.target_lsn.map(Target::Lsn));
        let given = given.or(self.target_xid.map(Target::Xid)).or(named);
        given.unwrap_or(match self.target {
            Some(Where::Immediate) => Target::Immediate,
            Some(Where::Latest) | None => Target::Latest,
        })
    }
}

/// The parser's error, with its hint: clap shows one text only.
pub(super) fn told<T: FromStr<Err = Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|error| with_hint(&error))
}

pub(super) fn with_hint(error: &Error) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

pub(super) fn time(text: &str) -> std::result::Result<Timestamp, String> {
    parse_time(text, &Zoned::now()).map_err(|error| with_hint(&error))
}

pub(super) fn timeline(text: &str) -> std::result::Result<Timeline, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.map(Timeline).ok_or_else(|| "it is not a timeline: a number from 1 on".to_string())
}

fn setting(text: &str) -> std::result::Result<Setting, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, for example work_mem=64MB")?;
    let setting = Setting::new(name.trim(), value.trim());
    setting.line().map_err(|error| with_hint(&error))?;
    Ok(setting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(flags: &[&str]) -> std::result::Result<Request, String> {
        let all = ["bootstrap-restore", "-D", "/data"].into_iter().chain(flags.iter().copied());
        let args = RestoreArgs::try_parse_from(all).map_err(|error| error.to_string())?;
        args.request().map_err(|error| error.to_string())
    }

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        RestoreArgs::command().debug_assert();
    }

    #[test]
    fn a_cluster_of_debian_s_has_its_directory_by_its_name() {
        let request = |flags: &[&str]| {
            let all = ["bootstrap-restore"].into_iter().chain(flags.iter().copied());
            let args = RestoreArgs::try_parse_from(all).map_err(|error| error.to_string())?;
            args.request().map_err(|error| error.to_string())
        };
        let data = |flags: &[&str]| request(flags).map(|request| request.data);
        assert_eq!(data(&["--debian", "15/x"]), Ok("/var/lib/postgresql/15/x".into()));
        assert_eq!(data(&["--debian", "15/x", "-D", "/d"]), Ok("/d".into()));
        let bin_dir = request(&["--debian", "16/x"]).map(|request| request.bin_dir);
        assert_eq!(bin_dir, Ok(Some("/usr/lib/postgresql/16/bin".into())));
        assert!(data(&["--debian", "x"]).is_err_and(|error| error.contains("15/restore_target")));
        assert!(data(&["--debian", "15/x", "--bin-dir", "/b"]).is_err());
        assert!(data(&[]).is_err(), "one of -D and --debian is needed");
    }

    #[test]
    fn each_target_has_its_flag_and_one_is_enough() {
        let target = |flags: &[&str]| parse(flags).map(|request| request.aim.target);
        assert_eq!(target(&[]), Ok(Target::Latest));
        assert_eq!(target(&["--target", "immediate"]), Ok(Target::Immediate));
        assert_eq!(target(&["--target-lsn", "0/3000148"]), Ok(Target::Lsn(Lsn(0x300_0148))));
        assert_eq!(target(&["--target-xid", "741"]), Ok(Target::Xid(Xid(741))));
        assert_eq!(target(&["--target-name", "x y"]), Ok(Target::Name("x y".parse().expect("a name"))));
        let time = "1970-01-01T00:00:01Z".parse().expect("a time");
        assert_eq!(target(&["--target-time", "1970-01-01 00:00:01+00"]), Ok(Target::Time(time)));
        assert!(target(&["--target-xid", "741", "--target-lsn", "0/1"]).is_err());
        assert!(target(&["--standby", "--target-lsn", "0/1"]).is_err());
    }

    #[test]
    fn a_time_without_a_zone_is_refused_with_both_ways_to_write_it() {
        let error = parse(&["--target-time", "2026-11-22 10:00:00"]).expect_err("no zone");
        for part in ["names no zone", "2026-11-22 10:00:00+00", "2026-11-22 10:00:00[Europe/Berlin]"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_setting_is_a_name_and_a_value() {
        assert_eq!(setting("work_mem = 64MB"), Ok(Setting::new("work_mem", "64MB")));
        assert_eq!(setting("search_path="), Ok(Setting::new("search_path", "")));
        assert_eq!(setting("a=b=c"), Ok(Setting::new("a", "b=c")));
        for bad in ["work_mem", "=1", "a b=1", "a=b\nc"] {
            assert!(setting(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn running_servers_are_replaced_by_a_flag_of_their_own() {
        let replace = |flags: &[&str]| parse(flags).map(|request| request.replace);
        assert_eq!(replace(&[]), Ok(Replace::Nothing));
        assert_eq!(replace(&["--replace"]), Ok(Replace::Stopped));
        assert_eq!(replace(&["--replace-running"]), Ok(Replace::Running));
    }
}
