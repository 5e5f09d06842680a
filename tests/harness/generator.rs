//! Large repositories in seconds: thousands of segments and hundreds of backups that never were, each object
//! with a valid header and next to no data. For what looks at many of them: listings, plans, figures.
//!
//! Segments are written by their bytes (`docs/repository-format.md`, "A stored segment"), all with the same data,
//! one segment of zeros, which is what their digests say. Everything else is written by the library.

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pgark::location::Location;
use pgark::pg::lsn::{Lsn, SegmentSize, SystemId, Timeline};
use pgark::pg::names::{SegmentName, WalFile};
use pgark::pg::page::BlockSize;
use pgark::pg::time;
use pgark::pg::version::PgMajor;
use pgark::pg::wal::SegmentFacts;
use pgark::pipe::compress::{Body, Compressed, Options, compress};
use pgark::pipe::frame::Compressor;
use pgark::repo::backup::{self, *};
use pgark::repo::layout::{Id, Name};
use pgark::repo::map::{MapSummary, MapWriter};
use pgark::repo::pack::{PackSummary, PackWriter};
use pgark::repo::segment::{self, Description, HEADER_SIZE, StoredSegment};
use pgark::repo::{Cluster, ClusterHeader, Repository};

use super::scratch::own;

/// Raw bytes of a segment.
pub const SEGMENT: u64 = 16 << 20;

/// Where the archive begins: far enough from 0 for two log numbers.
const FIRST: u64 = 200;

/// That write at a time; most of it is waiting for the disk.
const THREADS: u64 = 8;

/// What to make. Times are spread evenly over `span`, up to `end`.
#[derive(Clone, Debug)]
pub struct Generator {
    pub cluster: String,
    pub system_id: u64,
    pub segments: u64,
    pub backups: u64,
    /// At least 1; a promotion between each and the next.
    pub timelines: u64,
    /// Runs of two missing segments each, evenly spread.
    pub holes: u64,
    pub end: SystemTime,
    pub span: Duration,
}

impl Default for Generator {
    fn default() -> Self {
        Self {
            cluster: "main".into(),
            system_id: 7_650_000_000_000_000_001,
            segments: 100,
            backups: 4,
            timelines: 1,
            holes: 0,
            end: SystemTime::now(),
            span: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl Generator {
    /// Fills an initialised repository, which belongs to the server's user afterwards.
    pub fn fill(&self, root: &Path) {
        let location = Location::parse(&root.display().to_string()).expect("a location");
        let repository = Repository::open(&location, None).expect("an initialised repository");
        let cluster = repository.cluster(&name(&self.cluster), SystemId(self.system_id));
        let header = ClusterHeader {
            version: 1,
            system_id: SystemId(self.system_id),
            postgres_major: 15,
            segment_size: size(),
            wal_block_size: 8192,
        };
        cluster.ensure_header(&header).expect("cluster.json");
        let end = FIRST + self.segments;
        side_by_side(FIRST..end, |numbers| self.write_segments(&cluster, root, numbers));
        self.write_histories(&cluster, root);
        self.write_backups(&cluster, root);
        for entry in walkdir::WalkDir::new(root) {
            own(entry.expect("list the repository").path());
        }
    }

    /// The number of the segment that a share of the archive ends with.
    fn number(&self, part: u64, of: u64) -> u64 {
        FIRST + self.segments * part / of
    }

    /// When a segment was archived.
    fn time(&self, number: u64) -> SystemTime {
        let left = (FIRST + self.segments - 1).saturating_sub(number);
        self.end - self.span.mul_f64(left as f64 / self.segments.max(1) as f64)
    }

    /// The timeline on which a segment is found, and the segment with which that one begins.
    pub fn timeline(&self, number: u64) -> Timeline {
        let newest = (0..self.timelines).rev().find(|part| number >= self.number(*part, self.timelines));
        Timeline(u32::try_from(newest.unwrap_or(0) + 1).expect("few timelines"))
    }

    /// The segment behind the last.
    pub fn next_segment(&self) -> String {
        let number = FIRST + self.segments;
        SegmentName::from_number(self.timeline(number), number, size()).to_string()
    }

    /// The numbers of the first segments of the holes: in the middle between backups, if there are as many.
    pub fn holes(&self) -> Vec<u64> {
        (0..self.holes).map(|hole| self.number(2 * hole + 1, 2 * self.holes) + 1).collect()
    }

    fn write_segments(&self, cluster: &Cluster, root: &Path, numbers: Range<u64>) {
        let template = zeros();
        let (Body::Memory(data), holes) = (&template.body, self.holes()) else { panic!("not in memory") };
        for number in numbers {
            if holes.iter().any(|hole| (*hole..hole + 2).contains(&number)) {
                continue;
            }
            let name = SegmentName::from_number(self.timeline(number), number, size());
            let key = cluster.layout().segment(name).expect("a key");
            let header = StoredSegment::of(cluster, self.description(name, number), &template);
            let path = root.join(key.as_str());
            if let Err(missing) = fs::write(&path, [&seal(&header), data.as_slice()].concat()) {
                fs::create_dir_all(path.parent().expect("a directory"))
                    .unwrap_or_else(|_| panic!("{missing}"));
                fs::write(&path, [&seal(&header), data.as_slice()].concat()).expect("write a segment");
            }
            set_time(&path, self.time(number));
        }
    }

    fn description(&self, name: SegmentName, number: u64) -> Description {
        let start = number * SEGMENT;
        let ended = microseconds(self.time(number)) - 1_000_000;
        let latest = time::Timestamp::from_unix(ended).expect("a moment");
        Description {
            file: WalFile::Segment(name),
            postgres_major: 15,
            segment_size: size(),
            wal_block_size: 8192,
            host: "db1".into(),
            facts: SegmentFacts {
                first_lsn: Some(Lsn(start + 0x28)),
                last_lsn: Some(Lsn(start + SEGMENT - 0x100)),
                end_lsn: Some(Lsn(start + SEGMENT)),
                records: 1000,
                earliest_time: Some(latest),
                latest_time: Some(latest),
                ..SegmentFacts::default()
            },
        }
    }

    fn write_histories(&self, cluster: &Cluster, root: &Path) {
        let mut text = String::new();
        for part in 1..self.timelines {
            let fork = self.number(part, self.timelines);
            text.push_str(&format!(
                "{part}\t{}\tno recovery target specified\n",
                Lsn(fork * SEGMENT + SEGMENT / 2)
            ));
            let timeline = Timeline(u32::try_from(part + 1).expect("few timelines"));
            segment::put_plain(cluster, WalFile::History(timeline), text.as_bytes()).expect("a history");
            let key = cluster.layout().history(timeline).expect("a key");
            set_time(&root.join(key.as_str()), self.time(fork));
        }
    }

    /// Backups evenly over the archive, called b0000 and so on. Each has one pack of its own and takes along those
    /// of up to eight backups before it.
    fn write_backups(&self, cluster: &Cluster, root: &Path) {
        let runs: Vec<Id> = (0..self.backups).map(|_| Id::random().expect("an id")).collect();
        let packs: Vec<OnceLock<PackSummary>> = runs.iter().map(|_| OnceLock::new()).collect();
        side_by_side(0..self.backups, |places| {
            for place in places.map(|place| place as usize) {
                packs[place].set(pack(cluster, runs[place])).expect("set once");
            }
        });
        let packs: Vec<PackSummary> =
            packs.into_iter().map(|pack| pack.into_inner().expect("written")).collect();
        side_by_side(0..self.backups, |places| {
            for place in places.map(|place| place as usize) {
                let mut listed = packs[place.saturating_sub(8)..=place].to_vec();
                listed.sort_by_key(|pack| pack.id);
                self.write_backup(cluster, root, place as u64, runs[place], listed);
            }
        });
    }

    fn write_backup(&self, cluster: &Cluster, root: &Path, place: u64, run: Id, packs: Vec<PackSummary>) {
        let label = name(&format!("b{place:04}"));
        let map = MapWriter::start(cluster).and_then(|map| map.finish(&label)).expect("a map");
        let number = self.number(place, self.backups);
        let header = self.header(&label, run, map, packs, number);
        backup::write(cluster, &header, || Ok(())).expect("a header");
        let key = cluster.layout().backup_header(&label).expect("a key");
        set_time(&root.join(key.as_str()), self.time(number));
    }

    fn header(
        &self,
        label: &Name,
        run: Id,
        map: MapSummary,
        packs: Vec<PackSummary>,
        number: u64,
    ) -> BackupHeader {
        let timeline = self.timeline(number);
        // Behind the middle of the segment, where timelines begin.
        let start = Lsn(number * SEGMENT + 0xC0_0028);
        let stop = Lsn(number * SEGMENT + 0xC0_0200);
        let stop_time = Timestamp::from_microsecond(microseconds(self.time(number))).expect("a time");
        let start_time = stop_time - Duration::from_secs(600);
        let own = packs.iter().filter(|pack| pack.id.backup == run);
        let stored_bytes = map.size + own.map(|pack| pack.size).sum::<u64>();
        BackupHeader {
            format: FORMAT.to_string(),
            version: VERSION,
            label: label.clone(),
            run,
            system_id: SystemId(self.system_id),
            server: Server {
                version: "PostgreSQL 15.18 on x86_64-pc-linux-gnu".into(),
                version_num: 150_018,
                major: PgMajor::try_from(15).expect("supported"),
            },
            start: Start {
                lsn: start,
                timeline,
                time: start_time,
                redo_segment: SegmentName::containing(timeline, start, size()),
            },
            stop: backup::Stop { lsn: stop, timeline, time: stop_time },
            consistent_lsn: stop,
            from_standby: false,
            checkpoint: CheckpointMode::Fast,
            tablespaces: Vec::new(),
            segment_size: size(),
            block_size: BlockSize::try_from(8192).expect("a size"),
            blocks_per_file: 131_072,
            data_checksums: true,
            damaged_pages: DamagedPages::default(),
            backup_label: format!("START WAL LOCATION: {start}\n"),
            tablespace_map: String::new(),
            map,
            packs,
            predecessor: None,
            settings: [("port".to_string(), "5432".to_string())].into(),
            locale: Locale::default(),
            host: "db1".into(),
            pgark: "0.1.0".into(),
            totals: Totals { raw_bytes: 100 << 30, stored_bytes, copy_seconds: 590, wal_wait_seconds: 10 },
            warnings: Vec::new(),
        }
    }
}

/// Does a range of work in shares.
fn side_by_side(range: Range<u64>, work: impl Fn(Range<u64>) + Sync) {
    let share = (range.end - range.start).div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        for begin in range.clone().step_by(share as usize) {
            let (work, end) = (&work, (begin + share).min(range.end));
            scope.spawn(move || work(begin..end));
        }
    });
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn size() -> SegmentSize {
    SegmentSize::try_from(SEGMENT).expect("a size")
}

fn microseconds(time: SystemTime) -> i64 {
    Timestamp::try_from(time).expect("in range").as_microsecond()
}

fn set_time(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).expect("open");
    file.set_modified(time).expect("set the time");
}

/// One segment of zeros.
fn zeros() -> Compressed {
    let options = Options { level: 1, workers: 1, spool: std::env::temp_dir() };
    let mut raw = std::io::Read::take(std::io::repeat(0), SEGMENT);
    compress(&mut raw, "zeros", &options, &mut |_| {}).expect("compressed")
}

/// A pack of one small frame.
fn pack(cluster: &Cluster, run: Id) -> PackSummary {
    let mut writer = PackWriter::new(cluster, run);
    let frame = Compressor::new(1).and_then(|mut compressor| compressor.compress(b"x", Vec::new()));
    writer.append(&frame.expect("a frame")).expect("appended");
    writer.finish().expect("a pack").remove(0)
}

/// The header of a stored segment as the format has it: a skippable frame of exactly [`HEADER_SIZE`] bytes.
fn seal(header: &StoredSegment) -> Vec<u8> {
    let mut content = serde_json::to_vec(header).expect("JSON");
    content.resize(HEADER_SIZE - 8 - 22, b' ');
    let checksum = crc32c::crc32c(&content);
    content.extend_from_slice(format!("{{\"crc32c\":\"{checksum:08x}\"}}\n").as_bytes());
    let length = u32::try_from(content.len()).expect("short");
    [&0x184D_2A50_u32.to_le_bytes(), &length.to_le_bytes(), content.as_slice()].concat()
}
