//! `flexvdi-gateway password`: makes the hash of a password, for the file.

use std::fs::File;
use std::io::{IsTerminal, Read, stdin};
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::members::MAX_SPICE_PASSWORD;
use super::password;
use crate::output::{complain, print_line};
use crate::secret::Secret;

/// Longest password, in bytes: fits into a request with everything else in it, however it is
/// escaped.
const MAX_PASSWORD: usize = 1_000;

/// Asks for a password twice, or reads it from a standard input that is no terminal, and prints its
/// hash.
pub fn print_hash() -> anyhow::Result<()> {
    let password = if stdin().is_terminal() {
        ask()?
    } else {
        line_of(stdin().lock())?
    };
    let text = password.expose();
    if text.contains(['"', '\\']) {
        complain(
            "warning: the flexVDI client cannot send a password with a quotation mark or a \
             backslash",
        );
    }
    print_line(&password::hash(text)?)
}

fn ask() -> anyhow::Result<Secret> {
    let prompt = |text| rpassword::prompt_password(text).context("cannot read from the terminal");
    let password = Secret::from(prompt("Password: ")?);
    let again = Secret::from(prompt("Again: ")?);
    ensure!(
        password.expose() == again.expose(),
        "the two passwords are not the same"
    );
    checked(password)
}

/// The password in a file: its only line.
pub fn password_in(path: &Path) -> anyhow::Result<Secret> {
    let shown = path.display();
    let file = File::open(path).with_context(|| shown.to_string())?;
    line_of(file).with_context(|| shown.to_string())
}

/// The password of a Spice server in a file: its only line.
pub fn spice_password_in(path: &Path) -> anyhow::Result<Secret> {
    let password = password_in(path)?;
    check_spice_password(&password).with_context(|| path.display().to_string())?;
    Ok(password)
}

/// Whether people can log in with this password, and if not, why.
pub fn check_password(password: &Secret) -> anyhow::Result<()> {
    let text = password.expose();
    ensure!(!text.is_empty(), "the password is empty");
    if text.len() > MAX_PASSWORD {
        bail!("the password is longer than {MAX_PASSWORD} bytes");
    }
    ensure!(
        !text.chars().any(char::is_control),
        "the password has a control character, or several lines"
    );
    Ok(())
}

/// Whether a Spice server can have this password, or none if it is empty.
pub fn check_spice_password(password: &Secret) -> anyhow::Result<()> {
    let text = password.expose();
    ensure!(
        text.len() <= MAX_SPICE_PASSWORD && !text.chars().any(char::is_control),
        "expected at most {MAX_SPICE_PASSWORD} bytes without control characters"
    );
    Ok(())
}

/// The hash of a password, as it stands in the file of desktops.
pub fn hash(password: &Secret) -> anyhow::Result<String> {
    password::hash(password.expose())
}

/// The only line of an input.
fn line_of(input: impl Read) -> anyhow::Result<Secret> {
    let mut text = String::new();
    let most = u64::try_from(MAX_PASSWORD + 3)?;
    let read = input.take(most).read_to_string(&mut text);
    let text = Secret::from(text);
    read.context("cannot read the password")?;
    let line = text.expose();
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    checked(Secret::from(line.to_owned()))
}

fn checked(password: Secret) -> anyhow::Result<Secret> {
    check_password(&password)?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_a_password() {
        for text in ["pass word", "pass word\n", "pass word\r\n"] {
            let password = line_of(text.as_bytes()).unwrap();
            assert_eq!(password.expose(), "pass word", "{text:?}");
        }
        let longest = "a".repeat(MAX_PASSWORD);
        assert!(line_of(longest.as_bytes()).is_ok());
    }

    #[test]
    fn what_nobody_can_type_is_none() {
        let too_long = "a".repeat(MAX_PASSWORD + 1);
        for (text, error) in [
            ("", "empty"),
            ("\n", "empty"),
            ("two\nlines\n", "several lines"),
            ("\u{7}", "control character"),
            (too_long.as_str(), "longer than"),
        ] {
            let told = line_of(text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(error), "{told}");
            assert!(!told.contains("aaa"), "{told}");
        }
        assert!(line_of(&b"\xff"[..]).is_err());
    }
}
