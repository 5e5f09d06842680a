//! The digests of the repository: SHA-256 of what is stored, BLAKE3 of what was read.
//!
//! `docs/decisions/digests.md` says why two. All are written as lower-case hex, in JSON and in messages, and
//! read back only so: `sha256sum` and `b3sum` print the same.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest;

use crate::error::{Error, Result};

/// The SHA-256 of stored bytes, after compression: lets a repository be verified without decompressing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

/// The BLAKE3 of raw bytes, before compression: decides "the same bytes again".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawDigest(pub [u8; 32]);

/// The first 128 bits of the BLAKE3 of a slice's raw bytes: there are millions of them in a map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceDigest(pub [u8; 16]);

impl Sha256Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl RawDigest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl SliceDigest {
    pub fn of(bytes: &[u8]) -> Self {
        let mut short = [0; 16];
        blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut short);
        Self(short)
    }
}

/// A SHA-256 over bytes that come in parts.
#[derive(Clone, Default)]
pub struct Sha256Hasher(sha2::Sha256);

impl Sha256Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Sha256Digest {
        Sha256Digest(self.0.finalize().into())
    }
}

/// A BLAKE3 over bytes that come in parts.
#[derive(Clone, Default)]
pub struct RawHasher(blake3::Hasher);

impl RawHasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> RawDigest {
        RawDigest(*self.0.finalize().as_bytes())
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str, what: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !lower || hex::decode_to_slice(text, &mut bytes).is_err() {
        return Err(Error::corrupt(format!("\"{text}\" is not a {what}: {} lower-case hex digits", 2 * N)));
    }
    Ok(bytes)
}

/// Text and JSON of a digest: its bytes in hex.
macro_rules! as_hex {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                parse_hex(text, $what).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_hex!(Sha256Digest, "SHA-256 digest");
as_hex!(RawDigest, "BLAKE3 digest");
as_hex!(SliceDigest, "digest of a slice");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digests_are_those_of_the_usual_tools() {
        // printf abc | sha256sum; printf abc | b3sum
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let blake3 = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(Sha256Digest::of(b"abc").to_string(), sha256);
        assert_eq!(RawDigest::of(b"abc").to_string(), blake3);
        assert_eq!(SliceDigest::of(b"abc").to_string(), blake3[..32]);
    }

    #[test]
    fn other_spellings_are_refused() {
        let good = Sha256Digest::of(b"").to_string();
        for bad in [good.to_uppercase(), good[1..].to_string(), format!("{good}00"), format!(" {good}")] {
            assert!(bad.parse::<Sha256Digest>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parts_have_the_digest_of_the_whole(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let (mut sha256, mut raw) = (Sha256Hasher::default(), RawHasher::default());
            for part in [head, tail] {
                sha256.update(part);
                raw.update(part);
            }
            prop_assert_eq!(sha256.finish(), Sha256Digest::of(&bytes));
            prop_assert_eq!(raw.finish(), RawDigest::of(&bytes));
        }

        #[test]
        fn a_digest_survives_its_json(bytes: [u8; 32]) {
            let json = serde_json::to_string(&RawDigest(bytes)).expect("json");
            prop_assert_eq!(serde_json::from_str::<RawDigest>(&json).expect("back"), RawDigest(bytes));
            prop_assert_eq!(RawDigest(bytes).to_string().parse::<RawDigest>(), Ok(RawDigest(bytes)));
        }
    }
}
