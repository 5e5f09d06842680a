//! Getting in: sockets, TCP, passwords, services, and what is said when it does not work.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use pgark::error::{Error, Kind};
use pgark::pg::client::Client;
use pgark::pg::conninfo::{ConnRequest, ConnSettings, Environment};

use crate::harness::*;

/// Connects as a program would that was started with these variables and `--dbname conninfo`.
pub fn connect(conninfo: &str, home: &Path, variables: &[(&str, &str)]) -> Result<Client, Error> {
    let request = ConnRequest { conninfo: Some(conninfo.into()), ..ConnRequest::default() };
    let environment = Environment::new(variables.iter().copied()).with_home(home).with_user("nobody");
    Client::connect(&ConnSettings::resolve(&request, &environment)?)
}

pub fn refusal(conninfo: &str, home: &Path, variables: &[(&str, &str)]) -> Error {
    match connect(conninfo, home, variables) {
        Ok(_) => panic!("{conninfo} was let in"),
        Err(error) => error,
    }
}

pub fn hint(error: &Error) -> &str {
    error.hint().unwrap_or_default()
}

/// A server that listens on 127.0.0.1 and asks for passwords there; its superuser's is "p:w\d".
fn with_passwords() -> Cluster {
    let cluster = Cluster::builder().set("listen_addresses", "127.0.0.1").start();
    cluster.psql("alter role postgres password 'p:w\\d'");
    allow(&cluster, "host all all 127.0.0.1/32 scram-sha-256");
    cluster
}

/// Lets everyone in through the socket, and through TCP whom `lines` let in.
pub fn allow(cluster: &Cluster, lines: &str) {
    fs::write(cluster.config_dir().join("pg_hba.conf"), format!("local all all trust\n{lines}\n"))
        .expect("write pg_hba.conf");
    cluster.reload();
    let lines = lines.lines().count() + 1;
    cluster.wait_sql("select count(*) from pg_hba_file_rules", &lines.to_string());
}

fn text(client: &mut Client, sql: &str) -> String {
    client.query_one_text(sql, &[]).expect("a text")
}

#[test]
fn the_socket_is_found_from_the_environment_and_the_session_is_prepared() {
    let cluster = Cluster::start_new();
    cluster.psql(
        "alter role postgres set statement_timeout = '5s';
         alter role postgres set default_transaction_read_only = on;
         alter role postgres set search_path = bogus;
         alter role postgres set idle_session_timeout = '9s';",
    );
    let env = cluster.env();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut client = connect("", Path::new("/nonexistent"), &env).expect("let in");
    assert_eq!(client.major().map(|major| major.number()), Ok(pg_major()));
    for (name, expected) in [
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("search_path", "pg_catalog, pg_temp"),
        ("client_encoding", "UTF8"),
        ("default_transaction_read_only", "off"),
        ("application_name", "pgark"),
        ("TimeZone", "UTC"),
    ] {
        assert_eq!(text(&mut client, &format!("show {name}")), expected, "{name}");
    }
    assert_eq!(
        client.execute("create table made (a int)", &[]),
        Err(Error::postgres(
            "could not run \"create table made (a int)\": permission denied to create \"pg_catalog.made\" \
         (System catalog modifications are currently disallowed.)",
        )
        .with_hint("grant the role what is missing, or connect as a superuser with PGUSER"))
    );
    assert_eq!(client.execute("create table public.made (a int)", &[]), Ok(0));
    assert_eq!(client.execute("insert into public.made values ($1), ($2)", &[&1, &2]), Ok(2));
    let rows = client.query("select a, null::text from public.made order by a", &[]).expect("rows");
    assert_eq!(rows.iter().map(|row| row.get::<i32>(0)).collect::<Vec<_>>(), [Ok(1), Ok(2)]);
    assert_eq!(rows[0].get::<Option<String>>(1), Ok(None));
    assert!(rows[0].get::<String>(1).is_err() && rows[0].get::<i32>(7).is_err());
}

#[test]
fn a_password_comes_from_the_password_file_the_environment_or_the_string() {
    let cluster = with_passwords();
    let port = cluster.port().to_string();
    let tcp = format!("host=127.0.0.1 port={port} user=postgres");
    let home = cluster.scratch().make_dir("home");
    let none = refusal(&tcp, &home, &[]);
    assert!(none.message().contains("wants a password and none is known"), "{none}");
    assert!(hint(&none).contains(".pgpass"));

    let pgpass = home.join(".pgpass");
    fs::write(&pgpass, format!("# comment\n127.0.0.1:{port}:*:postgres:p\\:w\\\\d\n")).expect("written");
    fs::set_permissions(&pgpass, fs::Permissions::from_mode(0o600)).expect("mode");
    let mut client = connect(&tcp, &home, &[]).expect("let in by the file");
    assert_eq!(text(&mut client, "select inet_client_addr()::text"), "127.0.0.1/32");
    fs::set_permissions(&pgpass, fs::Permissions::from_mode(0o644)).expect("mode");
    assert!(refusal(&tcp, &home, &[]).message().contains("none is known"));

    connect(&tcp, &home, &[("PGPASSWORD", "p:w\\d")]).expect("let in by the environment");
    connect(&format!("postgres://postgres:p%3Aw%5Cd@127.0.0.1:{port}"), &home, &[])
        .expect("let in by the URI");
}

#[test]
fn a_wrong_password_is_reported_without_showing_it() {
    let cluster = with_passwords();
    let uri = format!("postgres://postgres:hush@127.0.0.1:{}/postgres", cluster.port());
    let error = refusal(&uri, Path::new("/nonexistent"), &[]);
    assert_eq!(error.kind(), Kind::Postgres);
    assert!(error.message().contains("password authentication failed for user \"postgres\""), "{error}");
    assert!(hint(&error).contains("PGPASSWORD"));
    assert!(!format!("{error:?}").contains("hush"));
}

#[test]
fn a_service_file_says_where_the_server_is() {
    let cluster = Cluster::start_new();
    let home = cluster.scratch().make_dir("home");
    let socket = cluster.socket_dir().display();
    let service = format!("[mine]\nhost={socket}\nport={}\nuser=postgres\n", cluster.port());
    fs::write(home.join(".pg_service.conf"), service).expect("written");
    let mut client = connect("service=mine", &home, &[("PGPORT", "1"), ("PGAPPNAME", "x")]).expect("let in");
    assert_eq!(text(&mut client, "show application_name"), "x");
    let error = refusal("service=other", &home, &[]);
    assert!(error.message().contains("could not find the service \"other\""), "{error}");
}

#[test]
fn whatever_is_wrong_about_the_place_the_hint_names_the_setting() {
    let cluster = Cluster::start_new();
    let nobody = Path::new("/nonexistent");
    let socket = cluster.conninfo();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    for (conninfo, message, setting) in [
        (format!("{socket} port=1"), "/.s.PGSQL.1: No such file", "PGPORT"),
        (format!("host=127.0.0.1 port={free}"), "Connection refused", "listen_addresses"),
        ("host=does-not-exist.invalid".into(), "does-not-exist.invalid, port 5432: ", "PGHOST"),
        (format!("{socket} dbname=absent"), "database \"absent\" does not exist", "PGDATABASE"),
        (format!("{socket} user=absent"), "role \"absent\" does not exist", "PGUSER"),
        (
            format!("{socket} target_session_attrs=standby"),
            "the server is not a standby",
            "PGTARGETSESSIONATTRS",
        ),
    ] {
        let error = refusal(&conninfo, nobody, &[]);
        assert_eq!(error.kind(), Kind::Postgres);
        assert!(error.message().starts_with("could not connect to PostgreSQL as user"), "{error}");
        assert!(error.message().contains(message), "{error}");
        assert!(hint(&error).contains(setting), "{error:?}");
    }
}

#[test]
fn a_server_that_accepts_and_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("its address").port();
    let error = refusal(&format!("host=127.0.0.1 port={port} connect_timeout=2"), Path::new("/"), &[]);
    assert!(error.message().contains("no answer within 2 s"), "{error}");
    assert!(hint(&error).contains("PGCONNECT_TIMEOUT"));
}

#[test]
fn the_first_host_that_is_what_was_asked_for_is_taken() {
    let primary = Cluster::start_new();
    let standby = primary.standby().start();
    let hosts = |a: &Cluster, b: &Cluster| {
        let (a, b) = ((a.socket_dir().display(), a.port()), (b.socket_dir().display(), b.port()));
        format!("host=/nonexistent,{},{} port=1,{},{} user=postgres", a.0, b.0, a.1, b.1)
    };
    let both = hosts(&primary, &standby);
    let recovering = |conninfo: &str, wanted: &str| {
        let conninfo = format!("{conninfo} target_session_attrs={wanted}");
        let mut client = connect(&conninfo, Path::new("/"), &[]).expect("let in");
        text(&mut client, "select pg_is_in_recovery()::text")
    };
    for (wanted, expected) in [
        ("any", "false"),
        ("primary", "false"),
        ("read-write", "false"),
        ("standby", "true"),
        ("read-only", "true"),
        ("prefer-standby", "true"),
    ] {
        assert_eq!(recovering(&both, wanted), expected, "{wanted}");
    }
    assert_eq!(recovering(&hosts(&primary, &primary), "prefer-standby"), "false");
}

#[test]
fn a_session_that_the_server_ended_is_noticed() {
    let cluster = Cluster::start_new();
    let mut client = connect(&cluster.conninfo(), Path::new("/"), &[]).expect("let in");
    client.check_alive(Duration::from_secs(60)).expect("alive");
    cluster.psql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgark'");
    cluster.wait_sql("select count(*) from pg_stat_activity where application_name = 'pgark'", "0");
    let error = client.check_alive(Duration::from_secs(60)).expect_err("dead");
    assert_eq!(error.kind(), Kind::Transient, "{error}");
    assert!(client.query_one_text("select 'x'", &[]).is_err());
}
