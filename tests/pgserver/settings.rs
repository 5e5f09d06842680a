//! Configuration files: what we read is what the server reads, value by value and error by error.

use std::fs;
use std::path::Path;

use pgark::pg::client::Client;
use pgark::pg::settings::{Disk, Settings};
use pgark::pg::settings_file::{Line, Setting, parse_line};
use pgark::pg::settings_value::{MemoryUnit, parse_list, parse_memory};

use super::connecting::connect;
use crate::harness::*;

/// pg_file_settings: every line that the server would read now, right or wrong.
#[derive(Debug, PartialEq, Eq)]
struct FileSetting {
    file: String,
    line: i32,
    setting: Option<(String, String)>,
}

fn file_settings(client: &mut Client) -> Vec<FileSetting> {
    let sql = "select sourcefile, sourceline, lower(name), setting from pg_file_settings order by seqno";
    let rows = client.query(sql, &[]).expect("pg_file_settings");
    rows.iter()
        .map(|row| {
            let name = row.get::<Option<String>>(2).expect("a name");
            let value = row.get::<Option<String>>(3).expect("a value");
            FileSetting {
                file: row.get(0).expect("a file"),
                line: row.get(1).expect("a line"),
                setting: name.zip(value),
            }
        })
        .collect()
}

fn ours(settings: &Settings) -> Vec<FileSetting> {
    let entries = settings.entries.iter();
    entries
        .map(|entry| FileSetting {
            file: entry.file.display().to_string(),
            line: i32::try_from(entry.line).expect("a line"),
            setting: Some((entry.name.clone(), entry.value.clone())),
        })
        .collect()
}

/// A Debian-style cluster whose configuration uses all that the grammar has.
fn odd() -> Cluster {
    let cluster = Cluster::builder().debian().start();
    let etc = cluster.config_dir().to_path_buf();
    fs::create_dir_all(etc.join("more")).expect("made");
    for (name, text) in [
        ("conf.d/00-first.conf", "work_mem '5MB'\nodd.text = 'it''s \\'quoted\\' \\101\\t|'\n"),
        ("conf.d/Z-upper.conf", "WORK_MEM = 6144 # in kB\nodd.plain = a-b.c:/d"),
        ("conf.d/.hidden.conf", "work_mem = 1MB\n"),
        ("conf.d/notes.txt", "not a setting\n"),
        ("more/one.conf", "include 'two.conf'\r\nodd.last = one\r\n"),
        ("more/two.conf", "odd.last = 'two'\nodd.empty = ''\nodd.number=-0x1FkB\nodd.real = .5e3"),
    ] {
        fs::write(etc.join(name), text).expect("written");
    }
    cluster.append_config(
        "include 'more/one.conf'\ninclude_if_exists 'absent.conf'\nodd.path = 'C:\\\\dir with ''quotes'''",
    );
    cluster.psql("alter system set log_line_prefix to E'a\\\\b ''c'''");
    cluster.psql("alter system set maintenance_work_mem to '77MB'");
    cluster.restart();
    cluster
}

#[test]
fn settings_of_a_debian_style_cluster_agree_with_the_server() {
    let cluster = odd();
    let config = cluster.config_dir().join("postgresql.conf");
    let settings = Settings::effective(&config, &cluster.data_dir(), &Disk).expect("reads");
    let mut client = connect(&cluster.conninfo(), Path::new("/"), &[]).expect("let in");
    assert_eq!(ours(&settings), file_settings(&mut client));

    let mut compared = 0;
    for name in [
        "work_mem",
        "maintenance_work_mem",
        "odd.text",
        "odd.last",
        "log_line_prefix",
        "odd.path",
        "odd.plain",
        "hba_file",
    ] {
        let shown = client.query_one_text("select current_setting($1)", &[&name]).expect("set");
        assert_eq!(settings.get(name).map(|value| value.replace("6144", "6MB")), Some(shown), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 8);
    for name in ["odd.last", "maintenance_work_mem", "data_directory"] {
        let mut command = pg_command("postgres");
        let output = command
            .arg("-C")
            .arg(name)
            .arg("-D")
            .arg(cluster.config_dir())
            .output()
            .expect("run postgres -C");
        let shown = String::from_utf8_lossy(&output.stdout).trim_end().replace("78848", "77MB");
        assert_eq!(settings.get(name), Some(shown.as_str()), "{name}: {output:?}");
    }
    let memory = settings.get("work_mem").map(|value| parse_memory(value, MemoryUnit::Kilobytes));
    assert_eq!(memory, Some(Ok(6 << 20)));
}

#[test]
fn the_flat_text_alone_gives_the_server_the_same_settings() {
    let cluster = odd();
    let etc = cluster.config_dir();
    let settings = Settings::read(&etc.join("postgresql.conf"), &Disk).expect("reads");
    let mut client = connect(&cluster.conninfo(), Path::new("/"), &[]).expect("let in");
    let before: Vec<_> = file_settings(&mut client).into_iter().map(|found| found.setting).collect();
    fs::write(etc.join("postgresql.conf"), &settings.flat).expect("written");
    fs::remove_dir_all(etc.join("more")).expect("removed");
    fs::remove_dir_all(etc.join("conf.d")).expect("removed");
    let after: Vec<_> = file_settings(&mut client).into_iter().map(|found| found.setting).collect();
    assert_eq!(after, before);
}

/// Lines that nobody would write, from the characters that matter to the grammar, the same in every run.
fn strange_lines(count: usize, mut seed: u64) -> Vec<String> {
    let alphabet: Vec<char> = "aZ_é09.'\\'= =\t#-+:/$xXeEkB,\"".chars().collect();
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut line = |_| {
        let length = next() % 8;
        let tail: String = (0..length).map(|_| alphabet[(next() % alphabet.len() as u64) as usize]).collect();
        match next() % 4 {
            0 => tail,
            1 => format!("x.y '{tail}'"),
            _ => format!("x.y = {tail}"),
        }
    };
    (0..count).map(&mut line).collect()
}

#[test]
fn strange_lines_are_read_or_refused_as_the_server_does() {
    let cluster = Cluster::start_new();
    let mut client = connect(&cluster.conninfo(), Path::new("/"), &[]).expect("let in");
    // A file for each line: the server gives a file up at its first error.
    let file = |number: usize| format!("strange-{number}");
    let includes: Vec<String> = (0..100).map(|number| format!("include '{}'", file(number))).collect();
    cluster.append_config(&includes.join("\n"));
    let (mut good, mut bad) = (0, 0);
    for round in 1..=20 {
        let lines = strange_lines(100, round * 0x9E37_79B9);
        for (number, line) in lines.iter().enumerate() {
            fs::write(cluster.data_dir().join(file(number)), line).expect("written");
        }
        let theirs = file_settings(&mut client);
        for (number, line) in lines.iter().enumerate() {
            let theirs = theirs.iter().find(|found| found.file.ends_with(&format!("/{}", file(number))));
            let ours = match parse_line(line.as_bytes()) {
                Line::Blank => None,
                Line::Setting { name, value } => Some(Some((name, value))),
                Line::Bad => Some(None),
            };
            assert_eq!(ours, theirs.map(|found| found.setting.clone()), "{line:?}");
            good += u32::from(matches!(ours, Some(Some(_))));
            bad += u32::from(matches!(ours, Some(None)));
        }
    }
    assert!(good > 300 && bad > 300, "{good} good and {bad} bad lines");
}

#[test]
fn values_that_we_write_arrive_at_the_server() {
    let cluster = Cluster::start_new();
    let values = ["", "it's", "a\\b", "\\", "''", " # = ", "é\t$", "/path with spaces/%f \"x\"", "\\101"];
    let lines: Vec<String> = (0..)
        .zip(values)
        .map(|(number, value)| Setting::new(format!("w.v{number}"), value).line().expect("a line"))
        .collect();
    cluster.append_config(&lines.join("\n"));
    cluster.reload();
    let last = format!("w.v{}", values.len() - 1);
    cluster.wait_sql(&format!("select current_setting('{last}', true)"), "\\101");
    let mut client = connect(&cluster.conninfo(), Path::new("/"), &[]).expect("let in");
    for (number, value) in (0..).zip(values) {
        let name = format!("w.v{number}");
        assert_eq!(client.query_one_text("select current_setting($1)", &[&name]).as_deref(), Ok(value));
    }
}

#[test]
fn lists_are_split_as_the_server_splits_them() {
    let cluster = Cluster::start_new();
    let here = cluster.socket_dir().display().to_string();
    let spaced = cluster.scratch().make_dir("with space");
    let quoted = cluster.scratch().make_dir("a,b");
    let list = format!("{here} ,  {},\"{}\"", spaced.display(), quoted.display());
    cluster.append_config(&Setting::new("unix_socket_directories", list.as_str()).line().expect("a line"));
    cluster.restart();
    let directories = parse_list(&list).expect("a list");
    assert_eq!(directories, [here, spaced.display().to_string(), quoted.display().to_string()]);
    for directory in directories {
        let socket = Path::new(&directory).join(format!(".s.PGSQL.{}", cluster.port()));
        assert!(socket.exists(), "{}", socket.display());
    }
}
