//! What `docs/tickets.openapi.json` says of requests and answers, as far as the file needs.

use http::StatusCode;
use serde_json::Value;

/// The document.
pub(crate) fn document() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tickets.openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Panics unless the document has this answer to `POST /tickets`.
pub(crate) fn assert_described(status: StatusCode, answer: &Value) {
    let document = document();
    let responses = &document["paths"]["/tickets"]["post"]["responses"];
    let described = &responses[status.as_str()];
    assert!(described.is_object(), "{status} is not described: {answer}");
    let schema = &described["content"]["application/json"]["schema"];
    if let Err(wrong) = check(&document, schema, answer) {
        panic!("{status}: {wrong}: {answer}");
    }
}

/// Whether a value is as a schema says; of JSON Schema only what the document uses.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        let schema = document.pointer(pointer).unwrap();
        return check(document, schema, value);
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{value} is none of {allowed:?}"));
    }
    if let Some(kinds) = schema["oneOf"].as_array() {
        let judged = kinds.iter().map(|kind| check(document, kind, value));
        let fits = judged.flatten().count();
        return (fits == 1).then_some(()).ok_or(format!("{fits} kinds fit"));
    }
    match schema["type"].as_str().unwrap() {
        "array" => {
            let elements = value.as_array().ok_or("not an array")?;
            let count = u64::try_from(elements.len()).unwrap();
            let least = schema["minItems"].as_u64().unwrap_or(0);
            let most = schema["maxItems"].as_u64().unwrap_or(u64::MAX);
            if !(least..=most).contains(&count) {
                return Err(format!("{count} elements"));
            }
            if let Some(needed) = schema["contains"].get("const")
                && !elements.contains(needed)
            {
                return Err(format!("without {needed}"));
            }
            let mut elements = elements.iter();
            elements.try_for_each(|element| check(document, &schema["items"], element))
        }
        "object" => {
            let members = value.as_object().ok_or("not an object")?;
            let known = schema["properties"].as_object().unwrap();
            assert_eq!(schema["additionalProperties"], false);
            for required in schema["required"].as_array().unwrap() {
                let name = required.as_str().unwrap();
                members.get(name).ok_or(format!("without {name}"))?;
            }
            for (name, member) in members {
                let schema = known.get(name).ok_or(format!("{name} is not known"))?;
                check(document, schema, member).map_err(|wrong| format!("{name}: {wrong}"))?;
            }
            Ok(())
        }
        "string" => value.as_str().map(drop).ok_or("not a string".to_owned()),
        "boolean" => {
            let is_one = value.as_bool().map(drop);
            is_one.ok_or("neither true nor false".to_owned())
        }
        "integer" => {
            let number = value.as_i64().ok_or("not a whole number")?;
            let is_below = schema["minimum"]
                .as_i64()
                .is_some_and(|least| number < least);
            let is_above = schema["maximum"].as_i64().is_some_and(|most| number > most);
            if is_below || is_above {
                return Err(format!("{number} is out of range"));
            }
            Ok(())
        }
        other => panic!("{other} in a schema"),
    }
}

#[test]
fn what_differs_from_a_schema_is_found() {
    let document = document();
    let order = &document["components"]["schemas"]["Order"];
    let judge = |text: &str| check(&document, order, &serde_json::from_str(text).unwrap());
    assert_eq!(
        judge(r#"{"host": "h", "port": 1, "for_seconds": 5}"#),
        Ok(())
    );
    for wrong in [
        "[]",
        r#"{"port": 1}"#,
        r#"{"host": "h", "port": 0}"#,
        r#"{"host": "h", "port": 1, "channels": ["record"]}"#,
        r#"{"host": "h", "port": 1, "channels": ["main", "x"]}"#,
        r#"{"host": "h", "port": 1, "network": []}"#,
        r#"{"host": "h", "port": 1, "network": 1}"#,
        r#"{"host": "h", "port": "1"}"#,
        r#"{"host": "h", "port": 65536}"#,
        r#"{"host": "h", "port": 1, "for_seconds": 0}"#,
        r#"{"host": "h", "port": 1, "more": 0}"#,
    ] {
        assert!(judge(wrong).is_err(), "{wrong}");
    }
}
