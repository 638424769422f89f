//! `flexvdi-gateway status` and `kick`.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use testkit::prelude::*;

use crate::support::{Stage, ended};

#[tokio::test]
async fn the_status_tells_of_every_session() {
    let stage = Stage::new().await;
    let empty = stage.output(&["status"]).await;
    assert!(empty.contains("0 desktop sessions, 0 channels"), "{empty}");
    let first = stage.desktop().await.token;
    let second = stage.desktop().await.token;
    let mut main = stage.channel(&first, ChannelType::Main).await;
    let _display = stage.channel(&first, ChannelType::Display).await;
    let _other = stage.channel(&second, ChannelType::Main).await;
    main.echo(b"bytes").await.unwrap();

    let table = stage.output(&["status"]).await;
    assert!(table.contains("2 desktop sessions, 3 channels"), "{table}");
    let row = table.lines().find(|line| line.starts_with("s1 "));
    let row = row.unwrap_or_else(|| panic!("{table}"));
    for cell in ["127.0.0.1", "main, display", "relay", " ms  ", " %  "] {
        assert!(row.contains(cell), "{cell} in {table}");
    }
    for heading in ["RTT", "QUEUE", "RESENT"] {
        assert!(table.contains(heading), "{table}");
    }

    let json = stage.output(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&json).unwrap();
    let sessions = status["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[0]["session"], "s1");
    assert_eq!(sessions[0]["moved"]["up_bytes"], 42 + 42 + 5);
    assert_eq!(sessions[0]["channels"][0]["kind"], "main");
    assert_eq!(sessions[0]["channels"][0]["number"], 0);
    assert_eq!(sessions[0]["channels"][1]["kind"], "display");
    let legs = |value: &Value| value["legs"]["sent_bytes"].as_u64().unwrap();
    let channels = sessions[0]["channels"].as_array().unwrap();
    let sent: u64 = channels.iter().map(legs).sum();
    assert_eq!(legs(&sessions[0]), sent);
    assert_eq!(status["pid"], stage.gateway.pid());
}

#[tokio::test]
async fn a_kicked_session_ends_and_no_other() {
    let stage = Stage::new().await;
    let (kicked, other) = (stage.desktop().await.token, stage.desktop().await.token);
    let mut channels = [
        stage.channel(&kicked, ChannelType::Main).await,
        stage.channel(&kicked, ChannelType::Display).await,
    ];
    let mut stays = stage.channel(&other, ChannelType::Main).await;
    let said = stage.output(&["kick", "s1"]).await;
    assert_eq!(said, "s1: 2 channels closed\n");
    for channel in &mut channels {
        assert_eq!(ended(channel).await, Some(1001));
    }
    stays.echo(b"still there").await.unwrap();
    let closed = |line: &str| line.contains("channel closed") && line.contains("session=s1 ");
    let line = stage.gateway.wait_for_log(closed, PATIENCE).await.unwrap();
    assert!(line.contains("ended by the administrator"), "{line}");
}

#[tokio::test]
async fn mistakes_are_told() {
    let stage = Stage::new().await;
    for (arguments, code, text) in [
        (&["kick", "s77"][..], 1, "no such desktop session is open"),
        (&["kick", "77"], 2, "expected a desktop session such as s12"),
        (&["drain", "--timeout", "x"], 2, "invalid value"),
    ] {
        let output = stage.run(arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn the_socket_is_the_users_own_and_goes_with_the_gateway() {
    let mut stage = Stage::new().await;
    let directory = stage.gateway.runtime_dir();
    let socket = directory.join("admin.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(stage.gateway.terminate().await.unwrap().success());
    assert!(!socket.exists());
    let output = stage.run(&["status"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("admin.sock") && error.contains("does it run"),
        "{error}"
    );
}

#[tokio::test]
async fn without_its_directory_the_gateway_runs_all_the_same() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let stage = Stage::with(|gateway| gateway.set("RuntimeDir", path)).await;
    let token = stage.desktop().await.token;
    let _channel = stage.channel(&token, ChannelType::Main).await;
    let warnings = stage.gateway.log().await;
    let warnings = warnings
        .iter()
        .filter(|line| line.contains("no socket for the command line"));
    assert_eq!(warnings.count(), 1);
}
