//! Real WAL: a small cluster under pgbench, the segments that it wrote, and a backup from before them.
//!
//! Checkpoints are as PostgreSQL has them by default, so pgbench's segments are a mix of records and page images.
//! Behind pgbench's segments come a few of another kind: full of page images, from an update that touches one row in
//! every page of a table right after a checkpoint.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Scratch, Stop, pg_command};

/// pgbench's tables: 300 MB, so that each checkpoint (every 500 MB of WAL or so) makes page images for a while.
const SCALE: u32 = 20;

/// A table of 50 MB: about as many bytes of page images.
const NOISE: &str = "create table noise with (fillfactor = 90) as
    select i, md5(i::text) || md5((i + 1)::text) || md5((i * 7)::text) as filler from generate_series(1, 380000) as i";

pub struct WalScene {
    scratch: Scratch,
    /// The names in order, all of one timeline.
    pub segments: Vec<String>,
    /// A segment with the usual share of page images, and one full of them.
    pub ordinary: String,
    pub images: String,
    /// Rows in pgbench_history once all is replayed.
    pub rows: String,
    places: Cell<u32>,
}

impl WalScene {
    pub fn make(segments: u32) -> Self {
        eprintln!("making a cluster and {segments} segments of WAL");
        let scratch = Scratch::new();
        let (wal, base) = (scratch.make_dir("wal"), scratch.join("base"));
        let source = Cluster::builder()
            .set("shared_buffers", "512MB")
            .set("synchronous_commit", "off")
            .set("archive_mode", "on")
            .set("archive_command", "true")
            .start();
        source.pgbench_init(SCALE);
        source.psql(NOISE);
        source.psql("vacuum analyze");
        source.archive_everything();
        source.append_config(&format!("archive_command = 'cp %p {}/%f'", wal.display()));
        source.reload();
        source.run_client(
            "pg_basebackup",
            &["-X", "none", "-c", "fast", "--no-sync", "-D", &base.display().to_string()],
        );
        while names(&wal).len() < segments as usize {
            source.pgbench(&["-c", "8", "-j", "2", "-M", "prepared", "-T", "5"]);
        }
        let pgbench = source.archive_everything();
        source.psql("checkpoint");
        let first_of_noise = source.current_segment();
        source.psql("update noise set i = i where i % 50 = 0");
        let rows = source.psql("select count(*) from pgbench_history");
        source.archive_everything();
        source.stop(Stop::Fast);
        let segments = names(&wal);
        let ordinary = ordinary(&wal, &segments, &pgbench);
        let images = segments.iter().find(|name| **name > first_of_noise).expect("several segments").clone();
        Self { scratch, segments, ordinary, images, rows, places: Cell::new(0) }
    }

    /// The segments as the server archived them.
    pub fn wal(&self) -> PathBuf {
        self.scratch.join("wal")
    }

    /// A data directory from before the first segment, its pg_wal empty.
    pub fn base(&self) -> PathBuf {
        self.scratch.join("base")
    }

    pub fn before(&self, name: &str) -> &str {
        let index = self.segments.iter().position(|other| other == name).expect("a segment");
        &self.segments[index.checked_sub(1).expect("not the first")]
    }

    /// What of a stopped server's data directory the programs look at.
    pub fn place(&self) -> Place<'_> {
        let number = self.places.replace(self.places.get() + 1);
        let directory = self.scratch.make_dir(format!("place-{number}"));
        self.scratch.make_dir(directory.join("global"));
        self.scratch.make_dir(directory.join("pg_wal/archive_status"));
        for file in ["PG_VERSION", "global/pg_control"] {
            let content = fs::read(self.base().join(file)).expect("read the backup");
            self.scratch.write(directory.join(file), content);
        }
        Place { scene: self, directory }
    }
}

/// A place to push from or to fetch into. Dropped, it is removed.
pub struct Place<'a> {
    scene: &'a WalScene,
    pub directory: PathBuf,
}

impl Place<'_> {
    /// A segment is there and waits to be archived (XLogArchiveNotify).
    pub fn add_ready(&self, name: &str) {
        let wal = self.directory.join("pg_wal");
        fs::hard_link(self.scene.wal().join(name), wal.join(name)).expect("link the segment");
        self.scene.scratch.write(self.status(name, "ready"), "");
    }

    /// As pgarch.c does after a success (pgarch_archiveDone).
    pub fn mark_done(&self, name: &str) {
        fs::rename(self.status(name, "ready"), self.status(name, "done")).expect("rename the status file");
    }

    fn status(&self, name: &str, status: &str) -> PathBuf {
        self.directory.join("pg_wal/archive_status").join(format!("{name}.{status}"))
    }

    /// Writes a file of the data directory.
    pub fn write(&self, name: &str, content: &str) {
        self.scene.scratch.write(self.directory.join(name), content);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory)
            .unwrap_or_else(|error| eprintln!("{}: {error}", self.directory.display()));
    }
}

/// The complete segments in a directory, in order.
fn names(wal: &Path) -> Vec<String> {
    let entries = fs::read_dir(wal).expect("list the WAL").map(|entry| entry.expect("entry").file_name());
    let names = entries.map(|name| name.into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.filter(|name| name.len() == 24).collect();
    names.sort();
    names
}

/// Of pgbench's segments the one with the median share of page images; the last is cut short.
fn ordinary(wal: &Path, segments: &[String], last: &str) -> String {
    let full = segments.iter().skip(1).filter(|name| name.as_str() < last);
    let mut shares: Vec<(u64, &String)> = full.map(|name| (page_images(wal, name), name)).collect();
    shares.sort();
    let (bytes, name) = shares[shares.len() / 2];
    eprintln!("the ordinary segment is {name}, with {} KiB of page images", bytes / 1024);
    name.clone()
}

/// Bytes of page images in a segment, from the last line of pg_waldump's statistics:
/// "Total 155201 11240301 [93%] 821240 [7%] 12061541 [100%]" (xlogstats, WALDumpDisplayStats).
fn page_images(wal: &Path, name: &str) -> u64 {
    let mut command = pg_command("pg_waldump");
    let output =
        command.args(["--stats", "-p"]).arg(wal).args([name, name]).output().expect("run pg_waldump");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let total = text.lines().find(|line| line.starts_with("Total")).unwrap_or_else(|| panic!("{output:?}"));
    let numbers = total.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
    numbers[2]
}
