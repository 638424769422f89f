//! What a setup says at its end.

use std::fmt::Write;
use std::path::Path;

use super::answers::Answers;
use super::placing::{NewFile, Owner};
use crate::config::DEFAULT_PATH;
use crate::output::{complain, print};
use crate::prepared::Prepared;

/// Says what was written, what is odd about it, and what comes next.
pub(super) fn print_end(
    files: &[NewFile],
    owner: &Owner,
    answers: &Answers,
    prepared: &Prepared,
    overrides: bool,
    config: &Path,
) -> anyhow::Result<()> {
    let mut text = String::from("\nWritten:\n");
    for file in files {
        let mode = file.mode(owner);
        let group = if mode == 0o640 {
            format!(", group {}", owner.group)
        } else {
            String::new()
        };
        writeln!(text, "  {} (mode {mode:o}{group})", file.path.display())?;
    }
    if overrides {
        text += "\nThe configuration file that was there stays; the new file beside it overrides its keys.\n";
    }
    if !owner.is_known() && files.iter().any(|file| file.is_secret) {
        writeln!(
            text,
            "\nOnly you can read key and passwords, because there is no group {} or you are not \
             root. Give them to the user that the gateway will run as.",
            owner.group
        )?;
    }
    if answers.certificate.is_new {
        text += "\nThe certificate signs itself: browsers warn of it, and some refuse its WebSockets. \
                 remote-viewer\nrefuses it unless its machine trusts it, and it must name the gateway's \
                 address, as with\n--name NAME,ADDRESS. flexVDI clients do not check it.\n";
    }
    text += "\nThe configuration is right, as far as you may read its files. Next:\n";
    if config == Path::new(DEFAULT_PATH) {
        text += "  runuser -u flexvdi-gateway -- flexvdi-gateway check\n  \
                 systemctl enable --now flexvdi-gateway      # if it runs already: systemctl reload\n";
    } else {
        let config = config.display();
        let _ = write!(
            text,
            "  flexvdi-gateway --config {config} check      # as the user that it will run as\n  \
             flexvdi-gateway --config {config}\n"
        );
    }
    if answers.web_client.is_some()
        && let Some(name) = answers.names.first()
    {
        let port = match prepared.loaded.config.ssl_port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        writeln!(text, "Then open https://{}{port}/", name.for_uri())?;
    }
    print(text)?;
    for warning in prepared.warnings() {
        complain(&format!("warning: {warning}"));
    }
    Ok(())
}
