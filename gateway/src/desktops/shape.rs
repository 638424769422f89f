//! What the file may look like: one description that decides what is accepted and makes the JSON
//! schema, so that the two cannot differ.

use serde_json::{Map, Value, json};

use super::node::Node;
use super::problem::{Problems, shown};
use crate::host_tls::CertificateDigest;

/// What a value may look like.
pub(super) enum Shape {
    /// A string.
    Text {
        /// Which characters it may have.
        form: Form,
        /// Most characters.
        longest: usize,
    },
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// A whole number, both ends of its range included.
    Whole { least: u64, most: u64 },
    /// An array of values of one shape.
    List {
        of: &'static Shape,
        /// Most elements.
        most: usize,
        /// Whether no element may come twice.
        distinct: bool,
        /// A string that must be among them.
        needs: Option<&'static str>,
    },
    /// An object with these members and no others.
    Object {
        members: &'static [Member],
        /// Which of them exclude each other.
        either: Either,
    },
}

/// Members of an object that exclude each other.
#[derive(Clone, Copy)]
pub(super) enum Either {
    /// There are none.
    Any,
    /// Of these two at most one may be there.
    AtMost([&'static str; 2]),
    /// Of these two exactly one must be there.
    Exactly([&'static str; 2]),
}

/// A member of an object.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) required: bool,
    /// What it is, in a sentence.
    pub(super) about: &'static str,
    pub(super) shape: &'static Shape,
}

/// The forms of strings.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Any.
    Any,
    /// Something on one line that is not empty.
    Line,
    /// What stands in requests of clients, which escape nothing.
    Identifier,
    /// An argon2id hash.
    Hash,
    /// SHA-256 in hexadecimal digits.
    Digest,
}

impl Form {
    pub(super) fn fits(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Line => !text.is_empty() && !text.chars().any(char::is_control),
            Self::Identifier => {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                !text.is_empty() && text.bytes().all(fits)
            }
            Self::Hash => text.starts_with("$argon2id$"),
            Self::Digest => text.parse::<CertificateDigest>().is_ok(),
        }
    }

    /// The same for JSON schemas (ECMA-262).
    fn pattern(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::Line => Some("^[^\\u0000-\\u001f\\u007f-\\u009f]+$"),
            Self::Identifier => Some("^[A-Za-z0-9._-]+$"),
            Self::Hash => Some("^\\$argon2id\\$"),
            Self::Digest => Some("^([0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31})$"),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Any => "a string",
            Self::Line => "a string that is not empty and has no control characters",
            Self::Identifier => "a string of letters, digits, \".\", \"_\" and \"-\"",
            Self::Hash => "an argon2id hash, as `flexvdi-gateway password` prints it",
            Self::Digest => "64 hexadecimal digits, in pairs between colons or not",
        }
    }
}

impl Shape {
    /// Tells what is different in this value, which stands at `place`.
    pub(super) fn check(&self, node: &Node, place: &str, problems: &mut Problems) {
        match (self, node) {
            (Self::Text { form, longest }, Node::Text(text)) => {
                let text = text.expose();
                if !form.fits(text) {
                    problems.add(place, format!("expected {}", form.expected()));
                } else if text.chars().nth(*longest).is_some() {
                    problems.add(place, format!("expected at most {longest} characters"));
                }
            }
            (Self::OneOf(names), Node::Text(text)) => {
                if !names.contains(&text.expose()) {
                    let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
                    problems.add(place, format!("expected one of {}", names.join(", ")));
                }
            }
            (Self::Switch, Node::Switch(_)) => {}
            (Self::Whole { least, most }, Node::Number(number)) => {
                if number.is_none_or(|number| !(*least..=*most).contains(&number)) {
                    let what = format!("expected a whole number from {least} to {most}");
                    problems.add(place, what);
                }
            }
            (
                Self::List {
                    of, most, needs, ..
                },
                Node::List(elements),
            ) => {
                if let Some(needed) = needs
                    && !elements.iter().any(
                        |element| matches!(element, Node::Text(text) if text.expose() == *needed),
                    )
                {
                    problems.add(place, format!("expected {needed:?} among them"));
                }
                if elements.len() > *most {
                    problems.add(place, format!("expected at most {most} elements"));
                }
                for (at, element) in elements.iter().enumerate() {
                    of.check(element, &format!("{place}[{at}]"), problems);
                }
            }
            (Self::Object { members, either }, Node::Object(found)) => {
                check_members(members, *either, found, place, problems);
            }
            (expected, found) => {
                let (expected, found) = (expected.kind(), found.kind());
                problems.add(place, format!("expected {expected}, found {found}"));
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text { .. } | Self::OneOf(_) => "a string",
            Self::Switch => "true or false",
            Self::Whole { .. } => "a number",
            Self::List { .. } => "an array",
            Self::Object { .. } => "an object",
        }
    }

    /// The same as a JSON schema (draft 2020-12).
    pub(super) fn schema(&self) -> Map<String, Value> {
        let value = match self {
            Self::Text { form, longest } => {
                let mut schema = json!({"type": "string", "maxLength": longest});
                if let Some(pattern) = form.pattern() {
                    schema["pattern"] = pattern.into();
                }
                schema
            }
            Self::OneOf(names) => json!({"type": "string", "enum": names}),
            Self::Switch => json!({"type": "boolean"}),
            Self::Whole { least, most } => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Self::List {
                of,
                most,
                distinct,
                needs,
            } => {
                let mut schema = json!({"type": "array", "items": of.schema(), "maxItems": most});
                if let Some(needed) = needs {
                    schema["contains"] = json!({ "const": needed });
                }
                if *distinct {
                    schema["uniqueItems"] = true.into();
                }
                schema
            }
            Self::Object { members, either } => {
                let properties: Map<_, _> = members
                    .iter()
                    .map(|member| {
                        let mut schema = Map::new();
                        schema.insert("description".to_owned(), member.about.into());
                        schema.extend(member.shape.schema());
                        (member.name.to_owned(), schema.into())
                    })
                    .collect();
                let required = members.iter().filter(|member| member.required);
                let required: Vec<_> = required.map(|member| member.name).collect();
                let mut schema = json!({
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                });
                match either {
                    Either::Any => {}
                    Either::AtMost(names) => schema["not"] = json!({ "required": names }),
                    Either::Exactly([one, other]) => {
                        schema["oneOf"] = json!([{ "required": [one] }, { "required": [other] }]);
                    }
                }
                schema
            }
        };
        match value {
            Value::Object(schema) => schema,
            _ => unreachable!("each of them is one"),
        }
    }
}

fn check_members(
    members: &[Member],
    either: Either,
    found: &[(String, Node)],
    place: &str,
    problems: &mut Problems,
) {
    let below = |name: &str| match place {
        "" => name.to_owned(),
        _ => format!("{place}.{name}"),
    };
    for (at, (name, value)) in found.iter().enumerate() {
        let Some(member) = members.iter().find(|member| member.name == name) else {
            let known: Vec<_> = members.iter().map(|member| member.name).collect();
            let (name, known) = (shown(name), known.join(", "));
            problems.add(
                place,
                format!("there is no member {name}; known are {known}"),
            );
            continue;
        };
        if found[..at].iter().any(|(before, _)| before == name) {
            problems.add(&below(name), "it is given twice");
            continue;
        }
        member.shape.check(value, &below(name), problems);
    }
    let is_there = |wanted: &&str| found.iter().any(|(name, _)| name == wanted);
    for member in members.iter().filter(|member| member.required) {
        if !is_there(&member.name) {
            problems.add(place, format!("the member {} is missing", member.name));
        }
    }
    if let Either::AtMost(names) | Either::Exactly(names) = either
        && names.iter().all(is_there)
    {
        let names = names.join(" and ");
        problems.add(place, format!("only one of {names} may be there"));
    }
    if let Either::Exactly(names) = either
        && !names.iter().any(is_there)
    {
        let names = names.join(" and ");
        problems.add(place, format!("one of {names} must be there"));
    }
}
