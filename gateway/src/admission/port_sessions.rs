//! Desktop sessions where there are no tickets: their channels are known by client and target.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::session::SessionId;
use crate::target::Target;

pub(super) type PortKey = (IpAddr, Target);

/// Without tickets, the open channels of one client to one target are a desktop session.
#[derive(Default)]
pub(super) struct PortSessions(Mutex<HashMap<PortKey, (SessionId, usize)>>);

impl PortSessions {
    pub(super) fn open(self: &Arc<Self>, key: PortKey) -> PortLease {
        self.open_as(key, SessionId::next)
    }

    pub(super) fn open_as(
        self: &Arc<Self>,
        key: PortKey,
        new: impl FnOnce() -> SessionId,
    ) -> PortLease {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, open) = sessions.entry(key.clone()).or_insert_with(|| (new(), 0));
        *open += 1;
        PortLease {
            key,
            session: *session,
            sessions: Arc::clone(self),
        }
    }
}

pub(super) struct PortLease {
    pub(super) key: PortKey,
    pub(super) session: SessionId,
    sessions: Arc<PortSessions>,
}

impl Drop for PortLease {
    fn drop(&mut self) {
        let mut sessions = self
            .sessions
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, open)) = sessions.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                sessions.remove(&self.key);
            }
        }
    }
}
