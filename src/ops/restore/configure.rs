//! The configuration of the restored server, inside its data directory, whatever its source's layout was:
//! postgresql.conf with all includes in it, pg_hba.conf, pg_ident.conf, postgresql.auto.conf, backup_label and
//! the signal file.
//!
//! What counts comes last: role, recovery, place, what recovery needs at least, then what the operator set.
//! Invariant: no file outside the data directory is read, and nothing points at the source any more.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::libraries;
use super::plan::Plan;
use super::tablespaces;
use super::target::Target;
use crate::durable;
use crate::error::{Error, IoContext, Result};
use crate::pg::hba;
use crate::pg::recovery::{Configuration, Role, role_settings};
use crate::pg::server::socket_directory_value;
use crate::pg::settings::{AUTO_CONF, Disk, Settings, Source};
use crate::pg::settings_file::{MARKER, Setting};

/// Lets the owner of the files in, who could read them anyway: the socket of a quarantined server is open to
/// its owner alone (unix_socket_permissions).
const OWNER_MAY_CONNECT: &str = "local all all trust";

/// NAMEDATALEN without its NUL: longer names of a cluster are cut off.
const MAX_CLUSTER_NAME: usize = 63;

/// Writes it all. `sink` holds the configuration files that were outside the source's data directory, below
/// their absolute paths. Answers with what the operator should know.
pub fn configure(plan: &Plan, sink: &Path) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let restored = Restored::of(plan, sink);
    let settings = restored.settings(&mut notes)?;
    let auto = restored.auto_conf()?;
    let set = everything_set(plan, &settings, &auto, &mut notes)?;
    let files = Configuration::restored(&settings.flat, &auto, plan.server.role, &set)?;
    let mode = file_mode(&plan.data)?;
    let write = |name: &str, bytes: &[u8]| durable::write_file(&plan.data.join(name), bytes, mode);
    let hba = restored.flat("hba_file", "pg_hba.conf", &mut notes)?;
    write("pg_hba.conf", &hba_file(plan, hba))?;
    write("pg_ident.conf", &restored.flat("ident_file", "pg_ident.conf", &mut notes)?)?;
    write("postgresql.conf", &files.postgresql_conf)?;
    write(AUTO_CONF, &files.auto_conf)?;
    write("backup_label", plan.decision.header.backup_label.as_bytes())?;
    write(plan.decision.recovery(&plan.server.fetch)?.signal_file(), b"")?;
    Ok(notes)
}

/// As initdb: the group may read if it may enter the directory (initdb --allow-group-access).
fn file_mode(data: &Path) -> Result<u32> {
    let metadata = data.metadata().doing(|| format!("look at {}", data.display()))?;
    Ok(if metadata.permissions().mode() & 0o050 == 0o050 { 0o640 } else { 0o600 })
}

/// All settings that the restore makes, those that count last.
fn everything_set(
    plan: &Plan,
    main: &Settings,
    auto: &[u8],
    notes: &mut Vec<String>,
) -> Result<Vec<Setting>> {
    let role = plan.server.role;
    let mut set = role_settings(role);
    set.extend(plan.decision.recovery(&plan.server.fetch)?.settings()?);
    set.push(Setting::new("port", plan.server.port.to_string()));
    let directory = plan.server.socket_directory.to_string_lossy();
    set.push(Setting::new("unix_socket_directories", socket_directory_value(&directory)));
    let registered = plan.debian.as_ref();
    set.extend(registered.into_iter().flat_map(|r| r.settings(&plan.data, &plan.server.socket_directory)));
    let effective = with_auto(main, auto)?;
    match role {
        Role::Quarantine => set.extend(quarantine(plan, &effective)?),
        Role::Takeover => set.extend(what_is_missing_here(plan, &effective, notes)),
    }
    set.extend(archives_whole_segments(plan, &effective, notes));
    set.extend(allows_in_place(plan, notes)?);
    set.extend(plan.server.set.iter().cloned());
    let minimums = plan.decision.survey.minimums;
    let lacking = minimums.missing_in(&with(&effective, &set));
    let too_low = |setting: &&Setting| {
        plan.server.set.iter().any(|given| given.name.eq_ignore_ascii_case(&setting.name))
    };
    if let Some(setting) = lacking.iter().find(too_low) {
        notes.push(format!(
            "{} is {} and not as set: recovery does not go on with less",
            setting.name, setting.value
        ));
    }
    set.extend(lacking);
    Ok(set)
}

fn quarantine(plan: &Plan, effective: &Settings) -> Result<Vec<Setting>> {
    let mut set = vec![
        Setting::new("cluster_name", cluster_name(plan)),
        Setting::new("unix_socket_permissions", "0700"),
    ];
    let preload = effective.get("shared_preload_libraries");
    if !libraries::left_out(preload)?.is_empty() {
        set.push(Setting::new("shared_preload_libraries", libraries::loaded(preload, false)?.join(",")));
    }
    Ok(set)
}

/// Tells in every process title and every log line what this is. ASCII, as the server wants it.
fn cluster_name(plan: &Plan) -> String {
    let target = match &plan.decision.aim.target {
        Target::Time(time) => time.to_string(),
        other => other.to_string(),
    };
    let name = format!("restored {} to {target}", plan.cluster.name());
    name.chars().filter(|c| (' '..='~').contains(c)).take(MAX_CLUSTER_NAME).collect()
}

/// A successor keeps its TLS and its log directory, if they are here: else the server would not start.
fn what_is_missing_here(plan: &Plan, effective: &Settings, notes: &mut Vec<String>) -> Vec<Setting> {
    let mut set = Vec::new();
    let here = |name: &str, default: &str| plan.data.join(effective.get(name).unwrap_or(default));
    let uses_tls = matches!(effective.get("ssl"), Some("on" | "true" | "yes" | "1"));
    let files = [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "")];
    let missing = files
        .into_iter()
        .filter(|(name, default)| {
            !default.is_empty() || effective.get(name).is_some_and(|value| !value.is_empty())
        })
        .map(|(name, default)| here(name, default))
        .find(|path| !path.is_file());
    if let Some(path) = missing.filter(|_| uses_tls) {
        notes.push(format!(
            "TLS is off, because {} is not here: put it there and set ssl = on",
            path.display()
        ));
        set.push(Setting::new("ssl", "off"));
    }
    let log = here("log_directory", "log");
    if !log.starts_with(&plan.data) && rustix::fs::access(&log, rustix::fs::Access::WRITE_OK).is_err() {
        notes.push(format!(
            "the server logs into its own directory log, because {} can't be written",
            log.display()
        ));
        set.push(Setting::new("log_directory", "log"));
    }
    set
}

/// The plan saw what the source ran with; its files may say what it would have run with after a restart.
fn archives_whole_segments(plan: &Plan, effective: &Settings, notes: &mut Vec<String>) -> Option<Setting> {
    let always = effective.get("archive_mode").is_some_and(|mode| mode.eq_ignore_ascii_case("always"));
    plan.decision.streamed().filter(|_| always && plan.server.role == Role::Takeover)?;
    notes.push(
        "archive_mode is on and not always: the streamed part at the end of the WAL must not be archived as a \
         whole segment"
            .to_string(),
    );
    Some(Setting::new("archive_mode", "on"))
}

/// Recovery that finds a tablespace inside the data directory ends in a panic unless this is on
/// (xlogrecovery.c, CheckTablespaceDirectory). At the source a session had it on for itself.
fn allows_in_place(plan: &Plan, notes: &mut Vec<String>) -> Result<Option<Setting>> {
    if !plan.decision.survey.in_place && !tablespaces::any_in_place(&plan.data)? {
        return Ok(None);
    }
    let setting = Setting::new("allow_in_place_tablespaces", "on");
    notes.push(format!(
        "{} is on, because recovery refuses the cluster's tablespaces without it",
        setting.name
    ));
    Ok(Some(setting))
}

fn with_auto(main: &Settings, auto: &[u8]) -> Result<Settings> {
    let source = OneFile { path: PathBuf::from("/").join(AUTO_CONF), text: auto.to_vec() };
    let auto = Settings::read(&source.path, &source)?;
    Ok(Settings { entries: [main.entries.clone(), auto.entries].concat(), ..Settings::default() })
}

/// The settings with further ones that count more.
fn with(settings: &Settings, set: &[Setting]) -> Settings {
    let mut entries = settings.entries.clone();
    entries.extend(set.iter().map(|setting| crate::pg::settings::Entry {
        name: setting.name.to_ascii_lowercase(),
        value: setting.value.clone(),
        file: PathBuf::new(),
        line: 0,
    }));
    Settings { entries, ..Settings::default() }
}

fn hba_file(plan: &Plan, source: Vec<u8>) -> Vec<u8> {
    let opened = plan.server.set.iter().any(|set| set.name.eq_ignore_ascii_case("unix_socket_permissions"));
    if plan.server.role == Role::Takeover || opened {
        return source;
    }
    let mut text = format!(
        "{MARKER}the socket of this quarantined server is open to the owner of its files alone\n{OWNER_MAY_CONNECT}\n"
    )
    .into_bytes();
    text.extend(source);
    text
}

/// The configuration of the source, as it lies in what was restored.
struct Restored<'a> {
    plan: &'a Plan,
    sink: &'a Path,
    source_data: PathBuf,
}

impl<'a> Restored<'a> {
    fn of(plan: &'a Plan, sink: &'a Path) -> Self {
        let source_data = plan.decision.header.settings.get("data_directory").map(PathBuf::from);
        Self { plan, sink, source_data: source_data.unwrap_or_default() }
    }

    /// A file's path at the source: as the server said, else where it is by default.
    fn source_path(&self, setting: &str, default: &str) -> PathBuf {
        let said = self.plan.decision.header.settings.get(setting).filter(|path| !path.is_empty());
        said.map_or_else(|| self.source_data.join(default), PathBuf::from)
    }

    fn settings(&self, notes: &mut Vec<String>) -> Result<Settings> {
        let main = self.source_path("config_file", "postgresql.conf");
        if self.locate(&main).is_none() {
            notes.push(format!("the backup holds no {}: the server runs with defaults", main.display()));
            return Ok(Settings::default());
        }
        Settings::read(&main, self).map_err(|error| {
            error
                .context("the configuration in the backup")
                .with_hint("the source's configuration was broken then")
        })
    }

    fn auto_conf(&self) -> Result<Vec<u8>> {
        let path = self.plan.data.join(AUTO_CONF);
        match std::fs::read(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.doing(|| format!("read {}", path.display())),
        }
    }

    fn flat(&self, setting: &str, default: &str, notes: &mut Vec<String>) -> Result<Vec<u8>> {
        let path = self.source_path(setting, default);
        if self.locate(&path).is_none() {
            notes.push(format!("the backup holds no {}: the server has an empty {default}", path.display()));
            return Ok(Vec::new());
        }
        hba::flatten(&path, self)
    }

    /// Where a file of the source lies now.
    fn locate(&self, path: &Path) -> Option<PathBuf> {
        let outside = self.sink.join(path.strip_prefix("/").unwrap_or(path));
        let inside = path.strip_prefix(&self.source_data).ok().map(|below| self.plan.data.join(below));
        [Some(outside), inside].into_iter().flatten().find(|place| place.exists())
    }
}

impl Source for Restored<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.locate(path).map_or(Err(io::ErrorKind::NotFound.into()), |place| Disk.read(&place))
    }

    /// The names as the source knew them: includes within are relative to those.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let Some(place) = self.locate(directory) else {
            // A directory that was empty is not in the backup.
            return Ok(Vec::new());
        };
        let files = Disk.list(&place)?;
        Ok(files.iter().filter_map(|file| Some(directory.join(file.file_name()?))).collect())
    }
}

/// A text that is read as a configuration file.
struct OneFile {
    path: PathBuf,
    text: Vec<u8>,
}

impl Source for OneFile {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == self.path { Ok(self.text.clone()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Refuses a plan whose settings can't be written, before anything is.
pub fn check(plan: &Plan) -> Result<()> {
    let recovery = plan.decision.recovery(&plan.server.fetch)?.settings()?;
    recovery
        .iter()
        .try_for_each(|setting| setting.line().map(drop))
        .map_err(|error| Error::configuration(format!("could not write the recovery settings: {error}")))
}
