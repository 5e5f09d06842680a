//! Asking a server things: psql and the few questions that many tests ask.

use std::io::Write;
use std::process::{Command, Stdio};

use super::cluster::Cluster;
use super::host::pg_command;

impl Cluster {
    /// Runs SQL as the superuser and returns rows as `a|b` lines. Panics with psql's message.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in("postgres", sql)
    }

    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        self.try_psql_in(database, sql)
            .unwrap_or_else(|message| panic!("psql failed: {message}\nin: {sql}\n{}", self.log_tail()))
    }

    /// As [`Cluster::psql`], with psql's error message as the error.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        self.try_psql_in("postgres", sql)
    }

    /// Statements are sent one by one, so that CREATE DATABASE and VACUUM work among others.
    pub fn try_psql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut command = self.client("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start psql");
        let mut stdin = child.stdin.take().expect("psql's standard input");
        // psql that could not connect closes its end: its own message says more than our EPIPE.
        let written = stdin.write_all(sql.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("wait for psql");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        written.expect("write to psql");
        Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
    }

    /// One of PostgreSQL's client programs, connected to this server by its environment.
    pub fn client(&self, program: &str) -> Command {
        let mut command = pg_command(program);
        command.envs(self.env()).env("HOME", self.scratch().path()).current_dir(self.scratch().path());
        command
    }

    /// Runs a client program to its end and returns its standard output. Panics with its messages.
    pub fn run_client(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.client(program).args(arguments).output().expect("start a client program");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?} failed: {stderr}\n{}", self.log_tail());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Polls a query until it gives `expected`. Errors count as "not yet".
    pub fn wait_sql(&self, query: &str, expected: &str) {
        self.wait_for(&format!("{query} to give {expected}"), || {
            self.try_psql(query).is_ok_and(|answer| answer == expected)
        });
    }

    pub fn current_lsn(&self) -> String {
        self.psql("select pg_current_wal_lsn()")
    }

    /// The name of the segment that is being written now.
    pub fn current_segment(&self) -> String {
        self.psql("select pg_walfile_name(pg_current_wal_insert_lsn())")
    }

    /// The server's clock, with its zone.
    pub fn now(&self) -> String {
        self.psql("select clock_timestamp()")
    }

    pub fn system_identifier(&self) -> String {
        self.psql("select system_identifier from pg_control_system()")
    }

    /// Ends the current segment, even an untouched one, and returns its name.
    pub fn switch_wal(&self) -> String {
        self.psql(
            "select pg_logical_emit_message(false, 'harness', 'x') \\g /dev/null
             select pg_walfile_name(pg_switch_wal())",
        )
    }

    /// Ends the current segment and waits until the archiver says that it, and so all before it, is archived.
    pub fn archive_everything(&self) -> String {
        let segment = self.switch_wal();
        let done = format!(
            "select coalesce(last_archived_wal ~ '^[0-9A-F]{{24}}$' and last_archived_wal >= '{segment}', false)
             from pg_stat_archiver"
        );
        self.wait_sql(&done, "t");
        segment
    }

    /// Waits until a standby or a receiver streams from this server. That a slot is active does not say so: it is
    /// for a moment when it is made, too.
    pub fn wait_streaming(&self) {
        self.wait_sql("select exists (select from pg_stat_replication where state = 'streaming')", "t");
    }

    /// Waits until a standby has replayed what this server has written so far.
    pub fn wait_replayed_by(&self, standby: &Cluster) {
        let lsn = self.current_lsn();
        standby.wait_sql(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn"), "t");
    }
}
