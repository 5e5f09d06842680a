//! pgark beside its peers: real programs, a real cluster, one table for each kind of work.
//!
//! `cargo bench --bench peers` runs all rows, `cargo bench --bench peers -- push-one recovery` some, `make bench`
//! installs the peers first. What the rows mean is in `docs/benchmarks.md`.
//!
//! Every row is fair in the same way: each run begins with a fresh target and nothing left to be written to the
//! disk, what it reads is in the page cache, contenders take turns in an order that is shuffled anew for each round,
//! and each is called as its documentation has it. Rows that a peer wins are shown like all others.

#[path = "../tests/harness/mod.rs"]
mod harness;

#[path = "peers/archives.rs"]
mod archives;
#[path = "peers/arguments.rs"]
mod arguments;
#[path = "peers/backup.rs"]
mod backup;
#[path = "peers/data_scene.rs"]
mod data_scene;
#[path = "peers/fetch.rs"]
mod fetch;
#[path = "peers/launcher.rs"]
mod launcher;
#[path = "peers/measure.rs"]
mod measure;
#[path = "peers/pgbackrest.rs"]
mod pgbackrest;
#[path = "peers/push.rs"]
mod push;
#[path = "peers/receive.rs"]
mod receive;
#[path = "peers/recovery.rs"]
mod recovery;
#[path = "peers/restore.rs"]
mod restore;
#[path = "peers/rows.rs"]
mod rows;
#[path = "peers/start_up.rs"]
mod start_up;
#[path = "peers/table.rs"]
mod table;
#[path = "peers/wal_scene.rs"]
mod wal_scene;

use std::cell::OnceCell;

use archives::Archive;
use arguments::Arguments;
use data_scene::DataScene;
use receive::StreamScene;
use rows::Row;
use wal_scene::WalScene;

/// Prepares what a row needs.
type Make = fn(&Bench) -> Row<'_>;

/// The rows by name, in the order in which they run.
const ROWS: &[(&str, Make)] = &[
    ("start-up", start_up::row),
    ("push-one", push::one),
    ("push-images", push::images),
    ("backlog", push::backlog),
    ("fetch-one", fetch::one),
    ("fetch-all", fetch::all),
    ("recovery", recovery::row),
    ("receive", receive::row),
    ("backup", backup::row),
    ("restore", restore::row),
];

/// What the rows share. Each part is made when the first row needs it.
pub struct Bench {
    arguments: Arguments,
    launcher: measure::Launcher,
    wal: OnceCell<WalScene>,
    archives: OnceCell<Vec<Archive>>,
    data: OnceCell<DataScene>,
    stream: OnceCell<StreamScene>,
}

impl Bench {
    fn wal(&self) -> &WalScene {
        self.wal.get_or_init(|| WalScene::make(self.arguments.segments))
    }

    /// Archives that hold the WAL of the scene.
    fn archives(&self) -> &[Archive] {
        self.archives.get_or_init(|| archives::filled(self.wal()))
    }

    fn stream(&self) -> &StreamScene {
        self.stream.get_or_init(|| StreamScene::make(self.arguments.segments))
    }

    fn data(&self) -> &DataScene {
        self.data.get_or_init(|| DataScene::make(self.arguments.scale))
    }
}

fn main() {
    // Before anything else: this process shall stay small. See launcher.rs.
    if std::env::args().nth(1).as_deref() == Some(launcher::FLAG) {
        return launcher::serve();
    }
    let names: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
    let arguments = arguments::parse(&names);
    arguments::insist_on_peers();
    let bench = Bench {
        launcher: measure::Launcher::new(),
        wal: OnceCell::new(),
        archives: OnceCell::new(),
        data: OnceCell::new(),
        stream: OnceCell::new(),
        arguments,
    };
    let mut report = rows::Report::begin(&bench.arguments);
    for (name, make) in ROWS.iter().filter(|(name, _)| bench.arguments.wants(name)) {
        eprintln!("{name}: preparing");
        let row = make(&bench);
        report.measure(&row);
    }
    report.write();
}
