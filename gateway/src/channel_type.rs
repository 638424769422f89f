//! The types of Spice channels, and which of them may pass.

use serde::{Deserialize, Serialize};

/// Names are not those of a set of channel types with which a desktop can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected \"main\", and any of {}", but_main())]
pub struct ChannelNamesError;

fn but_main() -> String {
    let names: Vec<_> = ChannelType::ALL[1..]
        .iter()
        .map(|kind| format!("{:?}", kind.name()))
        .collect();
    names.join(", ")
}

/// A type of channel, by its number (`SPICE_CHANNEL_*` in spice/enums.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelType(u8);

/// Number and name of every type that is known.
const NAMES: &[(u8, &str)] = &[
    (1, "main"),
    (2, "display"),
    (3, "inputs"),
    (4, "cursor"),
    (5, "playback"),
    (6, "record"),
    (7, "tunnel"),
    (8, "smartcard"),
    (9, "usbredir"),
    (10, "port"),
    (11, "webdav"),
];

impl ChannelType {
    /// The channel without which there is no desktop session.
    pub const MAIN: Self = Self(1);
    /// Every type that is known.
    pub const ALL: &[Self] = &{
        let mut all = [Self(0); NAMES.len()];
        let mut index = 0;
        while index < NAMES.len() {
            all[index] = Self(NAMES[index].0);
            index += 1;
        }
        all
    };

    /// The names of [`ChannelType::ALL`], in its order.
    pub const ALL_NAMES: &[&str] = &{
        let mut all = [""; NAMES.len()];
        let mut index = 0;
        while index < NAMES.len() {
            all[index] = NAMES[index].1;
            index += 1;
        }
        all
    };

    /// The type with this name.
    pub fn named(name: &str) -> Option<Self> {
        let known = NAMES.iter().find(|(_, known)| *known == name);
        known.map(|(number, _)| Self(*number))
    }

    /// The type with this number, known or not.
    pub fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Its name, or `unknown`.
    pub fn name(self) -> &'static str {
        let known = NAMES.iter().find(|(number, _)| *number == self.0);
        known.map_or("unknown", |(_, name)| name)
    }
}

/// A set of types. By default it holds all of them, those that are not known included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelTypes(u64);

/// All that have no place of their own in a set.
const OTHERS: u32 = u64::BITS - 1;

impl ChannelTypes {
    /// Every type.
    pub const ALL: Self = Self(u64::MAX);

    /// These types and no others; an empty list means every type.
    pub fn only(types: &[ChannelType]) -> Self {
        if types.is_empty() {
            return Self::ALL;
        }
        Self(types.iter().fold(0, |set, kind| set | bit(*kind)))
    }

    /// The types with these names, which somebody permits. Without [`ChannelType::MAIN`] among
    /// them there would be no desktop session, and an empty list might be meant as no type.
    pub fn named<S: AsRef<str>>(names: &[S]) -> Result<Self, ChannelNamesError> {
        let named = |name: &S| ChannelType::named(name.as_ref());
        let types: Option<Vec<_>> = names.iter().map(named).collect();
        let types = types.filter(|types| types.contains(&ChannelType::MAIN));
        types
            .map(|types| Self::only(&types))
            .ok_or(ChannelNamesError)
    }

    /// The types that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether a type is in the set.
    pub fn contains(self, kind: ChannelType) -> bool {
        self.0 & bit(kind) != 0
    }
}

impl Default for ChannelTypes {
    fn default() -> Self {
        Self::ALL
    }
}

fn bit(kind: ChannelType) -> u64 {
    1 << u32::from(kind.0).min(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_has_its_name() {
        assert_eq!(ChannelType::new(9).name(), "usbredir");
        assert_eq!(ChannelType::MAIN.name(), "main");
        for number in [0, 12, 63, 64, 255] {
            assert_eq!(ChannelType::new(number).name(), "unknown");
        }
        assert_eq!(ChannelType::ALL.len(), NAMES.len());
        for (kind, name) in ChannelType::ALL.iter().zip(ChannelType::ALL_NAMES) {
            assert_eq!(ChannelType::named(name), Some(*kind));
        }
        assert_eq!(ChannelType::named("unknown"), None);
    }

    #[test]
    fn a_desktop_needs_the_main_channel() {
        let both = ChannelTypes::named(&["inputs", "main", "main"]).unwrap();
        assert_eq!(
            both,
            ChannelTypes::only(&[ChannelType::MAIN, ChannelType::new(3)])
        );
        for wrong in [&[][..], &["inputs"], &["main", "Inputs"], &["main", ""]] {
            let told = ChannelTypes::named(wrong).unwrap_err().to_string();
            assert!(told.contains("\"main\", and any of \"display\""), "{told}");
        }
    }

    #[test]
    fn a_set_holds_its_types_and_no_others() {
        let set = ChannelTypes::only(&[ChannelType::MAIN, ChannelType::new(11)]);
        for number in 0..=255 {
            let kind = ChannelType::new(number);
            assert_eq!(set.contains(kind), matches!(number, 1 | 11), "{number}");
            assert!(ChannelTypes::ALL.contains(kind));
            assert!(ChannelTypes::only(&[]).contains(kind));
        }
        let both = set.and(ChannelTypes::only(&[
            ChannelType::MAIN,
            ChannelType::new(2),
        ]));
        assert_eq!(both, ChannelTypes::only(&[ChannelType::MAIN]));
    }
}
