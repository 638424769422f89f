//! Who has which desktop: what stands in the file, put together for looking up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::hardware::HardwareAddress;
use super::password::StoredPassword;
use crate::grant::Grant;
use crate::secret::Secret;

/// Everything that stands in the file, checked.
#[derive(Debug)]
pub struct Inventory {
    pub(super) desktops: Vec<Arc<Desktop>>,
    pub(super) users: HashMap<Box<str>, User>,
    pub(super) terminals: HashMap<HardwareAddress, Terminal>,
    /// Checked for those whose names nobody has.
    pub(super) decoy: Arc<StoredPassword>,
    /// Files that it names.
    pub(super) files_beside: Vec<PathBuf>,
    pub(super) warnings: Vec<String>,
}

/// A desktop that can be given to people.
#[derive(Debug)]
pub(super) struct Desktop {
    /// What clients choose it by.
    pub(super) id: Box<str>,
    /// What people choose it by.
    pub(super) name: Box<str>,
    /// Where its Spice server listens, and what clients may do there.
    pub(super) grant: Grant,
    /// What the Spice server asks for; empty: nothing.
    pub(super) password: Secret,
    /// More members of the answer, which say what the client may do.
    pub(super) options: Map<String, Value>,
}

/// A person.
#[derive(Debug)]
pub(super) struct User {
    pub(super) password: Arc<StoredPassword>,
    /// Places in [`Inventory::desktops`], in the order of the file.
    pub(super) desktops: Vec<usize>,
}

/// A terminal whose desktop nobody logs in for.
#[derive(Debug)]
pub(super) struct Terminal {
    /// What administrators call it.
    pub(super) name: Option<Box<str>>,
    /// A place in [`Inventory::desktops`].
    pub(super) desktop: usize,
}

impl Inventory {
    /// What the administrator should know of the file.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where its desktops are, by what clients choose them by, in the order of the file.
    pub fn grants(&self) -> impl ExactSizeIterator<Item = (&str, &Grant)> {
        let desktops = self.desktops.iter();
        desktops.map(|desktop| (&*desktop.id, &desktop.grant))
    }

    /// How much is in it, for the log.
    pub fn summary(&self) -> String {
        let count = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {one}s"),
        };
        format!(
            "{}, {}, {}",
            count(self.desktops.len(), "desktop"),
            count(self.users.len(), "user"),
            count(self.terminals.len(), "terminal")
        )
    }

    /// The terminal of this hardware address, as a client sends it, with its desktop.
    pub(super) fn terminal(&self, hwaddress: &str) -> Option<(&Terminal, &Arc<Desktop>)> {
        let terminal = self.terminals.get(&HardwareAddress::parse(hwaddress)?)?;
        Some((terminal, &self.desktops[terminal.desktop]))
    }

    /// The user of this name.
    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The desktops of a user, in the order of the file.
    pub(super) fn desktops_of<'a>(
        &'a self,
        user: &'a User,
    ) -> impl Iterator<Item = &'a Arc<Desktop>> {
        user.desktops.iter().map(|at| &self.desktops[*at])
    }
}
