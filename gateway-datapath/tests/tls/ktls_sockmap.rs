//! Connections whose records the kernel makes of what a sockmap redirects.

use std::future::pending;
use std::time::Duration;

use gateway_datapath::end_reason::EndReason;
use gateway_datapath::ktls::Ktls;
use gateway_datapath::sockmap::Sockmap;
use gateway_datapath::{Counters, Framing, Inbound, Limits, Paths};
use rustls::crypto::aws_lc_rs::cipher_suite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ktls::support;
use crate::{client_config, connect, identity, tcp_pair};

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
    let ktls = Ktls::new(support().await, None).with_key_limit(KEY_LIMIT);
    let paths = Paths::with_ktls_sockmap(ktls, Sockmap::load(1, 1 << 20).unwrap());
    let server = gateway_datapath::ClientStream::Tls(Box::new(server));
    let mut carrier = paths
        .take(server, host_leg.into(), Framing::WebSocket)
        .unwrap();
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
