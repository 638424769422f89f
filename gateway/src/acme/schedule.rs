//! When a certificate is renewed, and how long to wait after failures.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::failure::Failure;
use crate::tls::Certificate;

/// Longest time that an authority may ask to be left alone for.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// Shortest pause after an authority has asked for one.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(60);

/// When a certificate is due: after two thirds of its life and up to a sixtieth more, in which
/// `spread` (0 to 1) says where, so that not all gateways of the world come at once. `None`: it
/// cannot be read.
pub(super) fn due(certificate: &Certificate, spread: f64) -> Option<SystemTime> {
    let (begin, end) = (certificate.not_before?, certificate.not_after?);
    let life = Duration::from_secs(end.saturating_sub(begin));
    let age = life * 2 / 3 + (life / 60).mul_f64(spread.clamp(0.0, 1.0));
    UNIX_EPOCH
        .checked_add(Duration::from_secs(begin))?
        .checked_add(age)
}

/// How long to wait after so many failures in a row, the last one being this: twice as long each
/// time, and up to a fifth more. `retry_after`: what the authority asks for, who knows its limits
/// better.
pub(super) fn pause(failure: &Failure, failures: u32, retry_after: Option<Duration>) -> Duration {
    let (first, most) = failure.pauses();
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let pause = doubled.min(most).mul_f64(1.0 + random() / 5.0);
    match (failure, retry_after) {
        (_, None) => pause,
        (Failure::RateLimited(_), Some(asked)) => asked.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER),
        (_, Some(asked)) => pause.max(asked.min(MAX_RETRY_AFTER)),
    }
}

/// Somewhere from 0 to 1.
fn random() -> f64 {
    share(RandomState::new().hash_one(()))
}

/// A number of 64 bits as a share of all of them.
#[expect(clippy::cast_precision_loss, reason = "any share will do")]
pub(super) fn share(number: u64) -> f64 {
    number as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn renewal_is_due_after_two_thirds_of_life_whatever_that_is() {
        for life in [90 * DAY, 6 * DAY, 60] {
            let certificate = Certificate {
                not_before: Some(1_000_000),
                not_after: Some(1_000_000 + life),
                ..Certificate::default()
            };
            let at = |spread| {
                let due = due(&certificate, spread).unwrap();
                due.duration_since(UNIX_EPOCH).unwrap().as_secs() - 1_000_000
            };
            assert_eq!(at(0.0), life * 2 / 3);
            assert_eq!(at(1.0), life * 2 / 3 + life / 60);
        }
        assert_eq!(due(&Certificate::default(), 0.5), None);
    }

    #[test]
    fn pauses_double_have_an_end_and_respect_the_authority() {
        let failure = Failure::Refused("no".to_owned());
        let seconds = |failures, asked: Option<u64>| {
            pause(&failure, failures, asked.map(Duration::from_secs)).as_secs()
        };
        assert!((120..=144).contains(&seconds(1, None)));
        assert!((240..=288).contains(&seconds(2, None)));
        assert!((21_600..=25_920).contains(&seconds(1_000, None)));
        assert!((120..=144).contains(&seconds(1, Some(10))));
        assert_eq!(seconds(1, Some(4_000)), 4_000);
        assert_eq!(seconds(1, Some(u64::MAX)), MAX_RETRY_AFTER.as_secs());
        let limited = Failure::RateLimited("too many".to_owned());
        let seconds =
            |asked: Option<u64>| pause(&limited, 3, asked.map(Duration::from_secs)).as_secs();
        assert!((14_400..=17_280).contains(&seconds(None)));
        assert_eq!((seconds(Some(0)), seconds(Some(4_000))), (60, 4_000));
    }
}
