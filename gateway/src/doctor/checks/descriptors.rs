//! The limit on open files, which bounds how many clients fit.

use procfs::process::{LimitValue, Process};

use super::super::finding::Finding;
use super::super::running::process;
use super::super::scene::Scene;
use super::Check;
use crate::limits::connections_within;

pub(super) const CHECK: Check = Check::blocking("descriptors", look);

fn look(scene: &Scene) -> Vec<Finding> {
    let config = &scene.config;
    let Some((limit, whose)) = limit(scene) else {
        return vec![Finding::skipped("the limit on open files is not known")];
    };
    let each = config.data_path.descriptors();
    let wanted = config.max_connections;
    let fit = connections_within(limit, wanted, each);
    if fit >= wanted {
        let shown = if limit == u64::MAX {
            "no limit".to_owned()
        } else {
            format!("{limit} open files")
        };
        return vec![Finding::ok(format!(
            "{shown} ({whose}), enough for {wanted} connections"
        ))];
    }
    vec![Finding::warning(
        format!("{limit} open files ({whose}) are enough for {fit} of {wanted} MaxConnections"),
        "Further clients are refused",
        "Raise LimitNOFILE= of the unit, or `ulimit -Hn`, or lower MaxConnections",
    )]
}

/// The hard one, to which a gateway raises its own, and whose it is.
fn limit(scene: &Scene) -> Option<(u64, String)> {
    if let Some(pid) = scene.pid() {
        return Some((of_process(&process(pid)?)?, format!("process {pid}")));
    }
    let of_unit = scene.unit.as_ref().and_then(|unit| {
        let value = unit.settings.value("LimitNOFILE")?;
        let hard = value.rsplit(':').next()?;
        let limit = if hard == "infinity" {
            u64::MAX
        } else {
            hard.parse().ok()?
        };
        Some((limit, unit.name.clone()))
    });
    of_unit.or_else(|| {
        let own = of_process(&Process::myself().ok()?)?;
        Some((own, "of this shell".to_owned()))
    })
}

fn of_process(process: &Process) -> Option<u64> {
    match process.limits().ok()?.max_open_files.hard_limit {
        LimitValue::Unlimited => Some(u64::MAX),
        LimitValue::Value(limit) => Some(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn more_connections_than_fit_are_told() {
        let found = |max_connections| {
            let config = Config {
                max_connections,
                ..Config::default()
            };
            look(&Scene::with(config)).remove(0).found
        };
        assert!(found(1).ends_with("enough for 1 connections"));
        let few = found(1_000_000_000);
        assert!(few.ends_with("of 1000000000 MaxConnections"), "{few}");
    }
}
