//! The restored server as a cluster of Debian's own (postgresql-common): `pg_lsclusters` shows it, `pg_ctlcluster` and
//! systemd start it. Its data is restored as everywhere; then its configuration moves to where Debian keeps it.
//!
//! Refuses a name that another cluster has, and a data directory that is another's. Invariant: a cluster is
//! registered exactly when its postgresql.conf is in its place (PgCommon.pm, get_version_clusters); that file is put there
//! last and taken away first, so no half-restored directory is ever registered.

mod register;
mod registered;
mod root;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::Access;

use super::directory::Replace;
use super::tablespaces::real_path;
use crate::error::{Error, IoContext, Result};
use crate::pg::settings_file::Setting;
use crate::pg::version::PgMajor;
use registered::Registered;
pub use root::leave_root;

/// The files that make up a registration.
const FILES: [&str; 6] =
    ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "start.conf", "pg_ctl.conf", "environment"];

/// The name under which one of them is written.
fn staged(file: &str) -> String {
    format!("{file}.pgark-tmp")
}

/// A cluster's name among Debian's: "15/restore_target".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianName {
    pub major: PgMajor,
    pub cluster: String,
}

impl FromStr for DebianName {
    type Err = Error;

    /// Narrower than pg_createcluster: systemd takes a dash for a slash, and a cluster whose name begins with a
    /// dot would be overlooked by people.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |cause: &str| {
            Error::configuration(format!("\"{text}\" is not the name of a cluster of Debian's: {cause}"))
                .with_hint("write VERSION/NAME, for example 15/restore_target")
        };
        let (major, cluster) = text.split_once('/').ok_or_else(|| wrong("it has no slash"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if cluster.is_empty() || cluster.starts_with('.') || !cluster.chars().all(plain) {
            return Err(wrong("a name is made of letters, digits, underscores and dots"));
        }
        Ok(Self { major: major.parse()?, cluster: cluster.to_string() })
    }
}

impl fmt::Display for DebianName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.major, self.cluster)
    }
}

/// Where postgresql-common keeps things (PgCommon.pm).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Configuration.
    pub etc: PathBuf,
    /// Defaults for all clusters.
    pub common: PathBuf,
    pub data: PathBuf,
    pub log: PathBuf,
    /// Sockets, and files with process ids.
    pub run: PathBuf,
    /// What starts and stops clusters.
    pub starter: PathBuf,
}

impl Layout {
    pub fn of_host() -> Self {
        Self {
            etc: "/etc/postgresql".into(),
            common: "/etc/postgresql-common".into(),
            data: "/var/lib/postgresql".into(),
            log: "/var/log/postgresql".into(),
            run: "/var/run/postgresql".into(),
            starter: "/usr/bin/pg_ctlcluster".into(),
        }
    }

    /// The data directory that a cluster has by default.
    pub fn data_of(&self, name: &DebianName) -> PathBuf {
        self.data.join(name.to_string())
    }
}

/// Where Debian puts the programs of a major version.
pub fn bin_dir(major: PgMajor) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))
}

/// How a cluster gets, or is to get, registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub name: DebianName,
    layout: Layout,
    /// Whether it starts with the host; else by hand.
    pub autostart: bool,
    /// Its files are there already, from an earlier restore or a killed one.
    replaces: bool,
    /// The port that it had.
    port: Option<u16>,
    /// Ports of other clusters, whether they run or not.
    taken: BTreeSet<u16>,
}

/// What the operator asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub name: &'a DebianName,
    pub data: &'a Path,
    pub replace: Replace,
    pub autostart: bool,
    /// The backup's.
    pub major: PgMajor,
}

/// Whether that can be registered here. Touches nothing.
pub fn check(layout: Layout, wanted: Wanted<'_>) -> Result<Registration> {
    let name = wanted.name;
    let refuse = |cause: String| Error::conflict(format!("could not register {name}: {cause}"));
    if name.major != wanted.major {
        return Err(Error::configuration(format!(
            "could not register {name}: the backup is of PostgreSQL {}",
            wanted.major
        ))
        .with_hint(format!("name it {}/{}", wanted.major, name.cluster)));
    }
    if !layout.starter.exists() {
        return Err(Error::configuration(format!(
            "could not register {name}: {} is not here",
            layout.starter.display()
        ))
        .with_hint("apt-get install postgresql-common, or leave --debian out and name a directory with -D"));
    }
    let data = real_path(wanted.data);
    let (own, others): (Vec<Registered>, Vec<Registered>) =
        registered::all(&layout.etc)?.into_iter().partition(|cluster| cluster.name == name.to_string());
    let is_ours = |cluster: &Registered| cluster.data.as_deref().map(real_path).as_ref() == Some(&data);
    if let Some(other) = others.iter().find(|cluster| is_ours(cluster)) {
        return Err(refuse(format!("{} is the data directory of {}", data.display(), other.name))
            .with_hint("name another directory with -D, or none"));
    }
    let config = layout.etc.join(name.to_string());
    let replaces = match own.first() {
        Some(cluster) if !is_ours(cluster) => {
            let data = cluster.data.as_deref().unwrap_or(Path::new("unknown"));
            return Err(refuse(format!("it exists, and its data directory is {}", data.display()))
                .with_hint("choose another name; `pg_lsclusters` shows those that are taken"));
        }
        Some(_) if wanted.replace == Replace::Nothing => {
            return Err(refuse("it exists".into())
                .with_hint("choose another name; or, if its data shall be removed, add --replace"));
        }
        Some(_) => true,
        None => left_over(&config, &refuse)?,
    };
    check_access(&config)?;
    check_access(&layout.log)?;
    let taken = others.iter().map(|cluster| cluster.port).collect();
    let port = own.first().map(|cluster| cluster.port);
    Ok(Registration { name: name.clone(), layout, autostart: wanted.autostart, replaces, port, taken })
}

/// Whether the directory holds what a killed registration leaves; refuses anything else.
fn left_over(config: &Path, refuse: &impl Fn(String) -> Error) -> Result<bool> {
    let doing = || format!("list {}", config.display());
    let entries = match std::fs::read_dir(config) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries.doing(doing)?,
    };
    let mut found = false;
    for entry in entries {
        let name = entry.doing(doing)?.file_name();
        if !FILES.iter().any(|file| *file == name || *staged(file) == name) {
            return Err(refuse(format!("{} holds \"{}\"", config.display(), name.display()))
                .with_hint("choose another name, or remove that directory yourself"));
        }
        found = true;
    }
    Ok(found)
}

/// Whether we can write into the directory or, as long as it is missing, make it.
fn check_access(directory: &Path) -> Result<()> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|cause| Error::io(format!("write to {}", existing.display()), &cause.into()))
        .map_err(|error| error.with_hint("run this as root, or as the user that Debian's servers run as"))
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = if self.autostart { "starts with the host" } else { "is started by hand" };
        write!(f, "{} of Debian's, configured in {}; it {start}", self.name, self.config().display())
    }
}

impl Registration {
    pub fn config(&self) -> PathBuf {
        self.layout.etc.join(self.name.to_string())
    }

    pub fn config_file(&self) -> PathBuf {
        self.config().join("postgresql.conf")
    }

    /// Where the server logs to, whoever starts it.
    pub fn log(&self) -> PathBuf {
        self.layout.log.join(format!("postgresql-{}-{}.log", self.name.major, self.name.cluster))
    }

    /// The port that it keeps when it is restored again, unless another cluster was given it too.
    pub fn port(&self) -> Option<u16> {
        self.port.filter(|port| !self.taken.contains(port))
    }

    /// Ports of other clusters, whether they run or not.
    pub fn taken(&self) -> &BTreeSet<u16> {
        &self.taken
    }

    /// What its postgresql.conf says beyond that of any restored server.
    pub fn settings(&self, data: &Path, socket_directory: &Path) -> Vec<Setting> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let config = self.config();
        let mut settings = vec![
            Setting::new("data_directory", text(data.to_path_buf())),
            Setting::new("hba_file", text(config.join("pg_hba.conf"))),
            Setting::new("ident_file", text(config.join("pg_ident.conf"))),
        ];
        // As pg_createcluster: who looks for the server looks there first, and it may be that server's alone.
        if socket_directory == self.layout.run {
            let file = format!("{}-{}.pid", self.name.major, self.name.cluster);
            settings.push(Setting::new("external_pid_file", text(self.layout.run.join(file))));
        }
        settings
    }

    /// What does something to the cluster: "start", "stop".
    pub fn command(&self, action: &str) -> String {
        format!("pg_ctlcluster {} {} {action}", self.name.major, self.name.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::fs;

    pub(super) struct Host {
        _directory: tempfile::TempDir,
        pub layout: Layout,
    }

    pub(super) fn host() -> Host {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let layout = Layout {
            etc: at("etc"),
            common: at("common"),
            data: at("data"),
            log: at("log"),
            run: at("run"),
            starter: at("pg_ctlcluster"),
        };
        for path in [&layout.etc, &layout.common, &layout.data, &layout.log, &layout.run] {
            fs::create_dir(path).expect("made");
        }
        fs::write(&layout.starter, "").expect("written");
        Host { _directory: directory, layout }
    }

    pub(super) fn name(text: &str) -> DebianName {
        text.parse().expect("a name")
    }

    /// A cluster that is registered.
    pub(super) fn register(layout: &Layout, name: &str, conf: &str) {
        let directory = layout.etc.join(name);
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join("postgresql.conf"), conf).expect("written");
    }

    fn wanted<'a>(name: &'a DebianName, data: &'a Path, replace: Replace) -> Wanted<'a> {
        Wanted { name, data, replace, autostart: false, major: "15".parse().expect("15") }
    }

    #[test]
    fn a_name_has_a_version_and_no_dash() {
        assert_eq!(name("15/restore_target").to_string(), "15/restore_target");
        for bad in
            ["main", "15", "15/", "/main", "9.6/main", "15/a-b", "15/../x", "15/.x", "15/a b", "15/a/b"]
        {
            assert!(bad.parse::<DebianName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_free_name_is_registered_beside_the_others() {
        let host = host();
        register(&host.layout, "15/main", "port = 5432\ndata_directory = '/a'\n");
        register(&host.layout, "14/old", "port = '5433' # old\n");
        let name = name("15/new");
        let data = host.layout.data_of(&name);
        let found = check(host.layout.clone(), wanted(&name, &data, Replace::Nothing)).expect("free");
        assert_eq!((found.taken, found.replaces), (BTreeSet::from([5432, 5433]), false));
    }

    #[test]
    fn what_is_another_cluster_s_is_never_taken() {
        let host = host();
        let name = name("15/x");
        let data = host.layout.data_of(&name);
        let judged =
            |replace| check(host.layout.clone(), wanted(&name, &data, replace)).map(|found| found.replaces);
        for (layout, conf, expected) in [
            ("15/x", format!("data_directory = '{}'\n", data.display()), [Some("it exists"), None, None]),
            ("15/x", "data_directory = '/elsewhere'\n".into(), [Some("data directory is /elsewhere"); 3]),
            ("15/other", format!("data_directory = '{}'\n", data.display()), [Some("of 15/other"); 3]),
        ] {
            register(&host.layout, layout, &conf);
            for (replace, expected) in
                [Replace::Nothing, Replace::Stopped, Replace::Running].into_iter().zip(expected)
            {
                match (judged(replace), expected) {
                    (Ok(replaces), None) => assert!(replaces, "{conf}"),
                    (Err(error), Some(cause)) => {
                        assert!(error.message().contains(cause) && error.hint().is_some(), "{error}");
                        assert_eq!(error.kind(), Kind::Conflict);
                    }
                    other => panic!("{conf} {replace:?}: {other:?}"),
                }
            }
            fs::remove_dir_all(host.layout.etc.join(layout)).expect("removed");
        }
    }

    #[test]
    fn only_what_a_killed_registration_leaves_is_written_over() {
        let host = host();
        let name = name("15/x");
        let data = host.layout.data_of(&name);
        let config = host.layout.etc.join("15/x");
        fs::create_dir_all(&config).expect("made");
        fs::write(config.join("start.conf"), "auto\n").expect("written");
        fs::write(config.join("pg_ctl.conf.pgark-tmp"), "").expect("written");
        let judged = || check(host.layout.clone(), wanted(&name, &data, Replace::Nothing));
        assert!(judged().is_ok_and(|found| found.replaces));
        fs::write(config.join("notes"), "").expect("written");
        assert!(judged().is_err_and(|error| error.message().contains("holds \"notes\"")));
    }

    #[test]
    fn a_backup_of_another_version_is_refused_with_the_right_name() {
        let host = host();
        let name = name("16/x");
        let error = check(host.layout, wanted(&name, Path::new("/d"), Replace::Nothing)).expect_err("15");
        assert!(error.hint().is_some_and(|hint| hint.contains("15/x")), "{error}");
    }
}
