//! Names that stand for others: the same one for the same thing in the whole report.

use std::collections::HashMap;

/// Names of one kind.
#[derive(Debug)]
pub(super) struct Pseudonyms {
    kind: &'static str,
    given: HashMap<String, usize>,
}

impl Pseudonyms {
    /// Names such as `client-1`, for the kind `client`.
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            given: HashMap::new(),
        }
    }

    /// What stands for this.
    pub(super) fn of(&mut self, real: &str) -> String {
        let next = self.given.len() + 1;
        let number = *self.given.entry(real.to_owned()).or_insert(next);
        format!("{}-{number}", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_called_the_same() {
        let mut clients = Pseudonyms::new("client");
        assert_eq!(clients.of("192.0.2.7"), "client-1");
        assert_eq!(clients.of("192.0.2.8"), "client-2");
        assert_eq!(clients.of("192.0.2.7"), "client-1");
    }
}
