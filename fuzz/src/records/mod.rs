//! TLS records behind the handshake, against rustls by itself: whatever a client sends, cut
//! anywhere, both give out the same plaintext, end alike, and send the same alerts and data. The
//! connection may move to another process at any time. No key seals two records with one number:
//! the client opens each record with the number that follows that of the one before.

mod gateway;
mod reference;
mod script;

use std::sync::Arc;

use ::gateway::tls::Identity;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::input::Input;
use crate::tls_accept::identity;
use crate::tls_peer::{ALERT, DATA, Opened};
use script::Script;

const SUITES: [SupportedCipherSuite; 4] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];
const FATAL: u8 = 2;
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const DECODE_ERROR: u8 = 50;

/// How a client's stream ends for whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By `close_notify`.
    Closed,
    /// By the end of TCP alone.
    Cut,
    Failed,
}

/// What a server made of a script.
#[derive(Debug)]
struct Outcome {
    /// What the client has sent, and how that ended.
    text: Vec<u8>,
    end: End,
    /// What the client was sent.
    data: Vec<u8>,
    alerts: Vec<Vec<u8>>,
}

impl Outcome {
    fn new(text: Vec<u8>, end: End, records: &[Opened]) -> Self {
        let of = |content| {
            let records = records.iter();
            records
                .filter(move |record| record.content == content)
                .map(|record| record.text.clone())
        };
        Self {
            text,
            end,
            data: of(DATA).flatten().collect(),
            alerts: of(ALERT).collect(),
        }
    }
}

struct Setting {
    server: Arc<ServerConfig>,
    clients: [ClientConfig; SUITES.len()],
}

thread_local! {
    static SETTING: Setting = setting();
}

fn setting() -> Setting {
    let (Identity { tls: server, .. }, certificate) = identity();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let clients = SUITES.map(|suite| {
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[suite.version()])
            .expect("a suite of this version")
            .with_root_certificates(roots.clone())
            .with_no_client_auth()
    });
    Setting { server, clients }
}

/// A byte that says which suite, and more; one that says where to cut; then three for each step.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (options, seed) = (input.byte(), input.byte());
    SETTING.with(|setting| {
        let client = &setting.clients[usize::from(options) % SUITES.len()];
        let script = Script::new(input.rest(), client);
        let expected = reference::play(&setting.server, client, &script);
        let own = gateway::Manner {
            seed,
            is_early: options & 4 != 0,
            protects_frames: options & 8 != 0,
        };
        let found = own.play(&setting.server, client, &script);
        compare(&found, expected, &script);
    });
}

fn compare(found: &Outcome, mut expected: Outcome, script: &Script) {
    // rustls calls a type of record that must not occur a decode error; RFC 8446, section 5,
    // and RFC 5246, section 6, say what it is.
    let is_decode_error = expected.alerts.last() == Some(&vec![FATAL, DECODE_ERROR]);
    if is_decode_error && script.has_odd_type() {
        expected.alerts.pop();
    }
    // rustls opens a record of TLS 1.3 that is longer than RFC 8446, section 5.2, allows, and says
    // so only if it can be opened.
    let ends_with = |alerts: &[Vec<u8>], alert| alerts.last() == Some(&vec![FATAL, alert]);
    let is_other = ends_with(&expected.alerts, BAD_RECORD_MAC)
        && ends_with(&found.alerts, RECORD_OVERFLOW)
        && script.has_long_record();
    if is_other {
        expected.alerts.pop();
        expected.alerts.push(vec![FATAL, RECORD_OVERFLOW]);
    }
    let is_fatal = |alert: &Vec<u8>| alert.first() == Some(&FATAL);
    if expected.end == End::Failed && !expected.alerts.iter().any(is_fatal) {
        // rustls is silent where there are too many records of a kind, others between the parts of
        // a message, or messages behind one that is malformed. RFC 8446, section 6.2, names alerts.
        let named = [UNEXPECTED_MESSAGE, DECODE_ERROR].map(|alert| vec![FATAL, alert]);
        expected.alerts.extend(
            found
                .alerts
                .last()
                .filter(|last| named.contains(last))
                .cloned(),
        );
    }
    let lengths = (found.text.len(), expected.text.len());
    let is_same = found.text == expected.text;
    assert!(is_same, "other plaintext, lengths {lengths:?}: {script:?}");
    assert_eq!(found.end, expected.end, "{script:?}");
    assert_eq!(found.alerts, expected.alerts, "{script:?}");
    assert!(found.data == expected.data, "other data: {script:?}");
}
