//! The walk through WAL segments against a real PostgreSQL and its pg_waldump: both must see the same
//! records, times, transactions, restore points, settings and tablespaces.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use harness::*;
use pgark::pg::lsn::{Lsn, Timeline};
use pgark::pg::names::SegmentName;
use pgark::pg::time::Timestamp;
use pgark::pg::wal::{
    Extent, RawText, SegmentFacts, SegmentHeader, TablespaceAction, TimelineMatch, Walk, XidRange,
    join_unfinished,
};

/// A record as pg_waldump tells it.
#[derive(Debug)]
struct Record {
    rmgr: String,
    xid: u32,
    lsn: Lsn,
    /// Where the next record starts.
    next: Lsn,
    kind: String,
    rest: String,
}

impl Record {
    fn parse(line: &str) -> Self {
        let field = |from: &str, to: &str| {
            let (_, rest) = line.split_once(from).unwrap_or_else(|| panic!("no {from:?} in {line:?}"));
            rest.split_once(to).map_or(rest, |(value, _)| value).trim().to_string()
        };
        let desc = field("desc: ", "\n");
        let (kind, rest) = desc.split_once(' ').unwrap_or((&desc, ""));
        Self {
            rmgr: field("rmgr: ", " "),
            xid: field("tx: ", ",").parse().expect("an xid"),
            lsn: field("lsn: ", ",").parse().expect("an LSN"),
            next: Lsn::INVALID,
            kind: kind.to_string(),
            rest: rest.to_string(),
        }
    }

    /// The time that a transaction record shows, and the xid of the transaction that it ends.
    fn transaction(&self) -> Option<(Timestamp, u32)> {
        if self.rmgr != "Transaction" {
            return None;
        }
        let (xid, time) = match self.kind.as_str() {
            "COMMIT" | "ABORT" => (self.xid, self.rest.as_str()),
            "COMMIT_PREPARED" | "ABORT_PREPARED" => {
                let (xid, time) = self.rest.split_once(": ").expect("an xid");
                (xid.parse().expect("an xid"), time)
            }
            "PREPARE" => (0, self.rest.split_once(": ").expect("a gid").1),
            _ => return None,
        };
        let (time, _) = time.split_once(" UTC").expect("a time in UTC");
        Some((format!("{time}Z").parse().expect("a time"), xid))
    }
}

/// All records from one segment to another, as PostgreSQL reads them.
fn waldump(dir: &Path, first: &str, last: &str) -> Vec<Record> {
    let output =
        pg_command("pg_waldump").arg("-p").arg(dir).args([first, last]).output().expect("run pg_waldump");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut records: Vec<Record> =
        text.lines().filter(|line| line.starts_with("rmgr: ")).map(Record::parse).collect();
    let starts: Vec<Lsn> = records.iter().map(|record| record.lsn).collect();
    records.iter_mut().zip(starts.iter().skip(1)).for_each(|(record, next)| record.next = *next);
    records
}

/// What a walk must find of these records, all of which start in the segment at `start`.
fn expected(records: &[Record], start: Lsn, end: Lsn) -> SegmentFacts {
    // A record ends in its segment if the next one starts there too, or first thing in the next one.
    let whole = |record: &&Record| record.next > start && record.next.0 <= end.0 + 40;
    let of = |prepared: bool| {
        let matching = records.iter().filter(whole).filter(move |it| (it.kind == "PREPARE") == prepared);
        matching.filter_map(Record::transaction)
    };
    let xids = || of(false).map(|(_, xid)| xid).filter(|xid| *xid != 0);
    SegmentFacts {
        first_lsn: records.first().map(|record| record.lsn),
        last_lsn: records.iter().rfind(whole).map(|record| record.lsn),
        records: records.iter().filter(whole).count() as u64,
        earliest_time: of(false).map(|(time, _)| time).min(),
        latest_time: of(false).map(|(time, _)| time).max(),
        xids: xids().min().zip(xids().max()).map(|(lowest, highest)| XidRange { lowest, highest }),
        earliest_prepare: of(true).map(|(time, _)| time).min(),
        latest_prepare: of(true).map(|(time, _)| time).max(),
        ..SegmentFacts::default()
    }
}

/// The facts as far as pg_waldump tells them.
fn comparable(facts: &SegmentFacts) -> SegmentFacts {
    SegmentFacts {
        first_lsn: facts.first_lsn,
        last_lsn: facts.last_lsn,
        records: facts.records,
        earliest_time: facts.earliest_time,
        latest_time: facts.latest_time,
        earliest_prepare: facts.earliest_prepare,
        latest_prepare: facts.latest_prepare,
        xids: facts.xids,
        ..SegmentFacts::default()
    }
}

struct Walked {
    name: SegmentName,
    bytes: Vec<u8>,
    header: SegmentHeader,
    facts: SegmentFacts,
}

fn walk(path: &Path, extent: Extent) -> Walked {
    let bytes = fs::read(path).expect("read a segment");
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
    let name: SegmentName = name.parse().expect("a segment");
    let header = SegmentHeader::parse(&bytes).expect("a header");
    header.check(name, bytes.len() as u64).expect("it is what its name says");
    let mut walk = Walk::new(&header, name, extent);
    bytes.chunks(100_000).for_each(|chunk| walk.feed(chunk));
    let facts = walk.finish();
    assert!(facts.damage.is_empty(), "{name}: {:?}", facts.damage);
    Walked { name, bytes, header, facts }
}

/// The whole segments of a timeline in a directory, in order.
fn segments(dir: &Path, timeline: Timeline) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("read the archive").map(|entry| entry.expect("an entry").path());
    let is_segment = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.parse::<SegmentName>().is_ok_and(|name| name.timeline == timeline)
    };
    let mut paths: Vec<PathBuf> = entries.filter(is_segment).collect();
    paths.sort();
    paths
}

/// Walks the segments, compares each with pg_waldump, and joins what lies across their boundaries.
/// Answers the facts of all together: every list complete, and the joined records among them.
fn compare(dir: &Path, timeline: Timeline) -> (Vec<Walked>, Vec<Record>) {
    let paths = segments(dir, timeline);
    let name =
        |path: Option<&PathBuf>| path.and_then(|it| it.file_name()?.to_str()).expect("a name").to_owned();
    let mut records = waldump(dir, &name(paths.first()), &name(paths.last()));
    let walked: Vec<Walked> = paths.iter().map(|path| walk(path, Extent::Whole)).collect();
    let end = walked.last().and_then(|last| last.facts.end_lsn).expect("records");
    records.last_mut().expect("records").next = Lsn(end.0 + 40);
    let mut by_segment: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
    let size = walked.first().expect("segments").header.segment_size;
    for record in records {
        by_segment.entry(size.segment_of(record.lsn)).or_default().push(record);
    }
    for walked in &walked {
        let number = walked.name.number(size).expect("possible");
        let records = by_segment.get(&number).map(Vec::as_slice).unwrap_or_default();
        let (start, end) = (size.start_of(number), size.start_of(number + 1));
        assert_eq!(comparable(&walked.facts), expected(records, start, end), "{}", walked.name);
        let unfinished = walked.facts.unfinished.as_ref().map(|unfinished| unfinished.lsn);
        let last = records.last().filter(|last| last.next.0 > end.0 + 40);
        assert_eq!(unfinished, last.map(|record| record.lsn), "{}", walked.name);
    }
    (walked, by_segment.into_values().flatten().collect())
}

/// Joins every record that lies across a boundary; answers the facts of each.
fn join_all(walked: &[Walked]) -> Vec<SegmentFacts> {
    let mut joined = Vec::new();
    for (index, one) in walked.iter().enumerate() {
        let mut unfinished = one.facts.unfinished.clone();
        for next in walked.iter().skip(index + 1) {
            let Some(open) = unfinished.take() else { break };
            let needed = open.needed_of_next(&next.header) as usize;
            let facts =
                join_unfinished(&open, &next.header, next.name, &next.bytes[..needed]).expect("joined");
            assert!(facts.damage.is_empty(), "{}: {:?}", open.lsn, facts.damage);
            unfinished = facts.unfinished.clone();
            joined.push(facts);
        }
    }
    joined
}

fn archiving(archive: &Scratch) -> ClusterBuilder {
    let command = format!("cp %p {}/%f", archive.path().display());
    Cluster::builder()
        .wal_segment_mib(1)
        .set("archive_mode", "on")
        .set("archive_command", command)
        .set("max_prepared_transactions", 10)
        .set("autovacuum", "off")
}

/// Records of many kinds: every index, full pages (compressed, if the cluster is set so), an origin.
const VARIED: &str = "
    checkpoint;
    create table v(id int primary key, n int, words tsvector, p point, pad text);
    insert into v select n, n % 77, to_tsvector('simple', 'word' || n % 500 || ' other' || n % 31),
        point(n % 100, n % 97), repeat('pad ', n % 200) from generate_series(1, 6000) n;
    create index on v using hash (n); create index on v using gin (words); create index on v using gist (p);
    create index on v using spgist (p); create index on v using brin (id);
    checkpoint;
    update v set n = n + 1, p = point(n, n) where id % 3 = 0;
    delete from v where id % 5 = 0; vacuum freeze v; vacuum full v; reindex table v;
    select pg_replication_origin_create('elsewhere') \\g /dev/null
    select pg_replication_origin_session_setup('elsewhere') \\g /dev/null
    checkpoint; update v set pad = pad || 'x'; truncate v; create sequence s; select nextval('s') \\g /dev/null";

/// Commits, aborts, prepared transactions of every size, and records longer than segments.
fn work(cluster: &Cluster) {
    cluster.pgbench_init(1);
    cluster.pgbench(&["-c", "4", "-j", "2", "-t", "300"]);
    cluster.psql("create table t(a int, b text)");
    for n in 0..40 {
        let savepoints: String =
            (0..n * 4).map(|s| format!("savepoint s{s}; insert into t values ({s});")).collect();
        let end = if n % 3 == 0 { "rollback prepared" } else { "commit prepared" };
        cluster.psql(&format!(
            "begin; {savepoints} create table d{n}(x int primary key, y text); prepare transaction 'g{n}';
             {end} 'g{n}'; begin; insert into t select generate_series(1, 20); rollback;
             select pg_create_restore_point('point {n}') \\g /dev/null"
        ));
    }
    cluster.psql(VARIED);
    cluster.psql("select pg_logical_emit_message(false, 'long', repeat('x', 3500000)) \\g /dev/null");
    cluster
        .psql("select pg_switch_wal() \\g /dev/null\n create table after_switch(); drop table after_switch;");
    let there = cluster.scratch().make_dir("elsewhere");
    cluster.psql(&format!("create tablespace elsewhere location '{}'", there.display()));
    cluster.psql("create table e tablespace elsewhere as select 1; drop table e; drop tablespace elsewhere");
}

#[test]
fn the_walk_agrees_with_pg_waldump() {
    let archive = Scratch::new();
    let cluster = archiving(&archive).set("wal_level", "logical").set("wal_compression", "on").start();
    work(&cluster);
    cluster.append_config("max_connections = 57\nwal_log_hints = on\ntrack_commit_timestamp = on");
    cluster.restart();
    cluster.psql("insert into t values (1)");
    cluster.archive_everything();

    let (walked, records) = compare(archive.path(), Timeline(1));
    assert!(walked.len() > 15, "only {} segments", walked.len());
    let joined = join_all(&walked);
    assert!(joined.iter().any(|facts| facts.unfinished.is_some()), "no record is longer than a segment");
    assert!(walked.iter().any(|one| one.facts.first_lsn.is_none()), "no segment without a record");
    let facts = || walked.iter().map(|one| &one.facts).chain(&joined);

    // Each record is counted once: in its segment, or when it was joined.
    assert_eq!(facts().map(|facts| facts.records).sum::<u64>(), records.len() as u64);
    let ends = || records.iter().filter(|it| it.kind != "PREPARE").filter_map(Record::transaction);
    assert_eq!(facts().filter_map(|facts| facts.earliest_time).min(), ends().map(|(time, _)| time).min());
    assert_eq!(facts().filter_map(|facts| facts.latest_time).max(), ends().map(|(time, _)| time).max());
    for (_, xid) in ends().filter(|(_, xid)| *xid != 0) {
        let mut ranges = facts().filter_map(|facts| facts.xids);
        assert!(ranges.any(|range| range.may_hold(xid)), "transaction {xid} is in no segment's range");
    }
    assert_eq!(
        facts().filter_map(|facts| facts.xids).map(|range| range.highest).max(),
        ends().map(|it| it.1).max()
    );

    let points: Vec<(Lsn, String)> = records
        .iter()
        .filter(|record| record.kind == "RESTORE_POINT")
        .map(|record| (record.lsn, record.rest.clone()))
        .collect();
    let mut found: Vec<(Lsn, String)> = facts()
        .flat_map(|facts| &facts.restore_points.first)
        .map(|point| (point.lsn, point.name.to_string()))
        .collect();
    found.sort();
    assert_eq!(found, points);
    assert_eq!(points.len(), 40);

    let tablespaces: Vec<_> =
        facts().flat_map(|facts| &facts.tablespaces.first).map(|it| it.change.clone()).collect();
    let path = cluster.scratch().join("elsewhere");
    let created = TablespaceAction::Created(RawText::from(path.to_str().expect("UTF-8")));
    assert_eq!(tablespaces, [created, TablespaceAction::Dropped]);

    let changed = facts().flat_map(|facts| &facts.settings.first).last().expect("a change of settings");
    assert_eq!(changed.settings.max_connections, 57);
    assert_eq!(changed.settings.max_prepared_transactions, 10);
    assert!(changed.settings.wal_log_hints && changed.settings.track_commit_timestamp);
    let switches = facts().filter(|facts| facts.switch).count();
    assert!(switches >= 2, "{switches}");
}

/// Writes until exactly so many bytes of a segment remain, then switches: the record of the switch has 24.
const SWITCH_WITH_LEFT: &str = "
    create function switch_with_left(target int) returns pg_lsn language plpgsql as $$
    declare remaining bigint;
    begin
      for attempt in 1..20000 loop
        remaining := 1048576 - (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint % 1048576;
        -- On the segment's last page, a message of n bytes makes a record of n + 55.
        if remaining between target + 400 and 8000 then
          perform pg_logical_emit_message(false, 'x', repeat('a', (remaining - target - 55)::int));
          if (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint % 1048576 = 1048576 - target then
            return pg_switch_wal();
          end if;
        end if;
        perform pg_logical_emit_message(false, 'x', repeat('a', 300));
      end loop;
      raise exception 'never % bytes left', target;
    end $$";

#[test]
fn a_switch_whose_record_crosses_the_segments_end_agrees_with_pg_waldump() {
    let archive = Scratch::new();
    let cluster = archiving(&archive).start();
    cluster.psql(SWITCH_WITH_LEFT);
    for left in [8, 16, 24] {
        cluster.psql(&format!("select switch_with_left({left}); create table t{left}()"));
    }
    cluster.archive_everything();
    let (walked, _) = compare(archive.path(), Timeline(1));
    let empty = walked.iter().filter(|one| one.facts.switch && one.facts.first_lsn.is_none()).count();
    assert_eq!(empty, 2, "8 and 16 bytes do not hold the record of a switch, 24 do");
    let joined = join_all(&walked);
    assert_eq!(joined.iter().filter(|facts| facts.switch).count(), 2);
}

#[test]
fn a_promotions_segments_agree_with_pg_waldump() {
    let archive = Scratch::new();
    let cluster = archiving(&archive).start();
    let standby = cluster.standby().start();
    cluster.pgbench_init(1);
    cluster.psql("create table t as select 1 as a");
    cluster.wait_replayed_by(&standby);
    cluster.stop(Stop::Immediate);
    standby.promote();
    standby.psql("insert into t values (2)");
    standby.archive_everything();

    let (walked, _) = compare(archive.path(), Timeline(2));
    let first = walked.first().expect("a segment of timeline 2");
    let matched = first.header.check(first.name, first.bytes.len() as u64);
    assert_eq!(matched, Ok(TimelineMatch::Older(Timeline(1))));
    let starts: Vec<_> = walked.iter().flat_map(|one| &one.facts.timelines.first).collect();
    assert_eq!(starts.len(), 1);
    assert_eq!((starts[0].timeline, starts[0].parent), (Timeline(2), Timeline(1)));

    let partial = SegmentName { timeline: Timeline(1), ..first.name };
    let path = archive.join(format!("{partial}.partial"));
    standby.wait_for("the partial segment to be archived", || path.exists());
    let old = walk(&path, Extent::Partial);
    assert!(old.facts.records > 0);
    assert_eq!(old.facts.first_lsn, first.facts.first_lsn);
    assert!(old.facts.end_lsn < first.facts.end_lsn);
}

#[test]
fn a_record_cut_off_by_a_crash_is_no_damage() {
    let archive = Scratch::new();
    let cluster = archiving(&archive).start();
    cluster.psql("create table t as select 1 as a");
    cluster.archive_everything();
    // As in PostgreSQL's own 026_overwrite_contrecord.pl: a record that needs the next segment, and that
    // segment lost.
    cluster.psql("select pg_logical_emit_message(false, 'cut', repeat('x', 1300000)) \\g /dev/null");
    cluster.psql("create table flushed()");
    let lost = cluster.psql("select pg_walfile_name(pg_current_wal_insert_lsn())");
    cluster.crash();
    fs::remove_file(cluster.data_dir().join("pg_wal").join(lost)).expect("remove a segment");
    cluster.start();
    cluster.psql("insert into t values (2)");
    cluster.archive_everything();

    let walked: Vec<Walked> =
        segments(archive.path(), Timeline(1)).iter().map(|path| walk(path, Extent::Whole)).collect();
    let never_was = |pair: &&[Walked]| {
        let (one, next) = (&pair[0], &pair[1]);
        one.facts.unfinished.as_ref().is_some_and(|unfinished| {
            let joined = join_unfinished(unfinished, &next.header, next.name, &next.bytes);
            joined.expect("joined") == SegmentFacts::default()
        })
    };
    let next = &walked.windows(2).find(never_was).expect("a record that was cut off")[1];
    let dump =
        waldump(archive.path(), &next.name.to_string(), &walked.last().expect("some").name.to_string());
    assert_eq!(dump.first().map(|record| record.kind.as_str()), Some("OVERWRITE_CONTRECORD"));
    assert_eq!(next.facts.first_lsn, dump.first().map(|record| record.lsn));
}
