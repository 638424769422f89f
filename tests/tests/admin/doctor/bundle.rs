//! Reports for those who help: everything is in them, and no secret.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use testkit::command::write_program;
use testkit::flexvdi::FlexVdiClient;
use testkit::prelude::*;

use super::{Installation, run};

/// Secrets, each of which is planted in one place or several.
const SECRETS: [&str; 18] = [
    "Wr0ng-Key-In-File",
    "portal-path-secret",
    "query-secret",
    "0dpJqGm3cTz0Xo2nkH5fJ2zv1Qw8sYb4uR7eLxNcVaM",
    "nf65EOgLrQMR",
    "c29tZXNhbHQ",
    "spice-geheim",
    "unit-env-secret",
    "drop-in-secret",
    "exec-secret",
    "journal-pw",
    "journal-cookie",
    "basic-dTpw",
    "url-pw",
    "Abc3Def6Ghi9Jkl2",
    "jwt-Q5sgnYXR1cmU",
    "log-token",
    "BEGINsecretPEMbody",
];
/// Who the clients are.
const CLIENTS: [&str; 5] = [
    "198.51.100.7",
    "2001:db8::77",
    "anna.meier",
    "127.0.0.9",
    "52:54:00:12:34:56",
];

/// What stands in the journal, as far as the program knows that prints it.
const JOURNAL: &str = r#"2026-03-01T09:15:02+0000 gw flexvdi-gateway[12]: INFO user logged in client=198.51.100.7 user="anna.meier"
2026-03-01T09:15:03+0000 gw flexvdi-gateway[12]: INFO terminal known client=2001:db8::77 terminal="52:54:00:12:34:56"
2026-03-01T09:15:04+0000 gw flexvdi-gateway[12]: WARN x password=journal-pw Cookie: a=journal-cookie; b
2026-03-01T09:15:05+0000 gw flexvdi-gateway[12]: Authorization: Basic basic-dTpw
2026-03-01T09:15:06+0000 gw flexvdi-gateway[12]: https://me:url-pw@portal.example/ GET /?ver=2&token=log-token
2026-03-01T09:15:07+0000 gw flexvdi-gateway[12]: somebody wrote Abc3Def6Ghi9Jkl2 and eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.jwt-Q5sgnYXR1cmU
2026-03-01T09:15:08+0000 gw flexvdi-gateway[12]: $argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4
2026-03-01T09:15:09+0000 gw flexvdi-gateway[12]: -----BEGIN PRIVATE KEY-----BEGINsecretPEMbody
2026-03-01T09:15:10+0000 gw flexvdi-gateway[12]: INFO host not reached client=198.51.100.7 host=127.0.0.1:5900 reason="refused"
"#;

/// The files in a report, by their names.
fn unpack(path: &Path) -> BTreeMap<String, String> {
    let bytes = zstd::decode_all(&fs::read(path).unwrap()[..]).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let name = name.strip_prefix("flexvdi-gateway-doctor/").unwrap();
        found.insert(name.to_owned(), text);
    }
    found
}

/// An installation with a secret wherever there can be one, and a client at a desktop.
struct Planted {
    installation: Installation,
    gateway: Gateway,
    _channel: ws::Channel,
}

impl Planted {
    async fn new() -> Self {
        let mut installation = Installation::new().await;
        let keys = "flexvdi-gateway-pool-keys 1\n\
                    key 0dpJqGm3cTz0Xo2nkH5fJ2zv1Qw8sYb4uR7eLxNcVaM\n";
        let keys = installation.write("pool.keys", keys);
        installation.set("PoolKeyFile", keys);
        let url = "https://127.0.0.1:1/portal-path-secret?a=query-secret";
        installation.set("TicketURL", url);
        let ca = installation.cert.ca_path();
        installation.set("TicketURLCAFile", ca.to_str().unwrap());
        // What is none of the gateway's.
        installation.set("OtherPassword", "Wr0ng-Key-In-File");
        installation.set("ManagerIP", "");
        let desktops = desktops(&installation);
        installation.set("Desktops", desktops);
        installation.write("journal", JOURNAL);
        let programs = installation.path("bin");
        fs::create_dir(&programs).unwrap();
        let journal = installation.path("journal");
        let script = format!("#!/bin/sh\ncat {}\n", journal.display());
        write_program(&programs.join("journalctl"), &script).unwrap();
        let log = installation.path("access.log");
        let log_text = log.to_str().unwrap().to_owned();
        installation.set("AccessLog", log_text);

        let gateway = installation.start(|gateway| gateway).await;
        installation.unit.push_str(
            "Environment=API=unit-env-secret\nExecStartPost=/bin/true --token=exec-secret\n",
        );
        let drop_ins = installation.path("gateway.service.d");
        fs::create_dir(&drop_ins).unwrap();
        let drop_in = "[Service]\nSetCredential=x:drop-in-secret\n";
        fs::write(drop_ins.join("1.conf"), drop_in).unwrap();

        let client: IpAddr = "127.0.0.9".parse().unwrap();
        let endpoint = gateway.tls().from_source(client);
        let desktop = FlexVdiClient::new(&endpoint).login("anna.meier", "password");
        let token = desktop.desktop().await.unwrap().token;
        let link = link_message(ChannelType::Main, 0);
        let mut channel = ws::channel(&endpoint, &token, &link).await.unwrap();
        channel.expect(&link).await.unwrap();
        let mut planted = fs::read_to_string(&log).unwrap();
        planted.push_str(
            "{\"event\":\"refused\",\"client\":\"198.51.100.7\",\"reason\":\"token=log-token\"}\n\
             {\"event\":\"login\",\"client\":\"2001:db8::77\",\"terminal\":\"52:54:00:12:34:56\"}\n",
        );
        fs::write(&log, planted).unwrap();
        Self {
            installation,
            gateway,
            _channel: channel,
        }
    }

    /// Has a report made, and gives what is in it.
    async fn report(&self, name: &str, more: &[&str]) -> BTreeMap<String, String> {
        let path = self.installation.path(name);
        let mut command = self.installation.command_for(self.gateway.config_path());
        let programs = self.installation.path("bin");
        let programs = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        command
            .env("PATH", programs)
            .arg("--bundle")
            .arg(&path)
            .args(more);
        let found = run(command).await;
        assert!(path.exists(), "{}", found.text);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        unpack(&path)
    }
}

/// A file with a user who has a password, and a desktop that has one.
fn desktops(installation: &Installation) -> String {
    let hash =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    let file = json!({
        "desktops": [{
            "id": "d",
            "name": "x",
            "address": installation.host.addr().to_string(),
            "password": "spice-geheim",
        }],
        "users": [{"name": "anna.meier", "password": hash, "desktops": ["d"]}],
    });
    installation.write("desktops.json", file.to_string())
}

#[tokio::test]
async fn a_report_has_everything_but_secrets_and_clients() {
    let planted = Planted::new().await;
    let report = planted.report("a.tar.zst", &[]).await;
    for name in [
        "README.txt",
        "doctor.txt",
        "doctor.json",
        "configuration.json",
        "configuration-in-effect.json",
        "status.json",
        "metrics.txt",
        "probe.json",
        "versions.txt",
        "units/0-gateway.service",
        "units/1-1.conf",
        "journal.txt",
        "access-log.txt",
    ] {
        assert!(report.contains_key(name), "{name}: {:?}", report.keys());
    }
    for (name, text) in &report {
        for secret in SECRETS.iter().chain(&CLIENTS) {
            assert!(!text.contains(secret), "{secret} in {name}:\n{text}");
        }
    }
    // What is of use is there, and the same client is called the same everywhere.
    let journal = &report["journal.txt"];
    assert!(
        journal.contains("host=127.0.0.1:5900 reason=\"refused\""),
        "{journal}"
    );
    let of_journal = journal.split("user logged in client=").nth(1).unwrap();
    let client = of_journal.split(' ').next().unwrap();
    assert!(client.starts_with("client-"), "{journal}");
    let log = &report["access-log.txt"];
    assert!(
        log.contains(&format!("\"refused\",\"client\":\"{client}\"")),
        "{log}"
    );
    assert!(log.contains("channel-open"), "{log}");
    let status: Value = serde_json::from_str(&report["status.json"]).unwrap();
    assert_eq!(status["pid"], planted.gateway.pid());
    let session = &status["sessions"][0];
    assert!(session["client"].as_str().unwrap().starts_with("client-"));
    let host = planted.installation.host.addr().to_string();
    assert_eq!(session["host"], host);
    let values: Value = serde_json::from_str(&report["configuration.json"]).unwrap();
    assert_eq!(values["TicketURL"], "https://127.0.0.1:1/[removed]");
    assert_eq!(values["MaxConnections"], 100);
    assert!(report["metrics.txt"].contains("\nflexvdi_gateway_sessions 1.0\n"));
    assert!(report["versions.txt"].starts_with("flexvdi-gateway "));
    assert!(report["units/0-gateway.service"].contains("RestartKillSignal=SIGUSR2"));

    let report = planted.report("b.tar.zst", &["--with-addresses"]).await;
    let all: String = report.values().map(String::as_str).collect();
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret}");
    }
    for client in CLIENTS {
        assert!(all.contains(client), "{client}");
    }
}

#[tokio::test]
async fn a_file_that_is_there_is_not_overwritten() {
    let installation = Installation::new().await;
    let path = installation.write("mine.tar.zst", "mine");
    let mut command = installation.command();
    command.args(["--bundle", &path]);
    let found = run(command).await;
    assert_eq!(found.output.status.code(), Some(1), "{}", found.text);
    assert!(
        found
            .text
            .contains("mine.tar.zst: cannot make the report: File exists"),
        "{}",
        found.text
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    let mut command = installation.command();
    command.arg("--bundle").arg(installation.path("report.zip"));
    let found = run(command).await;
    assert!(
        found.text.contains("the name of a report ends in .tar.zst"),
        "{}",
        found.text
    );
}

#[tokio::test]
#[cfg_attr(unprivileged, ignore = "mounts a small file system")]
async fn a_full_disk_is_told_and_nothing_is_left() {
    let installation = Installation::new().await;
    let disk = installation.path("disk");
    fs::create_dir(&disk).unwrap();
    let inner = installation.command();
    // In a namespace of its own, so that nothing is left mounted.
    let mut command = tokio::process::Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg(
            "mount -t tmpfs -o size=4096 none \"$0\" && head -c 4096 /dev/zero > \"$0/full\" && \
             \"$@\"; code=$?; ls \"$0\"; exit $code",
        )
        .arg(&disk)
        .arg(inner.as_std().get_program())
        .args(inner.as_std().get_args())
        .arg("--bundle")
        .arg(disk.join("report.tar.zst"))
        .kill_on_drop(true);
    let found = run(command).await;
    assert_eq!(found.output.status.code(), Some(1), "{}", found.text);
    let told =
        "report.tar.zst: cannot write the report, so it was removed: No space left on device";
    assert!(found.text.contains(told), "{}", found.text);
    let left = found.text.lines().any(|line| line == "report.tar.zst");
    assert!(!left, "{}", found.text);
}
