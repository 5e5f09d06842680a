//! Sweeping: removing what killed, failed and expired runs left behind, and nothing else.
//!
//! Garbage is a pack that no header lists and whose run has no lease, and a map without a header. THE ORDER OF
//! LOOKING IS WHAT MAKES THIS SAFE, whatever runs meanwhile on other hosts:
//!
//! 1. packs and maps first, 2. leases, 3. headers.
//!
//! - A run that began after step 1 has nothing in our list.
//! - A run that is at work in step 2 has a lease (it creates that before its first pack), and is left alone. The
//!   listing sees one of its objects, though it may be renewed meanwhile (`repo::lease`).
//! - A run that ended before step 2 saw its lease created its header before it deleted the lease, so step 3
//!   sees the header.
//! - A run that died has neither, and its packs never get a header: stale leases are deleted only by whoever
//!   acquires one, before any sweep, and a run whose lease is gone creates no header that stays.
//!
//! A backup may also build on packs of an earlier one, whose header expiry deletes meanwhile, and a restore may
//! read them. No lease names those packs, so while ANOTHER backup has a lease, or a restore of a backup that has
//! no header any more, no pack and no map is garbage. `docs/decisions/leases.md` goes through the interleavings.
//!
//! A header or lease that can't be read or parsed stops the sweep before it deletes anything: what it refers to
//! is unknown. So does a listing of leases that lacks our own. Memory holds the names of packs, about 100 bytes
//! for each GiB of the repository.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::layout::{self, Id, Name, PackId};
use super::lease::{self, Lease, LeaseKind};
use super::{Cluster, backup};
use crate::error::{Error, Kind, Result};
use crate::store::Meta;

/// Unfinished objects that no lease tells of, such as segments of WAL, count as left behind when nobody
/// has written to them for this long.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub packs: u64,
    pub maps: u64,
    /// Of those packs and maps.
    pub bytes: u64,
    /// Objects that were never published.
    pub unfinished: u64,
    /// Packs and maps were left alone, whatever they are: another run may need them.
    pub postponed: bool,
}

impl Swept {
    pub fn is_nothing(&self) -> bool {
        (self.packs, self.maps, self.unfinished) == (0, 0, 0)
    }
}

/// What an expiry deleted the headers of, in this run: its packs and maps are garbage at once.
#[derive(Debug, Default)]
pub struct Expired {
    pub packs: HashSet<PackId>,
    pub labels: HashSet<Name>,
    /// Every backup that it kept: their headers must be there, or the listing is not to be trusted.
    pub kept: Vec<Name>,
}

/// Removes garbage. The caller holds the lease of a backup, so that no other one is at work, and has not begun to
/// write packs.
pub fn sweep(cluster: &Cluster, lease: &Lease) -> Result<Swept> {
    sweep_as(cluster, lease, None)
}

/// The same under the lease of an expiry, beside which a backup may be at work or begin: of what this run did not
/// expire itself only what is older than a day goes.
pub fn sweep_expired(cluster: &Cluster, lease: &Lease, expired: &Expired) -> Result<Swept> {
    sweep_as(cluster, lease, Some(expired))
}

fn sweep_as(cluster: &Cluster, lease: &Lease, expired: Option<&Expired>) -> Result<Swept> {
    lease.still_held()?;
    let seen = Seen::look(cluster)?;
    let mut spared = Spared::default();
    let refused = |error: Error| error.context("swept nothing");
    spared.look_at_leases(cluster, lease).map_err(refused)?;
    spared.look_at_headers(cluster).map_err(refused)?;
    remove(cluster, lease, &seen, &spared, expired)
}

fn remove(
    cluster: &Cluster,
    lease: &Lease,
    seen: &Seen,
    spared: &Spared,
    expired: Option<&Expired>,
) -> Result<Swept> {
    if let Some(vanished) = expired.and_then(|expired| spared.first_without_header(&expired.kept)) {
        return Err(Error::conflict(format!(
            "swept nothing: backup {vanished}, which was kept, has no header any more"
        ))
        .with_hint("is the whole repository mounted? does somebody delete by hand?"));
    }
    lease.still_held()?;
    let mut swept = Swept { postponed: spared.everything(), ..Swept::default() };
    if !swept.postponed {
        remove_garbage(cluster, lease, seen, spared, expired, &mut swept)?;
    }
    swept.unfinished = remove_unfinished(cluster, lease, spared, expired.is_none())?;
    Ok(swept)
}

fn remove_garbage(
    cluster: &Cluster,
    lease: &Lease,
    seen: &Seen,
    spared: &Spared,
    expired: Option<&Expired>,
    swept: &mut Swept,
) -> Result<()> {
    let gone = || seen.labels.iter().filter(|label| !spared.labels.contains(*label));
    // Somebody may have deleted a header a moment ago: what it referred to must not be gone before it is.
    for label in gone() {
        cluster.store().settle_deletions(&cluster.layout().backup(label)?)?;
    }
    let is_old = |object: &Meta| lease.since().duration_since(object.modified).is_ok_and(|age| age > IDLE);
    for (pack, object) in &seen.packs {
        let ripe = expired.is_none_or(|expired| expired.packs.contains(pack) || is_old(object));
        if ripe && !spared.runs.contains(&pack.backup) && !spared.packs.contains(pack) {
            swept.packs += u64::from(cluster.store().delete(&object.key)?);
            swept.bytes += object.size;
        }
    }
    for (label, object) in &seen.maps {
        let ripe = expired.is_none_or(|expired| expired.labels.contains(label) || is_old(object));
        // One younger than our lease can be of a run that began meanwhile under the label of a dead one.
        if ripe && !spared.labels.contains(label) && object.modified < lease.since() {
            // Unlike a pack's, a map's name is used again: by a run that took us for dead, say.
            lease.still_held()?;
            swept.maps += u64::from(cluster.store().delete(&object.key)?);
            swept.bytes += object.size;
        }
    }
    // No other backup is at work: what is empty is nobody's.
    for label in gone() {
        cluster.store().forget_empty(&cluster.layout().backup(label)?)?;
    }
    Ok(())
}

/// What may be garbage.
struct Seen {
    packs: Vec<(PackId, Meta)>,
    /// Of backups that are there, are coming, or were.
    labels: Vec<Name>,
    maps: Vec<(Name, Meta)>,
}

impl Seen {
    fn look(cluster: &Cluster) -> Result<Self> {
        let mut packs = Vec::new();
        for object in cluster.store().walk(&cluster.layout().packs()?) {
            let object = object?;
            if let Some(pack) = layout::parse_pack(&object.key) {
                packs.push((pack, object));
            }
        }
        let (mut labels, mut maps) = (Vec::new(), Vec::new());
        for prefix in cluster.store().level(&cluster.layout().backups()?)?.prefixes {
            let Some(label) = layout::parse_backup_label(&prefix) else { continue };
            match cluster.store().head(&cluster.layout().backup_map(&label)?) {
                Ok(object) => maps.push((label.clone(), object)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
            labels.push(label);
        }
        Ok(Self { packs, labels, maps })
    }
}

/// What is in use.
#[derive(Default)]
struct Spared {
    runs: HashSet<Id>,
    packs: HashSet<PackId>,
    /// Of headers.
    labels: HashSet<Name>,
    /// Another backup is at work.
    backup: bool,
    /// What is being restored.
    restored: HashSet<Name>,
}

impl Spared {
    fn look_at_leases(&mut self, cluster: &Cluster, ours: &Lease) -> Result<()> {
        for held in lease::list(cluster)? {
            let record = held.record.ok_or_else(|| {
                Error::conflict("there is a lease that can't be read").with_hint(
                    "a newer pgark may be at work; the lease lapses in half an hour unless renewed",
                )
            })?;
            self.runs.insert(record.run);
            match record.kind {
                LeaseKind::Backup if record.run != ours.run() => self.backup = true,
                LeaseKind::Restore => self.restored.extend(record.label),
                // Under our own label lies what an expired backup of that name left, until we write there.
                LeaseKind::Backup | LeaseKind::Expire => {}
            }
        }
        if self.runs.contains(&ours.run()) {
            return Ok(());
        }
        Err(Error::conflict("our own lease is not among those that are listed"))
    }

    fn look_at_headers(&mut self, cluster: &Cluster) -> Result<()> {
        for header in backup::iter(cluster)? {
            let header = header?;
            self.packs.extend(header.packs.iter().map(|pack| pack.id));
            self.labels.insert(header.label);
        }
        Ok(())
    }

    /// Whether any pack or map may be in use without a header that says so.
    fn everything(&self) -> bool {
        self.backup || self.restored.iter().any(|label| !self.labels.contains(label))
    }

    fn first_without_header<'a>(&self, kept: &'a [Name]) -> Option<&'a Name> {
        kept.iter().find(|label| !self.labels.contains(*label))
    }
}

/// Uploads that were never finished. Under a backup's lease no other run than ours is alive if ours has the only
/// lease, and ours has begun none. Where another backup is at work, packs are its own business. How old something is,
/// the store's clock says, as of when we got our lease.
fn remove_unfinished(cluster: &Cluster, lease: &Lease, spared: &Spared, is_backup: bool) -> Result<u64> {
    let alone = is_backup && spared.runs.iter().all(|run| *run == lease.run());
    let (store, layout) = (cluster.store(), cluster.layout());
    let yesterday = lease.since().checked_sub(IDLE).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut removed = 0;
    if !spared.backup {
        let before = if alone { lease.since() } else { yesterday };
        removed += store.sweep_staged(&layout.packs()?, before)?;
        removed += store.sweep_staged(&layout.root()?, yesterday)?;
    }
    for object in store.walk(&layout.staging_area()?) {
        let object = object?;
        if object.modified < yesterday {
            removed += u64::from(store.delete(&object.key)?);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;
    use crate::pg::lsn::Timeline;
    use crate::pipe::frame::Compressor;
    use crate::repo::fixture::{Fixture, name};
    use crate::repo::lease::{NeededWal, Purpose};
    use crate::repo::map::MapWriter;
    use crate::repo::pack::{PackSummary, PackWriter};

    fn id() -> Id {
        Id::random().expect("id")
    }

    fn lease(fixture: &Fixture, run: Id) -> Lease {
        Lease::acquire(&fixture.cluster, Purpose::backup(&name("ours")), run).expect("acquired")
    }

    fn pack(fixture: &Fixture, run: Id) -> PackSummary {
        let mut writer = PackWriter::new(&fixture.cluster, run);
        let frame = Compressor::new(1).and_then(|mut c| c.compress(b"x", Vec::new())).expect("frame");
        writer.append(&frame).expect("appended");
        writer.finish().expect("finished")[0]
    }

    fn map(fixture: &Fixture, label: &str) {
        MapWriter::start(&fixture.cluster).and_then(|map| map.finish(&name(label))).expect("map");
    }

    fn has(fixture: &Fixture, pack: PackSummary) -> bool {
        fixture.cluster.store().exists(&fixture.cluster.layout().pack(pack.id).expect("key")).expect("looked")
    }

    /// What a sweep deletes if that happens between its looks.
    fn sweep_with(
        fixture: &Fixture,
        lease: &Lease,
        before_leases: impl FnOnce(),
        before_headers: impl FnOnce(),
    ) -> Result<Swept> {
        lease.still_held()?;
        let seen = Seen::look(&fixture.cluster)?;
        before_leases();
        let mut spared = Spared::default();
        spared.look_at_leases(&fixture.cluster, lease)?;
        before_headers();
        spared.look_at_headers(&fixture.cluster)?;
        remove(&fixture.cluster, lease, &seen, &spared, None)
    }

    #[test]
    fn what_a_dead_run_left_is_swept_and_nothing_else() {
        let fixture = Fixture::create();
        let (kept_run, dead_run) = (id(), id());
        let kept = pack(&fixture, kept_run);
        fixture.backup("kept", kept_run, &[kept]);
        let dead = pack(&fixture, dead_run);
        // A later pack of a run whose backup does not list it is garbage too.
        let unlisted = pack(&fixture, id());
        map(&fixture, "dead");
        let dead_map = fixture.cluster.layout().backup_map(&name("dead")).expect("key");
        set_age(&fixture.file(&dead_map), Duration::from_secs(60));
        let lease = lease(&fixture, id());
        let swept = sweep(&fixture.cluster, &lease).expect("swept");
        assert_eq!((swept.packs, swept.maps, swept.unfinished, swept.postponed), (2, 1, 0, false));
        assert!(swept.bytes > dead.size + unlisted.size, "and the map's");
        assert!(has(&fixture, kept) && !has(&fixture, dead) && !has(&fixture, unlisted));
        drop(lease);
        let left = fixture.objects();
        let expected = ["backup/kept/backup.json", "backup/kept/files.jsonl.zst"];
        assert_eq!(left[..2], expected);
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn packs_of_an_earlier_backup_that_a_later_one_lists_stay() {
        let fixture = Fixture::create();
        let first = pack(&fixture, id());
        let second_run = id();
        let second = pack(&fixture, second_run);
        fixture.backup("second", second_run, &[first, second]);
        let swept = sweep(&fixture.cluster, &lease(&fixture, id())).expect("swept");
        assert_eq!(swept.packs, 0);
        assert!(has(&fixture, first) && has(&fixture, second));
    }

    #[test]
    fn a_run_that_is_at_work_is_left_alone() {
        let fixture = Fixture::create();
        let run = id();
        let lease = lease(&fixture, run);
        let ours = pack(&fixture, run);
        map(&fixture, "ours");
        assert_eq!(sweep(&fixture.cluster, &lease), Ok(Swept::default()));
        assert!(has(&fixture, ours));
    }

    #[test]
    fn a_run_that_begins_while_a_sweep_looks_is_not_in_its_list() {
        for early in [true, false] {
            let fixture = Fixture::create();
            let lease = lease(&fixture, id());
            // Without a lease of its own: the order alone must protect it.
            let begin = || assert!(has(&fixture, pack(&fixture, id())));
            let swept = match early {
                true => sweep_with(&fixture, &lease, begin, || ()),
                false => sweep_with(&fixture, &lease, || (), begin),
            };
            assert_eq!(swept.expect("swept").packs, 0, "early: {early}");
        }
    }

    #[test]
    fn a_run_that_ends_while_a_sweep_looks_keeps_its_packs() {
        let fixture = Fixture::create();
        let (ours, theirs) = (lease(&fixture, id()), id());
        let pack = pack(&fixture, theirs);
        let their_lease = fixture.cluster.layout().lease(id()).expect("key");
        let ours_as_text = std::fs::read_to_string(
            fixture
                .dir
                .path()
                .join(fixture.cluster.layout().root().expect("key").as_str())
                .join(&fixture.objects()[0]),
        )
        .expect("read");
        let record = ours_as_text.replace(&ours.run().to_string(), &theirs.to_string());
        fixture.cluster.store().create(&their_lease, record.into_bytes()).expect("created");
        let finish = || {
            fixture.backup("theirs", theirs, &[pack]);
            fixture.cluster.store().delete(&their_lease).expect("released");
        };
        let swept = sweep_with(&fixture, &ours, finish, || ()).expect("swept");
        assert_eq!((swept.packs, swept.maps), (0, 0), "its header is seen");

        std::fs::write(fixture.file(&their_lease), "").expect("at work again");
        assert!(sweep(&fixture.cluster, &ours).is_err(), "a lease that can't be read stops the sweep");
        assert!(has(&fixture, pack));
    }

    #[test]
    fn a_run_that_ends_after_its_lease_was_seen_keeps_its_packs() {
        let fixture = Fixture::create();
        let run = id();
        let lease = lease(&fixture, run);
        let pack = pack(&fixture, run);
        let swept = sweep_with(&fixture, &lease, || (), || fixture.backup("ours", run, &[pack]));
        assert_eq!(swept, Ok(Swept::default()));
    }

    #[test]
    fn a_header_that_can_not_be_read_stops_the_sweep_before_it_deletes() {
        for text in ["", "{", r#"{"format":"pgark backup","version":2}"#] {
            let fixture = Fixture::create();
            fixture.backup("odd", id(), &[]);
            let garbage = pack(&fixture, id());
            let header = fixture.cluster.layout().backup_header(&name("odd")).expect("key");
            fixture.damage(&header, |bytes| *bytes = text.as_bytes().to_vec());
            let error = sweep(&fixture.cluster, &lease(&fixture, id())).expect_err("refused");
            assert!(error.message().starts_with("swept nothing"), "{error}");
            assert!(has(&fixture, garbage), "{text}");
        }
    }

    #[test]
    fn a_map_that_appeared_under_the_label_of_a_dead_run_stays() {
        let fixture = Fixture::create();
        let lease = lease(&fixture, id());
        map(&fixture, "young");
        map(&fixture, "old");
        let old = fixture.file(&fixture.cluster.layout().backup_map(&name("old")).expect("key"));
        set_age(&old, Duration::from_secs(60));
        assert_eq!(sweep(&fixture.cluster, &lease).expect("swept").maps, 1);
        assert!(!old.exists());
        assert!(fixture.objects().contains(&"backup/young/files.jsonl.zst".to_string()));
    }

    #[test]
    fn what_killed_writers_never_published_is_swept() {
        let fixture = Fixture::create();
        let root = fixture.file(&fixture.cluster.layout().root().expect("key"));
        for dir in ["pack", "staging", "wal/00000001/00000000"] {
            std::fs::create_dir_all(root.join(dir)).expect("created");
        }
        let write = |name: &str, age: Duration| {
            std::fs::write(root.join(name), "x").expect("written");
            set_age(&root.join(name), age);
        };
        write("pack/00112233445566778899aabbccddeeff-00000000.pack#1", Duration::ZERO);
        write("staging/00112233445566778899aabbccddeeff", 2 * IDLE);
        write("staging/ffeeddccbbaa99887766554433221100", Duration::ZERO);
        write("wal/00000001/00000000/000000010000000000000001.zst#1", 2 * IDLE);
        write("wal/00000001/00000000/000000010000000000000002.zst#1", Duration::ZERO);
        let lease = lease(&fixture, id());
        assert_eq!(sweep(&fixture.cluster, &lease).expect("swept").unfinished, 3);
        let left: Vec<String> =
            fixture.objects().into_iter().filter(|object| !object.starts_with("lease/")).collect();
        assert_eq!(
            left,
            [
                "staging/ffeeddccbbaa99887766554433221100",
                "wal/00000001/00000000/000000010000000000000002.zst#1"
            ]
        );
    }

    fn restore(label: &str) -> Purpose {
        let first = "000000010000000000000002".parse().expect("a name");
        Purpose::restore(&name(label), NeededWal { first, timeline: Timeline(1) })
    }

    #[test]
    fn while_another_backup_is_at_work_no_pack_goes_for_it_may_build_on_any() {
        let fixture = Fixture::create();
        let theirs = lease(&fixture, id());
        let ours = Lease::acquire(&fixture.cluster, Purpose::expire(), id()).expect("beside a backup");
        let predecessors = pack(&fixture, id());
        map(&fixture, "predecessor");
        let expired =
            Expired { packs: [predecessors.id].into(), labels: [name("predecessor")].into(), kept: vec![] };
        let swept = sweep_expired(&fixture.cluster, &ours, &expired).expect("looked");
        assert!(swept.postponed && swept.is_nothing(), "{swept:?}");
        assert!(has(&fixture, predecessors));
        drop(theirs);
        std::thread::sleep(Duration::from_millis(20));
        drop(ours);
        let ours = Lease::acquire(&fixture.cluster, Purpose::expire(), id()).expect("alone");
        let swept = sweep_expired(&fixture.cluster, &ours, &expired).expect("swept");
        assert_eq!((swept.packs, swept.maps, swept.postponed), (1, 1, false));
    }

    #[test]
    fn what_is_being_restored_stays_though_its_header_has_gone() {
        let fixture = Fixture::create();
        let packs = pack(&fixture, id());
        let run = id();
        let listed = pack(&fixture, run);
        fixture.backup("listed", run, &[listed]);
        let ours = lease(&fixture, id());
        let with = |label: &str| {
            let restoring = Lease::acquire(&fixture.cluster, restore(label), id()).expect("any number");
            let swept = sweep(&fixture.cluster, &ours).expect("looked");
            drop(restoring);
            swept
        };
        assert!(with("gone").postponed && has(&fixture, packs));
        assert_eq!(with("listed").packs, 1, "a header says what it needs");
        assert!(has(&fixture, listed));
    }

    #[test]
    fn an_expiry_takes_what_it_expired_and_orphans_of_yesterday() {
        let fixture = Fixture::create();
        let [expired, young, old] = [(); 3].map(|()| pack(&fixture, id()));
        let ours = Lease::acquire(&fixture.cluster, Purpose::expire(), id()).expect("alone");
        set_age(&fixture.file(&fixture.cluster.layout().pack(old.id).expect("key")), IDLE * 2);
        for label in ["young", "old"] {
            map(&fixture, label);
        }
        let key = fixture.cluster.layout().backup_map(&name("old")).expect("key");
        set_age(&fixture.file(&key), IDLE * 2);
        let expired_now = Expired { packs: [expired.id].into(), ..Expired::default() };
        let swept = sweep_expired(&fixture.cluster, &ours, &expired_now).expect("swept");
        assert_eq!((swept.packs, swept.maps), (2, 1));
        assert!(has(&fixture, young) && !has(&fixture, expired) && !has(&fixture, old));
    }

    #[test]
    fn when_kept_headers_vanish_nothing_is_swept() {
        let fixture = Fixture::create();
        let garbage = pack(&fixture, id());
        let ours = Lease::acquire(&fixture.cluster, Purpose::expire(), id()).expect("alone");
        let expired = Expired { packs: [garbage.id].into(), kept: vec![name("kept")], ..Expired::default() };
        let error = sweep_expired(&fixture.cluster, &ours, &expired).expect_err("not to be trusted");
        assert!(error.message().contains("kept") && has(&fixture, garbage), "{error}");
    }

    #[test]
    fn a_listing_of_leases_without_our_own_is_not_trusted() {
        let fixture = Fixture::create();
        let ours = lease(&fixture, id());
        let seen = Seen::look(&fixture.cluster).expect("looked");
        let leases = fixture.file(&fixture.cluster.layout().leases().expect("key"));
        let aside = leases.with_extension("aside");
        std::fs::rename(&leases, &aside).expect("unmounted");
        let error = Spared::default().look_at_leases(&fixture.cluster, &ours).expect_err("refused");
        std::fs::rename(&aside, &leases).expect("mounted");
        assert!(error.message().contains("our own lease") && seen.packs.is_empty(), "{error}");
    }

    fn set_age(path: &std::path::Path, age: Duration) {
        let file = File::options().write(true).open(path).expect("opened");
        file.set_modified(SystemTime::now() - age).expect("set");
    }
}
