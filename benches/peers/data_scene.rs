//! A running server with enough data for a full backup to take a while.
//!
//! It is idle but for the backup. Its archive_command is a script, so that each contender archives with its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::Cluster;
use crate::measure::Call;

/// Milliseconds; Linux tells user space 100 Hz whatever its own clock is (USER_HZ).
const TICK: u64 = 10;

pub struct DataScene {
    pub cluster: Cluster,
}

impl DataScene {
    pub fn make(scale: u32) -> Self {
        eprintln!("making a cluster of scale {scale}: about {} MB", 15 * scale);
        let cluster = Cluster::builder()
            .set("shared_buffers", "512MB")
            .set("max_wal_size", "8GB")
            .set("checkpoint_timeout", "1h")
            .set("autovacuum", "off")
            .set("archive_mode", "on")
            .set("archive_command", "true")
            .start();
        cluster.pgbench_init(scale);
        cluster.archive_everything();
        cluster.append_config(&format!(
            "archive_command = 'sh {} %p'",
            cluster.scratch().join(SCRIPT).display()
        ));
        let scene = Self { cluster };
        scene.archive_with(None);
        scene.cluster.reload();
        scene.cluster.archive_everything();
        scene
    }

    /// From now on the server archives with this, which lacks the path; with nothing it only says so.
    pub fn archive_with(&self, call: Option<&Call>) {
        let line = call.map_or("exit 0\n".to_owned(), |call| format!("exec {} \"$1\"\n", call.shell()));
        self.cluster.scratch().write(SCRIPT, line);
    }

    /// CPU time of the server and of everything that it ever waited for: a process that ends leaves its own with
    /// its parent (proc(5): utime, stime, cutime, cstime).
    pub fn server_cpu(&self) -> Duration {
        let postmaster = self.cluster.pid();
        let entries = fs::read_dir("/proc").expect("read /proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let ticks: u64 = pids.filter_map(|pid| stat_of(pid, postmaster)).sum();
        Duration::from_millis(ticks * TICK)
    }

    /// What a restored data directory must hold: the relations by name and size.
    pub fn relations(&self) -> BTreeMap<String, u64> {
        relations(&self.cluster.data_dir())
    }
}

/// pgBackRest makes a backup only if archive_command contains its name.
const SCRIPT: &str = "archive-with-pgark-or-pgbackrest.sh";

/// Ticks of a process if it is the postmaster or a child of it.
fn stat_of(pid: i32, postmaster: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // proc(5) counts from 1 and from the pid: the parent is field 4, utime to cstime are 14 to 17.
    let ours = pid == postmaster || number(1) == u64::try_from(postmaster).ok();
    ours.then(|| (11..=14).filter_map(number).sum())
}

/// Main forks and their segments, which are named by number, with their sizes.
pub fn relations(data_directory: &Path) -> BTreeMap<String, u64> {
    let entries = walkdir::WalkDir::new(data_directory.join("base")).into_iter();
    let files = entries.map(|entry| entry.expect("list")).filter(|entry| entry.file_type().is_file());
    let files = files.filter(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    });
    let named = files.map(|entry| {
        let name = entry.path().strip_prefix(data_directory).expect("inside").display().to_string();
        (name, entry.metadata().expect("stat").len())
    });
    named.collect()
}
