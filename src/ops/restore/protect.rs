//! Keeps the backup that is restored, and the WAL behind it, from being expired: a lease in the repository, for as long
//! as files are copied and recovery is followed. `docs/decisions/leases.md` has the interleavings.
//!
//! A restore is an emergency: whatever is in the way of the lease (a repository that is read-only, or another user's) costs
//! a warning, never the restore. Nothing is left in the repository that its owner could not delete.

use std::time::{Duration, Instant};

use super::plan::Decision;
use crate::error::{Error, Kind, Result};
use crate::ident::Id;
use crate::interrupt::Interrupt;
use crate::progress::{self, Display};
use crate::repo::lease::{Lease, LeaseKind, NeededWal, Purpose};
use crate::repo::{Cluster, backup, catalog::Catalog};

/// How long to wait for an expiry that began before us: it stops at its next look, if it is alive.
const EXPIRY_LIMIT: Duration = Duration::from_secs(60);
const EXPIRY_POLL: Duration = Duration::from_millis(200);

/// Takes the lease, None when there can be none, and makes sure that all that was chosen is still there.
pub fn protect(
    cluster: &Cluster,
    decision: &Decision,
    display: Display,
    interrupt: &Interrupt,
) -> Result<Option<Lease>> {
    let lease = match acquire(cluster, decision).and_then(|lease| {
        wait_for_expiry(&lease, display, interrupt)?;
        Ok(lease)
    }) {
        Ok(lease) => Some(lease),
        Err(error) => {
            interrupt.check()?;
            let label = &decision.header.label;
            tracing::warn!(
                "nothing keeps `pgark expire` from deleting backup {label} or the WAL behind it while it is being \
                 restored: {error} (`pgark pin {label}`, where the repository can be written, does)"
            );
            None
        }
    };
    expect_all(cluster, decision)?;
    Ok(lease)
}

fn acquire(cluster: &Cluster, decision: &Decision) -> Result<Lease> {
    let run = Id::random()?;
    if !cluster.store().leaves_to_owner(&cluster.layout().lease(run)?)? {
        return Err(Error::configuration("the repository belongs to another user"));
    }
    let wal = NeededWal { first: decision.segments().0, timeline: decision.choice.path.timeline() };
    Lease::acquire(cluster, Purpose::restore(&decision.header.label, wal), run)
}

/// An expiry that listed the leases before ours was there goes on until it looks again.
fn wait_for_expiry(lease: &Lease, display: Display, interrupt: &Interrupt) -> Result<()> {
    let began = Instant::now();
    let mut told = false;
    while let Some(expiry) = lease.beside(LeaseKind::Expire)? {
        let who = expiry.record.map_or_else(String::new, |record| record.who());
        if began.elapsed() > EXPIRY_LIMIT {
            tracing::warn!(
                "an expiry does not end: {who}; if it deletes what is needed, this restore fails and says so"
            );
            break;
        }
        if !told {
            progress::notice(display, &format!("waiting for an expiry to end: {who}"));
            told = true;
        }
        interrupt.sleep(EXPIRY_POLL)?;
    }
    Ok(())
}

/// An expiry may have been at work since the choice.
fn expect_all(cluster: &Cluster, decision: &Decision) -> Result<()> {
    let label = &decision.header.label;
    let expired = |what: String| {
        Error::transient(format!("{what} was deleted while the restore was planned"))
            .with_hint("an expiry ran meanwhile; run this again: it chooses among what is there")
    };
    match backup::read(cluster, label) {
        Ok(header) if header.run == decision.header.run => {}
        Ok(_) => return Err(expired(format!("backup {label}"))),
        Err(error) if error.kind() == Kind::NotFound => {
            cluster.repository().confirm()?;
            return Err(expired(format!("backup {label}")));
        }
        Err(error) => return Err(error),
    }
    let (path, needed) = (&decision.choice.path, &decision.choice.segments);
    // A streamed part, which is no whole segment, may stand for the last one.
    let last = needed.end().saturating_sub(u64::from(decision.streamed().is_some()));
    let catalog = Catalog::new(cluster, decision.segment_size);
    match catalog.first_missing(path, *needed.start(), last)? {
        None => Ok(()),
        Some(missing) => {
            cluster.repository().confirm()?;
            Err(expired(catalog.name_on(path, missing).to_string()))
        }
    }
}
