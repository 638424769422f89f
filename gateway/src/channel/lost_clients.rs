//! Clients that have vanished without a word: a cable that was pulled, a laptop that was closed.
//!
//! One task looks at all channels, as a timer for each would wake for nothing. What it goes by is
//! what the kernel knows of the answers of a client's system ([`Answers`]), which one that merely
//! reads slowly goes on giving. `TCP_USER_TIMEOUT` would end that one too.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Registry;
use crate::session::ChannelId;
use gateway_datapath::Answers;
use gateway_datapath::end_reason::StopCause;

/// Time between two looks: a twelfth of the limit, within these bounds.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long an attempt may wait for its answer at least.
const GRACE: Duration = Duration::from_secs(1);
/// Channels that are looked at before others get the thread.
const AT_A_TIME: usize = 64;

/// Ends the channels of clients that have vanished.
pub struct LostClients<L> {
    registry: Arc<Registry>,
    limit: L,
    /// Channels that wait for an answer.
    waiting: HashMap<ChannelId, Silence>,
}

impl<L: Fn() -> Option<Duration>> LostClients<L> {
    /// `limit` says how long a client's system may answer nothing, each time anew; `None`: as long
    /// as the kernel lets it.
    pub fn new(registry: Arc<Registry>, limit: L) -> Self {
        Self {
            registry,
            limit,
            waiting: HashMap::new(),
        }
    }

    /// Looks for ever.
    pub async fn run(&mut self) -> Infallible {
        loop {
            let pause = (self.limit)().map_or(LONGEST_PAUSE, |limit| {
                (limit / 12).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
            });
            tokio::time::sleep(pause).await;
            match (self.limit)() {
                Some(limit) => self.look(limit, pause.max(GRACE)).await,
                None => self.waiting.clear(),
            }
        }
    }

    async fn look(&mut self, limit: Duration, grace: Duration) {
        let mut waiting = HashMap::new();
        let sessions = self.registry.sessions();
        let channels = sessions.iter().flat_map(|session| &session.channels);
        for (index, entry) in channels.enumerate() {
            if index % AT_A_TIME == AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            let Some(answers) = entry.channel.counters.client_answers() else {
                continue;
            };
            let (id, now) = (entry.channel.id, Instant::now());
            let before = self.waiting.get(&id).copied();
            let Some(silence) = Silence::after(before, answers, now, limit) else {
                continue;
            };
            if silence.is_final(now, grace) {
                entry.stop(StopCause::NoAnswer);
            }
            waiting.insert(id, silence);
        }
        self.waiting = waiting;
    }
}

/// What looks have shown of a client that owes an answer.
///
/// The pauses between two attempts of the kernel grow, before Linux 6.15 up to two minutes. A line
/// that has been dead may be back long before the next one, so silence for the limit is not enough:
/// an attempt that was made after it must have stayed without an answer, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Silence {
    since: Instant,
    /// The kernel's attempts when the limit was reached.
    at_limit: Option<u32>,
    /// When a further one was seen.
    tried: Option<Instant>,
}

impl Silence {
    /// After another look; `None`: no answer is awaited.
    ///
    /// What was silent before anything was sent does not count, so the first look that finds
    /// something unanswered is where time begins.
    fn after(
        before: Option<Self>,
        answers: Answers,
        now: Instant,
        limit: Duration,
    ) -> Option<Self> {
        if !answers.is_awaited {
            return None;
        }
        let anew = |since| Self {
            since,
            at_limit: None,
            tried: None,
        };
        let heard = now.checked_sub(answers.heard);
        let mut silence = before.unwrap_or(anew(now));
        if let Some(heard) = heard.filter(|heard| before.is_some() && *heard > silence.since) {
            silence = anew(heard);
        }
        if now - silence.since >= limit {
            let at_limit = *silence.at_limit.get_or_insert(answers.attempts);
            if answers.attempts != at_limit {
                silence.tried.get_or_insert(now);
            }
        }
        Some(silence)
    }

    /// Whether the client counts as lost: an attempt after the limit was not answered for `grace`.
    fn is_final(self, now: Instant, grace: Duration) -> bool {
        self.tried.is_some_and(|tried| now - tried >= grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(60);

    fn answers(is_awaited: bool, heard: u32, attempts: u32) -> Answers {
        Answers {
            heard: SECOND * heard,
            is_awaited,
            attempts,
        }
    }

    /// What looks at these seconds of a client's silence, with these attempts by then, come to.
    fn looks(begun: Instant, looks: &[(u32, u32, u32)]) -> Option<Silence> {
        looks.iter().fold(None, |silence, (at, heard, attempts)| {
            let answers = answers(true, *heard, *attempts);
            Silence::after(silence, answers, begun + SECOND * *at, LIMIT)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_first_thing_unanswered_and_from_each_answer_on() {
        let begun = Instant::now() + SECOND * 10_000;
        let since = |shown| looks(begun, shown).map(|silence| silence.since - begun);
        // An hour of silence before means nothing.
        assert_eq!(
            Silence::after(None, answers(false, 3_600, 0), begun, LIMIT),
            None
        );
        assert_eq!(since(&[(5, 3_600, 0)]), Some(SECOND * 5));
        assert_eq!(since(&[(5, 3_600, 0), (10, 3_605, 1)]), Some(SECOND * 5));
        assert_eq!(since(&[(5, 3_600, 0), (15, 1, 0)]), Some(SECOND * 14));
        let silence = looks(begun, &[(5, 3_600, 0)]);
        let answered = answers(false, 1, 0);
        assert_eq!(Silence::after(silence, answered, begun, LIMIT), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_lost_when_an_attempt_after_the_limit_stays_unanswered() {
        let begun = Instant::now() + SECOND * 10_000;
        let is_lost = |shown: &[(u32, u32, u32)]| {
            let now = begun + SECOND * shown.last().unwrap().0;
            looks(begun, shown).unwrap().is_final(now, SECOND * 5)
        };
        // The line may have come back since the attempt at 38 s; that at 76 s shows that it has not.
        let silent = [(0, 0, 1), (40, 40, 7), (60, 60, 7), (70, 70, 7)];
        assert!(!is_lost(&silent));
        let tried = [silent.as_slice(), &[(76, 76, 8)]].concat();
        assert!(!is_lost(&tried));
        assert!(is_lost(&[tried.as_slice(), &[(81, 81, 8)]].concat()));
        assert!(!is_lost(&[tried.as_slice(), &[(81, 1, 1)]].concat()));
    }
}
