//! What people run the image with: the files for compose and Kubernetes follow their schemas, and
//! the gateway accepts the configurations in them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests; clippy knows only functions marked as such"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::cert::TestCert;
use testkit::command::run_bounded;
use testkit::gateway::gateway_binary;
use testkit::packages::{self, Package, SPICE_HTML5};

const LIMIT: Duration = Duration::from_mins(2);
/// Manifests that a cluster takes as they are.
const MANIFESTS: [&str; 4] = ["configuration", "deployment", "secrets", "service"];
/// The image's folder for the configuration.
const FOLDER: &str = "/etc/flexvdi/";

/// Prints all documents of a YAML file as one JSON list.
const TO_JSON: &str = "
import json, sys, yaml
print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))
";
/// Fails unless a YAML file follows a JSON schema.
const FOLLOWS: &str = "
import json, sys, jsonschema, yaml
schema = json.load(open(sys.argv[1]))
jsonschema.validators.validator_for(schema).check_schema(schema)
jsonschema.validate(yaml.safe_load(open(sys.argv[2])), schema)
";

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn manifest(name: &str) -> PathBuf {
    packaging().join(format!("kubernetes/{name}.yaml"))
}

fn compose() -> PathBuf {
    packaging().join("compose/compose.yaml")
}

fn python(script: &str, arguments: &[&Path]) -> anyhow::Result<String> {
    let programs = packages::ensure_kubernetes_validate()?;
    let mut python = Command::new(programs.join("python"));
    python.args(["-c", script]).args(arguments);
    run_bounded(python, LIMIT)
}

/// The documents of a YAML file.
fn documents(path: &Path) -> Vec<Value> {
    let text = python(TO_JSON, &[path]).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The document of a manifest that is of this kind.
fn object(name: &str, kind: &str) -> Value {
    let mut documents = documents(&manifest(name)).into_iter();
    documents.find(|object| object["kind"] == kind).unwrap()
}

/// Fails unless Kubernetes knows every member of the objects in a file.
fn kubernetes_takes(path: &Path) -> anyhow::Result<String> {
    let programs = packages::ensure_kubernetes_validate()?;
    let mut validate = Command::new(programs.join("kubernetes-validate"));
    validate.arg("--strict").arg(path);
    run_bounded(validate, LIMIT)
}

fn compose_takes(path: &Path) -> anyhow::Result<String> {
    python(FOLLOWS, &[&packages::ensure_compose_schema()?, path])
}

/// A copy of a file in which `old`, which must be there, is `new`.
fn changed(path: &Path, old: &str, new: &str) -> (TempDir, PathBuf) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(old), "{}: no {old}", path.display());
    let folder = TempDir::with_prefix("testkit-containers-").unwrap();
    let copy = folder.path().join(path.file_name().unwrap());
    fs::write(&copy, text.replace(old, new)).unwrap();
    (folder, copy)
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn kubernetes_takes_the_manifests() {
    for name in MANIFESTS {
        let path = manifest(name);
        kubernetes_takes(&path).unwrap();
        for object in documents(&path) {
            let name = object["metadata"]["name"].as_str().unwrap();
            assert!(name.starts_with("flexvdi-gateway"), "{name}");
        }
    }
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn a_typo_in_a_manifest_is_found() {
    for (name, old, new) in [
        (
            "deployment",
            "readOnlyRootFilesystem",
            "readonlyRootFilesystem",
        ),
        ("deployment", "preStop:", "preStopp:"),
        ("deployment", "seconds: 5", "second: 5"),
        ("deployment", "replicas: 2", "replicas: two"),
        ("deployment", "maxUnavailable: 1", "maxUnavailabl: 1"),
        ("configuration", "data:", "date:"),
        ("secrets", "stringData:", "stringdata:"),
        ("service", "externalTrafficPolicy", "externalTraficPolicy"),
        ("service", "namespaceSelector", "namespaceselector"),
    ] {
        let (_folder, path) = changed(&manifest(name), old, new);
        assert!(kubernetes_takes(&path).is_err(), "{name}: {new}");
    }
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn every_manifest_is_named_once() {
    let kustomization = documents(&manifest("kustomization")).remove(0);
    let listed = kustomization["resources"].as_array().unwrap();
    for name in MANIFESTS {
        let file = format!("{name}.yaml");
        let is_listed = listed.iter().any(|listed| *listed == file.as_str());
        // Those in the repository are no secrets.
        assert_eq!(is_listed, name != "secrets", "{name}");
    }
    assert_eq!(listed.len(), MANIFESTS.len() - 1);
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn compose_takes_its_file() {
    compose_takes(&compose()).unwrap();
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn a_typo_in_the_compose_file_is_found() {
    for (old, new) in [
        ("read_only:", "readonly:"),
        ("stop_grace_period:", "stop_graceperiod:"),
        ("retries:", "retry:"),
        ("read_only: true", "read_only: often"),
        ("services:", "service:"),
    ] {
        let (_folder, path) = changed(&compose(), old, new);
        assert!(compose_takes(&path).is_err(), "{new}");
    }
}

/// What `check` shows of a configuration whose files are in a folder of this test.
fn checked(configuration: &str) -> Value {
    packages::ensure(&[Package::SpiceHtml5]).unwrap();
    let folder = TempDir::with_prefix("testkit-containers-").unwrap();
    let put = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    };
    let certificate = TestCert::new().unwrap();
    put("gateway.pem", &fs::read(certificate.cert_path()).unwrap());
    put("gateway.key", &fs::read(certificate.key_path()).unwrap());
    let mut key = Command::new(gateway_binary().unwrap());
    key.arg("pool-key");
    put("pool.keys", run_bounded(key, LIMIT).unwrap().as_bytes());
    put("desktops.json", br#"{"desktops": [], "users": []}"#);
    let here = format!("{}/", folder.path().display());
    let text = configuration
        .replace(FOLDER, &here)
        .replace("/usr/share/spice-html5", SPICE_HTML5);
    put("flexvdi-gateway.conf", text.as_bytes());

    let mut check = Command::new(gateway_binary().unwrap());
    check
        .arg("--config")
        .arg(folder.path().join("flexvdi-gateway.conf"))
        .arg("check");
    let output = check.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How long the gateway may take to stop, in seconds.
fn time_to_stop(configuration: &Value) -> u64 {
    assert_eq!(configuration["DrainOnStop"], true);
    let seconds = |key: &str| configuration[key].as_u64().unwrap();
    assert_ne!(seconds("DrainTimeout"), 0);
    seconds("DrainTimeout") + seconds("ShutdownTimeout")
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn the_gateway_accepts_the_configuration_for_kubernetes_and_has_time_to_stop() {
    let configuration = object("configuration", "ConfigMap");
    let text = configuration["data"]["flexvdi-gateway.conf"].as_str();
    let shown = checked(text.unwrap());
    let deployment = object("deployment", "Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > before.unwrap() + time_to_stop(&shown), "{grace}");

    let ports = container["ports"].as_array().unwrap();
    let port = |name: &str| {
        let found = ports.iter().find(|port| port["name"] == name);
        found.unwrap()["containerPort"].as_u64()
    };
    assert_eq!(port("admin"), shown["AdminPort"].as_u64());
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    let scraped = annotations["prometheus.io/port"].as_str().unwrap();
    assert_eq!(scraped, shown["AdminPort"].to_string());
    for probe in ["readinessProbe", "startupProbe"] {
        let path = &container[probe]["httpGet"]["path"];
        assert_eq!(*path, shown["HealthPath"], "{probe}");
    }
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn every_file_that_the_configuration_names_is_in_the_pod() {
    let configuration = object("configuration", "ConfigMap");
    let text = configuration["data"]["flexvdi-gateway.conf"].as_str();
    let configuration: Value = serde_json::from_str(text.unwrap()).unwrap();
    let names = configuration.as_object().unwrap().values();
    let names = names.filter_map(|value| value.as_str()?.strip_prefix(FOLDER));
    let deployment = object("deployment", "Deployment");
    let volume = &deployment["spec"]["template"]["spec"]["volumes"][0]["projected"];
    let secrets = documents(&manifest("secrets"));
    let mut there = Vec::new();
    for source in volume["sources"].as_array().unwrap() {
        let name = &source["secret"]["name"];
        let Some(secret) = secrets.iter().find(|it| it["metadata"]["name"] == *name) else {
            continue;
        };
        let keys = secret["stringData"].as_object().unwrap().keys().cloned();
        match source["secret"]["items"].as_array() {
            Some(items) => {
                for item in items {
                    let key = item["key"].as_str().unwrap();
                    assert!(secret["stringData"].get(key).is_some(), "{key}");
                    there.push(item["path"].as_str().unwrap().to_owned());
                }
            }
            None => there.extend(keys),
        }
    }
    let names: Vec<_> = names.collect();
    assert!(names.len() > 3, "{names:?}");
    for name in names {
        assert!(there.iter().any(|it| it == name), "{name}: {there:?}");
    }
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn the_gateway_accepts_the_configuration_for_compose_and_has_time_to_stop() {
    let text = packaging().join("compose/flexvdi/flexvdi-gateway.conf");
    let shown = checked(&fs::read_to_string(text).unwrap());
    let file = documents(&compose()).remove(0);
    let service = &file["services"]["gateway"];
    let grace = service["stop_grace_period"].as_str().unwrap();
    let grace: u64 = grace.strip_suffix('s').unwrap().parse().unwrap();
    assert!(grace > time_to_stop(&shown), "{grace}");
    let ports = service["ports"].as_array().unwrap();
    let admin = format!("127.0.0.1:{0}:{0}", shown["AdminPort"]);
    assert!(
        ports.iter().any(|port| *port == admin.as_str()),
        "{ports:?}"
    );
}

#[test]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
fn all_name_the_image_of_this_version() {
    let image = format!("flexvdi-gateway:{}", env!("CARGO_PKG_VERSION"));
    let deployment = object("deployment", "Deployment");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], image.as_str());
    let compose = documents(&compose()).remove(0);
    assert_eq!(compose["services"]["gateway"]["image"], image.as_str());
    let kustomization = documents(&manifest("kustomization")).remove(0);
    let tag = &kustomization["images"][0]["newTag"];
    assert_eq!(*tag, env!("CARGO_PKG_VERSION"));
}
