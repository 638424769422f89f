//! Certificates of clients: who must show one, and which are good.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::TlsError;
use crate::client_certificate::ClientCertificate;
use crate::pem_file::PemFile;
use gateway_datapath::tls::Agreed;

tokio::task_local! {
    /// What the verifier knows of the handshake for which it is asked.
    static HANDSHAKE: Handshake;
}

struct Handshake {
    shown: RefCell<Shown>,
    /// Whether clients without a certificate are let through to [`ClientRule::identify`].
    may_be_without: bool,
}

/// What the certificate that a client has shown in a handshake, good or not, says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// It has shown none; it may have done so when the session began.
    #[default]
    Nothing,
    /// It cannot be read, or not be told whole.
    Unreadable,
    /// It was read.
    Read(ClientCertificate),
}

impl Shown {
    fn of(der: &[u8]) -> Self {
        ClientCertificate::of(der).map_or(Self::Unreadable, Self::Read)
    }

    /// The subject, for the log; `None`: there is no certificate.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Unreadable => Some("?"),
            Self::Read(certificate) => Some(&certificate.subject),
        }
    }
}

/// A client that is not let in, and the certificate for which it is not.
#[derive(Debug, PartialEq)]
pub struct NotIdentified {
    /// Why not.
    pub error: Error,
    /// The certificate.
    pub shown: Shown,
}

/// Makes a handshake; gives besides the certificate that the client has shown.
///
/// The handshake of a client that `may_be_without` a certificate does not fail for that, even where
/// one is required: [`ClientRule::identify`] does.
///
/// It is pinned where it is made: moved through further futures it would take its place in each of
/// them.
pub async fn noting_certificate<T>(
    handshake: Pin<&mut impl Future<Output = T>>,
    may_be_without: bool,
) -> (T, Shown) {
    let noting = async {
        let shaken = handshake.await;
        (shaken, HANDSHAKE.with(|handshake| handshake.shown.take()))
    };
    let known = Handshake {
        shown: RefCell::default(),
        may_be_without,
    };
    HANDSHAKE.scope(known, noting).await
}

/// Which certificates clients may show, and whether they must.
pub struct ClientRule {
    inner: Arc<dyn ClientCertVerifier>,
    is_required: bool,
    authorities: usize,
    lists: usize,
}

impl ClientRule {
    /// Certificates that one of the authorities in a file has signed and that no list in another
    /// one revokes. The error says what is wrong with which of the files.
    pub(super) fn new(
        authorities: &PemFile,
        lists: Option<&PemFile>,
        is_required: bool,
    ) -> Result<Self, TlsError> {
        let wrong_authorities = |reason| TlsError::ClientAuthorities {
            path: authorities.path.clone(),
            reason,
        };
        let listed = authorities.certificates().map_err(wrong_authorities)?;
        let mut roots = RootCertStore::empty();
        for (at, certificate) in (1..).zip(&listed) {
            roots.add(certificate.clone()).map_err(|error| {
                wrong_authorities(format!("certificate {at} cannot be an authority: {error}"))
            })?;
        }
        let wrong_lists = |reason| TlsError::ClientLists {
            path: lists.map(|file| file.path.clone()).unwrap_or_default(),
            reason,
        };
        let revoked = lists.map_or(Ok(Vec::new()), PemFile::revocation_lists);
        let revoked = revoked.map_err(wrong_lists)?;
        let count = revoked.len();
        let provider = Arc::new(default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(revoked)
            .enforce_revocation_expiration();
        if !is_required {
            builder = builder.allow_unauthenticated();
        }
        let inner = builder.build().map_err(|error| match error {
            VerifierBuilderError::NoRootAnchors => wrong_authorities(error.to_string()),
            error => wrong_lists(error.to_string()),
        })?;
        Ok(Self {
            inner,
            is_required,
            authorities: listed.len(),
            lists: count,
        })
    }

    /// For handshakes.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let inner = Arc::clone(&self.inner);
        Arc::new(Noting { inner })
    }

    /// Who the client of a handshake is in which it has `shown` this; `None`: it has no
    /// certificate, and needs none.
    ///
    /// With a session that is resumed comes the certificate with which it began: it may have
    /// expired since, so it is looked at again.
    pub fn identify(
        &self,
        agreed: &Agreed,
        shown: Shown,
    ) -> Result<Option<ClientCertificate>, Box<NotIdentified>> {
        let Some((own, issuers)) = agreed.certificates.split_first() else {
            let error = Error::NoCertificatesPresented;
            return if self.is_required {
                Err(Box::new(NotIdentified { error, shown }))
            } else {
                Ok(None)
            };
        };
        let shown = if agreed.is_resumed {
            let shown = Shown::of(own);
            let verified = self.inner.verify_client_cert(own, issuers, UnixTime::now());
            if let Err(error) = verified {
                return Err(Box::new(NotIdentified { error, shown }));
            }
            shown
        } else {
            shown
        };
        match shown {
            Shown::Read(certificate) => Ok(Some(certificate)),
            Shown::Nothing | Shown::Unreadable => Err(Box::new(NotIdentified {
                error: CertificateError::BadEncoding.into(),
                shown,
            })),
        }
    }

    /// What the log tells of it.
    pub fn summary(&self) -> String {
        let must = if self.is_required {
            "required"
        } else {
            "optional"
        };
        let (authorities, lists) = (self.authorities, self.lists);
        format!(
            "{must}, authorities in ClientCAFile: {authorities}, lists in ClientCRLFile: {lists}"
        )
    }
}

/// Why a client's certificate was not accepted, or that it has none; `None`: the handshake failed
/// for another reason.
pub fn refusal(error: &Error) -> Option<String> {
    use CertificateError as E;
    let error = match error {
        Error::NoCertificatesPresented => return Some("it has shown none".to_owned()),
        Error::InvalidCertificate(error) => error,
        _ => return None,
    };
    let reason = match error {
        E::Expired | E::ExpiredContext { .. } => "it has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "it is not valid yet",
        E::Revoked => "it is revoked",
        E::UnknownIssuer => "no authority in ClientCAFile has signed it",
        E::UnknownRevocationStatus => "ClientCRLFile has no list of the authority that signed it",
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            "the list of its authority in ClientCRLFile is out of date"
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "its extended key usage is not that of clients"
        }
        E::BadEncoding => "it cannot be read",
        E::BadSignature => "a signature is wrong",
        other => return Some(other.to_string()),
    };
    Some(reason.to_owned())
}

/// Notes each certificate before it is looked at.
#[derive(Debug)]
struct Noting {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Noting {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        let may_be_without = HANDSHAKE.try_with(|handshake| handshake.may_be_without);
        self.inner.client_auth_mandatory() && !may_be_without.unwrap_or(false)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let shown = Shown::of(end_entity);
        let is_unreadable = shown == Shown::Unreadable;
        // Outside of a handshake nobody asks.
        let _ = HANDSHAKE.try_with(|handshake| handshake.shown.replace(shown));
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        // One that cannot be told whole would be passed on as somebody else's.
        if is_unreadable {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    use super::*;

    /// An authority in a file, and a certificate that it has signed and that ends then.
    fn signed_until(end: SystemTime) -> (tempfile::NamedTempFile, CertificateDer<'static>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::default();
        params.not_after = end.into();
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &issuer).unwrap();
        (file, signed.der().clone())
    }

    fn rule(file: &tempfile::NamedTempFile, is_required: bool) -> ClientRule {
        let rule = ClientRule::new(&PemFile::read(file.path()), None, is_required);
        rule.map_err(|_| "no rule").unwrap()
    }

    #[test]
    fn a_certificate_that_has_expired_since_is_not_resumed() {
        let hour = Duration::from_hours(1);
        for (end, is_good) in [
            (SystemTime::now() + hour, true),
            (SystemTime::now() - hour, false),
        ] {
            let (file, certificate) = signed_until(end);
            let agreed = Agreed {
                is_resumed: true,
                certificates: vec![certificate],
                ..Agreed::default()
            };
            let identified = rule(&file, true).identify(&agreed, Shown::Nothing);
            match identified {
                Ok(read) => assert!(is_good && read.is_some()),
                Err(refused) => {
                    assert!(!is_good);
                    assert_eq!(refusal(&refused.error).as_deref(), Some("it has expired"));
                    assert!(refused.shown.subject().is_some_and(|name| name != "?"));
                }
            }
        }
    }

    #[test]
    fn a_session_without_a_certificate_is_good_only_where_none_is_required() {
        let (file, _) = signed_until(SystemTime::now());
        let agreed = Agreed {
            is_resumed: true,
            ..Agreed::default()
        };
        let nothing = Shown::Nothing;
        assert_eq!(rule(&file, false).identify(&agreed, nothing), Ok(None));
        let refused = rule(&file, true).identify(&agreed, Shown::Nothing);
        let refused = *refused.unwrap_err();
        let expected = NotIdentified {
            error: Error::NoCertificatesPresented,
            shown: Shown::Nothing,
        };
        assert_eq!(refused, expected);
    }

    #[test]
    fn what_a_handshake_has_read_is_not_read_again() {
        let (file, certificate) = signed_until(SystemTime::now());
        let read = Shown::of(&certificate);
        let agreed = Agreed {
            certificates: vec![CertificateDer::from(b"no certificate".to_vec())],
            ..Agreed::default()
        };
        let identified = rule(&file, true).identify(&agreed, read.clone()).unwrap();
        assert_eq!(identified.map(Shown::Read), Some(read));
        for unknown in [Shown::Nothing, Shown::Unreadable] {
            assert!(rule(&file, true).identify(&agreed, unknown).is_err());
        }
    }

    #[test]
    fn other_failures_are_not_about_certificates() {
        assert_eq!(refusal(&Error::HandshakeNotComplete), None);
        assert_eq!(
            refusal(&CertificateError::Revoked.into()).as_deref(),
            Some("it is revoked")
        );
    }
}
