//! Certificates that the gateway gets by itself and renews (`Acme`; RFC 8555).
//!
//! A task looks at the file with the certificate, orders another one when it is time, and puts it
//! into the file. From there it gets into handshakes as every renewed certificate does: the reload
//! looks at the file. So nothing here touches a connection, and a gateway that begins has what the
//! one before had.
//!
//! One process renews, the one that holds a lock in `StateDirectory`; another one, such as a
//! successor during a hand-over, waits for it.

mod advice;
mod answers;
mod authority;
mod directory;
mod failure;
mod http;
mod kept;
mod order;
mod progress;
mod schedule;
mod store;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use instant_acme::CertificateIdentifier;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, info, warn};
use zeroize::Zeroizing;

use crate::background::OWN;
use crate::config::{Acme, Config};
use crate::manager::{self, ManagerTlsError};
use crate::metrics::AcmeResult;
use crate::pem_file::PemFile;
use crate::serving::Live;
use crate::tls::Challenges;
use advice::Advice;
use authority::Authority;
pub use directory::{Offer, OfferError, ask};
use failure::Failure;
use kept::Kept;
use order::Ordering as Order;
use progress::seconds;
pub use progress::{AcmeStatus, Progress};
use schedule::MAX_RETRY_AFTER;
use store::{Lock, Store};

/// Longest life of an order.
const LIMIT: Duration = Duration::from_secs(300);
/// Longest wait for what the authority says of a certificate.
const ADVICE_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it is time: the system's clock may be set.
const LOOK: Duration = Duration::from_secs(3_600);
/// How often it is looked whether another process has stopped renewing.
const LOCK_RETRY: Duration = Duration::from_secs(10);
/// Longest wait for a thread that reads or writes files.
const WAIT: Duration = Duration::from_secs(60);
/// A new certificate is not renewed sooner, however short its life is.
const MIN_AGE: Duration = Duration::from_secs(10);

/// What the renewal has in common with the rest of the gateway.
#[derive(Clone, Default)]
pub struct Shared {
    /// What handshakes are asked for while an authority checks names.
    pub challenges: Arc<Challenges>,
    /// How it goes.
    pub progress: Arc<Progress>,
    /// Told when there is a new certificate in the file.
    pub kept: Arc<Notify>,
    /// Told when the configuration was read again.
    pub reloaded: Arc<Notify>,
    /// Another process has the ports.
    is_elsewhere: Arc<AtomicBool>,
}

impl Shared {
    /// Leaves it to the process that has the ports from now on: an authority could not check names
    /// here any more, however long this process goes on with channels.
    pub fn leave(&self) {
        self.is_elsewhere.store(true, Ordering::Relaxed);
        self.reloaded.notify_one();
    }

    /// This process has the ports again.
    pub fn come_back(&self) {
        self.is_elsewhere.store(false, Ordering::Relaxed);
        self.reloaded.notify_one();
    }
}

/// Orders certificates in time.
pub struct Renewal {
    live: Arc<Live>,
    shared: Shared,
    /// Of which directory this process has the lock.
    lock: Option<(Store, Lock)>,
    /// Whether it was told that another process has it.
    told_of_lock: bool,
    failures: u32,
    /// Nothing is ordered before.
    not_before: Option<Instant>,
    /// A certificate that could not be kept yet, and where it belongs.
    unkept: Option<(PathBuf, Zeroizing<String>)>,
    /// What the authority says of the certificate that there is.
    advice: Option<Advice>,
    /// When it is asked again.
    ask_from: Instant,
}

/// What is to be done next.
enum Next {
    /// To look again after this time.
    Wait(Duration),
    Order(Why),
}

/// Why a certificate is ordered, and in the place of which one.
type Why = (kept::Reason, Option<CertificateIdentifier<'static>>);

/// Reads `DirectoryCAFile`, if the configuration asks for certificates.
pub fn check(config: &Config) -> Result<(), ManagerTlsError> {
    let acme = config.acme.as_ref();
    acme.map_or(Ok(()), |acme| authorities(acme).map(drop))
}

/// Who may have signed the certificate of the authority's server.
fn authorities(acme: &Acme) -> Result<rustls::ClientConfig, ManagerTlsError> {
    let file = PemFile::read(&acme.directory_ca_file);
    manager::acme_config(&file)
}

/// The authority, with what vouches for its server now.
async fn authority(acme: &Acme) -> Result<Authority, Failure> {
    let acme = acme.clone();
    let tls = on_disk(move || authorities(&acme)).await??;
    Ok(Authority::new(tls))
}

/// Does this with files, on a thread that may be blocked.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = OWN.run(WAIT, work).await;
    done.map_err(|error| Failure::System(error.to_string()))
}

impl Renewal {
    /// As the configuration in effect says, whenever it is looked at.
    pub fn new(live: Arc<Live>, shared: Shared) -> Self {
        Self {
            live,
            shared,
            lock: None,
            told_of_lock: false,
            failures: 0,
            not_before: None,
            unkept: None,
            advice: None,
            ask_from: Instant::now() + advice::PAUSES.0,
        }
    }

    /// Orders certificates in time, for ever.
    pub async fn run(&mut self) -> Infallible {
        loop {
            let wait = match self.look().await {
                Ok(wait) => wait,
                Err(failure) => self.failed(&failure, None),
            };
            let reloaded = Arc::clone(&self.shared.reloaded);
            tokio::select! {
                () = sleep(wait) => {}
                () = reloaded.notified() => {
                    // Whoever has changed something wants to see at once whether it helps.
                    self.not_before = None;
                    self.failures = 0;
                    self.ask_from = Instant::now();
                }
            }
        }
    }

    /// Does what there is to be done; says how long to wait then.
    async fn look(&mut self) -> Result<Duration, Failure> {
        let config = Arc::clone(&self.live.current().config);
        if self.shared.is_elsewhere.load(Ordering::Relaxed) {
            self.lock = None;
            return Ok(LOOK);
        }
        let Some(acme) = &config.acme else {
            self.lock = None;
            self.unkept = None;
            self.shared.progress.off();
            return Ok(LOOK);
        };
        self.shared.progress.change(|status| {
            status.domains.clone_from(&acme.domains);
            status.directory = acme.directory.to_string();
        });
        let store = Store::new(config.acme_directory());
        if !self.has_lock(&store).await? {
            self.shared
                .progress
                .change(|status| status.next_attempt = None);
            return Ok(LOCK_RETRY);
        }
        let path = config.certificate_file().to_path_buf();
        self.keep_unkept(&store, &path).await?;
        match self.next(&config, acme, &store, path.clone()).await? {
            Next::Wait(wait) => {
                let next = seconds(SystemTime::now() + wait);
                self.shared
                    .progress
                    .change(|status| status.next_attempt = Some(next));
                Ok(wait.min(LOOK))
            }
            Next::Order(why) => Ok(self.order(&config, acme, store, path, why).await),
        }
    }

    async fn has_lock(&mut self, store: &Store) -> Result<bool, Failure> {
        if matches!(&self.lock, Some((of, _)) if of == store) {
            return Ok(true);
        }
        self.lock = None;
        let locking = store.clone();
        let lock = on_disk(move || locking.lock()).await??;
        let has_lock = lock.is_some();
        if !has_lock && !self.told_of_lock {
            let directory = store.directory().display();
            info!(%directory, "another process renews the certificate");
        }
        self.told_of_lock = !has_lock;
        self.lock = lock.map(|lock| (store.clone(), lock));
        Ok(has_lock)
    }

    /// Whether there is a certificate, until when it is good enough, and whether another one may be
    /// ordered.
    async fn next(
        &mut self,
        config: &Config,
        acme: &Acme,
        store: &Store,
        path: PathBuf,
    ) -> Result<Next, Failure> {
        let (reading, directory) = (store.clone(), acme.directory.clone());
        let read = on_disk(move || (Kept::read(&path), reading.pause(&directory)));
        let (kept, pause) = read.await?;
        let why = match kept {
            None => (kept::Reason::None, None),
            Some(kept) => {
                let advised = self.advised(config, acme, store, &kept).await;
                let now = SystemTime::now();
                match kept.judge(acme, advised, now) {
                    Ok(due) => return Ok(Next::Wait(due.duration_since(now).unwrap_or_default())),
                    Err(reason) => (reason, kept.identifier(acme)),
                }
            }
        };
        let now = SystemTime::now();
        let own = self.not_before.map_or(Duration::ZERO, |time| {
            time.saturating_duration_since(Instant::now())
        });
        // A time that is further ahead was written under another clock.
        let asked = pause.and_then(|pause| pause.duration_since(now).ok());
        let asked = asked.filter(|asked| *asked <= MAX_RETRY_AFTER);
        let wait = own.max(asked.unwrap_or_default());
        Ok(if wait.is_zero() {
            Next::Order(why)
        } else {
            Next::Wait(wait)
        })
    }

    /// When the authority wants this certificate to be renewed, as far as it is known. It is asked
    /// once in a while, and not at the start: what is there is good for now.
    async fn advised(
        &mut self,
        config: &Config,
        acme: &Acme,
        store: &Store,
        kept: &Kept,
    ) -> Option<SystemTime> {
        let known = self.advice.filter(|advice| advice.of == kept.number());
        let known = known.map(|advice| advice.due);
        let certificate = kept.identifier(acme)?;
        if Instant::now() < self.ask_from {
            return known;
        }
        let asking = async {
            let authority = authority(acme).await?;
            let ordering = Order {
                acme,
                store,
                authority: &authority,
                challenges: &self.shared.challenges,
                listen_address: config.listen_address,
                replaces: None,
            };
            ordering.window(&certificate).await
        };
        let asked = timeout(ADVICE_LIMIT, asking).await;
        let (soonest, latest) = advice::PAUSES;
        let (due, pause) = match asked.unwrap_or(Err(Failure::Timeout(ADVICE_LIMIT))) {
            Ok(Some((window, again))) => {
                let advice = Advice::new(kept.number(), window, kept.share());
                self.advice = Some(advice);
                (Some(advice.due), again.clamp(soonest, latest))
            }
            Ok(None) => (known, latest),
            Err(error) => {
                debug!(%error, "the authority does not say when to renew");
                (known, soonest)
            }
        };
        self.ask_from = Instant::now() + pause;
        due
    }

    /// Orders a certificate and keeps it; says how long to wait then.
    async fn order(
        &mut self,
        config: &Config,
        acme: &Acme,
        store: Store,
        path: PathBuf,
        (reason, replaces): Why,
    ) -> Duration {
        info!(
            names = acme.domains.join(", "),
            directory = %acme.directory,
            reason = reason.to_string(),
            "ordering a certificate"
        );
        let begun = Instant::now();
        self.shared.progress.change(|status| {
            status.last_attempt = Some(seconds(SystemTime::now()));
            status.next_attempt = None;
        });
        let authority = match authority(acme).await {
            Ok(authority) => authority,
            Err(failure) => return self.failed(&failure, None),
        };
        let challenges = Arc::clone(&self.shared.challenges);
        let ordering = Order {
            acme,
            store: &store,
            authority: &authority,
            challenges: &challenges,
            listen_address: config.listen_address,
            replaces,
        };
        let attempt = timeout(LIMIT, self.attempt(&ordering, &path)).await;
        match attempt.unwrap_or(Err(Failure::Timeout(LIMIT))) {
            Ok(kept) => {
                info!(
                    certificate = %kept.certificate(),
                    milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "the authority has given a certificate"
                );
                self.succeeded(&kept)
            }
            Err(failure) => {
                let asked = authority.noted().retry_after;
                if let Some(asked) = asked {
                    let until = SystemTime::now() + asked.min(MAX_RETRY_AFTER);
                    let directory = acme.directory.clone();
                    // This process waits that long even if it cannot be kept for the next one.
                    let _ = on_disk(move || store.keep_pause(&directory, until)).await;
                }
                self.failed(&failure, asked)
            }
        }
    }

    async fn attempt(&mut self, ordering: &Order<'_>, path: &Path) -> Result<Kept, Failure> {
        let store = ordering.store.clone();
        on_disk(move || store.prove_room()).await??;
        let text = ordering.run().await?;
        let kept = Kept::of(path, text.as_bytes()).map_err(Failure::Unusable)?;
        if !kept.is_for(ordering.acme) {
            let names = kept.certificate().names.join(", ");
            return Err(Failure::Unusable(format!("it is for {names}")));
        }
        self.unkept = Some((path.to_owned(), text));
        self.keep_unkept(ordering.store, path).await?;
        match kept.certificate().notice(SystemTime::now()) {
            Some(notice) if !kept.certificate().is_valid_at(SystemTime::now()) => {
                let reason = format!("by this system's clock it {notice}; set the clock");
                Err(Failure::Unusable(reason))
            }
            _ => Ok(kept),
        }
    }

    /// Puts a certificate into its file that could not be kept before, so that none has to be
    /// ordered in its place.
    async fn keep_unkept(&mut self, store: &Store, path: &Path) -> Result<(), Failure> {
        let Some((of, text)) = self.unkept.clone() else {
            return Ok(());
        };
        if of == path {
            let (store, path) = (store.clone(), path.to_owned());
            on_disk(move || store.keep_certificate(&path, text.as_bytes())).await??;
            self.shared.kept.notify_one();
        }
        self.unkept = None;
        Ok(())
    }

    fn succeeded(&mut self, kept: &Kept) -> Duration {
        self.count(AcmeResult::Issued);
        self.failures = 0;
        let now = SystemTime::now();
        let wait = kept.due().and_then(|due| due.duration_since(now).ok());
        let wait = wait.unwrap_or_default().max(MIN_AGE);
        self.not_before = Some(Instant::now() + wait.min(LOOK));
        self.shared.progress.change(|status| {
            status.failures = 0;
            status.last_error = None;
            status.next_attempt = Some(seconds(now + wait));
        });
        wait.min(LOOK)
    }

    /// Tells what went wrong; says how long to wait then.
    fn failed(&mut self, failure: &Failure, retry_after: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let failures = self.failures;
        let pause = schedule::pause(failure, failures, retry_after);
        self.not_before = Some(Instant::now() + pause);
        self.count(failure.result());
        let reason = failure.to_string();
        let now = SystemTime::now();
        self.shared.progress.change(|status| {
            status.failures = failures;
            status.last_error = Some(reason.clone());
            status.next_attempt = Some(seconds(now + pause));
        });
        let serving = self.live.current();
        let (in_use, seconds) = (&serving.identity.certificate, pause.as_secs());
        if serving.identity.is_placeholder || !in_use.is_valid_at(now) {
            error!(
                reason,
                failures, seconds, "clients get no valid certificate; it is tried again"
            );
        } else {
            warn!(reason, failures, seconds, %in_use, "there is no new certificate; it is tried again");
        }
        pause.min(LOOK)
    }

    fn count(&self, result: AcmeResult) {
        let serving = self.live.current();
        serving.gateway.metrics.acme_attempts.count(result);
    }
}
