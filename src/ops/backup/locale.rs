//! What sorting and indexes depend on outside the data directory: the versions of the C library and ICU, and
//! each database's locale. A restore on another host compares them.

use crate::error::Result;
use crate::host;
use crate::pg::client::Client;
use crate::pg::oid::Oid;
use crate::repo::backup::{DatabaseLocale, Locale};

/// 15 has the provider and the version of a database's collation in pg_database, 14 has neither; asked for
/// as JSON, a column that is not there is null. The one-letter codes are those of pg_collation.h.
const DATABASES: &str = "select d.oid, d.datname::text, pg_encoding_to_char(d.encoding)::text,
    d.datcollate::text, d.datctype::text, coalesce(j ->> 'datlocprovider', 'c'), j ->> 'datcollversion'
    from pg_database d, to_jsonb(d) j order by d.datname";

/// The version as the server's own library gives it. 'C' and 'POSIX' have none.
const COLLATIONS: &str = "select max(version) from (select pg_collation_actual_version(oid) as version
    from pg_collation where collprovider = $1::text::\"char\" limit 100) versions";

pub fn look(client: &mut Client) -> Result<Locale> {
    let mut databases = Vec::new();
    for row in client.query(DATABASES, &[])? {
        databases.push(DatabaseLocale {
            oid: Oid(row.get(0)?),
            name: row.get(1)?,
            encoding: row.get(2)?,
            collate: row.get(3)?,
            ctype: row.get(4)?,
            provider: provider(row.get(5)?).to_string(),
            collation_version: row.get(6)?,
        });
    }
    let libc = version(client, "c")?.or_else(host::libc_version);
    Ok(Locale { libc, icu: version(client, "i")?, databases })
}

fn version(client: &mut Client, provider: &str) -> Result<Option<String>> {
    client.query_one(COLLATIONS, &[&provider])?.get(0)
}

fn provider(code: &str) -> &str {
    match code {
        "c" => "libc",
        "i" => "icu",
        "b" => "builtin",
        other => other,
    }
}
