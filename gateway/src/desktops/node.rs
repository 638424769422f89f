//! JSON as it was written: members in their order, also those that come twice, and texts that are
//! wiped when they are dropped, as any of them may be a password.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::secret::Secret;

/// A value.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Switch(bool),
    /// `None`: none that is whole and not negative.
    Number(Option<u64>),
    Text(Secret),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for messages that must not repeat it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Switch(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// The first member of this name, if it is an object that has one.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let mut members = members.iter();
        members.find_map(|(found, value)| (found == name).then_some(value))
    }

    /// The text of the member of this name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.secret(name).map(Secret::expose)
    }

    /// The same, for one that must not be shown.
    pub(super) fn secret(&self, name: &str) -> Option<&Secret> {
        match self.member(name) {
            Some(Self::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The number of the member of this name.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.member(name) {
            Some(Self::Number(number)) => *number,
            _ => None,
        }
    }

    /// The texts among the elements of the member of this name.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let elements = self.list(name).iter();
        elements.filter_map(|element| match element {
            Self::Text(text) => Some(text.expose()),
            _ => None,
        })
    }

    /// The elements of the member of this name; none if there is no such list.
    pub(super) fn list(&self, name: &str) -> &[Self] {
        match self.member(name) {
            Some(Self::List(elements)) => elements,
            _ => &[],
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Switch(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(Some(value)))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Number(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number(None))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(Secret::from(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(Secret::from(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Node::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_written_is_there() {
        let text = r#"{"a": "1", "b": [1, -1, 1.5, true, null, {}], "a": "2"}"#;
        let node: Node = serde_json::from_str(text).unwrap();
        assert_eq!(node.text("a"), Some("1"));
        assert_eq!(node.list("b").len(), 6);
        assert!(node.member("c").is_none());
        assert!(node.list("a").is_empty());
        assert_eq!(node.texts("b").count(), 0);
        assert_eq!(node.number("a"), None);
        let Node::Object(members) = &node else {
            unreachable!("it is one")
        };
        assert_eq!(members.len(), 3);
        assert!(!format!("{node:?}").contains('2'));
    }
}
