//! pgbench: tables with content, and writers that keep a server busy while something else happens.

use std::process::{Child, Stdio};

use rustix::process::Signal;

use super::cluster::Cluster;
use super::scratch::signal;

impl Cluster {
    /// Makes pgbench's tables in the database postgres: 100,000 accounts (about 15 MB) for each scale.
    pub fn pgbench_init(&self, scale: u32) {
        self.run_client("pgbench", &["-i", "-q", "-s", &scale.to_string()]);
    }

    /// Runs pgbench to its end, for example `&["-c", "4", "-t", "500"]`.
    pub fn pgbench(&self, arguments: &[&str]) -> String {
        self.run_client("pgbench", &[&["-n"], arguments].concat())
    }

    /// Runs pgbench until the returned guard is dropped, for example `&["-c", "4"]`.
    pub fn pgbench_in_background(&self, arguments: &[&str]) -> Load {
        let before = self.committed();
        let mut command = self.client("pgbench");
        command.args(["-n", "-T", "3600"]).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let load = Load(command.spawn().expect("start pgbench"));
        self.wait_for("pgbench to write", || self.committed() > before);
        load
    }

    fn committed(&self) -> u64 {
        self.psql("select count(*) from pgbench_history").parse().expect("a number")
    }
}

/// A pgbench that runs; dropped, it is stopped.
pub struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        signal(i32::try_from(self.0.id()).expect("a pid"), Signal::TERM);
        self.0.wait().expect("wait for pgbench");
    }
}
