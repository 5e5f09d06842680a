//! What all steps of the verification of one cluster share.

use crate::error::{Error, Kind, Result};
use crate::interrupt::Interrupt;
use crate::pg::lsn::SegmentSize;
use crate::progress::Progress;
use crate::repo::Cluster;
use crate::repo::layout::Name;
use crate::store::Key;
use crate::throttle::Throttle;

use super::findings::{Counts, Findings, Harm};
use super::lists::PackLists;

pub struct Context<'a> {
    pub cluster: &'a Cluster,
    /// None when nothing says it any more: then names can't be compared with LSNs.
    pub size: Option<SegmentSize>,
    /// Whether frames are decompressed and slices compared.
    pub deep: bool,
    pub throttle: &'a Throttle,
    pub progress: &'a Progress,
    /// Set when the verification ends early.
    pub stop: &'a Interrupt,
    pub findings: Findings,
    pub lists: PackLists,
}

impl Context<'_> {
    /// Waits until so many bytes may be read, and counts them.
    pub fn about_to_read(&self, bytes: u64) -> Result<()> {
        self.stop.check()?;
        self.throttle.wait(bytes, self.stop)?;
        self.progress.add(bytes);
        self.findings.count(Counts { bytes, ..Counts::default() });
        Ok(())
    }

    /// Takes what the check of an object answered; an error only for what ends the verification.
    pub fn settle(&self, key: &Key, harm: &Harm, outcome: Result<()>) -> Result<()> {
        // What was broken off says nothing about the object.
        self.stop.check()?;
        self.findings.settle(key, harm, outcome)
    }

    pub fn name(&self, key: &Key) -> String {
        self.cluster.store().name(key)
    }

    /// Whether a backup still exists. What it refers to may be gone when it does not.
    pub fn has_backup(&self, label: &Name) -> Result<bool> {
        let exists = self.cluster.store().exists(&self.cluster.layout().backup_header(label)?)?;
        if !exists {
            self.cluster.repository().confirm()?;
        }
        Ok(exists)
    }

    /// What is not there though a backup refers to it is damage, unless the backup was deleted meanwhile.
    pub fn missing(&self, key: &Key, label: &Name, harm: &Harm, error: Error) -> Result<()> {
        if error.kind() != Kind::NotFound {
            return self.settle(key, harm, Err(error));
        }
        let lost = match self.has_backup(label) {
            Ok(true) => {
                Error::corrupt(format!("{} is missing, though backup {label} refers to it", self.name(key)))
            }
            Ok(false) => error,
            Err(failed) => failed,
        };
        self.settle(key, harm, Err(lost))
    }
}
