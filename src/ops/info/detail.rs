//! `pgark info BACKUP`: one backup in full, as its header tells it, and what it is good for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::Request;
use super::summary::{BackupSummary, Incarnation, WindowSummary};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::ident::{Id, Name};
use crate::pg::lsn::{Lsn, SystemId, Timeline};
use crate::repo::backup::{
    self, BackupHeader, CheckpointMode, DamagedPages, Locale, Server, Tablespace, Totals,
};
use crate::repo::{Repository, layout::PackId};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackupDetail {
    pub time: Timestamp,
    pub cluster: Name,
    pub system_id: SystemId,
    /// As `pgark info` lists it.
    pub backup: BackupSummary,
    /// The windows within which it lies: what can be restored from it, and on which timeline.
    pub windows: Vec<Reach>,
    /// Names its packs and its lease.
    pub run: Id,
    pub server: Server,
    pub pgark: String,
    pub checkpoint: CheckpointMode,
    pub tablespaces: Vec<Tablespace>,
    pub data_checksums: bool,
    pub block_size_bytes: u32,
    pub files: u64,
    pub map_bytes: u64,
    pub packs: Packs,
    pub damaged_pages: DamagedPages,
    pub settings: BTreeMap<String, String>,
    pub locale: Locale,
    pub totals: Totals,
    pub warnings: Vec<String>,
}

/// From the backup's end on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reach {
    pub timeline: Timeline,
    pub to_time: Option<Timestamp>,
    pub to_lsn: Lsn,
    /// Whether the window begins with this backup.
    pub opened: bool,
}

/// Where its bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Packs {
    /// That its own run wrote.
    pub own: u64,
    pub own_bytes: u64,
    /// Of earlier runs.
    pub inherited: u64,
    pub inherited_bytes: u64,
}

/// The backup with this label in whichever incarnation has it.
pub fn look(config: &Config, request: &Request, label: &Name) -> Result<BackupDetail> {
    let repository = Repository::open(config.repo()?, config.repo_id)?;
    let summary = super::cluster(&repository, &config.cluster, request)?;
    let having =
        summary.incarnations.iter().filter_map(|incarnation| Some((incarnation, incarnation.backup(label)?)));
    let having: Vec<(&Incarnation, &BackupSummary)> = having.collect();
    match having.as_slice() {
        [(incarnation, found)] => {
            let cluster = repository.cluster(&config.cluster, incarnation.system_id);
            detail(&config.cluster, request.now, incarnation, found, backup::read(&cluster, label)?)
        }
        [] => Err(none(&repository, config, request, &summary.incarnations, label)),
        several => {
            let ids: Vec<String> = several.iter().map(|(one, _)| one.system_id.to_string()).collect();
            Err(Error::configuration(format!(
                "several incarnations of {} have a backup {label}",
                config.cluster
            ))
            .with_hint(format!("choose one with --system-id: {}", ids.join(", "))))
        }
    }
}

/// Says why there is none: perhaps it can't be read.
fn none(
    repository: &Repository,
    config: &Config,
    request: &Request,
    incarnations: &[Incarnation],
    label: &Name,
) -> Error {
    for incarnation in incarnations {
        let cluster = repository.cluster(&config.cluster, incarnation.system_id);
        match backup::read(&cluster, label) {
            Err(error) if error.kind() != Kind::NotFound => return error,
            _ => {}
        }
    }
    let known: Vec<&str> =
        incarnations.iter().flat_map(|one| &one.backups).map(|backup| backup.label.as_str()).collect();
    let of = request.system_id.map(|id| format!(" with system identifier {id}")).unwrap_or_default();
    let error = Error::not_found(format!("there is no backup {label} of {}{of}", config.cluster));
    match known.as_slice() {
        [] => error.with_hint("there is none at all yet"),
        [.., newest] => error.with_hint(format!("the newest is {newest}; `pgark info --all` lists all")),
    }
}

fn detail(
    cluster: &Name,
    time: Timestamp,
    incarnation: &Incarnation,
    found: &BackupSummary,
    header: BackupHeader,
) -> Result<BackupDetail> {
    let packs = packs(&header);
    Ok(BackupDetail {
        time,
        cluster: cluster.clone(),
        system_id: incarnation.system_id,
        backup: found.clone(),
        windows: reach(incarnation, found),
        run: header.run,
        server: header.server,
        pgark: header.pgark,
        checkpoint: header.checkpoint,
        tablespaces: header.tablespaces,
        data_checksums: header.data_checksums,
        block_size_bytes: u32::from(header.block_size),
        files: header.map.files,
        map_bytes: header.map.size,
        packs,
        damaged_pages: header.damaged_pages,
        settings: header.settings,
        locale: header.locale,
        totals: header.totals,
        warnings: header.warnings,
    })
}

fn packs(header: &BackupHeader) -> Packs {
    let mut packs = Packs::default();
    for pack in &header.packs {
        let PackId { backup, .. } = pack.id;
        let (count, bytes) = match backup == header.run {
            true => (&mut packs.own, &mut packs.own_bytes),
            false => (&mut packs.inherited, &mut packs.inherited_bytes),
        };
        *count += 1;
        *bytes = bytes.saturating_add(pack.size);
    }
    packs
}

fn reach(incarnation: &Incarnation, backup: &BackupSummary) -> Vec<Reach> {
    let mut reach = Vec::new();
    for path in incarnation.paths.iter().filter(|path| path.backups.contains(&backup.label)) {
        let within = |window: &&WindowSummary| {
            window.from_lsn <= backup.consistent_lsn && backup.consistent_lsn <= window.to_lsn
        };
        reach.extend(path.windows.iter().filter(within).map(|window| Reach {
            timeline: path.timeline,
            to_time: window.to_time.filter(|to| *to >= backup.stop_time),
            to_lsn: window.to_lsn,
            opened: window.backup == backup.label,
        }));
    }
    reach
}
