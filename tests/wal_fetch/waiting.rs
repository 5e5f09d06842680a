//! A server in recovery, the prefetchers that work for it, and what they have ready.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::*;
use crate::scene::*;

/// A server in recovery that asks for nothing itself: the tests ask in its place.
pub struct Waiting {
    pub scene: Scene,
    pub server: Cluster,
    /// The archived segments.
    pub names: Vec<String>,
}

impl Waiting {
    pub fn with(segments: usize, settings: &str) -> Self {
        Self::in_scene(Scene::new(), segments, settings)
    }

    pub fn in_scene(scene: Scene, segments: usize, settings: &str) -> Self {
        scene.repo.configure(settings);
        let restored = scene.standby();
        restored.set("restore_command = 'false'");
        scene.write_segments(segments);
        let keys = scene.repo.matching("wal/00000001/");
        let mut names: Vec<String> = keys.iter().map(|key| Scene::name(key)).collect();
        names.dedup();
        names.retain(|name| scene.repo.matching(&format!("{name}.zst")).len() == 1);
        let server = restored.spawn();
        // From 17 on a standby says so only when it found its checkpoint.
        let begun = if pg_major() < 17 { "entering standby mode" } else { "starting backup recovery" };
        server.wait_for_log(begun);
        Self { scene, server, names }
    }

    pub fn repo(&self) -> &TestRepo {
        &self.scene.repo
    }

    pub fn target(&self) -> PathBuf {
        self.server.data_dir().join("pg_wal/ASKED")
    }

    pub fn fetch(&self, file: &str) -> assert_cmd::Command {
        let mut fetch = self.repo().wal_fetch(&self.server.data_dir());
        fetch.args(["-v", file, "pg_wal/ASKED"]);
        fetch
    }

    /// Asks as the server would, and answers whether it was ready.
    #[track_caller]
    pub fn ask(&self, name: &str) -> bool {
        let outcome = run(&mut self.fetch(name));
        let was_ready = outcome.stderr.contains(&format!("{name} was ready"));
        outcome.succeeds();
        let delivered = fs::read(self.target()).expect("delivered");
        let object = self.repo().root().join(self.repo().only(&format!("{name}.zst")));
        let stored = command("zstd").arg("-dc").arg(object).output().expect("run zstd: apt-get install zstd");
        assert!(delivered == stored.stdout, "{name} is not what is stored");
        was_ready
    }

    pub fn wait_ready(&self, names: &[String]) {
        self.server.wait_for(&format!("{names:?} to be ready"), || ready(&self.server) == names);
    }

    pub fn wait_gone(&self) {
        self.server.wait_for("the prefetcher to end", || prefetchers(&self.server).is_empty());
        assert_eq!(directories(&self.server.data_dir().join("pg_wal/pgark.spool")), Vec::<PathBuf>::new());
    }
}

pub fn directories(spool: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(spool) else { return Vec::new() };
    entries.map(|entry| entry.expect("entry").path()).filter(|path| path.is_dir()).collect()
}

/// The segments that are ready, in pg_wal.
pub fn ready(server: &Cluster) -> Vec<String> {
    ready_in(&server.data_dir().join("pg_wal/pgark.spool"))
}

pub fn ready_in(spool: &Path) -> Vec<String> {
    let names = directories(spool).into_iter().filter_map(|directory| fs::read_dir(directory).ok());
    let names = names.flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.len() == 24).collect();
    names.sort();
    names
}

/// The prefetchers of a server.
pub fn prefetchers(server: &Cluster) -> Vec<i32> {
    let inside = |pid: &i32| {
        let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
        cwd.is_ok_and(|cwd| cwd == server.data_dir())
            && command_line(*pid).contains(&"--prefetch".to_string())
    };
    let entries = fs::read_dir("/proc").expect("read /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(inside).collect()
}

pub fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

pub fn kill(pid: i32) {
    let killed = kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
    assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)), "{killed:?}");
}

/// A process that is just ending has no command line any more, and holds its lock for a moment yet.
pub fn kill_and_wait(pid: i32) {
    kill(pid);
    wait_for("a killed prefetcher to be gone", String::new, || !is_running(pid));
}
