//! TLS: each sslmode against servers with certificates of an authority made for the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::connecting::{allow, connect, hint, refusal};
use crate::harness::*;

/// Runs openssl in a directory.
fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("openssl: {error}; apt-get install openssl"));
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a server with TLS whose certificate it issued with these names.
pub struct Encrypted {
    pub cluster: Cluster,
    pub files: PathBuf,
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

impl Encrypted {
    pub fn start(subject: &str, extensions: &str) -> Self {
        let cluster = Cluster::builder().set("listen_addresses", "127.0.0.1").build();
        let files = cluster.scratch().make_dir("tls");
        openssl(&files, &format!("req -x509 {KEY} -keyout ca.key -out ca.crt -days 30 -subj /CN=authority"));
        issue(&files, "server", subject, extensions, 30);
        cluster.append_config("ssl = on\nssl_ca_file = 'ca.crt'");
        let server = Self { cluster, files };
        server.install();
        server.cluster.start();
        server
    }

    /// Gives the server what was issued.
    fn install(&self) {
        for name in ["server.key", "server.crt", "ca.crt"] {
            let content = fs::read(self.files.join(name)).expect("made by openssl");
            let path = self.cluster.scratch().write(Path::new("data").join(name), content);
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        }
    }

    pub fn conninfo(&self, host: &str, rest: &str) -> String {
        format!("host={host} hostaddr=127.0.0.1 port={} user=postgres {rest}", self.cluster.port())
    }

    pub fn file(&self, name: &str) -> String {
        self.files.join(name).display().to_string()
    }

    /// Whether such a connection is encrypted; panics when it is refused.
    fn encrypted(&self, host: &str, rest: &str) -> bool {
        let mut client = connect(&self.conninfo(host, rest), &self.files, &[]).expect("let in");
        let question = "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()";
        client.query_one_text(question, &[]).expect("an answer") == "true"
    }

    #[track_caller]
    fn refused(&self, host: &str, rest: &str, message: &str, setting: &str) {
        let error = refusal(&self.conninfo(host, rest), &self.files, &[]);
        assert!(error.message().contains(message), "{error}");
        assert!(hint(&error).contains(setting), "{error:?}");
    }
}

/// A key and a certificate that the authority in `directory` signed. Without extensions it is of X.509
/// version 1, as the recipe in PostgreSQL's manual makes it with OpenSSL 3.0.
fn issue(directory: &Path, name: &str, subject: &str, extensions: &str, days: i32) {
    openssl(directory, &format!("req -new {KEY} -keyout {name}.key -out {name}.csr -subj {subject}"));
    fs::write(directory.join("extensions"), extensions).expect("written");
    let file = if extensions.is_empty() { "" } else { " -extfile extensions" };
    openssl(
        directory,
        &format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {days} -out {name}.crt{file}"
        ),
    );
}

#[test]
fn each_sslmode_means_what_it_means_to_libpq() {
    let server = Encrypted::start("/CN=ignored", "subjectAltName=DNS:db.example,IP:127.0.0.1");
    let root = format!("sslrootcert={}", server.file("ca.crt"));
    for (mode, encrypted) in [("disable", false), ("allow", false), ("prefer", true), ("require", true)] {
        assert_eq!(server.encrypted("db.example", &format!("sslmode={mode}")), encrypted, "{mode}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(server.encrypted("db.example", &format!("sslmode={mode} {root}")), "{mode}");
    }
    assert!(server.encrypted("127.0.0.1", &format!("sslmode=verify-full {root}")));
    assert!(server.encrypted("wrong.example", &format!("sslmode=verify-ca {root}")));
    server.refused("wrong.example", &format!("sslmode=verify-full {root}"), "TLS failed", "PGHOST");
    server.refused("ignored", &format!("sslmode=verify-full {root}"), "TLS failed", "PGHOST");
    server.refused("db.example", "sslmode=verify-full", "root.crt does not exist", "PGSSLROOTCERT");
    server.refused("db.example", "sslrootcert=system", "TLS failed", "PGSSLROOTCERT");

    openssl(&server.files, &format!("req -x509 {KEY} -keyout x.key -out other.crt -subj /CN=other"));
    let other = format!("sslrootcert={}", server.file("other.crt"));
    for mode in ["require", "verify-ca", "verify-full"] {
        server.refused("db.example", &format!("sslmode={mode} {other}"), "UnknownIssuer", "PGSSLROOTCERT");
    }
    // As libpq: what prefers TLS does without when TLS fails.
    assert!(!server.encrypted("db.example", &format!("sslmode=prefer {other}")));
}

#[test]
fn verify_full_works_with_passwords_bound_to_the_channel() {
    let server = Encrypted::start("/CN=x", "subjectAltName=DNS:db.example");
    server.cluster.psql("alter role postgres password 'secret'");
    allow(&server.cluster, "hostssl all all 127.0.0.1/32 scram-sha-256");
    let root = format!("sslrootcert={} sslmode=verify-full", server.file("ca.crt"));
    assert!(server.encrypted("db.example", &format!("{root} password=secret channel_binding=require")));
    assert!(
        server.encrypted("db.example", &format!("{root} password=secret ssl_max_protocol_version=TLSv1.2"))
    );
    server.refused(
        "db.example",
        &format!("{root} password=hush"),
        "password authentication failed",
        "PGPASSWORD",
    );
    server.refused("db.example", "sslmode=disable password=secret", "no pg_hba.conf entry", "pg_hba.conf");
    // allow: the server insists on TLS, so the second attempt uses it.
    assert!(server.encrypted("db.example", "sslmode=allow password=secret"));
}

#[test]
fn a_common_name_counts_where_there_is_no_alternative_name() {
    let server = Encrypted::start("/CN=*.example", "basicConstraints=CA:FALSE");
    let root = format!("sslrootcert={} sslmode=verify-full", server.file("ca.crt"));
    assert!(server.encrypted("db.example", &root));
    server.refused("db.test", &root, "TLS failed", "PGHOST");
}

#[test]
fn a_self_signed_certificate_can_be_trusted_by_itself() {
    let server = Encrypted::start("/CN=x", "subjectAltName=DNS:db.example");
    let data = server.cluster.data_dir();
    openssl(
        &data,
        &format!(
            "req -x509 {KEY} -keyout server.key -out server.crt -subj /CN=db.example -addext subjectAltName=DNS:db.example"
        ),
    );
    server.cluster.reload();
    let root = format!("sslrootcert={}", data.join("server.crt").display());
    server.cluster.wait_for("the new certificate", || {
        connect(&server.conninfo("db.example", &format!("{root} sslmode=verify-full")), &data, &[]).is_ok()
    });
    server.refused("wrong", &format!("{root} sslmode=verify-full"), "TLS failed", "PGHOST");
}

#[test]
fn an_expired_certificate_is_refused_where_it_is_verified() {
    let server = Encrypted::start("/CN=x", "subjectAltName=DNS:db.example");
    let verified = format!("sslmode=verify-full sslrootcert={}", server.file("ca.crt"));
    assert!(server.encrypted("db.example", &verified));
    issue(&server.files, "server", "/CN=x", "subjectAltName=DNS:db.example", -1);
    server.install();
    server.cluster.reload();
    server.cluster.wait_for("the new certificate", || {
        connect(&server.conninfo("db.example", &verified), &server.files, &[]).is_err()
    });
    let error = refusal(&server.conninfo("db.example", &verified), &server.files, &[]);
    assert!(error.message().contains("xpired"), "{error}");
    assert!(server.encrypted("db.example", "sslmode=require"));
}

#[test]
fn a_version_1_certificate_encrypts_and_can_not_be_verified() {
    let server = Encrypted::start("/CN=db.example", "");
    assert!(server.encrypted("db.example", "sslmode=require"));
    let root = format!("sslrootcert={} sslmode=verify-full", server.file("ca.crt"));
    server.refused("db.example", &root, "UnsupportedCertVersion", "subjectAltName");
}

#[test]
fn a_client_certificate_is_shown_when_there_is_one() {
    let server = Encrypted::start("/CN=x", "subjectAltName=DNS:db.example");
    allow(&server.cluster, "hostssl all all 127.0.0.1/32 cert");
    issue(&server.files, "client", "/CN=postgres", "basicConstraints=CA:FALSE", 30);
    let files = format!("sslcert={} sslkey={}", server.file("client.crt"), server.file("client.key"));
    assert!(server.encrypted("db.example", &format!("sslmode=require {files}")));
    server.refused(
        "db.example",
        "sslmode=require",
        "connection requires a valid client certificate",
        "pg_hba.conf",
    );

    fs::set_permissions(server.file("client.key"), PermissionsExt::from_mode(0o644)).expect("mode");
    server.refused(
        "db.example",
        &format!("sslmode=require {files}"),
        "others have access to it",
        "chmod 0600",
    );
    fs::set_permissions(server.file("client.key"), PermissionsExt::from_mode(0o600)).expect("mode");
    fs::write(server.file("client.key"), "no key").expect("written");
    server.refused(
        "db.example",
        &format!("sslmode=require {files}"),
        "not an unencrypted key",
        "openssl pkey",
    );
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let cluster = Cluster::builder().set("listen_addresses", "127.0.0.1").start();
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", cluster.port());
    let error = refusal(&format!("{conninfo} sslmode=require"), Path::new("/"), &[]);
    assert!(error.message().contains("the server does not offer TLS"), "{error}");
    assert!(hint(&error).contains("ssl = on"));
    connect(&format!("{conninfo} sslmode=prefer"), Path::new("/"), &[]).expect("let in without");
}
