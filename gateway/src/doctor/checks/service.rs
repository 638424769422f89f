//! How the service fares, as systemd says.

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::super::systemctl::State;
use super::Check;
use crate::admin::counted;

pub(super) const CHECK: Check = Check::blocking("service", look).always();

fn look(scene: &Scene) -> Vec<Finding> {
    let (Some(unit), Some(state)) = (&scene.unit, &scene.state) else {
        return vec![Finding::ok("systemd does not run the gateway here")];
    };
    judge(&unit.name, state, scene.running.is_ok())
}

fn judge(name: &str, state: &State, is_running: bool) -> Vec<Finding> {
    let active = state.get("ActiveState");
    let detail = format!("{active} ({})", state.get("SubState"));
    if state.get("LoadState") == "masked" {
        return vec![Finding::error(
            format!("{name} is masked"),
            "Systemd does not start it",
            format!("systemctl unmask {name}"),
        )];
    }
    let restarts: usize = state.get("NRestarts").parse().unwrap_or(0);
    match active {
        "active" | "reloading" => {}
        "inactive" if is_running => {
            return vec![Finding::warning(
                format!("{name} is {detail}, and a gateway runs all the same"),
                "It was started by hand: it ends with its terminal, and nobody restarts it",
                format!("Stop it, then systemctl enable --now {name}"),
            )];
        }
        "inactive" => {
            return vec![Finding::error(
                format!("{name} is {detail}"),
                "No client is served",
                format!("systemctl enable --now {name}"),
            )];
        }
        _ => {
            let code = state.get("ExecMainStatus");
            return vec![Finding::error(
                format!(
                    "{name} is {detail}: {}, exit code {code}, {}",
                    state.get("Result"),
                    counted(restarts, "restart")
                ),
                meaning(code),
                format!("journalctl -u {name} -n 50"),
            )];
        }
    }
    let mut troubles = Vec::new();
    if matches!(state.get("UnitFileState"), "disabled" | "indirect") {
        troubles.push(Finding::warning(
            format!("{name} is not enabled"),
            "It does not start when the machine does",
            format!("systemctl enable {name}"),
        ));
    }
    if state.get("NeedDaemonReload") == "yes" {
        troubles.push(Finding::warning(
            format!("{name} has changed since systemd has read it"),
            "What stands in the files is not in effect",
            "systemctl daemon-reload",
        ));
    }
    if restarts > 0 {
        troubles.push(Finding::warning(
            format!(
                "{name} has failed and was restarted {}",
                counted(restarts, "time")
            ),
            "Each time all sessions ended",
            format!("journalctl -u {name} -p warning"),
        ));
    }
    or_ok(troubles, || format!("{name} is {detail}"))
}

/// What an exit code stands for: docs/answers.md.
fn meaning(code: &str) -> &'static str {
    match code {
        "78" => "The configuration or a file that it names is wrong",
        "71" => "The system grants fewer threads than the gateway needs",
        "2" => "ExecStart= has a wrong command line",
        "203" => "Systemd cannot run the program in ExecStart=",
        "217" => "Systemd does not know the user in User=",
        "1" => "A port or the access log cannot be opened, or another gateway owns the RuntimeDir",
        _ => "No client is served",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "LoadState=loaded\nActiveState=active\nSubState=running\n\
                         UnitFileState=enabled\nNeedDaemonReload=no\nNRestarts=0\n";

    #[test]
    fn each_state_is_told_alone() {
        let found = |state: &str, is_running| {
            let findings = judge("g.service", &State::parse(state), is_running);
            assert_eq!(findings.len(), 1, "{findings:?}");
            findings[0].found.clone()
        };
        assert_eq!(found(SOUND, true), "g.service is active (running)");
        for (line, is_running, told) in [
            ("LoadState=masked", false, "g.service is masked"),
            (
                "ActiveState=inactive\nSubState=dead",
                false,
                "g.service is inactive (dead)",
            ),
            (
                "ActiveState=inactive\nSubState=dead",
                true,
                "g.service is inactive (dead), and a gateway runs all the same",
            ),
            (
                "ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainStatus=78",
                false,
                "g.service is failed (failed): exit-code, exit code 78, 0 restarts",
            ),
            ("UnitFileState=disabled", true, "g.service is not enabled"),
            (
                "NeedDaemonReload=yes",
                true,
                "g.service has changed since systemd has read it",
            ),
            (
                "NRestarts=2",
                true,
                "g.service has failed and was restarted 2 times",
            ),
        ] {
            assert_eq!(found(&format!("{SOUND}{line}\n"), is_running), told);
        }
    }
}
