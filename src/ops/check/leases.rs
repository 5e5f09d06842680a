//! Leases: a backup that runs is told, and so is one that died and left its lease.

use std::time::SystemTime;

use jiff::Timestamp;

use super::finding::Finding;
use super::words::span;
use crate::error::Result;
use crate::repo::Cluster;
use crate::repo::lease::{self, TTL};

const CHECK: &str = "lease";

/// Nothing where nobody holds one.
pub fn judge(cluster: &Cluster) -> Result<Vec<Finding>> {
    let now = SystemTime::now();
    Ok(lease::list(cluster)?.iter().map(|held| finding(held, now)).collect())
}

fn finding(held: &lease::Held, now: SystemTime) -> Finding {
    let silent = now.duration_since(held.renewed()).unwrap_or_default();
    let Some(record) = &held.record else {
        return Finding::warning(CHECK, "somebody holds a lease that can't be read")
            .because("until it lapses, no backup can begin")
            .remedy("is a newer pgark at work on another host? `pgark repo ls` shows the lease");
    };
    let process = &record.process;
    let who = format!("process {} of {} on {}", process.pid, process.user, process.host);
    if silent > TTL {
        let what =
            format!("a {} that {who} began has not renewed its lease for {}", record.kind, span(silent));
        return Finding::warning(CHECK, what)
            .because("it died: it made no backup, and what it wrote so far takes room")
            .remedy("see why it died; the next backup removes its lease and what it left");
    }
    let since = Timestamp::now().duration_since(record.started).unsigned_abs();
    Finding::ok(CHECK, format!("a {} runs: {who}, for {}", record.kind, span(since)))
}
