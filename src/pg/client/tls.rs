//! TLS as libpq does it, with rustls: what a server's certificate has to prove, and our own certificate.
//!
//! Refuses root certificate files that hold nothing and private keys that others can read. Invariant: the
//! handshake's signature is checked in every mode, so that a server that is not verified still has to own
//! the key of the certificate to which channel binding ties the password.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::certificate;
use crate::error::{Error, IoContext, Result};
use crate::pg::conninfo::{ClientCertificate, Roots, SslMode, TlsSettings, TlsVersion};

/// What the crate below connects with.
pub(super) fn connector(settings: &TlsSettings) -> Result<MakeRustlsConnect> {
    config(settings).map(MakeRustlsConnect::new)
}

/// Reads the certificates and prepares the handshake.
pub(in crate::pg) fn config(settings: &TlsSettings) -> Result<ClientConfig> {
    let provider = ring::default_provider();
    let verifier = Verifier {
        trusted: trusted(&settings.roots)?,
        check_name: settings.mode == SslMode::VerifyFull,
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions(settings))
        .map_err(|cause| Error::configuration(format!("could not prepare TLS: {cause}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (chain, key) = client_certificate(files)?;
            builder.with_client_auth_cert(chain, key).map_err(|cause| {
                Error::configuration(format!(
                    "could not use the certificate {}: {cause}",
                    files.certificate.display()
                ))
                .with_hint("PGSSLKEY has to name the private key that belongs to PGSSLCERT")
            })?
        }
    };
    config.enable_sni = settings.send_server_name;
    // What libpq from 17 on sends, and what a server insists on when TLS comes first (sslnegotiation).
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

fn versions(settings: &TlsSettings) -> Vec<&'static rustls::SupportedProtocolVersion> {
    let all = [(TlsVersion::V1_2, &rustls::version::TLS12), (TlsVersion::V1_3, &rustls::version::TLS13)];
    let wanted = |version: &TlsVersion| (settings.oldest..=settings.newest).contains(version);
    all.into_iter().filter(|(version, _)| wanted(version)).map(|(_, spoken)| spoken).collect()
}

/// Certificates that are trusted, as authorities or for themselves.
#[derive(Debug)]
struct Trusted {
    anchors: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

fn trusted(roots: &Roots) -> Result<Option<Trusted>> {
    let (certificates, place) = match roots {
        Roots::Unverified => return Ok(None),
        Roots::File(path) => (read_certificates(path, "root certificate file")?, path.display().to_string()),
        Roots::System => {
            (rustls_native_certs::load_native_certs().certs, "the system's trust store".to_string())
        }
    };
    let mut anchors = RootCertStore::empty();
    anchors.add_parsable_certificates(certificates.iter().cloned());
    if certificates.is_empty() {
        return Err(Error::configuration(format!(
            "could not verify the server's certificate: {place} holds no certificate"
        ))
        .with_hint("set PGSSLROOTCERT to a file with the authority's certificate in PEM format"));
    }
    Ok(Some(Trusted { anchors, certificates }))
}

fn read_certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).doing(|| format!("read the {what} {}", path.display()))?;
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates.map_err(|_| {
        Error::configuration(format!("could not read the {what} {}: it is not PEM", path.display()))
    })
}

fn client_certificate(
    files: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = read_certificates(&files.certificate, "client certificate")?;
    let key = files.key.display();
    let metadata = std::fs::metadata(&files.key).doing(|| format!("read the private key {key}"))?;
    // initialize_SSL: root's keys may be shared with a group.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(Error::configuration(format!(
            "could not use the private key {key}: others have access to it"
        ))
        .with_hint(format!("chmod 0600 {key}")));
    }
    let pem = std::fs::read(&files.key).doing(|| format!("read the private key {key}"))?;
    let parsed = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        Error::configuration(format!(
            "could not use the private key {key}: it is not an unencrypted key in PEM format"
        ))
        .with_hint("`openssl pkey -in OLD -out NEW` writes it without a passphrase")
    })?;
    Ok((chain, parsed))
}

#[derive(Debug)]
struct Verifier {
    /// None: whoever answers is right.
    trusted: Option<Trusted>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check_chain(
        &self,
        trusted: &Trusted,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<(), rustls::Error> {
        // A self-signed certificate that was copied to the clients. webpki takes no authority for a server.
        if trusted.certificates.iter().any(|certificate| certificate == end_entity) {
            return certificate::check_validity(end_entity, now);
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &trusted.anchors, intermediates, now, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if let Some(trusted) = &self.trusted {
            self.check_chain(trusted, end_entity, intermediates, now)?;
        }
        if self.check_name {
            certificate::check_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature_with_raw_key(message, &certificate::public_key(cert)?, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
