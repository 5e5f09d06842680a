//! The keys of the configuration file for people: default and meaning of each, which the book's reference shows.
//!
//! Invariant, held by the tests below: these are the keys that the file may have, no more and no less, and the
//! defaults are the ones that apply.

/// What applies where a key is not there.
#[derive(Clone, Copy, Debug)]
pub enum Usual {
    /// As one would write it.
    Value(&'static str),
    /// It depends, or there is none.
    Words(&'static str),
}

/// A key as the reference shows it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// With its section: "push.jobs".
    pub name: &'static str,
    pub usual: Usual,
    pub meaning: &'static str,
}

const fn key(name: &'static str, usual: Usual, meaning: &'static str) -> Key {
    Key { name, usual, meaning }
}

use Usual::{Value, Words};

/// In the order of the file.
pub const KEYS: &[Key] = &[
    key("repo", Words("none"), "The repository: an absolute path or a `file://` URL"),
    key("cluster", Value("\"main\""), "The cluster's name in the repository"),
    key("repo_id", Words("none"), "Insist on the repository with this id, as `pgark init` printed it"),
    key(
        "spool",
        Words("none"),
        "Where `wal-receive` keeps the segment in progress (it needs one), where compressed output beyond 64 MiB waits \
         (else in the system's temporary directory), and where each server has its own `pgark-<digest of the data \
         directory>` for what was pushed ahead or prefetched (else `pgark.spool` in its `pg_wal`: the same disk, so \
         that handing a segment over is a rename)",
    ),
    key("compression_level", Value("1"), "zstd level of WAL and backups"),
    key("push.lock_wait", Value("\"60s\""), "How long to wait for another push of the same file"),
    key("push.jobs", Words("4, or all cores if fewer"), "Segments pushed at a time while a backlog waits"),
    key("push.batch", Value("64"), "Waiting segments that one `wal-push` takes along; `0` for none"),
    key(
        "push.wal_queue_max",
        Words("none"),
        "Such as `\"200GiB\"`: while more WAL waits and the repository can't be reached, what has waited longest is \
         dropped, logged as an error, and recorded as a gap over which no restore gets \
         ([exactly when](../decisions/full-queue.md))",
    ),
    key("fetch.retry", Value("\"60s\""), "How long to retry before recovery is stopped"),
    key("fetch.history_retry", Value("\"5m\""), "The same for timeline history files"),
    key("fetch.prefetch", Value("16"), "Segments that are kept ready for a server in recovery; `0` for none"),
    key(
        "fetch.prefetch_bytes",
        Value("\"1GiB\""),
        "What these may take at most; twice as much stays free on their disk",
    ),
    key(
        "fetch.prefetch_linger",
        Value("\"60s\""),
        "How long the prefetcher waits for the next request before it ends",
    ),
    key(
        "fetch.jobs",
        Words("3, or all cores if fewer"),
        "Threads that bring one segment, and segments prefetched at a time",
    ),
    key(
        "receive.slot",
        Value("\"pgark\""),
        "The replication slot, and the name in `synchronous_standby_names`",
    ),
    key("receive.synchronous", Value("false"), "Report WAL as flushed as soon as the spool holds it durably"),
    key(
        "receive.partial_every",
        Value("\"60s\""),
        "How long after a completed segment the unfinished one is stored",
    ),
    key("receive.timeout", Value("\"60s\""), "Silence of the server after which it is connected to anew"),
    key(
        "receive.backlog",
        Value("\"1GiB\""),
        "What may wait in the spool for the repository before nothing more is read",
    ),
    key("receive.lag_limit", Value("\"1GiB\""), "How far the slot may be behind before that is a warning"),
    key("receive.allow_md5", Value("false"), "Answer a server that asks for an md5 password"),
    key("backup.jobs", Words("all cores"), "Parallel workers"),
    key("backup.wal_wait", Value("\"10m\""), "How long to wait for the WAL that a backup needs"),
    key("restore.jobs", Words("all cores"), "Parallel workers"),
    key("expire.keep_last", Words("none"), "Keep so many of the last good backups, and all WAL from them on"),
    key(
        "expire.keep_daily",
        Words("none"),
        "Keep the last good backup of each of so many days (UTC) that have one",
    ),
    key("expire.keep_weekly", Words("none"), "The same for weeks, which begin on Monday (UTC)"),
    key("expire.keep_monthly", Words("none"), "The same for months"),
    key("expire.keep_yearly", Words("none"), "The same for years"),
    key(
        "expire.recovery_window",
        Words("none"),
        "Keep every moment of this span reachable, such as `\"14 days\"`",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::{Config, File, Overrides, parse};
    use super::*;

    /// What the file may hold below `section`, by what serde expects in place of an unknown key.
    fn known(section: Option<&str>) -> Vec<String> {
        let header = section.map(|section| format!("[{section}]\n")).unwrap_or_default();
        let refused = parse(&format!("{header}no_such_key = 1\n"), Path::new("/x")).expect_err("no such key");
        let Some((_, expected)) = refused.message().split_once("expected") else { return Vec::new() };
        expected.split('`').skip(1).step_by(2).map(str::to_string).collect()
    }

    #[test]
    fn these_are_all_keys_that_the_file_may_have() {
        let mut expected = BTreeSet::new();
        for name in known(None) {
            match known(Some(&name)).as_slice() {
                [] => expected.extend([name]),
                below => expected.extend(below.iter().map(|key| format!("{name}.{key}"))),
            }
        }
        assert!(expected.contains("push.jobs") && expected.contains("repo"), "{expected:?}");
        let told: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_string()).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn the_defaults_that_are_told_apply() {
        let mut text = String::new();
        for key in KEYS {
            if let Value(value) = key.usual {
                text.push_str(&format!("{} = {value}\n", key.name));
            }
        }
        let told = parse(&text, Path::new("/x")).expect("values");
        let none = Overrides::default();
        assert_eq!(Config::over(told, &none, None), Config::over(File::default(), &none, None));
    }
}
