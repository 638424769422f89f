//! The file: mistakes in it, and changes while the gateway runs.

use serde_json::{Value, json};
use testkit::prelude::*;

use super::{File, client, desktop, user};
use crate::command_line::{Files, run};
use crate::reload::change;
use crate::support::{assert_opens, logged};

#[tokio::test]
async fn a_change_is_in_effect_without_a_restart() {
    let hosts = [Host::echo().await.unwrap(), Host::echo().await.unwrap()];
    let content =
        |desktops: &[Value], users: &[Value]| json!({"desktops": desktops, "users": users});
    let [a, b] = [desktop("a", &hosts[0]), desktop("b", &hosts[1])];
    let file = File::new(&content(std::slice::from_ref(&a), &[user("ana", &["a"])]));
    let gateway = file.gateway().set("CertificatePoll", 1);
    let gateway = gateway.spawn().await.unwrap();
    logged(
        &gateway,
        &[
            "desktops come from a file",
            "1 desktop, 1 user, 0 terminals",
        ],
    )
    .await;
    let first = client(&gateway, "ana").desktop().await.unwrap();

    // It is noticed, and what was given stays.
    file.write(&content(&[a, b], &[user("eva", &["b"])]).to_string());
    logged(
        &gateway,
        &[
            "INFO reloaded",
            "desktops of the file, 2 desktops, 1 user, 0 terminals",
        ],
    )
    .await;
    assert!(client(&gateway, "ana").desktop().await.is_err());
    let second = client(&gateway, "eva").desktop().await.unwrap();
    assert_eq!(second.password, "spice of b");
    assert_opens(&gateway.tls(), &first.token).await;

    // What cannot be used changes nothing, and is told with its place, once.
    let wrong = json!({"desktops": [], "users": [user("eva", &["b"])]}).to_string();
    file.write(&wrong);
    let told = logged(&gateway, &["ERROR not reloaded"]).await;
    assert!(
        told.contains("desktops.json: users[0].desktops[0]: no such desktop"),
        "{told}"
    );
    client(&gateway, "eva").desktop().await.unwrap();
    let next = change_refused(&gateway).await;
    assert!(next.contains("users[0].desktops[0]"), "{next}");

    // Gone, and back.
    std::fs::remove_file(file.path()).unwrap();
    logged(&gateway, &["ERROR not reloaded", "No such file"]).await;
    client(&gateway, "eva").desktop().await.unwrap();
    file.write(&content(&[], &[]).to_string());
    logged(
        &gateway,
        &["INFO reloaded", "0 desktops, 0 users, 0 terminals"],
    )
    .await;
    assert!(client(&gateway, "eva").desktop().await.is_err());
}

/// Asks for a reload of everything, which fails.
async fn change_refused(gateway: &Gateway) -> String {
    let is_refusal = |line: &str| line.contains("ERROR not reloaded");
    let before = gateway
        .log()
        .await
        .iter()
        .filter(|line| is_refusal(line))
        .count();
    gateway.signal(testkit::gateway::Signal::HUP).unwrap();
    let next = gateway.wait_for_another(before, is_refusal, PATIENCE).await;
    next.unwrap()
}

#[tokio::test]
async fn the_key_comes_and_goes_without_a_restart() {
    let host = Host::echo().await.unwrap();
    let manager = Manager::spawn(DesktopAnswer::new(host.addr()))
        .await
        .unwrap();
    let file =
        File::new(&json!({"desktops": [desktop("a", &host)], "users": [user("ana", &["a"])]}));
    let gateway = Gateway::builder().manager(&manager).spawn().await.unwrap();
    let of_manager = client(&gateway, "ana").desktop().await.unwrap();
    assert_eq!(of_manager.password, "spice-password");
    let path = json!(file.path());
    change(&gateway, &[("ManagerIP", json!("")), ("Desktops", path)]).await;
    let of_file = client(&gateway, "ana").desktop().await.unwrap();
    assert_eq!(of_file.password, "spice of a");
    assert_opens(&gateway.tls(), &of_manager.token).await;
    let address = json!(manager.addr().ip().to_string());
    change(&gateway, &[("ManagerIP", address), ("Desktops", json!(""))]).await;
    let again = client(&gateway, "ana").desktop().await.unwrap();
    assert_eq!(again.password, "spice-password");
}

#[tokio::test]
async fn a_password_of_a_file_beside_it_is_used_and_may_change() {
    let host = Host::echo().await.unwrap();
    let file = File::new(&json!({
        "desktops": [{"id": "a", "address": host.addr().to_string(), "password_file": "spice"}],
        "users": [user("ana", &["a"])],
    }));
    let password = file.path().with_file_name("spice");
    std::fs::write(&password, "first\n").unwrap();
    let gateway = file.gateway().set("CertificatePoll", 1);
    let gateway = gateway.spawn().await.unwrap();
    let given = client(&gateway, "ana").desktop().await.unwrap();
    assert_eq!(given.password, "first");
    // Anybody may read it.
    logged(&gateway, &["WARN Desktops: ", "spice has mode 644"]).await;
    std::fs::write(&password, "second\n").unwrap();
    logged(&gateway, &["INFO reloaded", "desktops of the file"]).await;
    let given = client(&gateway, "ana").desktop().await.unwrap();
    assert_eq!(given.password, "second");
}

#[tokio::test]
async fn a_file_with_the_same_content_elsewhere_has_other_files_beside_it() {
    let host = Host::echo().await.unwrap();
    let content = json!({
        "desktops": [{"id": "a", "address": host.addr().to_string(), "password_file": "spice"}],
        "users": [user("ana", &["a"])],
    });
    let [one, other] = [File::new(&content), File::new(&content)];
    for file in [&one, &other] {
        std::fs::write(file.path().with_file_name("spice"), "the same").unwrap();
    }
    let gateway = one.gateway().set("CertificatePoll", 1);
    let gateway = gateway.spawn().await.unwrap();
    change(&gateway, &[("Desktops", json!(other.path()))]).await;
    let password = other.path().with_file_name("spice");
    std::fs::write(password, "another").unwrap();
    logged(
        &gateway,
        &["INFO reloaded", "changed=\"desktops of the file"],
    )
    .await;
    let given = client(&gateway, "ana").desktop().await.unwrap();
    assert_eq!(given.password, "another");
}

#[tokio::test]
async fn check_names_every_mistake_with_its_place() {
    let files = Files::new();
    let desktops = files.write(
        "desktops.json",
        r#"{"desktops": [{"id": "a", "address": "10.0.0.1"}],
            "users": [{"name": "ana", "password": "hunter2", "desktops": ["b"], "group": 1}]}"#,
    );
    let config = |more: &Value| {
        let mut config = json!({
            "CertFile": files.cert.cert_path(), "KeyFile": files.cert.key_path(),
            "RuntimeDir": files.dir.path().join("run"), "Desktops": desktops,
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        files.write("conf", config.to_string())
    };
    let path = config(&json!({}));
    let ended = run(["--config", path.to_str().unwrap(), "check"]).await;
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    for told in [
        "desktops[0].address: expected HOST:PORT",
        "users[0]: there is no member \"group\"; known are name, password, desktops",
        "users[0].password: expected an argon2id hash, as `flexvdi-gateway password` prints it",
        "users[0].desktops[0]: no such desktop \"b\"",
    ] {
        assert!(ended.stderr.contains(told), "{told} in {}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 4, "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);

    files.write("desktops.json", "{\n  \"desktops\": [,]\n}");
    let ended = run(["--config", path.to_str().unwrap(), "check"]).await;
    assert!(
        ended.stderr.contains("desktops.json: line 2, column 16: "),
        "{}",
        ended.stderr
    );

    // With a manager, or without tickets, there is nothing to answer.
    for (key, value) in [("ManagerIP", json!("manager")), ("HijackAll", json!(false))] {
        let path = config(&json!({ key: value }));
        let ended = run(["--config", path.to_str().unwrap(), "check"]).await;
        assert_eq!(ended.code(), Some(78));
        assert!(
            ended.stderr.contains("Desktops: expected \"\", as "),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(key), "{}", ended.stderr);
    }

    // What is right but readable for everybody.
    let path = config(&json!({}));
    files.write("desktops.json", r#"{"desktops": []}"#);
    let ended = run(["--config", path.to_str().unwrap(), "check"]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("warning: Desktops: "),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn the_schema_is_printed() {
    let ended = run(["schema", "desktops"]).await;
    let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
    let shipped = include_str!("../../../../packaging/desktops.schema.json");
    assert_eq!(printed, serde_json::from_str::<Value>(shipped).unwrap());
}
