//! Commands whose output nobody reads to its end, as with `| head -1`.

use std::process::{Output, Stdio};

use testkit::gateway::gateway_binary;
use testkit::prelude::*;
use tokio::process::Command;

use crate::support::Stage;

/// Runs a command into a pipe that has no reader.
async fn run(stage: &Stage, arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(gateway_binary().unwrap());
    let child = command
        .arg("--config")
        .arg(stage.gateway.config_path())
        .args(arguments)
        .stdout(writer)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // The command has the pipe's other end too.
    drop(command);
    within("the command's end", child.wait_with_output())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn every_command_that_prints_ends_quietly() {
    let stage = Stage::new().await;
    let token = stage.desktop().await.token;
    let _channel = stage.channel(&token, ChannelType::Main).await;
    for arguments in [
        &["check"][..],
        &["probe"],
        &["probe", "--json"],
        &["pool-key"],
        &["document", "man"],
        &["document", "bash"],
        &["document", "fish"],
        &["document", "zsh"],
        &["status"],
        &["status", "--json"],
        &["status", "--watch"],
        &["drain"],
        &["undrain"],
        &["kick", "s1"],
        &["drain", "--wait"],
    ] {
        let output = run(&stage, arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {error}");
        assert_eq!(error, "", "{arguments:?}");
    }
    // These are printed by the library that reads the command line.
    for arguments in [["--help"], ["--version"]] {
        let output = run(&stage, &arguments).await;
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn nobody_needs_to_read_warnings() {
    let stage = Stage::new().await;
    let config = stage.gateway.config_path();
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text.replacen('{', "{\"Unknown\": 1,", 1)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(gateway_binary().unwrap());
    command.arg("--config").arg(config).arg("check");
    let output = command.stdout(Stdio::piped()).stderr(writer).spawn();
    let output = output.unwrap().wait_with_output();
    let output = within("check", output).await.unwrap().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"SslPort\""));
}
