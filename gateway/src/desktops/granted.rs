//! What whoever gets a desktop may do with it.

use super::node::Node;
use super::problem::shown;
use super::reader::Reader;
use super::shape::Form;
use crate::certificate_subject::Subject;
use crate::channel_type::ChannelTypes;
use crate::grant::{Grant, GrantError};
use crate::host_tls::{HostTls, Trust};
use crate::pool;
use crate::target::Target;

impl Reader<'_> {
    /// The grant of `desktops[at]`; `None`: something of it is wrong, and told.
    pub(super) fn grant(&mut self, at: usize, node: &Node) -> Option<Grant> {
        let target = self.target(at, node);
        let tls = node.member("tls").map(|tls| self.tls(at, tls));
        let names: Vec<_> = node.texts("channels").collect();
        let channels = match node.member("channels") {
            // What is wrong with it is told already.
            Some(_) => ChannelTypes::named(&names).unwrap_or_default(),
            None => ChannelTypes::ALL,
        };
        let tls_port = node.number("tls_port");
        let grant = Grant {
            clients: Vec::new(),
            channels,
            tls_port: tls_port.and_then(|port| u16::try_from(port).ok()),
            tls: match tls {
                Some(tls) => Some(tls?),
                None => None,
            },
            target: target?,
        };
        let desktop = format!("desktops[{at}]");
        if let Err(error) = grant.check() {
            let member = match error {
                GrantError::SocketTlsPort => "tls_port",
                GrantError::SocketTls => "tls",
                GrantError::HiddenChannels => "channels",
            };
            let place = format!("{desktop}.{member}");
            self.problems.add(&place, error.to_string());
            return None;
        }
        if self.is_pool && !pool::has_room(&grant) {
            let what = "a ticket of a pool (PoolKeyFile) has no room for authorities or a subject; \
                        use fingerprint alone";
            self.problems.add(&format!("{desktop}.tls"), what);
            return None;
        }
        Some(grant)
    }

    fn target(&mut self, at: usize, node: &Node) -> Option<Target> {
        let address = node.text("address").filter(|text| Form::Line.fits(text))?;
        let target = address.parse().map_err(|error| {
            let what = format!("{error}; found {}", shown(address));
            self.problems.add(&format!("desktops[{at}].address"), what);
        });
        target.ok()
    }

    fn tls(&mut self, at: usize, node: &Node) -> Option<HostTls> {
        let place = |member: &str| format!("desktops[{at}].tls.{member}");
        let text = |member| node.text(member).filter(|text| Form::Line.fits(text));
        let subject: Option<Result<Subject, _>> = text("subject").map(|subject| {
            subject.parse().map_err(|error| {
                self.problems.add(&place("subject"), format!("{error}"));
            })
        });
        let trust = match (text("fingerprint"), text("ca_file")) {
            (Some(fingerprint), None) => Trust::Certificate(fingerprint.parse().ok()?),
            (None, Some(name)) => {
                let found = self.beside.authorities(name);
                let told = found.map_err(|what| self.problems.add(&place("ca_file"), what));
                Trust::Authorities(told.ok()?)
            }
            _ => return None,
        };
        Some(HostTls {
            trust,
            subject: subject.transpose().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::inventory::Inventory;
    use super::super::reader::{Wrong, read};
    use super::*;
    use crate::host_tls::CertificateDigest;

    const DIGEST: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

    /// Reads a file with this desktop alone.
    fn of_file(desktop: &Value, folder: &Path, is_pool: bool) -> Result<Inventory, String> {
        let file = json!({ "desktops": [desktop] }).to_string();
        match read(file.as_bytes(), folder, is_pool) {
            Ok((inventory, _)) => Ok(inventory),
            Err(Wrong::Values(problems)) => Err(problems.to_string().replace("Desktops: ", "")),
            Err(Wrong::Syntax(error)) => Err(error.to_string()),
        }
    }

    fn with(member: &str, value: &Value) -> Value {
        let mut desktop = json!({"id": "a", "address": "10.0.0.21:5900"});
        desktop[member] = value.clone();
        desktop
    }

    fn grant(desktop: &Value, folder: &Path) -> Grant {
        let inventory = of_file(desktop, folder, false).unwrap();
        inventory.desktops[0].grant.clone()
    }

    fn problems(desktop: &Value, is_pool: bool) -> String {
        let read = of_file(desktop, Path::new("/nonexistent"), is_pool);
        read.map(drop).unwrap_err()
    }

    #[test]
    fn a_desktop_permits_what_stands_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.cert.pem()).unwrap();
        let bare = grant(&json!({"id": "a", "address": "h:1"}), folder.path());
        assert_eq!(bare, Grant::new("h:1".parse().unwrap()));
        let found = grant(&with("tls_port", &json!(5901)), folder.path());
        assert_eq!(found.tls_port, Some(5901));
        let found = grant(
            &with("channels", &json!(["display", "main"])),
            folder.path(),
        );
        assert_eq!(
            found.channels,
            ChannelTypes::named(&["main", "display"]).unwrap()
        );
        let tls = json!({"fingerprint": DIGEST.to_uppercase()});
        let found = grant(&with("tls", &tls), folder.path());
        let pinned: CertificateDigest = DIGEST.parse().unwrap();
        assert_eq!(found.tls.unwrap().trust, Trust::Certificate(pinned));
        let tls = json!({"ca_file": "ca.pem", "subject": "CN=a"});
        let desktop = with("tls", &tls);
        let inventory = of_file(&desktop, folder.path(), false).unwrap();
        assert_eq!(inventory.files_beside, [folder.path().join("ca.pem")]);
        let found = inventory.desktops[0].grant.tls.clone().unwrap();
        assert!(matches!(found.trust, Trust::Authorities(_)));
        assert_eq!(found.subject, Some("CN=a".parse().unwrap()));
        // It is public.
        assert!(inventory.warnings.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_place() {
        let names = "\"main\", \"display\", \"inputs\", \"cursor\", \"playback\", \"record\", \
                     \"tunnel\", \"smartcard\", \"usbredir\", \"port\", \"webdav\"";
        let unknown = format!("desktops[0].channels[1]: expected one of {names}");
        let digits = "64 hexadecimal digits, in pairs between colons or not";
        let digits = format!("desktops[0].tls.fingerprint: expected {digits}");
        for (member, value, told) in [
            (
                "channels",
                json!([]),
                "desktops[0].channels: expected \"main\" among them",
            ),
            (
                "channels",
                json!(["display"]),
                "desktops[0].channels: expected \"main\" among them",
            ),
            ("channels", json!(["main", "Display"]), &unknown),
            (
                "tls_port",
                json!(0),
                "desktops[0].tls_port: expected a whole number from 1 to 65535",
            ),
            (
                "tls_port",
                json!(65536),
                "desktops[0].tls_port: expected a whole number from 1 to 65535",
            ),
            (
                "tls",
                json!({}),
                "desktops[0].tls: one of ca_file and fingerprint must be there",
            ),
            ("tls", json!({"fingerprint": "0f"}), &digits),
            (
                "tls",
                json!({"fingerprint": DIGEST, "subject": "a"}),
                "desktops[0].tls.subject: attribute 1 has no \"=\" with a value behind it",
            ),
            (
                "tls",
                json!({"fingerprint": DIGEST, "ca_file": "ca.pem"}),
                "desktops[0].tls: only one of ca_file and fingerprint may be there",
            ),
            (
                "tls",
                json!({"ca_file": "ca.pem"}),
                "desktops[0].tls.ca_file: /nonexistent/ca.pem: expected a PEM file with certificates: \
              No such file or directory (os error 2)",
            ),
            (
                "tls",
                json!({"ca_file": "/dev/zero"}),
                "desktops[0].tls.ca_file: /dev/zero: it is no regular file",
            ),
        ] {
            assert_eq!(problems(&with(member, &value), false), told, "{value}");
        }
    }

    #[test]
    fn what_excludes_each_other_is_told() {
        let socket = |member: &str, value: &Value| {
            let mut desktop = with(member, value);
            desktop["address"] = json!("unix:/run/a.sock");
            problems(&desktop, false)
        };
        assert_eq!(
            socket("tls_port", &json!(5901)),
            "desktops[0].tls_port: a Unix socket has no port for TLS"
        );
        assert_eq!(
            socket("tls", &json!({"fingerprint": DIGEST})),
            "desktops[0].tls: a Unix socket has no TLS"
        );
        let mut both = with("tls_port", &json!(5901));
        both["channels"] = json!(["main"]);
        let told = problems(&both, false);
        assert!(
            told.starts_with("desktops[0].channels: with a port for TLS"),
            "{told}"
        );
    }

    #[test]
    fn a_pools_ticket_has_room_for_a_fingerprint_alone() {
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.cert.pem()).unwrap();
        for (tls, has_room) in [
            (json!({"fingerprint": DIGEST}), true),
            (json!({"fingerprint": DIGEST, "subject": "CN=a"}), false),
            (json!({"ca_file": "ca.pem"}), false),
        ] {
            let desktop = with("tls", &tls);
            assert!(of_file(&desktop, folder.path(), false).is_ok());
            let read = of_file(&desktop, folder.path(), true).map(drop);
            let Err(told) = read else {
                assert!(has_room, "{tls}");
                continue;
            };
            assert!(!has_room, "{tls}");
            assert!(
                told.starts_with("desktops[0].tls: a ticket of a pool (PoolKeyFile)"),
                "{told}"
            );
        }
    }

    #[test]
    fn authorities_of_a_desktop_are_few() {
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.cert.pem().repeat(100)).unwrap();
        let desktop = with("tls", &json!({"ca_file": "ca.pem"}));
        let told = of_file(&desktop, folder.path(), false)
            .map(drop)
            .unwrap_err();
        assert!(
            told.ends_with("at most 16 KiB of them, in binary form"),
            "{told}"
        );
    }
}
