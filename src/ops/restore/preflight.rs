//! Everything that could keep this host from being the restored server's, looked at before the first write.
//! All that is in the way is said at once: who restores at night should not have to try five times.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use super::Request;
use super::configure;
use super::debian::{self, Layout, Registration};
use super::directory::{self, Clearing};
use super::libraries;
use super::memory::{Memory, MemorySettings};
use super::neighbours;
use super::plan::{Decision, Plan, ServerPlan};
use super::size::{self, Counted};
use super::source::Source;
use super::space;
use super::tablespaces::{self, Assigned, Found};
use crate::config::Config;
use crate::error::{Error, IoContext, Result};
use crate::ident::Id;
use crate::pg::binaries::Binaries;
use crate::pg::recovery::Role;
use crate::pg::server;
use crate::pg::version::PgMajor;

/// What is in the way.
#[derive(Debug, Default)]
struct Obstacles(Vec<Error>);

impl Obstacles {
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    fn finish(mut self) -> Result<()> {
        if self.0.len() < 2 {
            return self.0.pop().map_or(Ok(()), Err);
        }
        let kind = self.0.first().map_or(crate::error::Kind::Configuration, Error::kind);
        let list: Vec<String> = self.0.iter().map(describe).collect();
        let message = format!("{} things are in the way of this restore; nothing was written", list.len());
        Err(Error::new(kind, format!("{message}{}", list.concat())))
    }
}

fn describe(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!("\n      {hint}")).unwrap_or_default();
    format!("\n  - {error}{hint}")
}

/// Completes the plan, or says everything that is in its way.
pub fn plan(
    config: &Config,
    request: &Request,
    source: &Source,
    decision: Decision,
    mut notes: Vec<String>,
) -> Result<Plan> {
    let mut obstacles = Obstacles::default();
    obstacles.note(refuse_root(request));
    let major = decision.header.server.major;
    let clearing = obstacles.note(check_directory(config, request, source)).unwrap_or_default();
    let assigned = tablespaces::assign(&decision.header.tablespaces, &request.tablespace_map)?;
    let freed = freed(request, &clearing, &assigned, major)?;
    let made_for_replay = check_tablespaces(&mut obstacles, request, &decision, &assigned, &freed);
    let space = check_space(source, request, &decision, &assigned, &clearing, &freed);
    notes.extend(obstacles.note(space).flatten());
    let binaries = match request.start {
        true => obstacles.note(Binaries::find(major, request.bin_dir.as_deref(), request.path.as_deref())),
        false => None,
    };
    obstacles.note(libraries::check(&decision.header, request, binaries.as_ref()));
    obstacles.note(check_memory(&decision, request));
    obstacles.note(check_settings(request));
    let debian = obstacles.note(registration(request, major)).flatten();
    let place = obstacles.note(place(request, &clearing, debian.as_ref()));
    let fetch = obstacles.note(fetch_words(config, source.cluster.repository().id()));
    obstacles.finish()?;
    let (Some((port, socket_directory)), Some(fetch)) = (place, fetch) else {
        return Err(Error::bug("a restore without a place for its server was planned"));
    };
    let role = if request.takeover { Role::Takeover } else { Role::Quarantine };
    let server = ServerPlan { binaries, port, socket_directory, role, fetch, set: request.set.clone() };
    let plan = Plan {
        cluster: source.cluster.clone(),
        decision,
        data: request.data.clone(),
        debian,
        clearing,
        freed,
        tablespaces: assigned,
        made_for_replay,
        server,
        notes,
    };
    configure::check(&plan)?;
    Ok(plan)
}

/// PostgreSQL refuses to run as root, and what root writes it could not read.
fn refuse_root(request: &Request) -> Result<()> {
    if !rustix::process::geteuid().is_root() || request.dry_run {
        return Ok(());
    }
    Err(Error::configuration("this runs as root, and a server must not: it has to own its files")
        .with_hint("run this as the user that the server shall run as, for example with `sudo -u postgres`"))
}

fn check_directory(config: &Config, request: &Request, source: &Source) -> Result<Clearing> {
    let data = tablespaces::real_path(&request.data);
    let repository = tablespaces::real_path(config.repo()?.directory());
    if data.starts_with(&repository) || repository.starts_with(&data) {
        return Err(Error::configuration(format!(
            "could not restore into {}: the repository is at {}",
            request.data.display(),
            repository.display()
        ))
        .with_hint("name a directory outside the repository"));
    }
    let found = directory::look(&request.data)?;
    let clearing = directory::judge(&request.data, &found, request.replace, source.cluster.system_id())?;
    directory::check_access(&request.data)?;
    Ok(clearing)
}

/// The directories of tablespaces that are emptied with the data directory: those that the restore that made
/// it noted as its own, and those that it links to and that the operator mapped to themselves. Never one
/// that a running server links to.
fn freed(
    request: &Request,
    clearing: &Clearing,
    assigned: &[Assigned],
    major: PgMajor,
) -> Result<Vec<(PathBuf, PgMajor)>> {
    if !clearing.empty {
        return Ok(Vec::new());
    }
    let mut freed = Vec::new();
    if let Some(record) = &clearing.record {
        freed.extend(record.owned()?.into_iter().map(|location| (location, record.major)));
    }
    let linked = neighbours::linked_from(&request.data);
    for place in assigned.iter().filter(|place| place.mapped && place.location == place.source) {
        let known = freed.iter().any(|(location, _)| *location == place.location);
        if !known && linked.contains(&tablespaces::real_path(&place.location)) {
            freed.push((place.location.clone(), major));
        }
    }
    freed.retain(|(location, _)| neighbours::user_of(location, &request.data).is_none());
    Ok(freed)
}

/// Answers with the directories that replay needs and that are not there.
fn check_tablespaces(
    obstacles: &mut Obstacles,
    request: &Request,
    decision: &Decision,
    assigned: &[Assigned],
    freed: &[(PathBuf, PgMajor)],
) -> Vec<PathBuf> {
    let major = decision.header.server.major;
    let created = &decision.survey.created;
    obstacles.note(tablespaces::refuse_meetings(assigned, created, &request.data, tablespaces::real_path));
    let freed: BTreeSet<PathBuf> = freed.iter().map(|(location, _)| location.clone()).collect();
    for place in assigned {
        let looked = tablespaces::look(&place.location, major);
        obstacles.note(looked.and_then(|found| tablespaces::check(place, &found, &freed)));
    }
    let mut missing = Vec::new();
    for created in created {
        let path = tablespaces::path_of(created);
        let found = tablespaces::look(&path, major);
        if found == Ok(Found::Absent) && !missing.contains(&path) {
            missing.push(path);
        }
        obstacles.note(found.and_then(|found| tablespaces::check_created(created, &found)));
    }
    missing
}

/// Answers with what the operator should know when there is room only because zeros take none.
fn check_space(
    source: &Source,
    request: &Request,
    decision: &Decision,
    assigned: &[Assigned],
    clearing: &Clearing,
    freed: &[(PathBuf, PgMajor)],
) -> Result<Option<String>> {
    let mut emptied: Vec<PathBuf> =
        freed.iter().map(|(location, major)| location.join(major.tablespace_directory())).collect();
    emptied.extend(clearing.empty.then(|| request.data.clone()));
    let whole = size::demands(source, request, decision, assigned, Counted::Whole)?;
    if space::check(&whole, &emptied).is_ok() {
        return Ok(None);
    }
    let written = size::demands(source, request, decision, assigned, Counted::Written)?;
    space::check(&written, &emptied)?;
    Ok(Some(size::note(&whole, &written)))
}

fn check_memory(decision: &Decision, request: &Request) -> Result<()> {
    let Some(memory) = Memory::of_host().filter(|_| request.start) else { return Ok(()) };
    let setting = |name: &str, default| request.setting(&decision.header, name).unwrap_or(default);
    memory.check(&MemorySettings {
        shared_buffers: setting("shared_buffers", "128MB"),
        huge_pages: setting("huge_pages", "try"),
        block_size: u32::from(decision.header.block_size),
    })
}

/// Refuses settings that flags of their own are for, and those that would undo what makes a restore safe.
fn check_settings(request: &Request) -> Result<()> {
    for setting in &request.set {
        setting.line()?;
        let name = setting.name.to_ascii_lowercase();
        let flag = match name.as_str() {
            "port" => "--port",
            "unix_socket_directories" => "--socket-dir",
            "data_directory" => "-D",
            "restore_command" => "no flag: it is what the restore itself sets",
            "primary_conninfo" | "primary_slot_name" => {
                "--standby with --primary-conninfo and --primary-slot"
            }
            "include" | "include_dir" | "include_if_exists" => "--set for each setting",
            "archive_mode" | "archive_command" | "archive_library" if request.standby.is_some() => {
                "no flag: a standby archives nothing here; set it once it is the primary"
            }
            "archive_mode" | "archive_command" | "archive_library" if !request.takeover => "--takeover",
            name if name.starts_with("recovery_target") => {
                "--target-time and its like, --target-timeline, --action"
            }
            _ => continue,
        };
        return Err(Error::configuration(format!("--set {name} is not possible here"))
            .with_hint(format!("use {flag}")));
    }
    Ok(())
}

/// How it is to be registered as a cluster of Debian's, if it is.
fn registration(request: &Request, major: PgMajor) -> Result<Option<Registration>> {
    let Some(name) = &request.debian else { return Ok(None) };
    let wanted = debian::Wanted {
        name,
        data: &request.data,
        replace: request.replace,
        // A copy that was made to look at something is not to come up with the host for ever.
        autostart: request.takeover || request.standby.is_some(),
        major,
    };
    debian::check(Layout::of_host(), wanted).map(Some)
}

/// The port and the socket directory.
fn place(request: &Request, clearing: &Clearing, debian: Option<&Registration>) -> Result<(u16, PathBuf)> {
    let directory = match &request.socket_directory {
        Some(directory) => directory.clone(),
        None => default_socket_directory(),
    };
    // What listens there while the server is to be stopped is that server.
    let kept = debian.and_then(Registration::port);
    let kept = kept.filter(|port| clearing.stop_server || check_port(*port).is_ok());
    let port = match (request.port.or(kept), debian) {
        (Some(port), _) => port,
        (None, Some(registration)) => server::first_free_port(&directory, registration.taken())?,
        (None, None) => server::free_port(&directory)?,
    };
    if let Some(registration) = debian.filter(|registration| registration.taken().contains(&port)) {
        return Err(Error::conflict(format!(
            "could not give {} port {port}: another cluster of this host has it",
            registration.name
        ))
        .with_hint("leave --port out, and a free one is taken"));
    }
    server::check_socket_directory(&directory, port)?;
    // The port of a server that is stopped first becomes free.
    if request.port.is_some() && request.start && !clearing.stop_server {
        check_port(port)?;
    }
    Ok((port, directory))
}

fn default_socket_directory() -> PathBuf {
    let usable = |directory: &Path| rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok();
    let packaged = Path::new("/var/run/postgresql");
    if usable(packaged) { packaged.to_path_buf() } else { PathBuf::from("/tmp") }
}

fn check_port(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(cause) if cause.kind() == std::io::ErrorKind::AddrInUse => {
            Err(Error::conflict(format!("could not use port {port}: something listens on it"))
                .with_hint("leave --port out, and a free one is taken"))
        }
        Err(cause) => Err(cause).doing(|| format!("try port {port}")),
    }
}

/// The words that run `wal-fetch` for this repository, whatever the server's environment will be.
fn fetch_words(config: &Config, repository: Id) -> Result<Vec<String>> {
    let us = std::env::current_exe().doing(|| "find out where this program is")?;
    let program = us.with_file_name("wal-fetch");
    if rustix::fs::access(&program, rustix::fs::Access::EXEC_OK).is_err() {
        return Err(Error::configuration(format!(
            "could not find wal-fetch: expected at {}",
            program.display()
        ))
        .with_hint("install pgark's programs into one directory: recovery runs wal-fetch"));
    }
    let mut words = vec![text(program.into())?];
    if let Some(file) = &config.file {
        let file = std::path::absolute(file).doing(|| format!("find {}", file.display()))?;
        words.extend(["--config".to_string(), text(file.into())?]);
    }
    words.extend(["--repo".to_string(), config.repo()?.to_string()]);
    words.extend(["--repo-id".to_string(), repository.to_string()]);
    words.extend(["--cluster".to_string(), config.cluster.to_string()]);
    Ok(words)
}

fn text(path: OsString) -> Result<String> {
    path.into_string().map_err(|path| {
        Error::configuration(format!("{} can't be part of restore_command: it is not UTF-8", path.display()))
            .with_hint("move it to a path of plain letters")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_obstacle_is_the_error_and_several_are_a_list() {
        assert_eq!(Obstacles::default().finish(), Ok(()));
        let first = Error::conflict("the first").with_hint("do this");
        assert_eq!(Obstacles(vec![first.clone()]).finish(), Err(first.clone()));
        let both = Obstacles(vec![first, Error::configuration("the second")]).finish().expect_err("two");
        assert_eq!(both.kind(), crate::error::Kind::Conflict);
        assert_eq!(
            both.message(),
            "2 things are in the way of this restore; nothing was written\n  - the first\n      do this\n  - the second"
        );
    }

    #[test]
    fn a_port_that_is_taken_is_refused() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        assert!(check_port(port).is_err_and(|error| error.hint().is_some()));
    }
}
