//! Making clusters: initdb with options, or a standby with pg_basebackup.
//!
//! Every cluster has its own socket directory and listens nowhere else, so tests can't meet each other.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::cluster::{Cluster, append};
use super::host::{pg_command, pg_major};
use super::repo::TestRepo;
use super::run::program_path;
use super::scratch::{Scratch, own};

/// Settings of every cluster: small, quick, and able to archive and replicate. Durability of the server is
/// not what is tested, and `kill -9` does not lose what the kernel has.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("shared_buffers", "32MB"),
    ("max_connections", "40"),
    ("max_wal_senders", "10"),
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    ("listen_addresses", ""),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %b "),
    ("log_checkpoints", "off"),
];

/// What a cluster shall be like. `start()` makes it and starts the server, `build()` only makes it.
pub struct ClusterBuilder {
    wal_segment_mib: u32,
    checksums: bool,
    debian: bool,
    settings: Vec<(String, String)>,
    server_env: Vec<(String, String)>,
    tablespaces: Vec<String>,
    initdb: Vec<String>,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            wal_segment_mib: 16,
            checksums: true,
            debian: false,
            settings: Vec::new(),
            server_env: Vec::new(),
            tablespaces: Vec::new(),
            initdb: Vec::new(),
        }
    }
}

impl ClusterBuilder {
    pub fn wal_segment_mib(mut self, mebibytes: u32) -> Self {
        self.wal_segment_mib = mebibytes;
        self
    }

    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// Debian's layout: postgresql.conf (with conf.d), pg_hba.conf and pg_ident.conf outside PGDATA.
    pub fn debian(mut self) -> Self {
        self.debian = true;
        self
    }

    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// An environment variable of the server, and so of archive_command and restore_command.
    pub fn server_env(mut self, name: &str, value: impl ToString) -> Self {
        self.server_env.push((name.to_owned(), value.to_string()));
        self
    }

    /// A tablespace, created when the server first starts. Its directory: [`Cluster::tablespace_dir`].
    pub fn tablespace(mut self, name: &str) -> Self {
        self.tablespaces.push(name.to_owned());
        self
    }

    /// A further argument for initdb.
    pub fn initdb_arg(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// Archives with the real `wal-push` into `repo`, which the server's environment names.
    pub fn archive_to(self, repo: &TestRepo) -> Self {
        self.set("archive_mode", "on")
            .set("archive_command", format!("{} %p", program_path("wal-push").display()))
            .server_env("PGARK_CONFIG", repo.config().display())
    }

    /// Makes the cluster, starts the server and creates the tablespaces.
    pub fn start(self) -> Cluster {
        let tablespaces = self.tablespaces.clone();
        let cluster = self.build();
        cluster.start();
        for name in tablespaces {
            let location = cluster.scratch.make_dir(Path::new("ts").join(&name));
            cluster.psql(&format!("create tablespace {name} location '{}'", location.display()));
        }
        cluster
    }

    /// Makes the cluster and leaves the server down.
    pub fn build(self) -> Cluster {
        let scratch = Scratch::new();
        let data_dir = if self.debian { scratch.make_dir("lib/15/main") } else { scratch.make_dir("data") };
        self.initdb(&data_dir);
        let config_dir = if self.debian { move_config_out(&scratch, &data_dir) } else { data_dir.clone() };
        let settings = SETTINGS.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let settings = settings.chain(self.settings).collect();
        let file = if self.debian { "conf.d/test.conf" } else { "postgresql.conf" };
        place(scratch, data_dir, config_dir, file, settings, self.server_env)
    }

    fn initdb(&self, data_dir: &Path) {
        let mut command = pg_command("initdb");
        command.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-N"]);
        command.arg(format!("--wal-segsize={}", self.wal_segment_mib));
        if self.checksums {
            command.arg("-k");
        } else if pg_major() >= 18 {
            command.arg("--no-data-checksums");
        }
        command.args(&self.initdb).arg("-D").arg(data_dir);
        run_to_success(&mut command);
    }
}

/// A standby to be: `.set()` settings, then `.start()`.
pub struct StandbyBuilder<'a> {
    primary: &'a Cluster,
    settings: Vec<(String, String)>,
    server_env: Vec<(String, String)>,
}

impl<'a> StandbyBuilder<'a> {
    pub(super) fn of(primary: &'a Cluster) -> Self {
        Self { primary, settings: Vec::new(), server_env: Vec::new() }
    }

    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn server_env(mut self, name: &str, value: impl ToString) -> Self {
        self.server_env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Fetches with the real `wal-fetch` from `repo`, and archives into it once promoted.
    pub fn restore_from(self, repo: &TestRepo) -> Self {
        self.set("restore_command", format!("{} %f %p", program_path("wal-fetch").display()))
            .set("archive_mode", "on")
            .set("archive_command", format!("{} %p", program_path("wal-push").display()))
            .server_env("PGARK_CONFIG", repo.config().display())
    }

    /// Copies the primary, starts the standby and waits until it accepts read-only connections.
    pub fn start(self) -> Cluster {
        let cluster = self.build();
        cluster.start();
        cluster
    }

    /// Copies the primary and leaves the standby down.
    pub fn build(self) -> Cluster {
        let scratch = Scratch::new();
        let data_dir = scratch.make_dir("data");
        let mut command = self.primary.client("pg_basebackup");
        command.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(&data_dir);
        for (name, location) in self.primary_tablespaces() {
            let here = scratch.make_dir(Path::new("ts").join(name));
            command.arg(format!("--tablespace-mapping={location}={}", here.display()));
        }
        run_to_success(&mut command);
        // pg_basebackup -R writes down what its own libpq knows, which an older library of the server refuses.
        append(
            &data_dir.join("postgresql.auto.conf"),
            &setting("primary_conninfo", &self.primary.conninfo()),
        );
        if self.primary.config_dir != self.primary.data_dir {
            copy_config_in(&self.primary.config_dir, &data_dir);
        }
        let server_env = [self.primary.server_env.clone(), self.server_env].concat();
        place(scratch, data_dir.clone(), data_dir, "postgresql.conf", self.settings, server_env)
    }

    fn primary_tablespaces(&self) -> Vec<(String, String)> {
        let query = "select spcname, pg_tablespace_location(oid) from pg_tablespace where oid > 16383";
        let rows = self.primary.psql(query);
        rows.lines()
            .filter_map(|row| row.split_once('|'))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }
}

impl Cluster {
    /// A copy of the data directory of a server that is down, as a snapshot of its machine has it: it has the same
    /// system identifier and timeline, and archives like the original.
    pub fn clone_machine(&self) -> Cluster {
        assert!(!self.is_running(), "a copy of a running server's files is no snapshot");
        let scratch = Scratch::new();
        let data_dir = scratch.join("data");
        run_to_success(Command::new("cp").arg("-a").arg(&self.data_dir).arg(&data_dir));
        place(scratch, data_dir.clone(), data_dir, "postgresql.conf", Vec::new(), self.server_env.clone())
    }
}

/// Gives a data directory its port, its socket directory and its settings.
fn place(
    scratch: Scratch,
    data_dir: PathBuf,
    config_dir: PathBuf,
    file: &str,
    settings: Vec<(String, String)>,
    server_env: Vec<(String, String)>,
) -> Cluster {
    let (socket_dir, port) = (scratch.make_dir("s"), free_port());
    let mut lines = vec![setting("port", &port.to_string())];
    lines.push(setting("unix_socket_directories", &socket_dir.display().to_string()));
    lines.extend(settings.iter().map(|(name, value)| setting(name, value)));
    append(&config_dir.join(file), &lines.join("\n"));
    let (log, postmaster) = (scratch.join("server.log"), RefCell::new(None));
    Cluster { scratch, data_dir, config_dir, socket_dir, port, log, server_env, postmaster }
}

/// A TCP port that nobody listens on, and that no other cluster of this process was given. Servers of the
/// harness use it for their socket's name; what restores choose for themselves is up to them.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("find a free port");
        let port = listener.local_addr().expect("the address of a listener").port();
        if GIVEN.lock().expect("no panic while held").get_or_insert_default().insert(port) {
            return port;
        }
    }
}

/// A line of postgresql.conf (guc-file.l: quotes and backslashes are doubled in quoted values).
fn setting(name: &str, value: &str) -> String {
    format!("{name} = '{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

fn move_config_out(scratch: &Scratch, data_dir: &Path) -> PathBuf {
    let config_dir = scratch.make_dir("etc/15/main");
    scratch.make_dir("etc/15/main/conf.d");
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(data_dir.join(name), config_dir.join(name)).expect("move the configuration");
    }
    let lines = [
        setting("data_directory", &data_dir.display().to_string()),
        setting("hba_file", &config_dir.join("pg_hba.conf").display().to_string()),
        setting("ident_file", &config_dir.join("pg_ident.conf").display().to_string()),
        setting("external_pid_file", &scratch.join("15-main.pid").display().to_string()),
        setting("cluster_name", "15/main"),
        "include_dir 'conf.d'".to_owned(),
    ];
    append(&config_dir.join("postgresql.conf"), &lines.join("\n"));
    config_dir
}

/// A standby of a Debian-style primary keeps its configuration in its data directory.
fn copy_config_in(config_dir: &Path, data_dir: &Path) {
    let copied = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d/test.conf"];
    fs::create_dir(data_dir.join("conf.d")).expect("make conf.d");
    own(&data_dir.join("conf.d"));
    for name in copied {
        fs::copy(config_dir.join(name), data_dir.join(name)).expect("copy the configuration");
        own(&data_dir.join(name));
    }
    let here = |name: &str| data_dir.join(name).display().to_string();
    let lines = [
        setting("data_directory", &data_dir.display().to_string()),
        setting("hba_file", &here("pg_hba.conf")),
        setting("ident_file", &here("pg_ident.conf")),
        setting("external_pid_file", ""),
    ];
    append(&data_dir.join("postgresql.conf"), &lines.join("\n"));
}

fn run_to_success(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}
