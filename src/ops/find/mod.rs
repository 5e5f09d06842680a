//! `pgark find`: what was the moment before? Looks for restore points, ends of transactions, and dropped or truncated
//! relations and databases in the archived WAL, and says how to restore to the moment just before each.
//!
//! Headers decide which segments are read at all. What is damaged is said, and the rest is searched all the same. Memory
//! is bounded by the jobs, the limit of hits, and what is kept of catalogs and open transactions. Changes nothing.

mod catalogs;
mod crew;
mod keep;
mod lanes;
pub mod query;
mod reader;
pub mod report;
mod search;
mod server;
pub mod transactions;

use std::num::NonZeroUsize;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::host;
use crate::interrupt::Interrupt;
use crate::ops::restore::archive::StoredArchive;
use crate::ops::restore::choose::Candidate;
use crate::ops::restore::listed::ListedArchive;
use crate::ops::restore::source::Source;
use crate::ops::restore::streamed::Ends;
use crate::ops::restore::window::{self, Window};
use crate::pg::conninfo::ConnRequest;
use crate::pg::lsn::{SystemId, Timeline};
use crate::pg::wal::{Damage, Listed};
use crate::progress::{Display, Progress};
use crate::repo::inventory::Inventory;
use catalogs::{Catalogs, Moved};
use crew::{Heard, Tell, in_order};
use keep::Kept;
use lanes::{Lane, Task};
use query::{Query, Range};
use reader::{Told, Watch};
use report::{Hit, Problem, Report, Searched};
use search::{Place, Search};
use server::Known;

/// Segments that could not be read and are named.
const MAX_PROBLEMS: usize = 100;

/// What the command line asks for.
#[derive(Clone)]
pub struct Request {
    pub query: Query,
    pub range: Range,
    /// None: all.
    pub timeline: Option<Timeline>,
    /// None: all incarnations of the cluster.
    pub system_id: Option<SystemId>,
    /// Hits that are listed at most. None: all.
    pub limit: Option<NonZeroUsize>,
    /// None: as many as there are cores.
    pub jobs: Option<NonZeroUsize>,
    /// The source server. None: it is not asked.
    pub connection: Option<ConnRequest>,
    pub display: Display,
}

/// Looks through the archive. What could not be read is in the report; an error says that nothing can be told.
pub fn run(config: &Config, request: &Request) -> Result<Report> {
    let interrupt = Interrupt::install()?;
    let mut finder = Finder {
        request,
        interrupt: &interrupt,
        jobs: request.jobs.unwrap_or_else(host::cores),
        known: Known::default(),
        kept: Kept::new(request.limit),
        searched: Searched::default(),
        notes: Vec::new(),
        problems: Vec::new(),
        failed: 0,
        unnamed: 0,
        unread: 0,
    };
    finder.ask_server();
    for source in Source::all(config, request.system_id)? {
        finder.notes.extend(source.notes.iter().cloned());
        finder.look_through(&source)?;
        source.cluster.repository().confirm()?;
    }
    Ok(finder.report(config))
}

struct Finder<'a> {
    request: &'a Request,
    interrupt: &'a Interrupt,
    jobs: NonZeroUsize,
    known: Known,
    kept: Kept,
    searched: Searched,
    notes: Vec<String>,
    problems: Vec<Problem>,
    /// How many problems there were.
    failed: u64,
    /// Transactions whose relations have no name, and records that could not be decoded.
    unnamed: u64,
    unread: u64,
}

impl Finder<'_> {
    /// Only for its names.
    fn ask_server(&mut self) {
        let Some(connection) =
            self.request.connection.as_ref().filter(|_| self.request.query.needs_context())
        else {
            return;
        };
        match server::ask(connection) {
            Ok(known) => self.known = known,
            Err(error) => self.notes.push(format!(
                "names of schemas and databases are told by the WAL alone, the server could not be asked: {}",
                error.message()
            )),
        }
    }

    /// One incarnation.
    fn look_through(&mut self, source: &Source) -> Result<()> {
        let ends = source.streamed_ends()?;
        let inventory = Inventory::take(&source.cluster, source.segment_size)?;
        let scene = Scene {
            source,
            archive: source.archive(self.jobs, &ends),
            windows: windows(source, &inventory, &ends)?,
            inventory: &inventory,
            all_timelines: self.request.timeline.is_none(),
        };
        let (histories, wanted, size) = (&source.histories, self.request.timeline, source.segment_size);
        let mut moved = Moved::default();
        for mut lane in lanes::lanes(&inventory, histories, &ends, wanted, size)? {
            self.searched.segments = self.searched.segments.saturating_add(lane.segments());
            let (query, range) = (&self.request.query, &self.request.range);
            lanes::narrow(&scene.archive, &mut lane, query, range, &|| self.interrupt.check())?;
            self.searched.read = self.searched.read.saturating_add(lane.segments());
            self.search(&scene, &lane, &mut moved)?;
        }
        Ok(())
    }

    /// One lane. Once more when the WAL told that a catalog had moved to a file that was not watched.
    fn search(&mut self, scene: &Scene<'_>, lane: &Lane<'_>, moved: &mut Moved) -> Result<()> {
        loop {
            let mut catalogs = Catalogs::default();
            self.known.tell(scene.source.cluster.system_id(), &mut catalogs, moved);
            let (kept, problems, failed) = (self.kept.clone(), self.problems.clone(), self.failed);
            if !self.search_once(scene, lane, moved, catalogs)? {
                return Ok(());
            }
            (self.kept, self.problems, self.failed) = (kept, problems, failed);
        }
    }

    /// Answers whether another reading would know more names.
    fn search_once(
        &mut self,
        scene: &Scene<'_>,
        lane: &Lane<'_>,
        moved: &mut Moved,
        catalogs: Catalogs,
    ) -> Result<bool> {
        let request = self.request;
        let watch = Watch { interest: request.query.interest(), files: moved.files() };
        let system_id = scene.source.cluster.system_id();
        let mut search = Search::new(&request.query, &request.range, system_id, moved, catalogs);
        let progress = Progress::start(request.display, "searching");
        let size = scene.source.segment_size;
        progress.set_total(lane.segments().saturating_mul(size.bytes()));
        let (interrupt, jobs) = (self.interrupt, self.jobs);
        let look = || {
            progress.tick();
            interrupt.check()
        };
        let read = |task: &Task, tell: &mut Tell<'_, Told>| {
            reader::read(&scene.archive, lane.path, task, &watch, tell)
        };
        let mut hear = |task: &Task, heard: Heard<Told>| {
            match heard {
                Heard::Message(Told::Seen(format, seen)) => {
                    let place = Place { path: lane.path, segment: task.name };
                    for seen in seen {
                        let hits = search.take(place, format, seen);
                        hits.into_iter().for_each(|hit| self.keep(scene, task, hit));
                    }
                }
                Heard::Message(Told::Damaged(damage)) => self.damaged(task, &damage),
                Heard::End(outcome) => {
                    progress.add(size.bytes());
                    if let Err(error) = outcome {
                        self.failed(task, error)?;
                        search.lose_track();
                    }
                }
            }
            Ok(())
        };
        in_order(jobs, lane.tasks(size), read, &look, &mut hear)?;
        progress.finish();
        let (again, unnamed, unread) = (search.moved_unseen, search.unnamed, search.unread);
        if !again {
            self.unnamed = self.unnamed.saturating_add(unnamed);
            self.unread = self.unread.saturating_add(unread);
        }
        Ok(again)
    }

    fn keep(&mut self, scene: &Scene<'_>, task: &Task, hit: Hit) {
        if task.counts && !scene.is_copy(&hit, task) {
            self.kept.add(&self.request.query, scene.judged(hit));
        }
    }

    fn damaged(&mut self, task: &Task, damage: &Listed<Damage>) {
        let first = damage.first.first().map(|first| format!(", the first {first}")).unwrap_or_default();
        let what = format!("{} places are not as the server should have written them{first}", damage.count);
        self.problem(Problem { segment: task.name, what, kind: Kind::Corrupt });
    }

    /// One that was deleted since it was listed is none that could not be read.
    fn failed(&mut self, task: &Task, error: Error) -> Result<()> {
        match error.kind() {
            Kind::Corrupt => self.problem(Problem::of(task.name, &error)),
            Kind::NotFound => self.notes.push(format!("segment {} is not there any more", task.name)),
            _ => return Err(error),
        }
        Ok(())
    }

    fn problem(&mut self, problem: Problem) {
        self.failed = self.failed.saturating_add(1);
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// What the counts mean for the result.
    fn conclude(&mut self) {
        if matches!(self.request.query, Query::Table(_)) && self.unnamed > 0 {
            self.notes.push(format!(
                "{} transactions dropped or replaced relations of which this WAL does not tell all names, perhaps this \
                 one too: `pgark find --dropped` lists them",
                self.unnamed
            ));
        }
        if self.unread > 0 {
            self.notes.push(format!(
                "{} records of interest could not be decoded: too long, or in a form that is not known",
                self.unread
            ));
        }
        let named = self.problems.len() as u64;
        if self.failed > named {
            self.notes
                .push(format!("{named} of {} segments that could not be searched are named", self.failed));
        }
    }

    fn report(mut self, config: &Config) -> Report {
        self.conclude();
        let (hits, found) = self.kept.into_hits();
        Report {
            cluster: config.cluster.clone(),
            hits,
            found,
            searched: self.searched,
            notes: self.notes,
            problems: self.problems,
        }
    }
}

/// One incarnation's part of the repository.
struct Scene<'a> {
    source: &'a Source,
    archive: StoredArchive<'a>,
    inventory: &'a Inventory,
    windows: Vec<Window>,
    all_timelines: bool,
}

impl Scene<'_> {
    /// The first segment of a timeline begins as a copy of its parent's: what lies before the fork is found there, if
    /// that is archived.
    fn is_copy(&self, hit: &Hit, task: &Task) -> bool {
        let parent = self.inventory.timelines.get(&hit.timeline);
        let archived = parent.is_some_and(|wal| wal.runs.around(task.number).is_some());
        // With `--timeline` the parent's own file is not read where its child's is.
        hit.timeline != task.name.timeline && archived && self.all_timelines
    }

    fn judged(&self, mut hit: Hit) -> Hit {
        let (timeline, lsn) = (hit.segment.timeline, hit.restore.lsn);
        hit.restore.reachable = self
            .windows
            .iter()
            .any(|window| window.timeline == timeline && window.from_lsn <= lsn && lsn <= window.to_lsn);
        hit
    }
}

/// What can be reached by a restore.
fn windows(source: &Source, inventory: &Inventory, ends: &Ends) -> Result<Vec<Window>> {
    let candidates = source.backups.iter().map(Candidate::of).collect::<Result<Vec<_>>>()?;
    let archive = ListedArchive::new(inventory, source.catalog(), ends);
    window::windows(&archive, &source.histories, &candidates)
}
