//! What the kernel carries, and what `DataPath` gives here.

use std::sync::Arc;
use std::time::Duration;

use super::super::finding::Finding;
use super::super::running::Running;
use super::super::scene::Scene;
use super::Check;
use crate::config::DataPath;
use crate::measured::{self, Chosen};

pub(super) const CHECK: Check =
    Check::waiting("data path", |scene| Box::pin(look(scene))).within(Duration::from_secs(25));

async fn look(scene: Arc<Scene>) -> Vec<Finding> {
    let wanted = scene.config.data_path;
    let name = wanted.name();
    if wanted == DataPath::Auto {
        let told = match scene.running.as_ref().ok().and_then(told_by_running) {
            Some(told) => told,
            None => measured::preferred(&scene.config).told(),
        };
        return vec![Finding::ok(format!("\"auto\" is {told}"))];
    }
    if wanted == DataPath::Relay {
        return vec![Finding::ok(format!(
            "\"{name}\" is relay, which works everywhere"
        ))];
    }
    let found = match of_running(&scene, name) {
        Some(found) => found,
        None => probed(&scene, name).await,
    };
    let reason = match found {
        Ok(()) => return vec![Finding::ok(format!("{name} works here"))],
        Err(reason) => reason,
    };
    let is_root = rustix::process::geteuid().is_root();
    if scene.running.is_err() && !is_root && wanted != DataPath::Ktls {
        return vec![Finding::skipped(format!(
            "{name} cannot be tried by this user; run this as root ({reason})"
        ))];
    }
    vec![Finding::warning(
        format!("{name} does not work here: {reason}"),
        "Channels use relay instead, which costs more processor time",
        "docs/data-paths.md says what it needs; with systemd, docs/operations.md#kernel-data-path",
    )]
}

/// What `auto` is in the running gateway.
fn told_by_running(running: &Running) -> Option<String> {
    let auto = running.status.get("auto")?.clone();
    let chosen: Option<Chosen> = serde_json::from_value(auto).ok()?;
    Some(chosen?.told())
}

/// What the running gateway has found at its start, with its own rights.
fn of_running(scene: &Scene, name: &str) -> Option<Result<(), String>> {
    let paths = scene.running.as_ref().ok()?.status["paths"].as_array()?;
    let found = paths.iter().find(|path| path["path"] == name)?;
    let reason = found["reason"].as_str().unwrap_or_default();
    Some(if found["works"] == true {
        Ok(())
    } else {
        Err(reason.to_owned())
    })
}

/// What is found out now.
async fn probed(scene: &Scene, name: &str) -> Result<(), String> {
    let findings = scene.data_paths().await;
    match findings.iter().find(|found| found.path == name) {
        Some(found) if found.works => Ok(()),
        Some(found) => Err(found.reason.clone().unwrap_or_default()),
        None => Err("it was not tried".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn what_the_running_gateway_has_found_counts() {
        let found = async |works: bool| {
            let mut scene = Scene::with(Config {
                data_path: DataPath::Ktls,
                ..Config::default()
            });
            let path = json!({"path": "ktls", "works": works, "reason": "no module"});
            scene.running = Ok(Running {
                status: json!({"paths": [path]}),
                configuration: None,
                metrics: String::new(),
            });
            look(Arc::new(scene)).await.remove(0).found
        };
        assert_eq!(found(true).await, "ktls works here");
        assert_eq!(found(false).await, "ktls does not work here: no module");
    }
}
