//! Which data path a channel takes, and what is counted when it is not the wanted one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gateway_common::layout::State;
use tokio::net::TcpStream;
use tracing::warn;

use crate::carrier::Carrier;
use crate::client_stream::ClientStream;
use crate::framing::Framing;
use crate::host_stream::HostStream;
use crate::ktls::Ktls;
use crate::sockmap::{Ended, HostSocket, Sockmap, TlsLegs};
use crate::tls::TlsStream;

/// The data paths that can be had, and which is wanted.
#[derive(Default)]
pub struct Paths {
    wanted: Wanted,
    counted: Arc<Counted>,
}

/// Why `sockmap` does not move a client leg.
const PLAINTEXT_ONLY: &str = "sockmap moves plaintext client legs only";

/// What was counted whichever path was wanted at the time.
#[derive(Default)]
struct Counted {
    fallbacks: Mutex<BTreeMap<&'static str, u64>>,
    /// The path's name, and who counts its channels; as soon as one was wanted.
    sockmap: Option<(&'static str, Arc<Sockmap>)>,
    inherited: Mutex<Vec<Inherited>>,
}

/// Who counts channels that another process has begun.
struct Inherited {
    /// As long as there are such channels.
    sockmap: Weak<Sockmap>,
    ended: Arc<Ended>,
}

impl Inherited {
    fn totals(&self) -> State {
        // When it is gone, all channels have been counted among those that have ended.
        let sockmap = self.sockmap.upgrade();
        sockmap.map_or_else(|| self.ended.total(), |sockmap| sockmap.totals())
    }
}

#[derive(Default)]
enum Wanted {
    /// For every channel.
    #[default]
    Relay,
    Sockmap(Arc<Sockmap>),
    Ktls(Ktls),
    /// `sockmap` into records made by the kernel, for TLS client legs.
    KtlsSockmap(Ktls, Arc<Sockmap>),
    /// What is cheaper than `relay` for each kind of client leg, where the kernel can move it.
    Cheapest {
        tls: Option<Ktls>,
        plaintext: Option<Arc<Sockmap>>,
    },
}

impl Paths {
    /// With `sockmap` for plaintext client legs.
    pub fn with_sockmap(sockmap: Arc<Sockmap>) -> Self {
        Self {
            counted: Counted::of("sockmap", &sockmap),
            wanted: Wanted::Sockmap(sockmap),
        }
    }

    /// With `ktls` for TLS client legs.
    pub fn with_ktls(ktls: Ktls) -> Self {
        Self {
            wanted: Wanted::Ktls(ktls),
            ..Self::default()
        }
    }

    /// With `ktls-sockmap` for TLS client legs.
    pub fn with_ktls_sockmap(ktls: Ktls, sockmap: Arc<Sockmap>) -> Self {
        Self {
            counted: Counted::of("ktls-sockmap", &sockmap),
            wanted: Wanted::KtlsSockmap(ktls, sockmap),
        }
    }

    /// With these for the client legs that they can move, and `relay` for all else, which is then
    /// no fallback.
    pub fn with_cheapest(tls: Option<Ktls>, plaintext: Option<Arc<Sockmap>>) -> Self {
        let counted = plaintext
            .as_ref()
            .map(|sockmap| Counted::of("sockmap", sockmap));
        Self {
            counted: counted.unwrap_or_default(),
            wanted: Wanted::Cheapest { tls, plaintext },
        }
    }

    /// `relay` for every channel, counting on where this one does.
    #[must_use]
    pub fn relay_instead(&self) -> Self {
        Self {
            wanted: Wanted::Relay,
            counted: Arc::clone(&self.counted),
        }
    }

    /// Takes the wanted data path or, where that cannot be, `relay`.
    /// Nothing must have been sent to the host yet.
    ///
    /// Fails only when the system has taken a socket over in part.
    pub fn take(
        &self,
        client: ClientStream,
        host: HostStream,
        framing: Framing,
    ) -> io::Result<Carrier> {
        if framing == Framing::Raw && !matches!(self.wanted, Wanted::Ktls(_)) {
            self.fall_back_for("tunnel", &"it makes frames, and tunnels have none");
            return Ok(Carrier::relay(client, host));
        }
        let host = match (&self.wanted, host) {
            (Wanted::Sockmap(sockmap), HostStream::Unix(host)) if sockmap.moves_unix_hosts() => {
                return match client {
                    ClientStream::Plain(tcp) => self.take_sockmap(sockmap, tcp, host),
                    tls @ ClientStream::Tls(_) => {
                        self.fall_back("sockmap", "TLS client leg", &PLAINTEXT_ONLY);
                        Ok(Carrier::relay(tls, HostStream::Unix(host)))
                    }
                };
            }
            (_, HostStream::Tcp(host)) => host,
            (_, host @ HostStream::Tls(_)) => {
                self.fall_back_for("TLS to a host", &"the kernel has no keys of the host leg");
                return Ok(Carrier::relay(client, host));
            }
            (wanted, host @ HostStream::Unix(_)) => {
                let detail = match wanted {
                    Wanted::Sockmap(_) => Sockmap::UNIX_HOSTS_NEED,
                    _ => "it moves TCP connections only",
                };
                self.fall_back_for("Unix socket of a host", &detail);
                return Ok(Carrier::relay(client, host));
            }
        };
        let client = match (&self.wanted, client) {
            (
                Wanted::Sockmap(sockmap)
                | Wanted::Cheapest {
                    plaintext: Some(sockmap),
                    ..
                },
                ClientStream::Plain(tcp),
            ) => {
                return self.take_sockmap(sockmap, tcp, host);
            }
            (Wanted::Sockmap(_), tls @ ClientStream::Tls(_)) => {
                self.fall_back("sockmap", "TLS client leg", &PLAINTEXT_ONLY);
                tls
            }
            (
                Wanted::Ktls(ktls)
                | Wanted::Cheapest {
                    tls: Some(ktls), ..
                },
                ClientStream::Tls(tls),
            ) => match ktls.enter(tls) {
                Ok(stream) => return Ok(Carrier::Ktls(Box::new(stream), host)),
                Err((refusal, client)) => {
                    self.fall_back("ktls", refusal.name(), &refusal);
                    ClientStream::Tls(client?)
                }
            },
            (Wanted::KtlsSockmap(ktls, sockmap), ClientStream::Tls(tls)) => {
                return self.take_ktls_sockmap(ktls, sockmap, tls, host);
            }
            (Wanted::KtlsSockmap(..), plain @ ClientStream::Plain(_)) => {
                let detail = "ktls-sockmap moves TLS client legs only";
                self.fall_back("ktls-sockmap", "plaintext client leg", &detail);
                plain
            }
            (Wanted::Ktls(_), plain @ ClientStream::Plain(_)) => {
                let detail = "ktls moves TLS client legs only";
                self.fall_back("ktls", "plaintext client leg", &detail);
                plain
            }
            (Wanted::Relay | Wanted::Cheapest { .. }, client) => client,
        };
        Ok(Carrier::relay(client, host))
    }

    /// The wanted path, whichever it is, cannot move such a channel.
    fn fall_back_for(&self, reason: &'static str, detail: &dyn std::fmt::Display) {
        if let Some(wanted) = self.wanted.name() {
            self.fall_back(wanted, reason, detail);
        }
    }

    fn take_sockmap<H>(
        &self,
        sockmap: &Arc<Sockmap>,
        client: TcpStream,
        host: H,
    ) -> io::Result<Carrier>
    where
        H: TryInto<HostSocket, Error = io::Error>,
    {
        match sockmap.enter(client, host) {
            Ok(link) => Ok(Carrier::Sockmap(Arc::new(link))),
            Err((refusal, legs)) => {
                self.fall_back("sockmap", refusal.name(), &refusal);
                let (client, host) = legs?;
                Ok(Carrier::relay(ClientStream::Plain(client), host))
            }
        }
    }

    fn take_ktls_sockmap(
        &self,
        ktls: &Ktls,
        sockmap: &Arc<Sockmap>,
        client: Box<TlsStream>,
        host: TcpStream,
    ) -> io::Result<Carrier> {
        let socket = client.tcp().as_fd().try_clone_to_owned()?.into();
        let mut client = Some(client);
        let protect = || match client.take() {
            Some(client) => ktls.enter(client),
            None => unreachable!("a connection is protected once"),
        };
        match sockmap.enter_tls(&socket, host, protect) {
            Ok(link) => Ok(Carrier::KtlsSockmap(Arc::new(link))),
            Err((refusal, legs)) => {
                self.fall_back("ktls-sockmap", refusal.name(), &refusal);
                let legs = match legs {
                    TlsLegs::Refused(client, host) => Some((client, host)),
                    TlsLegs::Untouched(host) => client.map(|client| (client, host)),
                    TlsLegs::Lost => None,
                };
                let (client, host) =
                    legs.ok_or_else(|| io::Error::other("the kernel kept the sockets"))?;
                Ok(Carrier::relay(ClientStream::Tls(client), host))
            }
        }
    }

    /// Counts a reason, and tells it the first time.
    fn fall_back(
        &self,
        wanted: &'static str,
        reason: &'static str,
        detail: &dyn std::fmt::Display,
    ) {
        let mut fallbacks = self.counted.fallbacks();
        let count = fallbacks.entry(reason).or_default();
        *count += 1;
        if *count == 1 {
            warn!(
                wanted,
                reason, %detail,
                "data path relay is used instead; logged once for each reason"
            );
        }
    }

    /// How many channels use `relay` although another path was wanted, by reason.
    pub fn fallbacks(&self) -> BTreeMap<&'static str, u64> {
        self.counted.fallbacks().clone()
    }

    /// What the eBPF programs have counted for all channels, with the name of the path that uses
    /// them; zeros where none does.
    pub fn programs(&self) -> (&'static str, State) {
        let (path, own) = match &self.counted.sockmap {
            Some((path, sockmap)) => (*path, sockmap.totals()),
            None => ("sockmap", State::default()),
        };
        let inherited = self.counted.inherited();
        let totals = inherited.iter().map(Inherited::totals);
        (path, totals.fold(own, |sum, totals| sum.plus(&totals)))
    }

    /// Counts the channels of a set that another process had before.
    pub fn count_inherited(&self, sockmap: &Arc<Sockmap>) {
        self.counted.inherited().push(Inherited {
            sockmap: Arc::downgrade(sockmap),
            ended: sockmap.ended(),
        });
    }
}

impl Wanted {
    /// The path that somebody has asked for by its name; `None`: nobody has.
    fn name(&self) -> Option<&'static str> {
        match self {
            Self::Relay | Self::Cheapest { .. } => None,
            Self::Sockmap(_) => Some("sockmap"),
            Self::Ktls(_) => Some("ktls"),
            Self::KtlsSockmap(..) => Some("ktls-sockmap"),
        }
    }
}

impl Counted {
    fn of(path: &'static str, sockmap: &Arc<Sockmap>) -> Arc<Self> {
        Arc::new(Self {
            sockmap: Some((path, Arc::clone(sockmap))),
            ..Self::default()
        })
    }

    fn inherited(&self) -> MutexGuard<'_, Vec<Inherited>> {
        self.inherited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn fallbacks(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.fallbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
