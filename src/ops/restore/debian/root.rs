//! Leaving root: clusters of Debian's belong to `postgres`, and a server must not run as root. The directories that
//! only root can make are made, then this program is run anew as that user, in this very process.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::register::make_dir;
use super::{DebianName, Layout};
use crate::error::{Error, IoContext, Result};
use crate::host;

/// The owner of Debian's clusters (pg_createcluster).
const OWNER: &str = "postgres";

#[derive(Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
    home: String,
}

/// Comes back only if this is not root; the program begins anew otherwise. A dry run makes no directories.
pub fn leave_root(layout: &Layout, name: &DebianName, dry_run: bool) -> Result<()> {
    if !host::is_root() {
        return Ok(());
    }
    let passwd = fs::read_to_string("/etc/passwd").doing(|| "read /etc/passwd")?;
    let owner = owner(&passwd).ok_or_else(|| {
        Error::configuration(format!("could not register {name}: there is no user {OWNER}"))
            .with_hint(format!("apt-get install postgresql-{}", name.major))
    })?;
    if !dry_run {
        for root in [&layout.etc, &layout.data] {
            give(&root.join(name.major.to_string()), &owner)?;
        }
    }
    let program = std::env::current_exe().doing(|| "find out where this program is")?;
    // It also sets the supplementary groups, such as that of the TLS key (setpriv(1), util-linux).
    let mut again = Command::new("setpriv");
    again.arg(format!("--reuid={}", owner.uid)).arg(format!("--regid={}", owner.gid)).arg("--init-groups");
    again.arg("--").arg(program).args(std::env::args_os().skip(1));
    again.env("HOME", &owner.home).env("USER", OWNER).env("LOGNAME", OWNER);
    Err(Error::io(format!("run this as {OWNER}"), &again.exec()))
}

/// Makes the directory of a version if it is missing; one that is there stays as it is.
fn give(directory: &Path, owner: &Owner) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    make_dir(directory)?;
    chown(directory, Some(owner.uid), Some(owner.gid))
        .doing(|| format!("give {} to {OWNER}", directory.display()))
}

/// From a line of /etc/passwd (passwd(5)).
fn owner(passwd: &str) -> Option<Owner> {
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields.into_iter().find_map(|fields| match fields.as_slice() {
        [OWNER, _, uid, gid, _, home, ..] => {
            Some(Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: (*home).to_string() })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgresx:x:7:8::/x:/bin/sh\n\
            postgres:x:105:113:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";
        let found = Owner { uid: 105, gid: 113, home: "/var/lib/postgresql".into() };
        assert_eq!(owner(passwd), Some(found));
        assert_eq!(owner("postgres:x:many:113::/:/bin/sh\n"), None);
        assert_eq!(owner(""), None);
    }
}
