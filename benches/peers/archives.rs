//! The ways to archive WAL and to get it back, pgark's and the peers', behind one shape.

use std::path::{Path, PathBuf};

use crate::harness::{Scratch, TestRepo, program_path};
use crate::measure::Call;
use crate::pgbackrest::{Compression, PgBackRest};
use crate::wal_scene::{Place, WalScene};

/// Where WAL files are kept, and by which programs.
pub enum Archive {
    Pgark(TestRepo),
    PgBackRest {
        peer: PgBackRest,
        asynchronous: bool,
    },
    /// Plain files.
    Files(Scratch, Files),
}

/// The floors: programs that move bytes and check nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// As PostgreSQL's documentation has it. What it says is done may be lost with the power.
    Cp,
    /// Writes and syncs the file; its name may still be lost.
    DdSync,
    /// Compressed, without any sync.
    Zstd,
}

impl Archive {
    /// With `settings` in pgark's configuration.
    pub fn pgark(settings: &str) -> Self {
        let repo = TestRepo::init();
        repo.configure(settings);
        Self::Pgark(repo)
    }

    pub fn pgbackrest(place: &Place<'_>, compression: Compression, asynchronous: bool) -> Self {
        let peer = PgBackRest::beside(&place.directory, compression, asynchronous);
        Self::PgBackRest { peer, asynchronous }
    }

    pub fn files(how: Files) -> Self {
        Self::Files(Scratch::new(), how)
    }

    /// Where it stores.
    pub fn root(&self) -> PathBuf {
        match self {
            Self::Pgark(repo) => repo.root().to_path_buf(),
            Self::PgBackRest { peer, .. } => peer.repository(),
            Self::Files(scratch, _) => scratch.path().to_path_buf(),
        }
    }

    /// archive_command with `%f`, as PostgreSQL runs it: in the data directory.
    pub fn push(&self, place: &Path, name: &str) -> Call {
        let path = format!("pg_wal/{name}");
        let call = match self {
            Self::Pgark(repo) => {
                Call::new(program_path("wal-push")).arg("--config").arg(repo.config()).arg(path)
            }
            Self::PgBackRest { peer, .. } => peer.call("archive-push").args([&pg_path(place), &path]),
            Self::Files(scratch, Files::Cp) => Call::new("/bin/cp").arg(path).arg(scratch.join(name)),
            Self::Files(scratch, Files::DdSync) => {
                let (from, to) = (format!("if={path}"), format!("of={}", scratch.join(name).display()));
                Call::new("/bin/dd").args([&from, &to, "bs=1M", "conv=fsync", "status=none"])
            }
            Self::Files(scratch, Files::Zstd) => {
                let to = scratch.join(format!("{name}.zst"));
                Call::new("/usr/bin/zstd").args(["-1", "-q", &path, "-o"]).arg(to)
            }
        };
        call.within(place)
    }

    /// restore_command; `name` and `path` may be `%f` and `%p`.
    pub fn fetch(&self, place: &Path, name: &str, path: &str) -> Call {
        let call = match self {
            Self::Pgark(repo) => {
                Call::new(program_path("wal-fetch")).arg("--config").arg(repo.config()).args([name, path])
            }
            Self::PgBackRest { peer, .. } => peer.call("archive-get").args([&pg_path(place), name, path]),
            Self::Files(scratch, Files::Zstd) => {
                let from = scratch.join(format!("{name}.zst"));
                Call::new("/usr/bin/zstd").args(["-d", "-q", "-f"]).arg(from).args(["-o", path])
            }
            Self::Files(scratch, _) => Call::new("/bin/cp").arg(scratch.join(name)).arg(path),
        };
        call.within(place)
    }

    /// Nothing is prefetched or noted from an earlier run.
    pub fn forget(&self) {
        if let Self::PgBackRest { peer, asynchronous: true } = self {
            peer.empty_spool();
        }
    }

    fn fill(&self, scene: &WalScene) {
        let place = scene.place();
        for name in &scene.segments {
            place.add_ready(name);
        }
        for name in &scene.segments {
            self.push(&place.directory, name).run();
            place.mark_done(name);
        }
        self.forget();
    }
}

fn pg_path(place: &Path) -> String {
    format!("--pg1-path={}", place.display())
}

/// The contenders of the rows that fetch, in their order, and the archives behind them.
pub const FETCHING: [&str; 8] = [
    "pgark",
    "pgark, no prefetch",
    "pgBackRest zst-3",
    "pgBackRest zst-3, async",
    "pgBackRest lz4",
    "pgBackRest lz4, async",
    "zstd -d, no checks",
    "cp, no checks",
];

/// An archive for each of [`FETCHING`], with all segments of the scene.
pub fn filled(scene: &WalScene) -> Vec<Archive> {
    eprintln!("filling the archives to fetch from");
    let place = scene.place();
    let archives = vec![
        Archive::pgark(""),
        Archive::pgark("[fetch]\nprefetch = 0"),
        Archive::pgbackrest(&place, Compression::Zst3, false),
        Archive::pgbackrest(&place, Compression::Zst3, true),
        Archive::pgbackrest(&place, Compression::Lz4, false),
        Archive::pgbackrest(&place, Compression::Lz4, true),
        Archive::files(Files::Zstd),
        Archive::files(Files::Cp),
    ];
    archives.iter().for_each(|archive| archive.fill(scene));
    archives
}
