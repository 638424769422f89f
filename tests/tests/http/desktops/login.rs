//! Who gets which desktop.

use std::time::Duration;

use http::StatusCode;
use http::header::{DATE, RETRY_AFTER};
use serde_json::{Value, json};
use testkit::gateway::gateway_binary;
use testkit::http::Call;
use testkit::prelude::*;
use tokio::io::AsyncWriteExt;

use super::{COSTLY, File, HARDWARE_ADDRESS, HASH, PASSWORD, body, client, desktop, log_in, user};
use crate::support::{assert_error, assert_opens, get, logged, outlast, retry_after};

#[tokio::test]
async fn a_user_logs_in_and_opens_channels() {
    let host = Host::echo().await.unwrap();
    let mut of_host = desktop("a", &host);
    of_host["options"] = json!({"enable_usb_redir": false, "inactivity_timeout": 900});
    let file = File::new(&json!({
        "desktops": [of_host],
        "users": [user("ana", &["a"])],
    }));
    let gateway = file.gateway().spawn().await.unwrap();
    let client = client(&gateway, "ana").host("vdi.example:8443");
    assert_eq!(client.auth_mode().await.unwrap(), "active_directory");
    let given = client.desktop().await.unwrap();
    assert_eq!(given.address, "vdi.example");
    assert_eq!(given.password, "spice of a");
    assert_eq!(given.answer["use_ws"], true);
    assert_eq!(given.answer["enable_usb_redir"], false);
    assert_eq!(given.answer["inactivity_timeout"], 900);
    assert_ne!(given.token, host.addr().port().to_string());
    let mut channel = ws::echo_channel(&gateway.tls(), &given.token)
        .await
        .unwrap();
    channel.echo(&[7; 10_000]).await.unwrap();
    logged(&gateway, &["user logged in", "user=\"ana\""]).await;
    logged(&gateway, &["channel open", "session=s1 "]).await;
    // Several channels, and several times.
    assert_opens(&gateway.tls(), &given.token).await;
    let again = client.desktop().await.unwrap();
    assert_ne!(again.token, given.token);
}

#[tokio::test]
async fn one_of_several_desktops_is_chosen_by_its_name() {
    let hosts = [
        Host::echo().await.unwrap(),
        Host::echo().await.unwrap(),
        Host::echo().await.unwrap(),
    ];
    let [a, b, c] = &hosts;
    let file = File::new(&json!({
        "desktops": [desktop("a", a), desktop("b", b), desktop("c", c)],
        "users": [user("ana", &["b", "a"]), user("eva", &[])],
    }));
    let gateway = file.gateway().spawn().await.unwrap();
    let endpoint = gateway.tls();
    let choice = body(&log_in(&endpoint, "ana", PASSWORD).await);
    assert_eq!(choice["status"], "SelectDesktop");
    assert_eq!(choice["message"], r#"{"b":"Desktop b","a":"Desktop a"}"#);

    // The first one, as the stand-in chooses.
    let given = client(&gateway, "ana").desktop().await.unwrap();
    assert_eq!(given.password, "spice of b");
    let given = client(&gateway, "ana").choose("a").desktop().await.unwrap();
    assert_eq!(given.password, "spice of a");
    assert_opens(&endpoint, &given.token).await;
    assert_eq!((a.accepted(), b.accepted()), (1, 0));

    // What is somebody else's, and what is nobody's.
    for id in ["c", "d"] {
        let refused = client(&gateway, "ana").choose(id).desktop().await;
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("There is no such desktop for you"), "{told}");
    }
    let refused = client(&gateway, "eva").desktop().await.unwrap_err();
    assert!(refused.to_string().contains("There is no desktop for you"));
}

#[tokio::test]
async fn a_terminal_shows_its_desktop_without_a_login() {
    let host = Host::echo().await.unwrap();
    let file = File::new(&json!({
        "desktops": [desktop("a", &host)],
        "users": [user("ana", &["a"])],
        "terminals": [{
            "hwaddress": HARDWARE_ADDRESS.replace(':', "-").to_uppercase(),
            "desktop": "a",
            "name": "Reception",
        }],
    }));
    let gateway = file.gateway().spawn().await.unwrap();
    let kiosk = client(&gateway, "ignored");
    assert_eq!(kiosk.auth_mode().await.unwrap(), "kiosk");
    let given = kiosk.desktop().await.unwrap();
    assert_eq!(given.password, "spice of a");
    assert_opens(&gateway.tls(), &given.token).await;
    logged(&gateway, &["terminal known", "terminal=\"Reception\""]).await;

    // One that is not in the file, and one without an address; a user at a terminal.
    let endpoint = gateway.tls();
    for hwaddress in ["52:54:00:12:34:57", ""] {
        let asked = json!({"hwaddress": hwaddress, "username": "", "password": "", "desktop": "a"});
        let call = Call::post(&endpoint, "/vdi/desktop", asked.to_string());
        let answer = body(&call.send().await.unwrap());
        assert_eq!(answer["status"], "Error");
        let message = "This terminal has no desktop. Please contact your administrator.";
        assert_eq!(answer["message"], message);
    }
    let asked = json!({"hwaddress": HARDWARE_ADDRESS, "username": "ana", "password": "wrong"});
    let call = Call::post(&endpoint, "/vdi/desktop", asked.to_string());
    assert_eq!(body(&call.send().await.unwrap())["status"], "Error");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let host = Host::echo().await.unwrap();
    let file = File::new(&json!({
        "desktops": [desktop("a", &host)],
        "users": [user("ana", &["a"])],
    }));
    let admin = testkit::net::free_port().unwrap();
    let access_log = file.path().with_file_name("access.log");
    let mut gateway = file
        .gateway()
        .set("AdminPort", admin)
        .set("AccessLog", access_log.to_str().unwrap())
        .spawn()
        .await
        .unwrap();
    let endpoint = gateway.tls();
    let mut answers = Vec::new();
    for (name, password) in [
        ("ana", "hunter2"),
        ("nobody\n", "hunter2"),
        ("Ana", PASSWORD),
    ] {
        let mut answer = log_in(&endpoint, name, password).await;
        answer.headers_mut().remove(DATE);
        assert_eq!(answer.status(), StatusCode::OK);
        answers.push((answer.headers().clone(), answer.into_body()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(
        serde_json::from_slice::<Value>(&answers[0].1).unwrap(),
        json!({"status": "Error", "message": "Wrong user or password."})
    );
    client(&gateway, "ana").desktop().await.unwrap();

    let port = Endpoint::plain(([127, 0, 0, 1], admin).into());
    let metrics = get(&port, "/metrics").await;
    let metrics = String::from_utf8(metrics.body().to_vec()).unwrap();
    for line in [
        r#"flexvdi_gateway_logins_total{result="wrong user or password"} 3"#,
        r#"flexvdi_gateway_logins_total{result="user"} 1"#,
        r#"flexvdi_gateway_logins_total{result="busy"} 0"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    logged(&gateway, &["login refused", r#"user="nobody\\n""#]).await;
    assert!(gateway.terminate().await.unwrap().success());
    let text = std::fs::read_to_string(access_log).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let logins: Vec<Value> = lines
        .filter(|line: &Value| line["event"] == "login")
        .collect();
    let told: Vec<_> = logins
        .iter()
        .map(|login| {
            (
                login["user"].as_str().unwrap(),
                login["result"].as_str().unwrap(),
            )
        })
        .collect();
    let wrong = "wrong user or password";
    assert_eq!(
        told,
        [
            ("ana", wrong),
            ("nobody\\n", wrong),
            ("Ana", wrong),
            ("ana", "user")
        ]
    );
    let log = gateway.log().await.join("\n");
    for secret in ["hunter2", HASH, "spice of a"] {
        assert!(!log.contains(secret), "{log}");
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn wrong_passwords_have_to_wait_and_others_have_not() {
    let host = Host::echo().await.unwrap();
    let file = File::new(&json!({
        "desktops": [desktop("a", &host)],
        "users": [user("ana", &["a"]), user("eva", &["a"])],
    }));
    let gateway = file.gateway().spawn().await.unwrap();
    let endpoint = gateway.tls();
    // Those that are let through at once, and as many as it takes: time passes meanwhile.
    let mut refused = None;
    for _ in 0..20 {
        let answer = log_in(&endpoint, "ana", "wrong").await;
        if answer.status() != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a wait");
    let message = assert_error(&refused, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        message.starts_with("There were too many wrong passwords."),
        "{message}"
    );
    let wait = retry_after(&refused);
    // The right one has to wait too, or guessing would go on.
    let early = log_in(&endpoint, "ana", PASSWORD).await;
    assert_error(&early, StatusCode::TOO_MANY_REQUESTS);
    client(&gateway, "eva").desktop().await.unwrap();
    logged(
        &gateway,
        &["WARN too many wrong passwords", "user=\"ana\"", "seconds="],
    )
    .await;
    outlast(Duration::from_secs(wait)).await;
    client(&gateway, "ana").desktop().await.unwrap();
    let now = log_in(&endpoint, "ana", "wrong").await;
    assert_eq!(now.status(), StatusCode::OK);
}

#[tokio::test]
async fn more_logins_than_can_be_checked_are_told_so() {
    let host = Host::echo().await.unwrap();
    let file = File::new(&json!({
        "desktops": [desktop("a", &host)],
        "users": [{"name": "ana", "password": COSTLY, "desktops": ["a"]}],
        "terminals": [{"hwaddress": HARDWARE_ADDRESS, "desktop": "a"}],
    }));
    let gateway = file.gateway().plain().spawn().await.unwrap();
    let endpoint = gateway.plain();
    // More than are checked and wait.
    let logins = (0..80).map(|_| log_in(&endpoint, "nobody", "wrong"));
    let all = futures_util::future::join_all(logins);
    let others = async {
        logged(
            &gateway,
            &["a password cannot be checked", "no thread is free"],
        )
        .await;
        // Nobody else waits for them.
        let given = client(&gateway, "").desktop().await.unwrap();
        assert_opens(&endpoint, &given.token).await;
    };
    let (answers, ()) = tokio::join!(all, others);
    let busy = answers
        .iter()
        .filter(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE);
    let busy: Vec<_> = busy.collect();
    assert!(busy.len() >= 10, "{}", busy.len());
    let message = assert_error(busy[0], StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        message,
        "Too many people log in at the moment. Please try again later."
    );
}

#[tokio::test]
async fn of_many_guesses_at_once_only_the_free_ones_are_checked() {
    let host = Host::echo().await.unwrap();
    // So much work that all have begun before the first is known to be wrong.
    let mut ana = user("ana", &["a"]);
    ana["password"] = HASH.replace("m=256", "m=8192").into();
    let file = File::new(&json!({"desktops": [desktop("a", &host)], "users": [ana]}));
    let gateway = file.gateway().plain().spawn().await.unwrap();
    let endpoint = gateway.plain();
    let guesses = (0..60).map(|_| log_in(&endpoint, "ana", "wrong"));
    let answers = futures_util::future::join_all(guesses).await;
    let with = |status| {
        let answers = answers.iter();
        answers.filter(move |answer| answer.status() == status)
    };
    // Five are free; where the machine is slow, some more seconds later.
    let checked = with(StatusCode::OK).count();
    assert!((5..=10).contains(&checked), "{checked}");
    let mut refused = with(StatusCode::TOO_MANY_REQUESTS);
    let refused = refused.next().expect("one that has to wait");
    assert_error(refused, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key(RETRY_AFTER));
}

#[tokio::test]
async fn a_terminal_that_asks_all_the_time_has_to_wait_and_others_keep_their_tickets() {
    let host = Host::echo().await.unwrap();
    let file = File::new(&json!({
        "desktops": [desktop("a", &host)],
        "users": [user("ana", &["a"])],
        "terminals": [
            {"hwaddress": HARDWARE_ADDRESS, "desktop": "a"},
            {"hwaddress": "02", "desktop": "a"},
        ],
    }));
    let gateway = file.gateway().plain().spawn().await.unwrap();
    let endpoint = gateway.plain();
    let of_colleague = body(&log_in(&endpoint, "ana", PASSWORD).await);
    let of_colleague = of_colleague["spice_port"].as_str().unwrap();
    let ask = async |hwaddress: &str| {
        let asked = json!({"hwaddress": hwaddress, "username": "", "password": ""});
        let call = Call::post(&endpoint, "/vdi/desktop", asked.to_string());
        call.send().await.unwrap()
    };
    let (mut given, mut refused) = (0, None);
    // As many as unused tickets of an address, and some more; with other separators it is the
    // same terminal.
    for _ in 0..25 {
        let crowd = (0..41).map(|number| ask(["52:54:00:12:34:56", "525400-123456"][number % 2]));
        for answer in futures_util::future::join_all(crowd).await {
            match answer.status() {
                StatusCode::OK => given += 1,
                _ => refused = Some(answer),
            }
        }
    }
    assert!((10..500).contains(&given), "{given}");
    let refused = refused.expect("one that has to wait");
    let message = assert_error(&refused, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        message.contains("asked for its desktop too often"),
        "{message}"
    );
    let wait = retry_after(&refused);
    assert_opens(&endpoint, of_colleague).await;
    assert_eq!(body(&ask("02").await)["status"], "OK");
    outlast(Duration::from_secs(wait)).await;
    assert_eq!(body(&ask(HARDWARE_ADDRESS).await)["status"], "OK");
}

#[tokio::test]
async fn the_hash_that_the_command_prints_is_one_of_the_file() {
    let mut command = tokio::process::Command::new(gateway_binary().unwrap());
    command
        .arg("password")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all("Grüße, 42 Mäuse\n".as_bytes())
        .await
        .unwrap();
    drop(stdin);
    let output = within("the hash", child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success());
    let hash = String::from_utf8(output.stdout).unwrap();
    let host = Host::echo().await.unwrap();
    let file = File::new(&json!({
        "desktops": [desktop("a", &host)],
        "users": [{"name": "ana", "password": hash.trim_end(), "desktops": ["a"]}],
    }));
    let gateway = file.gateway().spawn().await.unwrap();
    let client = client(&gateway, "ana");
    client
        .clone()
        .login("ana", "Grüße, 42 Mäuse")
        .desktop()
        .await
        .unwrap();
    assert!(
        client
            .login("ana", "Grüße, 42 Mäuse\n")
            .desktop()
            .await
            .is_err()
    );
}
