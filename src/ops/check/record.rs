//! The results of checks in the repository, for `pgark report` and `pgark metrics`: the newest few of each host.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Level, Measure};
use crate::error::Result;
use crate::repo::Cluster;
use crate::repo::records::{self, Found, Record};

/// So many of a host are kept.
const KEPT: usize = 10;

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// Where it ran.
    pub host: String,
    /// By that host's clock.
    pub started: Timestamp,
    pub level: Level,
    pub findings: Vec<Finding>,
    pub measures: Vec<Measure>,
}

impl Record for CheckRecord {
    const KIND: &'static str = "check";
    const FORMAT: &'static str = "pgark check";
    const VERSION: u32 = 1;
}

/// All that are kept, oldest first.
pub fn list(cluster: &Cluster) -> Result<Vec<Found<CheckRecord>>> {
    records::news(cluster)
}

/// Keeps a result and deletes older ones of its host.
pub fn keep(cluster: &Cluster, record: &CheckRecord) -> Result<()> {
    records::put(cluster, record)?;
    let mut of_host = list(cluster)?;
    of_host.retain(|found| found.record.host == record.host);
    let surplus = of_host.len().saturating_sub(KEPT);
    for old in of_host.into_iter().take(surplus) {
        records::delete::<CheckRecord>(cluster, old.id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::fixture::Fixture;

    fn record(host: &str, level: Level) -> CheckRecord {
        let findings = vec![Finding::new(level, "fsync", "fsync is off").because("why").remedy("what")];
        let measures = vec![Measure::new("waiting_segments", 3)];
        CheckRecord { host: host.into(), started: Timestamp::UNIX_EPOCH, level, findings, measures }
    }

    #[test]
    fn the_newest_few_of_each_host_are_kept() {
        let fixture = Fixture::create();
        keep(&fixture.cluster, &record("db2", Level::Ok)).expect("kept");
        for _ in 0..KEPT + 3 {
            keep(&fixture.cluster, &record("db1", Level::Critical)).expect("kept");
        }
        let kept = list(&fixture.cluster).expect("listed");
        assert_eq!(kept.len(), KEPT + 1);
        assert_eq!(kept.first().map(|found| found.record.clone()), Some(record("db2", Level::Ok)));
    }
}
