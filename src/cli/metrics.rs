//! The flags of `pgark metrics`, and where its text goes.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::config::Config;
use crate::durable::StagedFile;
use crate::error::{IoContext, Result};
use crate::ops::metrics::{self, Request};
use crate::pg::lsn::SystemId;

#[derive(Args)]
pub struct MetricsArgs {
    /// Write them into this file, whole or not at all: for the node exporter's textfile collector, NAME.prom
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,

    /// Serve them at http://ADDRESS:PORT/metrics until told to end, such as 127.0.0.1:9187
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "textfile")]
    listen: Option<SocketAddr>,

    /// Of all clusters in the repository
    #[arg(long)]
    all_clusters: bool,

    /// Which incarnation of the cluster, where pg_upgrade or initdb has made several
    #[arg(long, value_name = "NUMBER", conflicts_with = "all_clusters")]
    system_id: Option<SystemId>,
}

impl MetricsArgs {
    pub fn run(self, config: &Config) -> Result<ExitCode> {
        let request = Request { all_clusters: self.all_clusters, system_id: self.system_id };
        if let Some(address) = self.listen {
            let bound = |address| tracing::warn!("serving metrics at http://{address}/metrics");
            return metrics::serve(config, &request, address, bound).map(|()| ExitCode::SUCCESS);
        }
        let collected = metrics::collect(config, &request)?;
        match &self.textfile {
            Some(file) => write(file, &collected.text)?,
            None => drop(print(&collected.text.trim_end())?),
        }
        collected.failed.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

/// For the exporter, another user, to read, whatever the umask. It is made again every few minutes, so that a
/// power cut costs nothing.
fn write(file: &Path, text: &str) -> Result<()> {
    let mut staged = StagedFile::create(file, 0o644)?;
    staged.write_all(text.as_bytes()).doing(|| format!("write {}", file.display()))?;
    staged
        .file()?
        .set_permissions(PermissionsExt::from_mode(0o644))
        .doing(|| format!("let everyone read {}", file.display()))?;
    staged.place()
}
