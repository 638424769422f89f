//! A file of desktops with one desktop and one user.

use anyhow::ensure;
use serde_json::json;

use crate::desktops::{self, MAX_NAME};
use crate::secret::Secret;
use crate::target::Target;

/// The desktop's id, and the name by which people choose it.
const ID: &str = "first";
const NAME: &str = "My first desktop";

/// What stands in the file.
pub(super) struct FirstDesktop {
    pub(super) address: Target,
    /// Empty: the Spice server wants none.
    pub(super) spice_password: Secret,
    pub(super) user: String,
    pub(super) password: Secret,
}

impl FirstDesktop {
    /// The file's content.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let mut desktop = json!({
            "id": ID,
            "name": NAME,
            "address": self.address.to_string(),
        });
        let spice_password = self.spice_password.expose();
        if !spice_password.is_empty() {
            desktop["password"] = spice_password.into();
        }
        let file = json!({
            "desktops": [desktop],
            "users": [{
                "name": self.user,
                "password": desktops::hash(&self.password)?,
                "desktops": [ID],
            }],
        });
        Ok(format!("{file:#}\n"))
    }
}

/// A name that people can log in with.
pub(super) fn user_name(text: &str) -> anyhow::Result<String> {
    ensure!(!text.is_empty(), "expected a name, such as ana");
    ensure!(
        !text.chars().any(char::is_control) && text.chars().count() <= MAX_NAME,
        "expected at most {MAX_NAME} characters, and no control characters"
    );
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desktops::DesktopsFile;

    #[test]
    fn the_file_is_one_that_the_gateway_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desktops.json");
        for (address, spice_password) in [
            ("127.0.0.1:5900", "s3 \"cret\""),
            ("unix:/run/spice/7.sock", ""),
        ] {
            let first = FirstDesktop {
                address: address.parse().unwrap(),
                spice_password: Secret::from(spice_password.to_owned()),
                user: "Ána \"x\"".to_owned(),
                password: Secret::from("pass word".to_owned()),
            };
            let text = first.text().unwrap();
            assert!(!text.contains("pass word"));
            assert_eq!(
                text.contains("\"password\": \"s3"),
                !spice_password.is_empty()
            );
            std::fs::write(&path, text).unwrap();
            let read = DesktopsFile::read(&path, false).unwrap();
            assert_eq!(read.inventory.summary(), "1 desktop, 1 user, 0 terminals");
        }
    }

    #[test]
    fn names_that_nobody_can_type_are_none() {
        assert_eq!(user_name("ana").unwrap(), "ana");
        for wrong in ["", "a\u{7}", &"a".repeat(MAX_NAME + 1)] {
            assert!(user_name(wrong).is_err(), "{wrong}");
        }
    }
}
