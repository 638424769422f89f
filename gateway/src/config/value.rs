//! The forms of value in the file: what each accepts, what it becomes, and how it is written.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use serde_json::{Value, json};

use super::report::Problem;

/// Longest time that can be configured, in seconds: a year.
const MAX_SECONDS: u64 = 31_536_000;

/// Most characters of a found value that an error repeats.
const MAX_FOUND: usize = 40;

/// A form of value in the file, and what it means to the program.
///
/// The implementing types are names only; they have no values.
pub(super) trait Form {
    /// The type of the field that takes the value.
    type Field;

    /// Whether its values are strings, and nothing else.
    const TAKES_TEXT: bool = false;

    fn read(value: &Value) -> Result<Self::Field, Mismatch>;

    /// Writes what [`Form::read`] reads as the same field again.
    fn write(field: &Self::Field) -> Value;

    /// What the values look like, as a JSON schema. It takes whatever [`Form::read`] takes.
    fn schema() -> Value;
}

/// What should have stood in the file, and what did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) expected: Cow<'static, str>,
    pub(super) found: String,
}

impl Mismatch {
    pub(super) fn new(expected: impl Into<Cow<'static, str>>, found: &Value) -> Self {
        Self {
            expected: expected.into(),
            found: short(found),
        }
    }

    /// As what is wrong with the value of a key.
    pub(super) fn of(self, key: &'static str) -> Problem {
        Problem {
            key,
            expected: self.expected.into_owned(),
            found: self.found,
        }
    }

    fn or(self, alternative: &str) -> Self {
        Self {
            expected: format!("{}, or {alternative}", self.expected).into(),
            ..self
        }
    }
}

/// Shortens a value to what fits into a message of one line.
fn short(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => quote(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Quotes the beginning of a text, control characters escaped.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(MAX_FOUND) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `true` or `false`.
pub(super) enum Switch {}

impl Form for Switch {
    type Field = bool;

    fn read(value: &Value) -> Result<bool, Mismatch> {
        value
            .as_bool()
            .ok_or_else(|| Mismatch::new("true or false", value))
    }

    fn write(field: &bool) -> Value {
        Value::from(*field)
    }

    fn schema() -> Value {
        json!({"type": "boolean"})
    }
}

/// A whole number, both ends of its range included.
pub(super) struct Number<T, const MIN: u64, const MAX: u64>(PhantomData<T>);

impl<T, const MIN: u64, const MAX: u64> Form for Number<T, MIN, MAX>
where
    T: TryFrom<u64> + Copy,
    Value: From<T>,
{
    type Field = T;

    fn read(value: &Value) -> Result<T, Mismatch> {
        whole::<MIN, MAX>(value)
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Mismatch::new(format!("a whole number from {MIN} to {MAX}"), value))
    }

    fn write(field: &T) -> Value {
        Value::from(*field)
    }

    fn schema() -> Value {
        range(MIN, MAX)
    }
}

/// A TCP port.
pub(super) enum Port<const MIN: u64> {}

impl<const MIN: u64> Form for Port<MIN> {
    type Field = u16;

    fn read(value: &Value) -> Result<u16, Mismatch> {
        whole::<MIN, 65_535>(value)
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| Mismatch::new(format!("a port number from {MIN} to 65535"), value))
    }

    fn write(field: &u16) -> Value {
        Value::from(*field)
    }

    fn schema() -> Value {
        range(MIN, 65_535)
    }
}

/// A time in whole seconds, more than none.
pub(super) enum Seconds {}

impl Form for Seconds {
    type Field = Duration;

    fn read(value: &Value) -> Result<Duration, Mismatch> {
        whole::<1, MAX_SECONDS>(value)
            .map(Duration::from_secs)
            .ok_or_else(|| Mismatch::new(format!("whole seconds from 1 to {MAX_SECONDS}"), value))
    }

    fn write(field: &Duration) -> Value {
        Value::from(field.as_secs())
    }

    fn schema() -> Value {
        range(1, MAX_SECONDS)
    }
}

/// The schema of a whole number, both ends included.
fn range(least: u64, most: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

fn whole<const MIN: u64, const MAX: u64>(value: &Value) -> Option<u64> {
    value.as_u64().filter(|number| (MIN..=MAX).contains(number))
}

/// Another form, or 0 for none.
pub(super) struct OrZero<F>(PhantomData<F>);

impl<F: Form> Form for OrZero<F> {
    type Field = Option<F::Field>;

    fn read(value: &Value) -> Result<Self::Field, Mismatch> {
        if value.as_u64() == Some(0) {
            return Ok(None);
        }
        F::read(value)
            .map(Some)
            .map_err(|mismatch| mismatch.or("0"))
    }

    fn write(field: &Self::Field) -> Value {
        field.as_ref().map_or_else(|| Value::from(0), F::write)
    }

    fn schema() -> Value {
        let mut schema = F::schema();
        if schema["minimum"] == 1 {
            schema["minimum"] = 0.into();
            schema
        } else {
            json!({"anyOf": [{"const": 0}, schema]})
        }
    }
}

/// Another form, or an empty string for none.
pub(super) struct OrEmpty<F>(PhantomData<F>);

impl<F: Form> Form for OrEmpty<F> {
    type Field = Option<F::Field>;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<Self::Field, Mismatch> {
        if value.as_str() == Some("") {
            return Ok(None);
        }
        F::read(value)
            .map(Some)
            .map_err(|mismatch| mismatch.or("\"\""))
    }

    fn write(field: &Self::Field) -> Value {
        field.as_ref().map_or_else(|| Value::from(""), F::write)
    }

    fn schema() -> Value {
        json!({"anyOf": [{"const": ""}, F::schema()]})
    }
}

/// A value that is one of a few, each with a name.
pub(super) trait Choice: Copy + 'static {
    const ALL: &[Self];

    /// Its name in the file.
    fn name(self) -> &'static str;
}

/// The name of a [`Choice`].
pub(super) struct OneOf<C>(PhantomData<C>);

impl<C: Choice> Form for OneOf<C> {
    type Field = C;
    const TAKES_TEXT: bool = true;

    fn read(value: &Value) -> Result<C, Mismatch> {
        let mut all = C::ALL.iter().copied();
        all.find(|choice| value == choice.name()).ok_or_else(|| {
            let names: Vec<_> = C::ALL.iter().map(|c| format!("{:?}", c.name())).collect();
            Mismatch::new(format!("one of {}", names.join(", ")), value)
        })
    }

    fn write(field: &C) -> Value {
        Value::from(field.name())
    }

    fn schema() -> Value {
        let names: Vec<_> = C::ALL.iter().map(|choice| choice.name()).collect();
        json!({"enum": names})
    }
}

/// An array of another form.
pub(super) struct List<F>(PhantomData<F>);

impl<F: Form> Form for List<F> {
    type Field = Vec<F::Field>;

    fn read(value: &Value) -> Result<Self::Field, Mismatch> {
        value
            .as_array()
            .ok_or_else(|| Mismatch::new("an array of strings", value))?
            .iter()
            .map(F::read)
            .collect::<Result<_, _>>()
            .map_err(|mismatch| Mismatch {
                expected: format!("each element to be {}", mismatch.expected).into(),
                ..mismatch
            })
    }

    fn write(field: &Self::Field) -> Value {
        field.iter().map(F::write).collect()
    }

    fn schema() -> Value {
        json!({"type": "array", "items": F::schema()})
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::PathPrefix;
    use super::*;

    fn expected<F: Form>(value: &Value) -> String {
        F::read(value).err().expect("wrong value").to_string()
    }

    impl std::fmt::Display for Mismatch {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}; {}", self.expected, self.found)
        }
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        type Size = Number<usize, 64, 100>;
        assert_eq!(Size::read(&json!(64)), Ok(64));
        assert_eq!(Size::read(&json!(100)), Ok(100));
        for wrong in [
            json!(63),
            json!(101),
            json!(-64),
            json!(64.5),
            json!(64.0),
            json!("64"),
            json!(true),
            json!(null),
            json!(u64::MAX),
        ] {
            assert_eq!(
                expected::<Size>(&wrong),
                format!("a whole number from 64 to 100; {}", short(&wrong))
            );
        }
    }

    #[test]
    fn numbers_that_do_not_fit_the_field_are_wrong() {
        assert!(Number::<u16, 0, { u64::MAX }>::read(&json!(65_536)).is_err());
    }

    #[test]
    fn ports() {
        assert_eq!(Port::<0>::read(&json!(0)), Ok(0));
        assert_eq!(Port::<1>::read(&json!(65_535)), Ok(65_535));
        assert_eq!(
            expected::<Port<1>>(&json!(0)),
            "a port number from 1 to 65535; 0"
        );
        assert_eq!(
            expected::<Port<0>>(&json!("443x")),
            "a port number from 0 to 65535; \"443x\""
        );
        assert_eq!(
            expected::<OrZero<Port<1>>>(&json!(65_536)),
            "a port number from 1 to 65535, or 0; 65536"
        );
    }

    #[test]
    fn seconds() {
        assert_eq!(Seconds::read(&json!(1)), Ok(Duration::from_secs(1)));
        assert_eq!(
            Seconds::read(&json!(31_536_000)),
            Ok(Duration::from_hours(365 * 24))
        );
        for wrong in [json!(0), json!(31_536_001), json!(1.5), json!("1")] {
            assert!(Seconds::read(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(OrZero::<Seconds>::read(&json!(0)), Ok(None));
    }

    #[test]
    fn switches_are_booleans_only() {
        assert_eq!(Switch::read(&json!(true)), Ok(true));
        assert_eq!(Switch::read(&json!(false)), Ok(false));
        assert_eq!(expected::<Switch>(&json!(1)), "true or false; 1");
        assert_eq!(
            expected::<Switch>(&json!("true")),
            "true or false; \"true\""
        );
    }

    #[test]
    fn choices_are_told() {
        use super::super::HostProxyProtocol;
        type Protocol = OneOf<HostProxyProtocol>;
        assert_eq!(Protocol::read(&json!("v2")), Ok(HostProxyProtocol::V2));
        assert_eq!(
            expected::<Protocol>(&json!("V2")),
            "one of \"off\", \"v1\", \"v2\"; \"V2\""
        );
    }

    #[test]
    fn lists_name_the_element_that_is_wrong() {
        type Paths = List<PathPrefix>;
        assert_eq!(Paths::read(&json!([])), Ok(vec![]));
        assert_eq!(
            Paths::read(&json!(["/", "/vdi/"])),
            Ok(vec!["/".to_owned(), "/vdi/".to_owned()])
        );
        assert_eq!(
            expected::<Paths>(&json!(["/vdi/", "/vdi"])),
            "each element to be a path that begins and ends with \"/\"; \"/vdi\""
        );
        assert_eq!(
            expected::<Paths>(&json!("/vdi/")),
            "an array of strings; \"/vdi/\""
        );
        for wrong in ["", "vdi/", "vdi"] {
            assert!(Paths::read(&json!([wrong])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn found_values_are_short_and_on_one_line() {
        assert_eq!(short(&json!("ä".repeat(40))).chars().count(), 42);
        assert_eq!(
            short(&json!("ä".repeat(41))),
            format!("\"{}\"...", "ä".repeat(40))
        );
        assert_eq!(short(&json!("a\nb\u{2028}")), "\"a\\nb\\u{2028}\"");
        assert_eq!(short(&json!({"a": 1})), "an object");
        assert_eq!(short(&json!([1])), "an array");
    }
}
