//! What `pgark verify` found last, and when it read everything.

use std::time::Duration;

use jiff::Timestamp;

use super::finding::Finding;
use super::words::span;
use crate::repo::records::Found;
use crate::repo::verified::{Scope, Verification};

const CHECK: &str = "verified";

/// `all`: oldest first. `limit`: so long ago everything must have been read, if somebody said.
pub fn judge(all: &[Found<Verification>], now: Timestamp, limit: Option<Duration>) -> Finding {
    let ago = |time: Timestamp| Duration::try_from(now.duration_since(time)).unwrap_or_default();
    if let Some(last) = all.last().map(|found| &found.record).filter(|last| !last.sound) {
        let what = format!(
            "the last verification, {} ago, found {} damaged objects, {} holes in the WAL and {} backups that do not \
             restore",
            span(ago(last.ended)),
            last.damaged,
            last.holes,
            last.lost_backups
        );
        return Finding::critical(CHECK, what)
            .because("what is damaged can't be restored, and nobody else will notice in time")
            .remedy("`pgark verify` names what it costs; take a backup, which copies damaged parts afresh");
    }
    let everything = all.iter().rev().find(|found| found.record.scope == Scope::Everything);
    let age = everything.map(|found| ago(found.record.ended));
    let what = match age {
        Some(age) => format!("all of the repository was verified {} ago, and sound", span(age)),
        None => "the repository was never verified as a whole".to_string(),
    };
    if limit.is_some_and(|limit| age.is_none_or(|age| age > limit)) {
        return Finding::warning(CHECK, what)
            .because("disks lose bits in silence; a backup that was never read back may not restore")
            .remedy("run `pgark verify` regularly, for example with a timer");
    }
    Finding::ok(CHECK, what)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::ident::Id;

    fn verification(scope: Scope, sound: bool, hours_ago: i64) -> Found<Verification> {
        let ended = now() - jiff::SignedDuration::from_hours(hours_ago);
        let record = Verification {
            scope,
            backup: None,
            deep: false,
            started: ended,
            ended,
            host: "db1".into(),
            objects: 1,
            bytes: 1,
            damaged: u64::from(!sound),
            damaged_first: vec![],
            unread: 0,
            holes: 0,
            lost_backups: 0,
            lost_backups_first: vec![],
            sound,
        };
        Found { id: Id::random().expect("id"), created: std::time::SystemTime::now(), record }
    }

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().expect("a time")
    }

    #[test]
    fn damage_is_critical_until_a_later_verification_is_sound() {
        let day = Some(Duration::from_secs(86_400));
        let level = |all: &[Found<Verification>], limit| judge(all, now(), limit).level;
        assert_eq!(level(&[], None), Level::Ok);
        assert_eq!(level(&[], day), Level::Warning);
        let damaged = verification(Scope::Everything, false, 3);
        assert_eq!(level(std::slice::from_ref(&damaged), None), Level::Critical);
        assert_eq!(level(&[damaged, verification(Scope::Everything, true, 1)], day), Level::Ok);
        assert_eq!(level(&[verification(Scope::Everything, true, 25)], day), Level::Warning);
        let sample = [verification(Scope::Everything, true, 25), verification(Scope::Sample, true, 1)];
        assert_eq!(level(&sample, day), Level::Warning);
    }
}
