use super::*;
use crate::target::Target;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn admissions(hijack_all: bool) -> (Admissions, Arc<Tickets>) {
    let config = Config {
        hijack_all,
        bad_token_limit: Some(5),
        ..Config::default()
    };
    let minute = Duration::from_secs(60);
    let tickets = Arc::new(Tickets::new(minute, minute).unwrap());
    (Admissions::new(&config, Arc::clone(&tickets)), tickets)
}

#[test]
fn a_plain_port_is_no_token_when_hijacking() {
    let (admissions, tickets) = admissions(true);
    assert!(admissions.admit(Some("5900"), CLIENT).is_err());
    let grant = Grant::new(Target::new("h".parse().unwrap(), 5900));
    let (ticket, _) = tickets.issue(grant.clone(), None, Instant::now()).unwrap();
    assert_eq!(
        *admissions.admit(Some(&ticket), CLIENT).unwrap().grant,
        grant
    );
}

#[test]
fn a_ticket_for_a_port_outside_the_range_is_refused() {
    let (admissions, tickets) = admissions(true);
    let mut grant = Grant::new(Target::new("h".parse().unwrap(), 22));
    let (ticket, _) = tickets.issue(grant.clone(), None, Instant::now()).unwrap();
    assert!(admissions.admit(Some(&ticket), CLIENT).is_err());
    grant.target = Target::new("h".parse().unwrap(), 5900);
    for (tls_port, is_good) in [(443, false), (5901, true)] {
        grant.tls_port = Some(tls_port);
        let (ticket, _) = tickets.issue(grant.clone(), None, Instant::now()).unwrap();
        let admitted = admissions.admit(Some(&ticket), CLIENT);
        assert_eq!(admitted.is_ok(), is_good, "{tls_port}");
    }
}

#[test]
fn plain_ports_must_be_digits_in_the_range() {
    let (admissions, _) = admissions(false);
    for token in ["5900", "25900", "05900"] {
        assert!(admissions.admit(Some(token), CLIENT).is_ok(), "{token}");
    }
    for token in ["5899", "25901", "+5900"] {
        assert_eq!(
            admissions.admit(Some(token), CLIENT).err(),
            Some(Refusal::Token)
        );
    }
    assert_eq!(admissions.admit(None, CLIENT).err(), Some(Refusal::Token));
}

#[test]
fn channels_of_one_client_to_one_port_are_one_session() {
    let (admissions, _) = admissions(false);
    let first = admissions.admit(Some("5900"), CLIENT).unwrap();
    let second = admissions.admit(Some("5900"), CLIENT).unwrap();
    let other = admissions.admit(Some("5901"), CLIENT).unwrap();
    assert_eq!(first.session, second.session);
    assert_ne!(first.session, other.session);
    let ended = first.session;
    drop((first, second));
    assert_ne!(
        admissions.admit(Some("5900"), CLIENT).unwrap().session,
        ended
    );
}

#[test]
fn tickets_sessions_and_failures_outlive_a_configuration() {
    let (old, tickets) = admissions(true);
    let grant = Grant::new(Target::new("h".parse().unwrap(), 5900));
    let (ticket, session) = tickets.issue(grant, None, Instant::now()).unwrap();
    assert!(old.admit(Some("guess"), CLIENT).is_err());
    let ports = old.changed(&Config {
        hijack_all: false,
        bad_token_limit: Some(2),
        ..Config::default()
    });
    assert!(ports.admit(Some(&ticket), CLIENT).is_err());
    assert!(is_banned(&ports));
    let held = ports.admit(Some("5900"), CLIENT).unwrap();
    let again = ports.changed(&Config {
        hijack_all: false,
        ..Config::default()
    });
    let more = again.admit(Some("5900"), CLIENT).unwrap();
    assert_eq!(more.session, held.session);
    let tickets = again.changed(&Config::default());
    let back = tickets.admit(Some(&ticket), CLIENT).unwrap();
    assert_eq!(back.session, session);
}

fn is_banned(admissions: &Admissions) -> bool {
    let refused = admissions.admit(Some("another guess"), CLIENT).err();
    matches!(refused, Some(Refusal::TooManyWrongTokens { .. }))
}

fn guess(admissions: &Admissions, count: u32) {
    for number in 0..count {
        let refused = admissions.admit(Some(&format!("guess {number}")), CLIENT);
        assert_eq!(refused.err(), Some(Refusal::Token));
    }
}

#[test]
fn too_many_wrong_tokens_close_the_door_to_others() {
    let (admissions, _) = admissions(true);
    guess(&admissions, 5);
    assert!(is_banned(&admissions));
}

#[test]
fn a_ban_does_not_concern_those_with_good_tokens() {
    let (admissions, tickets) = admissions(true);
    let grant = Grant::new(Target::new("h".parse().unwrap(), 5900));
    let issue = || {
        tickets
            .issue(grant.clone(), None, Instant::now())
            .unwrap()
            .0
    };
    let early = issue();
    guess(&admissions, 5);
    for ticket in [early, issue()] {
        assert!(admissions.admit(Some(&ticket), CLIENT).is_ok());
        assert!(is_banned(&admissions));
    }
}

#[test]
fn clients_that_come_back_with_a_stale_ticket_ban_nobody() {
    let (admissions, _) = admissions(true);
    for _ in 0..100 {
        let refused = admissions.admit(Some("AAAAAAAAAAAAAAAA"), CLIENT).err();
        assert_eq!(refused, Some(Refusal::Token));
    }
    guess(&admissions, 4);
    assert!(is_banned(&admissions));
}
