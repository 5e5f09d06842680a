//! What `pgark find` prints for people: a table of the hits, then for each how to get to the moment just before.

use crate::cli::present::{Style, lines};
use crate::ops::find::report::{Hit, Relation, Report, What};
use crate::ops::find::transactions::Fate;

/// Relations of one hit that are named in the table.
const NAMED: usize = 4;

pub fn text(report: &Report, style: Style) -> String {
    let mut text = String::new();
    if report.hits.is_empty() {
        let Report { searched, .. } = report;
        text.push_str(&format!(
            "nothing found in {} segments, {} of them read\n",
            searched.segments, searched.read
        ));
    } else {
        text.push_str(&table(report, style));
        text.push('\n');
        for hit in &report.hits {
            text.push_str(&moment(hit, style));
        }
    }
    let listed = report.hits.len() as u64;
    if report.found > listed {
        let cut = format!("{listed} of {} are listed; --limit 0 lists all", report.found);
        text.push_str(&format!("\n{}\n", style.warn(cut)));
    }
    for note in &report.notes {
        text.push_str(&format!("\n{} {note}\n", style.dim("note:")));
    }
    for problem in &report.problems {
        text.push_str(&format!("\n{} {}: {}\n", style.bad("not searched:"), problem.segment, problem.what));
    }
    text.trim_end().to_string()
}

fn table(report: &Report, style: Style) -> String {
    let mut table = style.table(&["time", ">xid", "LSN", "tl", "what"]);
    for hit in &report.hits {
        table.add_row([
            hit.time.map(|time| time.to_string()).unwrap_or_default(),
            hit.xid.map(|xid| xid.to_string()).unwrap_or_default(),
            hit.lsn.to_string(),
            hit.timeline.to_string(),
            what(hit),
        ]);
    }
    lines(&table, "")
}

/// What happened, in a line.
fn what(hit: &Hit) -> String {
    let prepared = if hit.prepared { " (prepared)" } else { "" };
    let database = hit
        .database
        .as_ref()
        .map(|database| database.name.clone().unwrap_or_else(|| format!("with oid {}", database.oid)));
    let of = database.clone().map(|name| format!(" in database {name}")).unwrap_or_default();
    match hit.what {
        What::RestorePoint => {
            format!("restore point {}", hit.name.as_ref().map(ToString::to_string).unwrap_or_default())
        }
        What::Commit => format!("commit{prepared}{of}"),
        What::Abort => format!("rollback{prepared}{of}"),
        What::DatabaseDropped => format!("dropped database {}", database.unwrap_or_default()),
        What::DatabaseMoved => {
            format!("moved database {} to another tablespace", database.unwrap_or_default())
        }
        What::Relations => format!("{}{prepared}", relations(hit)),
    }
}

fn relations(hit: &Hit) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut fate = None;
    for relation in hit.relations.iter().take(NAMED) {
        let verb = if fate == Some(relation.fate) { "" } else { verb(relation.fate) };
        words.push(format!("{verb}{}", relation_words(relation)));
        fate = Some(relation.fate);
    }
    let more = hit.relations_found.saturating_sub(words.len() as u64);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    if hit.unnamed > 0 {
        words.push(format!("{} rows of pg_class deleted whose names the WAL does not tell", hit.unnamed));
    }
    words.join(", ")
}

fn verb(fate: Fate) -> &'static str {
    match fate {
        Fate::Dropped => "dropped ",
        Fate::Truncated => "truncated ",
        Fate::DroppedOrReplaced => "dropped or replaced ",
        Fate::Rewritten => "rewrote ",
    }
}

/// "table public.orders", or as much as is known.
fn relation_words(relation: &Relation) -> String {
    let Some(name) = &relation.name else {
        return match (relation.storage, relation.oid) {
            (Some(storage), _) => format!("storage {storage}"),
            (None, Some(oid)) => format!("the table with oid {oid}"),
            (None, None) => "a relation".to_string(),
        };
    };
    let mut words = format!("{} ", relation.kind.unwrap_or("relation"));
    if let Some(database) = &relation.database.name {
        words.push_str(&format!("{database}."));
    }
    match (&relation.schema, relation.schema_oid) {
        (Some(schema), _) => words.push_str(&format!("{schema}.{name}")),
        (None, Some(oid)) => words.push_str(&format!("{name} (in the schema with oid {oid})")),
        (None, None) => words.push_str(name),
    }
    words
}

/// How to get there.
fn moment(hit: &Hit, style: Style) -> String {
    let place = style.bold(format!("just before {}", hit.restore.lsn));
    let mut text = format!(
        "\n{place}\n  bootstrap-restore --target-dir DIRECTORY {}\n",
        hit.restore.arguments.join(" ")
    );
    if !hit.restore.reachable {
        let why = "there is no backup before it with all the WAL in between (see `pgark info`)";
        text.push_str(&format!("  {}\n", style.warn(why)));
    }
    if let Some(then) = &hit.restore.then {
        text.push_str(&format!("  {then}\n"));
    }
    text
}
