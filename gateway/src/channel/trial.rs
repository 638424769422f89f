//! Trying a host without a client: is it reached, and does it speak Spice?

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::announce::announce;
use super::{ConnectError, HostConnector};
use crate::config::{Config, HostProxyProtocol};
use crate::grant::Grant;
use crate::host_tls::Authorities;
use crate::metrics::Metrics;

/// A link message for a main channel of a new session (`SpiceLinkHeader` and `SpiceLinkMess` in
/// spice/protocol.h), with the capabilities of current clients.
const LINK_MESSAGE: [u8; 42] = *b"REDQ\
    \x02\0\0\0\x02\0\0\0\x1a\0\0\0\
    \0\0\0\0\x01\0\
    \x01\0\0\0\x01\0\0\0\x12\0\0\0\
    \x0d\0\0\0\x0f\0\0\0";
/// What an answer begins with (`SpiceLinkHeader`), and behind it the error of `SpiceLinkReply`.
const MAGIC: &[u8] = b"REDQ";
const ERROR_AT: usize = 16;
const HEAD: usize = 20;
/// `SPICE_LINK_ERR_NEED_SECURED`.
const NEEDS_TLS: u32 = 5;

/// Connects to hosts as channels do, and hears whether they speak Spice.
#[derive(Clone)]
pub struct Trial {
    connector: HostConnector,
    proxy_protocol: HostProxyProtocol,
    limit: Duration,
}

/// Why a host would serve nobody.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It was not reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It closed or broke the connection instead of an answer.
    #[error("it took the connection and ended it without an answer ({0})")]
    Ended(io::Error),
    /// It said nothing to a link message.
    #[error("it took the connection, and does not answer a Spice client")]
    Silent,
    /// Its answer is none of a Spice server.
    #[error("what listens there is no Spice server")]
    NotSpice,
    /// It wants TLS, which the gateway has not made.
    #[error("its Spice server lets only clients with TLS in")]
    NeedsTls,
}

impl Trial {
    /// As the configuration says, except that everything must be done in this time;
    /// `authorities` are those of `HostCAFile`.
    pub fn new(config: &Config, authorities: Option<&Authorities>, limit: Duration) -> Self {
        let config = Config {
            connect_timeout: limit,
            ..config.clone()
        };
        Self {
            connector: HostConnector::new(&config, authorities),
            proxy_protocol: config.host_proxy_protocol,
            limit,
        }
    }

    /// Tries the target of a grant. The session ends before anybody is let in, so whoever uses the
    /// desktop notices nothing.
    pub async fn run(&self, grant: &Grant) -> Result<(), TrialError> {
        // Nobody that a host could know: there is no client.
        let client = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut host = self
            .connector
            .connect(grant, client, &Metrics::default())
            .await?;
        let linked = async {
            announce(self.proxy_protocol, client, &mut host).await;
            link(&mut host).await
        };
        timeout(self.limit, linked)
            .await
            .unwrap_or(Err(TrialError::Silent))
    }
}

async fn link(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), TrialError> {
    let sent = async {
        stream.write_all(&LINK_MESSAGE).await?;
        stream.flush().await
    };
    sent.await.map_err(TrialError::Ended)?;
    let mut head = [0; HEAD];
    let (magic, rest) = head.split_at_mut(MAGIC.len());
    stream.read_exact(magic).await.map_err(TrialError::Ended)?;
    if magic != MAGIC {
        return Err(TrialError::NotSpice);
    }
    stream.read_exact(rest).await.map_err(TrialError::Ended)?;
    let error = head[ERROR_AT..]
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if error == NEEDS_TLS {
        return Err(TrialError::NeedsTls);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_message_is_one_of_a_main_channel() {
        let size = u32::from_le_bytes(*LINK_MESSAGE[12..].first_chunk().unwrap());
        assert_eq!(LINK_MESSAGE.len(), 16 + size as usize);
        assert_eq!(LINK_MESSAGE[20..22], [1, 0]);
    }

    async fn answered(answer: &[u8]) -> Result<(), TrialError> {
        let (mut client, mut host) = tokio::io::duplex(1024);
        let serve = async {
            let mut asked = [0; LINK_MESSAGE.len()];
            host.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, LINK_MESSAGE);
            host.write_all(answer).await.unwrap();
            drop(host);
        };
        tokio::join!(link(&mut client), serve).0
    }

    #[tokio::test]
    async fn answers_are_told_apart() {
        let reply = |error: u8| {
            let mut reply = b"REDQ\x02\0\0\0\x02\0\0\0\xb2\0\0\0".to_vec();
            reply.extend([error, 0, 0, 0]);
            reply
        };
        answered(&reply(0)).await.unwrap();
        // A server that takes no more sessions still is one.
        answered(&reply(1)).await.unwrap();
        assert!(matches!(
            answered(&reply(5)).await,
            Err(TrialError::NeedsTls)
        ));
        let other = answered(b"SSH-2.0-OpenSSH\r\n").await;
        assert!(matches!(other, Err(TrialError::NotSpice)));
        assert!(matches!(answered(b"").await, Err(TrialError::Ended(_))));
        assert!(matches!(answered(b"REDQ").await, Err(TrialError::Ended(_))));
    }
}
