//! Tickets that hold what they stand for, sealed with a key of the pool.
//!
//! A ticket is base64url (RFC 4648, section 5, without padding) of:
//!
//! | Bytes | Content |
//! | --- | --- |
//! | 1 | version: 1, or 2 as below |
//! | 1 | id of the key |
//! | 12 | random nonce |
//! | 4 | sealed: the second at which the ticket expires, since 1970, big endian |
//! | 2 | sealed: the Spice port, big endian; 0 for a Unix socket |
//! | 1 | sealed: how the host is given: 4, 6, 0 or 1 |
//! | 4, 16 or more | sealed: its IPv4 address, IPv6 address, name, or the path of a Unix socket |
//! | 16 | tag |
//!
//! That makes 55 characters for an IPv4 address and 71 for an IPv6 address. Version and key id are
//! authenticated too.
//!
//! A ticket that permits more or less than channels of all types to a host and port is one of
//! version 2. There the expiry is followed by the whole grant as JSON, in place of port and host.
//!
//! The cipher is AES-256-GCM-SIV (RFC 8452) with random nonces of 96 bits. With 2^32 tickets under
//! one key, two share a nonce with a probability of 2^-33; and were it so, all that this cipher
//! would give away is whether both stand for the same host, port and second. Nothing could be
//! forged, which with AES-GCM it could.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::PoolKeys;
use crate::grant::{Grant, GrantState};
use crate::host::Host;
use crate::host_tls::{HostTls, Trust};
use crate::target::Target;

/// Of tickets that say where they lead, and no more.
const SHORT: u8 = 1;
/// Of tickets with all that they permit.
const WHOLE: u8 = 2;
const CLEAR_BYTES: usize = 2 + NONCE_LEN;
/// Of the time at which a ticket expires.
const EXPIRY_BYTES: usize = 4;
/// Port and the kind of host.
const FIXED_BYTES: usize = 3;
/// The kind of host that is a Unix socket.
const SOCKET: u8 = 1;
/// How far apart the clocks of a pool may be.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// What a ticket stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What it permits.
    pub grant: Grant,
    /// When it expires.
    pub expires: SystemTime,
}

/// Why no ticket can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The clock is not set, or the year is after 2105.
    #[error("the system's clock is wrong")]
    Clock,
    /// The system's random source failed.
    #[error("the system's random source failed")]
    Random,
    /// `MaxUriSize` may leave no room for all that it permits.
    #[error(
        "a ticket of a pool has no room for networks of clients, nor for the authorities or the \
         subject of a host's certificate, which can be pinned"
    )]
    NoRoom,
}

/// Why a ticket is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No ticket of a pool, or of another version.
    #[error("not a ticket")]
    Malformed,
    /// None of the keys has its id.
    #[error("ticket of another pool, or sealed with a key that was removed")]
    UnknownKey,
    /// It was changed, or made without the key.
    #[error("ticket was changed")]
    Forged,
}

impl PoolKeys {
    /// Makes a ticket with the first key.
    pub fn seal(&self, contents: &Contents) -> Result<String, SealError> {
        let key = self.sealing();
        if !has_room(&contents.grant) {
            return Err(SealError::NoRoom);
        }
        let expires = contents
            .expires
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| u32::try_from(since.as_secs()).ok())
            .ok_or(SealError::Clock)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| SealError::Random)?;
        let version = version_of(&contents.grant);
        let header = [version, key.id];
        let mut sealed = expires.to_be_bytes().to_vec();
        if version == WHOLE {
            let grant = serde_json::to_vec(&contents.grant.state());
            sealed.extend(grant.unwrap_or_else(|_| unreachable!("numbers and texts have a JSON")));
        } else {
            write_target(&contents.grant.target, &mut sealed);
        }
        let nonce_bytes = nonce;
        key.aead
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce_bytes),
                Aad::from(header),
                &mut sealed,
            )
            .unwrap_or_else(|_| unreachable!("a ticket is far shorter than the cipher's limit"));
        Ok(URL_SAFE_NO_PAD.encode([&header[..], &nonce, &sealed].concat()))
    }

    /// Opens a ticket of any gateway of the pool. Whether it has expired is for the caller to
    /// judge, see [`Contents::is_expired`].
    pub fn open(&self, ticket: &str) -> Result<Contents, OpenError> {
        // Strict about the last character's unused bits, so that each ticket has one text.
        let bytes = URL_SAFE_NO_PAD
            .decode(ticket)
            .map_err(|_| OpenError::Malformed)?;
        let (clear, sealed) = bytes
            .split_at_checked(CLEAR_BYTES)
            .ok_or(OpenError::Malformed)?;
        let (&[version, id], nonce) = clear.split_first_chunk().ok_or(OpenError::Malformed)?;
        if !matches!(version, SHORT | WHOLE) {
            return Err(OpenError::Malformed);
        }
        let mut failure = OpenError::UnknownKey;
        for key in self.of_id(id) {
            let nonce =
                Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Malformed)?;
            let mut sealed = sealed.to_vec();
            match key
                .aead
                .open_in_place(nonce, Aad::from([version, id]), &mut sealed)
            {
                Ok(plain) => return read_contents(version, plain).ok_or(OpenError::Malformed),
                Err(_) => failure = OpenError::Forged,
            }
        }
        Err(failure)
    }
}

impl Contents {
    /// Whether the ticket has expired, also for a gateway whose clock is somewhat ahead of the
    /// one that made it.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.expires + CLOCK_TOLERANCE
    }
}

/// A number of the desktop session that is the same in all gateways: 48 bits of a hash, which
/// tell nothing about a ticket that cannot be guessed.
pub(crate) fn session_number(ticket: &str) -> u64 {
    let hash = digest(&SHA256, ticket.as_bytes());
    let first = hash.as_ref()[..6].iter();
    first.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether a ticket with all of a grant is one that every pool takes.
pub(crate) fn has_room(grant: &Grant) -> bool {
    let checks_by_digest =
        |tls: &HostTls| matches!(tls.trust, Trust::Certificate(_)) && tls.subject.is_none();
    grant.clients.is_empty() && grant.tls.as_ref().is_none_or(checks_by_digest)
}

/// A grant that the short version tells whole has no other ticket.
fn version_of(grant: &Grant) -> u8 {
    if *grant == Grant::new(grant.target.clone()) {
        SHORT
    } else {
        WHOLE
    }
}

fn write_target(target: &Target, to: &mut Vec<u8>) {
    match target {
        Target::Tcp { host, port } => {
            to.extend(port.to_be_bytes());
            write_host(host, to);
        }
        Target::Unix(path) => {
            to.extend([0, 0, SOCKET]);
            to.extend(path.to_string().as_bytes());
        }
    }
}

fn write_host(host: &Host, to: &mut Vec<u8>) {
    match host.address() {
        Some(IpAddr::V4(v4)) => {
            to.push(4);
            to.extend(v4.octets());
        }
        Some(IpAddr::V6(v6)) => {
            to.push(6);
            to.extend(v6.octets());
        }
        None => {
            to.push(0);
            to.extend(host.to_string().as_bytes());
        }
    }
}

fn read_contents(version: u8, plain: &[u8]) -> Option<Contents> {
    let (expires, rest) = plain.split_first_chunk::<EXPIRY_BYTES>()?;
    let grant = if version == WHOLE {
        let state: GrantState = serde_json::from_slice(rest).ok()?;
        Grant::try_from(state).ok()?
    } else {
        Grant::new(read_target(rest)?)
    };
    let expires = Duration::from_secs(u32::from_be_bytes(*expires).into());
    Some(Contents {
        grant,
        expires: UNIX_EPOCH + expires,
    })
}

fn read_target(bytes: &[u8]) -> Option<Target> {
    let (&[high, low, kind], host) = bytes.split_first_chunk::<FIXED_BYTES>()?;
    let port = u16::from_be_bytes([high, low]);
    let tcp = |host| Target::new(host, port);
    let target = match kind {
        4 => tcp(Host::try_from(IpAddr::from(<[u8; 4]>::try_from(host).ok()?)).ok()?),
        6 => tcp(Host::try_from(IpAddr::from(<[u8; 16]>::try_from(host).ok()?)).ok()?),
        // A name; what reads as an address has the kinds above.
        0 => {
            let name: Host = std::str::from_utf8(host).ok()?.parse().ok()?;
            tcp(name.address().is_none().then_some(name)?)
        }
        SOCKET if port == 0 => Target::Unix(std::str::from_utf8(host).ok()?.parse().ok()?),
        _ => return None,
    };
    Some(target)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::super::key_for_test;
    use super::*;
    use crate::channel_type::{ChannelType, ChannelTypes};
    use crate::host_tls::{Authorities, CertificateDigest};

    fn contents(host: &str, port: u16, expires: u32) -> Contents {
        Contents {
            grant: Grant::new(Target::new(host.parse().unwrap(), port)),
            expires: UNIX_EPOCH + Duration::from_secs(expires.into()),
        }
    }

    #[test]
    fn is_as_short_as_documented_and_url_safe() {
        let keys = key_for_test(&[1]);
        for (host, length) in [
            ("10.0.0.7", 55),
            ("2001:db8::7", 71),
            ("host-a.example.com", 74),
        ] {
            let ticket = keys.seal(&contents(host, 5900, 1)).unwrap();
            assert_eq!(ticket.len(), length, "{host}");
            let url_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            assert!(ticket.chars().all(url_safe));
        }
        let longest = "a.".repeat(127);
        let ticket = keys.seal(&contents(&longest, 1, 1)).unwrap();
        assert_eq!(ticket.len(), 388);
    }

    #[test]
    fn every_bit_counts() {
        let keys = key_for_test(&[1, 2]);
        let ticket = keys.seal(&contents("10.0.0.7", 5900, 1)).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&ticket).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                keys.open(&URL_SAFE_NO_PAD.encode(flipped)).is_err(),
                "{bit}"
            );
        }
        // Bits of the characters too, those that decode to no byte included.
        for at in 0..ticket.len() {
            for bit in 0..7 {
                let mut flipped = ticket.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                let flipped = String::from_utf8(flipped).unwrap();
                assert!(keys.open(&flipped).is_err(), "{at} {bit}");
            }
        }
        for length in 0..ticket.len() {
            assert!(keys.open(&ticket[..length]).is_err(), "{length}");
        }
        assert!(keys.open(&format!("{ticket}A")).is_err());
        assert!(keys.open(&format!("{ticket}AA")).is_err());
        assert!(keys.open(&format!("{ticket}=")).is_err());
    }

    #[test]
    fn keys_are_rotated_without_losing_a_ticket() {
        let [old, both, swapped, new] = [&[1][..], &[1, 2], &[2, 1], &[2]].map(key_for_test);
        let contents = contents("h", 1, 1);
        let early = old.seal(&contents).unwrap();
        let late = swapped.seal(&contents).unwrap();
        for keys in [&old, &both, &swapped] {
            assert_eq!(keys.open(&early).as_ref(), Ok(&contents));
        }
        for keys in [&both, &swapped, &new] {
            assert_eq!(keys.open(&late).as_ref(), Ok(&contents));
        }
        assert_eq!(new.open(&early), Err(OpenError::UnknownKey));
        assert_eq!(old.open(&late), Err(OpenError::UnknownKey));
    }

    #[test]
    fn a_key_with_the_same_id_is_no_help() {
        let ours = key_for_test(&[1]);
        let ticket = ours.seal(&contents("h", 1, 1)).unwrap();
        let twin = (2..=255)
            .map(|fill| key_for_test(&[fill]))
            .find(|keys| keys.sealing().id == ours.sealing().id);
        if let Some(twin) = twin {
            assert_eq!(twin.open(&ticket), Err(OpenError::Forged));
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(&ticket).unwrap();
        let other = key_for_test(&[2]);
        bytes[1] = other.sealing().id;
        let relabelled = URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(other.open(&relabelled), Err(OpenError::Forged));
    }

    #[test]
    fn hosts_that_are_none_are_refused() {
        let plain = |kind: u8, host: &[u8]| {
            let fixed = [0, 0, 0, 1, 23, 12, kind];
            read_contents(SHORT, &[&fixed[..], host].concat())
        };
        assert_eq!(plain(0, b"h"), Some(contents("h", 5900, 1)));
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        assert_eq!(plain(6, &mapped), Some(contents("127.0.0.1", 5900, 1)));
        // A socket has no port.
        assert_eq!(plain(SOCKET, b"/run/a.sock"), None);
        for (kind, host) in [
            (0, &b"x@127.0.0.1"[..]),
            (0, b"127.0.0.1"),
            (0, b"010.0.0.1"),
            (0, b""),
            (0, b"\xff"),
            (4, &[0; 4]),
            (4, &[1; 5]),
            (6, &[0; 16]),
            (7, b"h"),
        ] {
            assert_eq!(plain(kind, host), None, "{kind} {host:?}");
        }
    }

    #[test]
    fn a_unix_socket_is_a_target_too() {
        let keys = key_for_test(&[1]);
        let contents = Contents {
            grant: Grant::new(Target::Unix("/run/vdi/7.sock".parse().unwrap())),
            ..contents("h", 1, 1)
        };
        let ticket = keys.seal(&contents).unwrap();
        assert_eq!(keys.open(&ticket), Ok(contents));
        for path in [&b"run/a"[..], b"/run/../a", b"\xff", b""] {
            let fixed = [0, 0, 0, 1, 0, 0, SOCKET];
            assert_eq!(read_contents(SHORT, &[&fixed[..], path].concat()), None);
        }
    }

    #[test]
    fn other_versions_are_refused() {
        let keys = key_for_test(&[1]);
        let ticket = keys.seal(&contents("h", 1, 1)).unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(&ticket).unwrap();
        for version in (0..=255).filter(|version| !matches!(*version, SHORT | WHOLE)) {
            bytes[0] = version;
            let other = URL_SAFE_NO_PAD.encode(&bytes);
            assert_eq!(keys.open(&other), Err(OpenError::Malformed));
        }
        for version in [SHORT, WHOLE] {
            bytes[0] = version;
            let relabelled = URL_SAFE_NO_PAD.encode(&bytes);
            assert_eq!(keys.open(&relabelled).is_ok(), version == SHORT);
        }
    }

    #[test]
    fn what_a_ticket_does_not_permit_stays_out() {
        let keys = key_for_test(&[1]);
        let mut contents = contents("10.0.0.7", 5900, 1);
        contents.grant.channels = ChannelTypes::only(&[ChannelType::MAIN]);
        let ticket = keys.seal(&contents).unwrap();
        assert_eq!(keys.open(&ticket).unwrap(), contents);
        let pinned = HostTls {
            trust: Trust::Certificate(CertificateDigest::from([9; 32])),
            subject: None,
        };
        contents.grant.tls = Some(pinned.clone());
        contents.grant.tls_port = Some(5_901);
        let longest = "a.".repeat(127).parse().unwrap();
        contents.grant.target = Target::new(longest, 5900);
        let ticket = keys.seal(&contents).unwrap();
        assert!(
            ticket.len() <= 640 - "/?ver=2&token=".len(),
            "{}",
            ticket.len()
        );
        assert_eq!(keys.open(&ticket).unwrap(), contents);
        for tls in [
            HostTls {
                trust: Trust::Authorities(Authorities::none()),
                subject: None,
            },
            HostTls {
                subject: Some("CN=spice".parse().unwrap()),
                ..pinned
            },
        ] {
            contents.grant.tls = Some(tls);
            assert_eq!(keys.seal(&contents), Err(SealError::NoRoom));
        }
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"host":"0.0.0.0","port":5900,"channels":1}"#,
        ] {
            let plain = [&[0, 0, 0, 1], wrong.as_bytes()].concat();
            assert_eq!(read_contents(WHOLE, &plain), None, "{wrong}");
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let ticket = contents("h", 1, 1_000);
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        assert!(!ticket.is_expired(at(999)));
        assert!(!ticket.is_expired(at(1_029)));
        assert!(ticket.is_expired(at(1_030)));
    }

    #[test]
    fn the_session_is_the_same_everywhere_and_another_for_each_ticket() {
        let (first, second) = (key_for_test(&[1]), key_for_test(&[1]));
        let ticket = first.seal(&contents("h", 1, 1)).unwrap();
        assert!(second.open(&ticket).is_ok());
        assert_eq!(session_number(&ticket), session_number(&ticket));
        let other = first.seal(&contents("h", 1, 1)).unwrap();
        assert_ne!(session_number(&ticket), session_number(&other));
    }

    /// Any address but an unspecified one, as a text.
    fn host_of(address: impl Into<IpAddr>) -> Option<String> {
        let host = Host::try_from(address.into()).ok()?;
        Some(host.to_string())
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened(
            host in prop_oneof![
                any::<Ipv4Addr>().prop_filter_map("no host", host_of),
                any::<Ipv6Addr>().prop_filter_map("no host", host_of),
                "[a-z0-9]{1,60}(\\.[a-z][a-z0-9]{0,60}){1,3}",
            ],
            port: u16,
            expires: u32,
        ) {
            let keys = key_for_test(&[7, 8]);
            let contents = contents(&host, port, expires);
            let ticket = keys.seal(&contents).unwrap();
            prop_assert_eq!(keys.open(&ticket), Ok(contents));
            prop_assert!(key_for_test(&[9]).open(&ticket).is_err());
        }

        #[test]
        fn nothing_else_opens(bytes in prop::collection::vec(any::<u8>(), 0..120), text: String) {
            let keys = key_for_test(&[1]);
            let mut labelled = vec![SHORT, keys.sealing().id];
            labelled.extend(&bytes);
            prop_assert!(keys.open(&URL_SAFE_NO_PAD.encode(labelled)).is_err());
            prop_assert!(keys.open(&URL_SAFE_NO_PAD.encode(bytes)).is_err());
            prop_assert!(keys.open(&text).is_err());
        }
    }
}
