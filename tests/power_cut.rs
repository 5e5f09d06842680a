//! Power cuts, on a file system that is shut down and comes back with what was synced: whatever was acknowledged is
//! there and whole, what is visible is whole, and the next run succeeds.
//!
//! The cut comes at each change that a program makes, or at a random moment while many are at work. What a disk loses
//! of what it was sent is not tried here.

mod harness;
mod wal;

#[path = "power_cut/backups.rs"]
mod backups;
#[path = "wal_receive/coverage.rs"]
mod coverage;
#[path = "power_cut/expiring.rs"]
mod expiring;
#[path = "power_cut/pushes.rs"]
mod pushes;
#[path = "power_cut/restores.rs"]
mod restores;
#[path = "power_cut/working.rs"]
mod working;

use harness::*;

/// A repository on a disk of its own.
struct Powered {
    disk: LossyDisk,
    repo: TestRepo,
}

impl Powered {
    /// `None`, and the reason printed, where there can be no such disk.
    fn new(mebibytes: u64) -> Option<Self> {
        let powered = Self::bare(mebibytes)?;
        run(&mut powered.repo.pgark(&["init"])).succeeds();
        Some(powered)
    }

    /// Without a repository.
    fn bare(mebibytes: u64) -> Option<Self> {
        let disk = LossyDisk::make(mebibytes)?;
        let repo = TestRepo::at(Scratch::new(), disk.path().join("repo"));
        Some(Self { disk, repo })
    }

    /// The power is gone for a moment.
    fn cut(&mut self) {
        self.disk.lose_power(Journal::Lost);
        self.disk.restart();
    }

    fn has_backup(&self, label: &str) -> bool {
        self.repo.matching("/backup/").iter().any(|key| key.ends_with(&format!("/{label}/backup.json")))
    }

    /// Everything that a header names is there and whole, and so is the WAL.
    #[track_caller]
    fn verifies(&self, what: &str) {
        let verified = run(&mut self.repo.pgark(&["verify"]));
        assert_eq!(verified.code, Some(0), "{what}: {verified}");
    }
}

/// What of a program's changes to the repository, counted from 1, a fault may hit.
fn changes(command: std::process::Command, repo: &TestRepo) -> Vec<Call> {
    let (outcome, calls) = run_with_fault(command, Fault::none().under(repo.root()));
    outcome.succeeds();
    calls
}
