//! One key with one value, as a place gives it.

use serde_json::Value;

use super::key::Key;
use super::origin::Origin;

/// A key and a value that stand somewhere, known and right or not.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) name: String,
    pub(super) value: Value,
    /// Whether the place gives the key more than once; this is the last of them.
    pub(super) is_duplicate: bool,
}

impl Entry {
    /// Of a text that a variable or an argument holds.
    pub(super) fn of_text(origin: Origin, key: &Key, text: &str) -> Self {
        Self {
            origin,
            name: key.name.to_owned(),
            value: value_of(key, text),
            is_duplicate: false,
        }
    }
}

/// A text as a value of the key: JSON; where the key takes a string, the quotation marks may be
/// left out. What is neither stays the text that it is, which the key then refuses.
fn value_of(key: &Key, text: &str) -> Value {
    let json = serde_json::from_str::<Value>(text).ok();
    let json = json.filter(|value| value.is_string() || !key.takes_text);
    json.unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::keys::find;
    use super::*;

    #[test]
    fn texts_are_json_or_bare_strings() {
        for (key, text, value) in [
            ("ManagerIP", "10.0.0.1", json!("10.0.0.1")),
            ("ManagerIP", "\"10.0.0.1\"", json!("10.0.0.1")),
            ("ManagerIP", "", json!("")),
            // The name of an audience may look like something else.
            ("TicketAudience", "17", json!("17")),
            ("TicketAudience", "null", json!("null")),
            ("TicketAudience", "[\"a\"]", json!("[\"a\"]")),
            ("DataPath", "relay", json!("relay")),
            ("SslPort", "8443", json!(8443)),
            ("SslPort", " 8443\n", json!(8443)),
            ("SslPort", "", json!("")),
            ("SslPort", "x", json!("x")),
            ("HijackAll", "false", json!(false)),
            ("HijackAll", "no", json!("no")),
            ("AllowedHosts", "[\"10.0.0.0/8\"]", json!(["10.0.0.0/8"])),
            ("AllowedHosts", "10.0.0.0/8", json!("10.0.0.0/8")),
        ] {
            assert_eq!(value_of(find(key).unwrap(), text), value, "{key}={text}");
        }
    }
}
