//! Changing the configuration and its files while channels go on.
//!
//! SIGHUP reads everything again. Certificate, key, authorities of the manager, the hosts and the
//! portal, keys of a pool and of those who sign tickets, and the file with desktops are looked at
//! every few seconds besides, by content: renewals swap symlinks, and write one file after the
//! other. What cannot be used is told, and everything stays as it was.

mod found;
mod loaded_path;
mod phase;
mod taken;
mod watched;

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::Signal;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{error, info, warn};

use crate::background::OWN;
use crate::config::{Changes, Sources};
use crate::desktops;
use crate::limits::{self, ConnectionLimits};
use crate::log::Verbosity;
use crate::pem_file::Fingerprint;
use crate::prepared::{HostCa, ManagerTls, PortalTls, Prepared, Signers};
use crate::serving::{Live, PeerTls, Serving};
use crate::tls::{Identity, Notice, Reminder};
use found::{Found, InEffect};
pub use loaded_path::LoadedPath;
pub use phase::Phase;
use phase::{Observed, Observer};
use taken::{desktops_of, take_congestion, take_desktops, take_pool, take_web_client};
use watched::{News, Watched};

/// How often the end of the certificate is looked at.
const REMINDER_INTERVAL: Duration = Duration::from_secs(3_600);

/// What the log calls the content of `ManagerCAFile`.
const AUTHORITIES: &str = "authorities of the manager";
/// What it calls that of `TicketURLCAFile`.
const PORTAL_AUTHORITIES: &str = "authorities of the portal";
/// What it calls that of `HostCAFile`.
const HOST_AUTHORITIES: &str = "authorities of the hosts";

type Failure = Box<dyn Error + Send + Sync>;

/// Longest wait for a thread that reads files.
const WAIT: Duration = Duration::from_secs(60);

/// What a reload works on.
pub struct Reloader {
    sources: Sources,
    live: Arc<Live>,
    connections: Arc<ConnectionLimits>,
    loaded: LoadedPath,
    verbosity: Verbosity,
    identity: Watched,
    manager_ca: Watched,
    host_ca: Watched,
    /// What both were read as.
    tls: PeerTls,
    pool: Watched,
    signers: Watched,
    /// Whose file was read last.
    signers_in_effect: Signers,
    portal: Watched,
    portal_tls: PortalTls,
    desktops: Watched,
    reminder: Reminder,
    /// Reasons that were told; once each, until all is well again.
    told: Vec<String>,
    observer: Observer,
    /// Told when the files are to be looked at now.
    look: Arc<Notify>,
    /// Told when the configuration was read again.
    reloaded: Arc<Notify>,
}

/// What the files with authorities held that are in effect.
#[derive(Clone, Copy, Debug)]
pub struct AuthorityFiles {
    /// `ManagerCAFile`.
    pub manager: Fingerprint,
    /// `HostCAFile`.
    pub hosts: Fingerprint,
}

impl Reloader {
    /// Reads `sources` and the files that they name; what is in effect is in `live`.
    ///
    /// `tls`: what requests are served with, made of the files `authorities`; `pool`: what the
    /// pool's keys were read from.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, with everything that is in effect"
    )]
    pub fn new(
        sources: Sources,
        live: Arc<Live>,
        tls: PeerTls,
        authorities: AuthorityFiles,
        pool: Fingerprint,
        signers: Signers,
        portal_tls: PortalTls,
        connections: Arc<ConnectionLimits>,
        loaded: LoadedPath,
        verbosity: Verbosity,
    ) -> Self {
        Self {
            sources,
            identity: Watched::new(live.current().identity.fingerprint),
            desktops: Watched::new(desktops::fingerprint_of(
                desktops_of(&live.current()).as_deref(),
            )),
            live,
            connections,
            loaded,
            verbosity,
            manager_ca: Watched::new(authorities.manager),
            host_ca: Watched::new(authorities.hosts),
            tls,
            pool: Watched::new(pool),
            signers: Watched::new(signers.fingerprint),
            signers_in_effect: signers,
            portal: Watched::new(portal_tls.fingerprint),
            portal_tls,
            reminder: Reminder::default(),
            told: Vec::new(),
            observer: Arc::new(|_| ()),
            look: Arc::default(),
            reloaded: Arc::default(),
        }
    }

    /// Looks at the files whenever `look` is told, and tells `reloaded` that the configuration was
    /// read again.
    #[must_use]
    pub fn with_renewal(mut self, look: Arc<Notify>, reloaded: Arc<Notify>) -> Self {
        self.look = look;
        self.reloaded = reloaded;
        self
    }

    /// Calls this at the begin and the end of each reload that SIGHUP asked for.
    #[must_use]
    pub fn observed(mut self, observer: impl Fn(Phase) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Reloads at each `hangup` and whenever files have changed; for ever.
    pub async fn run(&mut self, hangup: &mut Signal) -> Infallible {
        let mut reminding = interval(REMINDER_INTERVAL);
        reminding.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut polled = Instant::now();
        loop {
            let pause = self.live.current().config.certificate_poll;
            let poll = async {
                match pause {
                    Some(pause) => sleep_until(polled + pause).await,
                    None => std::future::pending().await,
                }
            };
            let look = Arc::clone(&self.look);
            tokio::select! {
                _ = hangup.recv() => {
                    self.reload().await;
                    self.reloaded.notify_one();
                }
                () = look.notified() => self.poll().await,
                () = poll => {
                    self.poll().await;
                    polled = Instant::now();
                }
                _ = reminding.tick() => {}
            }
            self.remind();
        }
    }

    async fn reload(&mut self) {
        let _observed = Observed::begin(&self.observer);
        let sources = self.sources.clone();
        match OWN.run(WAIT, move || Prepared::read(sources)).await {
            Ok(Ok(prepared)) => self.take(prepared),
            Ok(Err(failure)) => self.refuse(&failure),
            Err(failure) => self.refuse(&failure.into()),
        }
    }

    fn take(&mut self, prepared: Prepared) {
        let Prepared {
            sources,
            loaded,
            identity,
            manager_tls,
            host_ca,
            pool_keys,
            pool_fingerprint,
            signers,
            portal_tls,
            desktops,
            web_client,
        } = prepared;
        self.sources = sources;
        self.told.clear();
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let mut next = Serving::clone(&self.live.current());
        let changes = Changes::new(&next.config, loaded.config, self.loaded.choice);
        for kept in &changes.kept {
            let (in_effect, in_file) = (&kept.old, &kept.new);
            warn!(key = kept.key, %in_effect, %in_file, "this change needs a restart");
        }
        let mut changed: Vec<_> = changes.taken.iter().map(ToString::to_string).collect();
        let has_new_authorities = manager_tls.fingerprint != self.manager_ca.taken();
        let has_new_host_authorities = host_ca.fingerprint != self.host_ca.taken();
        if !changes.taken.is_empty() {
            next.config = Arc::new(changes.config);
            self.apply(&next);
            if changes.taken.iter().any(|change| is_of_portal(change.key)) {
                self.set_portal(&next);
            }
        }
        take_congestion(&mut next);
        if !changes.taken.is_empty() || has_new_authorities || has_new_host_authorities {
            self.take_authorities(&mut next, Some(manager_tls), Some(host_ca));
        }
        if has_new_authorities {
            changed.push(AUTHORITIES.to_owned());
        }
        if has_new_host_authorities {
            changed.push(HOST_AUTHORITIES.to_owned());
        }
        if pool_fingerprint != self.pool.taken() {
            self.pool.take(pool_fingerprint);
            changed.push(take_pool(&next, pool_keys));
        }
        if signers.fingerprint != self.signers.taken() {
            self.signers.take(signers.fingerprint);
            changed.push(self.take_signers(&next, signers));
        }
        if portal_tls.fingerprint != self.portal.taken() {
            self.portal.take(portal_tls.fingerprint);
            self.take_portal(&next, portal_tls);
            changed.push(PORTAL_AUTHORITIES.to_owned());
        }
        let found = desktops::fingerprint_of(desktops.as_ref());
        // Another file may hold the same, and name others beside it.
        let is_elsewhere = changes.taken.iter().any(|change| change.key == "Desktops");
        if is_elsewhere || found != self.desktops.taken() {
            self.desktops.take(found);
            changed.push(take_desktops(&next, desktops));
        }
        changed.extend(take_web_client(&next, web_client));
        if identity.fingerprint != self.identity.taken() {
            match self.worse(&identity) {
                Some(reason) => self.keep_certificate(reason),
                None => changed.push(self.take_identity(&mut next, identity)),
            }
        }
        self.put(next, &changed);
    }

    async fn poll(&mut self) {
        let config = Arc::clone(&self.live.current().config);
        let in_effect = InEffect {
            identity: self.identity.taken(),
            authorities: AuthorityFiles {
                manager: self.manager_ca.taken(),
                hosts: self.host_ca.taken(),
            },
            pool: self.pool.taken(),
            signers: self.signers.taken(),
            portal: self.portal.taken(),
        };
        let desktops = desktops_of(&self.live.current());
        let look = move || Found::look(&config, &in_effect, desktops.as_deref());
        let found = match OWN.run(WAIT, look).await {
            Ok(found) => found,
            Err(failure) => return self.refuse_once(&failure.into()),
        };
        let identity = match found.identity {
            (_, Some(Ok(identity))) if let Some(reason) = self.worse(&identity) => {
                if !self.told.contains(&reason) {
                    self.keep_certificate(reason);
                }
                News::Unsettled
            }
            (found, parsed) => self.identity.judge(found, parsed),
        };
        let manager_ca = self
            .manager_ca
            .judge(found.manager_ca.0, found.manager_ca.1);
        let host_ca = self.host_ca.judge(found.host_ca.0, found.host_ca.1);
        let pool = self.pool.judge(found.pool.0, found.pool.1);
        let signers = self.signers.judge(found.signers.0, found.signers.1);
        let portal = self.portal.judge(found.portal.0, found.portal.1);
        let desktops = self.desktops.judge(found.desktops.0, found.desktops.1);
        if matches!(
            (&identity, &manager_ca, &host_ca, &pool),
            (News::Same, News::Same, News::Same, News::Same)
        ) && matches!(
            (&signers, &portal, &desktops),
            (News::Same, News::Same, News::Same)
        ) {
            self.told.clear();
            return;
        }
        let mut next = Serving::clone(&self.live.current());
        let mut changed = Vec::new();
        if let Some(identity) = self.settled(identity) {
            changed.push(self.take_identity(&mut next, identity));
        }
        if let Some(manager_tls) = self.settled(manager_ca) {
            self.take_authorities(&mut next, Some(manager_tls), None);
            changed.push(AUTHORITIES.to_owned());
        }
        if let Some(host_ca) = self.settled(host_ca) {
            self.take_authorities(&mut next, None, Some(host_ca));
            changed.push(HOST_AUTHORITIES.to_owned());
        }
        if let Some(keys) = self.settled(pool) {
            changed.push(take_pool(&next, keys));
        }
        if let Some(signers) = self.settled(signers) {
            changed.push(self.take_signers(&next, signers));
        }
        if let Some(portal_tls) = self.settled(portal) {
            self.take_portal(&next, portal_tls);
            changed.push(PORTAL_AUTHORITIES.to_owned());
        }
        if let Some(file) = self.settled(desktops) {
            changed.push(take_desktops(&next, file));
        }
        if !changed.is_empty() {
            self.put(next, &changed);
        }
    }

    /// What is to be in effect from now on. What cannot be is told.
    fn settled<T>(&mut self, news: News<T, Failure>) -> Option<T> {
        match news {
            News::Good(good) => Some(good),
            News::Bad(failure) => {
                self.refuse_once(&failure);
                None
            }
            News::Same | News::Unsettled => None,
        }
    }

    /// Why a certificate is no better than the one in use: the former cannot be valid now while the
    /// latter is, so clients would refuse what they took before.
    fn worse(&self, found: &Identity) -> Option<String> {
        let now = SystemTime::now();
        let serving = self.live.current();
        let in_use = &serving.identity.certificate;
        if found.is_placeholder && !serving.identity.is_placeholder {
            let reason = "there is no certificate of the authority of Acme";
            return in_use.is_valid_at(now).then(|| reason.to_owned());
        }
        if found.certificate.is_valid_at(now) || !in_use.is_valid_at(now) {
            return None;
        }
        let notice = found.certificate.notice(now)?;
        Some(format!("the certificate in the files {notice}"))
    }

    fn keep_certificate(&mut self, reason: String) {
        let in_use = &self.live.current().identity.certificate;
        warn!(reason, %in_use, "the certificate in use is kept while it is valid");
        self.told.push(reason);
    }

    /// What the log tells of it.
    fn take_identity(&mut self, next: &mut Serving, identity: Identity) -> String {
        let mut told = format!("certificate {}", identity.certificate);
        if let Some(clients) = &identity.clients {
            told = format!("{told}, certificates of clients {}", clients.summary());
        }
        if let Some(oddity) = &identity.oddity {
            warn!("{oddity}");
        }
        self.identity.take(identity.fingerprint);
        self.reminder = Reminder::default();
        next.identity = Arc::new(identity);
        told
    }

    /// Signed tickets are judged with these keys from now on; says what the log tells of it.
    fn take_signers(&mut self, next: &Serving, signers: Signers) -> String {
        if let Some(warning) = signers.warning() {
            warn!("{warning}");
        }
        let tickets = next.gateway.admissions.tickets();
        tickets.set_signed(signers.tickets(&next.config));
        let count = signers.keys.as_ref().map(|keys| keys.count());
        self.signers_in_effect = signers;
        match count {
            Some(count) => format!("keys of signed tickets, {count} of them"),
            None => "keys of signed tickets, none".to_owned(),
        }
    }

    /// The portal is asked with these authorities from now on.
    fn take_portal(&mut self, next: &Serving, portal_tls: PortalTls) {
        self.portal_tls = portal_tls;
        self.set_portal(next);
    }

    /// Another portal is asked from now on, of which it is not known whether it fails.
    fn set_portal(&self, next: &Serving) {
        let gateway = &next.gateway;
        let portal = self.portal_tls.portal(&next.config, &gateway.metrics);
        gateway.admissions.set_portal(portal);
    }

    /// Requests that come are served as the configuration in `next` says, with these authorities
    /// where there are new ones.
    fn take_authorities(
        &mut self,
        next: &mut Serving,
        manager_tls: Option<ManagerTls>,
        host_ca: Option<HostCa>,
    ) {
        if let Some(manager_tls) = manager_tls {
            self.manager_ca.take(manager_tls.fingerprint);
            self.tls.manager = manager_tls.config;
        }
        if let Some(host_ca) = host_ca {
            self.host_ca.take(host_ca.fingerprint);
            self.tls.hosts = host_ca.authorities;
        }
        let paths = self.loaded.paths_for(&next.config);
        let gateway = next.gateway.changed(&next.config, self.tls.clone(), paths);
        next.gateway = Arc::new(gateway);
    }

    /// To what is one and the same under all configurations.
    fn apply(&self, next: &Serving) {
        let config = &next.config;
        self.verbosity.set(config.debug);
        let tickets = next.gateway.admissions.tickets();
        tickets.set_lives(config.ticket_timeout, config.reconnect_timeout);
        tickets.set_signed(self.signers_in_effect.tickets(config));
        self.connections.set(
            limits::most_connections(config, self.loaded.descriptors),
            config.max_connections_per_address,
            limits::speak_for_many(config),
        );
    }

    fn put(&mut self, next: Serving, changed: &[String]) {
        self.live.replace(next);
        if changed.is_empty() {
            info!(changed = "nothing", "reloaded");
        } else {
            info!(changed = changed.join("; "), "reloaded");
        }
    }

    fn refuse(&mut self, failure: &Failure) {
        let reason = failure.to_string().replace('\n', "; ");
        error!(reason, "not reloaded, everything stays as it was");
        if !self.told.contains(&reason) {
            self.told.push(reason);
        }
    }

    /// Nobody asked, so the same is not told again.
    fn refuse_once(&mut self, failure: &Failure) {
        let reason = failure.to_string().replace('\n', "; ");
        if !self.told.contains(&reason) {
            self.refuse(failure);
        }
    }

    fn remind(&mut self) {
        let serving = self.live.current();
        let certificate = &serving.identity.certificate;
        match self.reminder.due(certificate, SystemTime::now()) {
            None => {}
            Some(Notice::NotYet { from }) => {
                warn!(%certificate, %from, "the certificate is not valid yet");
            }
            Some(Notice::EndsSoon { days }) => {
                warn!(%certificate, days, "the certificate ends soon");
            }
            Some(Notice::Ended { since }) => {
                warn!(%certificate, %since, "the certificate has expired");
            }
        }
    }
}

/// Whether another portal is asked, or in another way, when this key changes.
fn is_of_portal(key: &str) -> bool {
    ["HijackAll", "TicketURL", "TicketURLTimeout"].contains(&key)
}
