use super::store::{MAX_TICKETS, MAX_WAITING};
use super::*;
use crate::target::Target;
use std::net::IpAddr;

const UNUSED: Duration = Duration::from_secs(120);
const RECONNECT: Duration = Duration::from_secs(300);

fn tickets() -> Arc<Tickets> {
    Arc::new(Tickets::new(UNUSED, RECONNECT).unwrap())
}

fn grant() -> Grant {
    Grant::new(Target::new("10.0.0.7".parse().unwrap(), 5900))
}

fn shown(token: &str, owner: Option<Subscriber>) -> Presented<'_> {
    Presented {
        token,
        client: "192.0.2.7".parse().unwrap(),
        owner,
        may_be_new: true,
    }
}

#[test]
fn is_short_url_safe_and_never_the_same() {
    let tickets = tickets();
    let now = Instant::now();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let (ticket, _) = tickets.issue(grant(), None, now).unwrap();
        assert_eq!(ticket.len(), 16);
        let url_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(ticket.chars().all(url_safe));
        assert!(seen.insert(ticket));
    }
}

#[test]
fn opens_all_channels_of_one_session() {
    let tickets = tickets();
    let now = Instant::now();
    let (ticket, session) = tickets.issue(grant(), None, now).unwrap();
    let leases: Vec<_> = (0..9)
        .map(|_| tickets.redeem(&shown(&ticket, None), now).unwrap())
        .collect();
    assert!(
        leases
            .iter()
            .all(|l| l.session == session && *l.grant == grant())
    );
    assert!(
        tickets
            .redeem(&shown("AAAAAAAAAAAAAAAA", None), now)
            .is_err()
    );
    assert!(tickets.redeem(&shown("", None), now).is_err());
    assert!(tickets.redeem(&shown(&ticket[..15], None), now).is_err());
}

#[test]
fn expires_when_unused() {
    let tickets = tickets();
    let now = Instant::now();
    let (ticket, _) = tickets.issue(grant(), None, now).unwrap();
    let just_before = now + Duration::from_secs(119);
    let lease = tickets.redeem(&shown(&ticket, None), just_before).unwrap();
    // While a channel is open the ticket lives on, however long.
    assert!(
        tickets
            .redeem(&shown(&ticket, None), now + 10 * UNUSED)
            .is_ok()
    );
    drop(lease);

    let (ticket, _) = tickets.issue(grant(), None, now).unwrap();
    assert!(tickets.redeem(&shown(&ticket, None), now + UNUSED).is_err());
}

#[test]
fn outlives_its_last_channel_for_a_reconnect() {
    let tickets = tickets();
    let (ticket, session) = tickets.issue(grant(), None, Instant::now()).unwrap();
    drop(
        tickets
            .redeem(&shown(&ticket, None), Instant::now())
            .unwrap(),
    );
    let soon = Instant::now() + Duration::from_secs(295);
    assert_eq!(
        tickets.redeem(&shown(&ticket, None), soon).unwrap().session,
        session
    );
    let late = Instant::now() + RECONNECT + Duration::from_secs(5);
    assert!(tickets.redeem(&shown(&ticket, None), late).is_err());
}

fn pool(fill: &[u8]) -> Arc<Tickets> {
    let tickets = Tickets::new(UNUSED, RECONNECT).unwrap();
    Arc::new(tickets.with_pool(crate::pool::key_for_test(fill)))
}

#[test]
fn a_pools_ticket_is_good_in_every_gateway_with_its_key() {
    let (first, second, stranger) = (pool(&[1]), pool(&[2, 1]), pool(&[3]));
    let now = Instant::now();
    let (ticket, session) = first.issue(grant(), None, now).unwrap();
    for gateway in [&first, &second] {
        let leases = [(); 3].map(|()| gateway.redeem(&shown(&ticket, None), now).unwrap());
        assert!(leases.iter().all(|l| l.session == session));
        assert!(leases.iter().all(|l| *l.grant == grant()));
        assert_eq!(gateway.lock().entries.len(), 1);
    }
    assert!(stranger.redeem(&shown(&ticket, None), now).is_err());
    assert!(first.redeem(&shown("AAAAAAAAAAAAAAAA", None), now).is_err());
    assert!(stranger.lock().entries.is_empty());
    assert!(session.to_string().starts_with('p'));
}

#[test]
fn a_pools_ticket_outlives_its_expiry_where_it_is_in_use() {
    let tickets = pool(&[1]);
    let expired = Contents {
        grant: grant(),
        expires: SystemTime::now() - Duration::from_secs(60),
    };
    let keys = tickets.pool.load_full().unwrap();
    let sealed = keys.seal(&expired).unwrap();
    let now = Instant::now();
    assert!(tickets.redeem(&shown(&sealed, None), now).is_err());
    let used = Entry {
        grant: Arc::new(grant()),
        session: SessionId::next(),
        owner: None,
        place: 0,
        open: 1,
        change: 0,
        expires: now,
    };
    let digest = tickets.lock().key.digest(&sealed);
    tickets.lock().entries.insert(digest, used);
    drop(tickets.redeem(&shown(&sealed, None), now + UNUSED).unwrap());
    tickets.close(&digest, now);
    let soon = now + Duration::from_secs(295);
    drop(tickets.redeem(&shown(&sealed, None), soon).unwrap());
    let late = Instant::now() + RECONNECT + Duration::from_secs(5);
    assert!(tickets.redeem(&shown(&sealed, None), late).is_err());
    assert!(tickets.lock().entries.is_empty());
}

#[test]
fn a_successor_knows_them_and_their_channels() {
    let old = tickets();
    let now = Instant::now();
    let (unused, _) = old.issue(grant(), None, now).unwrap();
    let (used, session) = old.issue(grant(), None, now).unwrap();
    let lease = old.redeem(&shown(&used, None), now).unwrap();
    let state = serde_json::to_string(&old.state(now)).unwrap();
    assert!(!state.contains(&used));
    let new = tickets();
    for _ in 0..2 {
        new.take_over(serde_json::from_str(&state).unwrap(), now);
    }
    let held = new.hold(lease.digest()).unwrap();
    assert_eq!((held.session, &*held.grant), (session, &grant()));
    // With an open channel it lives on; the other one does not.
    assert!(new.redeem(&shown(&used, None), now + 2 * RECONNECT).is_ok());
    assert!(new.redeem(&shown(&unused, None), now + UNUSED).is_err());
    assert!(new.hold(&[0; 32]).is_none());
}

#[test]
fn sweeps_expired_tickets_out() {
    let tickets = tickets();
    let now = Instant::now();
    for _ in 0..100 {
        tickets.issue(grant(), None, now).unwrap();
    }
    tickets.issue(grant(), None, now + 2 * UNUSED).unwrap();
    assert_eq!(tickets.lock().entries.len(), 1);
}

fn client(address: &str) -> Subscriber {
    address.parse::<IpAddr>().unwrap().into()
}

#[test]
fn one_client_forgets_only_its_own() {
    let tickets = tickets();
    let now = Instant::now();
    let issue = |owner| tickets.issue(grant(), Some(client(owner)), now).unwrap().0;
    let others = issue("192.0.2.8");
    let used = issue("192.0.2.7");
    let lease = tickets.redeem(&shown(&used, None), now).unwrap();
    let first = issue("192.0.2.7");
    let rest: Vec<_> = (0..MAX_WAITING).map(|_| issue("192.0.2.7")).collect();
    assert_eq!(tickets.count(), MAX_WAITING + 2);
    assert!(tickets.redeem(&shown(&first, None), now).is_err());
    for good in [&others, &used, &rest[0], &rest[MAX_WAITING - 1]] {
        assert!(tickets.redeem(&shown(good, None), now).is_ok());
    }
    // Back among those that wait, as the last one.
    drop(lease);
    for _ in 0..MAX_WAITING - 1 {
        issue("192.0.2.7");
    }
    assert!(tickets.redeem(&shown(&used, None), now).is_ok());
    issue("192.0.2.7");
    issue("192.0.2.7");
    assert_eq!(tickets.count(), MAX_WAITING + 1);
}

#[test]
fn a_full_table_costs_who_has_most() {
    let tickets = tickets();
    let now = Instant::now();
    let issue = |owner: Option<Subscriber>| tickets.issue(grant(), owner, now);
    let (mine, _) = issue(Some(client("192.0.2.7"))).unwrap();
    let mut greedy = Vec::new();
    for _ in 0..10 {
        greedy.push(issue(Some(client("2001:db8::1"))).unwrap().0);
    }
    while tickets.count() < MAX_TICKETS {
        issue(None).unwrap();
    }
    for _ in 0..5 {
        issue(Some(client("192.0.2.9"))).unwrap();
    }
    assert_eq!(tickets.count(), MAX_TICKETS);
    assert!(tickets.redeem(&shown(&mine, None), now).is_ok());
    let good = |ticket: &String| tickets.redeem(&shown(ticket, None), now).is_ok();
    let gone = greedy.iter().filter(|ticket| !good(ticket)).count();
    assert_eq!(gone, 5);
}

#[test]
fn owners_are_known_to_a_successor_and_forgotten_with_their_tickets() {
    let (old, new) = (tickets(), tickets());
    let now = Instant::now();
    for _ in 0..MAX_WAITING {
        old.issue(grant(), Some(client("2001:db8::1")), now)
            .unwrap();
    }
    new.take_over(old.state(now), now);
    new.issue(grant(), Some(client("2001:db8::2")), now)
        .unwrap();
    assert_eq!(new.count(), MAX_WAITING);
    new.issue(grant(), None, now + 2 * UNUSED).unwrap();
    assert_eq!(new.count(), 1);
    assert!(new.lock().waiting.is_empty());
}

#[test]
fn a_pools_ticket_of_a_clock_far_ahead_is_refused() {
    let tickets = pool(&[1]);
    let seal = |ahead: Duration| {
        let contents = Contents {
            grant: grant(),
            expires: SystemTime::now() + ahead,
        };
        tickets.pool.load_full().unwrap().seal(&contents).unwrap()
    };
    let now = Instant::now();
    let life = UNUSED + RECONNECT;
    let good = |ticket: &str, now| tickets.redeem(&shown(ticket, None), now).is_ok();
    assert!(good(&seal(life + CLOCK_TOLERANCE / 2), now));
    assert!(!good(&seal(life + CLOCK_TOLERANCE * 2), now));
    assert!(!good(&seal(Duration::from_secs(10 * 365 * 86_400)), now));
    // What was made before lives became shorter stays good, for as long as it can live.
    let before = seal(life);
    tickets.set_lives(UNUSED / 10, RECONNECT / 10);
    assert!(good(&before, now));
    assert!(!good(&seal(life), now + life + Duration::from_secs(5)));
}

#[test]
fn a_successor_forgets_those_first_that_have_waited_longest() {
    let (before, after) = (tickets(), tickets());
    let now = Instant::now();
    let owner = Some(client("192.0.2.7"));
    let issue = |tickets: &Tickets| tickets.issue(grant(), owner, now).unwrap().0;
    let issued: Vec<_> = (0..MAX_WAITING).map(|_| issue(&before)).collect();
    after.take_over(before.state(now), now);
    for _ in 0..MAX_WAITING / 2 {
        issue(&after);
    }
    let is_good = |ticket: &String| after.redeem(&shown(ticket, owner), now).is_ok();
    assert!(!issued[..MAX_WAITING / 2].iter().any(is_good));
    assert!(issued[MAX_WAITING / 2..].iter().all(is_good));
}

#[test]
fn tickets_with_channels_take_no_place_of_those_that_wait_in_a_successor() {
    let (before, after) = (tickets(), tickets());
    let now = Instant::now();
    let owner = Some(client("192.0.2.7"));
    let issue = || before.issue(grant(), owner, now).unwrap().0;
    let open = issue();
    let _channel = before.redeem(&shown(&open, owner), now).unwrap();
    let waiting: Vec<_> = (0..MAX_WAITING).map(|_| issue()).collect();
    after.take_over(before.state(now), now);
    let is_good = |ticket: &String| after.redeem(&shown(ticket, owner), now).is_ok();
    assert!(waiting.iter().all(is_good));
    assert!(is_good(&open));
}

#[test]
fn what_is_told_late_brings_nothing_back_that_a_successor_has_forgotten() {
    let (before, after) = (tickets(), tickets());
    let now = Instant::now();
    let owner = Some(client("192.0.2.7"));
    let issue = |tickets: &Tickets| tickets.issue(grant(), owner, now).unwrap().0;
    let early: Vec<_> = (0..MAX_WAITING).map(|_| issue(&before)).collect();
    let mut told = before.changes();
    after.take_over(before.state(now), now);
    let fresh: Vec<_> = (0..MAX_WAITING / 2).map(|_| issue(&after)).collect();
    // Another process has to know of each, so it is told again and again.
    let late: Vec<_> = (0..MAX_WAITING / 4)
        .map(|_| {
            let late = issue(&before);
            let upto = before.changes();
            after.take_over(before.state_since(told, now), now);
            told = upto;
            late
        })
        .collect();
    let is_good = |ticket: &String| after.redeem(&shown(ticket, owner), now).is_ok();
    assert!(fresh.iter().all(is_good));
    assert!(late.iter().all(is_good));
    let forgotten = early.iter().filter(|ticket| !is_good(ticket)).count();
    assert_eq!(forgotten, MAX_WAITING * 3 / 4);
}

#[test]
fn a_successor_is_told_late_which_tickets_have_channels() {
    let (before, after) = (tickets(), tickets());
    let now = Instant::now();
    let owner = Some(client("192.0.2.7"));
    let (ticket, session) = before.issue(grant(), owner, now).unwrap();
    let mut told = before.changes();
    after.take_over(before.state(now), now);
    let channel = before.redeem(&shown(&ticket, owner), now).unwrap();
    // It may have been forgotten meanwhile, or not.
    for is_forgotten in [false, true] {
        if is_forgotten {
            let digest = Digest::try_from(channel.digest()).unwrap();
            after.lock().remove(&digest);
        }
        after.take_over(before.state_since(told, now), now);
        assert!(after.lock().waiting.is_empty());
        let held = after.hold(channel.digest()).unwrap();
        assert_eq!(held.session, session);
    }
    // Further channels, and the end of all of them, are no news.
    told = before.changes();
    drop((before.redeem(&shown(&ticket, owner), now), channel));
    assert!(before.state_since(told, now).entries.is_empty());
}
