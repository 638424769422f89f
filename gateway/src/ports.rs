//! The open ports, and the taking of connections on them.

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tracing::info;

use crate::config::Config;
use crate::handover::Activation;
use crate::handover::Listeners;
use crate::limits::ConnectionLimits;
use crate::listen::proxy_protocol::ProxyProtocol;
use crate::listen::{Intake, Listener};
use crate::metrics::Leg;
use crate::serving::Live;
use crate::tcp;
use crate::tls::Challenges;
use gateway_datapath::label::Label as _;
use gateway_datapath::supervise::{Supervised, supervised};

/// Listening sockets. They stay open while nobody takes connections on them.
pub struct Sockets {
    /// Of clients.
    pub public: Vec<(TcpListener, Leg)>,
    /// Of administrators.
    pub admin: Option<TcpListener>,
}

impl Sockets {
    /// Opens what the configuration asks for, unless the service manager or the gateway before has
    /// it open already.
    pub fn open(
        config: &Config,
        activation: Activation,
        listeners: &mut Listeners,
    ) -> anyhow::Result<Self> {
        let mut open = |address: Option<IpAddr>, port| match listeners.take(address, port) {
            Some(socket) => Ok(socket),
            None => tcp::listen(address, port)?.into_std(),
        };
        let mut public = Vec::new();
        for (sockets, leg) in [(activation.tls, Leg::Tls), (activation.plain, Leg::Plain)] {
            for socket in sockets {
                let socket = socket.into_std().context("cannot use a socket")?;
                public.push((socket, leg));
            }
        }
        let has =
            |public: &[(TcpListener, Leg)], leg| public.iter().any(|(_, found)| *found == leg);
        if !has(&public, Leg::Tls) {
            let socket = open(config.listen_address, config.ssl_port)
                .with_context(|| format!("cannot listen on port {} (SslPort)", config.ssl_port))?;
            public.insert(0, (socket, Leg::Tls));
        }
        if let Some(port) = config.plain_port
            && !has(&public, Leg::Plain)
        {
            let socket = open(Some(config.plain_address), port)
                .with_context(|| format!("cannot listen on port {port} (PlainPort)"))?;
            public.push((socket, Leg::Plain));
        }
        let admin = config.admin_port.map(|port| {
            let socket = open(Some(config.admin_address), port);
            socket.with_context(|| format!("cannot listen on port {port} (AdminPort)"))
        });
        let sockets = Self {
            public,
            admin: admin.transpose()?,
        };
        sockets.tell()?;
        Ok(sockets)
    }

    fn tell(&self) -> anyhow::Result<()> {
        let public = self.public.iter().map(|(socket, leg)| (socket, leg.text()));
        let admin = self.admin.iter().map(|socket| (socket, "admin"));
        for (socket, leg) in public.chain(admin) {
            let address = socket.local_addr().context("a port has no address")?;
            info!(leg, %address, "listening");
        }
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> Vec<&TcpListener> {
        let public = self.public.iter().map(|(socket, _)| socket);
        public.chain(&self.admin).collect()
    }

    /// Closes those on which connections are not taken any more.
    pub fn close(&mut self) {
        self.public.clear();
        self.admin = None;
    }

    /// The port of administrators, to be served.
    pub fn admin(&self) -> anyhow::Result<Option<tokio::net::TcpListener>> {
        self.admin.as_ref().map(served).transpose()
    }
}

/// Open ports and what is behind them.
pub struct Ports {
    /// Where clients come.
    pub sockets: Sockets,
    /// What they are served with.
    pub live: Arc<Live>,
    /// Who tells of clients at the beginning of a connection.
    pub proxy_protocol: Arc<ProxyProtocol>,
    /// Connections of all ports together.
    pub connections: Arc<ConnectionLimits>,
    /// Names that an authority of certificates checks.
    pub challenges: Arc<Challenges>,
    /// Whether connections are taken; the same for those that were taken before.
    pub drain: watch::Sender<Intake>,
}

/// Connections are being taken.
pub struct Accepting {
    drain: watch::Sender<Intake>,
    listeners: Vec<Supervised<()>>,
}

impl Ports {
    /// Begins to take connections of clients. Must be called in a runtime.
    pub fn accept(&self) -> anyhow::Result<Accepting> {
        self.drain.send_replace(Intake::Open);
        let mut listeners = Vec::with_capacity(self.sockets.public.len());
        for (socket, leg) in &self.sockets.public {
            let listener = Listener {
                socket: served(socket)?,
                leg: *leg,
                live: Arc::clone(&self.live),
                proxy_protocol: Arc::clone(&self.proxy_protocol),
                connections: Arc::clone(&self.connections),
                challenges: Arc::clone(&self.challenges),
                draining: self.drain.subscribe(),
            };
            listeners.push(supervised("listener", listener, |listener| {
                Box::pin(listener.run())
            }));
        }
        Ok(Accepting {
            drain: self.drain.clone(),
            listeners,
        })
    }
}

fn served(socket: &TcpListener) -> anyhow::Result<tokio::net::TcpListener> {
    let socket = socket
        .try_clone()
        .and_then(tokio::net::TcpListener::from_std);
    socket.context("cannot take connections on an open port")
}

impl Accepting {
    /// Whether no more connections are taken.
    pub fn is_closed(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Takes no more connections; the sockets stay open.
    pub async fn close(&mut self, how: Intake) {
        self.drain.send_replace(how);
        for listener in self.listeners.drain(..) {
            listener.ended().await;
        }
    }
}
