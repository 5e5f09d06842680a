//! The digest with which a backup's header ends, of the header itself: JSON is text, and a flipped bit in an LSN
//! would be another LSN.
//!
//! It is the SHA-256 of the whole object with 64 zeros in the place of the digest, which must be the object's
//! very last member, in this very form.

use crate::error::{Error, Result};
use crate::pipe::digest::{Sha256Digest, Sha256Hasher};

/// What stands before the digest of a header, and behind it.
const DIGEST_OPENS: &str = ",\n  \"header_sha256\": \"";
const DIGEST_CLOSES: &str = "\"\n}\n";
/// In place of the digest while it is computed.
const NO_DIGEST: [u8; 64] = [b'0'; 64];

/// Adds the digest to a header as [`to_json`] writes it.
pub fn seal(json: &[u8]) -> Result<Vec<u8>> {
    let open = json.strip_suffix(b"\n}\n").ok_or_else(|| Error::bug("a header of another form"))?;
    let sha256 = digest(open).to_string();
    Ok([open, DIGEST_OPENS.as_bytes(), sha256.as_bytes(), DIGEST_CLOSES.as_bytes()].concat())
}

/// Of a header that is `open` and goes on with its digest, with zeros in the digest's place.
fn digest(open: &[u8]) -> Sha256Digest {
    let mut hasher = Sha256Hasher::default();
    for part in [open, DIGEST_OPENS.as_bytes(), &NO_DIGEST, DIGEST_CLOSES.as_bytes()] {
        hasher.update(part);
    }
    hasher.finish()
}

/// An error unless the header ends with the digest that it has.
pub fn check(bytes: &[u8]) -> Result<()> {
    let split = || {
        let rest = bytes.strip_suffix(DIGEST_CLOSES.as_bytes())?;
        let (rest, hex) = rest.split_at_checked(rest.len().checked_sub(NO_DIGEST.len())?)?;
        Some((rest.strip_suffix(DIGEST_OPENS.as_bytes())?, std::str::from_utf8(hex).ok()?))
    };
    let (open, hex) = split().ok_or_else(|| Error::corrupt("it does not end with header_sha256"))?;
    let (found, expected) = (digest(open), hex.parse()?);
    if found != expected {
        return Err(Error::corrupt(format!("its SHA-256 is {found}, expected {expected}")));
    }
    Ok(())
}
