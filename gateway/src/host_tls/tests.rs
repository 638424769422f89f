//! Certificates as administrators make them, good and bad.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::verifier::Verifier;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);
/// Made with the commands of QEMU's and Spice's instructions: `openssl req -x509` and
/// `openssl x509 -req`, of which the latter makes certificates of version 1.
const CA: &[u8] = include_bytes!("../../tests/data/hosts/ca.pem");
const SERVER: &[u8] = include_bytes!("../../tests/data/hosts/server.pem");
/// Another authority with the name of the first.
const NAMESAKE_CA: &[u8] = include_bytes!("../../tests/data/hosts/namesake-ca.pem");
/// An authority whose own certificate is of version 1.
const OLD_CA: &[u8] = include_bytes!("../../tests/data/hosts/old-ca.pem");
const SERVER_OF_OLD_CA: &[u8] = include_bytes!("../../tests/data/hosts/server-of-old-ca.pem");
/// RSA of 1024 bits.
const SMALL_KEY: &[u8] = include_bytes!("../../tests/data/hosts/small-key.pem");
const SUBJECT: &str = "C=IL, L=Raanana, O=Red Hat, CN=my server";

fn pem(text: &[u8]) -> CertificateDer<'static> {
    crate::pem_file::certificates(text).unwrap().remove(0)
}

fn trusting(authority: &CertificateDer<'static>, subject: Option<&str>) -> HostTls {
    HostTls {
        trust: Trust::Authorities(Authorities::new(vec![authority.clone()]).unwrap()),
        subject: subject.map(|subject| subject.parse().unwrap()),
    }
}

/// What the verifier says of a chain for this host.
fn verify(wanted: HostTls, chain: &[CertificateDer<'static>], host: &str) -> Result<(), String> {
    verify_at(UnixTime::now(), wanted, chain, host)
}

fn verify_at(
    now: UnixTime,
    wanted: HostTls,
    chain: &[CertificateDer<'static>],
    host: &str,
) -> Result<(), String> {
    let name = server_name(&host.parse().unwrap()).unwrap();
    let (own, intermediates) = chain.split_first().unwrap();
    let verifier = Verifier::new(wanted);
    let verified = verifier.verify_server_cert(own, intermediates, &name, &[], now);
    match verified {
        Ok(_) => Ok(()),
        Err(error) => Err(reason(&HandshakeError::Tls(error))),
    }
}

struct Authority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    Authority {
        der: parameters.self_signed(&key).unwrap().der().clone(),
        issuer: Issuer::new(parameters, key),
    }
}

fn host(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    let name = &mut parameters.distinguished_name;
    *name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    parameters
}

impl Authority {
    fn sign(&self, parameters: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        parameters
            .signed_by(&key, &self.issuer)
            .unwrap()
            .der()
            .clone()
    }
}

#[test]
fn a_host_has_the_name_by_which_it_is_known() {
    let authority = authority("authority");
    let by_name = authority.sign(&host("x", &["host-7.example", "192.0.2.7"]));
    let by_common_name = authority.sign(&host("host-7.example", &[]));
    let check = |own: &CertificateDer<'static>, host: &str| {
        verify(trusting(&authority.der, None), from_ref(own), host)
    };
    for name in [
        "host-7.example",
        "HOST-7.example",
        "192.0.2.7",
        "::ffff:192.0.2.7",
    ] {
        assert_eq!(check(&by_name, name), Ok(()), "{name}");
    }
    assert_eq!(check(&by_common_name, "host-7.example"), Ok(()));
    assert_eq!(
        check(&by_name, "192.0.2.8").unwrap_err(),
        "the host's certificate is for host-7.example, 192.0.2.7, and not for 192.0.2.8"
    );
    check(&by_name, "x").unwrap_err();
}

#[test]
fn a_subject_takes_the_place_of_the_name() {
    let authority = authority("authority");
    let own = authority.sign(&host("host 7", &["host-7.example"]));
    let check = |subject: &str| {
        let wanted = trusting(&authority.der, Some(subject));
        verify(wanted, from_ref(&own), "192.0.2.1")
    };
    assert_eq!(check("CN=Host 7"), Ok(()));
    assert_eq!(
        check("O=Example, CN=host 7").unwrap_err(),
        "the subject of the host's certificate is \"CN=host 7\", and not \"O=Example, CN=host 7\""
    );
}

#[test]
fn only_a_trusted_authority_counts() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let own = theirs.sign(&host("a", &["a.example"]));
    let told = verify(trusting(&ours.der, None), from_ref(&own), "a.example").unwrap_err();
    assert_eq!(
        told,
        "the host's certificate (CN=a) is signed by none of the trusted authorities: its issuer is \
         CN=theirs"
    );
    // Whatever it brings along.
    let chain = [own, theirs.der.clone()];
    verify(trusting(&ours.der, None), &chain, "a.example").unwrap_err();
    assert_eq!(
        verify(trusting(&theirs.der, None), &chain, "a.example"),
        Ok(())
    );
}

#[test]
fn an_intermediate_leads_to_its_authority() {
    let root = authority("root");
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "middle");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let middle = parameters
        .signed_by(&key, &root.issuer)
        .unwrap()
        .der()
        .clone();
    let issuer = Authority {
        der: middle.clone(),
        issuer: Issuer::new(parameters, key),
    };
    let own = issuer.sign(&host("a", &["a.example"]));
    let wanted = || trusting(&root.der, None);
    assert_eq!(
        verify(wanted(), &[own.clone(), middle], "a.example"),
        Ok(())
    );
    verify(wanted(), &[own], "a.example").unwrap_err();
}

#[test]
fn certificates_have_their_time() {
    let authority = authority("authority");
    let now = SystemTime::now();
    let mut ended = host("a", &["a.example"]);
    ended.not_after = (now - DAY).into();
    let mut later = host("a", &["a.example"]);
    later.not_before = (now + DAY).into();
    for (parameters, told) in [
        (ended, "the host's certificate has expired"),
        (later, "the host's certificate is not valid before"),
    ] {
        // Also where it is itself among those that are trusted.
        let own = authority.sign(&parameters);
        for trusted in [&authority.der, &own] {
            let wanted = trusting(trusted, None);
            let fault = verify(wanted, from_ref(&own), "a.example").unwrap_err();
            assert!(fault.starts_with(told), "{fault}");
        }
    }
}

#[test]
fn a_hosts_own_certificate_vouches_for_that_host_alone() {
    let key = KeyPair::generate().unwrap();
    let parameters = host("a", &["a.example"]);
    let own = parameters.self_signed(&key).unwrap().der().clone();
    assert_eq!(
        verify(trusting(&own, None), from_ref(&own), "a.example"),
        Ok(())
    );
    verify(trusting(&own, None), from_ref(&own), "b.example").unwrap_err();
    let issuer = Authority {
        der: own.clone(),
        issuer: Issuer::new(parameters, key),
    };
    let other = issuer.sign(&host("b", &["b.example"]));
    verify(trusting(&own, None), &[other, own], "b.example").unwrap_err();
}

#[test]
fn a_pinned_certificate_is_that_one_and_no_other() {
    let make = || {
        let key = KeyPair::generate().unwrap();
        let mut parameters = host("a", &[]);
        parameters.not_after = (SystemTime::now() - DAY).into();
        parameters.self_signed(&key).unwrap().der().clone()
    };
    let (own, other) = (make(), make());
    let pinned = |subject: Option<&str>| HostTls {
        trust: Trust::Certificate(CertificateDigest::of(&own)),
        subject: subject.map(|subject| subject.parse().unwrap()),
    };
    assert_eq!(verify(pinned(None), from_ref(&own), "b.example"), Ok(()));
    let fault = verify(pinned(None), from_ref(&other), "b.example").unwrap_err();
    assert!(
        fault.contains(&CertificateDigest::of(&other).to_string()),
        "{fault}"
    );
    assert_eq!(
        verify(pinned(Some("CN=a")), from_ref(&own), "b.example"),
        Ok(())
    );
    verify(pinned(Some("CN=b")), &[own], "b.example").unwrap_err();
}

#[test]
fn what_is_made_by_spices_instructions_is_accepted_and_its_forgery_is_not() {
    // Whenever the test runs.
    let then = UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000));
    let verify_then =
        |wanted, chain: &[CertificateDer<'static>], host| verify_at(then, wanted, chain, host);

    for (ca, server) in [(CA, SERVER), (OLD_CA, SERVER_OF_OLD_CA)] {
        let (ca, server) = (pem(ca), pem(server));
        let wanted = trusting(&ca, Some(SUBJECT));
        assert_eq!(verify_then(wanted, from_ref(&server), "10.0.0.7"), Ok(()));
        let fault = verify_then(trusting(&ca, None), from_ref(&server), "10.0.0.7").unwrap_err();
        assert_eq!(
            fault,
            "the host's certificate is for my server, and not for 10.0.0.7"
        );
        // Any bit of it.
        let mut changed = server.to_vec();
        let last = changed.len() - 1;
        for at in [60, 200, last] {
            changed[at] ^= 1;
            let chain = [CertificateDer::from(changed.clone())];
            verify_then(trusting(&ca, Some(SUBJECT)), &chain, "10.0.0.7").unwrap_err();
            changed[at] ^= 1;
        }
    }
    let wanted = trusting(&pem(NAMESAKE_CA), Some(SUBJECT));
    let fault = verify_then(wanted, &[pem(SERVER)], "10.0.0.7").unwrap_err();
    assert!(
        fault.contains("was not signed with the key of C=IL"),
        "{fault}"
    );
    let fault =
        verify_then(trusting(&pem(OLD_CA), Some(SUBJECT)), &[pem(SERVER)], "h").unwrap_err();
    assert!(
        fault.contains("signed by none of the trusted authorities"),
        "{fault}"
    );
    // One of version 1 in between is no authority.
    let chain = [pem(SERVER_OF_OLD_CA), pem(OLD_CA)];
    verify_then(trusting(&pem(CA), Some(SUBJECT)), &chain, "h").unwrap_err();
}

#[test]
fn what_cannot_be_checked_is_told_in_words() {
    let fault = verify(trusting(&pem(CA), Some(SUBJECT)), &[pem(SMALL_KEY)], "h").unwrap_err();
    assert!(
        fault.contains("cannot be checked (RSA, 1024 bits)"),
        "{fault}"
    );
    let ca = authority("authority");
    let mut parameters = host("a", &["a.example"]);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = ca.sign(&parameters);
    let fault = verify(trusting(&ca.der, None), from_ref(&own), "a.example").unwrap_err();
    assert!(fault.contains("(CN=a) is that of an authority"), "{fault}");
    // As it says; and self-signed ones often are marked so.
    assert_eq!(
        verify(trusting(&own, None), from_ref(&own), "a.example"),
        Ok(())
    );
    let mut parameters = host("a", &["a.example"]);
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let fault = verify(
        trusting(&ca.der, None),
        &[ca.sign(&parameters)],
        "a.example",
    )
    .unwrap_err();
    assert!(fault.contains("is not accepted: "), "{fault}");
    let junk = CertificateDer::from(vec![1, 2, 3]);
    let fault = verify(trusting(&ca.der, None), &[junk], "a.example").unwrap_err();
    assert_eq!(fault, "the host's certificate is not well-formed");
}

#[test]
fn what_is_written_down_is_read_again() {
    for tls in [
        trusting(&pem(CA), Some(SUBJECT)),
        HostTls {
            trust: Trust::Certificate(CertificateDigest::of(&pem(SERVER))),
            subject: None,
        },
    ] {
        let text = serde_json::to_string(&tls.state()).unwrap();
        let state: HostTlsState = serde_json::from_str(&text).unwrap();
        assert_eq!(HostTls::try_from(state).unwrap(), tls);
    }
    for wrong in [
        r#"{"trust":{"Certificate":"AA"},"subject":null}"#,
        r#"{"trust":{"Authorities":["AAAA"]},"subject":null}"#,
        r#"{"trust":{"Authorities":[]},"subject":"CN"}"#,
    ] {
        let state: HostTlsState = serde_json::from_str(wrong).unwrap();
        assert!(HostTls::try_from(state).is_err(), "{wrong}");
    }
}

#[test]
fn a_name_that_no_certificate_can_have_is_told() {
    assert!(server_name(&"host_7.example".parse().unwrap()).is_ok());
    let address = server_name(&"::1".parse().unwrap()).unwrap();
    assert!(matches!(address, ServerName::IpAddress(_)));
    assert!(Arc::new(trusting(&pem(CA), None).client_config()).enable_secret_extraction);
}

#[test]
fn digests_are_read_in_both_forms() {
    let plain = "00ff".repeat(16);
    let digest: CertificateDigest = plain.parse().unwrap();
    let shown = digest.to_string();
    assert!(shown.starts_with("00:FF:00:FF:") && shown.len() == 95);
    assert_eq!(shown.parse(), Ok(digest));
    for wrong in [
        String::new(),
        "0".repeat(63),
        "0".repeat(65),
        "g".repeat(64),
        format!("0:{}", "0".repeat(63)),
        format!("{plain}:"),
    ] {
        assert_eq!(wrong.parse::<CertificateDigest>(), Err(DigestError));
    }
}
