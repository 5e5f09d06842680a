//! Real WAL for the tests of `wal-push` and `wal-fetch`: written by a real PostgreSQL with segments of 1 MiB
//! once in each test program, kept in memory, and laid out in a directory that looks like a server's when a
//! test wants it. So most tests need no running server.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;

use crate::harness::*;

/// What a primary and a standby that was promoted archived, until the standby was promoted a second time:
/// three timelines.
pub struct Wal {
    /// The bytes of each archived file.
    pub files: BTreeMap<String, Vec<u8>>,
    pub control: Vec<u8>,
    pub system_id: String,
    /// Of the restore point in timeline 1 that is called [`RESTORE_POINT`].
    pub restore_point_lsn: String,
    /// Where the tablespace was that was created and dropped.
    pub tablespace: String,
}

pub const RESTORE_POINT: &str = "before \"the fall\", caf\u{e9}";

static WAL: LazyLock<Wal> = LazyLock::new(Wal::write);

pub fn wal() -> &'static Wal {
    &WAL
}

impl Wal {
    fn write() -> Self {
        let archive = Scratch::new();
        let into = format!("cp %p {}/%f", archive.path().display());
        let primary = Cluster::builder()
            .wal_segment_mib(1)
            .set("archive_mode", "on")
            .set("archive_command", &into)
            .set("max_prepared_transactions", "2")
            .start();
        let tablespace = primary.scratch().make_dir("a tablespace");
        let restore_point_lsn = primary.psql(&format!(
            "create tablespace spare location '{}'; drop tablespace spare;
             create table t as select generate_series(1, 30000) as a;
             select pg_create_restore_point('{RESTORE_POINT}')",
            tablespace.display()
        ));
        primary.archive_everything();
        let standby = primary.standby().set("archive_command", &into).start();
        let from = format!("cp {}/%f %p", archive.path().display());
        let second = primary.standby().set("archive_command", &into).set("restore_command", from).build();
        for _ in 0..3 {
            primary.psql("insert into t select generate_series(1, 10000)");
            primary.archive_everything();
        }
        primary.psql("insert into t values (0)");
        primary.wait_replayed_by(&standby);
        standby.promote();
        for _ in 0..2 {
            standby.psql("insert into t select generate_series(1, 10000)");
            standby.archive_everything();
        }
        // The second standby follows the first to timeline 2, and goes on as timeline 3.
        append(&second.data_dir().join("postgresql.auto.conf"), "primary_conninfo = ''");
        second.start();
        second.wait_sql("select count(*) from t", "80001");
        second.promote();
        second.archive_everything();
        Self {
            control: fs::read(primary.data_dir().join("global/pg_control")).expect("read pg_control"),
            system_id: primary.system_identifier(),
            files: read_all(archive.path()),
            restore_point_lsn,
            tablespace: tablespace.display().to_string(),
        }
    }

    pub fn file(&self, name: &str) -> &[u8] {
        self.files.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.files.keys()))
    }

    /// The whole segments of a timeline, in order.
    pub fn segments(&self, timeline: u32) -> Vec<&str> {
        let prefix = format!("{timeline:08X}");
        self.files
            .keys()
            .map(String::as_str)
            .filter(|name| name.len() == 24 && name.starts_with(&prefix))
            .collect()
    }

    /// The one file whose name ends like that.
    pub fn ending(&self, suffix: &str) -> &str {
        self.files.keys().find(|name| name.ends_with(suffix)).unwrap_or_else(|| {
            panic!("nothing that ends in {suffix} in {:?}", self.files.keys());
        })
    }

    /// The segment of timeline 1 that holds the restore point.
    pub fn with_restore_point(&self) -> String {
        let (_, low) = self.restore_point_lsn.split_once('/').expect("an LSN");
        // pg_create_restore_point returns the end of its record.
        let number = (u64::from_str_radix(low, 16).expect("hex") - 1) >> 20;
        format!("0000000100000000{number:08X}")
    }

    /// The segment in which timeline 2 begins: its first page was written on timeline 1.
    pub fn fork(&self) -> &str {
        self.segments(2)[0]
    }
}

/// Appends a line to a file of the server.
pub fn append(path: &Path, line: &str) {
    let mut content = fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    content.extend_from_slice(line.as_bytes());
    content.push(b'\n');
    fs::write(path, content).expect("write the configuration");
}

fn read_all(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("list the archive").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().expect("a name in ASCII");
            (name, fs::read(entry.path()).expect("read an archived file"))
        })
        .collect()
}

/// A directory like a server's: global/pg_control, and in pg_wal what a test puts there.
pub struct ServerDir {
    scratch: Scratch,
    path: PathBuf,
}

impl ServerDir {
    pub fn new() -> Self {
        Self::named("data")
    }

    pub fn named(name: &str) -> Self {
        let scratch = Scratch::new();
        let path = scratch.make_dir(name);
        scratch.make_dir(Path::new(name).join("global"));
        scratch.make_dir(Path::new(name).join("pg_wal"));
        scratch.write(path.join("global/pg_control"), &wal().control);
        Self { scratch, path }
    }

    /// With these archived files in pg_wal.
    pub fn with(names: &[&str]) -> Self {
        let server = Self::new();
        for name in names {
            server.put(name, wal().file(name));
        }
        server
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a file into pg_wal and returns its path as PostgreSQL's %p would name it.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let relative = Path::new("pg_wal").join(name);
        self.scratch.write(self.path.join(&relative), content);
        relative
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path.join("pg_wal").join(name)).expect("remove");
    }

    /// The files in pg_wal, sorted.
    pub fn wal_files(&self) -> Vec<String> {
        let mut names: Vec<String> = read_all_names(&self.path.join("pg_wal"));
        names.sort();
        names
    }

    /// `wal-push pg_wal/<name>` in this directory.
    pub fn push(&self, repo: &TestRepo, name: &str) -> Outcome {
        run(repo.wal_push(&self.path).arg(Path::new("pg_wal").join(name)))
    }

    /// The same as a plain command.
    pub fn push_command(&self, repo: &TestRepo, name: &str) -> Command {
        let mut command = repo.std_program("wal-push");
        command.current_dir(&self.path).arg(Path::new("pg_wal").join(name));
        command
    }

    /// `wal-fetch <name> pg_wal/RECOVERYXLOG` in this directory, which must not be a standby's.
    pub fn fetch(&self, repo: &TestRepo, name: &str) -> Outcome {
        run(repo.wal_fetch(&self.path).args([name, "pg_wal/RECOVERYXLOG"]))
    }

    pub fn fetch_command(&self, repo: &TestRepo, name: &str) -> Command {
        let mut command = repo.std_program("wal-fetch");
        command.current_dir(&self.path).arg(name).arg("pg_wal/RECOVERYXLOG");
        command
    }

    /// What `wal-fetch` delivered, if it did.
    pub fn delivered(&self) -> Option<Vec<u8>> {
        let path = self.path.join("pg_wal/RECOVERYXLOG");
        path.exists().then(|| fs::read(path).expect("read what was delivered"))
    }

    /// A command that runs in this directory through a shell, as PostgreSQL runs its own.
    pub fn shell(&self, script: &str) -> Command {
        let mut shell = command("/bin/sh");
        shell.args(["-c", script]).current_dir(&self.path);
        shell
    }
}

fn read_all_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("list").map(|entry| entry.expect("an entry"));
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Without retries: nothing comes back by itself in most tests.
pub fn impatient() -> TestRepo {
    let repo = TestRepo::init();
    repo.configure("[fetch]\nretry = \"0s\"\nhistory_retry = \"0s\"\n[push]\nlock_wait = \"30s\"");
    repo
}

/// The key under which a WAL file is stored.
#[track_caller]
pub fn key_of(repo: &TestRepo, name: &str) -> String {
    let partial = name.ends_with(".partial");
    let ours = |key: &String| match key.rsplit_once('/') {
        Some((_, last)) if partial => last.starts_with(name),
        Some((_, last)) => last.strip_suffix(".zst").unwrap_or(last) == name,
        None => false,
    };
    let mut keys: Vec<String> = repo.list().into_iter().filter(ours).collect();
    assert_eq!(keys.len(), 1, "not exactly one {name} in {:#?}", repo.list());
    keys.remove(0)
}

/// The JSON header of a stored segment, read with `head`, `tail` and `jq`, as the format document says.
pub fn header(repo: &TestRepo, key: &str) -> serde_json::Value {
    let script = format!("head -c 4096 '{}' | tail -c +9 | jq -c . | head -1", repo.path(key).display());
    let text = tool(&["sh", "-c", &script]);
    serde_json::from_slice(&text).expect("JSON from jq")
}

/// The raw bytes of a stored segment, by `zstd -dc`.
pub fn unzstd(repo: &TestRepo, key: &str) -> Vec<u8> {
    tool(&["zstd", "-dc", &repo.path(key).display().to_string()])
}

/// The standard output of one of the usual tools.
pub fn tool(words: &[&str]) -> Vec<u8> {
    let (program, arguments) = words.split_first().expect("a program");
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}: apt-get install zstd jq"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs a command to its end and tells its peak memory in KiB. Not by wait4(2): that counts what this
/// process had when it forked.
pub fn peak_memory(mut command: Command) -> (ExitStatus, u64) {
    let mut child = command.spawn().expect("start the program");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    loop {
        // A process that has ended, but was not waited for, has no memory any more.
        let text = fs::read_to_string(&status).expect("read the status of our child");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(size) = line.and_then(|line| line.split_whitespace().next()) {
            peak = size.parse().expect("a number");
        }
        if let Some(status) = child.try_wait().expect("wait for the program") {
            return (status, peak);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// A segment that holds one XLOG_SWITCH record and then whatever `fill` writes, which nobody looks at.
pub fn synthetic_segment(path: &Path, size: u64, number: u64, fill: impl FnOnce(&mut File)) {
    let mut bytes = Vec::new();
    // XLogLongPageHeaderData of PostgreSQL 15: magic, XLP_LONG_HEADER, timeline, address, no rest of a record.
    bytes.extend(0xD110_u16.to_le_bytes());
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend((number * size).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(wal().system_id.parse::<u64>().expect("a number").to_le_bytes());
    bytes.extend(u32::try_from(size).expect("at most 1 GiB").to_le_bytes());
    bytes.extend(8192_u32.to_le_bytes());
    // XLogRecord: length 24, no xid, the record before, XLOG_SWITCH of resource manager 0.
    let mut record = Vec::new();
    record.extend(24_u32.to_le_bytes());
    record.extend(0_u32.to_le_bytes());
    record.extend((number * size - 64).to_le_bytes());
    record.extend([0x40, 0, 0, 0]);
    record.extend(crc32c::crc32c(&record).to_le_bytes());
    bytes.extend(record);
    let mut file = File::create(path).expect("create the segment");
    std::io::Write::write_all(&mut file, &bytes).expect("write the segment");
    fill(&mut file);
    file.set_len(size).expect("extend the segment");
}

/// The first bytes of an endless stream of noise, the same each time.
pub fn noise() -> impl Read {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"noise");
    hasher.finalize_xof()
}
