//! `basebackup`: copies a running cluster into the repository. `run()` is the sequence; each step has its file.
//!
//! Refuses a server that is not on this host, whose WAL does not get into the repository, or that another
//! run is backing up. Invariant: a backup exists when its header does, and that is written last, when
//! everything else is durable, the WAL that makes it consistent included.

pub(in crate::ops) mod archive;
mod config_files;
mod control;
mod copy;
mod gaps;
mod header;
mod holes;
mod locale;
mod pages;
mod publish;
mod read;
mod relations;
mod report;
pub(in crate::ops) mod same_host;
mod server;
mod session;
mod sink;
mod units;

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::pg::client::Client;
use crate::pg::conninfo::{ConnRequest, ConnSettings, Environment};
use crate::pg::control::ControlFile;
use crate::pg::datadir::DataDir;
use crate::progress::{self, Display, Progress};
use crate::repo::backup::{BackupHeader, CheckpointMode, DamagedPages, Totals};
use crate::repo::layout::{Id, Name};
use crate::repo::lease::{self, Held, Lease, LeaseKind, Purpose};
use crate::repo::map::MapWriter;
use crate::repo::pack::PackWriter;
use crate::repo::{Cluster, ClusterHeader, Repository, sweep};
use crate::throttle::Throttle;
use archive::{Archive, Needed};
use copy::{ConfigFile, CopiedFiles, Skipped, Source};
use header::Facts;
use pages::PageChecks;
use publish::Unpublished;
use read::Reading;
pub use report::Report;
use server::Server;
use session::{BackupMode, Stopped};
use sink::{Sink, Suspects};

/// How long a backup waits for an expiry that is at work. The lease of one that died lapses within that.
const EXPIRY_LIMIT: Duration = lease::TTL.saturating_add(Duration::from_secs(60));
const EXPIRY_POLL: Duration = Duration::from_millis(500);
/// So often it is looked at from afar before trying again: it may have died.
const EXPIRY_POLLS: u32 = 20;

/// What the command line asks for.
#[derive(Clone)]
pub struct Request {
    pub connection: ConnRequest,
    /// None: the time, such as 20261123-101502.
    pub label: Option<Name>,
    pub checkpoint: CheckpointMode,
    /// None: as configured.
    pub jobs: Option<NonZeroUsize>,
    /// Bytes a second that are read, at most.
    pub rate_limit: Option<NonZeroU64>,
    /// How long to wait for WAL; None: as configured.
    pub wal_wait: Option<Duration>,
    /// Make no backup of a cluster with damaged pages.
    pub fail_on_damage: bool,
    pub display: Display,
}

/// Takes a backup. When it returns, the backup exists and can be restored.
pub fn run(config: &Config, request: &Request) -> Result<Report> {
    let started = Instant::now();
    let interrupt = Interrupt::install()?;
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let settings = ConnSettings::resolve(&request.connection, &Environment::from_process()?)?;
    let mut client = Client::connect(&settings)?;
    let server = Server::look(&mut client)?;
    let cluster = repository.cluster(&config.cluster, server.control.system_id);
    let label = choose_label(&cluster, request.label.as_ref(), &interrupt)?;
    let limit = request.wal_wait.unwrap_or(config.backup.wal_wait);
    let run = Run { config, request, interrupt, settings, server, cluster, label, limit, started };
    run.archive().check(&mut client, &run.server)?;
    let lease = run.lease()?;
    let header = run.back_up(client, &lease)?;
    lease.release()?;
    Ok(Report::new(&config.cluster, header))
}

/// The label that was asked for, if it is free; else the time.
fn choose_label(cluster: &Cluster, wanted: Option<&Name>, interrupt: &Interrupt) -> Result<Name> {
    let taken = |label: &Name| cluster.store().exists(&cluster.layout().backup_header(label)?);
    if let Some(label) = wanted {
        if !taken(label)? {
            return Ok(label.clone());
        }
        return Err(Error::conflict(format!("there is a backup with the label {label} already"))
            .with_hint("choose another --label, or none: the time is the default"));
    }
    loop {
        let label: Name = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string().parse()?;
        if !taken(&label)? {
            return Ok(label);
        }
        interrupt.sleep(Duration::from_millis(250))?;
    }
}

/// What all steps of one run know.
struct Run<'a> {
    config: &'a Config,
    request: &'a Request,
    interrupt: Interrupt,
    settings: ConnSettings,
    server: Server,
    cluster: Cluster,
    label: Name,
    limit: Duration,
    started: Instant,
}

/// What came of the copy.
struct Copied {
    packs: Vec<PackWriter>,
    map: MapWriter,
    control: ControlFile,
    pages: Suspects,
    skipped: Vec<Skipped>,
}

impl Run<'_> {
    fn archive(&self) -> Archive<'_> {
        Archive {
            cluster: &self.cluster,
            size: self.server.control.segment_size,
            interrupt: &self.interrupt,
            display: self.request.display,
            limit: self.limit,
        }
    }

    /// Keeps other runs away, then removes what dead ones left.
    fn lease(&self) -> Result<Lease> {
        let control = &self.server.control;
        self.cluster.ensure_header(&ClusterHeader {
            version: ClusterHeader::VERSION,
            system_id: control.system_id,
            postgres_major: self.server.major().number(),
            segment_size: control.segment_size,
            wal_block_size: control.wal_block_size,
        })?;
        let began = Instant::now();
        let mut told = false;
        let purpose = Purpose::backup(&self.label);
        let lease = Lease::acquire_after(&self.cluster, purpose, Id::random()?, |by| {
            self.wait_for_expiry(by, began.elapsed(), &mut told)
        })?;
        self.sweep(&lease);
        Ok(lease)
    }

    /// An expiry that began before us does not know of us, and may delete what we would build on: packs of our
    /// predecessor, or WAL that we need. So its end is waited for; it only deletes, and that is soon done.
    fn wait_for_expiry(&self, by: &Held, waited: Duration, told: &mut bool) -> Result<bool> {
        let Some(expiry) = by.record.as_ref().filter(|record| record.kind == LeaseKind::Expire) else {
            return Ok(false);
        };
        if waited > EXPIRY_LIMIT {
            return Ok(false);
        }
        if !std::mem::replace(told, true) {
            let text = format!("waiting for the {} to end: {}", expiry.what(), expiry.who());
            progress::notice(self.request.display, &text);
        }
        // Each attempt to get the lease shows for a moment, and an expiry that sees it leaves work to the next run.
        for _ in 0..EXPIRY_POLLS {
            self.interrupt.sleep(EXPIRY_POLL)?;
            if !lease::is_listed(&self.cluster, expiry.run)? {
                break;
            }
        }
        Ok(true)
    }

    /// A refused sweep has deleted nothing, and what it found (one damaged header, say) must not keep the
    /// cluster from getting its next backup.
    fn sweep(&self, lease: &Lease) {
        match sweep::sweep(&self.cluster, lease) {
            Ok(swept) if swept.is_nothing() => {}
            Ok(swept) => tracing::info!(
                "removed what earlier runs left behind: {} packs, {} maps, {} bytes; {} unfinished objects",
                swept.packs,
                swept.maps,
                swept.bytes,
                swept.unfinished
            ),
            Err(error) => tracing::warn!("could not remove what earlier runs left behind: {error}"),
        }
    }

    /// From the server's backup mode to the header.
    fn back_up(&self, client: Client, lease: &Lease) -> Result<BackupHeader> {
        self.tell_about_checkpoint();
        let (label, checkpoint) = (&self.label, self.request.checkpoint);
        let mut mode = BackupMode::start(client, &self.settings, label, checkpoint, &self.interrupt)?;
        let data_dir = DataDir::open(&self.server.data_directory, self.server.major())?;
        let config_files = config_files::outside(&self.server)?;
        let copied = self.copy(&data_dir, &config_files, &mut mode, lease.run())?;
        let copy_seconds = Totals::seconds(self.started.elapsed());
        let start_time = mode.start_time;
        let (stopped, mut client) = mode.stop()?;
        let damaged_pages = self.damaged_pages(&copied.pages, &stopped, &mut client)?;
        let tablespaces = header::tablespaces(&data_dir, &mut client)?;
        let locale = locale::look(&mut client)?;
        // All is asked. What takes long now must not depend on a session.
        drop(client);
        let needed = self.needed(&copied.control, &stopped)?;
        let (unpublished, map) = Unpublished::finish(&self.cluster, label, copied.packs, copied.map)?;
        let waiting = Instant::now();
        let stop_timeline = self.archive().wait(&needed, self.server.in_recovery)?;
        let wal_wait_seconds = Totals::seconds(waiting.elapsed());
        let segment_size = self.server.control.segment_size;
        let closed = gaps::closed(&self.cluster, segment_size, needed.start, stopped.label.start_timeline);
        let stored_bytes = map.size + unpublished.packs().iter().map(|pack| pack.size).sum::<u64>();
        let header = header::build(Facts {
            server: &self.server,
            label,
            run: lease.run(),
            checkpoint,
            start_time,
            stopped,
            consistent_lsn: needed.end,
            stop_timeline,
            tablespaces,
            locale,
            packs: unpublished.packs().to_vec(),
            damaged_pages,
            warnings: [warnings(&copied.skipped, &config_files), closed].concat(),
            totals: Totals { raw_bytes: map.raw_bytes, stored_bytes, copy_seconds, wal_wait_seconds },
            map,
        });
        unpublished.publish(&header, lease)?;
        Ok(header)
    }

    /// The damaged pages with the names of their relations; an error if nobody wants such a backup.
    fn damaged_pages(
        &self,
        suspects: &Suspects,
        stopped: &Stopped,
        client: &mut Client,
    ) -> Result<DamagedPages> {
        let mut pages = header::damaged_pages(suspects, stopped.label.start, stopped.lsn);
        if pages.count == 0 {
            return Ok(pages);
        }
        relations::name(&mut pages, client, &self.settings, self.server.major());
        if self.request.fail_on_damage {
            return Err(header::refuse_damage(&pages));
        }
        tracing::warn!("{}", report::damage(&pages));
        Ok(pages)
    }

    fn tell_about_checkpoint(&self) {
        let text = match self.request.checkpoint {
            CheckpointMode::Fast => "waiting for a checkpoint",
            CheckpointMode::Spread => {
                "waiting for a checkpoint, spread over checkpoint_completion_target of checkpoint_timeout"
            }
        };
        progress::notice(self.request.display, text);
    }

    /// Copies the files, then pg_control.
    fn copy(
        &self,
        data_dir: &DataDir,
        config_files: &[ConfigFile],
        mode: &mut BackupMode,
        run: Id,
    ) -> Result<Copied> {
        let progress = Progress::start(self.request.display, "copying");
        let reading = self.reading(&progress);
        let mut sink = Sink::start(&self.cluster)?;
        let writer = PackWriter::new(&self.cluster, run);
        let jobs = self.request.jobs.unwrap_or(self.config.backup.jobs);
        let source = Source { data_dir, config: config_files, reading: &reading, jobs };
        let copied = copy::copy(&source, &writer, &mut sink, &mut || {
            progress.tick();
            self.interrupt.check()?;
            mode.check()
        });
        progress.finish();
        let CopiedFiles { mut packs, skipped } = copied?;
        let pages = std::mem::take(&mut sink.pages);
        tracing::info!("{} files vanished while they were copied", sink.vanished);
        let mut map = sink.into_map()?;
        let first = packs.first_mut().ok_or_else(|| Error::bug("a copy without packs"))?;
        let control = control::copy(&self.server, self.config.compression_level, first, &mut map)?;
        Ok(Copied { packs, map, control, pages, skipped })
    }

    fn reading<'p>(&self, progress: &'p Progress) -> Reading<'p> {
        let control = &self.server.control;
        let checks = PageChecks {
            major: self.server.major(),
            block_size: control.block_size,
            blocks_per_file: control.blocks_per_file,
        };
        Reading {
            data_directory: self.server.data_directory.clone(),
            level: self.config.compression_level,
            checks: control.has_checksums().then_some(checks),
            throttle: Throttle::new(self.request.rate_limit),
            progress,
            stop: Interrupt::default(),
        }
    }

    /// The WAL from the backup's start to its stop. On a standby, up to the minRecoveryPoint of the copied
    /// pg_control if that is later, on the timeline that the standby follows by now.
    fn needed(&self, copied: &ControlFile, stopped: &Stopped) -> Result<Needed> {
        let label = &stopped.label;
        label.check_segment(copied.segment_size)?;
        let (mut end, mut timeline) = (stopped.lsn, label.start_timeline);
        if self.server.in_recovery {
            let now = ControlFile::read(&self.server.data_directory)?;
            end = end.max(copied.min_recovery_point);
            timeline = timeline.max(now.min_recovery_timeline);
        }
        Ok(Needed { start: label.start, end, timeline })
    }
}

/// What the operator should know about what was not copied. Logged, and kept in the header.
fn warnings(skipped: &[Skipped], config_files: &[ConfigFile]) -> Vec<String> {
    // A link to configuration is not walked, but what it leads to is in the backup.
    let is_kept = |skipped: &Skipped| {
        config_files.iter().any(|file| file.attributes.path.as_path().ends_with(&skipped.path))
    };
    let warnings: Vec<String> = skipped
        .iter()
        .filter(|skipped| !is_kept(skipped))
        .map(|skipped| format!("{} is not in the backup: {}", skipped.path.display(), skipped.reason))
        .collect();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    warnings
}
