//! The header of the backup: what is known at its end, put together.

use jiff::Timestamp;

use super::report::page;
use super::server::Server;
use super::session::Stopped;
use super::sink::Suspects;
use crate::error::{Error, Result};
use crate::host;
use crate::pg::client::Client;
use crate::pg::datadir::{DataDir, Tablespace as Linked};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::oid::Oid;
use crate::repo::backup::{
    BackupHeader, CheckpointMode, DAMAGED_PAGES_NAMED, DamagedPage, DamagedPages, FORMAT, Locale, Start,
    Stop, Tablespace, Totals, VERSION,
};
use crate::repo::escape::StoredPath;
use crate::repo::layout::{Id, Name};
use crate::repo::map::MapSummary;
use crate::repo::pack::PackSummary;

/// What the steps before found out.
pub struct Facts<'a> {
    pub server: &'a Server,
    pub label: &'a Name,
    pub run: Id,
    pub checkpoint: CheckpointMode,
    pub start_time: Timestamp,
    pub stopped: Stopped,
    pub consistent_lsn: Lsn,
    pub stop_timeline: Timeline,
    pub tablespaces: Vec<Tablespace>,
    pub locale: Locale,
    pub map: MapSummary,
    pub packs: Vec<PackSummary>,
    pub damaged_pages: DamagedPages,
    pub totals: Totals,
    pub warnings: Vec<String>,
}

/// Puts the header together.
pub fn build(facts: Facts<'_>) -> BackupHeader {
    let (server, stopped) = (facts.server, facts.stopped);
    let control = &server.control;
    let start = &stopped.label;
    BackupHeader {
        format: FORMAT.to_string(),
        version: VERSION,
        label: facts.label.clone(),
        run: facts.run,
        system_id: control.system_id,
        server: server.version.clone(),
        start: Start {
            lsn: start.start,
            timeline: start.start_timeline,
            time: facts.start_time,
            redo_segment: start.start_segment,
        },
        stop: Stop { lsn: stopped.lsn, timeline: facts.stop_timeline, time: stopped.time },
        consistent_lsn: facts.consistent_lsn,
        from_standby: server.in_recovery,
        checkpoint: facts.checkpoint,
        tablespaces: facts.tablespaces,
        segment_size: control.segment_size,
        block_size: control.block_size,
        blocks_per_file: control.blocks_per_file,
        data_checksums: control.has_checksums(),
        damaged_pages: facts.damaged_pages,
        backup_label: stopped.label_text,
        tablespace_map: stopped.tablespace_map,
        map: facts.map,
        packs: facts.packs,
        predecessor: None,
        settings: server.kept_settings(),
        locale: facts.locale,
        host: host::name(),
        pgark: env!("CARGO_PKG_VERSION").to_string(),
        totals: facts.totals,
        warnings: facts.warnings,
    }
}

/// The tablespaces outside the data directory.
pub fn tablespaces(data_dir: &DataDir, client: &mut Client) -> Result<Vec<Tablespace>> {
    let mut named = Vec::new();
    for Linked { oid, location } in data_dir.tablespaces() {
        let Some(location) = location else { continue };
        let name = tablespace_name(client, *oid)?;
        named.push(Tablespace { oid: *oid, name, location: StoredPath(location.clone()) });
    }
    Ok(named)
}

/// A tablespace that was dropped during the backup has no name any more, but its link is restored: the WAL
/// that drops it wants to find it.
fn tablespace_name(client: &mut Client, oid: Oid) -> Result<String> {
    let rows = client.query("select spcname::text from pg_tablespace where oid = $1", &[&oid.0])?;
    rows.first().map_or_else(|| Ok(oid.to_string()), |row| row.get(0))
}

/// Of the pages whose checksum was wrong, those that replay does not write anew.
pub fn damaged_pages(suspects: &Suspects, start: Lsn, stop: Lsn) -> DamagedPages {
    let damaged = suspects.first.iter().filter(|(_, page)| page.is_damaged(start, stop));
    let named = |(path, page): &(crate::repo::map::MapPath, super::pages::BadPage)| DamagedPage {
        path: StoredPath(path.as_path().to_path_buf()),
        block: page.block,
        relation: None,
    };
    let all: Vec<DamagedPage> = damaged.map(named).collect();
    // Beyond the limit nothing is known but their number, and with so many there is no doubt.
    let beyond = suspects.count - suspects.first.len() as u64;
    let count = all.len() as u64 + beyond;
    DamagedPages { count, first: all.into_iter().take(DAMAGED_PAGES_NAMED).collect() }
}

/// For who wants no backup of a damaged cluster.
pub fn refuse_damage(pages: &DamagedPages) -> Error {
    let first = pages.first.first().map_or(String::new(), |first| format!(", the first is {}", page(first)));
    Error::corrupt(format!("made no backup: {} pages of the cluster are damaged{first}", pages.count))
        .with_hint("without --fail-on-damaged-pages the backup is made, and they are reported")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::backup::pages::BadPage;
    use crate::pg::page::BlockNumber;
    use crate::repo::map::MapPath;

    fn suspects(lsns: &[u64], count: u64) -> Suspects {
        let page = |(block, lsn): (u32, &u64)| {
            let path = MapPath::data("base/5/16384").expect("a path");
            (path, BadPage { block: BlockNumber(block), lsn: Lsn(*lsn) })
        };
        Suspects { count, first: (0..).zip(lsns).map(page).collect() }
    }

    #[test]
    fn pages_that_replay_writes_anew_are_not_damaged() {
        let found = damaged_pages(&suspects(&[5, 15, 25, 20], 4), Lsn(10), Lsn(20));
        let blocks: Vec<u32> = found.first.iter().map(|page| page.block.0).collect();
        assert_eq!((found.count, blocks), (2, vec![0, 2]));
    }

    #[test]
    fn of_very_many_damaged_pages_the_first_are_named_and_all_are_counted() {
        let found = damaged_pages(&suspects(&[5; 2000], 50_000), Lsn(10), Lsn(20));
        assert_eq!((found.count, found.first.len()), (50_000, DAMAGED_PAGES_NAMED));
        let error = refuse_damage(&found);
        assert!(error.message().contains("50000 pages"), "{error}");
        assert!(error.message().ends_with("the first is block 0 of base/5/16384"), "{error}");
    }
}
