//! The ledger inside the database: for each transaction a row whose hash covers the one before it and what the
//! transaction did elsewhere. What it did elsewhere must then be there, and what it undid must not.

use postgres::{Client, Error};

use super::journal::Point;
use crate::harness::*;

pub const LANES: usize = 4;
/// What begins a chain.
pub const BEGIN: &str = "none";

/// What a transaction writes down about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub lane: usize,
    pub seq: usize,
    pub prev: String,
    pub nonce: i64,
    pub deed: String,
    /// Of the deed: how many rows the lane's pad has now.
    pub argument: i32,
    /// How many items there are more of the lane.
    pub kept: i32,
    /// Drawn from the lane's sequence.
    pub ticket: i64,
}

impl Row {
    pub fn hash(&self) -> String {
        blake3::hash(format!("{self:?}").as_bytes()).to_hex()[..32].to_owned()
    }
}

/// The tables that transactions write to, in a new database.
pub fn create(server: &Cluster) {
    server.psql(
        "create table ledger (lane int, seq int, prev text, nonce bigint, deed text, argument int, kept int,
                              ticket bigint, hash text unique, primary key (lane, seq));
         create table standing (lane int primary key, seq int, hash text) with (fillfactor = 40);
         create table items (lane int, seq int, n int, filler text);
         create index items_place on items (lane, seq);
         create materialized view deeds as select deed, count(*) from ledger group by deed;
         create table fast_items (lane int, seq int, hash text) tablespace fast;",
    );
    for lane in 0..LANES {
        server.psql(&format!(
            "create sequence tickets_{lane}; create table pad_{lane} (a bigint);
             create unlogged table scrap_{lane} (a int primary key);
             insert into standing values ({lane}, 0, '{BEGIN}');
             select lo_from_bytea({oid}, '{BEGIN}');",
            oid = large_object(lane)
        ));
    }
}

pub fn large_object(lane: usize) -> u32 {
    900_000 + u32::try_from(lane).expect("few lanes")
}

/// Where the server is.
pub fn point(client: &mut Client) -> Result<Point, Error> {
    let row = client.query_one(
        "select (pg_current_wal_insert_lsn() - '0/0')::bigint,
                (extract(epoch from clock_timestamp()) * 1000000)::bigint",
        &[],
    )?;
    Ok(Point { lsn: row.get::<_, i64>(0).unsigned_abs(), time: row.get(1) })
}

/// The hashes of each lane, in order, after making sure that they are what the rows say, chained without a gap.
pub fn chains(server: &Cluster) -> Vec<Vec<String>> {
    (0..LANES).map(|lane| chain(server, lane)).collect()
}

fn chain(server: &Cluster, lane: usize) -> Vec<String> {
    let rows = server.psql(&format!(
        "select seq, prev, nonce, deed, argument, kept, ticket, hash from ledger where lane = {lane} order by seq"
    ));
    let mut hashes: Vec<String> = Vec::new();
    for line in rows.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [seq, prev, nonce, deed, argument, kept, ticket, hash] = fields[..] else {
            panic!("not a row of the ledger: {line}")
        };
        let row = Row {
            lane,
            seq: seq.parse().expect("a number"),
            prev: prev.to_owned(),
            nonce: nonce.parse().expect("a number"),
            deed: deed.to_owned(),
            argument: argument.parse().expect("a number"),
            kept: kept.parse().expect("a number"),
            ticket: ticket.parse().expect("a number"),
        };
        assert_eq!(row.seq, hashes.len() + 1, "a hole in lane {lane}: {line}");
        let before = hashes.last().map_or(BEGIN, String::as_str);
        assert_eq!(row.prev, before, "the chain of lane {lane} is broken: {line}");
        assert_eq!(row.hash(), hash, "not what the transaction wrote: {line}");
        hashes.push(hash.to_owned());
    }
    hashes
}

/// Panics unless everything else is what the ledger says that it is. Unlogged tables are empty in a server that was
/// restored.
#[track_caller]
pub fn assert_deeds(server: &Cluster) {
    for lane in 0..LANES {
        let oid = large_object(lane);
        let wrong = server.psql(&format!(
            "with l as (select * from ledger where lane = {lane}),
                  last as (select seq, hash from l order by seq desc limit 1),
                  lo as (select hash from l where deed = 'large object' order by seq desc limit 1),
                  pad as (select argument from l where deed in ('truncate', 'rewrite') order by seq desc limit 1)
             select 'standing' from standing where lane = {lane}
                and (seq, hash) is distinct from (coalesce((select seq from last), 0), coalesce((select hash from last), '{BEGIN}'))
             union all select 'no standing' where not exists (select 1 from standing where lane = {lane})
             union all select 'items: ' || (select count(*) from items where lane = {lane})
                where (select count(*) from items where lane = {lane}) <> coalesce((select sum(kept) from l), 0)
             union all select 'tickets' from tickets_{lane} where last_value < (select max(ticket) from l)
             union all select 'large object'
                where convert_from(lo_get({oid}), 'UTF8') <> coalesce((select hash from lo), '{BEGIN}')
             union all select 'pad' where (select count(*) from pad_{lane}) <> coalesce((select argument from pad), 0)
             union all select 'fast items'
                where (select count(*) from fast_items where lane = {lane}) <> (select count(*) from l where deed = 'fast')
             union all select 'unlogged' where exists (select 1 from scrap_{lane})"
        ));
        assert_eq!(wrong, "", "lane {lane} is not what its ledger says\n{}", server.log_tail());
    }
}
