//! Man pages and shell completions of all programs, made from the definitions that parse their flags and print
//! their `--help`: what they say is what the programs do.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::basebackup::BasebackupArgs;
use super::reference::reference;
use super::restore::RestoreArgs;
use super::{print, wal_fetch, wal_push, wal_receive};
use crate::config::DEFAULT_FILE;
use crate::error::{Error, IoContext, Result};

#[derive(Args)]
pub struct ManArgs {
    /// Where they go, such as /usr/local/share/man/man1
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,

    /// The reference of the book instead, in Markdown
    #[arg(long, hide = true)]
    markdown: bool,
}

#[derive(Args)]
pub struct CompletionArgs {
    #[arg(value_enum)]
    shell: Shell,

    /// Write one file for each program into it; without, all are printed, for `source <(pgark completion bash)`
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl ManArgs {
    /// `pgark` is the definition of the program itself.
    pub fn run(&self, pgark: Command) -> Result<ExitCode> {
        require_directory(&self.directory)?;
        if self.markdown {
            for page in reference(&programs(pgark).map(|program| pages(&program))) {
                write(&self.directory.join(page.name), page.text.as_bytes())?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        for program in programs(pgark) {
            for page in pages(&program) {
                let text = man_page(&page, &program)?;
                write(&self.directory.join(format!("{}.1", page_name(&page))), &text)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl CompletionArgs {
    /// `pgark` is the definition of the program itself.
    pub fn run(&self, pgark: Command) -> Result<ExitCode> {
        let mut all = String::new();
        for mut program in programs(pgark) {
            let name = program.get_name().to_string();
            let mut script = Vec::new();
            clap_complete::generate(self.shell, &mut program, &name, &mut script);
            match &self.directory {
                Some(directory) => {
                    require_directory(directory)?;
                    write(&directory.join(file_name(self.shell, &name)), &script)?;
                }
                None => all.push_str(&String::from_utf8_lossy(&script)),
            }
        }
        if self.directory.is_none() {
            print(&all)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The definitions of all programs.
fn programs(pgark: Command) -> [Command; 6] {
    [
        BasebackupArgs::command(),
        RestoreArgs::command(),
        pgark,
        wal_fetch::Args::command(),
        wal_push::Args::command(),
        wal_receive::Args::command(),
    ]
}

/// The name by which the shell finds it.
fn file_name(shell: Shell, program: &str) -> String {
    match shell {
        Shell::Zsh => format!("_{program}"),
        Shell::Fish => format!("{program}.fish"),
        // bash-completion loads what is called as the command is.
        _ => program.to_string(),
    }
}

/// A program and, each with a page of its own, its subcommands: "pgark-info".
fn pages(program: &Command) -> Vec<Command> {
    let mut built = program.clone().propagate_version(true).disable_help_subcommand(true);
    built.build();
    let mut pages = vec![built];
    let mut next = 0;
    while let Some(page) = pages.get(next) {
        let verbs: Vec<Command> = page.get_subcommands().cloned().collect();
        pages.extend(verbs);
        next += 1;
    }
    pages
}

/// As `git help` and others call their pages: "pgark-info".
pub(super) fn page_name(page: &Command) -> &str {
    page.get_display_name().unwrap_or_else(|| page.get_name())
}

fn man_page(page: &Command, program: &Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    render(page, program, &mut text).doing(|| format!("write the man page of {}", page_name(page)))?;
    Ok(text)
}

fn render(page: &Command, program: &Command, text: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(page.clone()).source(concat!("pgark ", env!("CARGO_PKG_VERSION"))).manual("pgark");
    man.render_title(text)?;
    man.render_name_section(text)?;
    man.render_synopsis_section(text)?;
    man.render_description_section(text)?;
    man.render_options_section(text)?;
    if page.has_subcommands() {
        man.render_subcommands_section(text)?;
    }
    let mut rest = Roff::new();
    // The exit codes: a verb has its program's unless it says otherwise.
    if let Some(notes) = page.get_after_help().or(program.get_after_help()) {
        section(&mut rest, "NOTES", &notes.to_string());
    }
    rest.control("SH", ["ENVIRONMENT"]);
    for flag in page.get_arguments() {
        if let (Some(variable), Some(long)) = (flag.get_env(), flag.get_long()) {
            rest.control("TP", []);
            rest.text([bold(variable.to_string_lossy())]);
            rest.text([roman(format!("as --{long}"))]);
        }
    }
    rest.control("SH", ["FILES"]);
    rest.control("TP", []);
    rest.text([bold(DEFAULT_FILE)]);
    rest.text([roman("the configuration, unless --config names another")]);
    section(
        &mut rest,
        "SEE ALSO",
        "pgark(1), wal-push(1), wal-fetch(1), wal-receive(1), basebackup(1), bootstrap-restore(1)",
    );
    rest.to_writer(text)
}

fn section(page: &mut Roff, name: &str, content: &str) {
    page.control("SH", [name]);
    for paragraph in content.split("\n\n") {
        page.control("PP", []);
        page.text([roman(paragraph)]);
    }
}

fn require_directory(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    Err(Error::configuration(format!("there is no directory {}", directory.display())))
}

/// For everyone to read, whatever the umask; made again at any time, so nothing is made durable.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::File::create(path)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)))
        .doing(|| format!("write {}", path.display()))
}
