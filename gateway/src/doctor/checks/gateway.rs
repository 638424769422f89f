//! The running gateway: is it this version, with this configuration and certificate?

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::super::finding::{Finding, or_ok};
use super::super::running::{NoAnswer, Running};
use super::super::scene::Scene;
use super::Check;
use crate::acme::AcmeStatus;
use crate::admin::{counted, told_of_certificates};
use crate::config::{Config, effective_json, keys_that_need_a_restart};
use crate::pem_file::PemFile;
use crate::tls::Certificate;

pub(super) const CHECK: Check = Check::blocking("gateway", look).always();

/// Most keys that are named.
const MOST: usize = 8;

fn look(scene: &Scene) -> Vec<Finding> {
    let running = match &scene.running {
        Ok(running) => running,
        Err(no_answer) => return vec![none(scene, no_answer)],
    };
    let mut troubles = Vec::new();
    let own = env!("CARGO_PKG_VERSION");
    let version = running.status["version"].as_str().unwrap_or("unknown");
    if version != own {
        troubles.push(Finding::warning(
            format!("version {version} runs, and this program is {own}"),
            "What is new in the installed version is not in effect",
            "systemctl restart flexvdi-gateway; sessions go on",
        ));
    }
    if scene.is_configured() {
        troubles.extend(configuration(running, &scene.config));
        troubles.extend(certificate(running, &scene.config));
    }
    if running.status["draining"] == true {
        troubles.push(Finding::warning(
            "the gateway drains",
            "Nobody gets a new desktop (503)",
            "flexvdi-gateway undrain",
        ));
    }
    troubles.extend(orders(running));
    troubles.extend(open_files(running));
    or_ok(troubles, || {
        let uptime = running.status["uptime_seconds"].as_u64().unwrap_or(0);
        let sessions = running.status["sessions"].as_array().map_or(0, Vec::len);
        let pid = running.pid().unwrap_or(0);
        let uptime = humantime::format_duration(Duration::from_secs(uptime));
        let sessions = counted(sessions, "desktop session");
        format!("version {version}, process {pid}, up for {uptime}, {sessions}")
    })
}

fn none(scene: &Scene, no_answer: &NoAnswer) -> Finding {
    match no_answer {
        NoAnswer::NotRunning if scene.state.is_some() => Finding::skipped("none runs"),
        NoAnswer::NotRunning => Finding::warning(
            format!(
                "none runs with the RuntimeDir {}",
                scene.config.runtime_dir.display()
            ),
            "No client is served",
            "Start it, and look at what it logs",
        ),
        NoAnswer::NotAllowed => Finding::skipped(format!(
            "this user may not ask it; run this as root or as the user {}",
            scene.account.name
        )),
        NoAnswer::Silent(reason) => Finding::error(
            format!("it does not answer at admin.sock: {reason}"),
            "It hangs, or something else listens there",
            "Look at its log and at the machine's load; restart it if it hangs",
        ),
    }
}

fn configuration(running: &Running, config: &Config) -> Option<Finding> {
    let in_effect = running.configuration.as_ref()?.as_object()?;
    let in_file = effective_json(config);
    let in_file = in_file.as_object()?;
    // A gateway of another version may not have all keys.
    let is_other =
        |(key, value): &(&String, &Value)| in_effect.get(*key).is_some_and(|found| found != *value);
    let changed: Vec<_> = in_file
        .iter()
        .filter(is_other)
        .map(|(key, _)| key.as_str())
        .collect();
    if changed.is_empty() {
        return None;
    }
    let needs_restart = keys_that_need_a_restart().any(|key| changed.contains(&key));
    let more = match changed.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = changed[..changed.len().min(MOST)].join(", ");
    let verb = if needs_restart { "restart" } else { "reload" };
    Some(Finding::warning(
        format!("the file has other values than those in effect: {named}{more}"),
        "The gateway goes on with the old ones",
        format!("systemctl {verb} flexvdi-gateway"),
    ))
}

fn certificate(running: &Running, config: &Config) -> Option<Finding> {
    let in_use = running.status["certificate_end"].as_u64()?;
    let path = config.certificate_file();
    let in_file = PemFile::read(&path).certificates().ok()?;
    let end = Certificate::of(in_file.first()?).not_after?;
    (in_use != end).then(|| {
        Finding::warning(
            format!(
                "{} has another certificate than the one in use",
                path.display()
            ),
            "Clients see the old one; the gateway takes no certificate that is not valid now, or \
             does not go with its key",
            "journalctl -u flexvdi-gateway -p warning, then systemctl reload flexvdi-gateway",
        )
    })
}

/// Certificates that the gateway could not get by itself.
fn orders(running: &Running) -> Option<Finding> {
    let acme: AcmeStatus = serde_json::from_value(running.status["acme"].clone()).ok()?;
    (acme.failures > 0).then(|| {
        Finding::warning(
            format!("Acme: {}", told_of_certificates(&acme, SystemTime::now())),
            "Clients refuse the gateway's certificate once it has ended",
            "docs/certificates.md#what-has-to-be-reachable",
        )
    })
}

fn open_files(running: &Running) -> Option<Finding> {
    let open = running.status["open_files"].as_u64()?;
    let limit = running.status["open_files_limit"].as_u64()?;
    (open.saturating_mul(10) > limit.saturating_mul(9)).then(|| {
        Finding::warning(
            format!("{open} of {limit} files are open"),
            "Further clients are refused soon",
            "Raise LimitNOFILE= of the unit, or find out who holds so many connections",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(status: Value, configuration: Option<Value>, config: Config) -> Vec<String> {
        let mut scene = Scene::with(config);
        scene.running = Ok(Running {
            status,
            configuration,
            metrics: String::new(),
        });
        let findings = look(&scene).into_iter();
        findings.map(|finding| finding.found).collect()
    }

    fn status() -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": 7,
            "uptime_seconds": 3600,
            "draining": false,
            "sessions": [],
            "open_files": 10,
            "open_files_limit": 100,
        })
    }

    #[test]
    fn each_oddity_is_told_alone() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            found(
                status(),
                Some(effective_json(&Config::default())),
                Config::default()
            ),
            [format!(
                "version {version}, process 7, up for 1h, 0 desktop sessions"
            )]
        );
        for (key, value, told) in [
            (
                "version",
                json!("0.0.1"),
                format!("version 0.0.1 runs, and this program is {version}"),
            ),
            ("draining", json!(true), "the gateway drains".to_owned()),
            (
                "acme",
                json!({
                    "domains": [],
                    "directory": "",
                    "failures": 2,
                    "last_error": "no answer",
                    "next_attempt": 0,
                }),
                "Acme: the last 2 attempts failed: no answer; the next one is ordered in 0 s"
                    .to_owned(),
            ),
            (
                "open_files",
                json!(91),
                "91 of 100 files are open".to_owned(),
            ),
        ] {
            let mut status = status();
            status[key] = value;
            assert_eq!(found(status, None, Config::default()), [told]);
        }
    }

    #[test]
    fn keys_with_other_values_are_named() {
        let in_effect = effective_json(&Config::default());
        let config = Config {
            max_connections: 7,
            worker_threads: Some(3),
            ..Config::default()
        };
        let mut scene = Scene::with(config);
        scene.running = Ok(Running {
            status: status(),
            configuration: Some(in_effect),
            metrics: String::new(),
        });
        let findings = look(&scene);
        assert_eq!(findings.len(), 1);
        let told = "the file has other values than those in effect: MaxConnections, WorkerThreads";
        assert_eq!(findings[0].found, told);
        assert_eq!(findings[0].remedy, "systemctl restart flexvdi-gateway");
    }
}
