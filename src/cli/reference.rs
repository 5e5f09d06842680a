//! The pages of `docs/reference/` about flags, configuration, environment and exit codes, in Markdown, made from the
//! definitions that parse them: `pgark man --markdown`. `tests/book.rs` fails when the book differs.

use clap::{Arg, Command};

use super::manual::page_name;
use crate::config::keys::{KEYS, Usual};
use crate::pg::conninfo::libpq_variables;

/// The heading under which every program lists what all programs have; told once, with the configuration.
const COMMON: &str = "Common options";

/// A page: its file name, and its text.
pub struct Page {
    pub name: String,
    pub text: String,
}

/// All pages; of each program itself and, behind it, its verbs.
pub fn reference(programs: &[Vec<Command>]) -> Vec<Page> {
    let mut pages: Vec<Page> = programs.iter().filter_map(|commands| program(commands)).collect();
    let all: Vec<&Command> = programs.iter().flatten().collect();
    pages.push(page("configuration", configuration(&all)));
    pages.push(page("environment", environment(&all)));
    pages.push(page("exit-codes", exit_codes(&all)));
    pages
}

fn page(name: &str, text: String) -> Page {
    let note =
        "<!-- Made from the definitions in the source; made anew by RENEW_BOOK=1 cargo test --test book -->";
    Page { name: format!("{name}.md"), text: format!("{note}\n\n{}\n", text.trim_end()) }
}

fn program(commands: &[Command]) -> Option<Page> {
    let (itself, verbs) = commands.split_first()?;
    let mut text = format!("# {}\n\n{}", itself.get_name(), command(itself));
    for verb in verbs {
        text += &format!("## {}\n\n{}", spoken(verb), command(verb));
    }
    Some(page(itself.get_name(), text))
}

/// "pgark info", as it is typed.
fn spoken(command: &Command) -> String {
    page_name(command).replace("pgark-", "pgark ").replace("repo-", "repo ")
}

fn command(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    let mut text = about.map(|about| format!("{}\n\n", prose(&about.to_string()))).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    text += &format!("    {}\n\n", usage.trim_start_matches("Usage: ").trim());
    let mut headings: Vec<Option<&str>> = Vec::new();
    for flag in flags(command) {
        if !headings.contains(&heading(flag)) {
            headings.push(heading(flag));
        }
    }
    for group in headings {
        text += &group.map(|group| format!("{group}:\n\n")).unwrap_or_default();
        text += &table(flags(command).filter(|flag| heading(flag) == group));
    }
    text
}

/// All of its own: not what every program has.
fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let own = |flag: &&Arg| !matches!(flag.get_id().as_str(), "help" | "version") && !flag.is_hide_set();
    command.get_arguments().filter(move |flag| own(flag) && !flag.is_global_set())
}

/// What of its own a program lists behind the common flags is under their heading, too.
fn heading(flag: &Arg) -> Option<&str> {
    flag.get_help_heading().filter(|heading| *heading != COMMON)
}

fn table<'a>(flags: impl Iterator<Item = &'a Arg>) -> String {
    let mut text = "| flag | |\n|---|---|\n".to_string();
    for flag in flags {
        text += &format!("| {} | {} |\n", names(flag), meaning(flag));
    }
    text + "\n"
}

/// "`-j`, `--jobs N`".
fn names(flag: &Arg) -> String {
    let value = flag.get_value_names().filter(|_| flag.get_action().takes_values());
    let value = value.and_then(|names| names.first()).map(|name| name.replace('|', "\\|"));
    let long = match (flag.get_long(), &value) {
        (Some(long), Some(value)) => format!("`--{long} {value}`"),
        (Some(long), None) => format!("`--{long}`"),
        (None, value) => format!("`{}`", value.as_deref().unwrap_or(flag.get_id().as_str())),
    };
    flag.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default() + &long
}

/// What `--help` says, in one line, with the key that does the same as a link.
fn meaning(flag: &Arg) -> String {
    let help = flag.get_long_help().or(flag.get_help()).map(|help| help.to_string()).unwrap_or_default();
    let (help, key) = without_key(&help);
    let mut text = prose(help).replace("\n\n", "<br>").replace('\n', " ");
    if flag.get_action().takes_values() {
        let values: Vec<String> = flag.get_possible_values().iter().map(possible).collect();
        if !values.is_empty() {
            text += &format!(". One of {}", values.join(", "));
        }
        for default in flag.get_default_values() {
            text += &format!(". Default: `{}`", default.to_string_lossy());
        }
    }
    if let Some(aliases) = flag.get_visible_aliases().filter(|aliases| !aliases.is_empty()) {
        text += &format!(". Also: `--{}`", aliases.join("`, `--"));
    }
    match key {
        Some(key) => text + &format!(". Configuration: [`{key}`](configuration.md)"),
        None => text,
    }
}

fn possible(value: &clap::builder::PossibleValue) -> String {
    let help = value.get_help().map(|help| format!(" ({})", prose(&help.to_string()))).unwrap_or_default();
    format!("`{}`{help}", value.get_name())
}

/// A flag's help and the key that it ends with: "… [config: push.jobs]".
fn without_key(help: &str) -> (&str, Option<&str>) {
    let found = help.split_once(" [config: ").map(|(text, key)| (text, key.split(']').next()));
    found.unwrap_or((help, None))
}

/// Nothing of it is taken for HTML or for the border of a table.
fn prose(text: &str) -> String {
    text.replace('<', "&lt;").replace('|', "\\|")
}

fn configuration(commands: &[&Command]) -> String {
    let mut text = "# Configuration\n\nFlags win over the environment, the environment over the file, the file over \
         the defaults. The file is `/etc/pgark/pgark.toml` if it exists, or what `--config` or `PGARK_CONFIG` names. \
         A key with a dot is written below the section before it: `jobs = 2` below `[push]`. Unknown keys are errors \
         that show the line. Durations are written as `\"90s\"` or `\"1h 30m\"`, sizes as `\"512MiB\"`.\n\n\
         | key | flag | default | |\n|---|---|---|---|\n"
        .to_string();
    for key in KEYS {
        let usual = match key.usual {
            Usual::Value(value) => format!("`{value}`"),
            Usual::Words(words) => words.to_string(),
        };
        text +=
            &format!("| `{}` | {} | {usual} | {} |\n", key.name, flags_for(key.name, commands), key.meaning);
    }
    text += "\n## Flags of all programs\n\n";
    let common = commands.iter().take(1).flat_map(|command| command.get_arguments());
    text + &table(common.filter(|flag| flag.is_global_set()))
}

/// The flags that do what a key does: "`wal-push --jobs`".
fn flags_for(key: &str, commands: &[&Command]) -> String {
    let mut found: Vec<String> = Vec::new();
    for command in commands {
        for flag in command.get_arguments() {
            let help = flag.get_help().map(|help| help.to_string()).unwrap_or_default();
            let (Some(long), (_, Some(named))) = (flag.get_long(), without_key(&help)) else { continue };
            let program = if flag.is_global_set() { String::new() } else { format!("{} ", spoken(command)) };
            let name = format!("`{program}--{long}`");
            if named == key && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found.join(", ")
}

fn environment(commands: &[&Command]) -> String {
    let mut text =
        "# Environment\n\nOf every program:\n\n| variable | as the flag |\n|---|---|\n".to_string();
    for flag in commands.iter().take(1).flat_map(|command| command.get_arguments()) {
        if let (Some(variable), Some(long)) = (flag.get_env(), flag.get_long()) {
            text += &format!("| `{}` | `--{long}` |\n", variable.to_string_lossy());
        }
    }
    text += "\n`NO_COLOR` and `TERM=dumb` turn colours off. `wal-receive` tells systemd how it is by `NOTIFY_SOCKET` \
        and `WATCHDOG_USEC`.\n\nOf the programs that connect to a server (`basebackup`, `wal-receive`, `pgark check`), \
        as libpq reads them:\n\n| variable | parameter | |\n|---|---|---|\n";
    for (variable, parameter, remark) in libpq_variables() {
        text += &format!("| `{variable}` | `{parameter}` | {remark} |\n");
    }
    text
}

fn exit_codes(commands: &[&Command]) -> String {
    let mut text =
        "# Exit codes\n\nWhat to do about each is told [in the README](../../README.md#exit-codes). A \
         verb that is not listed has those of its program.\n\n"
            .to_string();
    for command in commands {
        let notes = command.get_after_help().map(|notes| notes.to_string()).unwrap_or_default();
        let Some((_, note)) = notes.split_once("Exit codes") else { continue };
        let Some((remark, codes)) = note.split_once(": ") else { continue };
        let remark = match remark.trim_start_matches(", ") {
            "" => String::new(),
            remark => format!("({}.)\n\n", prose(remark)),
        };
        text += &format!("## {}\n\n{remark}", spoken(command));
        text += &codes.split("; ").map(exit_code).collect::<String>();
        text.push('\n');
    }
    text
}

/// "0 done"; or a remark and, behind its colon, the first of the codes that it is about.
fn exit_code(code: &str) -> String {
    let (number, meaning) = code.split_once(' ').unwrap_or((code, ""));
    match (number.parse::<u8>(), code.split_once(": ")) {
        (Ok(number), _) => format!("- `{number}` {}\n", prose(meaning)),
        (Err(_), Some((remark, first))) => format!("- {}:\n{}", prose(remark), exit_code(first)),
        (Err(_), None) => format!("- {}\n", prose(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_behind_a_flags_help_is_taken_off() {
        assert_eq!(without_key("How many [config: push.jobs]"), ("How many", Some("push.jobs")));
        assert_eq!(without_key("How many [see below]"), ("How many [see below]", None));
    }

    #[test]
    fn codes_become_a_list_and_a_remark_stands_before_those_that_it_is_about() {
        assert_eq!(exit_code("3 could not be told: why"), "- `3` could not be told: why\n");
        assert_eq!(exit_code("above 125 no answer: 202 wrong"), "- above 125 no answer:\n- `202` wrong\n");
    }

    #[test]
    fn nothing_breaks_a_table() {
        let flag = Arg::new("repo").long("repo").short('r').value_name("PATH|URL").help("a|b <c>\n\nd");
        assert_eq!(names(&flag), "`-r`, `--repo PATH\\|URL`");
        assert_eq!(meaning(&flag), "a\\|b &lt;c><br>d");
        let quiet = Arg::new("quiet").long("quiet").action(clap::ArgAction::SetTrue).help("Less");
        assert_eq!((names(&quiet).as_str(), meaning(&quiet).as_str()), ("`--quiet`", "Less"));
    }
}
