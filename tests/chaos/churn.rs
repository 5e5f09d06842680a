//! What else goes on in the database: tables, indexes, databases and tablespaces that come, are rewritten, and go.
//! Its errors are of no interest: it is in the way of others and is told so, and servers are killed below it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postgres::{Client, Config, Error, NoTls};

use super::dice::Dice;
use super::ledger::LANES;
use super::stage::{EndsAll, Place, Stage};
use crate::harness::pg_major;

pub struct Churn<'a> {
    stage: &'a Stage,
    dice: Dice,
    made: AtomicU64,
}

type Step = fn(&mut Churn<'_>, &mut Client, &Place) -> Result<(), Error>;

const STEPS: [(&str, Step); 7] = [
    ("tables rewritten", |churn, client, _| churn.rewrite(client)),
    ("tables rewritten", |churn, client, _| churn.rewrite(client)),
    ("indexes built", |churn, client, _| churn.index(client)),
    ("tables made and dropped", |churn, client, _| churn.table(client)),
    ("databases made and dropped", |churn, client, place| churn.database(client, place)),
    ("tablespaces made and dropped", |churn, client, _| churn.tablespace(client)),
    ("checkpoints", |_, client, _| client.batch_execute("checkpoint")),
];

impl<'a> Churn<'a> {
    pub fn new(stage: &'a Stage, seed: u64) -> Self {
        Self { stage, dice: Dice::new(seed, "churn"), made: AtomicU64::new(0) }
    }

    pub fn work(mut self) {
        let _ends = EndsAll(self.stage);
        while !self.stage.ended() {
            if let Some(place) = self.stage.place() {
                // The next attempt connects again, maybe to another server.
                if self.serve(&place).is_err() {
                    self.stage.count("statements in vain");
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn serve(&mut self, place: &Place) -> Result<(), Error> {
        let mut client = Client::connect(&place.conninfo, NoTls)?;
        // A prepared transaction's locks stay until its client gets past us.
        client.batch_execute("set lock_timeout = '150ms'")?;
        while !self.stage.ended() {
            let Some(_inside) = self.stage.enter(place) else { return Ok(()) };
            let (name, step) = *self.dice.pick(&STEPS).expect("some");
            match step(self, &mut client, place) {
                Ok(()) => self.stage.count(name),
                Err(_) if !client.is_closed() => self.stage.count("statements in vain"),
                Err(error) => return Err(error),
            }
            drop(_inside);
            self.dice.pause(20..=250);
        }
        Ok(())
    }

    fn next(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    fn rewrite(&mut self, client: &mut Client) -> Result<(), Error> {
        let lane = self.dice.below(LANES);
        let statements = [
            "vacuum full items".to_owned(),
            format!("vacuum full pad_{lane}"),
            "vacuum full pgbench_tellers".to_owned(),
            "vacuum (freeze, analyze)".to_owned(),
            "cluster items using items_place".to_owned(),
            "reindex table items".to_owned(),
            "reindex table concurrently standing".to_owned(),
            "vacuum full pg_class".to_owned(),
            "refresh materialized view deeds".to_owned(),
            "alter table standing set (fillfactor = 50); vacuum full standing".to_owned(),
            "alter table fast_items set tablespace pg_default".to_owned(),
            "alter table fast_items set tablespace fast".to_owned(),
        ];
        let statement = self.dice.pick(&statements).expect("some");
        for part in statement.split("; ") {
            client.batch_execute(part)?;
        }
        Ok(())
    }

    fn index(&mut self, client: &mut Client) -> Result<(), Error> {
        let kind = *self.dice.pick(&["btree (n, seq)", "hash (filler)", "brin (seq)"]).expect("some");
        client.batch_execute("drop index if exists churned")?;
        client.batch_execute(&format!("create index concurrently churned on items using {kind}"))
    }

    fn table(&mut self, client: &mut Client) -> Result<(), Error> {
        let number = self.next();
        client.batch_execute(&format!(
            "drop table if exists churn_{old}, unlogged_{old};
             create table churn_{number} as select i, md5(i::text) t from generate_series(1, 500) i;
             create unlogged table unlogged_{number} (a int primary key);
             alter table churn_{number} add column added int default 7, alter column i type bigint;",
            old = number.saturating_sub(4)
        ))
    }

    fn database(&mut self, client: &mut Client, place: &Place) -> Result<(), Error> {
        let number = self.next();
        let doomed = "select datname from pg_database where datname like 'churn%' order by oid offset 1";
        for row in client.query(doomed, &[])? {
            client.batch_execute(&format!("drop database {} with (force)", row.get::<_, &str>(0)))?;
        }
        let strategy = match pg_major() {
            15.. if self.dice.chance(50) => "strategy file_copy",
            _ => "",
        };
        let name = format!("churn_{number}");
        client.batch_execute(&format!("create database {name} {strategy}"))?;
        let mut config: Config = place.conninfo.parse()?;
        let mut inside = config.dbname(&name).connect(NoTls)?;
        inside.batch_execute("create table t as select i, md5(i::text) from generate_series(1, 300) i")
    }

    fn tablespace(&mut self, client: &mut Client) -> Result<(), Error> {
        client.batch_execute("set lock_timeout = '1s'")?;
        let doomed = "select spcname from pg_tablespace where spcname like 'churn%'";
        for row in client.query(doomed, &[])? {
            let name: String = row.get(0);
            client.batch_execute(&format!("drop table if exists in_{name}"))?;
            client.batch_execute(&format!("drop tablespace {name}"))?;
        }
        // Inside the data directory: primary and standby share a host here, and would share a location.
        let name = format!("churn_{}", self.next());
        client.batch_execute(&format!("create tablespace {name} location ''"))?;
        client.batch_execute(&format!(
            "create table in_{name} tablespace {name} as select generate_series(1, 500) a"
        ))?;
        client.batch_execute("set lock_timeout = '150ms'")
    }
}
