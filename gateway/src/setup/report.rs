//! What a setup says at its end.

use std::fmt::Write;
use std::path::Path;

use super::answers::Answers;
use super::certificate::Certificate;
use super::from_authority::FromAuthority;
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
    if answers.certificate.is_self_signed() {
        text += "\nThe certificate signs itself: browsers warn of it, and some refuse its WebSockets. \
                 remote-viewer\nrefuses it unless its machine trusts it, and it must name the gateway's \
                 address, as with\n--name NAME,ADDRESS. flexVDI clients do not check it.\n";
    }
    if let Certificate::Authority(authority) = &answers.certificate {
        text += &about(authority, prepared.loaded.config.ssl_port);
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
    if matches!(answers.certificate, Certificate::Authority(_)) {
        text += "Within a minute there should be a certificate. Whether there is, and what prevents it:\n";
        let option = if config == Path::new(DEFAULT_PATH) {
            String::new()
        } else {
            format!("--config {} ", config.display())
        };
        let _ = writeln!(text, "  flexvdi-gateway {option}status");
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
    if let Certificate::Authority(authority) = &answers.certificate {
        warn_of(authority);
    }
    for warning in prepared.warnings() {
        complain(&format!("warning: {warning}"));
    }
    Ok(())
}

/// What the members of `Acme` that were written mean, as comments cannot stand in JSON.
fn about(authority: &FromAuthority, ssl_port: u16) -> String {
    let acme = &authority.acme;
    let way = match acme.http_port {
        Some(port) => format!(
            "port 80 of each name, which must lead to HttpPort {port}; it is open only\n  \
             while the authority checks the names"
        ),
        None => format!(
            "port 443 of each name, which must lead to the TLS port {ssl_port};\n  \
             nothing on the way may end TLS"
        ),
    };
    let contact = if acme.contact.is_empty() {
        "nobody".to_owned()
    } else {
        acme.contact.join(", ")
    };
    format!(
        "\nAcme: the gateway gets its certificate by itself, and renews it.\n  \
         Domains      {}: what it is for\n  \
         Directory    {}: who gives it\n  \
         Contact      {contact}: whom the authority tells what it wants to be known\n  \
         TermsAgreed  you have read its terms of service, and agree to them\n  \
         The authority must reach this gateway at {way}.\n  \
         Until there is a certificate, clients see one that signs itself.\n",
        acme.domains.join(", "),
        acme.directory,
    )
}

/// What may come in the way of a certificate.
fn warn_of(authority: &FromAuthority) {
    if !authority.left_out.is_empty() {
        let names: Vec<_> = authority.left_out.iter().map(ToString::to_string).collect();
        complain(&format!(
            "warning: the certificate will not be for {}: the authority is asked for DNS names only",
            names.join(", ")
        ));
    }
    if let Some(error) = &authority.unreachable {
        complain(&format!(
            "warning: {error}; the gateway will try again, but check the network, and --acme-directory"
        ));
    }
}
