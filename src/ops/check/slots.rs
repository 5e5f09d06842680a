//! Replication slots: ours must be read, and no slot that nobody reads may keep WAL until the disk is full.

use super::finding::{Finding, Level, Limits};
use super::server::{Settings, Slot};
use super::settings::Way;
use super::words::bytes;
use crate::pg::replication::SlotName;

const CHECK: &str = "slot";

/// What is compared.
pub struct Expected<'a> {
    pub ours: &'a SlotName,
    /// How far our slot may be behind, bytes.
    pub lag: u64,
    /// What slots that nobody reads may keep, bytes.
    pub kept: Limits<u64>,
}

/// A finding for each slot, and one that says so if there is none.
pub fn judge(slots: &[Slot], settings: &Settings, way: &Way, expected: &Expected<'_>) -> Vec<Finding> {
    let limit = settings.number("max_slot_wal_keep_size").and_then(|mib| u64::try_from(mib).ok());
    let judge = |slot: &Slot| match slot.name == expected.ours.as_str() {
        true => ours(slot, way, expected),
        false => other(slot, limit, expected),
    };
    if slots.is_empty() {
        return vec![Finding::ok(CHECK, "there are no replication slots")];
    }
    slots.iter().map(judge).collect()
}

fn ours(slot: &Slot, way: &Way, expected: &Expected<'_>) -> Finding {
    let name = &slot.name;
    if is_lost(slot) {
        return lost(slot).remedy(format!(
            "run `wal-receive --drop-slot`, then wal-receive with --accept-gap, and take a backup; slot {name} is void"
        ));
    }
    if !slot.active {
        let alone = matches!(way, Way::None(_));
        let level = if alone { Level::Critical } else { expected.kept.of_large(&slot.behind.unwrap_or(0)) };
        let level = level.max(Level::Warning);
        return Finding::new(level, CHECK, format!("nobody reads slot {name} of wal-receive{}", keeps(slot)))
            .because("what the server writes is not streamed, and pg_wal grows by it")
            .remedy("start wal-receive; if it is not wanted any more, run `wal-receive --drop-slot`");
    }
    let behind = slot.unflushed.or(slot.behind).unwrap_or(0);
    let level = if behind > expected.lag { Level::Warning } else { Level::Ok };
    Finding::new(level, CHECK, format!("wal-receive reads slot {name}, {} behind", bytes(behind)))
        .because("what it lacks is lost with the server, and the server keeps that much WAL for it")
        .remedy("look at the log of wal-receive: is the repository slow or away?")
}

fn other(slot: &Slot, limit_mib: Option<u64>, expected: &Expected<'_>) -> Finding {
    let name = &slot.name;
    if is_lost(slot) {
        return lost(slot).remedy(format!(
            "make its standby or subscriber anew, then drop it: select pg_drop_replication_slot('{name}')"
        ));
    }
    if slot.active {
        return Finding::ok(CHECK, format!("slot {name} is read{}", keeps(slot)));
    }
    let bounded = match limit_mib {
        Some(mib) => format!(" (at most {}: max_slot_wal_keep_size)", bytes(mib.saturating_mul(1 << 20))),
        None => ", without a limit (max_slot_wal_keep_size = -1)".to_string(),
    };
    let level = expected.kept.of_large(&slot.behind.unwrap_or(0));
    Finding::new(level, CHECK, format!("nobody reads slot {name}{}{bounded}", keeps(slot)))
        .because("the server keeps all WAL from there on, until somebody reads it or the disk is full")
        .remedy(format!("bring its reader back, or drop it: select pg_drop_replication_slot('{name}')"))
}

fn is_lost(slot: &Slot) -> bool {
    slot.wal_status.as_deref() == Some("lost")
}

fn lost(slot: &Slot) -> Finding {
    Finding::warning(CHECK, format!("the server has invalidated slot {}", slot.name))
        .because("the WAL that its reader needs next is gone (max_slot_wal_keep_size)")
}

fn keeps(slot: &Slot) -> String {
    slot.behind.map_or(String::new(), |behind| format!("; it keeps {} of WAL", bytes(behind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn judged(slot: Slot, way: &Way) -> Finding {
        let ours = "pgark".parse().expect("a name");
        let kept = Limits { warning: 10 * MIB, critical: 100 * MIB };
        let expected = Expected { ours: &ours, lag: MIB, kept };
        let mut findings = judge(&[slot], &Settings::default(), way, &expected);
        findings.pop().expect("a finding")
    }

    fn slot(name: &str, active: bool, behind: u64) -> Slot {
        let (behind, wal_status) = (Some(behind), Some("reserved".into()));
        Slot { name: name.into(), physical: true, active, behind, unflushed: None, wal_status }
    }

    #[test]
    fn a_slot_that_nobody_reads_is_judged_by_what_it_keeps() {
        let way = Way::Command("wal-push %p".into());
        let level = |slot: Slot| judged(slot, &way).level;
        assert_eq!(level(slot("standby", true, 200 * MIB)), Level::Ok);
        assert_eq!(level(slot("standby", false, 9 * MIB)), Level::Ok);
        assert_eq!(level(slot("standby", false, 10 * MIB)), Level::Warning);
        assert_eq!(level(slot("standby", false, 100 * MIB)), Level::Critical);
        assert_eq!(level(Slot { wal_status: Some("lost".into()), ..slot("x", false, 0) }), Level::Warning);
    }

    #[test]
    fn our_slot_must_be_read_and_not_far_behind() {
        let way = Way::Receiver;
        assert_eq!(judged(slot("pgark", true, MIB), &way).level, Level::Ok);
        assert_eq!(judged(slot("pgark", true, MIB + 1), &way).level, Level::Warning);
        let flushed = Slot { unflushed: Some(0), ..slot("pgark", true, 9 * MIB) };
        assert_eq!(judged(flushed, &way).level, Level::Ok);
        let nothing_else = Way::None("archive_mode is off");
        assert_eq!(judged(slot("pgark", false, 0), &nothing_else).level, Level::Critical);
        assert_eq!(
            judged(slot("pgark", false, 0), &Way::Command("wal-push %p".into())).level,
            Level::Warning
        );
    }
}
