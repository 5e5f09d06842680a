//! Writing and removing a registration, as pg_createcluster does for a data directory that is there already: with its
//! permissions, but so that a crash leaves a cluster that is registered in full, or not at all.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{FILES, Registration, staged};
use crate::durable;
use crate::error::{IoContext, Result};
use crate::ops::restore::record;

const PG_CTL_CONF: &str = "# Options for pg_ctl when pg_ctlcluster runs it.\npg_ctl_options = ''\n";
const ENVIRONMENT: &str = "# Environment of the server, one NAME = 'value' a line.\n";

impl Registration {
    /// Takes the cluster off the list, before anything of its data goes. postgresql.conf goes first: without it the rest is
    /// nothing.
    pub fn withdraw(&self) -> Result<()> {
        if !self.replaces {
            return Ok(());
        }
        self.remove_files()?;
        durable::sync_dir(&self.config())
    }

    /// Moves the configuration out of the data directory and puts the cluster on the list. What it made is removed
    /// when it fails.
    pub fn register(&self, data: &Path) -> Result<()> {
        let registered = self.make_log().and_then(|()| self.write(data));
        registered.map_err(|error| match self.undo() {
            Ok(()) => error,
            Err(undoing) => error.context(format!("could not undo it ({undoing})")),
        })
    }

    fn write(&self, data: &Path) -> Result<()> {
        let config = self.config();
        make_dir(&config)?;
        let start = if self.autostart { "auto" } else { "manual" };
        let start = format!(
            "# auto: started with the host; manual: by pg_ctlcluster or systemctl only; disabled: never\n{start}\n"
        );
        self.place("start.conf", start.as_bytes(), 0o644)?;
        self.place("pg_ctl.conf", PG_CTL_CONF.as_bytes(), 0o644)?;
        self.place("environment", self.environment()?.as_bytes(), 0o644)?;
        // Now the files of the data directory, the one that counts last.
        for (name, mode) in [("pg_hba.conf", 0o640), ("pg_ident.conf", 0o640), ("postgresql.conf", 0o644)] {
            let here = data.join(name);
            let content = fs::read(&here).doing(|| format!("read {}", here.display()))?;
            self.place(name, &content, mode)?;
        }
        // Two of them would let people change the one that does not count.
        for name in ["pg_hba.conf", "pg_ident.conf", "postgresql.conf"] {
            record::remove_file(&data.join(name))?;
        }
        durable::sync_dir(data)
    }

    /// Whatever our umask is, everyone may read some of them, as at any cluster.
    fn place(&self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        let path = self.config().join(name);
        let mut file = durable::StagedFile::create_as(path.with_file_name(staged(name)), &path, mode)?;
        io::Write::write_all(&mut file, content).doing(|| format!("write {}", path.display()))?;
        let permissions = Permissions::from_mode(mode);
        file.file()?.set_permissions(permissions).doing(|| format!("let others read {}", path.display()))?;
        file.publish()
    }

    /// The host's default for all clusters, if there is one.
    fn environment(&self) -> Result<String> {
        let path = self.layout.common.join("environment");
        let text = match fs::read_to_string(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(ENVIRONMENT.into()),
            read => read.doing(|| format!("read {}", path.display()))?,
        };
        // PgCommon.pm, replace_v_c.
        let value = |name: char| match name {
            'v' => self.name.major.to_string(),
            'c' => self.name.cluster.clone(),
            other => other.to_string(),
        };
        let mut replaced = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match (c, rest.clone().next()) {
                ('%', Some(name @ ('v' | 'c' | '%'))) => {
                    replaced.push_str(&value(name));
                    rest.next();
                }
                _ => replaced.push(c),
            }
        }
        Ok(replaced)
    }

    /// So that its group may read it, as that of any cluster.
    fn make_log(&self) -> Result<()> {
        let path = self.log();
        match OpenOptions::new().append(true).create_new(true).mode(0o640).open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            opened => opened
                .and_then(|log| log.set_permissions(Permissions::from_mode(0o640)))
                .doing(|| format!("create the log {}", path.display())),
        }
    }

    /// The one that counts first.
    fn remove_files(&self) -> Result<()> {
        let config = self.config();
        FILES.iter().try_for_each(|name| {
            record::remove_file(&config.join(name))?;
            record::remove_file(&config.join(staged(name)))
        })
    }

    fn undo(&self) -> Result<()> {
        let config = self.config();
        if !config.exists() {
            return Ok(());
        }
        self.remove_files()?;
        fs::remove_dir(&config).doing(|| format!("remove {}", config.display()))
    }
}

/// With those above that are missing, for everyone to enter: pg_lsclusters looks into them as anybody.
pub(super) fn make_dir(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    make_dir(durable::parent(directory))?;
    let doing = || format!("create {}", directory.display());
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => return Ok(()),
        made => made.doing(doing)?,
    }
    fs::set_permissions(directory, Permissions::from_mode(0o755)).doing(doing)?;
    durable::sync_dir(durable::parent(directory))
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::super::tests::{host, name};
    use super::*;
    use std::collections::BTreeSet;

    fn data(directory: &Path) {
        fs::create_dir_all(directory).expect("made");
        for (file, text) in
            [("postgresql.conf", "port = 1\n"), ("pg_hba.conf", "h\n"), ("pg_ident.conf", "i\n")]
        {
            fs::write(directory.join(file), text).expect("written");
        }
    }

    fn registration(layout: &Layout, autostart: bool) -> Registration {
        let (name, layout) = (name("15/x"), layout.clone());
        Registration { name, layout, autostart, replaces: false, port: None, taken: BTreeSet::new() }
    }

    #[test]
    fn a_registration_moves_the_configuration_and_can_be_withdrawn() {
        let host = host();
        fs::write(host.layout.common.join("environment"), "A = '%v of %c, 100%%, %x'\n").expect("written");
        let mut registration = registration(&host.layout, false);
        let directory = host.layout.data_of(&registration.name);
        data(&directory);
        registration.register(&directory).expect("registered");
        let config = registration.config();
        for (file, mode, text) in [
            ("postgresql.conf", 0o644, "port = 1\n"),
            ("pg_hba.conf", 0o640, "h\n"),
            ("pg_ident.conf", 0o640, "i\n"),
            ("environment", 0o644, "A = '15 of x, 100%, %x'\n"),
        ] {
            let path = config.join(file);
            assert_eq!(fs::read_to_string(&path).expect("read"), text, "{file}");
            assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, mode, "{file}");
            assert!(!directory.join(file).exists(), "{file} is in one place only");
        }
        assert!(fs::read_to_string(config.join("start.conf")).is_ok_and(|text| text.ends_with("\nmanual\n")));
        assert!(registration.log().exists());
        registration.replaces = true;
        registration.withdraw().expect("withdrawn");
        assert_eq!(fs::read_dir(&config).expect("there").count(), 0);
    }

    #[test]
    fn a_registration_that_fails_leaves_nothing() {
        let host = host();
        let registration = registration(&host.layout, true);
        let directory = host.layout.data_of(&registration.name);
        data(&directory);
        fs::remove_file(directory.join("pg_ident.conf")).expect("removed");
        let error = registration.register(&directory).expect_err("pg_ident.conf is missing");
        assert!(error.message().contains("pg_ident.conf"), "{error}");
        assert!(!registration.config().exists());
        assert!(directory.join("postgresql.conf").exists(), "the data directory is as it was");
    }
}
