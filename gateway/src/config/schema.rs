//! The JSON schema of the file, for editors: made of the same table of keys that reads the file,
//! with the words of docs/configuration.md.

use serde_json::{Map, Value, json};

use super::Config;
use super::keys::{KEYS, SCHEMA_MEMBER};

/// Where each key has a row.
const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// The JSON schema (draft 2020-12). It takes what the gateway takes without a warning. What a
/// pattern cannot tell, and what values mean together, only the gateway sees.
pub fn schema() -> Value {
    let about = "Where editors find the schema of this file; the gateway does not look at it.";
    let mut properties = Map::new();
    properties.insert(
        SCHEMA_MEMBER.to_owned(),
        json!({"description": about, "type": "string"}),
    );
    let defaults = Config::default();
    for key in KEYS {
        let mut property = Map::new();
        if let Some(about) = description(key.name) {
            property.insert("description".to_owned(), about.into());
        }
        if let Value::Object(shape) = (key.schema)() {
            property.extend(shape);
        }
        property.insert("default".to_owned(), (key.write)(&defaults));
        properties.insert(key.name.to_owned(), property.into());
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of flexvdi-gateway",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// What the document says of a key.
fn description(key: &str) -> Option<String> {
    let start = format!("| `{key}` | ");
    let row = DOCUMENT.lines().find(|line| line.starts_with(&start))?;
    let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
    let [_, _, unit, meaning] = cells[..] else {
        return None;
    };
    let unit = match unit {
        "s" => " Unit: seconds.",
        "bytes" => " Unit: bytes.",
        _ => "",
    };
    Some(without_links(meaning) + unit)
}

/// Markdown of one line in which of links only their text is left.
fn without_links(markdown: &str) -> String {
    let mut text = String::new();
    let mut in_code = false;
    let mut rest = markdown;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        in_code ^= c == '`';
        match link(rest) {
            Some((label, behind)) if c == '[' && !in_code => {
                text.push_str(label);
                rest = behind;
            }
            _ => text.push(c),
        }
    }
    text
}

/// The text of a link whose bracket was read, and what follows it.
fn link(rest: &str) -> Option<(&str, &str)> {
    let (label, rest) = rest.split_once("](")?;
    let (_, rest) = rest.split_once(')')?;
    (!label.contains('[')).then_some((label, rest))
}

#[cfg(test)]
mod tests {
    use jsonschema::Validator;

    use super::super::keys::find;
    use super::super::load::tests::samples;
    use super::*;

    const SHIPPED: &str = include_str!("../../../packaging/flexvdi-gateway.schema.json");
    const EXAMPLE: &str = include_str!("../../../packaging/flexvdi-gateway.conf");

    fn validator() -> Validator {
        jsonschema::draft202012::new(&schema()).unwrap()
    }

    /// Whether the gateway takes the value of a key, on its own.
    fn is_taken(key: &str, value: &Value) -> bool {
        (find(key).unwrap().set)(&mut Config::default(), value).is_ok()
    }

    #[test]
    fn the_schema_in_the_packages_is_the_one_that_is_printed() {
        let shipped: Value = serde_json::from_str(SHIPPED).unwrap();
        assert_eq!(
            shipped,
            schema(),
            "flexvdi-gateway schema > packaging/flexvdi-gateway.schema.json"
        );
    }

    #[test]
    fn it_is_a_schema() {
        jsonschema::draft202012::meta::validate(&schema()).unwrap();
    }

    #[test]
    fn it_says_of_every_key_what_the_document_says() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), KEYS.len() + 1);
        for (name, property) in properties {
            let about = property["description"].as_str().expect(name);
            assert!(!about.contains("]("), "{about}");
        }
        let of = |key: &str| properties[key]["description"].as_str().unwrap();
        assert!(of("SslPort").starts_with("The TLS port."));
        assert!(of("BanTime").ends_with("Unit: seconds."));
        assert!(of("AccessLog").contains("refusal: access-log.md."));
        assert_eq!(without_links("`[a](b)` [c](d#e), [f"), "`[a](b)` c, [f");
    }

    #[test]
    fn files_that_are_good_are_valid() {
        let validator = validator();
        for (key, value) in samples() {
            let file = json!({key: value});
            assert!(validator.is_valid(&file), "{file}");
        }
        let defaults = super::super::effective_json(&Config::default());
        let example: Value = serde_json::from_str(EXAMPLE).unwrap();
        for file in [defaults, example, json!({"$schema": "x"}), json!({})] {
            assert!(validator.is_valid(&file), "{file}");
        }
    }

    #[test]
    fn values_that_the_gateway_refuses_are_not_valid() {
        let validator = validator();
        for (key, value) in [
            ("SslPort", json!("443x")),
            ("SslPort", json!(65_536)),
            ("Debug", json!(1)),
            ("ManagerIP", json!("https://manager")),
            ("ExternalName", json!("a b")),
            ("KeepAlive", json!(-1)),
            ("KeepAlive", json!(31_536_001)),
            ("PlainPort", json!(70_000)),
            ("MaxHeaderSize", json!(8_191)),
            ("TrustedProxies", json!(["10.0.0.0/8", "network"])),
            ("TrustedProxies", json!("10.0.0.0/8")),
            ("ManagerPaths", json!(["/vdi"])),
            ("CertFile", json!("")),
            ("KeyFile", json!(null)),
            ("FirstSpicePort", json!(0)),
            ("DataPath", json!("fast")),
            ("ForwardedHeader", json!("forwarded")),
            ("AllowedChannels", json!(["main", "video"])),
            ("AllowedOrigins", json!(["portal.example"])),
            ("AllowedSockets", json!(["run/spice"])),
            ("HealthPath", json!("up")),
            ("TicketURL", json!("http://portal.example/")),
            ("TicketAudience", json!("a\nb")),
            ("CongestionControl", json!("bbr cubic")),
            ("HostSubject", json!("spice")),
            ("WebClient", json!("spice-html5")),
            ("SpiceHost", json!("unix:spice.sock")),
            ("EbpfDir", json!("run/ebpf")),
        ] {
            assert!(!is_taken(key, &value), "{key}: {value}");
            let file = json!({key: value});
            assert!(!validator.is_valid(&file), "{file}");
        }
        for file in [
            json!({"KeepAlife": 1}),
            json!({"$schema": 1}),
            json!([]),
            json!("text"),
        ] {
            assert!(!validator.is_valid(&file), "{file}");
        }
    }

    /// Whatever value stands at whatever key: it is never refused where the gateway takes it, and
    /// never taken where the gateway refuses it, strings apart, of which patterns do not see all.
    #[test]
    fn schema_and_gateway_agree() {
        let validator = validator();
        let mut values = vec![
            json!(null),
            json!(true),
            json!(-1),
            json!(0.5),
            json!(u64::MAX),
            json!({}),
            json!({"a": 1}),
            json!([]),
            json!([1]),
            json!([[]]),
            json!(""),
            json!("x"),
            json!("a b"),
            json!("10.0.0.1"),
            json!("::1"),
            json!("[::1]"),
            json!("/"),
            json!("/a/"),
            json!("HTTPS://Portal.example"),
            json!("unix:/a"),
            json!("CN=a"),
            json!(["::/0", "10.0.0.1"]),
            json!(["a_b.example", "::1"]),
            json!("\u{0}"),
            json!("é"),
        ];
        for least in [0_u64, 1, 64, 8_192, 131_072, 65_535, 1_000_000, 31_536_000] {
            values.extend([json!(least), json!(least + 1)]);
        }
        values.extend(samples().into_iter().map(|(_, value)| value));
        let is_text = |value: &Value| match value {
            Value::String(_) => true,
            Value::Array(elements) => elements.iter().any(Value::is_string),
            _ => false,
        };
        for key in KEYS {
            for value in &values {
                let is_taken = is_taken(key.name, value);
                let is_valid = validator.is_valid(&json!({key.name: value}));
                let agree = is_taken == is_valid || (is_text(value) && is_valid);
                assert!(agree, "{}: {value}, taken: {is_taken}", key.name);
            }
        }
    }
}
