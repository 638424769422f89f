//! What addresses a name has.

use std::error::Error;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::places::{Places, WorkError};

/// Either a [`WorkError`], or an [`std::io::Error`] of the system's resolver.
pub type ResolveError = Box<dyn Error + Send + Sync>;

/// Asks the system's resolver, once it has a place for which it waits at most `wait`; an address
/// needs none. The resolver itself has its own limits (resolv.conf(5)).
pub async fn resolve(
    places: &'static Places,
    name: &str,
    port: u16,
    wait: Duration,
) -> Result<Vec<SocketAddr>, ResolveError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let name = name.to_owned();
    let look = move || (name.as_str(), port).to_socket_addrs();
    let found = places.run::<Result<_, _>>(wait, look).await;
    let found = found.map_err(ResolveError::from)?;
    Ok(found?.collect())
}

/// Whether a name was not even asked for, as the gateway had no thread for it.
pub(crate) fn is_busy(error: &(dyn Error + 'static)) -> bool {
    matches!(crate::causes::find(error), Some(WorkError::Busy(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_address_needs_no_place_and_a_name_does() {
        static NONE: Places = Places::new(0, 0);
        let found = resolve(&NONE, "::1", 7, LONG).await.unwrap();
        assert_eq!(found, ["[::1]:7".parse().unwrap()]);
        let error = resolve(&NONE, "localhost", 7, LONG).await.unwrap_err();
        assert!(is_busy(&*error), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_is_no_shortage() {
        static ONE: Places = Places::new(1, 1);
        let error = resolve(&ONE, "no-such-host.invalid", 7, LONG).await;
        assert!(!is_busy(&*error.unwrap_err()));
        let found = resolve(&ONE, "localhost", 7, LONG).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()));
    }
}
