//! How it goes with certificates that the gateway gets by itself, in a few words.

use std::time::{SystemTime, UNIX_EPOCH};

use super::units::age;
use crate::acme::AcmeStatus;

/// When the next one is ordered, and what went wrong the last time.
pub(crate) fn told(acme: &AcmeStatus, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let next = match acme.next_attempt {
        None if acme.last_attempt.is_none() => "another process orders it".to_owned(),
        None => "it is being ordered".to_owned(),
        Some(at) => format!("the next one is ordered in {}", age(at.saturating_sub(now))),
    };
    let Some(error) = &acme.last_error else {
        return next;
    };
    let times = match acme.failures {
        0 | 1 => "the last attempt failed".to_owned(),
        times => format!("the last {times} attempts failed"),
    };
    format!("{times}: {error}; {next}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn people_are_told_when_and_why() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let mut acme = AcmeStatus {
            next_attempt: Some(1_000 + 60 * 86_400 + 3_700),
            ..AcmeStatus::default()
        };
        assert_eq!(told(&acme, now), "the next one is ordered in 60 d 1 h");
        acme.next_attempt = Some(1_030);
        acme.failures = 2;
        acme.last_error = Some("why".to_owned());
        assert_eq!(
            told(&acme, now),
            "the last 2 attempts failed: why; the next one is ordered in 30 s"
        );
        acme.failures = 0;
        acme.last_error = None;
        acme.next_attempt = None;
        assert_eq!(told(&acme, now), "another process orders it");
        acme.last_attempt = Some(999);
        assert_eq!(told(&acme, now), "it is being ordered");
    }
}
