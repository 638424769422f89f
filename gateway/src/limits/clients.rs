//! How many desktop sessions and channels one client address may have open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::{Subscriber, speak_for_many};
use crate::config::Config;
use crate::refusal::Refusal;
use crate::session::SessionId;

/// What addresses may have open, and what they have.
pub struct ClientLimits {
    sessions: Option<usize>,
    channels: Option<usize>,
    /// Many clients share the address of a proxy that does not say whom it speaks for.
    speak_for_many: Vec<IpNet>,
    open: Arc<Mutex<Open>>,
}

/// The channels of each session, by subscriber.
type Open = HashMap<Subscriber, HashMap<SessionId, usize>>;

impl ClientLimits {
    /// As the configuration says.
    pub fn new(config: &Config) -> Self {
        Self::with(config, Arc::default())
    }

    /// As another configuration says; what is open stays counted, and open.
    #[must_use]
    pub fn changed(&self, config: &Config) -> Self {
        Self::with(config, Arc::clone(&self.open))
    }

    fn with(config: &Config, open: Arc<Mutex<Open>>) -> Self {
        Self {
            sessions: config.max_sessions_per_address,
            channels: config.max_channels_per_address,
            speak_for_many: speak_for_many(config),
            open,
        }
    }

    /// Counts a channel in, if there is room for it.
    pub fn admit(&self, client: IpAddr, session: SessionId) -> Result<Place, Refusal> {
        let mut open = lock(&self.open);
        if let Some(subscriber) = Subscriber::unless_many(client, &self.speak_for_many)
            && let Some(sessions) = open.get(&subscriber)
        {
            let channels: usize = sessions.values().sum();
            if self.channels.is_some_and(|limit| channels >= limit) {
                return Err(Refusal::TooManyChannels);
            }
            let is_new = !sessions.contains_key(&session);
            if is_new && self.sessions.is_some_and(|limit| sessions.len() >= limit) {
                return Err(Refusal::TooManySessions);
            }
        }
        Ok(self.enter(&mut open, client.into(), session))
    }

    /// Counts a channel in that is open already, whatever the limits are.
    pub fn take_over(&self, client: IpAddr, session: SessionId) -> Place {
        self.enter(&mut lock(&self.open), client.into(), session)
    }

    fn enter(&self, open: &mut Open, subscriber: Subscriber, session: SessionId) -> Place {
        *open
            .entry(subscriber)
            .or_default()
            .entry(session)
            .or_default() += 1;
        Place {
            subscriber,
            session,
            open: Arc::clone(&self.open),
        }
    }
}

/// A channel's place; free again when dropped.
pub struct Place {
    subscriber: Subscriber,
    session: SessionId,
    open: Arc<Mutex<Open>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        let Some(sessions) = open.get_mut(&self.subscriber) else {
            return;
        };
        if let Some(channels) = sessions.get_mut(&self.session) {
            *channels -= 1;
            if *channels == 0 {
                sessions.remove(&self.session);
            }
        }
        if sessions.is_empty() {
            open.remove(&self.subscriber);
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.7";

    fn config(sessions: usize, channels: usize) -> Config {
        Config {
            max_sessions_per_address: (sessions > 0).then_some(sessions),
            max_channels_per_address: (channels > 0).then_some(channels),
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..Config::default()
        }
    }

    fn admit(limits: &ClientLimits, client: &str, session: SessionId) -> Result<Place, Refusal> {
        limits.admit(client.parse().unwrap(), session)
    }

    #[test]
    fn sessions_and_channels_are_counted_by_address() {
        let limits = ClientLimits::new(&config(2, 4));
        let sessions = [(); 3].map(|()| SessionId::next());
        let mut places: Vec<_> = [0, 0, 1]
            .map(|index| admit(&limits, CLIENT, sessions[index]).unwrap())
            .into();
        assert_eq!(
            admit(&limits, CLIENT, sessions[2]).err(),
            Some(Refusal::TooManySessions)
        );
        places.push(admit(&limits, CLIENT, sessions[1]).unwrap());
        assert_eq!(
            admit(&limits, CLIENT, sessions[1]).err(),
            Some(Refusal::TooManyChannels)
        );
        assert!(admit(&limits, "192.0.2.8", sessions[2]).is_ok());
        // The last channel of a session takes the session along.
        places.drain(..2);
        assert!(admit(&limits, CLIENT, sessions[2]).is_ok());
        places.clear();
        assert!(lock(&limits.open).is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_a_silent_proxy_not_at_all() {
        let limits = ClientLimits::new(&config(1, 0));
        let (first, second) = (SessionId::next(), SessionId::next());
        let _held = admit(&limits, "2001:db8::1", first).unwrap();
        assert!(admit(&limits, "2001:db8::2", second).is_err());
        assert!(admit(&limits, "2001:db8:0:1::2", second).is_ok());
        let proxied = [first, second].map(|session| admit(&limits, "10.0.0.1", session));
        assert!(proxied.iter().all(Result::is_ok));
    }

    #[test]
    fn other_limits_know_what_is_open() {
        let none = ClientLimits::new(&config(0, 0));
        let session = SessionId::next();
        let held = [(); 50].map(|()| admit(&none, CLIENT, session));
        assert!(held.iter().all(Result::is_ok));
        let some = none.changed(&config(0, 50));
        assert_eq!(
            admit(&some, CLIENT, session).err(),
            Some(Refusal::TooManyChannels)
        );
        drop(held);
        assert!(admit(&some, CLIENT, session).is_ok());
    }
}
