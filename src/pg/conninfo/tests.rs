use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn resolve(conninfo: &str, variables: &[(&str, &str)]) -> Result<ConnSettings> {
    let request = ConnRequest { conninfo: Some(conninfo.into()), ..ConnRequest::default() };
    let environment = Environment::new(variables.iter().copied()).with_user("osuser");
    ConnSettings::resolve(&request, &environment)
}

fn resolved(conninfo: &str, variables: &[(&str, &str)]) -> ConnSettings {
    resolve(conninfo, variables).expect("resolves")
}

fn tcp(name: &str) -> Address {
    Address::Tcp { name: Some(name.into()), address: None }
}

fn places(settings: &ConnSettings) -> Vec<(Address, u16)> {
    settings.hosts.iter().map(|host| (host.address.clone(), host.port)).collect()
}

#[test]
fn without_anything_the_default_sockets_are_tried_as_the_os_user() {
    let settings = resolved("", &[]);
    let expected = [Address::Socket("/var/run/postgresql".into()), Address::Socket("/tmp".into())];
    assert_eq!(places(&settings), expected.map(|address| (address, 5432)));
    assert_eq!((settings.user.as_str(), settings.dbname.as_str()), ("osuser", "postgres"));
    assert_eq!(settings.tls.mode, SslMode::Prefer);
    assert_eq!(settings.connect_timeout, Some(Duration::from_secs(30)));
    assert_eq!(settings.target_session, TargetSession::Any);
}

#[test]
fn what_is_asked_for_beats_the_service_which_beats_the_environment() {
    let home = tempfile::tempdir().expect("a directory");
    fs::write(home.path().join(".pg_service.conf"), "[s]\nuser=service\nport=2\nhost=service\n")
        .expect("written");
    let environment = Environment::new([
        ("PGSERVICE", "s"),
        ("PGUSER", "environment"),
        ("PGPORT", "3"),
        ("PGHOST", "environment"),
        ("PGDATABASE", "environment"),
    ])
    .with_home(home.path())
    .with_user("osuser");
    let request = ConnRequest {
        conninfo: Some("host=conninfo user=conninfo".into()),
        user: Some("flag".into()),
        ..ConnRequest::default()
    };
    let settings = ConnSettings::resolve(&request, &environment).expect("resolves");
    assert_eq!(settings.user, "flag");
    assert_eq!(places(&settings), [(tcp("conninfo"), 2)]);
    assert_eq!(settings.dbname, "environment");
}

#[test]
fn a_plain_word_is_a_database_and_a_uri_is_a_uri() {
    assert_eq!(resolved("shop", &[]).dbname, "shop");
    let settings = resolved("postgresql://u@h:7/d", &[("PGPORT", "8")]);
    assert_eq!((settings.user.as_str(), settings.dbname.as_str()), ("u", "d"));
    assert_eq!(places(&settings), [(tcp("h"), 7)]);
}

#[test]
fn lists_of_hosts_addresses_and_ports_have_to_fit() {
    let two = resolved("host=a,/s port=1,2", &[]);
    assert_eq!(places(&two), [(tcp("a"), 1), (Address::Socket("/s".into()), 2)]);
    assert_eq!(places(&resolved("host=a,b port=9", &[])), [(tcp("a"), 9), (tcp("b"), 9)]);
    assert_eq!(places(&resolved("host=a,b port=9,", &[])), [(tcp("a"), 9), (tcp("b"), 5432)]);
    let numeric = resolved("hostaddr=::1 host=name", &[]);
    let address = Some("::1".parse().expect("an address"));
    assert_eq!(places(&numeric), [(Address::Tcp { name: Some("name".into()), address }, 5432)]);
    for bad in [
        "host=a,b hostaddr=::1",
        "host=a port=1,2",
        "port=0",
        "port=65536",
        "port=x",
        "hostaddr=name",
        "host=@x",
    ] {
        assert!(resolve(bad, &[]).is_err(), "{bad}");
    }
}

#[test]
fn an_empty_value_hides_the_environment_and_means_the_default() {
    let settings = resolved("host='' user=''", &[("PGHOST", "far"), ("PGUSER", "other")]);
    assert!(matches!(settings.hosts[0].address, Address::Socket(_)));
    assert_eq!(settings.user, "osuser");
}

#[test]
fn time_limits_follow_libpq() {
    let limit = |text: &str| resolved(&format!("connect_timeout={text}"), &[]).connect_timeout;
    assert_eq!(limit("0"), None);
    assert_eq!(limit("-1"), None);
    assert_eq!(limit("1"), Some(Duration::from_secs(2)));
    assert_eq!(limit(" 10 ".trim()), Some(Duration::from_secs(10)));
    assert!(resolve("connect_timeout=soon", &[]).is_err());
    let keepalive = resolved("keepalives=0 keepalives_idle=5 tcp_user_timeout=0", &[]).keepalive;
    assert!(!keepalive.enabled && keepalive.user_timeout.is_none());
    assert_eq!(keepalive.idle, Duration::from_secs(5));
}

#[test]
fn unknown_values_are_refused_with_the_known_ones() {
    for bad in ["sslmode=on", "target_session_attrs=master", "channel_binding=yes", "sslnegotiation=fast"] {
        let error = resolve(bad, &[]).expect_err(bad);
        assert!(error.hint().is_some_and(|hint| hint.starts_with("the values are")), "{error:?}");
    }
}

#[test]
fn verifying_needs_something_to_verify_against() {
    let error = resolve("sslmode=verify-ca sslrootcert=/nonexistent", &[]).expect_err("refused");
    assert!(error.message().contains("/nonexistent"));
    assert_eq!(resolved("sslmode=require sslrootcert=/nonexistent", &[]).tls.roots, Roots::Unverified);
    assert_eq!(resolved("sslrootcert=system", &[]).tls.mode, SslMode::VerifyFull);
    assert!(resolve("sslrootcert=system sslmode=require", &[]).is_err());
    assert!(resolve("sslnegotiation=direct", &[]).is_err());
    assert!(resolve("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", &[]).is_err());
    assert_eq!(resolved("", &[("PGREQUIRESSL", "1")]).tls.mode, SslMode::Require);
    assert_eq!(resolved("", &[("PGREQUIRESSL", "1"), ("PGSSLMODE", "disable")]).tls.mode, SslMode::Disable);
}

#[test]
fn default_certificates_are_used_when_they_are_there() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join(".postgresql");
    fs::create_dir(&directory).expect("made");
    for name in ["root.crt", "postgresql.crt"] {
        fs::write(directory.join(name), "x").expect("written");
    }
    let environment = Environment::new::<&str, &str>([]).with_home(home.path()).with_user("u");
    let tls = ConnSettings::resolve(&ConnRequest::default(), &environment).expect("resolves").tls;
    assert_eq!(tls.roots, Roots::File(directory.join("root.crt")));
    assert_eq!(tls.client.map(|client| client.key), Some(directory.join("postgresql.key")));
}

fn with_passfile(conninfo: &str, lines: &str, mode: u32) -> ConnSettings {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join(".pgpass");
    fs::write(&path, lines).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
    let request = ConnRequest { conninfo: Some(conninfo.into()), ..ConnRequest::default() };
    let environment = Environment::new::<&str, &str>([]).with_home(home.path()).with_user("u");
    ConnSettings::resolve(&request, &environment).expect("resolves")
}

#[test]
fn each_host_gets_its_own_password_from_the_password_file() {
    let lines = "a:*:*:*:one\nlocalhost:*:*:*:two\n/s:5432:*:*:three\n::1:*:*:*:four\n";
    let secrets = |conninfo: &str| -> Vec<Option<String>> {
        let settings = with_passfile(conninfo, lines, 0o600);
        let reveal = |password: Password| String::from_utf8_lossy(password.reveal()).into_owned();
        settings.hosts.into_iter().map(|host| host.password.map(reveal)).collect()
    };
    let some = |text: &str| Some(text.to_string());
    assert_eq!(secrets("host=a,b,/s"), [some("one"), None, some("three")]);
    assert_eq!(secrets(""), [some("two"), some("two")]);
    assert_eq!(secrets("hostaddr=::1"), [some("four")]);
    assert_eq!(secrets("host=a password=given"), [some("given")]);
}

#[test]
fn an_open_password_file_is_ignored_with_a_warning() {
    let settings = with_passfile("host=a", "*:*:*:*:hush\n", 0o644);
    assert_eq!(settings.hosts[0].password, None);
    assert!(settings.warnings[0].contains("others have access"));
}

#[test]
fn no_secret_is_in_what_a_log_could_show() {
    let settings = resolved("password=hush", &[("PGPASSWORD", "hush")]);
    assert!(!format!("{settings:?}").contains("hush"));
    let request = ConnRequest { conninfo: Some("password=hush".into()), ..ConnRequest::default() };
    assert!(!format!("{request:?}").contains("hush"));
    assert!(!format!("{:?}", Environment::new([("PGPASSWORD", "hush")])).contains("hush"));
}

#[test]
fn a_local_server_is_reached_whatever_the_environment_says_about_places() {
    let environment = Environment::new([
        ("PGHOST", "far"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "1"),
        ("PGSERVICE", "absent"),
        ("PGSSLMODE", "verify-full"),
        ("PGUSER", "admin"),
        ("PGPASSWORD", "secret"),
    ]);
    let settings = ConnSettings::local("/sockets", 5499, &environment).expect("resolves");
    assert_eq!(places(&settings), [(Address::Socket("/sockets".into()), 5499)]);
    assert_eq!(settings.user, "admin");
    assert!(settings.hosts[0].password.is_some());
}
