//! A terminal that shows the same thing again and again, and is as it was afterwards.

use std::io::{self, IsTerminal};

use crate::output::print;

/// xterm: the other screen, so that what stood on this one comes back; no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Cursor to the top left corner; then, behind what is shown, everything else erased.
const HOME: &str = "\x1b[H";
const ERASE_LINE: &str = "\x1b[K\n";
const ERASE_REST: &str = "\x1b[J";

/// Where something is shown; a terminal gets its own screen back when this is dropped.
pub(super) struct Screen {
    is_terminal: bool,
}

impl Screen {
    /// With `wanted`, takes the screen if standard output is a terminal. Anything else gets one
    /// text after the other, without any control characters.
    pub(super) fn enter(wanted: bool) -> anyhow::Result<Self> {
        let screen = Self {
            is_terminal: wanted && io::stdout().is_terminal(),
        };
        if screen.is_terminal {
            print(ENTER)?;
        }
        Ok(screen)
    }

    /// Shows a text in place of the one before.
    pub(super) fn show(&self, text: &str) -> anyhow::Result<()> {
        if self.is_terminal {
            let lines = text.replace('\n', ERASE_LINE);
            print(format!("{HOME}{lines}{ERASE_REST}"))
        } else {
            print(text)
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            // A terminal that is gone needs nothing.
            let _ = print(LEAVE);
        }
    }
}
