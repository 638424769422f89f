//! Names that an authority checks inside a handshake (tls-alpn-01, RFC 8737).
//!
//! The authority connects to the TLS port and offers nothing but the protocol `acme-tls/1`. It is
//! answered only while it is awaited and only for the names that it was asked to check, with a
//! certificate made for that. All other handshakes are as usual.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The protocol that is only spoken to check a name (RFC 8737, section 6.2).
const PROTOCOL: &[u8] = b"acme-tls/1";

/// The certificate for each name in lower case.
pub type Answers = HashMap<String, Arc<CertifiedKey>>;

/// What an authority is awaited for, if it is.
#[derive(Default)]
pub struct Challenges(ArcSwapOption<Answers>);

/// The authority is awaited until this is dropped.
pub struct Awaiting<'a>(&'a Challenges);

/// Settings of a handshake in which a name may be checked.
pub struct Checked {
    /// What the handshake is made with.
    pub tls: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
}

impl Challenges {
    /// Awaits the authority for these names, and no longer for others.
    pub fn await_authority(&self, answers: Answers) -> Awaiting<'_> {
        self.0.store(Some(Arc::new(answers)));
        Awaiting(self)
    }

    /// Whether an authority is awaited.
    pub fn are_awaited(&self) -> bool {
        self.0.load().is_some()
    }

    /// Settings with which a name can be checked; `None`: no authority is awaited.
    ///
    /// `usual`: the settings for everybody else. A client that `may_do_more` gets them unless it
    /// checks a name.
    pub fn settings(&self, usual: &ServerConfig, may_do_more: bool) -> Option<Checked> {
        let answers = self.0.load_full()?;
        let resolver = Arc::new(Resolver {
            answers,
            usual: may_do_more.then(|| Arc::clone(&usual.cert_resolver)),
            protocols: usual.alpn_protocols.clone(),
            has_answered: AtomicBool::new(false),
        });
        let mut tls = usual.clone();
        tls.alpn_protocols.push(PROTOCOL.to_vec());
        tls.cert_resolver = Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>;
        Some(Checked {
            tls: Arc::new(tls),
            resolver,
        })
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.0.store(None);
    }
}

impl Checked {
    /// Whether this handshake was one that checks a name: nothing may follow it (RFC 8737,
    /// section 3).
    pub fn has_answered(&self) -> bool {
        self.resolver.has_answered.load(Ordering::Relaxed)
    }
}

struct Resolver {
    answers: Arc<Answers>,
    /// `None`: clients that check no name get no certificate.
    usual: Option<Arc<dyn ResolvesServerCert>>,
    /// What is spoken with all others.
    protocols: Vec<Vec<u8>>,
    has_answered: AtomicBool,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // With a protocol that is usual here, that one is agreed on.
        let is_usual = |offered: &[u8]| self.protocols.iter().any(|usual| usual == offered);
        let checks = hello.alpn().is_some_and(|offered| {
            let offered: Vec<_> = offered.collect();
            offered.contains(&PROTOCOL) && !offered.into_iter().any(is_usual)
        });
        if !checks {
            return self.usual.as_ref()?.resolve(hello);
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        let answer = self.answers.get(&name).cloned()?;
        self.has_answered.store(true, Ordering::Relaxed);
        Some(answer)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("names", &self.answers.keys())
            .finish_non_exhaustive()
    }
}
