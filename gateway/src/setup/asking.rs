//! Questions on a terminal, each asked until the answer is good.

#![expect(
    clippy::unused_self,
    reason = "only who has a terminal may say and ask"
)]

use std::io::{BufRead, IsTerminal, stdin};

use anyhow::{Context, bail};

use crate::output::{print, print_line};
use crate::secret::Secret;

/// Somebody who answers.
pub(super) struct Terminal(());

impl Terminal {
    /// Nobody is asked with `is_silent`, nor where standard input is no terminal.
    pub(super) fn new(is_silent: bool) -> Option<Self> {
        (!is_silent && stdin().is_terminal()).then_some(Self(()))
    }

    /// Says something.
    pub(super) fn say(&self, text: &str) -> anyhow::Result<()> {
        print_line(text)
    }

    /// Asks until `read` takes the answer; why it does not is told. An empty answer is the default,
    /// if there is one.
    pub(super) fn ask<T>(
        &self,
        question: &str,
        default: Option<&str>,
        mut read: impl FnMut(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        loop {
            match default {
                Some(default) => print(format!("{question} [{default}]: "))?,
                None => print(format!("{question}: "))?,
            }
            let line = line()?;
            let answer = match line.trim() {
                "" => default.unwrap_or_default(),
                answer => answer,
            };
            match read(answer) {
                Ok(taken) => return Ok(taken),
                Err(error) => print_line(&format!("  {error:#}"))?,
            }
        }
    }

    /// Asks which of these it is; counts from 0, where the default is 0 too.
    pub(super) fn choose(&self, question: &str, choices: &[&str]) -> anyhow::Result<usize> {
        print_line(question)?;
        for (at, choice) in (1..).zip(choices) {
            print_line(&format!("  {at}: {choice}"))?;
        }
        self.ask("Number", Some("1"), |answer| {
            let number = answer.parse::<usize>().ok();
            let chosen = number.and_then(|number| number.checked_sub(1));
            let chosen = chosen.filter(|chosen| *chosen < choices.len());
            chosen.with_context(|| format!("expected a number from 1 to {}", choices.len()))
        })
    }

    /// Asks for yes or no; yes is the default.
    pub(super) fn agree(&self, question: &str) -> anyhow::Result<bool> {
        self.ask(question, Some("yes"), yes_or_no)
    }

    /// The same where nobody may agree by an empty answer.
    pub(super) fn consent(&self, question: &str) -> anyhow::Result<bool> {
        self.ask(question, None, yes_or_no)
    }

    /// Asks for a password without showing it, until `check` takes it; with `twice` until it was
    /// typed twice in the same way.
    pub(super) fn password(
        &self,
        question: &str,
        twice: bool,
        check: impl Fn(&Secret) -> anyhow::Result<()>,
    ) -> anyhow::Result<Secret> {
        loop {
            let password = hidden(question)?;
            if let Err(error) = check(&password) {
                print_line(&format!("  {error:#}"))?;
            } else if twice && hidden("Again")?.expose() != password.expose() {
                print_line("  the two passwords are not the same")?;
            } else {
                return Ok(password);
            }
        }
    }
}

fn yes_or_no(answer: &str) -> anyhow::Result<bool> {
    match answer.to_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => bail!("expected yes or no"),
    }
}

fn line() -> anyhow::Result<String> {
    let mut line = String::new();
    let length = stdin().lock().read_line(&mut line);
    if length.context("cannot read from the terminal")? == 0 {
        bail!("the answers have ended; nothing was written");
    }
    Ok(line)
}

fn hidden(question: &str) -> anyhow::Result<Secret> {
    let typed = rpassword::prompt_password(format!("{question}: "));
    Ok(Secret::from(
        typed.context("cannot read from the terminal")?,
    ))
}
