//! Man pages and completions of all programs, as `pgark man` and `pgark completion` write them.

mod harness;
use harness::*;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const PROGRAMS: [&str; 6] =
    ["basebackup", "bootstrap-restore", "pgark", "wal-fetch", "wal-push", "wal-receive"];

fn files(directory: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(directory).expect("listed").map(|entry| entry.expect("listed").file_name());
    names.map(|name| name.into_string().expect("UTF-8")).collect()
}

/// The words of `--help` that name a flag.
fn flags(help: &str) -> BTreeSet<String> {
    let words = help.lines().filter_map(|line| line.trim_start().strip_prefix('-').map(|_| line));
    let long = words.filter_map(|line| line.split([' ', ',', '=']).find(|word| word.starts_with("--")));
    long.map(|flag| flag.trim_end_matches("...").to_string()).collect()
}

#[test]
fn every_program_and_every_verb_has_a_man_page_with_all_its_flags() {
    let scratch = Scratch::new();
    let directory = scratch.make_dir("man1");
    run(pgark().arg("man").arg(&directory)).succeeds();
    let written = files(&directory);
    let help = run(pgark().arg("--help")).succeeds();
    let commands = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next());
    let verbs: Vec<&str> = commands
        .expect("commands")
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.contains(&"pin") && verbs.contains(&"man"), "{verbs:?}");
    let pages = PROGRAMS.iter().map(|name| (name.to_string(), vec![*name]));
    let pages = pages.chain(verbs.iter().map(|verb| (format!("pgark-{verb}"), vec!["pgark", *verb])));
    for (page, words) in pages {
        assert!(written.contains(&format!("{page}.1")), "{page} is not among {written:?}");
        let path = directory.join(format!("{page}.1"));
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o644);
        let text = fs::read_to_string(&path).expect("read").replace("\\-", "-").replace("\\fB", "");
        let help = run(program(words[0]).args(&words[1..]).arg("--help")).succeeds();
        for flag in flags(&help) {
            assert!(text.contains(&flag), "{page} does not tell of {flag}:\n{text}");
        }
        for part in ["SH SYNOPSIS", "SH NOTES", "xit codes", "SH ENVIRONMENT", "PGARK_REPO", "SH FILES"] {
            assert!(text.contains(part), "{page} has no {part}");
        }
    }
}

#[test]
fn bash_completes_the_verbs_and_flags() {
    let scratch = Scratch::new();
    let script = scratch.write("completion", run(pgark().args(["completion", "bash"])).succeeds());
    let complete = |words: &[&str], function: &str| {
        let (last, count) = (words[words.len() - 1], words.len() - 1);
        let line = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={count}; {function} {} '{last}' {}; echo \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.join(" "),
            words[0],
            words[count - 1],
        );
        let output = Command::new("bash").args(["-c", &line]).output().expect("start bash");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(complete(&["pgark", "unp"], "_pgark"), "unpin\n");
    assert_eq!(complete(&["pgark", "pin", "--unt"], "_pgark"), "--until\n");
    assert!(complete(&["basebackup", "--ra"], "_basebackup").contains("--rate-limit"));
}

#[test]
fn every_shell_has_a_file_for_each_program() {
    let scratch = Scratch::new();
    for (shell, name) in [("bash", "wal-push"), ("zsh", "_wal-push"), ("fish", "wal-push.fish")] {
        let directory = scratch.make_dir(shell);
        run(pgark().args(["completion", shell]).arg(&directory)).succeeds();
        let written = files(&directory);
        assert_eq!(written.len(), PROGRAMS.len(), "{written:?}");
        assert!(written.contains(name), "{written:?}");
    }
    run(pgark().args(["completion", "bash", "/nowhere"])).fails_with(2, "there is no directory /nowhere");
    run(pgark().args(["man", "/nowhere"])).fails_with(2, "there is no directory /nowhere");
}
