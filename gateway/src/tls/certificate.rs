//! What a certificate says of itself, and when it must be told that clients may refuse it.

use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::certificate_subject::address_of;

/// A certificate that ends sooner than this is told of.
const NOTICE: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 86_400;

/// What is told of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// DNS names and IP addresses that it is for, else its common name (RFC 5280, sections
    /// 4.2.1.6 and 4.1.2.6).
    pub names: Vec<String>,
    /// When it begins, in seconds since the Unix epoch; `None`: it cannot be read.
    pub not_before: Option<u64>,
    /// When it ends, in seconds since the Unix epoch; `None`: it cannot be read.
    pub not_after: Option<u64>,
}

impl Certificate {
    /// Of the server's own certificate, which is the first of a chain.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self::default();
        };
        let validity = certificate.validity();
        let seconds = |time: ASN1Time| Some(u64::try_from(time.timestamp()).unwrap_or(0));
        Self {
            names: names(&certificate),
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
        }
    }

    /// Whether clients that look at the time take it; true where that cannot be read.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        !matches!(
            self.notice(now),
            Some(Notice::NotYet { .. } | Notice::Ended { .. })
        )
    }

    /// What there is to be told of it at this time.
    pub fn notice(&self, now: SystemTime) -> Option<Notice> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Some(begin) = self.not_before
            && now < Duration::from_secs(begin)
        {
            return Some(Notice::NotYet { from: Utc(begin) });
        }
        let end = Utc(self.not_after?);
        // The last second belongs to it (RFC 5280, section 4.1.2.5).
        let left = Duration::from_secs(end.0 + 1).saturating_sub(now);
        if left.is_zero() {
            return Some(Notice::Ended { since: end });
        }
        (left < NOTICE).then_some(Notice::EndsSoon {
            days: left.as_secs() / DAY,
        })
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
        GeneralName::IPAddress(octets) => address_of(octets).map(|address| address.to_string()),
        _ => None,
    }
}

/// What is told of a certificate that clients refuse, or soon will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It begins later.
    NotYet {
        /// When it begins.
        from: Utc,
    },
    /// It ends in less than a fortnight.
    EndsSoon {
        /// Whole days that are left.
        days: u64,
    },
    /// It has ended.
    Ended {
        /// When that was.
        since: Utc,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet { from } => write!(f, "is not valid before {from}"),
            Self::EndsSoon { days: 1 } => write!(f, "ends in 1 day"),
            Self::EndsSoon { days } => write!(f, "ends in {days} days"),
            Self::Ended { since } => write!(f, "has expired; it was valid until {since}"),
        }
    }
}

/// A point in time, in seconds since the Unix epoch; shown as `2030-12-31T23:59:59Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The last second of the year 9999, after which certificates cannot end.
        const LAST: u64 = 253_402_300_799;
        let time = UNIX_EPOCH + Duration::from_secs(self.0.min(LAST));
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

/// Says when a notice of a certificate is to be told: at once, then daily.
#[derive(Debug, Default)]
pub struct Reminder {
    told: Option<(SystemTime, Discriminant<Notice>)>,
}

impl Reminder {
    /// The notice, if it is time to tell it.
    pub fn due(&mut self, certificate: &Certificate, now: SystemTime) -> Option<Notice> {
        let notice = certificate.notice(now)?;
        let kind = discriminant(&notice);
        // A clock that was set back counts as a new day.
        let told_today = self.told.is_some_and(|(told, of)| {
            of == kind
                && now
                    .duration_since(told)
                    .is_ok_and(|age| age < Duration::from_secs(DAY))
        });
        if told_today {
            return None;
        }
        self.told = Some((now, kind));
        Some(notice)
    }
}

/// What is odd about a chain, which is shown all the same; in words, and none if it is in order.
pub(super) fn oddity(chain: &[CertificateDer<'_>]) -> Option<String> {
    let read = |der| X509Certificate::from_der(der).ok();
    let at = chain.windows(2).position(|pair| {
        let (Some((_, issued)), Some((_, issuer))) = (read(&pair[0]), read(&pair[1])) else {
            return false;
        };
        issued.issuer().as_raw() != issuer.subject().as_raw()
    })?;
    let (issued, issuer) = (at + 1, at + 2);
    Some(format!(
        "certificate {issuer} is not that of the issuer of certificate {issued}; clients may not \
         find the way to an authority that they trust"
    ))
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
            let now = end.checked_add_signed(1 - seconds_before).unwrap();
            reminder.due(&certificate, UNIX_EPOCH + Duration::from_secs(now))
        };
        let day = 86_400;
        let soon = |days| Some(Notice::EndsSoon { days });
        let ended = Some(Notice::Ended { since: Utc(end) });
        assert_eq!(due(20 * day), None);
        assert_eq!(due(14 * day), None);
        assert_eq!(due(14 * day - 1), soon(13));
        assert_eq!(due(13 * day), None);
        assert_eq!(due(13 * day - 1), soon(12));
        assert_eq!(due(12 * day), None);
        assert_eq!(due(day / 2), soon(0));
        assert_eq!(due(1), None);
        // At once, although the other notice was told a moment before.
        assert_eq!(due(0), ended);
        assert_eq!(due(1 - day), None);
        assert_eq!(due(-day), ended);
        // The clock was set back.
        assert_eq!(due(5 * day), soon(5));
    }

    #[test]
    fn validity_has_a_begin_and_an_end() {
        let certificate = Certificate {
            not_before: Some(1_000_000_000),
            not_after: Some(2_000_000_000),
            ..Certificate::default()
        };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let told = |seconds| {
            certificate
                .notice(at(seconds))
                .map(|notice| notice.to_string())
        };
        assert_eq!(
            told(999_999_999).unwrap(),
            "is not valid before 2001-09-09T01:46:40Z"
        );
        assert_eq!(told(1_000_000_000), None);
        assert_eq!(told(2_000_000_000).unwrap(), "ends in 0 days");
        assert_eq!(
            told(2_000_000_001).unwrap(),
            "has expired; it was valid until 2033-05-18T03:33:20Z"
        );
        for (seconds, valid) in [(0, false), (1_500_000_000, true), (3_000_000_000, false)] {
            assert_eq!(certificate.is_valid_at(at(seconds)), valid);
        }
        assert!(Certificate::default().is_valid_at(at(0)));
    }

    #[test]
    fn chains_out_of_order_are_odd() {
        let authority = |name: &str| {
            let mut parameters = rcgen::CertificateParams::default();
            parameters
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            (parameters, rcgen::KeyPair::generate().unwrap())
        };
        let (root, root_key) = authority("root");
        let (middle, middle_key) = authority("middle");
        let (leaf, leaf_key) = authority("leaf");
        let roots = root.self_signed(&root_key).unwrap().der().clone();
        let root = rcgen::Issuer::new(root, root_key);
        let middles = middle.signed_by(&middle_key, &root).unwrap().der().clone();
        let middle = rcgen::Issuer::new(middle, middle_key);
        let leafs = leaf.signed_by(&leaf_key, &middle).unwrap().der().clone();
        let odd = |chain: [&CertificateDer<'static>; 3]| oddity(&chain.map(Clone::clone));
        assert_eq!(odd([&leafs, &middles, &roots]), None);
        let told = odd([&leafs, &roots, &middles]).unwrap();
        assert!(told.starts_with("certificate 2 is not that of the issuer of certificate 1"));
        assert!(
            odd([&leafs, &middles, &leafs])
                .unwrap()
                .starts_with("certificate 3")
        );
        assert_eq!(oddity(&[leafs]), None);
    }
}
