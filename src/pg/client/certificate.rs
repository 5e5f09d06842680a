//! What libpq accepts in a server's certificate and the webpki crate does not: a common name in place of
//! alternative names, and a certificate that is itself the trusted one.
//!
//! Refuses everything else that webpki refuses. Rules: pgtls_verify_peer_name_matches_certificate_guts
//! (fe-secure-openssl.c) and wildcard_certificate_match (fe-secure-common.c).

use rustls::CertificateError;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, IpAddr, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// RSA with MD5, SHA-1 and SHA-256, ECDSA with SHA-1 and SHA-256.
const SHA256_SIGNATURES: [ObjectIdentifier; 5] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
];
const SHA384_SIGNATURES: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
];
const SHA512_SIGNATURES: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"),
];

type Verdict = Result<(), rustls::Error>;

/// Whether the certificate bears the name of the server that was asked for.
pub(super) fn check_name(der: &CertificateDer<'_>, name: &ServerName<'_>) -> Verdict {
    let verdict = ParsedCertificate::try_from(der).and_then(|parsed| verify_server_name(&parsed, name));
    if verdict.is_err() && common_name_fits(&parse(der)?, name) { Ok(()) } else { verdict }
}

/// Whether a certificate that is trusted by itself is valid now.
pub(super) fn check_validity(der: &CertificateDer<'_>, now: UnixTime) -> Verdict {
    let validity = parse(der)?.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The public key, of a certificate of any X.509 version.
pub(super) fn public_key(
    der: &CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'static>, rustls::Error> {
    let key = parse(der)?.tbs_certificate.subject_public_key_info.to_der();
    key.map(SubjectPublicKeyInfoDer::from).map_err(|_| CertificateError::BadEncoding.into())
}

/// tls-server-end-point (RFC 5929): a digest of the certificate with the algorithm of its signature, or
/// SHA-256 in place of MD5 and SHA-1. None for signatures that have no such algorithm, such as Ed25519.
pub(in crate::pg) fn channel_binding(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let algorithm = parse(der).ok()?.signature_algorithm.oid;
    if SHA256_SIGNATURES.contains(&algorithm) {
        Some(Sha256::digest(der).to_vec())
    } else if SHA384_SIGNATURES.contains(&algorithm) {
        Some(Sha384::digest(der).to_vec())
    } else if SHA512_SIGNATURES.contains(&algorithm) {
        Some(Sha512::digest(der).to_vec())
    } else {
        None
    }
}

fn parse(der: &CertificateDer<'_>) -> Result<Certificate, rustls::Error> {
    Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding.into())
}

/// The common name counts only if there is no alternative name of the same type.
fn common_name_fits(certificate: &Certificate, name: &ServerName<'_>) -> bool {
    let Ok(alternatives) = certificate.tbs_certificate.get::<SubjectAltName>() else { return false };
    let alternatives = alternatives.map(|(_, names)| names.0).unwrap_or_default();
    let is_address = matches!(name, ServerName::IpAddress(_));
    let same_type = |alternative: &GeneralName| match alternative {
        GeneralName::IpAddress(_) => is_address,
        GeneralName::DnsName(_) => !is_address,
        _ => false,
    };
    if alternatives.iter().any(same_type) {
        return false;
    }
    let wanted = match name {
        ServerName::DnsName(name) => name.as_ref().to_string(),
        ServerName::IpAddress(address @ (IpAddr::V4(_) | IpAddr::V6(_))) => {
            std::net::IpAddr::from(*address).to_string()
        }
        _ => return false,
    };
    common_name(certificate).is_some_and(|pattern| name_matches(&pattern, &wanted))
}

/// The first common name of the subject.
fn common_name(certificate: &Certificate) -> Option<String> {
    let parts = certificate.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let found = parts.into_iter().find(|part| part.oid == COMMON_NAME)?;
    std::str::from_utf8(found.value.value()).ok().map(String::from)
}

/// Equal without regard to case, or a wildcard for exactly one leading label.
fn name_matches(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(domain), Some((label, rest))) => {
            !label.is_empty() && !domain.is_empty() && domain.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wildcard_stands_for_one_leading_label() {
        for (pattern, name) in [("a.b", "A.B"), ("*.b.c", "x.b.c"), ("*.B", "x.b")] {
            assert!(name_matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.c", "a.b.c"),
            ("a*.c", "ab.c"),
            ("*", "a"),
            ("*.", "a."),
            ("*.c", ".c"),
            ("*.c", "c"),
            ("", "a"),
        ] {
            assert!(!name_matches(pattern, name), "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn damaged_certificates_never_panic(der in proptest::collection::vec(any::<u8>(), 0..200)) {
            let der = CertificateDer::from(der);
            let name = ServerName::try_from("host").expect("a name");
            prop_assert!(check_name(&der, &name).is_err());
            prop_assert!(check_validity(&der, UnixTime::now()).is_err());
            prop_assert!(public_key(&der).is_err());
            prop_assert!(channel_binding(&der).is_none());
        }
    }
}
