//! The flags that say where PostgreSQL is, alike for all programs that connect to it.

use clap::Args;

use crate::pg::conninfo::ConnRequest;

#[derive(Args)]
#[command(next_help_heading = "Connection options")]
pub struct Connection {
    /// A connection string or URI, or a database name
    #[arg(short, long, value_name = "CONNINFO")]
    dbname: Option<String>,

    /// The server's host, or the directory of its Unix socket
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// The server's port
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,

    /// The role to connect as
    #[arg(short = 'U', long, value_name = "ROLE")]
    user: Option<String>,
}

impl Connection {
    pub fn request(&self) -> ConnRequest {
        ConnRequest {
            conninfo: self.dbname.clone(),
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            dbname: None,
        }
    }
}
