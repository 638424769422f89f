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
/// Channels that are looked at before others get the thread.
const AT_A_TIME: usize = 64;

/// Ends the channels of clients that have vanished.
pub struct LostClients<L> {
    registry: Arc<Registry>,
    limit: L,
    /// Since when channels wait for an answer, those that do.
    waiting: HashMap<ChannelId, Instant>,
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
                Some(limit) => self.look(limit).await,
                None => self.waiting.clear(),
            }
        }
    }

    async fn look(&mut self, limit: Duration) {
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
            let Some(since) = waits_since(self.waiting.get(&id).copied(), answers, now) else {
                continue;
            };
            if now - since >= limit {
                entry.stop(StopCause::NoAnswer);
            }
            waiting.insert(id, since);
        }
        self.waiting = waiting;
    }
}

/// Since when there has been no answer, as far as looks have shown it; `None`: none is awaited.
///
/// What was silent before anything was sent does not count, so the first look that finds something
/// unanswered is where time begins.
fn waits_since(before: Option<Instant>, answers: Answers, now: Instant) -> Option<Instant> {
    if !answers.is_awaited {
        return None;
    }
    let heard = now.checked_sub(answers.heard);
    Some(before.map_or(now, |before| {
        heard.map_or(before, |heard| before.max(heard))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn answers(is_awaited: bool, heard: u32) -> Answers {
        Answers {
            heard: SECOND * heard,
            is_awaited,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_first_thing_unanswered_and_from_each_answer_on() {
        let begun = Instant::now() + SECOND * 10_000;
        let at = |seconds: u32| begun + SECOND * seconds;
        // An hour of silence before means nothing.
        assert_eq!(waits_since(None, answers(false, 3_600), at(0)), None);
        let since = waits_since(None, answers(true, 3_600), at(5));
        assert_eq!(since, Some(at(5)));
        assert_eq!(waits_since(since, answers(true, 3_605), at(10)), since);
        assert_eq!(waits_since(since, answers(true, 1), at(15)), Some(at(14)));
        assert_eq!(waits_since(since, answers(false, 1), at(15)), None);
    }
}
