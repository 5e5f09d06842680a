//! `wal-push %p`: PostgreSQL's archive_command. Stores one WAL file; success means that bytes and name are
//! durable in the repository, because PostgreSQL then throws its own copy away.
//!
//! Refuses a file that is not what its name says, and other content under a stored name, before it writes
//! anything. Damage inside a segment is not refused: it is what the server has; it is stored, marked and
//! logged as an error. While more segments wait, `ahead.rs` takes them along; when the repository stays out of
//! reach, `queue.rs` says what comes of it.

pub(in crate::ops) mod ahead;
pub(in crate::ops) mod outage;
mod queue;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, IoContext, Kind, Result};
use crate::host;
use crate::pg::control::ControlFile;
use crate::pg::history::TimelineHistory;
use crate::pg::label::BackupHistory;
use crate::pg::lsn::{SystemId, Timeline};
use crate::pg::names::{SegmentName, WalFile};
use crate::pg::wal::{Extent, SegmentHeader};
use crate::pg::wal_dir;
use crate::pipe::compress::Options;
use crate::repo::intake::{self, Incoming};
use crate::repo::segment::{self, Stored};
use crate::repo::{Cluster, Repository};
use crate::spool::{Spool, prefetched};

/// A backup history or timeline history file is a few lines; this is far beyond.
const MOST_PLAIN: u64 = 16 << 20;

/// Stores the file at `path`, as the server named it.
pub fn run(config: &Config, path: &Path) -> Result<Pushed> {
    let file = wal_file(path)?;
    let data_directory = wal_dir::data_directory(path)?;
    if let Some(directory) = &data_directory {
        host::refuse_foreign_root(directory)?;
    }
    let repository = OnceLock::new();
    let push = Push {
        config,
        path,
        file,
        data_directory: data_directory.as_deref(),
        repository: &repository,
        workers: intake::workers(),
        lock_wait: config.push.lock_wait,
    };
    let outcome = match file {
        WalFile::Segment(name) => ahead::push(&push, name),
        WalFile::Partial(name) => push.segment(name, Extent::Partial),
        WalFile::History(timeline) => push.history(timeline),
        WalFile::BackupHistory(..) => push.backup_history(),
    };
    match outcome {
        Ok(stored) => {
            outage::end(&push);
            Ok(Pushed::Stored(stored))
        }
        Err(error) => queue::after_failure(&push, error).map(|()| Pushed::Dropped),
    }
}

/// Stores a segment that PostgreSQL asks nobody to archive, from a copy that is known to be whole: the server may
/// recycle its own at any moment. `data_directory` is where it comes from.
pub(in crate::ops) fn bring_segment(
    config: &Config,
    data_directory: &Path,
    name: SegmentName,
    copy: File,
) -> Result<Stored> {
    let path = data_directory.join("pg_wal").join(name.to_string());
    let repository = OnceLock::new();
    let push = Push::by_hand(config, data_directory, &path, WalFile::Segment(name), &repository)?;
    push.segment_from(copy, name, Extent::Whole)
}

/// Stores the history of a timeline, with those of its ancestors, from a data directory.
pub(in crate::ops) fn bring_history(
    config: &Config,
    data_directory: &Path,
    timeline: Timeline,
) -> Result<Stored> {
    let file = WalFile::History(timeline);
    let path = data_directory.join("pg_wal").join(file.to_string());
    let repository = OnceLock::new();
    Push::by_hand(config, data_directory, &path, file, &repository)?.history(timeline)
}

/// How a push ended for which PostgreSQL is told that the file is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Stored(Stored),
    /// It is not: `push.wal_queue_max` was reached while the repository could not be. That is recorded.
    Dropped,
}

fn wal_file(path: &Path) -> Result<WalFile> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| Error::configuration(format!("{} is not a WAL file's name", path.display())))?;
    name.parse()
}

/// One push: what to store, from where.
#[derive(Clone, Copy)]
struct Push<'a> {
    config: &'a Config,
    path: &'a Path,
    file: WalFile,
    data_directory: Option<&'a Path>,
    /// Opened by the first who needs it.
    repository: &'a OnceLock<Repository>,
    /// Threads that compress.
    workers: usize,
    lock_wait: Duration,
}

impl<'a> Push<'a> {
    fn by_hand(
        config: &'a Config,
        data_directory: &'a Path,
        path: &'a Path,
        file: WalFile,
        repository: &'a OnceLock<Repository>,
    ) -> Result<Self> {
        host::refuse_foreign_root(data_directory)?;
        let (workers, lock_wait) = (intake::workers(), config.push.lock_wait);
        Ok(Self { config, path, file, data_directory: Some(data_directory), repository, workers, lock_wait })
    }

    fn open(&self) -> Result<File> {
        let file = File::open(self.path).doing(|| format!("open {}", self.path.display()))?;
        let metadata = file.metadata().doing(|| format!("look at {}", self.path.display()))?;
        if !metadata.is_file() {
            return Err(Error::configuration(format!("{} is not a regular file", self.path.display())));
        }
        Ok(file)
    }

    fn cluster(&self, system_id: SystemId) -> Result<Cluster> {
        Ok(self.repository()?.cluster(&self.config.cluster, system_id))
    }

    fn repository(&self) -> Result<&Repository> {
        match self.repository.get() {
            Some(repository) => Ok(repository),
            None => {
                let location = self.config.repo()?;
                let opened = Repository::open(location, self.config.repo_id)?;
                host::refuse_foreign_root(location.directory())?;
                Ok(self.repository.get_or_init(|| opened))
            }
        }
    }

    fn segment(&self, name: SegmentName, extent: Extent) -> Result<Stored> {
        self.segment_from(self.open()?, name, extent)
    }

    /// The content is `source`'s, at its start.
    fn segment_from(&self, mut source: File, name: SegmentName, extent: Extent) -> Result<Stored> {
        let header = self.read_header(&mut source)?;
        let size = source.metadata().doing(|| format!("look at {}", self.path.display()))?.len();
        let timeline_match = header.check(name, size)?;
        self.check_owner(name, &header)?;
        let cluster = self.cluster(header.system_id)?;
        let history = self.find_history(&cluster, name.timeline)?;
        intake::check_timeline(name, &header, timeline_match, history.parsed.as_ref())?;
        cluster.ensure_header(&intake::cluster_header(&header))?;
        self.bring(&cluster, &history)?;
        let place = self.path.display().to_string();
        let incoming = Incoming { cluster: &cluster, name, extent, header, place };
        incoming.store(source, &self.options(), self.lock_wait)
    }

    fn read_header(&self, source: &mut File) -> Result<SegmentHeader> {
        intake::read_header(source, &self.path.display().to_string())
    }

    /// A damaged system identifier would put the segment where nobody looks for it.
    fn check_owner(&self, name: SegmentName, header: &SegmentHeader) -> Result<()> {
        let Some(directory) = &self.data_directory else { return Ok(()) };
        let ours = ControlFile::read(directory)?.system_id;
        if header.system_id == ours {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "could not accept {name}: its header says system identifier {}, but that of {} is {ours}",
            header.system_id,
            directory.display()
        ))
        .with_hint("to push a file of another server by hand, do not run this in a data directory"))
    }

    /// The history of `timeline`, from the repository, or else from beside the file that is pushed.
    fn find_history(&self, cluster: &Cluster, timeline: Timeline) -> Result<FoundHistory> {
        if timeline == Timeline(1) {
            return Ok(FoundHistory::default());
        }
        let file = WalFile::History(timeline);
        let stored = found(segment::read_plain(cluster, file))?;
        let beside = found(self.read_beside(file))?;
        let Some(content) = stored.as_deref().or(beside.as_deref()) else {
            tracing::error!(
                "neither the repository nor {} has the history of timeline {timeline}: \
                 without it a restore can't follow this timeline",
                self.path.with_file_name(file.to_string()).display()
            );
            return Ok(FoundHistory::default());
        };
        let parsed = Some(TimelineHistory::parse(timeline, content)?);
        Ok(FoundHistory { parsed, to_bring: beside.filter(|beside| stored.as_deref() != Some(beside)) })
    }

    /// Stores a history that the repository lacks: a server that was promoted with archiving off never
    /// archives it, and a timeline without history can't be restored. Refuses one that differs from the
    /// stored one: then another server made a timeline of that number.
    fn bring(&self, cluster: &Cluster, history: &FoundHistory) -> Result<()> {
        let (Some(parsed), Some(content)) = (&history.parsed, &history.to_bring) else { return Ok(()) };
        segment::put_plain(cluster, WalFile::History(parsed.timeline()), content)?;
        self.bring_ancestors(cluster, parsed)
    }

    /// The histories of the timelines that led to this one, where the repository lacks them and they lie
    /// beside: those promotions, too, may have happened while archiving was off.
    fn bring_ancestors(&self, cluster: &Cluster, history: &TimelineHistory) -> Result<()> {
        let ancestors = history.entries().iter().map(|entry| entry.timeline);
        for timeline in ancestors.filter(|timeline| *timeline > Timeline(1)) {
            let file = WalFile::History(timeline);
            if !segment::has_history(cluster, timeline)?
                && let Some(content) = found(self.read_beside(file))?
            {
                TimelineHistory::parse(timeline, &content)?;
                segment::put_plain(cluster, file, &content)?;
            }
        }
        Ok(())
    }

    /// A small file in the directory of the one that is pushed.
    fn read_beside(&self, file: WalFile) -> Result<Vec<u8>> {
        let path = self.path.with_file_name(file.to_string());
        let opened = File::open(&path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!("there is no {}", path.display())),
            _ => Error::io(format!("open {}", path.display()), &cause),
        })?;
        read_plain(opened, &path)
    }

    fn options(&self) -> Options {
        Options {
            level: self.config.compression_level,
            workers: self.workers,
            spool: self.config.spool.clone().unwrap_or_else(std::env::temp_dir),
        }
    }

    fn history(&self, timeline: Timeline) -> Result<Stored> {
        let content = read_plain(self.open()?, self.path)?;
        let history =
            TimelineHistory::parse(timeline, &content).map_err(|error| error.context(self.path.display()))?;
        let (cluster, stored) = self.put_plain(&content)?;
        if stored == Stored::New {
            self.bring_ancestors(&cluster, &history)?;
        }
        self.clear_prefetched();
        intake::really_there(&cluster, stored)
    }

    /// A server archives a history when it has been promoted: what a killed prefetcher left is of no use.
    fn clear_prefetched(&self) {
        let Some(directory) = self.data_directory else { return };
        let spool = Spool::of(self.config.spool.as_deref(), directory);
        if let Err(error) = prefetched::clear_all(&spool) {
            tracing::warn!("{error}");
        }
    }

    fn backup_history(&self) -> Result<Stored> {
        let content = read_plain(self.open()?, self.path)?;
        let size = wal_dir::control_file(self.data_directory)?.segment_size;
        BackupHistory::parse(&content)
            .and_then(|history| history.check_name(self.file, size))
            .map_err(|error| error.context(self.path.display()))?;
        let (cluster, stored) = self.put_plain(&content)?;
        intake::really_there(&cluster, stored)
    }

    /// History files carry no system identifier: the server's pg_control tells whose they are.
    fn put_plain(&self, content: &[u8]) -> Result<(Cluster, Stored)> {
        let cluster = self.cluster(wal_dir::control_file(self.data_directory)?.system_id)?;
        let _lock = cluster.store().lock(&cluster.layout().lock(self.file)?, self.lock_wait)?;
        let stored = segment::put_plain(&cluster, self.file, content)?;
        Ok((cluster, stored))
    }
}

/// A timeline's history, and its content if that is still to be stored.
#[derive(Default)]
struct FoundHistory {
    parsed: Option<TimelineHistory>,
    to_bring: Option<Vec<u8>>,
}

fn found<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_plain(file: File, path: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(MOST_PLAIN + 1).read_to_end(&mut content).doing(|| format!("read {}", path.display()))?;
    if content.len() as u64 > MOST_PLAIN {
        return Err(Error::corrupt(format!("{} has over {MOST_PLAIN} bytes", path.display())));
    }
    Ok(content)
}
