//! The public port's TLS against rustls as a client, for every version and cipher suite.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod behind;
mod ktls;
mod ktls_sockmap;
mod nonces;
mod peer;
mod records;
mod refused;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use gateway_datapath::tls::{self, Profile, TlsStream};
use proptest::test_runner::{Config as RunnerConfig, RngSeed, TestRunner};
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

/// What a server shows, and what a client needs to trust it.
struct Identity {
    server: Arc<ServerConfig>,
    roots: RootCertStore,
}

fn identity(algorithm: &'static rcgen::SignatureAlgorithm) -> Identity {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let chain = vec![certificate.der().clone()];
    let private_key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let certified = CertifiedKey::from_der(chain, private_key, &default_provider()).unwrap();
    let mut server = tls::server_config(
        Profile::Intermediate,
        WebPkiClientVerifier::no_client_auth(),
        Arc::new(SingleCertAndKey::from(certified)),
    );
    server.ticketer = Ticketer::new().unwrap();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    Identity {
        server: Arc::new(server),
        roots,
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
    (client.unwrap(), server.unwrap().0)
}

/// Position-dependent bytes, so that loss and disorder show.
fn pattern(len: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes())
        .take(len)
        .collect()
}

/// Runs a property, with more cases where `PROPTEST_CASES` says so; the seed is printed, and
/// `PROPTEST_RNG_SEED` sets it.
fn runner(cases: u32) -> TestRunner {
    let mut config = RunnerConfig {
        failure_persistence: None,
        ..RunnerConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if config.rng_seed == RngSeed::Random {
        let now = UNIX_EPOCH.elapsed().unwrap().as_nanos();
        config.rng_seed = RngSeed::Fixed(u64::try_from(now).unwrap());
    }
    eprintln!("seed: {:?}, cases: {}", config.rng_seed, config.cases);
    TestRunner::new(config)
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

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Stream for T {}
