//! How long whoever has tried wrong passwords has to wait, for each that is counted.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// When waits begin, and how long they become.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    /// Wrong passwords without a wait.
    pub(super) free: u32,
    pub(super) longest: Duration,
    /// One is forgotten in each such time; `None`: none before [`FORGET`]. Where many are counted
    /// together, a single client that tries an old password for ever makes nobody wait.
    pub(super) forgets_one_in: Option<Duration>,
}

/// Wrong passwords are forgotten when there was none for so long.
pub(super) const FORGET: Duration = Duration::from_secs(900);
/// Wait while the outcome of other attempts is not known, which decides how long it really is.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// Entries of a kind that are remembered; a bound on memory.
pub(super) const MOST: usize = 65_536;

/// How far an attempt is that asks whether it has to wait.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// It has just come.
    Begin,
    /// Its password is about to be checked.
    Check,
}

impl Rule {
    /// How long after so many wrong passwords the next one may be tried.
    fn delay(self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(more) => Duration::from_secs(1 << more.min(16)).min(self.longest),
        }
    }
}

struct Counter {
    failures: u32,
    /// Attempts whose outcome is not known.
    under_way: u32,
    /// Those of them whose passwords are being checked.
    checked: u32,
    /// When the latest wrong password came; before there was one, when the first attempt began.
    last: Instant,
}

impl Counter {
    /// Those that are not forgotten.
    fn failures_at(&self, now: Instant, rule: Rule) -> u32 {
        let Some(one_in) = rule.forgets_one_in else {
            return self.failures;
        };
        let passed = now.saturating_duration_since(self.last);
        let forgotten = passed.as_secs() / one_in.as_secs().max(1);
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.failures.saturating_sub(forgotten)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.under_way == 0 && now.saturating_duration_since(self.last) >= FORGET
    }
}

/// Wrong passwords of everybody of one kind.
pub(super) struct Counters<K> {
    rule: Rule,
    counters: HashMap<K, Counter>,
}

impl<K: Eq + Hash> Counters<K> {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            counters: HashMap::new(),
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.counters.len()
    }

    pub(super) fn wait(&self, key: &K, stage: Stage, now: Instant) -> Option<Duration> {
        let rule = self.rule;
        let counter = self.counters.get(key);
        let counter = counter.filter(|counter| !counter.is_over(now))?;
        let failures = counter.failures_at(now, rule);
        let next = counter.last + rule.delay(failures);
        if let Some(left) = next
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
        {
            return Some(left);
        }
        // Many at once would be as many as no wait can make good. The first ones may begin, as a
        // class logs in at the same moment, but no more are checked than may fail.
        let room = rule.free.saturating_sub(failures).max(1);
        let is_full = match stage {
            Stage::Begin => failures > 0 && counter.under_way >= room,
            Stage::Check => counter.checked >= room,
        };
        is_full.then_some(SOON)
    }

    pub(super) fn check(&mut self, key: &K) {
        // There is none if all were forgotten meanwhile.
        if let Some(counter) = self.counters.get_mut(key) {
            counter.checked += 1;
        }
    }

    pub(super) fn begin(&mut self, key: K, now: Instant) {
        if self.counters.len() >= MOST {
            self.counters.retain(|_, counter| !counter.is_over(now));
            if self.counters.len() >= MOST {
                self.counters.clear();
            }
        }
        let counter = self.counters.entry(key).or_insert(Counter {
            failures: 0,
            under_way: 0,
            checked: 0,
            last: now,
        });
        if counter.is_over(now) {
            counter.failures = 0;
        }
        counter.under_way += 1;
    }

    pub(super) fn failed(&mut self, key: &K, now: Instant) {
        if let Some(counter) = self.counters.get_mut(key) {
            counter.failures = counter.failures_at(now, self.rule).saturating_add(1);
            counter.last = now;
        }
    }

    pub(super) fn forget(&mut self, key: &K) {
        if let Some(counter) = self.counters.get_mut(key) {
            counter.failures = 0;
        }
    }

    pub(super) fn end(&mut self, key: &K, was_checked: bool) {
        // There is none if all were forgotten meanwhile.
        let Some(counter) = self.counters.get_mut(key) else {
            return;
        };
        counter.under_way = counter.under_way.saturating_sub(1);
        counter.checked = counter.checked.saturating_sub(u32::from(was_checked));
        if counter.under_way == 0 && counter.failures == 0 {
            self.counters.remove(key);
        }
    }
}
