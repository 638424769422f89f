//! The public port's TLS against rustls as a client, for every version and cipher suite.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io;
use std::sync::Arc;

use gateway::config::Config;
use gateway::datapath::ktls::{Carried, Ktls, KtlsStream};
use gateway::datapath::{ClientLeg, probe};
use gateway::tls::{self, TlsStream};
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, cipher_suite, default_provider};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

/// Certificate and key in one file, and what a client needs to trust it.
struct Identity {
    server: Arc<ServerConfig>,
    roots: RootCertStore,
    _files: tempfile::TempDir,
}

fn identity(algorithm: &'static rcgen::SignatureAlgorithm) -> Identity {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("both.pem");
    std::fs::write(&path, key.serialize_pem() + &certificate.pem()).unwrap();
    let config = Config {
        cert_file: path.clone(),
        key_file: path,
        ..Config::default()
    };
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    Identity {
        server: tls::Identity::read(&config).unwrap().tls,
        roots,
        _files: files,
    }
}

fn client_config(identity: &Identity, suite: SupportedCipherSuite) -> Arc<ClientConfig> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(identity.roots.clone())
        .with_no_client_auth();
    Arc::new(config)
}

/// An EC certificate for EC suites, an RSA one for RSA suites.
fn identity_for(suite: SupportedCipherSuite) -> Identity {
    if format!("{:?}", suite.suite()).contains("RSA") {
        identity(&rcgen::PKCS_RSA_SHA256)
    } else {
        identity(&rcgen::PKCS_ECDSA_P256_SHA256)
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

async fn connect(
    identity: &Identity,
    client: Arc<ClientConfig>,
) -> (ClientStream<TcpStream>, TlsStream) {
    let (near, far) = tcp_pair().await;
    let name = ServerName::try_from("gateway.test").unwrap();
    let connector = TlsConnector::from(client);
    let (client, server) = tokio::join!(
        connector.connect(name, near),
        tls::accept(far, Arc::clone(&identity.server))
    );
    (client.unwrap(), server.unwrap())
}

/// Position-dependent bytes, so that loss and disorder show.
fn pattern(len: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes())
        .take(len)
        .collect()
}

/// Both sides send much, end, and receive what the other has sent.
async fn exchange_both_ways(
    client: impl Stream + 'static,
    server: impl Stream + 'static,
    suite: SupportedCipherSuite,
) {
    let sent = pattern(1_000_003);
    let exchange = async |mut stream: Box<dyn Stream>| {
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let read = reader.read_to_end(&mut received);
        let ((), read) = tokio::join!(write, read);
        read.unwrap();
        assert!(received == sent, "{suite:?}: content differs");
    };
    tokio::join!(exchange(Box::new(client)), exchange(Box::new(server)));
}

#[tokio::test]
async fn every_suite_carries_both_directions() {
    for suite in ALL_CIPHER_SUITES {
        let identity = identity_for(*suite);
        let client = client_config(&identity, *suite);
        let (client, server) = connect(&identity, client).await;
        exchange_both_ways(client, server, *suite).await;
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Stream for T {}

#[tokio::test]
async fn records_of_every_small_size_and_around_the_limit() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ] {
        let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
        for len in (1..300).chain([16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 200_000]) {
            let sent = pattern(len);
            let mut received = vec![0; len];
            let (wrote, read) = tokio::join!(
                async {
                    server.write_all(&sent).await?;
                    server.flush().await
                },
                client.read_exact(&mut received)
            );
            wrote.unwrap();
            read.unwrap();
            assert!(received == sent, "downlink of {len}");
            let (wrote, read) = tokio::join!(
                async {
                    client.write_all(&sent).await?;
                    client.flush().await
                },
                server.read_exact(&mut received)
            );
            wrote.unwrap();
            read.unwrap();
            assert!(received == sent, "uplink of {len}");
        }
    }
}

#[tokio::test]
async fn key_updates_of_the_client_are_followed_and_answered() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_256_GCM_SHA384;
    let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    for round in 0..5_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[round; 100]).await.unwrap();
        client.flush().await.unwrap();
        let mut bytes = [0; 100];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [round; 100]);
        server.write_all(&bytes).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [round; 100]);
    }
}

#[tokio::test]
async fn sessions_are_resumed() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        let config = client_config(&identity, suite);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (mut client, mut server) = connect(&identity, Arc::clone(&config)).await;
            // The tickets of TLS 1.3 come behind the handshake.
            server.write_all(b"x").await.unwrap();
            server.flush().await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            kinds.push(client.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(
            kinds,
            [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]
        );
    }
}

#[tokio::test]
async fn the_end_of_tcp_differs_from_close_notify() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"last");
    // Half-closed: the other direction goes on.
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"answer");

    let (client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    drop(client);
    let error = server.read(&mut [0; 16]).await.unwrap_err();
    assert!(matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    ));
}

/// Sends raw bytes behind a handshake; gives what the server says of them, and the alert that
/// the client gets.
async fn fault(record: &[u8]) -> (io::Error, Option<rustls::Error>) {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    client.get_mut().0.write_all(record).await.unwrap();
    let error = server.read(&mut [0; 16]).await.unwrap_err();
    let told = client.read(&mut [0; 16]).await.unwrap_err();
    let told = told
        .into_inner()
        .and_then(|e| e.downcast::<rustls::Error>().ok());
    (error, told.map(|boxed| *boxed))
}

#[tokio::test]
async fn faults_are_told_by_alerts() {
    use rustls::AlertDescription as Alert;
    let long = {
        let mut record = vec![23, 3, 3, 0x41, 0x01];
        record.resize(5 + 0x4101, 0);
        record
    };
    for (record, alert) in [
        (
            &[
                23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,
            ][..],
            Alert::BadRecordMac,
        ),
        (&long, Alert::RecordOverflow),
        (&[20, 3, 3, 0, 1, 1], Alert::DecodeError),
        (
            &[
                22, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,
            ],
            Alert::UnexpectedMessage,
        ),
    ] {
        let (error, told) = fault(record).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(told, Some(rustls::Error::AlertReceived(alert)));
    }
}

#[tokio::test]
async fn a_client_that_does_not_agree_gets_an_alert() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut config = (*client_config(&identity, suite)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (near, far) = tcp_pair().await;
    let name = ServerName::try_from("gateway.test").unwrap();
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(config)).connect(name, near),
        tls::accept(far, Arc::clone(&identity.server))
    );
    assert!(server.is_err());
    let error = client.unwrap_err().into_inner().unwrap();
    assert_eq!(
        *error.downcast::<rustls::Error>().unwrap(),
        rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)
    );
}

/// What the kernel carries, by the gateway's own probe.
async fn carried() -> Carried {
    let found = probe::run(probe::Extent::Usual)
        .await
        .into_iter()
        .find_map(|finding| finding.carried);
    found.expect("a kernel with TLS")
}

/// Leaves the records to the kernel.
async fn hand_over(server: TlsStream) -> KtlsStream {
    enter(&Ktls::new(carried().await, 0), server)
}

fn enter(ktls: &Ktls, server: TlsStream) -> KtlsStream {
    match ktls.enter(Box::new(server)) {
        Ok(stream) => stream,
        Err((refusal, _)) => panic!("{refusal}"),
    }
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn the_kernel_goes_on_with_every_suite_where_the_gateway_was() {
    for suite in ALL_CIPHER_SUITES {
        let identity = identity_for(*suite);
        let (mut client, mut server) = connect(&identity, client_config(&identity, *suite)).await;
        for round in 0..5_u8 {
            let mut received = [0; 100];
            server.write_all(&[round; 100]).await.unwrap();
            client.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [round; 100]);
            client.write_all(&[round; 100]).await.unwrap();
            server.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [round; 100]);
        }
        let server = hand_over(server).await;
        exchange_both_ways(client, server, *suite).await;
    }
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn what_was_read_before_the_kernel_took_over_is_delivered_first() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let (mut client, mut server) = connect(&identity, client_config(&identity, suite)).await;
    client.write_all(b"first").await.unwrap();
    client.write_all(b"second").await.unwrap();
    let mut received = [0; 3];
    server.read_exact(&mut received).await.unwrap();
    let mut server = hand_over(server).await;
    client.write_all(b"third").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    server.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "stsecondthird");
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn new_keys_of_the_client_are_followed_or_end_what_is_read() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_256_GCM_SHA384;
    let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
    let carried = carried().await;
    let mut server = enter(&Ktls::new(carried.clone(), 0), server);
    if carried.new_keys {
        for round in 0..5_u8 {
            // This asks for a new key of the server, too.
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(&[round; 100]).await.unwrap();
            let mut bytes = [0; 100];
            server.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, [round; 100]);
            server.write_all(&bytes).await.unwrap();
            client.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, [round; 100]);
        }
        change_keys_under_traffic(client, server).await;
        return;
    }
    client.write_all(b"old key").await.unwrap();
    client.get_mut().1.refresh_traffic_keys().unwrap();
    client.write_all(b"new key").await.unwrap();
    let mut received = Vec::new();
    let error = server.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert_eq!(received, b"old key");
    // The other direction still ends in an orderly way, and so does TCP.
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"bye");
    drop(client);
    assert_eq!(server.read(&mut [0; 16]).await.unwrap(), 0);
}

/// Changes the client's key several times in a row, while both sides send.
async fn change_keys_under_traffic(mut client: ClientStream<TcpStream>, server: KtlsStream) {
    const PIECES: usize = 40;
    let text = pattern(PIECES * 1_000);
    let (mut reader, mut writer) = tokio::io::split(server);
    let (mut up, mut down) = (vec![0; text.len()], vec![0; text.len()]);
    let send = async {
        for piece in text.chunks(1_000) {
            writer.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    // Less than any buffer, so each side may send before it reads.
    let talk = async {
        for (index, piece) in text.chunks(1_000).enumerate() {
            for _ in 0..index % 4 {
                client.get_mut().1.refresh_traffic_keys().unwrap();
            }
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.read_exact(&mut down).await.unwrap();
    };
    let receive = async { reader.read_exact(&mut up).await.unwrap() };
    tokio::join!(send, talk, receive);
    assert!(up == text && down == text);
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn a_worn_key_is_changed_by_the_kernel_or_ends_the_channel() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
        let carried = carried().await;
        let is_changed = carried.new_keys && suite.tls13().is_some();
        let mut server = enter(&Ktls::new(carried, 0).with_key_limit(1_500), server);
        for round in 0..20_u8 {
            server.write_all(&[round; 1_000]).await.unwrap();
            let mut received = [0; 1_000];
            client.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [round; 1_000]);
            assert_eq!(server.is_worn(), !is_changed && round > 0);
        }
    }
}

/// Longest wait for an alert.
const ALERT_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Sends raw bytes to the kernel; gives the alert that the client gets.
async fn fault_in_the_kernel(suite: SupportedCipherSuite, record: &[u8]) -> Option<rustls::Error> {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
    let mut server = hand_over(server).await;
    client.write_all(b"before").await.unwrap();
    let mut received = [0; 6];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"before");
    client.get_mut().0.write_all(record).await.unwrap();
    let read = tokio::time::timeout(ALERT_LIMIT, server.read(&mut received)).await;
    let error = read.expect("an error").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut space = [0; 16];
    let told = tokio::time::timeout(ALERT_LIMIT, client.read(&mut space)).await;
    let told = told.expect("an alert").unwrap_err();
    let told = told
        .into_inner()
        .and_then(|e| e.downcast::<rustls::Error>().ok());
    told.map(|boxed| *boxed)
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn a_record_that_does_not_decrypt_is_told_by_an_alert() {
    let mut record = vec![23, 3, 3, 0, 40];
    record.resize(5 + 40, 7);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        let told = fault_in_the_kernel(suite, &record).await;
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(told, Some(alert), "{suite:?}");
    }
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn a_record_that_the_kernel_does_not_take_is_told_by_an_alert() {
    use rustls::AlertDescription as Alert;
    let mut too_long = vec![23, 3, 3, 0x48, 0x01];
    too_long.resize(5 + 0x4801, 0);
    let mut other_version = vec![23, 5, 5, 0, 40];
    other_version.resize(5 + 40, 0);
    for suite in [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ] {
        for (record, alert) in [
            (&too_long, Alert::RecordOverflow),
            (&other_version, Alert::UnexpectedMessage),
        ] {
            let told = fault_in_the_kernel(suite, record).await;
            let alert = rustls::Error::AlertReceived(alert);
            assert_eq!(told, Some(alert), "{suite:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn the_kernel_notices_a_client_that_vanishes_in_the_middle_of_a_record() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
    let mut server = hand_over(server).await;
    client.write_all(b"whole").await.unwrap();
    let begun = [23, 3, 3, 0x40, 0, 1, 2, 3];
    client.get_mut().0.write_all(&begun).await.unwrap();
    drop(client);
    let mut received = Vec::new();
    let error = server.read_to_end(&mut received).await.unwrap_err();
    let kind = error.kind();
    assert!(
        matches!(
            kind,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ),
        "{error}"
    );
    assert_eq!(received, b"whole");
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn the_kernel_goes_on_sending_after_close_notify() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    for suite in [
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ] {
        let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
        let mut server = hand_over(server).await;
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"last");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"answer");
    }
}

/// A TLS 1.3 record with AES-128-GCM; rustls would not make an empty one.
fn record(secrets: &rustls::ConnectionTrafficSecrets, sequence: u64, text: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        panic!("another cipher");
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    for (byte, number) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= number;
    }
    let mut body = [text, &[23]].concat();
    let length = u16::try_from(body.len() + 16).unwrap().to_be_bytes();
    let header = [23, 3, 3, length[0], length[1]];
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body)
        .unwrap();
    [&header[..], &body].concat()
}

#[tokio::test]
#[ignore = "needs a kernel with TLS: cargo xtask vm-test"]
async fn the_kernel_reads_empty_short_and_full_records() {
    let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut config = (*client_config(&identity, suite)).clone();
    config.enable_secret_extraction = true;
    let (client, server) = connect(&identity, Arc::new(config)).await;
    let mut server = hand_over(server).await;
    let (mut tcp, connection) = client.into_inner();
    let (mut sequence, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
    let text = pattern(3 * 16_384 + 3);
    let send = async {
        let mut at = 0;
        for len in [0, 1, 0, 16_384, 1, 16_384, 0, 0, 1, 16_384, 0] {
            let record = record(&secrets, sequence, &text[at..at + len]);
            tcp.write_all(&record).await.unwrap();
            sequence += 1;
            at += len;
        }
    };
    let mut received = vec![0; text.len()];
    let ((), read) = tokio::join!(send, server.read_exact(&mut received));
    read.unwrap();
    assert!(received == text);
}

mod ktls_sockmap {
    use std::future::pending;
    use std::time::Duration;

    use gateway::datapath::sockmap::Sockmap;
    use gateway::datapath::{Counters, EndReason, Inbound, Limits, Paths};
    use gateway::listen;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    /// Close frame with code 1001.
    const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe9];

    #[tokio::test]
    #[ignore = "needs a kernel with TLS and sockmap on one socket: cargo xtask vm-test"]
    async fn a_worn_key_ends_a_channel_on_which_only_the_host_speaks() {
        const KEY_LIMIT: u64 = 1_000_000;
        let identity = identity(&rcgen::PKCS_ECDSA_P256_SHA256);
        let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
        let (mut client, server) = connect(&identity, client_config(&identity, suite)).await;
        let (mut host, host_leg) = tcp_pair().await;
        let ktls = Ktls::new(carried().await, usize::MAX).with_key_limit(KEY_LIMIT);
        let paths = Paths::with_ktls_sockmap(ktls, Sockmap::load(1, 1 << 20).unwrap());
        let server = listen::ClientStream::Tls(Box::new(server));
        let mut carrier = paths.take(server, host_leg).unwrap();
        assert_eq!(carrier.name(), "ktls-sockmap");

        let limits = Limits {
            ping_interval: None,
            close_timeout: Duration::from_secs(5),
        };
        let counters = Counters::default();
        let run = carrier.run(Inbound::default(), limits, &counters, pending());
        let peers = async {
            let mut received = Vec::new();
            let send = async { while host.write_all(&[7; 1_000]).await.is_ok() {} };
            tokio::select! {
                // A sender that never waits must not keep this from its turn.
                biased;
                read = client.read_to_end(&mut received) => drop(read.unwrap()),
                () = send => panic!("the host was cut off"),
            }
            drop((host, client));
            received
        };
        let both = async { tokio::join!(run, peers) };
        let (reason, received) = tokio::time::timeout(LIMIT, both).await.unwrap();
        assert_eq!(reason, EndReason::KeyUsedUp);
        assert!(received.ends_with(&CLOSE));
        assert!(received.len() as u64 >= KEY_LIMIT);
        assert!(counters.downlink() >= KEY_LIMIT);
    }
}
