//! The access log of the installed gateway, rotated by logrotate.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::machine::Machine;
use crate::steps::Steps;

/// What the package's rule for logrotate is for.
pub(super) const ACCESS_LOG: &str = "/var/log/flexvdi-gateway/access.log";

const RULE: &str = "/etc/logrotate.d/flexvdi-gateway";
/// How long the gateway may take to write a line.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Rotates a log that has lines, and sees that later ones are in a new file.
pub(super) fn rotate(steps: &mut Steps, machine: &Machine) -> Result<()> {
    steps.begin("Access log: logrotate");
    let said = machine.shell(&format!("logrotate --debug {RULE} 2>&1"))?;
    ensure!(
        said.contains(ACCESS_LOG) && !said.contains("error:"),
        "logrotate finds fault with the rule: {said}"
    );
    let before = machine.shell(&format!("wc -l < {ACCESS_LOG}"))?;
    ensure!(before != "0", "the access log has no lines");
    // The rule waits for another day; forced it does not. The log's last lines may come meanwhile.
    let said = machine.shell(&format!("logrotate --force --verbose {RULE} 2>&1"))?;
    ensure!(!said.contains("error:"), "{said}");
    machine.shell(&format!("test -s {ACCESS_LOG}.1"))?;
    let owner = "stat --format='%U %a'";
    let began = Instant::now();
    // A file is made at the signal, before any line comes.
    while machine.shell(&format!("test -e {ACCESS_LOG}")).is_err() {
        ensure!(
            began.elapsed() < LIMIT,
            "the gateway did not open its access log again"
        );
        thread::sleep(POLL);
    }
    let owner = machine.shell(&format!("{owner} {ACCESS_LOG}"))?;
    ensure!(owner == "flexvdi-gateway 600", "{ACCESS_LOG}: {owner}");
    steps.done(format!(
        "{before} lines are in access.log.1, the gateway writes a new file"
    ));
    Ok(())
}
