//! Hardware addresses, by which terminals are known.

/// Longest address, without separators: of some clients it is a UUID, or any name that an
/// administrator has given the terminal.
pub(super) const LONGEST: usize = 64;

/// The hardware address of a terminal, in the one form in which addresses are compared: clients
/// write it with colons or hyphens, in upper or lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HardwareAddress(Box<str>);

impl HardwareAddress {
    /// Letters and digits of a text, in lower case; `None`: there are none, or too many.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // Separators at most double it.
        if text.len() > 4 * LONGEST {
            return None;
        }
        let letters = text.chars().filter(|letter| letter.is_alphanumeric());
        let one: String = letters.flat_map(char::to_lowercase).collect();
        let fits = !one.is_empty() && one.chars().nth(LONGEST).is_none();
        fits.then(|| Self(one.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_separators_do_not_matter() {
        let one = HardwareAddress::parse("52:54:00:ab:cd:ef").unwrap();
        for text in ["52-54-00-AB-CD-EF", "525400abcdef", " 5254.00ab.cdef "] {
            assert_eq!(HardwareAddress::parse(text).unwrap(), one, "{text}");
        }
        assert_ne!(HardwareAddress::parse("52:54:00:ab:cd:ee").unwrap(), one);
    }

    #[test]
    fn an_address_has_something_in_it_and_not_too_much() {
        assert!(HardwareAddress::parse("").is_none());
        assert!(HardwareAddress::parse("::--").is_none());
        assert!(HardwareAddress::parse(&"a".repeat(64)).is_some());
        assert!(HardwareAddress::parse(&"a".repeat(65)).is_none());
        assert!(HardwareAddress::parse(&":".repeat(1_000_000)).is_none());
    }
}
