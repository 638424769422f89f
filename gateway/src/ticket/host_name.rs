//! Tickets that are host names, for clients that can name a host but no user.
//!
//! Host names have no case, and some clients lowercase them. So such a ticket is one label of a name
//! (RFC 1123, section 2.1), in lower case, and begins with a word by which it is told from names of
//! desktops: whoever asks for one of those without credentials has guessed no ticket.

use std::fmt::Write;

use super::RANDOM_BYTES;

/// How each of them begins.
const PREFIX: &str = "ticket-";
/// Fewest characters behind it: 96 bits, which nobody guesses, take 19 of letters and digits.
const FEWEST: usize = 19;
/// Longest label (RFC 1035, section 2.3.4).
const LABEL: usize = 63;

/// The ticket of these random bytes.
pub(super) fn write(random: [u8; RANDOM_BYTES]) -> String {
    random.iter().fold(PREFIX.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The ticket that a host name may be; `None`: it is another name, or an address.
pub fn ticket_of_host(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let secret = host.strip_prefix(PREFIX)?;
    let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_one = secret.len() >= FEWEST && host.len() <= LABEL && secret.bytes().all(is_known);
    is_one.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_a_host_name_in_any_case() {
        for random in [
            [0; RANDOM_BYTES],
            [0xa9; RANDOM_BYTES],
            [0xff; RANDOM_BYTES],
        ] {
            let ticket = write(random);
            assert_eq!(ticket.len(), PREFIX.len() + 2 * RANDOM_BYTES);
            for host in [&ticket, &ticket.to_uppercase()] {
                assert_eq!(ticket_of_host(host).as_ref(), Some(&ticket));
            }
        }
    }

    #[test]
    fn names_of_desktops_are_no_tickets() {
        let long_enough = format!("ticket-{}", "a".repeat(FEWEST));
        assert!(ticket_of_host(&long_enough).is_some());
        let longest = format!("ticket-{}", "-".repeat(LABEL - PREFIX.len()));
        assert!(ticket_of_host(&longest).is_some());
        for other in [
            &long_enough[..long_enough.len() - 1],
            &format!("{longest}a"),
            &format!("{long_enough}."),
            &format!("{long_enough}.example"),
            &format!("{long_enough}_"),
            &format!("{long_enough}%61"),
            &format!("my-{long_enough}"),
            "ticket-office",
            "0123456789abcdef0123456789abcdef",
            "windows-desktop-of-ann-and-bob",
            "10.0.0.21",
            "[2001:db8::21]",
            "",
        ] {
            assert_eq!(ticket_of_host(other), None, "{other}");
        }
    }
}
