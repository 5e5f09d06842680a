//! The header of the backup: what is known at its end, put together.

use jiff::Timestamp;

use super::archive::Needed;
use super::locale;
use super::server::Server;
use super::session::Stopped;
use super::sink::Suspects;
use crate::error::{Error, Result};
use crate::host;
use crate::pg::client::Client;
use crate::pg::datadir::{DataDir, Tablespace as Linked};
use crate::pg::lsn::Lsn;
use crate::pg::names::SegmentName;
use crate::pg::oid::Oid;
use crate::repo::backup::{
    BackupHeader, CheckpointMode, DAMAGED_PAGES_NAMED, DamagedPage, DamagedPages, FORMAT, Start, Stop,
    Tablespace, Totals, VERSION,
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
    pub needed: Needed,
    pub data_dir: &'a DataDir,
    pub map: MapSummary,
    pub packs: Vec<PackSummary>,
    pub damaged_pages: DamagedPages,
    pub totals: Totals,
    pub warnings: Vec<String>,
}

/// Puts the header together. Asks the server for what it has not been asked yet: names and locales.
pub fn build(facts: Facts<'_>, stopped: &mut Stopped) -> Result<BackupHeader> {
    let (server, needed) = (facts.server, facts.needed);
    let control = &server.control;
    let timeline = stopped.label.start_timeline;
    Ok(BackupHeader {
        format: FORMAT.to_string(),
        version: VERSION,
        label: facts.label.clone(),
        run: facts.run,
        system_id: control.system_id,
        server: server.version.clone(),
        start: Start {
            lsn: needed.start,
            timeline,
            time: facts.start_time,
            redo_segment: SegmentName::containing(timeline, needed.start, control.segment_size),
        },
        stop: Stop { lsn: stopped.lsn, timeline: needed.timeline, time: stopped.time },
        consistent_lsn: needed.end,
        from_standby: server.in_recovery,
        checkpoint: facts.checkpoint,
        tablespaces: tablespaces(facts.data_dir, &mut stopped.client)?,
        segment_size: control.segment_size,
        block_size: control.block_size,
        blocks_per_file: control.blocks_per_file,
        data_checksums: control.has_checksums(),
        damaged_pages: facts.damaged_pages,
        backup_label: stopped.label_text.clone(),
        tablespace_map: stopped.tablespace_map.clone(),
        map: facts.map,
        packs: facts.packs,
        predecessor: None,
        settings: server.kept_settings(),
        locale: locale::look(&mut stopped.client)?,
        host: host::name(),
        pgark: env!("CARGO_PKG_VERSION").to_string(),
        totals: facts.totals,
        warnings: facts.warnings,
    })
}

/// The tablespaces outside the data directory.
fn tablespaces(data_dir: &DataDir, client: &mut Client) -> Result<Vec<Tablespace>> {
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
    };
    let all: Vec<DamagedPage> = damaged.map(named).collect();
    // Beyond the limit nothing is known but their number, and with so many there is no doubt.
    let beyond = suspects.count - suspects.first.len() as u64;
    let count = all.len() as u64 + beyond;
    DamagedPages { count, first: all.into_iter().take(DAMAGED_PAGES_NAMED).collect() }
}

/// For who wants no backup of a damaged cluster.
pub fn refuse_damage(pages: &DamagedPages) -> Error {
    let first = pages.first.first().map_or(String::new(), |page| {
        format!(", the first in block {} of {}", page.block, page.path.as_path().display())
    });
    Error::corrupt(format!("made no backup: {} pages of the cluster are damaged{first}", pages.count))
        .with_hint("without --fail-on-damaged-pages the backup is made, and they are reported")
}
