//! Who decides how fast the kernel sends to clients.

use serde_json::Value;

use super::text::matching;
use super::value::{Form, Mismatch};

/// Longest name that the kernel takes: `TCP_CA_NAME_MAX` of include/net/tcp.h without the NUL.
const MAX_NAME: usize = 15;

/// The congestion control of the clients' connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CongestionControl {
    /// `"auto"`: bbr for clients that are not near, where the kernel has it for this process; else
    /// as [`Self::System`], but for clients that are near never bbr.
    Auto,
    /// `"system"`: as the kernel is set up.
    System,
    /// The algorithm that the kernel calls by this name; it may have none.
    Named(String),
}

impl CongestionControl {
    /// Its name in the file.
    pub fn name(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::System => "system",
            Self::Named(name) => name,
        }
    }
}

/// The name of a [`CongestionControl`].
pub(super) enum Algorithm {}

impl Form for Algorithm {
    type Field = CongestionControl;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<CongestionControl, Mismatch> {
        match value.as_str() {
            Some("auto") => Ok(CongestionControl::Auto),
            Some("system") => Ok(CongestionControl::System),
            Some(name) if is_name(name) => Ok(CongestionControl::Named(name.to_owned())),
            _ => {
                let expected = format!(
                    "\"auto\", \"system\" or the kernel's name of an algorithm, such as \"bbr\", \
                     of at most {MAX_NAME} characters"
                );
                Err(Mismatch::new(expected, value))
            }
        }
    }

    fn write(field: &CongestionControl) -> Value {
        Value::from(field.name())
    }

    fn schema() -> Value {
        matching("^[A-Za-z0-9_.-]{1,15}$")
    }
}

/// Whether an algorithm of the kernel or one made of eBPF may be called so.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_can_have() {
        for name in [
            "auto",
            "system",
            "bbr",
            "bpf_cubic",
            "bpf.cc",
            "123456789012345",
        ] {
            let field = Algorithm::read(&json!(name)).unwrap();
            assert_eq!(Algorithm::write(&field), name);
        }
        for wrong in [
            json!(""),
            json!("1234567890123456"),
            json!("bbr cubic"),
            json!("bbr\0"),
            json!("bbr\n"),
            json!("bbr\u{e9}"),
            json!(null),
            json!(true),
            json!(["bbr"]),
        ] {
            assert!(Algorithm::read(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_two_words_have_a_meaning_of_their_own() {
        let read = |name: &str| Algorithm::read(&json!(name)).unwrap();
        assert_eq!(read("auto"), CongestionControl::Auto);
        assert_eq!(read("system"), CongestionControl::System);
        assert_eq!(read("cubic"), CongestionControl::Named("cubic".to_owned()));
    }
}
