//! A bound on how fast passwords can be tried.
//!
//! After a few wrong ones each further attempt has to wait, longer every time: guessing takes for
//! ever, and nobody is locked out for good. What is counted:
//!
//! - a user at one address, where waits become a minute: this is who guesses, or has forgotten;
//! - a user at all addresses, and an address with all users, where waits stay short, as others
//!   suffer from them. Whoever has logged in from the same address before suffers from neither.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Subscriber;
use super::terminals::TerminalRates;
use super::waits::{Counters, MOST, Rule, Stage};

const AT_ADDRESS: Rule = Rule {
    free: 5,
    longest: Duration::from_secs(60),
    forgets_one_in: None,
};
const USER: Rule = Rule {
    free: 20,
    longest: Duration::from_secs(10),
    forgets_one_in: Some(Duration::from_secs(30)),
};
const ADDRESS: Rule = Rule {
    free: 50,
    longest: Duration::from_secs(10),
    forgets_one_in: Some(Duration::from_secs(30)),
};

/// Stands for a user's name, which may be long, and need not be anybody's.
type User = u64;

/// Counts wrong passwords, and terminals that need none, and says who has to wait.
pub struct LoginLimit {
    /// Clients of these addresses cannot be told apart.
    speak_for_many: Vec<IpNet>,
    names: RandomState,
    state: Arc<Mutex<State>>,
    terminals: Arc<Mutex<TerminalRates>>,
}

struct State {
    at_address: Counters<(Subscriber, User)>,
    users: Counters<User>,
    addresses: Counters<Subscriber>,
    /// Who has logged in from where.
    known: HashSet<(Subscriber, User)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            at_address: Counters::new(AT_ADDRESS),
            users: Counters::new(USER),
            addresses: Counters::new(ADDRESS),
            known: HashSet::new(),
        }
    }
}

/// One attempt to log in, while its outcome is not known. One that is dropped counts as none:
/// whoever made it has left, and has learnt nothing.
#[must_use = "its outcome is to be told"]
pub struct Attempt {
    state: Arc<Mutex<State>>,
    address: Option<Subscriber>,
    user: User,
    is_checked: bool,
    is_failed: bool,
}

impl LoginLimit {
    /// Addresses of `speak_for_many` have no limit of their own, as their clients cannot be told
    /// apart; that of each user holds.
    pub fn new(speak_for_many: Vec<IpNet>) -> Self {
        Self {
            speak_for_many,
            names: RandomState::new(),
            state: Arc::default(),
            terminals: Arc::default(),
        }
    }

    /// Another one that knows what was counted.
    #[must_use]
    pub fn changed(&self, speak_for_many: Vec<IpNet>) -> Self {
        Self {
            speak_for_many,
            names: self.names.clone(),
            state: Arc::clone(&self.state),
            terminals: Arc::clone(&self.terminals),
        }
    }

    /// A terminal is to be given its desktop, for which nobody logs in; the error says how long it
    /// has to wait instead. `client` as in [`Self::begin`].
    pub fn terminal(
        &self,
        client: Option<IpAddr>,
        terminal: &impl Hash,
        now: Instant,
    ) -> Result<(), Duration> {
        let address = self.counted(client);
        let terminal = self.names.hash_one(terminal);
        lock(&self.terminals).take(address, terminal, now)
    }

    fn counted(&self, client: Option<IpAddr>) -> Option<Subscriber> {
        Subscriber::unless_many(client?, &self.speak_for_many)
    }

    /// Begins an attempt to log in as this user; the error says how long it has to wait instead.
    /// `client`: `None` if nobody knows from where.
    pub fn begin(
        &self,
        client: Option<IpAddr>,
        user: &str,
        now: Instant,
    ) -> Result<Attempt, Duration> {
        let address = self.counted(client);
        let user = self.names.hash_one(user);
        let mut state = lock(&self.state);
        if let Some(wait) = state.wait(address, user, Stage::Begin, now) {
            return Err(wait);
        }
        state.begin(address, user, now);
        Ok(Attempt {
            state: Arc::clone(&self.state),
            address,
            user,
            is_checked: false,
            is_failed: false,
        })
    }
}

impl Attempt {
    /// Asks once more, when the password is about to be checked; the error says how long that has
    /// to wait. Others may have failed since the attempt began, and of those that are checked now
    /// nobody knows yet.
    pub fn check(&mut self, now: Instant) -> Result<(), Duration> {
        let mut state = lock(&self.state);
        if let Some(wait) = state.wait(self.address, self.user, Stage::Check, now) {
            return Err(wait);
        }
        if !self.is_checked {
            self.is_checked = true;
            state.check(self.address, self.user);
        }
        Ok(())
    }

    /// The password is right.
    pub fn succeeded(self) {
        let Some(address) = self.address else {
            return;
        };
        let pair = (address, self.user);
        let mut state = lock(&self.state);
        state.at_address.forget(&pair);
        if state.known.len() >= MOST {
            state.known.clear();
        }
        state.known.insert(pair);
    }

    /// The password is wrong. Says how long the next attempt will have to wait, if it will.
    pub fn failed(mut self, now: Instant) -> Option<Duration> {
        self.is_failed = true;
        let (address, user) = (self.address, self.user);
        let mut state = lock(&self.state);
        if let Some(address) = address {
            state.at_address.failed(&(address, user), now);
            state.addresses.failed(&address, now);
        }
        state.users.failed(&user, now);
        state.end(address, user, self.is_checked);
        state.wait(address, user, Stage::Begin, now)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_failed {
            lock(&self.state).end(self.address, self.user, self.is_checked);
        }
    }
}

impl State {
    fn wait(
        &self,
        address: Option<Subscriber>,
        user: User,
        stage: Stage,
        now: Instant,
    ) -> Option<Duration> {
        let pair = address.map(|address| (address, user));
        let is_known = pair.is_some_and(|pair| self.known.contains(&pair));
        let of_pair = pair.and_then(|pair| self.at_address.wait(&pair, stage, now));
        if is_known {
            return of_pair;
        }
        let of_user = self.users.wait(&user, stage, now);
        let of_address = address.and_then(|address| self.addresses.wait(&address, stage, now));
        of_pair.max(of_user).max(of_address)
    }

    fn begin(&mut self, address: Option<Subscriber>, user: User, now: Instant) {
        if let Some(address) = address {
            self.at_address.begin((address, user), now);
            self.addresses.begin(address, now);
        }
        self.users.begin(user, now);
    }

    fn check(&mut self, address: Option<Subscriber>, user: User) {
        if let Some(address) = address {
            self.at_address.check(&(address, user));
            self.addresses.check(&address);
        }
        self.users.check(&user);
    }

    fn end(&mut self, address: Option<Subscriber>, user: User, was_checked: bool) {
        if let Some(address) = address {
            self.at_address.end(&(address, user), was_checked);
            self.addresses.end(&address, was_checked);
        }
        self.users.end(&user, was_checked);
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::waits::{FORGET, SOON};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Fails to log in, if an attempt is let through; gives the wait until the next one.
    fn fail(limit: &LoginLimit, from: u8, user: &str, now: Instant) -> Option<Duration> {
        match limit.begin(Some(address(from)), user, now) {
            Ok(attempt) => attempt.failed(now),
            Err(wait) => Some(wait),
        }
    }

    fn succeed(limit: &LoginLimit, from: u8, user: &str, now: Instant) {
        limit
            .begin(Some(address(from)), user, now)
            .unwrap()
            .succeeded();
    }

    #[test]
    fn waits_grow_and_end() {
        let limit = LoginLimit::new(vec![]);
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..13 {
            let wait = fail(&limit, 1, "ana", now).unwrap_or_default();
            waits.push(wait.as_secs());
            if let Some(just_before) = wait.checked_sub(Duration::from_millis(1)) {
                let refused = limit.begin(Some(address(1)), "ana", now + just_before);
                assert_eq!(refused.err(), Some(Duration::from_millis(1)));
            }
            now += wait;
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        // The right password is taken once it may be tried, and then all is as new.
        succeed(&limit, 1, "ana", now);
        assert_eq!(fail(&limit, 1, "ana", now), None);
    }

    #[test]
    fn others_do_not_wait() {
        let limit = LoginLimit::new(vec![]);
        let now = Instant::now();
        for _ in 0..10 {
            fail(&limit, 1, "ana", now);
        }
        assert!(limit.begin(Some(address(1)), "ana", now).is_err());
        assert!(limit.begin(Some(address(2)), "ana", now).is_ok());
        assert!(limit.begin(Some(address(1)), "eva", now).is_ok());
    }

    #[test]
    fn many_addresses_do_not_make_guessing_a_user_fast_nor_lock_the_user_out() {
        let limit = LoginLimit::new(vec![]);
        let mut now = Instant::now();
        succeed(&limit, 250, "ana", now);
        let mut last = None;
        for from in 0..40 {
            last = fail(&limit, from, "ana", now);
            now += last.unwrap_or_default();
        }
        assert_eq!(last, Some(USER.longest));
        now -= SECOND;
        assert_eq!(
            limit.begin(Some(address(200)), "ana", now).err(),
            Some(SECOND)
        );
        assert!(limit.begin(Some(address(250)), "ana", now).is_ok());
        assert!(limit.begin(Some(address(200)), "eva", now).is_ok());
    }

    #[test]
    fn an_address_cannot_try_one_password_with_every_user() {
        let limit = LoginLimit::new(vec![]);
        let mut now = Instant::now();
        succeed(&limit, 1, "ana", now);
        let mut last = None;
        for number in 0..70 {
            last = fail(&limit, 1, &format!("user{number}"), now);
            now += last.unwrap_or_default();
        }
        assert_eq!(last, Some(ADDRESS.longest));
        now -= SECOND;
        assert_eq!(
            limit.begin(Some(address(1)), "eva", now).err(),
            Some(SECOND)
        );
        // Colleagues who were here before.
        assert!(limit.begin(Some(address(1)), "ana", now).is_ok());
    }

    #[test]
    fn attempts_at_once_are_as_few_as_those_one_after_another() {
        let limit = LoginLimit::new(vec![]);
        let now = Instant::now();
        // A class logs in as one user.
        let class: Vec<_> = (0..40)
            .map(|_| limit.begin(Some(address(1)), "ana", now).unwrap())
            .collect();
        class.into_iter().for_each(Attempt::succeeded);
        fail(&limit, 1, "ana", now);
        let guesses: Vec<_> = (0..40)
            .filter_map(|_| limit.begin(Some(address(1)), "ana", now).ok())
            .collect();
        assert_eq!(guesses.len(), 4);
        for guess in guesses {
            guess.failed(now);
        }
        assert_eq!(
            limit.begin(Some(address(1)), "ana", now).err(),
            Some(SECOND)
        );
        let later = now + SECOND;
        let one = limit.begin(Some(address(1)), "ana", later).unwrap();
        assert_eq!(
            limit.begin(Some(address(1)), "ana", later).err(),
            Some(SOON)
        );
        // Whoever leaves before the outcome has made no attempt.
        drop(one);
        assert!(limit.begin(Some(address(1)), "ana", later).is_ok());
    }

    #[test]
    fn of_many_that_begin_before_the_first_has_failed_only_the_free_ones_are_checked() {
        let limit = LoginLimit::new(vec![]);
        let now = Instant::now();
        let mut guesses: Vec<_> = (0..200)
            .map(|_| limit.begin(Some(address(1)), "ana", now).unwrap())
            .collect();
        // Two threads, of which each knows only later that it was wrong.
        let mut checked = 0;
        while let Some(mut first) = guesses.pop() {
            let second = guesses.pop().map(|mut guess| {
                let may = guess.check(now).is_ok();
                (guess, may)
            });
            let first_may = first.check(now).is_ok();
            for (guess, may) in second.into_iter().chain([(first, first_may)]) {
                if may {
                    checked += 1;
                    guess.failed(now);
                }
            }
        }
        assert_eq!(checked, AT_ADDRESS.free);

        // All at once.
        let mut guesses: Vec<_> = (0..200)
            .map(|_| limit.begin(Some(address(2)), "eva", now).unwrap())
            .collect();
        let mut may = guesses.iter_mut().map(|guess| guess.check(now));
        assert!(may.by_ref().take(5).all(|may| may.is_ok()));
        assert!(may.all(|may| may == Err(SOON)));
        // A class has the right password.
        for guess in guesses {
            guess.succeeded();
        }
        let mut class: Vec<_> = (0..40)
            .map(|_| limit.begin(Some(address(2)), "eva", now).unwrap())
            .collect();
        while let Some(mut one) = class.pop() {
            one.check(now).unwrap();
            one.succeeded();
        }
    }

    #[test]
    fn wrong_passwords_are_forgotten() {
        let limit = LoginLimit::new(vec![]);
        let now = Instant::now();
        for _ in 0..6 {
            fail(&limit, 1, "ana", now);
        }
        assert!(fail(&limit, 1, "ana", now).is_some());
        assert_eq!(fail(&limit, 1, "ana", now + FORGET), None);
    }

    #[test]
    fn a_client_that_tries_an_old_password_for_ever_makes_nobody_else_wait() {
        let limit = LoginLimit::new(vec![]);
        let mut now = Instant::now();
        for _ in 0..1_000 {
            now += fail(&limit, 1, "ana", now).unwrap_or(SECOND);
        }
        assert!(limit.begin(Some(address(1)), "eva", now).is_ok());
        assert!(limit.begin(Some(address(2)), "ana", now).is_ok());
    }

    #[test]
    fn behind_a_proxy_that_names_nobody_only_the_users_are_counted() {
        let limit = LoginLimit::new(vec!["192.0.2.0/24".parse().unwrap()]);
        let now = Instant::now();
        for _ in 0..19 {
            assert_eq!(fail(&limit, 1, "ana", now), None);
        }
        assert_eq!(fail(&limit, 1, "ana", now), Some(SECOND));
        for number in 0..100 {
            assert_eq!(fail(&limit, 1, &format!("user{number}"), now), None);
        }
        assert!(limit.begin(None, "ana", now).is_err());
        assert!(limit.begin(None, "user7", now).is_ok());
        let changed = limit.changed(vec![]);
        assert!(changed.begin(Some(address(1)), "ana", now).is_err());
    }

    #[test]
    fn no_more_logins_are_remembered_than_there_is_room_for() {
        let limit = LoginLimit::new(vec![]);
        let now = Instant::now();
        for number in 0..MOST + 10 {
            let user = number.to_string();
            let from = IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
            limit.begin(Some(from), &user, now).unwrap().failed(now);
        }
        for number in 0..MOST + 10 {
            let user = format!("known {number}");
            let attempt = limit.begin(Some(address(1)), &user, now).unwrap();
            attempt.succeeded();
        }
        let state = lock(&limit.state);
        for remembered in [
            state.at_address.len(),
            state.users.len(),
            state.addresses.len(),
            state.known.len(),
        ] {
            assert!((1..=MOST).contains(&remembered), "{remembered}");
        }
    }
}
