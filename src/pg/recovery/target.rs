//! The settings that tell a server how to fetch WAL and where to stop.
//!
//! Values are quoted for the configuration file when they are written (`Setting::line`), and here for the
//! shell that runs restore_command and for its %-placeholders (BuildRestoreCommand).

use crate::error::{Error, Result};
use crate::pg::lsn::{Lsn, Timeline};
use crate::pg::settings_file::Setting;
use crate::pg::time::Timestamp;

/// MAXFNAMELEN - 1, in bytes.
const MAX_NAME: usize = 63;

/// How a server recovers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    ToTarget(ToTarget),
    Standby(Standby),
}

/// Recovery that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToTarget {
    pub restore_command: String,
    pub target: Target,
    /// Whether what the target names is part of it. Has a meaning for a time, an LSN and a transaction.
    pub inclusive: bool,
    pub action: TargetAction,
    /// Always a number: "latest" is the highest number, not a descendant.
    pub timeline: Timeline,
}

/// Recovery that goes on until somebody promotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    pub restore_command: String,
    pub primary_conninfo: Option<String>,
    pub primary_slot_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All WAL that there is.
    EndOfArchive,
    /// As soon as the backup is consistent.
    Immediate,
    Time(Timestamp),
    Lsn(Lsn),
    /// A transaction id, with or without its epoch.
    Xid(u64),
    /// A restore point that pg_create_restore_point named.
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetAction {
    Pause,
    Promote,
    Shutdown,
}

impl Recovery {
    /// The file in the data directory that asks for this recovery. The other one must not be there:
    /// standby.signal would win.
    pub fn signal_file(&self) -> &'static str {
        match self {
            Recovery::ToTarget(_) => "recovery.signal",
            Recovery::Standby(_) => "standby.signal",
        }
    }

    /// The settings, for a configuration from which `removal_reason` has removed their like.
    pub fn settings(&self) -> Result<Vec<Setting>> {
        match self {
            Recovery::ToTarget(recovery) => recovery.settings(),
            Recovery::Standby(standby) => Ok(standby.settings()),
        }
    }
}

impl ToTarget {
    fn settings(&self) -> Result<Vec<Setting>> {
        self.check()?;
        let mut settings = vec![
            Setting::new("restore_command", &self.restore_command),
            Setting::new("recovery_target_timeline", self.timeline.to_string()),
        ];
        settings.extend(match &self.target {
            Target::EndOfArchive => None,
            Target::Immediate => Some(Setting::new("recovery_target", "immediate")),
            Target::Time(time) => Some(Setting::new("recovery_target_time", as_timestamptz(*time))),
            Target::Lsn(lsn) => Some(Setting::new("recovery_target_lsn", lsn.to_string())),
            Target::Xid(xid) => Some(Setting::new("recovery_target_xid", xid.to_string())),
            Target::Name(name) => Some(Setting::new("recovery_target_name", name)),
        });
        if self.target != Target::EndOfArchive {
            let inclusive = if self.inclusive { "on" } else { "off" };
            settings.push(Setting::new("recovery_target_inclusive", inclusive));
            settings.push(Setting::new("recovery_target_action", self.action.as_str()));
        }
        Ok(settings)
    }

    /// PostgreSQL ignores in silence what does not fit the target.
    fn check(&self) -> Result<()> {
        let inclusive_only =
            matches!(self.target, Target::EndOfArchive | Target::Immediate | Target::Name(_));
        if inclusive_only && !self.inclusive {
            return Err(Error::configuration(
                "could not stop before the recovery target: it is no time, LSN or transaction",
            )
            .with_hint("leave --exclusive out"));
        }
        if self.target == Target::EndOfArchive && self.action != TargetAction::Promote {
            return Err(Error::configuration(format!(
                "could not {} at the end of the archive: without a target PostgreSQL promotes",
                self.action.as_str()
            ))
            .with_hint("name a target, for example --target-lsn"));
        }
        match &self.target {
            Target::Name(name) if name.is_empty() || name.len() > MAX_NAME => {
                Err(Error::configuration(format!(
                    "\"{name}\" can't be the name of a restore point: it has {} bytes, not 1 to {MAX_NAME}",
                    name.len()
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Standby {
    fn settings(&self) -> Vec<Setting> {
        let mut settings = vec![
            Setting::new("restore_command", &self.restore_command),
            Setting::new("recovery_target_timeline", "latest"),
        ];
        let optional =
            [("primary_conninfo", &self.primary_conninfo), ("primary_slot_name", &self.primary_slot_name)];
        let given =
            optional.into_iter().filter_map(|(name, value)| Some(Setting::new(name, value.as_deref()?)));
        settings.extend(given);
        settings
    }
}

impl TargetAction {
    pub fn as_str(self) -> &'static str {
        match self {
            TargetAction::Pause => "pause",
            TargetAction::Promote => "promote",
            TargetAction::Shutdown => "shutdown",
        }
    }
}

/// With all its microseconds, in UTC, as any DateStyle reads it.
fn as_timestamptz(time: Timestamp) -> String {
    time.to_string().replace('T', " ").replace('Z', "+00")
}

/// Quotes a word for `sh`.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A restore_command: these words, then the name and the path of the file that the server wants.
pub fn restore_command(words: &[&str]) -> Result<String> {
    if let Some(word) = words.iter().find(|word| word.contains(['\n', '\r', '\0'])) {
        return Err(Error::configuration(format!(
            "could not write a restore_command: {word:?} has a line break in it"
        ))
        .with_hint("choose paths without line breaks"));
    }
    let quoted = words.iter().map(|word| shell_quote(word).replace('%', "%%"));
    Ok(quoted.chain(["\"%f\"".to_string(), "\"%p\"".to_string()]).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to(target: Target) -> ToTarget {
        ToTarget {
            restore_command: "fetch".into(),
            target,
            inclusive: true,
            action: TargetAction::Promote,
            timeline: Timeline(7),
        }
    }

    fn lines(recovery: Recovery) -> Vec<String> {
        recovery.settings().expect("allowed").iter().map(|setting| setting.line().expect("a line")).collect()
    }

    #[test]
    fn each_target_has_its_setting() {
        let time = "2026-11-22 10:00:00.5+01".parse().expect("a time");
        for (target, expected) in [
            (Target::Immediate, "recovery_target = 'immediate'"),
            (Target::Time(time), "recovery_target_time = '2026-11-22 09:00:00.500000+00'"),
            (Target::Lsn(Lsn(0x1_0000_00A0)), "recovery_target_lsn = '1/A0'"),
            (Target::Xid(u64::MAX), "recovery_target_xid = '18446744073709551615'"),
            (Target::Name("it's".into()), "recovery_target_name = 'it''s'"),
        ] {
            let lines = lines(Recovery::ToTarget(to(target)));
            assert_eq!(lines[..3], ["restore_command = 'fetch'", "recovery_target_timeline = '7'", expected]);
            assert_eq!(
                lines[3..],
                ["recovery_target_inclusive = 'on'", "recovery_target_action = 'promote'"]
            );
        }
        assert_eq!(lines(Recovery::ToTarget(to(Target::EndOfArchive))).len(), 2);
    }

    #[test]
    fn what_postgresql_would_ignore_is_refused() {
        let exclusive = |target| ToTarget { inclusive: false, ..to(target) }.settings();
        assert!(exclusive(Target::Immediate).is_err() && exclusive(Target::Name("a".into())).is_err());
        assert!(exclusive(Target::Lsn(Lsn(1))).is_ok());
        let paused = ToTarget { action: TargetAction::Pause, ..to(Target::EndOfArchive) };
        assert!(paused.settings().is_err());
        assert!(to(Target::Name("é".repeat(32))).settings().is_err());
        assert!(to(Target::Name("é".repeat(31))).settings().is_ok());
        assert!(to(Target::Name(String::new())).settings().is_err());
    }

    #[test]
    fn a_standby_follows_the_latest_timeline() {
        let standby = Standby {
            restore_command: "fetch".into(),
            primary_conninfo: Some("host=a user='b c'".into()),
            primary_slot_name: None,
        };
        let recovery = Recovery::Standby(standby);
        assert_eq!(recovery.signal_file(), "standby.signal");
        let expected = [
            "restore_command = 'fetch'",
            "recovery_target_timeline = 'latest'",
            "primary_conninfo = 'host=a user=''b c'''",
        ];
        assert_eq!(lines(recovery), expected);
    }

    #[test]
    fn a_restore_command_survives_its_placeholders() {
        let command =
            restore_command(&["/usr/bin/wal-fetch", "--repo", "/a b/100%/it's"]).expect("a command");
        assert_eq!(command, r#"/usr/bin/wal-fetch --repo '/a b/100%%/it'\''s' "%f" "%p""#);
        assert!(restore_command(&["a\nb"]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_word_survives_the_shell(word in "[^\0]{0,20}") {
            let script = format!("printf %s {}", shell_quote(&word));
            let output = std::process::Command::new("sh").arg("-c").arg(script).output().expect("sh");
            prop_assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }
}
