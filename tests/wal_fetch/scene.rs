//! What most recoveries need: a primary with small segments that archives, and copies of it that recover from
//! nothing but the archive.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::harness::*;
use crate::wal::append;

pub struct Scene {
    pub repo: TestRepo,
    pub primary: Cluster,
}

impl Scene {
    /// No retries: what fails once has failed.
    pub fn new() -> Self {
        Self::with_budget("0s")
    }

    /// Retries for longer than any test runs.
    pub fn patient() -> Self {
        Self::with_budget("10m")
    }

    fn with_budget(budget: &str) -> Self {
        let repo = TestRepo::init();
        repo.configure(&format!("[fetch]\nretry = \"{budget}\"\nhistory_retry = \"{budget}\""));
        let primary = Cluster::builder().wal_segment_mib(1).archive_to(&repo).start();
        primary.psql("create table t (a int)");
        Self { repo, primary }
    }

    /// A base backup, taken now, that will recover from the archive alone.
    pub fn backup(&self) -> Restored {
        let cluster = self.copy();
        fs::remove_file(cluster.data_dir().join("standby.signal")).expect("removed");
        append_new(cluster.data_dir().join("recovery.signal"), "");
        Restored { cluster }
    }

    /// The same as a standby that does not stream.
    pub fn standby(&self) -> Restored {
        Restored { cluster: self.copy() }
    }

    fn copy(&self) -> Cluster {
        let fetch = program_path("wal-fetch");
        let cluster = self
            .primary
            .standby()
            .set("archive_mode", "off")
            .set("wal_retrieve_retry_interval", "100ms")
            .set("restore_command", format!("{} %f %p", fetch.display()))
            .server_env("PGARK_CONFIG", self.repo.config().display())
            .build();
        append(&cluster.data_dir().join("postgresql.auto.conf"), "primary_conninfo = ''");
        for name in pg_wal(&cluster) {
            fs::remove_file(cluster.data_dir().join("pg_wal").join(name)).expect("removed");
        }
        cluster
    }

    /// Writes and archives so many segments, each with rows, and answers how many rows there are then.
    pub fn write_segments(&self, count: usize) -> String {
        for _ in 0..count {
            self.primary.psql("insert into t select generate_series(1, 5000)");
            self.primary.archive_everything();
        }
        self.primary.psql("select count(*) from t")
    }

    /// The key of a stored segment of timeline 1, counted from the last (-1).
    pub fn key(&self, place: isize) -> String {
        let mut keys = self.repo.matching("wal/00000001/");
        keys.retain(|key| key.ends_with(".zst") && !key.contains(".partial"));
        let index = keys.len().checked_add_signed(place).expect("a segment");
        keys.swap_remove(index)
    }

    /// The name of the WAL file in a key.
    pub fn name(key: &str) -> String {
        key.rsplit('/').next().and_then(|last| last.split('.').next()).expect("a name").to_owned()
    }

    /// An empty mount point where the repository was.
    pub fn unmount(&self) {
        fs::rename(self.repo.root(), self.away()).expect("renamed");
        self.repo.scratch().make_dir("repo");
    }

    pub fn mount(&self) {
        fs::remove_dir(self.repo.root()).expect("the mount point is still empty");
        fs::rename(self.away(), self.repo.root()).expect("renamed");
    }

    fn away(&self) -> PathBuf {
        self.repo.scratch().join("away")
    }

    /// Nobody but root may look into the repository.
    pub fn forbid(&self) {
        self.set_mode(0o000);
    }

    pub fn allow(&self) {
        self.set_mode(0o700);
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.repo.root(), fs::Permissions::from_mode(mode)).expect("chmod");
    }
}

/// A copy of the primary that is still to be recovered.
pub struct Restored {
    pub cluster: Cluster,
}

impl Restored {
    pub fn set(&self, line: &str) {
        append(&self.cluster.data_dir().join("postgresql.conf"), line);
    }

    /// A further flag for `wal-fetch`.
    pub fn fetch_with(&self, flag: &str) {
        self.set(&format!("restore_command = '{} {flag} %f %p'", program_path("wal-fetch").display()));
    }

    pub fn spawn(self) -> Cluster {
        self.cluster.spawn();
        self.cluster
    }

    pub fn start(self) -> Cluster {
        self.cluster.start();
        self.cluster
    }

    /// Starts the server, which must end by itself because `wal-fetch` exited so and said that.
    #[track_caller]
    pub fn stops_with(&self, code: i32, message: &str) {
        let before = self.cluster.log().len();
        self.cluster.spawn();
        let status = self.cluster.wait_exit().expect("a status");
        let log = self.cluster.log().split_off(before);
        assert!(!status.success(), "the server ended well:\n{log}");
        let fatal = format!("from archive: child process exited with exit code {code}");
        assert!(log.contains(&fatal), "no {fatal:?} in:\n{log}");
        assert!(log.contains(message), "no {message:?} in:\n{log}");
        assert!(!log.contains("selected new timeline ID"), "it was promoted:\n{log}");
    }

    /// Starts the server, waits until it is promoted, and answers how many rows it has.
    #[track_caller]
    pub fn recovers(self) -> String {
        let cluster = self.start();
        cluster.wait_sql("select pg_is_in_recovery()", "f");
        cluster.psql("select count(*) from t")
    }
}

/// The files in pg_wal.
pub fn pg_wal(cluster: &Cluster) -> Vec<String> {
    let entries = fs::read_dir(cluster.data_dir().join("pg_wal")).expect("list").map(|e| e.expect("entry"));
    let files = entries.filter(|entry| entry.file_type().expect("a type").is_file());
    files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Makes a file of the server.
pub fn append_new(path: PathBuf, content: &str) {
    let made = command("/usr/bin/tee").arg(&path).stdin(std::process::Stdio::null()).output().expect("tee");
    assert!(made.status.success(), "{made:?}");
    if !content.is_empty() {
        append(&path, content);
    }
}
