//! The manager's answers: what is rewritten is the same JSON but for the members that are to
//! change, the inner address does not show, and nothing that is inflated exceeds its limit.

use gateway::manager::hijack::{Answer, HijackError, Replacement, gunzip, parse};
use serde_json::{Map, Value};

use crate::input::Input;

const REPLACEMENT: Replacement<'_> = Replacement {
    address: "gateway.example",
    ticket: "a-ticket",
};
const LIMIT: usize = 1 << 16;

/// A byte that says whether the body is compressed, then the body.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte() & 1 == 0 {
        rewrites(input.rest());
    } else if let Some(body) = inflates(input.rest()) {
        rewrites(&body);
    }
}

fn rewrites(body: &[u8]) {
    let known = serde_json::from_slice::<Map<String, Value>>(body);
    let answer = match parse(body) {
        Ok(Answer::Desktop(answer)) => answer,
        Ok(Answer::Other) => {
            if let Ok(known) = known {
                assert_ne!(known.get("status"), Some(&Value::from("OK")));
            }
            return;
        }
        Err(error) => {
            assert!(known.is_err(), "{error}");
            return;
        }
    };
    for replacement in [None, Some(&REPLACEMENT)] {
        let rewritten = answer.rewrite(replacement);
        let Ok(Answer::Desktop(again)) = parse(&rewritten) else {
            panic!("what was rewritten cannot be read");
        };
        assert_eq!(again.rewrite(replacement), rewritten, "not the same again");
        if replacement.is_none() {
            assert_eq!(again.destination(), answer.destination());
        }
        // Lone surrogates and endless numbers are passed on, but are none of this library's.
        let Ok(known) = &known else { continue };
        let mut expected = known.clone();
        expected.insert("use_ws".to_owned(), true.into());
        if let Some(replacement) = replacement {
            expected.insert("spice_address".to_owned(), replacement.address.into());
            expected.insert("spice_port".to_owned(), replacement.ticket.into());
        }
        let got: Map<String, Value> = serde_json::from_slice(&rewritten).expect("JSON");
        assert_eq!(got, expected);
        assert!(got.keys().eq(expected.keys()), "members changed places");
    }
}

fn inflates(body: &[u8]) -> Option<Vec<u8>> {
    let inflated = match gunzip(body, LIMIT) {
        Ok(inflated) => inflated,
        Err(HijackError::Gzip | HijackError::TooLong { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    assert!(inflated.capacity() <= LIMIT);
    assert_eq!(gunzip(body, inflated.len()).as_ref(), Ok(&inflated));
    if let Some(limit) = inflated.len().checked_sub(1) {
        assert_eq!(gunzip(body, limit), Err(HijackError::TooLong { limit }));
    }
    Some(inflated)
}
