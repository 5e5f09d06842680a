//! The clients: each lane commits one transaction after the other, of all kinds, and writes down what it was told.
//! After a crash it looks what became of the one that was not answered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use postgres::{Client, Error, NoTls};

use super::dice::Dice;
use super::journal::{Fate, Point};
use super::ledger::{BEGIN, Row, large_object, point};
use super::stage::{EndsAll, Place, Stage};

pub struct Lane<'a> {
    stage: &'a Stage,
    number: usize,
    dice: Dice,
}

/// A transaction whose commit is about to be sent.
struct Written {
    row: Row,
    xid: u64,
    before: Point,
    guarded: bool,
}

const DEEDS: [&str; 8] =
    ["plain", "plain", "subtransactions", "large object", "truncate", "rewrite", "unlogged", "fast"];

impl<'a> Lane<'a> {
    pub fn new(stage: &'a Stage, number: usize, seed: u64) -> Self {
        Self { stage, number, dice: Dice::new(seed, &format!("lane {number}")) }
    }

    pub fn work(mut self) {
        let _ends = EndsAll(self.stage);
        while !self.stage.ended() {
            let served = self.stage.place().map(|place| self.serve(&place));
            match served {
                Some(Ok(())) => {}
                Some(Err(_)) => self.stage.count("connections lost"),
                None => {}
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn serve(&mut self, place: &Place) -> Result<(), Error> {
        let Some(inside) = self.stage.enter(place) else { return Ok(()) };
        let mut client = Client::connect(&place.conninfo, NoTls)?;
        client.batch_execute("set lock_timeout = '10s'")?;
        self.settle(&mut client, place)?;
        drop(inside);
        while !self.stage.ended() {
            if !self.transaction(&mut client, place)? {
                return Ok(());
            }
            self.dice.pause(0..=25);
        }
        Ok(())
    }

    /// What became of what nobody answered.
    fn settle(&mut self, client: &mut Client, place: &Place) -> Result<(), Error> {
        let last = self.stage.chronicle().journal(place.timeline).lanes[self.number].last().cloned();
        let open = last.as_ref().filter(|entry| entry.fate == Fate::Open);
        let like = format!("lane {} %", self.number);
        for row in client.query("select gid from pg_prepared_xacts where gid like $1", &[&like])? {
            let gid: String = row.get(0);
            let ours = open.is_some_and(|entry| gid == self.gid(&entry.hash));
            let verb = if ours && self.dice.chance(50) { "commit" } else { "rollback" };
            client.batch_execute(&format!("{verb} prepared '{gid}'"))?;
            self.stage.count(&format!("{verb}s of what was prepared before a crash"));
        }
        let lane = i32::try_from(self.number).expect("few lanes");
        let newest = "select hash from ledger where lane = $1 order by seq desc limit 1";
        let there: Option<String> = client.query_opt(newest, &[&lane])?.map(|row| row.get(0));
        let now = point(client)?;
        let mut chronicle = self.stage.chronicle();
        let journal = chronicle.journal(place.timeline);
        if open.is_some() && there != last.as_ref().map(|entry| entry.hash.clone()) {
            journal.forget(self.number);
        } else if let Some(entry) = last.as_ref().filter(|entry| entry.after.is_none()) {
            let fate = if open.is_some() { Fate::Found } else { entry.fate };
            journal.settle(self.number, fate, Some(now));
        }
        let known = journal.lanes[self.number].last().map(|entry| entry.hash.clone());
        assert_eq!(there, known, "lane {}: the primary lost what it had acknowledged", self.number);
        Ok(())
    }

    fn gid(&self, hash: &str) -> String {
        format!("lane {} {hash}", self.number)
    }

    /// False when the primary is another one.
    fn transaction(&mut self, client: &mut Client, place: &Place) -> Result<bool, Error> {
        let Some(inside) = self.stage.enter(place) else { return Ok(false) };
        let guarded = self.stage.guarded.load(Ordering::SeqCst);
        let before = point(client)?;
        client.batch_execute("begin")?;
        let row = self.write(client, place)?;
        let xid: i64 = client.query_one("select pg_current_xact_id()::text::bigint", &[])?.get(0);
        let written = Written { row, xid: xid.unsigned_abs(), before, guarded };
        // Else its locks could keep others from reading while the director has all wait.
        let locks = matches!(written.row.deed.as_str(), "truncate" | "rewrite");
        match self.dice.below(100) {
            0..8 => client.batch_execute("rollback")?,
            8..25 if !locks => {
                self.prepare(client, place, &written)?;
                drop(inside);
                self.dice.pause(0..=300);
                let Some(_inside) = self.stage.enter(place) else { return Ok(false) };
                self.end_prepared(client, place, &written)?;
            }
            _ => {
                self.begin(place, &written);
                client.batch_execute("commit")?;
                self.acknowledged(client, place, &written);
            }
        }
        Ok(true)
    }

    fn begin(&self, place: &Place, written: &Written) {
        let mut chronicle = self.stage.chronicle();
        let journal = chronicle.journal(place.timeline);
        journal.begin(self.number, &written.row.hash(), written.xid, written.before);
    }

    /// Without the place in the WAL, if the server could not say that any more: the next look tells it.
    fn acknowledged(&self, client: &mut Client, place: &Place, written: &Written) {
        let guarded = written.guarded && self.stage.guarded.load(Ordering::SeqCst);
        let after = point(client).ok();
        let mut chronicle = self.stage.chronicle();
        chronicle.journal(place.timeline).settle(self.number, Fate::Acknowledged { guarded }, after);
        drop(chronicle);
        self.stage.count(if guarded { "commits acknowledged by two" } else { "commits acknowledged" });
    }

    fn prepare(&self, client: &mut Client, place: &Place, written: &Written) -> Result<(), Error> {
        self.begin(place, written);
        client.batch_execute(&format!("prepare transaction '{}'", self.gid(&written.row.hash())))
    }

    fn end_prepared(&mut self, client: &mut Client, place: &Place, written: &Written) -> Result<(), Error> {
        let gid = self.gid(&written.row.hash());
        if self.dice.chance(30) {
            client.batch_execute(&format!("rollback prepared '{gid}'"))?;
            self.stage.chronicle().journal(place.timeline).forget(self.number);
            self.stage.count("prepared transactions rolled back");
            return Ok(());
        }
        client.batch_execute(&format!("commit prepared '{gid}'"))?;
        self.acknowledged(client, place, written);
        self.stage.count("prepared transactions committed");
        Ok(())
    }

    /// All but the end of a transaction.
    fn write(&mut self, client: &mut Client, place: &Place) -> Result<Row, Error> {
        let lane = self.number;
        let (seq, prev) = {
            let mut chronicle = self.stage.chronicle();
            let journal = &chronicle.journal(place.timeline).lanes[lane];
            (journal.len() + 1, journal.last().map_or(BEGIN.to_owned(), |entry| entry.hash.clone()))
        };
        let deed = (*self.dice.pick(&DEEDS).expect("some")).to_owned();
        let nonce = i64::try_from(self.dice.number() >> 2).expect("62 bits");
        let ticket: i64 = client.query_one(&format!("select nextval('tickets_{lane}')"), &[])?.get(0);
        let mut row = Row { lane, seq, prev, nonce, deed, argument: 0, kept: 0, ticket };
        self.prepare_deed(client, &mut row)?;
        let hash = row.hash();
        let Row { prev, nonce, deed, argument, kept, .. } = &row;
        client.batch_execute(&format!(
            "insert into ledger values ({lane}, {seq}, '{prev}', {nonce}, '{deed}', {argument}, {kept}, {ticket}, '{hash}');
             update standing set seq = {seq}, hash = '{hash}' where lane = {lane};"
        ))?;
        client.batch_execute(&deed_sql(&row, &hash))?;
        Ok(row)
    }

    /// Decides how much of the deed there will be.
    fn prepare_deed(&mut self, client: &mut Client, row: &mut Row) -> Result<(), Error> {
        match row.deed.as_str() {
            "plain" => {
                let query = format!("select count(*) from items where lane = {}", row.lane);
                let there: i64 = client.query_one(&query, &[])?.get(0);
                row.kept = if there > 40 { -3 } else { self.dice.below(4) as i32 };
            }
            "subtransactions" => row.kept = 2,
            "truncate" => row.argument = self.dice.below(60) as i32,
            "rewrite" => {
                let query = format!("select count(*) from pad_{}", row.lane);
                let there: i64 = client.query_one(&query, &[])?.get(0);
                row.argument = i32::try_from(there).expect("few");
            }
            _ => {}
        }
        Ok(())
    }
}

fn deed_sql(row: &Row, hash: &str) -> String {
    let Row { lane, seq, nonce, kept, argument, .. } = row;
    // Some are compressed, some are stored out of line.
    let item = |n: i32| {
        format!(
            "insert into items select {lane}, {seq}, {n}, string_agg(md5(({nonce} % 1000000 + j + {n})::text), '')
                from generate_series(1, {}) j;",
            1 + nonce % 97
        )
    };
    match row.deed.as_str() {
        "plain" if *kept < 0 => format!(
            "delete from items where ctid = any (array(select ctid from items where lane = {lane} order by seq, n limit {}));",
            -kept
        ),
        "plain" => (0..*kept).map(item).collect(),
        "subtransactions" => [
            "savepoint a;".to_owned(),
            item(0),
            "savepoint b;".to_owned(),
            item(1),
            format!("truncate pad_{lane}; rollback to b;"),
            item(2),
            "release a; savepoint c;".to_owned(),
            item(3),
            "rollback to c;".to_owned(),
        ]
        .concat(),
        "large object" => {
            let oid = large_object(*lane);
            format!("select lo_put({oid}, 0, '{hash}'); select lo_truncate(lo_open({oid}, 131072), 32);")
        }
        "truncate" => {
            format!("truncate pad_{lane}; insert into pad_{lane} select generate_series(1, {argument});")
        }
        "rewrite" => {
            let to = if nonce % 2 == 0 { "bigint" } else { "numeric" };
            format!("alter table pad_{lane} alter column a type {to};")
        }
        "fast" => format!("insert into fast_items values ({lane}, {seq}, '{hash}');"),
        _ => format!("insert into scrap_{lane} select {nonce} % 100000 on conflict do nothing;"),
    }
}
