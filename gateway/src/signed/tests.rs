use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::for_test::{Portal, checker, claims, from_now};
use super::*;

fn portals() -> [Portal; 3] {
    [Portal::ec(), Portal::ed(), Portal::rsa()]
}

#[test]
fn what_a_portal_signs_is_taken_with_each_algorithm_and_format() {
    for portal in portals() {
        let set = json!({"keys": [portal.jwk("a")]}).to_string();
        for keys in [portal.pem(), set, portal.jwk("a").to_string()] {
            let checker = checker(&keys, None);
            let signed = checker.open(&portal.sign(&claims(&json!({})))).unwrap();
            assert_eq!(signed.grant.target.to_string(), "10.0.0.7:5900");
            assert_eq!(signed.id, None);
            let left = signed.expires.duration_since(SystemTime::now()).unwrap();
            assert!((85..=91).contains(&left.as_secs()), "{left:?}");
        }
    }
}

#[test]
fn every_character_counts() {
    for portal in [Portal::ec(), Portal::ed()] {
        let token = portal.sign(&claims(&json!({})));
        assert!(is_signed(&token));
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // A checker of its own: one that was refused is not looked at again.
            assert!(portal.checker().open(&changed).is_err(), "{at}");
            assert!(portal.checker().open(&token[..at]).is_err(), "{at}");
        }
        for longer in [
            format!("{token}A"),
            format!("{token}="),
            format!("{token}."),
        ] {
            assert!(portal.checker().open(&longer).is_err());
        }
    }
}

#[test]
fn nobody_else_signs() {
    for portal in [Portal::ec(), Portal::ed()] {
        let other = match portal {
            Portal::Ec(_) => Portal::ec(),
            _ => Portal::ed(),
        };
        let token = other.sign(&claims(&json!({})));
        assert_eq!(portal.checker().open(&token), Err(Wrong::Signature));
    }
}

/// A token with a header that names another algorithm than its signature is of.
fn relabelled(portal: &Portal, algorithm: &str) -> String {
    portal.sign_with(&json!({"alg": algorithm}), &claims(&json!({})))
}

#[test]
fn a_key_is_used_with_its_own_algorithm_only() {
    for portal in portals() {
        for algorithm in ["ES256", "EdDSA", "RS256"] {
            let opened = portal.checker().open(&relabelled(&portal, algorithm));
            if algorithm == portal.algorithm() {
                assert!(opened.is_ok(), "{algorithm}");
            } else {
                assert_eq!(opened, Err(Wrong::UnknownKey), "{algorithm}");
            }
        }
        for algorithm in ["HS256", "HS512", "ES384", "RS512", "PS256"] {
            let opened = portal.checker().open(&relabelled(&portal, algorithm));
            assert_eq!(opened, Err(Wrong::Algorithm), "{algorithm}");
        }
        for algorithm in ["none", "None", "NONE", "", "es256", "ES512", "Ed25519"] {
            let opened = portal.checker().open(&relabelled(&portal, algorithm));
            assert_eq!(opened, Err(Wrong::Malformed), "{algorithm}");
        }
    }
}

#[test]
fn a_token_without_signature_is_refused() {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for portal in portals() {
        for algorithm in ["none", portal.algorithm()] {
            let (header, claims) = (json!({"alg": algorithm}), claims(&json!({})));
            let token = format!("{}.{}.", part(&header), part(&claims));
            assert!(portal.checker().open(&token).is_err(), "{algorithm}");
        }
    }
}

#[test]
fn a_public_key_is_no_secret_for_hmac() {
    for portal in portals() {
        let pem = portal.pem();
        for secret in [pem.as_str(), pem.trim()] {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
            let claims = URL_SAFE_NO_PAD.encode(claims(&json!({})).to_string());
            let message = format!("{header}.{claims}");
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
            let opened = portal.checker().open(&format!("{message}.{signature}"));
            assert_eq!(opened, Err(Wrong::Algorithm));
        }
    }
}

#[test]
fn a_key_is_found_by_its_name() {
    let [first, second, third] = [Portal::ec(), Portal::ec(), Portal::ed()];
    let set = json!({"keys": [first.jwk("1"), second.jwk("2"), third.jwk("3")]}).to_string();
    let checker = checker(&set, None);
    let named = |portal: &Portal, id: &str| {
        let header = json!({"alg": portal.algorithm(), "kid": id});
        checker
            .open(&portal.sign_with(&header, &claims(&json!({}))))
            .map(drop)
    };
    assert_eq!(named(&first, "1"), Ok(()));
    assert_eq!(named(&second, "2"), Ok(()));
    assert_eq!(named(&first, "2"), Err(Wrong::Signature));
    assert_eq!(named(&first, "3"), Err(Wrong::UnknownKey));
    assert_eq!(named(&first, "4"), Err(Wrong::UnknownKey));
    // Without a name all of the right kind are tried.
    assert!(checker.open(&second.sign(&claims(&json!({})))).is_ok());
    // A key in PEM has no name, so it may be the one.
    let header = json!({"alg": "ES256", "kid": "any"});
    let token = first.sign_with(&header, &claims(&json!({})));
    assert!(first.checker().open(&token).is_ok());
}

#[test]
fn keys_that_come_with_a_token_are_not_used() {
    let (portal, stranger) = (Portal::ec(), Portal::ec());
    let header = json!({
        "alg": "ES256", "jwk": stranger.jwk("x"), "jku": "https://evil.example/keys",
    });
    let token = stranger.sign_with(&header, &claims(&json!({})));
    assert_eq!(portal.checker().open(&token), Err(Wrong::Signature));
}

#[test]
fn extensions_that_are_not_known_are_refused() {
    let portal = Portal::ec();
    for (more, expected) in [
        (json!({"crit": ["exp"]}), Wrong::Critical),
        (json!({"crit": []}), Wrong::Critical),
        (json!({"crit": ["b64"], "b64": false}), Wrong::Critical),
        (json!({"b64": false}), Wrong::Critical),
        (json!({"crit": "exp"}), Wrong::Malformed),
    ] {
        let mut header = json!({"alg": "ES256"});
        let members = header.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        let token = portal.sign_with(&header, &claims(&json!({})));
        assert_eq!(portal.checker().open(&token), Err(expected), "{header}");
    }
    // What only informs is passed over.
    let header = json!({"alg": "ES256", "typ": "at+jwt", "x": 1});
    let token = portal.sign_with(&header, &claims(&json!({})));
    assert!(portal.checker().open(&token).is_ok());
}

#[test]
fn times_are_kept_with_some_tolerance_for_clocks() {
    let portal = Portal::ed();
    let at = |more: Value| {
        portal
            .checker()
            .open(&portal.sign(&claims(&more)))
            .map(drop)
    };
    assert_eq!(at(json!({"exp": from_now(-20)})), Ok(()));
    assert_eq!(at(json!({"exp": from_now(-40)})), Err(Wrong::Expired));
    assert_eq!(at(json!({"exp": 0})), Err(Wrong::Expired));
    assert_eq!(at(json!({"exp": from_now(3_600)})), Ok(()));
    assert_eq!(at(json!({"exp": from_now(3_660)})), Err(Wrong::TooLong));
    assert_eq!(at(json!({"exp": u64::MAX})), Err(Wrong::TooLong));
    assert_eq!(at(json!({"exp": i64::MAX})), Err(Wrong::TooLong));
    assert_eq!(at(json!({"nbf": from_now(20)})), Ok(()));
    assert_eq!(at(json!({"nbf": from_now(50)})), Err(Wrong::TooEarly));
    assert_eq!(at(json!({"nbf": u64::MAX})), Err(Wrong::TooEarly));
    for wrong in [
        json!({"nbf": "x"}),
        json!({"exp": "x"}),
        json!({"exp": null}),
    ] {
        assert_eq!(at(wrong.clone()), Err(Wrong::Claims), "{wrong}");
    }
}

#[test]
fn the_audience_is_this_gateway() {
    let portal = Portal::ec();
    let pem = portal.pem();
    let judge = |audience: Option<&str>, more: Value| {
        let checker = checker(&pem, audience);
        checker.open(&portal.sign(&claims(&more))).map(drop)
    };
    let ours = Some("vdi");
    assert_eq!(judge(ours, json!({"aud": "vdi"})), Ok(()));
    assert_eq!(judge(ours, json!({"aud": ["mail", "vdi"]})), Ok(()));
    assert_eq!(judge(None, json!({})), Ok(()));
    for wrong in [
        json!({}),
        json!({"aud": "mail"}),
        json!({"aud": "VDI"}),
        json!({"aud": []}),
        json!({"aud": 7}),
        json!({"aud": null}),
    ] {
        assert_eq!(judge(ours, wrong.clone()), Err(Wrong::Audience), "{wrong}");
    }
    for meant_for_another in [
        json!({"aud": "vdi"}),
        json!({"aud": ["vdi"]}),
        json!({"aud": 7}),
    ] {
        let judged = judge(None, meant_for_another.clone());
        assert_eq!(judged, Err(Wrong::Audience), "{meant_for_another}");
    }
}

#[test]
fn a_jti_is_the_same_in_every_token_of_one_portal() {
    let (portal, other) = (Portal::ec(), Portal::ec());
    let keys = portal.pem() + &other.pem();
    let checker = checker(&keys, None);
    let id = |portal: &Portal, id: &str, port: u16| {
        let claims = claims(&json!({"jti": id, "port": port}));
        checker.open(&portal.sign(&claims)).unwrap().id.unwrap()
    };
    assert_eq!(id(&portal, "a", 5900), id(&portal, "a", 5901));
    assert_ne!(id(&portal, "a", 5900), id(&portal, "b", 5900));
    assert_ne!(id(&portal, "a", 5900), id(&other, "a", 5900));
}

#[test]
fn what_was_refused_is_not_looked_at_again_unless_time_may_make_it_good() {
    let portal = Portal::ec();
    let checker = portal.checker();
    let bad = Portal::ec().sign(&claims(&json!({})));
    assert_eq!(checker.open(&bad), Err(Wrong::Signature));
    assert_eq!(checker.open(&bad), Err(Wrong::Again));
    let early = portal.sign(&claims(
        &json!({"nbf": from_now(3_000), "exp": from_now(3_500)}),
    ));
    assert_eq!(checker.open(&early), Err(Wrong::TooEarly));
    assert_eq!(checker.open(&early), Err(Wrong::TooEarly));
    let long = portal.sign(&claims(&json!({"exp": from_now(3_660)})));
    assert_eq!(checker.open(&long), Err(Wrong::TooLong));
    assert_eq!(checker.open(&long), Err(Wrong::TooLong));
}

#[test]
fn reasons_repeat_nothing_of_a_token() {
    let portal = Portal::ec();
    let header = json!({"alg": "secret-value"});
    let token = portal.sign_with(&header, &claims(&json!({"host": "secret value"})));
    let wrong = portal.checker().open(&token).unwrap_err();
    assert!(!wrong.to_string().contains("secret"), "{wrong}");
}

proptest! {
    #[test]
    fn nothing_else_is_taken(header: Vec<u8>, claims: Vec<u8>, signature: Vec<u8>, text: String) {
        let checker = Portal::ed().checker();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let token = format!("{}.{}.{}", part(&header), part(&claims), part(&signature));
        prop_assert!(checker.open(&token).is_err());
        prop_assert!(checker.open(&text).is_err());
    }
}
