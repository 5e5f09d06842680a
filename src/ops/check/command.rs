//! What an archive_command says of itself: is it wal-push, and which repository does it name?
//!
//! Only what the command line itself says counts; what it takes from the server's environment or from the
//! configuration on the server's host is not seen here. The forced segment proves the rest.

use std::path::PathBuf;

use crate::config::Overrides;

/// A `wal-push` in an archive_command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushCommand {
    /// What its flags, and variables set in front of it, say.
    pub named: Overrides,
}

impl PushCommand {
    /// None: there is no wal-push in it.
    pub fn parse(command: &str) -> Option<Self> {
        let words = words(command);
        let program = words.iter().position(|word| is_wal_push(word))?;
        let mut push = Self::default();
        for word in words.iter().take(program) {
            push.take_variable(word);
        }
        let mut arguments = words.iter().skip(program + 1);
        while let Some(argument) = arguments.next() {
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_string())),
                None => (argument.as_str(), None),
            };
            if let Some(place) = push.flag(flag) {
                *place = value.or_else(|| arguments.next().cloned());
            } else if flag == "--config" {
                push.named.file = value.or_else(|| arguments.next().cloned()).map(PathBuf::from);
            }
        }
        Some(push)
    }

    /// Whether it names anything that can be compared.
    pub fn names_anything(&self) -> bool {
        self.named != Overrides::default()
    }

    fn flag(&mut self, flag: &str) -> Option<&mut Option<String>> {
        match flag {
            "--repo" => Some(&mut self.named.repo),
            "--cluster" => Some(&mut self.named.cluster),
            "--repo-id" => Some(&mut self.named.repo_id),
            _ => None,
        }
    }

    fn take_variable(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        let place = match name {
            "PGARK_REPO" => &mut self.named.repo,
            "PGARK_CLUSTER" => &mut self.named.cluster,
            "PGARK_REPO_ID" => &mut self.named.repo_id,
            "PGARK_CONFIG" => return self.named.file = Some(PathBuf::from(value)),
            _ => return,
        };
        *place = Some(value.to_string());
    }
}

fn is_wal_push(word: &str) -> bool {
    word.rsplit('/').next() == Some("wal-push")
}

/// The words of a shell command, as far as quotes and backslashes go. What a shell would expand stays as it is.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (None::<String>, None::<char>);
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(command: &str) -> Option<(Option<String>, Option<String>, Option<String>)> {
        let named = PushCommand::parse(command)?.named;
        Some((named.repo, named.cluster, named.file.map(|file| file.display().to_string())))
    }

    #[test]
    fn wal_push_is_found_with_what_it_is_told() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(named("wal-push %p"), Some((None, None, None)));
        assert_eq!(
            named("/usr/bin/wal-push --repo /srv/r --cluster=west %p"),
            Some((some("/srv/r"), some("west"), None))
        );
        assert_eq!(
            named("PGARK_REPO='/srv/a b' nice -n 5 wal-push --config \"/etc/x.toml\" \"%p\""),
            Some((some("/srv/a b"), None, some("/etc/x.toml")))
        );
        assert_eq!(named("test -f %p && wal-push %p"), Some((None, None, None)));
    }

    #[test]
    fn other_commands_are_not_wal_push() {
        for other in
            ["", "cp %p /archive/%f", "pgbackrest archive-push %p", "/opt/wal-pushing %p", "/bin/true"]
        {
            assert_eq!(named(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_command_can_be_looked_at(command in "\\PC{0,60}") {
            let found = PushCommand::parse(&command);
            prop_assert!(found.is_none() || command.contains("wal-push"));
        }
    }
}
