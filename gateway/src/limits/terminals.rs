//! A bound on how fast terminals are given desktops, for which nobody logs in.
//!
//! Each time is a ticket that waits to be used, of which an address has a limited number
//! together: a terminal that asked all the time would have those of others forgotten. What is
//! counted:
//!
//! - a terminal at one address: whoever names it elsewhere does not make it wait;
//! - an address with all its terminals.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::Subscriber;

/// How often something may happen.
#[derive(Clone, Copy)]
struct Rule {
    at_once: u32,
    /// Then once in each such time.
    every: Duration,
}

/// More than people do who start a client again and again.
const TERMINAL: Rule = Rule {
    at_once: 10,
    every: Duration::from_secs(1),
};
/// All terminals of a site may be switched on at once.
const ADDRESS: Rule = Rule {
    at_once: 100,
    every: Duration::from_millis(500),
};

/// Entries of a kind that are remembered; a bound on memory.
const MOST: usize = 65_536;

/// Stands for the terminal's hardware address.
type Terminal = u64;

/// Counts the desktops that terminals are given.
pub(super) struct TerminalRates {
    terminals: Rates<(Option<Subscriber>, Terminal)>,
    addresses: Rates<Subscriber>,
}

impl Default for TerminalRates {
    fn default() -> Self {
        Self {
            terminals: Rates::new(TERMINAL),
            addresses: Rates::new(ADDRESS),
        }
    }
}

impl TerminalRates {
    /// Counts one more; the error says how long it has to wait instead, and is not counted.
    /// `address`: `None` if its clients cannot be told apart, which has no limit of its own.
    pub(super) fn take(
        &mut self,
        address: Option<Subscriber>,
        terminal: Terminal,
        now: Instant,
    ) -> Result<(), Duration> {
        let of_address = address.and_then(|address| self.addresses.wait(&address, now));
        let wait = self
            .terminals
            .wait(&(address, terminal), now)
            .max(of_address);
        if let Some(wait) = wait {
            return Err(wait);
        }
        self.terminals.take((address, terminal), now);
        if let Some(address) = address {
            self.addresses.take(address, now);
        }
        Ok(())
    }
}

/// The generic cell rate algorithm (ITU-T I.371, annex A).
struct Rates<K> {
    rule: Rule,
    /// When all is as if it had never happened.
    over: HashMap<K, Instant>,
}

impl<K: Eq + Hash> Rates<K> {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            over: HashMap::new(),
        }
    }

    fn wait(&self, key: &K, now: Instant) -> Option<Duration> {
        let left = self.over.get(key)?.saturating_duration_since(now);
        let wait = (left + self.rule.every).checked_sub(self.rule.every * self.rule.at_once);
        wait.filter(|wait| !wait.is_zero())
    }

    fn take(&mut self, key: K, now: Instant) {
        if self.over.len() >= MOST {
            self.over.retain(|_, over| *over > now);
            if self.over.len() >= MOST {
                self.over.clear();
            }
        }
        let over = self.over.entry(key).or_insert(now);
        *over = (*over).max(now) + self.rule.every;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(last: u8) -> Subscriber {
        IpAddr::from([192, 0, 2, last]).into()
    }

    #[test]
    fn a_terminal_is_given_a_few_at_once_and_then_one_a_second() {
        let mut rates = TerminalRates::default();
        let now = Instant::now();
        for _ in 0..TERMINAL.at_once {
            rates.take(Some(at(1)), 7, now).unwrap();
        }
        // What is refused makes nobody wait longer.
        for _ in 0..1_000 {
            assert_eq!(rates.take(Some(at(1)), 7, now), Err(SECOND));
        }
        rates.take(Some(at(1)), 8, now).unwrap();
        rates.take(Some(at(2)), 7, now).unwrap();
        rates.take(None, 7, now).unwrap();
        let later = now + SECOND;
        rates.take(Some(at(1)), 7, later).unwrap();
        assert_eq!(rates.take(Some(at(1)), 7, later), Err(SECOND));
        let idle = now + 60 * SECOND;
        let given = (0..1_000).filter(|_| rates.take(Some(at(1)), 7, idle).is_ok());
        assert_eq!(given.count(), 10);
    }

    #[test]
    fn the_terminals_of_an_address_are_given_fewer_than_would_push_out_others() {
        let mut rates = TerminalRates::default();
        let began = Instant::now();
        let mut given = 0;
        // As long as an unused ticket lives, if nothing else is configured.
        for second in 0..120 {
            for terminal in 0..50 {
                let now = began + second * SECOND;
                given += u32::from(rates.take(Some(at(1)), terminal, now).is_ok());
            }
        }
        assert_eq!(given, 100 + 2 * 119);
        rates.take(Some(at(2)), 0, began).unwrap();
    }

    #[test]
    fn no_more_terminals_are_remembered_than_there_is_room_for() {
        let mut rates = TerminalRates::default();
        let now = Instant::now();
        for number in 0..MOST + 10 {
            let from = IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
            rates.take(Some(from.into()), 7, now).unwrap();
        }
        for remembered in [rates.terminals.over.len(), rates.addresses.over.len()] {
            assert!((1..=MOST).contains(&remembered), "{remembered}");
        }
    }
}
