//! What is known of a key of the file, and how the list of them becomes [`Config`].
//!
//! [`Config`]: super::Config

use serde_json::Value;

use super::keys::Config;
use super::value::Mismatch;

/// A key of the file.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The words of its name with `_` between them.
    pub(super) field: &'static str,
    /// When a change of its value applies in a gateway that runs.
    pub(super) applies: Applies,
    /// Whether its values are strings, so that nothing else can be meant.
    pub(super) takes_text: bool,
    /// Reads a value from the file into the field.
    pub(super) set: fn(&mut Config, &Value) -> Result<(), Mismatch>,
    /// Writes the field as the file has it.
    pub(super) write: fn(&Config) -> Value,
    /// What its values look like, as a JSON schema.
    pub(super) schema: fn() -> Value,
}

/// When the change of a value applies in a gateway that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applies {
    /// With the reload that reads it: to requests, handshakes and channels that begin then.
    AtOnce,
    /// In a new process: it is about sockets, threads, or what the kernel was given.
    AtRestart,
    /// At once if it is about a data path that was loaded at the start, as none is loaded later.
    IfLoaded,
}

impl Key {
    /// Its environment variable, without the prefix: `MANAGER_CA_FILE`.
    pub(super) fn variable(&self) -> String {
        self.field.to_uppercase()
    }
}

/// Makes `Config`, its default and the list `KEYS` of rows such as
///
/// ```text
/// /// What it means.
/// "BanTime": Seconds, AtOnce =>
///     ban_time: Duration = seconds(60);
/// ```
///
/// which have the key, the form in which the file has its value, when a change applies, and the
/// field with its type and default.
macro_rules! keys {
    ($(
        $(#[doc = $about:literal])+
        $name:literal: $form:ty, $applies:ident => $field:ident: $type:ty = $default:expr;
    )*) => {
        /// Everything an administrator can set.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $(
                #[doc = concat!("`", $name, "`:")]
                $(#[doc = $about])+
                pub $field: $type,
            )*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        /// Every key, in the order in which they are shown.
        pub(super) const KEYS: &[$crate::config::key::Key] = &[$(
            $crate::config::key::Key {
                name: $name,
                field: stringify!($field),
                applies: $crate::config::key::Applies::$applies,
                takes_text: <$form as $crate::config::value::Form>::TAKES_TEXT,
                set: |config, value| {
                    config.$field = <$form as $crate::config::value::Form>::read(value)?;
                    Ok(())
                },
                write: |config| <$form as $crate::config::value::Form>::write(&config.$field),
                schema: <$form as $crate::config::value::Form>::schema,
            },
        )*];
    };
}
pub(super) use keys;
