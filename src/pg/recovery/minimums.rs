//! The five settings that a server in recovery may not have lower than its source had them
//! (CheckRequiredParameterValues in xlog.c): else it refuses to start, or pauses at the record that says so.

use crate::pg::control::RecoverySettings;
use crate::pg::settings::Settings;
use crate::pg::settings_file::Setting;
use crate::pg::settings_value::parse_integer;
use crate::pg::wal::WalSettings;

/// Names and the server's own defaults (guc.c; the same from 14 to 18).
const NAMES: [(&str, u32); 5] = [
    ("max_connections", 100),
    ("max_worker_processes", 8),
    ("max_wal_senders", 10),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

/// The largest values that the WAL to be replayed asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minimums([u32; 5]);

impl Minimums {
    /// From pg_control of the backup.
    pub fn of_control(settings: &RecoverySettings) -> Self {
        Self([
            settings.max_connections,
            settings.max_worker_processes,
            settings.max_wal_senders,
            settings.max_prepared_transactions,
            settings.max_locks_per_transaction,
        ])
    }

    /// Raised to what a record in the WAL says.
    #[must_use]
    pub fn and_later(self, settings: &WalSettings) -> Self {
        let later = [
            settings.max_connections,
            settings.max_worker_processes,
            settings.max_wal_senders,
            settings.max_prepared_transactions,
            settings.max_locks_per_transaction,
        ];
        let mut raised = self.0;
        for (value, later) in raised.iter_mut().zip(later) {
            *value = (*value).max(u32::try_from(later).unwrap_or(0));
        }
        Self(raised)
    }

    /// The settings to add because the configuration has them lower, or has them wrong.
    pub fn missing_in(self, configured: &Settings) -> Vec<Setting> {
        let needed = NAMES.into_iter().zip(self.0);
        let missing = needed.filter(|((name, default), needed)| {
            let value = match configured.get(name) {
                None => Some(i64::from(*default)),
                Some(text) => parse_integer(text).ok(),
            };
            value.is_none_or(|value| value < i64::from(*needed))
        });
        missing.map(|((name, _), needed)| Setting::new(name, needed.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::settings::Entry;
    use crate::pg::wal::WalLevel;

    fn later(max_connections: i32, max_prepared_transactions: i32) -> WalSettings {
        WalSettings {
            max_connections,
            max_worker_processes: 8,
            max_wal_senders: 0,
            max_prepared_transactions,
            max_locks_per_transaction: -1,
            wal_level: WalLevel::Replica,
            wal_log_hints: false,
            track_commit_timestamp: false,
        }
    }

    fn configured(pairs: &[(&str, &str)]) -> Settings {
        let entry = |(name, value): &(&str, &str)| Entry {
            name: (*name).into(),
            value: (*value).into(),
            file: "/c".into(),
            line: 1,
        };
        Settings { entries: pairs.iter().map(entry).collect(), ..Settings::default() }
    }

    const CONTROL: RecoverySettings = RecoverySettings {
        max_connections: 100,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
    };

    #[test]
    fn defaults_are_enough_for_a_source_with_defaults() {
        assert_eq!(Minimums::of_control(&CONTROL).missing_in(&configured(&[])), []);
    }

    #[test]
    fn the_largest_value_of_all_counts() {
        let minimums = Minimums::of_control(&CONTROL).and_later(&later(300, 5)).and_later(&later(200, 0));
        let missing = minimums
            .missing_in(&configured(&[("max_connections", "250"), ("max_locks_per_transaction", "x")]));
        let expected = [
            Setting::new("max_connections", "300"),
            Setting::new("max_prepared_transactions", "5"),
            Setting::new("max_locks_per_transaction", "64"),
        ];
        assert_eq!(missing, expected);
        let enough = [("max_connections", "1000"), ("max_prepared_transactions", "9")];
        assert_eq!(minimums.missing_in(&configured(&enough)), []);
    }
}
