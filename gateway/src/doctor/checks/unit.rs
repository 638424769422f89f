//! The unit of systemd, against the one that the packages install and against the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::finding::{Finding, or_ok};
use super::super::scene::Scene;
use super::super::unit::{SHIPPED, Settings, Unit};
use super::{Check, files, ports};
use crate::config::{Config, DEFAULT_PATH, DataPath};
use crate::measured;

pub(super) const CHECK: Check = Check::blocking("unit", look);

const RESTARTS: &str = "A restart and an upgrade end every desktop session";
const EDIT: &str = "`systemctl edit` the unit, or install the package's again";

/// Settings without which something does not work, with the values that will do; the first is the
/// shipped unit's. And what does not work.
const MATTER: [(&str, &[&str], &str); 7] = [
    (
        "Type",
        &["notify", "notify-reload"],
        "Systemd takes the gateway for started before its ports are open",
    ),
    ("NotifyAccess", &["all"], RESTARTS),
    ("RestartKillSignal", &["SIGUSR2", "12"], RESTARTS),
    ("RuntimeDirectoryPreserve", &["restart", "yes"], RESTARTS),
    ("KillMode", &["mixed"], RESTARTS),
    (
        "Restart",
        &["on-failure", "always", "on-abnormal"],
        "A gateway that has failed stays down",
    ),
    (
        "ExecReload",
        &[],
        "`systemctl reload` does not work, so changes of the configuration need a restart",
    ),
];
/// Least `FileDescriptorStoreMax=`.
const STORE: u32 = 3;
/// What eBPF programs need.
const SOCKMAP: [&str; 3] = ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"];

fn look(scene: &Scene) -> Vec<Finding> {
    let Some(unit) = &scene.unit else {
        return match &scene.wanted_unit {
            Some(name) => vec![Finding::error(
                format!("there is no unit {name}"),
                "Systemd does not start the gateway",
                "Correct --unit, or install the package",
            )],
            None => vec![Finding::ok(
                "none is installed: the gateway is not run by systemd",
            )],
        };
    };
    if let Some(unread) = unit.unread.first() {
        return vec![Finding::skipped(format!("it cannot be read: {unread}"))];
    }
    let settings = &unit.settings;
    let mut troubles = differences(settings);
    troubles.extend(command(settings, &scene.path));
    troubles.extend(capabilities(scene, unit));
    troubles.extend(hidden(settings, scene));
    troubles.extend(not_writable(settings, &scene.config));
    or_ok(troubles, || {
        let path = unit.path.display();
        let drop_ins: Vec<_> = unit
            .drop_ins
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        match &drop_ins[..] {
            [] => path.to_string(),
            _ => format!("{path} with {}", drop_ins.join(", ")),
        }
    })
}

fn differences(settings: &Settings) -> Vec<Finding> {
    let shipped = Settings::parse(SHIPPED);
    let mut troubles = Vec::new();
    for (key, will_do, why) in MATTER {
        let found = settings.value(key);
        let is_well = match found {
            Some(value) => will_do.is_empty() || will_do.contains(&value),
            None => false,
        };
        if !is_well {
            let found =
                found.map_or_else(|| "is not set".to_owned(), |value| format!("is {value}"));
            let shipped = shipped.value(key).unwrap_or_default();
            troubles.push(Finding::warning(
                format!("{key}= {found}; in the package's unit it is {shipped}"),
                why,
                EDIT,
            ));
        }
    }
    let store = settings
        .value("FileDescriptorStoreMax")
        .and_then(|value| value.parse().ok());
    if store.unwrap_or(0) < STORE {
        troubles.push(Finding::warning(
            format!("FileDescriptorStoreMax= is below {STORE}; in the package's unit it is 16"),
            RESTARTS,
            EDIT,
        ));
    }
    troubles
}

/// Whether it starts the gateway with this configuration.
fn command(settings: &Settings, looked_at: &Path) -> Option<Finding> {
    let words = settings.words("ExecStart");
    if words.is_empty() {
        return Some(Finding::error(
            "ExecStart= is not set",
            "The unit starts nothing",
            EDIT,
        ));
    }
    let mut words = words.iter();
    let given = words.find_map(|word| match word.strip_prefix("--config")? {
        "" => Some(None),
        value => Some(value.strip_prefix('=')),
    });
    let path = match given {
        Some(Some(path)) => path,
        Some(None) => words.next().copied().unwrap_or_default(),
        None => DEFAULT_PATH,
    };
    if path.contains('%') || same(Path::new(path), looked_at) {
        return None;
    }
    Some(Finding::warning(
        format!(
            "the unit starts the gateway with {path}, and {} was looked at",
            looked_at.display()
        ),
        "What was found here may not be so for the service",
        format!("flexvdi-gateway doctor --config {path}"),
    ))
}

fn same(left: &Path, right: &Path) -> bool {
    real(left) == real(right)
}

/// Where links lead; as it is named if there is nothing.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn capabilities(scene: &Scene, unit: &Unit) -> Option<Finding> {
    let config = &scene.config;
    // One that runs has its ports, and reports itself what its data path lacks.
    if scene.running.is_ok() || scene.account.uid == 0 {
        return None;
    }
    let given = unit.settings.words("AmbientCapabilities");
    let first_free = first_free_port();
    let mut ports = ports::ports(config).into_iter();
    let low = ports.find(|port| port.number != 0 && port.number < first_free);
    let socket = unit.name.replace(".service", ".socket");
    if let Some(port) = low
        && !given.contains(&"CAP_NET_BIND_SERVICE")
        && Unit::installed(&socket).is_none()
    {
        return Some(Finding::error(
            format!(
                "AmbientCapabilities= lacks CAP_NET_BIND_SERVICE, which port {} needs",
                port.number
            ),
            port.why,
            EDIT,
        ));
    }
    let preparations = unit.settings.words("ExecStartPre");
    let paths = measured::data_paths(config);
    let wants_programs =
        paths.into_iter().any(DataPath::has_programs) && !preparations.contains(&"load-ebpf");
    let lacks: Vec<_> = SOCKMAP
        .into_iter()
        .filter(|name| !given.contains(name))
        .collect();
    (wants_programs && !lacks.is_empty()).then(|| {
        Finding::warning(
            format!(
                "AmbientCapabilities= lacks {}, which DataPath {} needs unless ExecStartPre= runs \
                 load-ebpf",
                lacks.join(" "),
                config.data_path.name()
            ),
            "Channels use relay instead",
            "Install sockmap.conf as a drop-in: docs/operations.md#kernel-data-path",
        )
    })
}

/// The first port that needs no capability.
fn first_free_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

/// Files that the unit hides from the gateway.
fn hidden(settings: &Settings, scene: &Scene) -> Option<Finding> {
    let home = settings.value("ProtectHome").unwrap_or_default();
    let hides_home = settings.is_on("ProtectHome") || home == "tmpfs";
    let hides_tmp =
        settings.is_on("PrivateTmp") || settings.value("PrivateTmp") == Some("disconnected");
    let is_hidden = |path: &Path| {
        let below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
        (hides_home && below(&["/home", "/root", "/run/user"]))
            || (hides_tmp && below(&["/tmp", "/var/tmp"]))
    };
    let named = files::named(scene).into_iter();
    let mut real = named.map(|file| real(file.path));
    let path = real.find(|path| is_hidden(path))?;
    Some(Finding::error(
        format!(
            "the unit hides {} from the gateway (ProtectHome=, PrivateTmp=)",
            path.display()
        ),
        "The gateway does not start without it",
        "Put it into /etc/flexvdi",
    ))
}

/// What the gateway writes, where the unit makes everything else read-only.
fn not_writable(settings: &Settings, config: &Config) -> Vec<Finding> {
    if settings.value("ProtectSystem") != Some("strict") {
        return Vec::new();
    }
    let made = [
        ("RuntimeDirectory", "/run"),
        ("LogsDirectory", "/var/log"),
        ("StateDirectory", "/var/lib"),
    ];
    let mut writable: Vec<PathBuf> = Vec::new();
    for (key, root) in made {
        let names = settings.words(key).into_iter();
        writable.extend(names.map(|name| Path::new(root).join(name)));
    }
    let more = settings.words("ReadWritePaths").into_iter();
    writable.extend(more.map(|path| PathBuf::from(path.trim_start_matches(['-', '+']))));
    let is_writable = |path: &Path| writable.iter().any(|folder| path.starts_with(folder));
    let mut troubles = Vec::new();
    if let Some(log) = &config.access_log
        && !is_writable(log)
    {
        troubles.push(Finding::error(
            format!(
                "the unit makes {} (AccessLog) read-only (ProtectSystem=strict)",
                log.display()
            ),
            "The gateway does not start when it cannot open its access log",
            "Put it into /var/log/flexvdi-gateway, or add its folder to ReadWritePaths=",
        ));
    }
    let runtime_dir = &config.runtime_dir;
    if !is_writable(runtime_dir) {
        troubles.push(Finding::warning(
            format!(
                "the unit makes {} (RuntimeDir) read-only (ProtectSystem=strict)",
                runtime_dir.display()
            ),
            "The gateway runs without the commands status, kick, drain and ticket",
            "Name it in RuntimeDirectory=, as the package's unit does",
        ));
    }
    let state_directory = &config.state_directory;
    if config.acme.is_some() && !is_writable(state_directory) {
        troubles.push(Finding::error(
            format!(
                "the unit makes {} (StateDirectory) read-only (ProtectSystem=strict)",
                state_directory.display()
            ),
            "Acme cannot keep a certificate there, so none is ordered",
            "Name it in StateDirectory=, as the package's unit does",
        ));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Acme;

    fn scene(unit: &str, config: Config) -> Scene {
        let mut scene = Scene::with(config);
        scene.path = DEFAULT_PATH.into();
        scene.account.uid = 54_321;
        scene.unit = Some(Unit {
            name: "flexvdi-gateway.service".to_owned(),
            path: "/x.service".into(),
            drop_ins: Vec::new(),
            settings: Settings::parse(unit),
            unread: Vec::new(),
        });
        scene
    }

    fn found(unit: &str, config: Config) -> Vec<String> {
        let findings = look(&scene(unit, config)).into_iter();
        findings.map(|finding| finding.found).collect()
    }

    #[test]
    fn the_shipped_unit_is_sound() {
        let config = Config {
            access_log: Some("/var/log/flexvdi-gateway/access.log".into()),
            ..Config::default()
        };
        assert_eq!(found(SHIPPED, config), ["/x.service"]);
    }

    #[test]
    fn each_difference_that_matters_is_told_alone() {
        for (line, told) in [
            (
                "Type=simple",
                "Type= is simple; in the package's unit it is notify",
            ),
            ("NotifyAccess=", "NotifyAccess= is not set"),
            ("RestartKillSignal=SIGTERM", "RestartKillSignal= is SIGTERM"),
            (
                "RuntimeDirectoryPreserve=no",
                "RuntimeDirectoryPreserve= is no",
            ),
            ("KillMode=process", "KillMode= is process"),
            ("Restart=no", "Restart= is no"),
            ("ExecReload=", "ExecReload= is not set"),
            (
                "FileDescriptorStoreMax=1",
                "FileDescriptorStoreMax= is below 3",
            ),
            (
                "AmbientCapabilities=",
                "AmbientCapabilities= lacks CAP_NET_BIND_SERVICE, which port 443",
            ),
            (
                "RuntimeDirectory=",
                "the unit makes /run/flexvdi-gateway (RuntimeDir) read-only",
            ),
            (
                "ExecStart=\nExecStart=/x --config /etc/other",
                "the unit starts the gateway with /etc/other",
            ),
            (
                "ExecStart=\nExecStart=/x --config=/etc/other",
                "the unit starts the gateway with /etc/other",
            ),
            ("ExecStart=", "ExecStart= is not set"),
        ] {
            let found = found(&format!("{SHIPPED}\n{line}\n"), Config::default());
            assert_eq!(found.len(), 1, "{line}: {found:?}");
            assert!(found[0].starts_with(told), "{line}: {found:?}");
        }
    }

    #[test]
    fn what_the_configuration_needs_is_told_alone() {
        let default = Config::default;
        for (config, told) in [
            (
                Config {
                    data_path: DataPath::Sockmap,
                    ..default()
                },
                "AmbientCapabilities= lacks CAP_NET_ADMIN CAP_BPF CAP_PERFMON",
            ),
            (
                Config {
                    key_file: "/root/key.pem".into(),
                    ..default()
                },
                "the unit hides /root/key.pem",
            ),
            (
                Config {
                    desktops: Some("/tmp/desktops.json".into()),
                    ..default()
                },
                "the unit hides /tmp/desktops.json",
            ),
            (
                Config {
                    access_log: Some("/srv/access.log".into()),
                    ..default()
                },
                "the unit makes /srv/access.log (AccessLog) read-only",
            ),
        ] {
            let found = found(SHIPPED, config);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(told), "{found:?}");
        }
        let high = Config {
            ssl_port: 8443,
            ..default()
        };
        assert_eq!(
            found(&format!("{SHIPPED}\nAmbientCapabilities="), high),
            ["/x.service"]
        );
    }

    #[test]
    fn programs_that_root_loads_need_no_capabilities() {
        const DROP_IN: &str = include_str!("../../../../packaging/systemd/sockmap.conf");
        let config = Config {
            data_path: DataPath::Sockmap,
            ..Config::default()
        };
        let unit = format!("{SHIPPED}\n{DROP_IN}");
        assert_eq!(found(&unit, config), ["/x.service"]);
    }

    #[test]
    fn what_acme_needs_is_told_and_its_certificate_is_no_file_of_the_administrator() {
        let config = |state: &str, port| Config {
            acme: Some(Acme {
                domains: vec!["gateway.example.com".to_owned()],
                contact: Vec::new(),
                directory: "https://ca.example.com/directory".parse().unwrap(),
                directory_ca_file: "/etc/ssl/certs/ca-certificates.crt".into(),
                http_port: Some(port),
            }),
            state_directory: state.into(),
            // Those have no effect.
            cert_file: "/root/gateway.pem".into(),
            key_file: "/root/gateway.key".into(),
            ssl_port: 8443,
            ..Config::default()
        };
        let usual = "/var/lib/flexvdi-gateway";
        assert_eq!(found(SHIPPED, config(usual, 80)), ["/x.service"]);
        let without = format!("{SHIPPED}\nAmbientCapabilities=\n");
        let told = found(&without, config(usual, 80));
        assert!(told[0].ends_with("which port 80 needs"), "{told:?}");
        assert_eq!(found(&without, config(usual, 8080)), ["/x.service"]);
        let told = found(SHIPPED, config("/srv/gateway", 80));
        let expected = "the unit makes /srv/gateway (StateDirectory) read-only";
        assert!(told[0].starts_with(expected), "{told:?}");
    }

    #[test]
    fn no_unit_is_no_trouble_unless_one_was_named() {
        let mut scene = Scene::with(Config::default());
        assert!(look(&scene)[0].found.starts_with("none is installed"));
        scene.wanted_unit = Some("x".to_owned());
        assert_eq!(look(&scene)[0].found, "there is no unit x");
    }
}
