//! How many questions each client address has the portal asked at a time, those that wait included:
//! who sends many tokens at once must not have all of them asked about before the first is refused.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::Subscriber;

/// Questions of one address at a time.
const MOST: usize = 8;

#[derive(Default)]
pub(super) struct Asking(Mutex<HashMap<Subscriber, usize>>);

impl Asking {
    /// Counts a question in; `None`: the address has too many.
    pub(super) fn enter(&self, subscriber: Subscriber) -> Option<Place<'_>> {
        let mut asking = self.lock();
        let questions = asking.entry(subscriber).or_default();
        if *questions >= MOST {
            return None;
        }
        *questions += 1;
        Some(Place {
            subscriber,
            asking: self,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subscriber, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question's place; free again when dropped.
pub(super) struct Place<'a> {
    subscriber: Subscriber,
    asking: &'a Asking,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut asking = self.asking.lock();
        if let Some(questions) = asking.get_mut(&self.subscriber) {
            *questions -= 1;
            if *questions == 0 {
                asking.remove(&self.subscriber);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn of(address: &str) -> Subscriber {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_address_has_few_questions_asked_at_a_time() {
        let asking = Asking::default();
        let mut held: Vec<_> = (0..MOST)
            .map(|number| asking.enter(of(&format!("2001:db8::{number}"))).unwrap())
            .collect();
        assert!(asking.enter(of("2001:db8::f")).is_none());
        assert!(asking.enter(of("2001:db8:0:1::f")).is_some());
        assert!(asking.enter(of("192.0.2.7")).is_some());
        held.pop();
        assert!(asking.enter(of("2001:db8::f")).is_some());
        held.clear();
        assert!(asking.lock().is_empty());
    }
}
