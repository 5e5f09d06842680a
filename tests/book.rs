//! The book in docs/: links lead somewhere, the flags, keys, files and tests that it names exist, its reference is
//! what the programs say of themselves.

mod harness;
#[path = "book/markdown.rs"]
mod markdown;

use harness::*;
use markdown::{Page, read};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

const PROGRAMS: [&str; 6] =
    ["basebackup", "bootstrap-restore", "pgark", "wal-fetch", "wal-push", "wal-receive"];

/// What makes the reference anew instead of complaining about it.
const RENEW: &str = "RENEW_BOOK=1 cargo test --test book";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &str, extension: &str) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(project().join(below)).sort_by_file_name();
    let all = all.into_iter().map(|entry| entry.expect("listed").into_path());
    all.filter(|path| path.extension().is_some_and(|end| end == extension)).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// All pages that a user reads, by their paths in the project.
fn pages() -> BTreeMap<PathBuf, Page> {
    let others = ["README.md", "docker/README.md"].map(|name| project().join(name));
    let others = others.into_iter().filter(|path| path.exists());
    let all = files("docs", "md").into_iter().chain(others);
    all.map(|path| (inside(&path), read(&text(&path)))).collect()
}

fn inside(path: &Path) -> PathBuf {
    path.strip_prefix(project()).expect("of the project").to_path_buf()
}

/// `a/b/../c` is `a/c`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{} leads out of the project", path.display()),
            part => plain.push(part),
        }
    }
    plain
}

/// Fails with all of them at once.
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} mistakes:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let pages = pages();
    let mut wrong = Vec::new();
    for (path, page) in &pages {
        for link in page.links.iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = path.parent().expect("a directory");
            let target = if file.is_empty() { path.clone() } else { plain(&directory.join(file)) };
            let known =
                pages.get(&target).is_none_or(|page| page.anchors.iter().any(|known| known == anchor));
            if !project().join(&target).exists() || !(anchor.is_empty() || known) {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_summary_lists_every_page_once() {
    let pages = pages();
    let listed = &pages[Path::new("docs/SUMMARY.md")].links;
    // A heading without a page has an empty link.
    let listed = listed.iter().filter(|link| !link.is_empty());
    let listed: Vec<PathBuf> = listed.map(|link| Path::new("docs").join(link)).collect();
    let unique: BTreeSet<&PathBuf> = listed.iter().collect();
    assert_eq!(unique.len(), listed.len(), "a page is listed twice");
    let book = pages.keys().filter(|path| path.starts_with("docs") && !path.ends_with("SUMMARY.md"));
    let missing: Vec<&PathBuf> = book.filter(|page| !unique.contains(page)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list {missing:?}");
}

#[test]
fn every_flag_that_a_page_names_is_one_of_the_program() {
    let mut programs = Programs::default();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, page) in pages() {
        for line in page.code.iter().chain(&page.spans) {
            for (words, flags) in calls(line, &mut programs) {
                let known = &programs.help(&words).flags;
                seen += flags.len();
                let unknown = flags.iter().filter(|flag| !known.contains(*flag));
                wrong.extend(unknown.map(|flag| format!("{}: {} {flag}", path.display(), words.join(" "))));
            }
        }
    }
    assert_none(&wrong);
    assert!(seen > 100, "only {seen} flags were found: is the book read at all?");
}

/// But for pages about other programs.
#[test]
fn every_flag_that_stands_alone_in_the_text_is_one_of_some_program() {
    let mut programs = Programs::default();
    let mut known = BTreeSet::new();
    for name in PROGRAMS {
        known.extend(programs.all_flags(&[name.to_string()]));
    }
    let mut wrong = Vec::new();
    let others = |path: &Path| path.ends_with("moving.md") || path.ends_with("benchmarks.md");
    for (path, page) in pages().into_iter().filter(|(path, _)| !others(path)) {
        let named = page.spans.iter().filter(|span| span.starts_with("--"));
        let named = named.flat_map(|span| span.split_whitespace().filter_map(flag));
        let unknown = named.filter(|flag| !known.contains(flag));
        wrong.extend(unknown.map(|flag| format!("{}: {flag}", path.display())));
    }
    assert_none(&wrong);
}

/// What `--help` says of programs and verbs, each asked once.
#[derive(Default)]
struct Programs(BTreeMap<Vec<String>, Help>);

#[derive(Clone, Default)]
struct Help {
    flags: BTreeSet<String>,
    verbs: BTreeSet<String>,
}

impl Programs {
    fn help(&mut self, words: &[String]) -> &Help {
        self.0.entry(words.to_vec()).or_insert_with(|| {
            let (name, verbs) = words.split_first().expect("a program");
            let help = run(program(name).args(verbs).arg("--help")).succeeds();
            let commands = help.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
            let verbs = commands.unwrap_or("").lines().filter(|line| !line.starts_with("    "));
            Help {
                flags: help.split(|c: char| !(c.is_alphanumeric() || c == '-')).filter_map(flag).collect(),
                verbs: verbs.filter_map(|line| line.split_whitespace().next()).map(str::to_string).collect(),
            }
        })
    }
}

impl Programs {
    /// Of a program or verb, and of all verbs below.
    fn all_flags(&mut self, words: &[String]) -> BTreeSet<String> {
        let Help { mut flags, verbs } = self.help(words).clone();
        for verb in verbs.into_iter().filter(|verb| verb != "help") {
            flags.extend(self.all_flags(&[words, &[verb]].concat()));
        }
        flags
    }
}

fn flag(word: &str) -> Option<String> {
    let word = word.split('=').next().unwrap_or(word);
    let is_flag = word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic));
    is_flag.then(|| word.trim_end_matches(|c: char| !c.is_alphanumeric()).to_string())
}

/// The calls of our programs in a line of code: program and verbs, with the long flags that they are given.
fn calls(line: &str, programs: &mut Programs) -> Vec<(Vec<String>, Vec<String>)> {
    let mut calls: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    // Another command, or a comment, begins behind these.
    let line = line.split(" #").next().unwrap_or(line);
    for command in line.split(['|', ';', '&', '(', ')', '>', '<']) {
        let mut call: Option<(Vec<String>, Vec<String>)> = None;
        let mut before = "";
        for word in command.split([' ', '\'', '"', '`', ',']).filter(|word| !word.is_empty()) {
            let name = word.rsplit('/').next().unwrap_or(word);
            match &mut call {
                // "wal-g wal-push" is another program's verb.
                None if PROGRAMS.contains(&name) && before != "wal-g" => {
                    call = Some((vec![name.to_string()], Vec::new()));
                }
                Some((words, flags)) => match flag(word) {
                    Some(flag) => flags.push(flag),
                    None if programs.help(words).verbs.contains(word) => words.push(word.to_string()),
                    None => {}
                },
                None => {}
            }
            before = word;
        }
        calls.extend(call);
    }
    calls
}

#[test]
fn calls_are_found_in_a_line_of_code() {
    let mut programs = Programs::default();
    let line = "archive_command = 'wal-push --cluster b %p && wal-g wal-push --x %p' # wal-fetch --y";
    let found = calls(line, &mut programs);
    assert_eq!(found, [(vec!["wal-push".into()], vec!["--cluster".into()])]);
    let found = calls("$ sudo -u postgres /usr/bin/pgark repo ls --output=json", &mut programs);
    let words = ["pgark", "repo", "ls"].map(str::to_string).to_vec();
    assert_eq!(found, [(words, vec!["--output".into()])]);
}

#[test]
fn every_configuration_that_a_page_shows_is_accepted() {
    let scratch = Scratch::new();
    let mut shown = 0;
    for (path, page) in pages() {
        for (_, block) in page.blocks.iter().filter(|(kind, _)| kind == "toml") {
            let file = scratch.write("pgark.toml", block);
            let outcome = run(pgark().args(["completion", "bash", "--config"]).arg(file));
            assert_eq!(outcome.code, Some(0), "{}: {}\n{block}", path.display(), outcome.stderr);
            shown += 1;
        }
    }
    assert!(shown > 1, "only {shown} were found");
}

/// Whatever looks like a place in the source or like the name of a test: a sentence.
#[test]
fn the_code_and_the_tests_that_pages_name_exist() {
    let sources = files("src", "rs").into_iter().chain(files("tests", "rs"));
    let sources: Vec<String> = sources.map(|path| text(&path)).collect();
    let mut wrong = Vec::new();
    for (path, page) in pages().into_iter().filter(|(path, _)| path.starts_with("docs")) {
        for span in page.spans {
            let is_place = span.starts_with("src/") || span.starts_with("tests/");
            let lost = is_place && !span.contains(['*', '{']) && !project().join(&span).exists();
            let is_name = span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let is_test = is_name && path.ends_with("promises.md") && span.matches('_').count() > 2;
            let called = format!("fn {span}(");
            if lost || (is_test && !sources.iter().any(|source| source.contains(&called))) {
                wrong.push(format!("{}: {span}", path.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_dependency_has_its_reason_and_every_reason_its_dependency() {
    let manifest: toml::Table = text(&project().join("Cargo.toml")).parse().expect("TOML");
    let page = text(&project().join("docs/dependencies.md"));
    let parts = page.split_once("## In tests alone").expect("both parts");
    for (table, part) in [("dependencies", parts.0), ("dev-dependencies", parts.1)] {
        let rows = part.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let listed: BTreeSet<&str> =
            rows.flat_map(|(crates, _)| crates.split(", ")).filter(|name| *name != "crate").collect();
        let used: BTreeSet<&str> =
            manifest[table].as_table().expect("a table").keys().map(String::as_str).collect();
        assert_eq!(listed, used, "docs/dependencies.md, {table}");
    }
}

#[test]
fn the_reference_is_what_the_programs_say_of_themselves() {
    let scratch = Scratch::new();
    let made = scratch.make_dir("reference");
    run(pgark().arg("man").arg("--markdown").arg(&made)).succeeds();
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for entry in fs::read_dir(&made).expect("listed") {
        let path = entry.expect("listed").path();
        expected.insert(name(&path), text(&path));
    }
    assert!(expected.len() > PROGRAMS.len(), "{:?}", expected.keys());
    expected.insert("schemas.md".to_string(), schemas());
    let reference = project().join("docs/reference");
    if std::env::var_os("RENEW_BOOK").is_some() {
        for (name, text) in &expected {
            fs::write(reference.join(name), text).expect("written");
        }
    }
    let found = files("docs/reference", "md");
    let found: BTreeMap<String, String> = found.iter().map(|path| (name(path), text(path))).collect();
    let stale: Vec<&String> =
        expected.keys().filter(|name| found.get(*name) != expected.get(*name)).collect();
    assert!(stale.is_empty(), "docs/reference: {stale:?} are not what the programs say; renew: {RENEW}");
    assert_eq!(found.len(), expected.len(), "docs/reference holds more than is made: {:?}", found.keys());
}

fn name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_string()
}

/// The page about the shapes of `--output json`, by what the schemas say of themselves.
fn schemas() -> String {
    let mut page = format!(
        "<!-- Made from docs/schema: {RENEW} -->\n\n# JSON\n\n`--output json` prints one object with these shapes (JSON Schema). \
         Members are added, never changed; what would break a reader gets a new version and a new file.\n\n| of | shape | |\n|---|---|---|\n"
    );
    for path in files("docs/schema", "json") {
        let schema: serde_json::Value = serde_json::from_str(&text(&path)).expect("JSON");
        let said = |key: &str| schema[key].as_str().unwrap_or("").replace('|', "\\|");
        let file = name(&path);
        page += &format!("| `{}` | [{file}](../schema/{file}) | {} |\n", said("title"), said("description"));
    }
    page
}
