//! How much clients may have: of all, and each for itself.

mod clients;
mod connections;
mod failures;
mod logins;
mod networks;
mod subscriber;
mod terminals;
mod waits;

pub use clients::{ClientLimits, Place};
pub use connections::{
    ConnectionLimits, Permit, TooMany, connections_within, most_connections, speak_for_many,
};
pub use failures::FailureLimit;
pub use logins::{Attempt, LoginLimit};
pub use networks::NetworkRules;
pub use subscriber::Subscriber;
