//! What this version writes down is pinned in `tests/data`: a process of the same version, and of
//! another build, must be able to read it.
//!
//! When a test of this file fails, a type has changed: raise [`VERSION`]. The next run of the tests
//! writes the new version's files, and fails; look at them, and put them into git. Where a part is
//! not in the sample, as one that is new, write it in by hand first.

use std::fmt::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::message::{Message, VERSION};
use super::stored::StoredState;
use crate::channel::ChannelState;
use gateway_datapath::Carrier;
use gateway_datapath::sockmap::{InheritedSets, NO_SET};
use gateway_datapath::state_error::StateError;

/// All that goes from one process to another, with each variant of each part.
#[derive(Serialize, Deserialize)]
struct Written {
    messages: Vec<Message>,
    stored: StoredState,
}

fn path(version: u32, kind: &str) -> PathBuf {
    let name = format!("tests/data/handover-{version}.{kind}");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The sample of this version, or of the one before while there is none.
fn sample() -> Value {
    let text = std::fs::read_to_string(path(VERSION, "json"))
        .or_else(|_| std::fs::read_to_string(path(VERSION - 1, "json")));
    serde_json::from_str(&text.unwrap()).unwrap()
}

fn read(sample: Value) -> serde_json::Result<Written> {
    serde_json::from_value(sample)
}

/// Compares with the version's file; writes it when there is none.
fn assert_pinned(kind: &str, found: &str) {
    let path = path(VERSION, kind);
    if let Ok(pinned) = std::fs::read_to_string(&path) {
        assert_eq!(
            found, pinned,
            "what is written down has changed, so VERSION must be raised"
        );
    } else {
        std::fs::write(&path, found).unwrap();
        panic!("{} is new: look at it, and put it into git", path.display());
    }
}

#[test]
fn this_version_writes_what_it_always_wrote() {
    let written = serde_json::to_value(read(sample()).unwrap()).unwrap();
    let text = serde_json::to_string_pretty(&written).unwrap();
    assert_pinned("json", &format!("{text}\n"));
}

/// What the types expect at each place of the sample, as their error says: the type of a number,
/// the name of a structure, all variants of an enumeration.
#[test]
fn this_version_has_the_types_that_it_always_had() {
    let sample = sample();
    let mut places = Vec::new();
    list("", &sample, &mut places);
    let mut types = String::new();
    for place in places {
        let mut changed = sample.clone();
        *changed.pointer_mut(&place).unwrap() = json!("?");
        let expected = match read(changed) {
            Ok(_) => "any text".to_owned(),
            Err(error) => error.to_string(),
        };
        writeln!(types, "{place}: {expected}").unwrap();
    }
    assert_pinned("types", &types);
}

/// JSON pointers (RFC 6901) of a value and all that is in it.
fn list(at: &str, value: &Value, places: &mut Vec<String>) {
    places.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                list(&format!("{at}/{name}"), member, places);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                list(&format!("{at}/{index}"), item, places);
            }
        }
        _ => {}
    }
}

/// Whether a channel of this state could go on, given sockets and, where it needs them, eBPF
/// programs.
fn resumes(state: &ChannelState) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (host, _) = listener.accept().unwrap();
    state.check().map_err(|error| error.to_string())?;
    let (unix, _far) = UnixStream::pair().unwrap();
    let client = OwnedFd::from(client);
    let hosts = [OwnedFd::from(host), OwnedFd::from(unix)];
    let resumed = hosts.map(|host| {
        let further = (2..state.sockets()).map(|_| host.try_clone().unwrap());
        let mut sockets = vec![client.try_clone().unwrap(), host.try_clone().unwrap()];
        sockets.extend(further);
        let sets = InheritedSets::default();
        match Carrier::resume(state.carrier().clone(), sockets, &sets) {
            // What else there is was found sound before.
            Err(StateError::Unsound(NO_SET)) if state.carrier().has_programs() => Ok(()),
            resumed => resumed.map(drop).map_err(|error| error.to_string()),
        }
    });
    let [tcp, unix] = resumed;
    tcp.or(unix)
}

#[tokio::test]
async fn the_sample_is_gone_on_with() {
    let Written { messages, stored } = read(sample()).unwrap();
    stored.estate.check().unwrap();
    for state in &stored.channels {
        assert_eq!(resumes(state), Ok(()), "channel {}", state.id());
    }
    for message in &messages {
        if let Message::Channels(states) = message {
            assert!(states.iter().all(|state| resumes(state).is_ok()));
        }
    }
}

/// Whatever stands at any place: it is refused, or gone on with; nothing panics.
#[tokio::test]
async fn no_state_from_outside_ends_the_process() {
    let sample = sample();
    let mut places = Vec::new();
    list("/stored", &sample["stored"], &mut places);
    let extremes = [
        json!(null),
        json!(0),
        json!(1),
        json!(255),
        json!(1_u64 << 56),
        json!(1_u64 << 63),
        json!(u64::MAX),
        json!(""),
        json!("A".repeat(4)),
        json!("gn4".repeat(4)),
        json!("/".repeat(200_000)),
        json!([]),
        json!(true),
    ];
    let mut refused = 0;
    for place in &places {
        for extreme in &extremes {
            let mut changed = sample.clone();
            *changed.pointer_mut(place).unwrap() = extreme.clone();
            let Ok(Written { stored, .. }) = read(changed) else {
                continue;
            };
            let states = stored.channels.iter();
            let is_sound =
                stored.estate.check().is_ok() && states.clone().all(|s| s.check().is_ok());
            // Only the channel that differs is of interest.
            let at = place.strip_prefix("/stored/channels/");
            let index = at.and_then(|at| at.split('/').next()?.parse::<usize>().ok());
            let resumed = index
                .and_then(|index| stored.channels.get(index))
                .map(resumes);
            refused += usize::from(!is_sound || matches!(resumed, Some(Err(_))));
        }
    }
    assert!(refused > 100, "{refused}");
}
