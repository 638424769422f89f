use serde_json::{Value, json};

use super::*;
use crate::signed::for_test::{Portal, claims, from_now};

const UNUSED: Duration = Duration::from_secs(120);
const RECONNECT: Duration = Duration::from_secs(300);

fn tickets(portal: &Portal) -> Arc<Tickets> {
    let tickets = Tickets::new(UNUSED, RECONNECT).unwrap();
    tickets.set_signed(Some(portal.checker()));
    Arc::new(tickets)
}

fn shown(token: &str) -> Presented<'_> {
    Presented {
        token,
        client: "192.0.2.7".parse().unwrap(),
        owner: None,
        may_be_new: true,
    }
}

fn token(portal: &Portal, more: &Value) -> String {
    portal.sign(&claims(more))
}

/// Later than a ticket lives whose last channel is closed now.
fn after_the_session() -> Instant {
    Instant::now() + RECONNECT + Duration::from_secs(5)
}

#[test]
fn a_signed_ticket_opens_all_channels_of_one_session_in_every_gateway() {
    let portal = Portal::ec();
    let (first, second) = (tickets(&portal), tickets(&portal));
    let token = token(&portal, &json!({}));
    let now = Instant::now();
    let leases = [&first, &first, &second].map(|at| at.redeem(&shown(&token), now).unwrap());
    assert!(
        leases
            .iter()
            .all(|lease| lease.session == leases[0].session)
    );
    assert!(leases[0].session.to_string().starts_with('p'));
    assert_eq!(leases[0].grant.target.to_string(), "10.0.0.7:5900");
    assert_eq!(first.count(), 1);
    // Nobody signs for a gateway without keys.
    first.set_signed(None);
    assert!(first.redeem(&shown(&token), now).is_ok());
    let other = portal.sign(&claims(&json!({"port": 5901})));
    assert_eq!(
        first.redeem(&shown(&other), now).err(),
        Some(RedeemError::Wrong)
    );
}

#[test]
fn one_with_a_jti_is_good_for_one_session() {
    let portal = Portal::ec();
    let tickets = tickets(&portal);
    let [once, same] = [(); 2].map(|()| token(&portal, &json!({"jti": "a"})));
    assert_ne!(once, same, "ECDSA signatures have a random part");
    let now = Instant::now();
    let main = tickets.redeem(&shown(&once), now).unwrap();
    let inputs = tickets.redeem(&shown(&once), now).unwrap();
    assert!(tickets.redeem(&shown(&same), now).is_err());
    drop((main, inputs));
    // The client comes back.
    drop(tickets.redeem(&shown(&once), Instant::now()).unwrap());
    let late = after_the_session();
    // It has expired by then, for whoever does not check the signature: what counts is that it is
    // remembered for as long as it could be used.
    tickets.lock().entries.clear();
    assert_eq!(
        tickets.redeem(&shown(&once), Instant::now()).err(),
        Some(RedeemError::Wrong)
    );
    tickets.lock().sweep(late);
    assert!(tickets.lock().used.state_since(0, late).is_empty());
}

#[test]
fn one_without_a_jti_is_good_until_it_expires() {
    let portal = Portal::ed();
    let tickets = tickets(&portal);
    let token = token(&portal, &json!({}));
    for _ in 0..2 {
        drop(tickets.redeem(&shown(&token), Instant::now()).unwrap());
        tickets.lock().entries.clear();
    }
}

#[test]
fn a_session_outlives_the_expiry_of_its_ticket() {
    let portal = Portal::ed();
    let tickets = tickets(&portal);
    let token = token(&portal, &json!({"exp": from_now(-20)}));
    let now = Instant::now();
    let lease = tickets.redeem(&shown(&token), now).unwrap();
    assert!(
        tickets
            .redeem(&shown(&token), now + 100 * RECONNECT)
            .is_ok()
    );
    drop(lease);
    let soon = Instant::now() + RECONNECT / 2;
    assert!(tickets.redeem(&shown(&token), soon).is_ok());
}

#[test]
fn clients_of_other_networks_neither_open_nor_use_it_up() {
    let portal = Portal::ec();
    let tickets = tickets(&portal);
    let token = token(
        &portal,
        &json!({"jti": "a", "network": ["192.0.2.0/24", "2001:db8::/32"]}),
    );
    let from = |client: &str| Presented {
        client: client.parse().unwrap(),
        ..shown(&token)
    };
    let now = Instant::now();
    let is_good = |client: &str| tickets.redeem(&from(client), now).is_ok();
    for stranger in ["198.51.100.1", "2001:db9::1", "0.0.0.0"] {
        assert!(!is_good(stranger), "{stranger}");
    }
    assert_eq!(tickets.count(), 0);
    assert!(is_good("192.0.2.9"));
    assert!(is_good("2001:db8::1"));
    // Nor where the session is known.
    assert!(!is_good("198.51.100.1"));
}

#[test]
fn while_it_is_closed_only_known_sessions_go_on() {
    let portal = Portal::ec();
    let tickets = tickets(&portal);
    let (known, new) = (
        token(&portal, &json!({})),
        token(&portal, &json!({"jti": "a"})),
    );
    let now = Instant::now();
    let _open = tickets.redeem(&shown(&known), now).unwrap();
    tickets.set_closed(true);
    assert!(tickets.redeem(&shown(&known), now).is_ok());
    assert_eq!(
        tickets.redeem(&shown(&new), now).err(),
        Some(RedeemError::Closed)
    );
    assert_eq!(
        tickets.redeem(&shown("a.b.c"), now).err(),
        Some(RedeemError::Wrong)
    );
    // It was not used up.
    tickets.set_closed(false);
    assert!(tickets.redeem(&shown(&new), now).is_ok());
}

#[test]
fn signatures_are_not_checked_for_whom_they_should_not() {
    let portal = Portal::ec();
    let tickets = tickets(&portal);
    let token = token(&portal, &json!({}));
    let now = Instant::now();
    let banned = Presented {
        may_be_new: false,
        ..shown(&token)
    };
    assert!(tickets.redeem(&banned, now).is_err());
    let _open = tickets.redeem(&shown(&token), now).unwrap();
    assert!(tickets.redeem(&banned, now).is_ok());
}

#[test]
fn no_more_are_remembered_than_there_is_room_for() {
    let portal = Portal::ed();
    let tickets = tickets(&portal);
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    for number in 0..u128::try_from(used::MAX_USED).unwrap() {
        let id = number.to_be_bytes();
        tickets.lock().used.insert(id, later, 1, now).unwrap();
    }
    let token = |id: &str| token(&portal, &json!({"jti": id}));
    let full = tickets.redeem(&shown(&token("a")), now);
    assert_eq!(full.err(), Some(RedeemError::Full));
    // One without goes on, and room comes with time.
    let without = portal.sign(&claims(&json!({})));
    assert!(tickets.redeem(&shown(&without), now).is_ok());
    assert!(tickets.redeem(&shown(&token("b")), later).is_ok());
}

#[test]
fn a_successor_knows_which_have_been_used() {
    let portal = Portal::ec();
    let (old, new) = (tickets(&portal), tickets(&portal));
    let [early, late] = ["early", "late"].map(|id| token(&portal, &json!({"jti": id})));
    let now = Instant::now();
    let _early = old.redeem(&shown(&early), now).unwrap();
    let told = old.changes();
    let written = serde_json::to_string(&old.state(now)).unwrap();
    let state: TicketsState = serde_json::from_str(&written).unwrap();
    state.check().unwrap();
    new.take_over(state, now);
    let _late = old.redeem(&shown(&late), now).unwrap();
    let news = old.state_since(told, now);
    assert_eq!((news.entries.len(), news.used.len()), (1, 1));
    new.take_over(news, now);
    for token in [&early, &late] {
        // The session goes on there, and no other one begins.
        drop(new.redeem(&shown(token), Instant::now()).unwrap());
    }
    new.lock().entries.clear();
    for token in [&early, &late] {
        assert!(new.redeem(&shown(token), Instant::now()).is_err());
    }
}
