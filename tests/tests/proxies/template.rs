//! The documented configuration files, with the test's addresses and files in their places.

use anyhow::{Result, ensure};

/// The file `text` with each `(from, to)` replaced wherever it stands.
///
/// Fails when one of them does not occur: the test would not try what is documented.
pub(crate) fn adapt(text: &str, changes: &[(&str, &str)]) -> Result<String> {
    let mut adapted = text.to_owned();
    for (from, to) in changes {
        ensure!(
            adapted.contains(from),
            "the documented file has no {from:?}"
        );
        adapted = adapted.replace(from, to);
    }
    Ok(adapted)
}

#[test]
fn what_does_not_occur_is_an_error() {
    assert_eq!(adapt("a b a", &[("a", "c")]).unwrap(), "c b c");
    assert!(adapt("a", &[("b", "c")]).is_err());
}
