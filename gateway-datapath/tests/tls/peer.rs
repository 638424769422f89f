//! A client whose records are made by hand: rustls makes the handshake, and from then on
//! everything may be sent, also what no client would send.
//!
//! It knows nothing of the gateway and does no input or output, so that any server can be at the
//! other end.

use std::fmt;
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, ConnectionTrafficSecrets, KeyLog, ProtocolVersion};
use rustls_pki_types::ServerName;

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;
const HEADER: usize = 5;
const EXPLICIT_NONCE: usize = 8;
const TAG: usize = 16;

pub(crate) const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// Messages `key_update`.
pub(crate) const UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
pub(crate) const UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// Keeps the first traffic secrets.
#[derive(Debug, Default)]
struct Log(Mutex<[Vec<u8>; 2]>);

impl KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap();
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => secrets[0] = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => secrets[1] = secret.to_vec(),
            _ => {}
        }
    }
}

/// The client's side of a handshake.
pub(crate) struct Handshake {
    connection: UnbufferedClientConnection,
    log: Arc<Log>,
    incoming: Vec<u8>,
    is_over: bool,
}

impl Handshake {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        let log = Arc::new(Log::default());
        let mut config = config.clone();
        config.enable_secret_extraction = true;
        config.key_log = Arc::clone(&log) as Arc<dyn KeyLog>;
        let name = ServerName::try_from("gateway.test").unwrap();
        Self {
            connection: UnbufferedClientConnection::new(Arc::new(config), name).unwrap(),
            log,
            incoming: Vec::new(),
            is_over: false,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes what the server has sent; returns what is to be sent to it.
    pub(crate) fn advance(&mut self, received: &[u8]) -> Vec<u8> {
        self.incoming.extend_from_slice(received);
        let mut outgoing = Vec::new();
        loop {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.incoming);
            let mut waits = false;
            match state.unwrap() {
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = outgoing.len();
                    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
                        outgoing.resize(start + needed.required_size, 0);
                    }
                    data.encode(&mut outgoing[start..]).unwrap();
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => waits = true,
                ConnectionState::WriteTraffic(_) => self.is_over = true,
                other => panic!("{other:?} in a handshake"),
            }
            self.incoming.drain(..discard);
            if waits || self.is_over {
                return outgoing;
            }
        }
    }

    /// What goes on with the connection.
    pub(crate) fn into_peer(self) -> Peer {
        let version = self.connection.protocol_version().unwrap();
        let suite = self.connection.negotiated_cipher_suite().unwrap();
        let is_13 = version == ProtocolVersion::TLSv1_3;
        let algorithm = match format!("{:?}", suite.suite()) {
            name if name.contains("AES_128_GCM") => &AES_128_GCM,
            name if name.contains("AES_256_GCM") => &AES_256_GCM,
            _ => &CHACHA20_POLY1305,
        };
        let [sends, receives] = std::mem::take(&mut *self.log.0.lock().unwrap());
        let (sends, receives) = if is_13 {
            (
                Half::new_13(algorithm, sends),
                Half::new_13(algorithm, receives),
            )
        } else {
            let (secrets, _) = self.connection.dangerous_into_kernel_connection().unwrap();
            (
                Half::new_12(algorithm, &secrets.tx),
                Half::new_12(algorithm, &secrets.rx),
            )
        };
        Peer {
            sends,
            receives,
            incoming: self.incoming,
        }
    }
}

/// One direction of a connection.
struct Half {
    algorithm: &'static Algorithm,
    /// Of TLS 1.3; empty for TLS 1.2.
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: [u8; 12],
    /// Key updates so far, and the number of the next record.
    generation: u32,
    sequence: u64,
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// `HKDF-Expand-Label` with an empty context (RFC 8446, section 7.1).
fn expand(secret: &[u8], label: &str, len: usize) -> Vec<u8> {
    let hash = match secret.len() {
        32 => hkdf::HKDF_SHA256,
        48 => hkdf::HKDF_SHA384,
        other => panic!("secret of {other} bytes"),
    };
    let label = format!("tls13 {label}");
    let lengths = [
        0,
        u8::try_from(len).unwrap(),
        u8::try_from(label.len()).unwrap(),
    ];
    let info = [&lengths[..], label.as_bytes(), &[0]];
    let mut out = vec![0; len];
    let prk = hkdf::Prk::new_less_safe(hash, secret);
    prk.expand(&info, Length(len))
        .unwrap()
        .fill(&mut out)
        .unwrap();
    out
}

impl Half {
    fn new_13(algorithm: &'static Algorithm, secret: Vec<u8>) -> Self {
        let key = UnboundKey::new(algorithm, &expand(&secret, "key", algorithm.key_len()));
        Self {
            algorithm,
            key: LessSafeKey::new(key.unwrap()),
            iv: expand(&secret, "iv", 12).try_into().unwrap(),
            secret,
            generation: 0,
            sequence: 0,
        }
    }

    fn new_12(algorithm: &'static Algorithm, from: &(u64, ConnectionTrafficSecrets)) -> Self {
        let (sequence, secrets) = from;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            panic!("another cipher");
        };
        Self {
            algorithm,
            secret: Vec::new(),
            key: LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap()),
            iv: iv.as_ref().try_into().unwrap(),
            generation: 0,
            sequence: *sequence,
        }
    }

    fn is_13(&self) -> bool {
        !self.secret.is_empty()
    }

    fn has_explicit_nonce(&self) -> bool {
        !self.is_13() && self.algorithm != &CHACHA20_POLY1305
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    fn update(&mut self) {
        let next = expand(&self.secret, "traffic upd", self.secret.len());
        let generation = self.generation + 1;
        *self = Self {
            generation,
            ..Self::new_13(self.algorithm, next)
        };
    }

    fn additional_data(&self, header: [u8; HEADER], text: usize) -> Vec<u8> {
        if self.is_13() {
            return header.to_vec();
        }
        let mut data = self.sequence.to_be_bytes().to_vec();
        data.extend(&header[..3]);
        data.extend(u16::try_from(text).unwrap().to_be_bytes());
        data
    }
}

/// How a record departs from what a client would send.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Oddity {
    /// Another content type in the header; of TLS 1.3 only.
    pub(crate) outer: Option<u8>,
    /// Zero bytes behind the content; of TLS 1.3 only.
    pub(crate) padding: usize,
    /// No content type at all; of TLS 1.3 only.
    pub(crate) untyped: bool,
    /// A tag that is wrong.
    pub(crate) broken: bool,
}

/// A record that was opened.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    /// How often the key had changed before, and the number of the record.
    pub(crate) place: (u32, u64),
    pub(crate) content: u8,
    pub(crate) text: Vec<u8>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.text[..self.text.len().min(8)];
        let len = self.text.len();
        write!(
            f,
            "{:?} content {} of {len}: {shown:?}",
            self.place, self.content
        )
    }
}

/// A client behind its handshake.
pub(crate) struct Peer {
    sends: Half,
    receives: Half,
    incoming: Vec<u8>,
}

impl Peer {
    pub(crate) fn is_13(&self) -> bool {
        self.sends.is_13()
    }

    /// Makes a record. The key stays as it is, whatever the record says.
    pub(crate) fn seal(&mut self, content: u8, text: &[u8], odd: Oddity) -> Vec<u8> {
        let half = &mut self.sends;
        let nonce = half.nonce();
        let mut body = text.to_vec();
        if half.is_13() && !odd.untyped {
            body.push(content);
        }
        if half.is_13() {
            body.resize(body.len() + odd.padding, 0);
        }
        let explicit = if half.has_explicit_nonce() {
            EXPLICIT_NONCE
        } else {
            0
        };
        let length = u16::try_from(explicit + body.len() + TAG)
            .unwrap()
            .to_be_bytes();
        let outer = if half.is_13() { DATA } else { content };
        let mut header = [outer, 3, 3, length[0], length[1]];
        let data = Aad::from(half.additional_data(header, text.len()));
        let nonce_once = Nonce::assume_unique_for_key(nonce);
        half.key
            .seal_in_place_append_tag(nonce_once, data, &mut body)
            .unwrap();
        half.sequence += 1;
        if let (Some(outer), true) = (odd.outer, half.is_13()) {
            header[0] = outer;
        }
        if odd.broken {
            *body.last_mut().unwrap() ^= 1;
        }
        [&header[..], &nonce[4..][..explicit], &body].concat()
    }

    /// Makes an ordinary record.
    pub(crate) fn record(&mut self, content: u8, text: &[u8]) -> Vec<u8> {
        self.seal(content, text, Oddity::default())
    }

    /// What was said in a `key_update` is done.
    pub(crate) fn update(&mut self) {
        self.sends.update();
    }

    /// Makes a key update and goes on with the next key.
    pub(crate) fn key_update(&mut self, message: [u8; 5]) -> Vec<u8> {
        let record = self.record(HANDSHAKE, &message);
        self.update();
        record
    }

    /// Opens the whole records of all that was received. Each must have been sealed with the key
    /// and number that follow those of the one before.
    ///
    /// # Errors
    ///
    /// One was not, or is malformed.
    pub(crate) fn open(&mut self, received: &[u8]) -> Result<Vec<Opened>, String> {
        self.incoming.extend_from_slice(received);
        let mut records = Vec::new();
        while let Some(&header) = self.incoming.first_chunk::<HEADER>() {
            let end = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
            if self.incoming.len() < end {
                break;
            }
            let mut record: Vec<u8> = self.incoming.drain(..end).collect();
            records.push(self.open_record(header, &mut record[HEADER..])?);
        }
        Ok(records)
    }

    fn open_record(&mut self, header: [u8; HEADER], mut body: &mut [u8]) -> Result<Opened, String> {
        let half = &mut self.receives;
        let place = (half.generation, half.sequence);
        let mut nonce = half.nonce();
        if half.has_explicit_nonce() {
            let (explicit, rest) = body.split_at_mut(EXPLICIT_NONCE);
            if *explicit != nonce[4..] {
                return Err(format!("record {place:?}: unexpected nonce {explicit:?}"));
            }
            nonce[4..].copy_from_slice(explicit);
            body = rest;
        }
        let data = Aad::from(half.additional_data(header, body.len() - TAG));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = half.key.open_in_place(nonce, data, body);
        let text = opened.map_err(|_| format!("record {place:?} does not decrypt"))?;
        half.sequence += 1;
        let (content, text) = if half.is_13() {
            let (content, text) = text.split_last().ok_or("empty record")?;
            (*content, text.to_vec())
        } else {
            (header[0], text.to_vec())
        };
        if content == HANDSHAKE && text.first() == Some(&UPDATE[0]) {
            half.update();
        }
        Ok(Opened {
            place,
            content,
            text,
        })
    }
}
