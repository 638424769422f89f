//! The service on a machine, as its administrator sees it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::cert::TestCert;
use testkit::manager::Manager;

use super::machine::Machine;

pub(super) const UNIT: &str = "flexvdi-gateway.service";
const CONFIGURATION: &str = "/etc/flexvdi/flexvdi-gateway.conf";
const USER: &str = "flexvdi-gateway";

/// The service of the installed package.
pub(super) struct Service<'a>(pub(super) &'a Machine);

impl Service<'_> {
    /// Fails unless systemctl answers a question with `answer`.
    pub(super) fn expect(&self, question: &str, answer: &str) -> Result<()> {
        let said = self
            .0
            .shell(&format!("systemctl {question} {UNIT} || true"))?;
        if said == answer {
            return Ok(());
        }
        let log = self
            .0
            .run(&["journalctl", "--no-pager", "-n", "30", "-u", UNIT])?;
        ensure!(
            said == answer,
            "systemctl {question}: {said}, not {answer}; the log:\n{log}"
        );
        Ok(())
    }

    /// Puts a certificate where the shipped configuration looks for one.
    pub(super) fn write_certificate(&self) -> Result<TestCert> {
        let cert = TestCert::new()?;
        self.0.write(
            "/etc/flexvdi/gateway.pem",
            &std::fs::read(cert.cert_path())?,
        )?;
        self.0
            .write("/etc/flexvdi/gateway.key", &std::fs::read(cert.key_path())?)?;
        self.0.shell(&format!(
            "chown root:{USER} /etc/flexvdi/gateway.key && chmod 640 /etc/flexvdi/gateway.key"
        ))?;
        Ok(cert)
    }

    /// Lets the gateway check its configuration, as the user that it runs as.
    pub(super) fn check(&self) -> Result<()> {
        self.0
            .run(&["runuser", "-u", USER, "--", "flexvdi-gateway", "check"])?;
        Ok(())
    }

    /// Writes a configuration that knows the manager; gives it back.
    pub(super) fn configure(&self, manager: &Manager) -> Result<String> {
        let authorities = std::fs::read(manager.cert().ca_path())?;
        self.0.write("/etc/flexvdi/gateway.ca.pem", &authorities)?;
        let text = serde_json::to_string_pretty(&json!({
            "ManagerIP": manager.addr().ip().to_string(),
            "ManagerPort": manager.addr().port(),
            "ManagerCAFile": "/etc/flexvdi/gateway.ca.pem",
            "CertFile": "/etc/flexvdi/gateway.pem",
            "KeyFile": "/etc/flexvdi/gateway.key",
            "FirstSpicePort": 1,
            "LastSpicePort": 65535,
            "AccessLog": super::logrotate::ACCESS_LOG,
        }))?;
        self.0.shell("chmod 644 /etc/flexvdi/gateway.*pem")?;
        self.write(&text)?;
        Ok(text)
    }

    /// Puts this configuration in place.
    pub(super) fn write(&self, configuration: &str) -> Result<()> {
        self.0.write(CONFIGURATION, configuration.as_bytes())?;
        self.check()
    }

    /// The configuration as it lies there.
    pub(super) fn configuration(&self) -> Result<String> {
        self.0.run(&["cat", CONFIGURATION])
    }

    /// The process that systemd takes for the service.
    pub(super) fn main_pid(&self) -> Result<String> {
        self.0
            .run(&["systemctl", "show", "--property=MainPID", "--value", UNIT])
    }

    /// Fails unless the running process can open ports below 1024, and has and can gain no other
    /// capability.
    pub(super) fn expect_few_capabilities(&self) -> Result<()> {
        /// `CAP_NET_BIND_SERVICE` is number 10 (capability.h).
        const WANTED: &str = "0000000000000400";
        let status = format!("/proc/{}/status", self.main_pid()?);
        let sets = self.0.run(&["grep", "^Cap", &status])?;
        for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let has = |line: &str| line.starts_with(set) && line.ends_with(WANTED);
            ensure!(sets.lines().any(has), "{set} is not {WANTED}:\n{sets}");
        }
        Ok(())
    }

    /// The data paths of all open channels.
    pub(super) fn paths_in_use(&self) -> Result<Vec<String>> {
        let status = self.0.run(&["flexvdi-gateway", "status", "--json"])?;
        let status: Value = serde_json::from_str(&status)?;
        let lists = |value: &Value, name| value[name].as_array().cloned().unwrap_or_default();
        let sessions = lists(&status, "sessions").into_iter();
        let channels = sessions.flat_map(|session| lists(&session, "channels"));
        Ok(channels
            .filter_map(|channel| channel["path"].as_str().map(str::to_owned))
            .collect())
    }

    /// What the gateway said about data paths at its start.
    pub(super) fn data_paths(&self) -> Result<Vec<String>> {
        let log = self
            .0
            .run(&["journalctl", "--no-pager", "-o", "cat", "-u", UNIT])?;
        let lines = log.lines().filter(|line| line.starts_with("data path"));
        Ok(lines.map(str::to_owned).collect())
    }
}
