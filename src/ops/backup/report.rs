//! What `basebackup` says on standard output when the backup exists: for people or, with `--output json`,
//! for machines.

use std::fmt;

use indicatif::BinaryBytes;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::ident::Name;
use crate::repo::backup::{BackupHeader, DamagedPage, DamagedPages};

/// Damaged pages that the text names.
const NAMED: usize = 10;

/// A backup that exists.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub cluster: Name,
    #[serde(flatten)]
    summary: Summary,
}

/// The parts of the header that somebody wants to know at once; the whole is in the repository.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    label: Name,
    system_id: String,
    server_version: String,
    from_standby: bool,
    start_lsn: String,
    stop_lsn: String,
    timeline: u32,
    files: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    /// Of raw to stored bytes.
    ratio: f64,
    copy_seconds: u64,
    wal_wait_seconds: u64,
    damaged_pages: DamagedPages,
    warnings: Vec<String>,
}

impl Report {
    pub fn new(cluster: &Name, header: BackupHeader) -> Self {
        let totals = header.totals;
        let ratio = totals.raw_bytes as f64 / totals.stored_bytes.max(1) as f64;
        let summary = Summary {
            label: header.label,
            system_id: header.system_id.to_string(),
            server_version: header.server.version,
            from_standby: header.from_standby,
            start_lsn: header.start.lsn.to_string(),
            stop_lsn: header.consistent_lsn.to_string(),
            timeline: header.stop.timeline.0,
            files: header.map.files,
            raw_bytes: totals.raw_bytes,
            stored_bytes: totals.stored_bytes,
            ratio: (ratio * 100.0).round() / 100.0,
            copy_seconds: totals.copy_seconds,
            wal_wait_seconds: totals.wal_wait_seconds,
            damaged_pages: header.damaged_pages,
            warnings: header.warnings,
        };
        Self { cluster: cluster.clone(), summary }
    }

    /// Whether pages of the cluster are damaged, which the exit status tells.
    pub fn has_damage(&self) -> bool {
        self.summary.damaged_pages.count > 0
    }

    pub fn label(&self) -> &Name {
        &self.summary.label
    }

    /// One line, with what became of `--expire` if that was asked for.
    pub fn json(&self, expire: Option<&impl Serialize>) -> Result<String> {
        #[derive(Serialize)]
        struct Whole<'a, E> {
            #[serde(flatten)]
            report: &'a Report,
            #[serde(skip_serializing_if = "Option::is_none")]
            expire: Option<&'a E>,
        }
        let whole = Whole { report: self, expire };
        serde_json::to_string(&whole).map_err(|cause| Error::bug(format!("could not write JSON: {cause}")))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = &self.summary;
        let role = if summary.from_standby { "standby" } else { "primary" };
        writeln!(f, "backup {} of cluster {} is complete", summary.label, self.cluster)?;
        writeln!(
            f,
            "  from the {role}, WAL {} to {} on timeline {}",
            summary.start_lsn, summary.stop_lsn, summary.timeline
        )?;
        writeln!(
            f,
            "  {} in {} files, stored as {} (ratio {:.2})",
            BinaryBytes(summary.raw_bytes),
            summary.files,
            BinaryBytes(summary.stored_bytes),
            summary.ratio
        )?;
        write!(f, "  copied in {} s, waited {} s for WAL", summary.copy_seconds, summary.wal_wait_seconds)?;
        match damage(&summary.damaged_pages).as_str() {
            "" => Ok(()),
            damage => write!(f, "\n  {damage}"),
        }
    }
}

/// The damaged pages in a sentence; nothing if there are none.
pub fn damage(pages: &DamagedPages) -> String {
    if pages.count == 0 {
        return String::new();
    }
    let named: Vec<String> = pages.first.iter().take(NAMED).map(page).collect();
    let more = pages.count.saturating_sub(NAMED as u64);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("DAMAGED PAGES: {}: {}{more}", pages.count, named.join(", "))
}

/// "block 3 of base/5/16384 (accounts)"
pub fn page(page: &DamagedPage) -> String {
    let relation = page.relation.as_ref().map_or(String::new(), |relation| format!(" ({relation})"));
    format!("block {} of {}{relation}", page.block, page.path.as_path().display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::Id;
    use crate::pg::page::BlockNumber;
    use crate::pipe::digest::Sha256Digest;
    use crate::repo::escape::StoredPath;
    use crate::repo::fixture;
    use crate::repo::map::MapSummary;

    fn report(damaged: u32) -> Report {
        let digest = Sha256Digest::of(b"");
        let map = MapSummary {
            size: 1,
            sha256: digest,
            list_sha256: digest,
            chunks: 1,
            files: 7,
            directories: 2,
            raw_bytes: 3 << 20,
        };
        let mut header = fixture::header("x", Id::random().expect("random"), map, &[]);
        let page = |block| DamagedPage {
            path: StoredPath("base/5/16384".into()),
            block: BlockNumber(block),
            relation: (block == 0).then(|| "public.t".to_string()),
        };
        let first = (0..damaged).map(page).collect();
        header.damaged_pages = DamagedPages { count: u64::from(damaged), first };
        header.totals.raw_bytes = 3 << 20;
        header.totals.stored_bytes = 1 << 20;
        Report::new(&"main".parse().expect("a name"), header)
    }

    #[test]
    fn the_text_says_what_was_stored_and_what_is_damaged() {
        let text = report(0).to_string();
        assert!(text.starts_with("backup x of cluster main is complete\n"), "{text}");
        assert!(text.contains("3.00 MiB in") && text.contains("stored as 1.00 MiB (ratio 3.00)"), "{text}");
        assert!(!text.contains("DAMAGED") && !report(0).has_damage());
        let text = report(12).to_string();
        let expected = "DAMAGED PAGES: 12: block 0 of base/5/16384 (public.t), block 1 of base/5/16384, ";
        assert!(text.contains(expected) && text.ends_with(", and 2 more"), "{text}");
        assert!(report(12).has_damage());
    }

    #[test]
    fn the_json_is_one_flat_line() {
        let json = report(1).json(None::<&()>).expect("JSON");
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (&value["cluster"], &value["label"], &value["ratio"]),
            (&"main".into(), &"x".into(), &3.0.into())
        );
        assert_eq!(value["damaged_pages"]["first"][0]["relation"], "public.t");
    }
}
