//! Passwords of users: argon2id hashes in the PHC string format (RFC 9106).

use std::fmt;

use anyhow::Context;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;

/// What `flexvdi-gateway password` asks for: OWASP's Password Storage Cheat Sheet, second choice
/// for argon2id.
pub(super) const USUAL: Cost = Cost {
    memory: 19 * 1_024,
    passes: 2,
    lanes: 1,
};
/// Most memory that a hash may ask for, in KiB: as the second recommendation of RFC 9106,
/// section 4. It is taken for each password that is checked at a time.
const MAX_MEMORY: u32 = 64 * 1_024;
/// Most passes over that memory.
const MAX_PASSES: u32 = 10;
/// Most lanes, which all run on one thread here.
const MAX_LANES: u32 = 4;
/// Shorter hashes are too easily met by chance, in bytes.
const MIN_HASH: usize = 16;
/// Bytes of the salts and hashes that are made here.
const SALT: usize = 16;
const HASH: usize = 32;

/// How much work a hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cost {
    /// KiB.
    pub(super) memory: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

/// Why a text is no hash that is accepted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HashError {
    /// Another format, or another function.
    #[error("expected an argon2id hash, as `flexvdi-gateway password` prints it")]
    Format,
    /// The function before its version 1.3.
    #[error("expected version 19 of argon2id (\"v=19\")")]
    Version,
    /// Without salt or hash, or with one that is too short.
    #[error("expected a salt of at least 8 bytes and a hash of at least {MIN_HASH}")]
    Short,
    /// More work than is done for a login.
    #[error(
        "the hash asks for too much: at most m={MAX_MEMORY} (KiB), t={MAX_PASSES} and p={MAX_LANES} are accepted"
    )]
    TooCostly,
}

/// Memory for checking a password is not there.
#[derive(Debug, thiserror::Error)]
#[error("a password cannot be checked: {0}")]
pub(super) struct CheckError(argon2::Error);

/// A password that was hashed.
#[derive(Clone)]
pub(super) struct StoredPassword {
    cost: Cost,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

impl StoredPassword {
    /// Reads a hash in the PHC string format.
    pub(super) fn parse(text: &str) -> Result<Self, HashError> {
        let parsed = PasswordHash::new(text).map_err(|_| HashError::Format)?;
        if parsed.algorithm != ARGON2ID_IDENT {
            return Err(HashError::Format);
        }
        if parsed.version != Some(Version::V0x13.into()) {
            return Err(HashError::Version);
        }
        let (Some(salt), Some(hash)) = (&parsed.salt, &parsed.hash) else {
            return Err(HashError::Short);
        };
        if salt.len() < argon2::MIN_SALT_LEN || hash.len() < MIN_HASH {
            return Err(HashError::Short);
        }
        let params = Params::try_from(&parsed.params).map_err(|_| HashError::Format)?;
        // Neither can be computed from a password alone.
        if !params.keyid().is_empty() || !params.data().is_empty() {
            return Err(HashError::Format);
        }
        let cost = Cost {
            memory: params.m_cost(),
            passes: params.t_cost(),
            lanes: params.p_cost(),
        };
        if cost.memory > MAX_MEMORY || cost.passes > MAX_PASSES || cost.lanes > MAX_LANES {
            return Err(HashError::TooCostly);
        }
        Ok(Self {
            cost,
            salt: salt.as_ref().into(),
            hash: hash.as_bytes().into(),
        })
    }

    /// One that is as much work and that no password has, for those whose names nobody has.
    pub(super) fn decoy(cost: Cost) -> Self {
        Self {
            cost,
            salt: [0; SALT].into(),
            hash: [0; HASH].into(),
        }
    }

    /// How much work it is to check a password.
    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether it is the hash of this password. Takes tens of milliseconds of a core's time, and
    /// memory as its cost says.
    pub(super) fn is_of(&self, password: &str) -> Result<bool, CheckError> {
        let mut found = vec![0; self.hash.len()];
        hash_into(self.cost, password, &self.salt, &mut found).map_err(CheckError)?;
        Ok(verify_slices_are_equal(&found, &self.hash).is_ok())
    }
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredPassword")
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}

/// Hashes a password with a new salt, as [`StoredPassword::parse`] reads it.
pub(super) fn hash(password: &str) -> anyhow::Result<String> {
    hash_with(USUAL, password)
}

fn hash_with(cost: Cost, password: &str) -> anyhow::Result<String> {
    let mut salt = [0; SALT];
    rand::fill(&mut salt).map_err(|_| anyhow::anyhow!("the system's random source failed"))?;
    let mut hash = [0; HASH];
    hash_into(cost, password, &salt, &mut hash).map_err(CheckError)?;
    let params = cost.params(None).map_err(CheckError)?;
    let written = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).context("cannot write the parameters")?,
        salt: Some(Salt::new(&salt).context("cannot write the salt")?),
        hash: Some(Output::new(&hash).context("cannot write the hash")?),
    };
    Ok(written.to_string())
}

fn hash_into(cost: Cost, password: &str, salt: &[u8], out: &mut [u8]) -> argon2::Result<()> {
    let params = cost.params(Some(out.len()))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
        password.as_bytes(),
        salt,
        out,
    )
}

impl Cost {
    fn params(self, output: Option<usize>) -> argon2::Result<Params> {
        Params::new(self.memory, self.passes, self.lanes, output)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As little work as there can be.
    pub(in crate::desktops) const LEAST: Cost = Cost {
        memory: 8,
        passes: 1,
        lanes: 1,
    };

    /// A hash that is made and checked in no time.
    pub(in crate::desktops) fn quick_hash(password: &str) -> String {
        hash_with(LEAST, password).unwrap()
    }

    #[test]
    fn a_hash_is_of_its_password_and_of_no_other() {
        let text = hash("correct horse").unwrap();
        assert!(
            text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{text}"
        );
        let stored = StoredPassword::parse(&text).unwrap();
        assert_eq!(stored.cost(), USUAL);
        assert!(stored.is_of("correct horse").unwrap());
        for other in ["", "correct horse ", "Correct horse"] {
            assert!(!stored.is_of(other).unwrap(), "{other:?}");
        }
        assert_ne!(hash("correct horse").unwrap(), text);
    }

    #[test]
    fn hashes_of_another_program_are_read() {
        // From src/test.c of the reference implementation.
        let text =
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let stored = StoredPassword::parse(text).unwrap();
        assert!(stored.is_of("password").unwrap());
        assert!(!stored.is_of("Password").unwrap());
    }

    #[test]
    fn nobody_has_the_decoy_s_password() {
        let decoy = StoredPassword::decoy(LEAST);
        assert!(!decoy.is_of("").unwrap());
        assert_eq!(decoy.cost(), LEAST);
    }

    #[test]
    fn what_is_no_usable_hash_is_told_so() {
        let rest = "c29tZXNhbHQ$E5Kgw9dbQ8tXCqgTmwAKCYXuHAOM97SJ";
        let with = |head: &str| format!("${head}${rest}");
        let of = |text: &str| StoredPassword::parse(text).unwrap_err();
        for text in [
            "",
            "hunter2",
            "$6$salt$hash",
            &with("argon2i$v=19$m=256,t=2,p=1"),
            &with("argon2d$v=19$m=256,t=2,p=1"),
            &with("argon2id$v=19$m=256,t=2,p=1,x=1"),
            &with("argon2id$v=19$m=256,t=0,p=1"),
            &with("argon2id$v=19$m=7,t=1,p=1"),
            &with("argon2id$v=19$m=256,t=2,p=1,keyid=AAAA"),
        ] {
            assert_eq!(of(text), HashError::Format, "{text}");
        }
        assert_eq!(of(&with("argon2id$m=256,t=2,p=1")), HashError::Version);
        assert_eq!(of(&with("argon2id$v=16$m=256,t=2,p=1")), HashError::Version);
        let without_hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ";
        assert_eq!(of(without_hash), HashError::Short);
        let short = format!("{without_hash}$E5Kgw9dbQ8tXCqg");
        assert_eq!(of(&short), HashError::Short);
    }

    #[test]
    fn a_hash_may_not_ask_for_any_amount_of_work() {
        let rest = "c29tZXNhbHQ$E5Kgw9dbQ8tXCqgTmwAKCYXuHAOM97SJ";
        for (params, accepted) in [
            ("m=65536,t=10,p=4", true),
            ("m=65537,t=1,p=1", false),
            ("m=2097152,t=1,p=4", false),
            ("m=256,t=11,p=1", false),
            ("m=256,t=1,p=5", false),
            ("m=4294967295,t=4294967295,p=1", false),
        ] {
            let parsed = StoredPassword::parse(&format!("$argon2id$v=19${params}${rest}"));
            match parsed {
                Ok(_) => assert!(accepted, "{params}"),
                Err(error) => {
                    assert_eq!(error, HashError::TooCostly, "{params}");
                    assert!(!accepted, "{params}");
                }
            }
        }
    }

    #[test]
    fn a_hash_is_not_shown() {
        let stored = StoredPassword::decoy(LEAST);
        assert!(!format!("{stored:?}").contains("hash"));
    }
}
