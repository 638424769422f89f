//! One order, from the account to the certificate (RFC 8555, section 7.4).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use instant_acme::{
    AccountBuilder, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::answers;
use super::authority::Authority;
use super::failure::{Failure, Way, is_limited, is_unknown_account, said};
use super::http::{self, Port};
use super::kept;
use super::on_disk;
use super::store::{Account, Found, Store};
use crate::config::Acme;
use crate::tls::{Answers, Awaiting, Challenges};

/// How often the authority is asked whether it is done.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// How far the authority's clock and this system's may be apart: what is more makes certificates
/// look as if they had ended, or as if they never would.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(86_400);

/// What an order is made of.
pub(super) struct Ordering<'a> {
    pub(super) acme: &'a Acme,
    pub(super) store: &'a Store,
    pub(super) authority: &'a Authority,
    pub(super) challenges: &'a Challenges,
    /// Where `HttpPort` is opened; `None`: on all addresses.
    pub(super) listen_address: Option<IpAddr>,
    /// The certificate in whose place the new one is, by its authority's name for it.
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

impl Ordering<'_> {
    /// Orders a certificate; gives the text of the file that is to hold it with its key.
    pub(super) async fn run(&self) -> Result<Zeroizing<String>, Failure> {
        let mut order = self.begin().await?;
        self.prove_names(&mut order).await?;
        let key = Zeroizing::new(order.finalize().await?);
        let chain = order.poll_certificate(&POLLING).await?;
        let directory = self.acme.directory.to_string();
        Ok(Zeroizing::new(kept::text(&directory, &key, &chain)))
    }

    /// From when to when the authority wants a certificate to be renewed, and when it wants to be
    /// asked again; `None`: it does not say such things, or there is no account to ask with.
    pub(super) async fn window(
        &self,
        certificate: &CertificateIdentifier<'_>,
    ) -> Result<Option<((SystemTime, SystemTime), Duration)>, Failure> {
        let (store, directory) = (self.store.clone(), self.acme.directory.clone());
        let Found::Good(account) = on_disk(move || store.account(&directory)).await?? else {
            return Ok(None);
        };
        let builder = self.builder();
        let account = builder.from_credentials(account.credentials).await?;
        match account.renewal_info(certificate).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                Ok(Some(((window.start.into(), window.end.into()), again)))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn begin(&self) -> Result<Order, Failure> {
        let names: Vec<_> = self
            .acme
            .domains
            .iter()
            .cloned()
            .map(Identifier::Dns)
            .collect();
        let account = self.account().await?;
        self.check_clock()?;
        if let Some(replaces) = &self.replaces {
            // Authorities limit such orders less (RFC 9773, section 5). Where it does not help, it
            // must not do harm either.
            let order = NewOrder::new(&names).replaces(replaces.clone());
            match account.new_order(&order).await {
                Ok(order) => return Ok(order),
                Err(error) if is_limited(&error) => return Err(error.into()),
                Err(error) => debug!(%error, "an order is not taken as a renewal"),
            }
        }
        let order = NewOrder::new(&names);
        match account.new_order(&order).await {
            Err(error) if is_unknown_account(&error) => {
                warn!(
                    reason = "the authority does not know it",
                    "the account at the authority cannot be used: another one is registered"
                );
                self.set_account_aside().await?;
                Ok(self.register().await?.new_order(&order).await?)
            }
            order => Ok(order?),
        }
    }

    fn check_clock(&self) -> Result<(), Failure> {
        let Some(date) = self.authority.noted().date else {
            return Ok(());
        };
        let apart = match date.elapsed() {
            Ok(behind) => behind,
            Err(ahead) => ahead.duration(),
        };
        if apart > MAX_CLOCK_ERROR {
            return Err(Failure::Clock(apart));
        }
        Ok(())
    }

    /// The account that is kept, or a new one.
    async fn account(&self) -> Result<instant_acme::Account, Failure> {
        let (store, directory) = (self.store.clone(), self.acme.directory.clone());
        let found = on_disk(move || store.account(&directory)).await??;
        let account = match found {
            Found::None => return self.register().await,
            Found::Damaged(error) => Err(error.to_string()),
            Found::Good(account) => {
                let Account {
                    contact,
                    credentials,
                    ..
                } = *account;
                match self.builder().from_credentials(credentials).await {
                    Ok(account) => Ok((account, contact)),
                    Err(error @ Error::KeyRejected) => Err(error.to_string()),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        match account {
            Ok((account, contact)) => {
                if contact != self.acme.contact {
                    self.change_contact(&account).await?;
                }
                Ok(account)
            }
            Err(reason) => {
                warn!(
                    reason,
                    "the account at the authority cannot be used: another one is registered"
                );
                self.set_account_aside().await?;
                self.register().await
            }
        }
    }

    fn builder(&self) -> AccountBuilder {
        instant_acme::Account::builder_with_http(Box::new(self.authority.clone()))
    }

    async fn register(&self) -> Result<instant_acme::Account, Failure> {
        let directory = self.acme.directory.clone();
        let contact = self.contact();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let created = self
            .builder()
            .create(&new, directory.to_string(), None)
            .await;
        let (account, credentials) = created?;
        let kept = Account {
            directory: directory.to_string(),
            contact: self.acme.contact.clone(),
            credentials,
        };
        let store = self.store.clone();
        on_disk(move || store.keep_account(&directory, &kept)).await??;
        info!(account = account.id(), "registered at the authority");
        Ok(account)
    }

    async fn change_contact(&self, account: &instant_acme::Account) -> Result<(), Failure> {
        account.update_contacts(&self.contact()).await?;
        let (store, acme) = (self.store.clone(), self.acme.clone());
        on_disk(move || match store.account(&acme.directory)? {
            Found::Good(kept) => {
                let kept = Account {
                    contact: acme.contact,
                    ..*kept
                };
                store.keep_account(&acme.directory, &kept)
            }
            Found::None | Found::Damaged(_) => Ok(()),
        })
        .await??;
        Ok(())
    }

    async fn set_account_aside(&self) -> Result<(), Failure> {
        let (store, directory) = (self.store.clone(), self.acme.directory.clone());
        Ok(on_disk(move || store.set_account_aside(&directory)).await??)
    }

    fn contact(&self) -> Vec<&str> {
        self.acme.contact.iter().map(String::as_str).collect()
    }

    fn way(&self) -> Way {
        match self.acme.http_port {
            Some(_) => Way::Http,
            None => Way::Tls,
        }
    }

    /// Shows the authority that the names lead here.
    async fn prove_names(&self, order: &mut Order) -> Result<(), Failure> {
        let way = self.way();
        let kind = match way {
            Way::Tls => ChallengeType::TlsAlpn01,
            Way::Http => ChallengeType::Http01,
        };
        let (mut tls, mut http) = (Answers::new(), http::Answers::new());
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            // One of an earlier order may still hold (RFC 8555, section 7.1.3).
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            let challenge = authorization.challenge(kind.clone());
            let challenge = challenge.ok_or(Failure::NoSuchCheck(way))?;
            let answer = challenge.key_authorization();
            match way {
                Way::Tls => {
                    let certificate = answers::certificate(&name, answer.digest().as_ref())?;
                    tls.insert(name.to_ascii_lowercase(), certificate);
                }
                Way::Http => {
                    http.insert(challenge.token.clone(), answer.as_str().to_owned());
                }
            }
        }
        if tls.is_empty() && http.is_empty() {
            return self.ready(order).await;
        }
        let _awaiting = self.await_authority(tls, http)?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(kind.clone()) {
                challenge.set_ready().await?;
            }
        }
        self.ready(order).await
    }

    fn await_authority(
        &self,
        tls: Answers,
        http: http::Answers,
    ) -> Result<(Option<Awaiting<'_>>, Option<Port>), Failure> {
        let Some(port) = self.acme.http_port else {
            return Ok((Some(self.challenges.await_authority(tls)), None));
        };
        let open = Port::open(self.listen_address, port, http);
        let open = open.map_err(|error| Failure::Port(port, error))?;
        Ok((None, Some(open)))
    }

    /// Waits until the authority has seen enough.
    async fn ready(&self, order: &mut Order) -> Result<(), Failure> {
        match order.poll_ready(&POLLING).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) | Err(Error::Api(_)) => Err(self.why(order).await),
            Err(error) => Err(error.into()),
        }
    }

    /// What the authority says of the names that it could not check.
    async fn why(&self, order: &mut Order) -> Failure {
        let mut told = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let Ok(state) = authorization.refresh().await else {
                continue;
            };
            let problems = state.challenges.iter().filter_map(|it| it.error.as_ref());
            told.extend(problems.map(|problem| format!("{name}: {}", said(problem))));
        }
        if told.is_empty() {
            told.push("it does not say why".to_owned());
        }
        Failure::NotValidated(told.join("; "), self.way())
    }
}
