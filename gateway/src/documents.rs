//! The man page and the completions of shells, made from the command line's own description.

use std::io;

use anyhow::Context;
use clap::{Arg, Command, ValueEnum};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::output::print;

/// What can be printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Document {
    /// flexvdi-gateway(8).
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for fish.
    Fish,
    /// Completions for zsh.
    Zsh,
}

impl Document {
    /// Prints it for this command line.
    pub(crate) fn print(self, mut command: Command) -> anyhow::Result<()> {
        let mut text = Vec::new();
        match self.shell() {
            Some(shell) => {
                let name = command.get_name().to_owned();
                generate(shell, &mut command, name, &mut text);
            }
            None => man_page(command, &mut text).context("cannot write the man page")?,
        }
        print(text)
    }

    fn shell(self) -> Option<Shell> {
        match self {
            Self::Man => None,
            Self::Bash => Some(Shell::Bash),
            Self::Fish => Some(Shell::Fish),
            Self::Zsh => Some(Shell::Zsh),
        }
    }
}

/// One page for all commands, which are few and small.
fn man_page(command: Command, page: &mut Vec<u8>) -> io::Result<()> {
    let mut commands = Roff::new();
    commands.control("SH", ["COMMANDS"]);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        commands.control("TP", []);
        commands.text([bold(sub.get_name()), roman(positionals(sub))]);
        commands.text([roman(about(sub.get_about()))]);
        for argument in sub.get_arguments().filter(|it| !it.is_global_set()) {
            let Some(long) = argument.get_long() else {
                continue;
            };
            commands.control("RS", []);
            commands.control("TP", []);
            commands.text([bold(format!("--{long}")), roman(value(argument))]);
            commands.text([roman(about(argument.get_help()))]);
            commands.control("RE", []);
        }
    }

    let man = Man::new(command.disable_help_subcommand(true)).section("8");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    commands.to_writer(page)?;
    ending().to_writer(page)
}

/// What follows a command's name, such as ` HOST:PORT`; in brackets what may be left out.
fn positionals(command: &Command) -> String {
    let names = command.get_positionals().map(|argument| {
        let name = value(argument);
        if argument.is_required_set() {
            name
        } else {
            format!(" [{}]", name.trim_start())
        }
    });
    names.collect()
}

/// The value of an argument, such as ` SECONDS`; nothing: it has none.
fn value(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    if argument.get_action().takes_values() {
        names.iter().flat_map(|name| [" ", name.as_str()]).collect()
    } else {
        String::new()
    }
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// What the command line's description does not know.
fn ending() -> Roff {
    let mut page = Roff::new();
    let mut section = |name: &str, items: &[(&str, &str)]| {
        page.control("SH", [name]);
        for (term, text) in items {
            page.control("TP", []);
            page.text([bold(*term)]);
            page.text([roman(*text)]);
        }
    };
    section(
        "EXIT STATUS",
        &[
            (
                "0",
                "Stopped by SIGTERM or SIGINT. check or doctor found nothing wrong.",
            ),
            (
                "1",
                "A port or the access log cannot be opened, another gateway owns the RuntimeDir, a command was refused by the running gateway or did not reach it, doctor found an error, health found the gateway unwell, load-ebpf could not load the programs, or the system failed in another way.",
            ),
            ("2", "Wrong command line."),
            ("3", "doctor found warnings, and no error."),
            (
                "71",
                "The system grants fewer threads than the start needs. Raise TasksMax= of the unit, or ulimit -u.",
            ),
            (
                "78",
                "The configuration or a file that it names cannot be read or is wrong, or others may write to the RuntimeDir. check names each mistake.",
            ),
            (
                "141",
                "Nobody reads the output any more, as with | head -1.",
            ),
        ],
    );
    section(
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Stop: open channels are closed in order, then the process ends. With DrainOnStop the first signal drains before that, and a second one does not wait.",
            ),
            (
                "SIGHUP",
                "Read the configuration and the files that it names again. Channels go on.",
            ),
            (
                "SIGUSR1",
                "Reopen the access log, after its file was moved away.",
            ),
            (
                "SIGUSR2",
                "Sent by systemd at a restart: keep the channels for the next process. Do not send it by hand.",
            ),
        ],
    );
    section(
        "ENVIRONMENT",
        &[
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC",
                "Where to report start, state and end, and how often to report being alive. See sd_notify(3).",
            ),
            (
                "FLEXVDI_GATEWAY_SSL_PORT, FLEXVDI_GATEWAY_MANAGER_IP, ...",
                "Values of keys of the configuration, which override those in files. See flexvdi-gateway.conf(5).",
            ),
            (
                "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES",
                "Listening sockets named tls and plain, used instead of opening SslPort and PlainPort. See sd_listen_fds(3).",
            ),
        ],
    );
    section(
        "FILES",
        &[
            ("/etc/flexvdi/flexvdi-gateway.conf", "The configuration."),
            (
                "/etc/flexvdi/flexvdi-gateway.conf.d/*.conf",
                "Further files like it, whose keys override those of the files before them.",
            ),
            (
                "/usr/share/doc/flexvdi-gateway",
                "The documents, and an example of the file that Desktops names.",
            ),
        ],
    );
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("flexvdi-gateway.conf"), roman("(5)")]);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_commands_with_their_options_but_not_hidden_ones() {
        let command = Command::new("flexvdi-gateway")
            .about("About")
            .subcommand(
                Command::new("probe")
                    .about("Try")
                    .arg(Arg::new("json").long("json").help("Print JSON")),
            )
            .subcommand(
                Command::new("ticket")
                    .arg(Arg::new("at").value_name("HOST:PORT").required(true))
                    .arg(Arg::new("file").value_name("FILE"))
                    .arg(Arg::new("for").long("for").value_name("SECONDS")),
            )
            .subcommand(Command::new("secret").hide(true));
        let mut page = Vec::new();
        man_page(command, &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains(".TH flexvdi-gateway 8"), "{page}");
        for part in [
            "probe",
            r"\-\-json",
            "Print JSON",
            r"\fBticket\fR HOST:PORT [FILE]",
            r"\fB\-\-for\fR SECONDS",
            "EXIT STATUS",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert!(!page.contains("secret"), "{page}");
    }
}
