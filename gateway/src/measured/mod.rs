//! What `"DataPath": "auto"` means on this machine: what `probe --measure` has found out and kept in
//! `StateDirectory`, and what follows from it.
//!
//! A gateway reads what was kept and measures nothing itself. While it serves, that would take time
//! from its desktops and they would distort the figures, and a start must not wait for it.

mod choice;
mod machine;
mod measuring;
mod record;
mod report;

use gateway_datapath::measure::Leg;

use crate::config::{Config, DataPath};

pub use choice::{Chosen, LegChoice};
pub use machine::Machine;
pub(crate) use measuring::measure;
pub(crate) use record::of_this_machine as kept;
pub use record::{Record, RecordError};
pub(crate) use report::table;

/// What `auto` takes here before any path is tried.
pub fn preferred(config: &Config) -> Chosen {
    Chosen::of(kept(config), |_| true)
}

/// The data paths that channels may take under this configuration: one, or what `auto` takes for
/// each kind of client leg.
pub(crate) fn data_paths(config: &Config) -> Vec<DataPath> {
    match config.data_path {
        DataPath::Auto => {
            let preferred = preferred(config);
            let paths = Leg::ALL.map(|leg| preferred.of_leg(leg).path);
            paths.map(DataPath::from).into()
        }
        path => vec![path],
    }
}

#[cfg(test)]
mod tests {
    use gateway_datapath::measure::{Outcome, Path};

    use super::*;

    #[test]
    fn auto_needs_what_the_measured_paths_need() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config {
            state_directory: directory.path().to_owned(),
            ..Config::default()
        };
        assert_eq!(data_paths(&config), [DataPath::Relay, DataPath::Relay]);
        let record = choice::tests::measured(&[(Path::Sockmap, Outcome::Cheaper, 0.2)]);
        record.keep(&config).unwrap();
        assert_eq!(data_paths(&config), [DataPath::Sockmap, DataPath::Relay]);
        config.data_path = DataPath::Relay;
        assert_eq!(data_paths(&config), [DataPath::Relay]);
    }
}
