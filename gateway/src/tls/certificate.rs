//! What a certificate says of itself, and when it must be told that its end comes near.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// A certificate that ends sooner than this is told of.
const NOTICE: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 86_400;

/// What is told of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// DNS names and IP addresses that it is for, else its common name (RFC 5280, sections
    /// 4.2.1.6 and 4.1.2.6).
    pub names: Vec<String>,
    /// When it ends, in seconds since the Unix epoch; `None`: it cannot be read.
    pub not_after: Option<u64>,
}

impl Certificate {
    /// Of the server's own certificate, which is the first of a chain.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self::default();
        };
        let not_after = certificate.validity().not_after.timestamp();
        Self {
            names: names(&certificate),
            not_after: Some(u64::try_from(not_after).unwrap_or(0)),
        }
    }

    /// The day on which it ends, in UTC; `unknown` if it cannot be read.
    pub fn expires(&self) -> impl fmt::Display {
        self.not_after
            .and_then(|seconds| i64::try_from(seconds).ok())
            .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
            .map_or_else(
                || "unknown".to_owned(),
                |time| time.to_datetime().date().to_string(),
            )
    }
}

/// The names, then the end: `gateway.example.com, 192.0.2.1 until 2030-12-31`.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} until {}", self.names.join(", "), self.expires())
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative: Vec<_> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|extension| extension.value.general_names.iter())
        .into_iter()
        .flatten()
        .filter_map(name)
        .collect();
    if !alternative.is_empty() {
        return alternative;
    }
    certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .map(ToOwned::to_owned)
        .collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match *name {
        GeneralName::DNSName(name) => Some(name.to_owned()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Says when the end of a certificate is to be told: at once, then daily.
#[derive(Debug, Default)]
pub struct Reminder {
    told: Option<SystemTime>,
}

impl Reminder {
    /// How many days are left, 0 after the end, if it is time to say so.
    pub fn due(&mut self, certificate: &Certificate, now: SystemTime) -> Option<u64> {
        let end = UNIX_EPOCH + Duration::from_secs(certificate.not_after?);
        let left = end.duration_since(now).unwrap_or_default();
        // A clock that was set back counts as a new day.
        let told_today = self.told.is_some_and(|told| {
            now.duration_since(told)
                .is_ok_and(|age| age < Duration::from_secs(DAY))
        });
        if left >= NOTICE || told_today {
            return None;
        }
        self.told = Some(now);
        Some(left.as_secs() / DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], common_name: &str) -> CertificateDer<'static> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2031, 2, 3);
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, common_name);
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn tells_names_and_end() {
        let read = Certificate::of(&certificate(&["a.example", "192.0.2.1", "::1"], "cn"));
        assert_eq!(read.names, ["a.example", "192.0.2.1", "::1"]);
        assert_eq!(read.not_after, Some(1_927_843_200));
        assert_eq!(
            read.to_string(),
            "a.example, 192.0.2.1, ::1 until 2031-02-03"
        );
        let old = Certificate::of(&certificate(&[], "cn"));
        assert_eq!(old.names, ["cn"]);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let read = Certificate::of(&CertificateDer::from(vec![1, 2, 3]));
        assert_eq!(read, Certificate::default());
        assert_eq!(read.to_string(), " until unknown");
        assert_eq!(Reminder::default().due(&read, SystemTime::now()), None);
    }

    #[test]
    fn the_end_is_told_daily_from_fourteen_days_before() {
        let end = 2_000_000_000;
        let certificate = Certificate {
            not_after: Some(end),
            ..Certificate::default()
        };
        let mut reminder = Reminder::default();
        let mut due = |seconds_before: i64| {
            let now = end.checked_add_signed(-seconds_before).unwrap();
            reminder.due(&certificate, UNIX_EPOCH + Duration::from_secs(now))
        };
        let day = 86_400;
        assert_eq!(due(20 * day), None);
        assert_eq!(due(14 * day), None);
        assert_eq!(due(14 * day - 1), Some(13));
        assert_eq!(due(13 * day), None);
        assert_eq!(due(13 * day - 1), Some(12));
        assert_eq!(due(12 * day), None);
        assert_eq!(due(day / 2), Some(0));
        assert_eq!(due(-day), Some(0));
        assert_eq!(due(-day - 1), None);
        // The clock was set back.
        assert_eq!(due(5 * day), Some(5));
    }
}
