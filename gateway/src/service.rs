//! What the service manager is told while the gateway runs (`sd_notify(3)`). Without one, nothing
//! here has an effect.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::warn;

use crate::background::OWN;
use gateway_datapath::supervise::{Supervised, supervised};

/// How often the status is renewed where no watchdog asks for signs of life.
const STATUS_INTERVAL: Duration = Duration::from_secs(15);

/// Whether there is a service manager that is told.
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The gateway serves: after its start, and again after a reload.
pub fn ready(status: impl Display) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status.to_string())]);
}

/// A reload begins, to be ended by [`ready`], whether it changed anything or not.
pub fn reloading() {
    // `Type=notify-reload` wants to know the time, to tell this reload from an earlier one.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The gateway ends; nothing that comes after it is awaited.
pub fn stopping(status: impl Display) {
    let status = status.to_string();
    tell(&[NotifyState::Stopping, NotifyState::Status(&status)]);
}

/// Gives signs of life for as long as the runtime runs tasks, and renews the status: at half the
/// time after which the service manager takes the gateway for dead, as `sd_watchdog_enabled(3)`
/// recommends.
///
/// `None` where no service manager listens.
pub fn watch(status: impl Fn() -> String + Send + 'static) -> Option<Supervised<Infallible>> {
    std::env::var_os("NOTIFY_SOCKET")?;
    let limit = sd_notify::watchdog_enabled();
    let pause = limit.map_or(STATUS_INTERVAL, |limit| limit / 2);
    let mut ticks = interval(pause);
    // After a stall one sign is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let signs = Signs {
        ticks,
        pause,
        has_watchdog: limit.is_some(),
        status,
    };
    Some(supervised("signs of life", signs, |signs| {
        Box::pin(signs.give())
    }))
}

/// Signs of life.
struct Signs<F> {
    ticks: Interval,
    pause: Duration,
    has_watchdog: bool,
    status: F,
}

impl<F: Fn() -> String> Signs<F> {
    async fn give(&mut self) -> Infallible {
        loop {
            self.ticks.tick().await;
            let (status, has_watchdog) = ((self.status)(), self.has_watchdog);
            // A service manager that does not read must not stop a thread that serves clients.
            let sign = move || {
                let status = NotifyState::Status(&status);
                if has_watchdog {
                    sd_notify::notify(&[NotifyState::Watchdog, status])
                } else {
                    sd_notify::notify(&[status])
                }
            };
            match OWN.run(self.pause, sign).await {
                Ok(told) => warn_of(told),
                Err(reason) => warn!(%reason, "cannot answer the service manager's watchdog"),
            }
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    warn_of(sd_notify::notify(states));
}

fn warn_of(told: io::Result<()>) {
    if let Err(reason) = told {
        warn!(%reason, "the service manager is not reached");
    }
}
