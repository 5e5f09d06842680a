//! What a restored server must not take over from its source, and the settings that make it recover.
//!
//! Refuses combinations that PostgreSQL would ignore or that would end in another state than was asked for.
//! Invariant: a server with these settings archives nothing, starts no logical subscription and writes to
//! no file of its source, unless it takes over; and nothing of an earlier recovery is left over.

mod configuration;
mod minimums;
mod target;

pub use configuration::Configuration;
pub use minimums::Minimums;
pub use target::{Recovery, Standby, Target, TargetAction, ToTarget, restore_command, shell_quote};

use super::settings_file::Setting;

/// What the restored server is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A copy beside its source, which it must not touch.
    Quarantine,
    /// The source's successor.
    Takeover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    Quarantine,
}

use When::{Always, Quarantine};

/// Settings that must go, when, and why. Their lines are commented out with the reason.
const REMOVED: &[(&str, When, &str)] = &[
    ("primary_conninfo", Always, "it would stream from the source's primary"),
    ("primary_slot_name", Always, "it would use up the source's replication slot"),
    ("restore_command", Always, "the restore sets its own"),
    ("archive_cleanup_command", Always, "it would delete from the source's archive"),
    ("recovery_end_command", Always, "it is a script of the source"),
    ("recovery_min_apply_delay", Always, "recovery would wait"),
    ("promote_trigger_file", Always, "a file of the source would end recovery"),
    ("trigger_file", Always, "a file of the source would end recovery"),
    ("hot_standby", Always, "recovery is followed over a connection"),
    ("synchronous_standby_names", Always, "every commit would wait for the source's standbys"),
    ("synchronized_standby_slots", Always, "replication would wait for the source's standbys"),
    ("sync_replication_slots", Always, "it would copy slots from the source's primary"),
    ("data_directory", Always, "it names the source's data directory"),
    ("hba_file", Always, "it names a file of the source"),
    ("ident_file", Always, "it names a file of the source"),
    ("external_pid_file", Always, "it names a file of the source"),
    ("stats_temp_directory", Always, "it names a directory of the source"),
    ("port", Always, "it is the source's"),
    ("unix_socket_directories", Always, "they are the source's"),
    ("unix_socket_group", Always, "the group need not exist here"),
    ("bonjour", Always, "it would be announced in the source's name"),
    ("bonjour_name", Always, "it is the source's name"),
    ("include", Always, "the file is part of this one"),
    ("include_if_exists", Always, "the file is part of this one"),
    ("include_dir", Always, "the files are part of this one"),
    ("archive_mode", Quarantine, "a copy must not archive"),
    ("archive_command", Quarantine, "a copy must not archive into the source's repository"),
    ("archive_library", Quarantine, "a copy must not archive into the source's repository"),
    ("listen_addresses", Quarantine, "they are the source's"),
    ("ssl", Quarantine, "its certificate is the source's"),
    ("ssl_cert_file", Quarantine, "it names a file of the source"),
    ("ssl_key_file", Quarantine, "it names a file of the source"),
    ("ssl_ca_file", Quarantine, "it names a file of the source"),
    ("ssl_crl_file", Quarantine, "it names a file of the source"),
    ("ssl_crl_dir", Quarantine, "it names a directory of the source"),
    ("ssl_dh_params_file", Quarantine, "it names a file of the source"),
    ("ssl_passphrase_command", Quarantine, "it is a script of the source"),
    ("krb_server_keyfile", Quarantine, "it names a file of the source"),
    ("log_directory", Quarantine, "it is the source's"),
    ("log_destination", Quarantine, "the log goes where the restore can read it"),
    ("logging_collector", Quarantine, "the log goes where the restore can read it"),
    ("cluster_name", Quarantine, "it is the source's name"),
    ("max_logical_replication_workers", Quarantine, "a copy must not start subscriptions"),
    ("cron.launch_active_jobs", Quarantine, "a copy must not start jobs"),
    ("timescaledb.max_background_workers", Quarantine, "a copy must not start jobs"),
    ("pg_partman_bgw.dbname", Quarantine, "a copy must not start jobs"),
];

/// What replaces some of them. Extensions that are not loaded do not mind their settings.
const REPLACED: &[(&str, &str, When)] = &[
    ("hot_standby", "on", Always),
    ("archive_mode", "off", Quarantine),
    ("listen_addresses", "localhost", Quarantine),
    ("ssl", "off", Quarantine),
    ("log_destination", "stderr", Quarantine),
    ("logging_collector", "off", Quarantine),
    ("max_logical_replication_workers", "0", Quarantine),
    ("cron.launch_active_jobs", "off", Quarantine),
    ("timescaledb.max_background_workers", "0", Quarantine),
];

impl When {
    fn applies(self, role: Role) -> bool {
        self == Always || role == Role::Quarantine
    }
}

/// Why a setting of the source must not stay, or None if it may: in postgresql.conf and in
/// postgresql.auto.conf alike (`Configuration::restored`).
pub fn removal_reason(name: &str, role: Role) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    if name.starts_with("recovery_target") {
        return Some("it is the target of another recovery");
    }
    let found = REMOVED.iter().find(|(removed, ..)| *removed == name);
    found.filter(|(_, when, _)| when.applies(role)).map(|(.., reason)| *reason)
}

/// The settings that keep a server of this role in its place. The port, the socket directory and the
/// cluster_name come on top; who asked for one of these with `--set` puts it behind them.
pub fn role_settings(role: Role) -> Vec<Setting> {
    let applying = REPLACED.iter().filter(|(.., when)| when.applies(role));
    applying.map(|(name, value, _)| Setting::new(*name, *value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_points_at_the_source_goes() {
        for name in [
            "recovery_target",
            "recovery_target_time",
            "Recovery_Target_Timeline",
            "recovery_target_inclusive",
            "primary_conninfo",
            "restore_command",
            "recovery_end_command",
            "archive_cleanup_command",
            "synchronous_standby_names",
            "data_directory",
            "hba_file",
            "external_pid_file",
            "PORT",
            "include_dir",
        ] {
            assert!(removal_reason(name, Role::Takeover).is_some(), "{name}");
            assert!(removal_reason(name, Role::Quarantine).is_some(), "{name}");
        }
        for name in [
            "archive_command",
            "archive_mode",
            "archive_library",
            "ssl_key_file",
            "cluster_name",
            "log_directory",
        ] {
            assert!(removal_reason(name, Role::Quarantine).is_some(), "{name}");
            assert_eq!(removal_reason(name, Role::Takeover), None, "{name}");
        }
        for name in [
            "shared_buffers",
            "max_connections",
            "wal_level",
            "shared_preload_libraries",
            "recovery_prefetch",
        ] {
            assert_eq!(removal_reason(name, Role::Quarantine), None, "{name}");
        }
    }

    #[test]
    fn whatever_is_replaced_is_removed_too_and_once() {
        for role in [Role::Quarantine, Role::Takeover] {
            for setting in role_settings(role) {
                assert!(removal_reason(&setting.name, role).is_some(), "{}", setting.name);
                assert!(setting.line().is_ok());
            }
        }
        let mut names: Vec<&str> = REMOVED.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REMOVED.len());
    }

    #[test]
    fn only_a_copy_is_kept_from_archiving() {
        let archiving = |role| role_settings(role).iter().any(|setting| setting.name == "archive_mode");
        assert!(archiving(Role::Quarantine) && !archiving(Role::Takeover));
    }
}
