//! What a server gets from our environment when we start it.

use std::ffi::OsStr;
use std::io;
use std::process::Command;

use crate::detach;

/// What would move a server's port, place, date format or time zone (guc.c, InitializeGUCOptionsFromEnvironment
/// and libpq in its background workers), or hand it a secret.
const REMOVED_VARIABLES: [&str; 9] = [
    "PGDATA",
    "PGPORT",
    "PGHOST",
    "PGHOSTADDR",
    "PGDATESTYLE",
    "PGTZ",
    "PGCLIENTENCODING",
    "PGOPTIONS",
    "PGPASSWORD",
];

/// Prepares a command so that its process lives on without us, and depends on nothing of ours.
pub(super) fn detach(command: &mut Command) -> io::Result<()> {
    detach::detach(command)?;
    for variable in REMOVED_VARIABLES {
        command.env_remove(variable);
    }
    speak_english(command, std::env::var_os("LC_ALL").as_deref());
    Ok(())
}

/// Messages before the configuration is read follow the environment; the other categories stay as they are.
fn speak_english(command: &mut Command, all: Option<&OsStr>) {
    if let Some(locale) = all.filter(|locale| !locale.is_empty()) {
        for category in ["LC_COLLATE", "LC_CTYPE", "LC_MONETARY", "LC_NUMERIC", "LC_TIME"] {
            command.env(category, locale);
        }
    }
    command.env_remove("LC_ALL").env_remove("LANGUAGE").env("LC_MESSAGES", "C");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_change_their_language() {
        let mut command = Command::new("env");
        speak_english(&mut command, Some(OsStr::new("de_DE.UTF-8")));
        let output = command.output().expect("env");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in ["LC_CTYPE=de_DE.UTF-8", "LC_COLLATE=de_DE.UTF-8", "LC_MESSAGES=C"] {
            assert!(shown.lines().any(|found| found == line), "{line} in {shown}");
        }
        assert!(!shown.contains("LC_ALL="));
    }
}
