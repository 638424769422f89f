//! JSON objects whose members keep their text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of an object, with the text that they have in the answer.
pub(super) struct Members<'a>(Vec<Member<'a>>);

struct Member<'a> {
    /// The name with its quotes.
    name: &'a RawValue,
    value: &'a RawValue,
}

impl<'a> Members<'a> {
    /// The value of the last member of this name.
    pub(super) fn last(&self, name: &str) -> Option<&'a RawValue> {
        let mut members = self.0.iter().rev();
        members
            .find(|member| member.is(name))
            .map(|member| member.value)
    }

    /// The text of the object with these members changed where they stand, or else appended.
    pub(super) fn with(&self, changes: &[(&str, Value)]) -> String {
        let mut texts = Vec::with_capacity(self.0.len() + changes.len());
        for member in &self.0 {
            let change = changes.iter().find(|(name, _)| member.is(name));
            texts.push(match change {
                Some((_, value)) => format!("{}:{value}", member.name),
                None => format!("{}:{}", member.name, member.value),
            });
        }
        for (name, value) in changes {
            if self.last(name).is_none() {
                texts.push(format!("{}:{value}", Value::from(*name)));
            }
        }
        format!("{{{}}}", texts.join(","))
    }
}

impl Member<'_> {
    fn is(&self, name: &str) -> bool {
        string(self.name).as_deref() == Some(name)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    members.push(Member { name, value });
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The string that a JSON text means, if it is one.
pub(super) fn string(text: &RawValue) -> Option<String> {
    serde_json::from_str(text.get()).ok()
}
