//! This machine's clock, against that of the manager.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::contact::Contact;
use super::super::finding::Finding;
use super::super::scene::Scene;
use super::Check;

pub(super) const CHECK: Check =
    Check::waiting("clock", |scene| Box::pin(look(scene))).within(Duration::from_secs(25));

/// A difference that is reported. `Date` has whole seconds, and the answer was under way.
const TOLERATED: Duration = Duration::from_secs(10);

async fn look(scene: Arc<Scene>) -> Vec<Finding> {
    if scene.config.manager_ip.is_empty() {
        return vec![Finding::skipped("there is no manager to compare it with")];
    }
    match scene.manager().await {
        Contact::Answered(answer) => match answer.clocks {
            Some((theirs, ours)) => vec![compared(theirs, ours)],
            None => vec![Finding::skipped("the answer of the manager has no Date")],
        },
        _ => vec![Finding::skipped("the manager is not reached")],
    }
}

fn compared(theirs: SystemTime, ours: SystemTime) -> Finding {
    let (apart, way) = match theirs.duration_since(ours) {
        Ok(apart) => (apart, "behind"),
        Err(error) => (error.duration(), "ahead of"),
    };
    if apart <= TOLERATED {
        return Finding::ok("like the manager's");
    }
    Finding::warning(
        format!(
            "this machine's clock is {} s {way} the manager's",
            apart.as_secs()
        ),
        "Certificates and tickets are judged by the clock; those of a pool or a portal may count \
         as expired",
        "Have both follow the same time servers: `timedatectl`, `chronyc tracking`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_behind_or_ahead() {
        let now = SystemTime::now();
        let found = |theirs| compared(theirs, now).found;
        assert_eq!(found(now + Duration::from_secs(9)), "like the manager's");
        assert_eq!(
            found(now + Duration::from_secs(90)),
            "this machine's clock is 90 s behind the manager's"
        );
        assert_eq!(
            found(now - Duration::from_secs(3600)),
            "this machine's clock is 3600 s ahead of the manager's"
        );
    }
}
