//! The configuration files of a restored server, out of those of its source.
//!
//! Invariant: what the restore sets counts, also over what ALTER SYSTEM once wrote into postgresql.auto.conf,
//! which the server reads last.

use super::{Role, removal_reason};
use crate::error::Result;
use crate::pg::settings_file::{Setting, rewrite};

/// The two files, to be written into the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    pub postgresql_conf: Vec<u8>,
    pub auto_conf: Vec<u8>,
}

impl Configuration {
    /// From the source's main file without includes (`Settings::flat`) and its postgresql.auto.conf. `set`
    /// is appended to the former; of several with one name the last counts.
    pub fn restored(main: &[u8], auto: &[u8], role: Role, set: &[Setting]) -> Result<Self> {
        let set = last_of_each(set);
        let remove = |name: &str| {
            let replaced = || set.iter().any(|setting| setting.name.eq_ignore_ascii_case(name));
            let reason =
                removal_reason(name, role).or_else(|| replaced().then_some("the restore sets its own"));
            reason.map(String::from)
        };
        Ok(Self {
            postgresql_conf: rewrite(main, "what the restore sets", remove, &set)?,
            auto_conf: rewrite(auto, "", remove, &[])?,
        })
    }
}

fn last_of_each(set: &[Setting]) -> Vec<Setting> {
    let later = |index: usize, name: &str| {
        set.iter().skip(index + 1).any(|other| other.name.eq_ignore_ascii_case(name))
    };
    let last = set.iter().enumerate().filter(|(index, setting)| !later(*index, &setting.name));
    last.map(|(_, setting)| setting.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_alter_system_wrote_does_not_win_over_the_restore() {
        let main = b"max_connections = 100\nwork_mem = 1MB\narchive_command = 'x'\n";
        let auto = b"MAX_CONNECTIONS = '20'\nwork_mem = '2MB'\nport = '1'\n";
        let set =
            [Setting::new("port", "2"), Setting::new("max_connections", "300"), Setting::new("Port", "3")];
        let files = Configuration::restored(main, auto, Role::Takeover, &set).expect("written");
        assert_eq!(
            String::from_utf8_lossy(&files.postgresql_conf),
            "# pgark: the restore sets its own: max_connections = 100\nwork_mem = 1MB\narchive_command = 'x'\n\
             \n# pgark: what the restore sets\nmax_connections = '300'\nPort = '3'\n# pgark: end\n"
        );
        assert_eq!(
            String::from_utf8_lossy(&files.auto_conf),
            "# pgark: the restore sets its own: MAX_CONNECTIONS = '20'\nwork_mem = '2MB'\n\
             # pgark: it is the source's: port = '1'\n"
        );
    }
}
