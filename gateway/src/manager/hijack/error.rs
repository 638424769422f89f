/// Why an answer cannot be rewritten. Nothing of the answer's content is shown: it holds the
/// password of the desktop.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HijackError {
    /// The body is not JSON.
    #[error("the answer is not JSON (line {line}, column {column})")]
    NotJson {
        /// The line of the mistake, from 1.
        line: usize,
        /// The column of the mistake, in bytes from 1.
        column: usize,
    },
    /// The body is JSON, but not an object.
    #[error("the answer is not a JSON object")]
    NotAnObject,
    /// `spice_address` is missing or cannot be a host.
    #[error("the answer has no usable spice_address")]
    Address,
    /// `spice_port` is missing or no port.
    #[error("the answer has no usable spice_port")]
    Port,
    /// The body is not what its content coding says.
    #[error("the answer is not valid gzip data")]
    Gzip,
    /// The body has a content coding that is not known here.
    #[error("the answer has content coding {0:?}")]
    Coding(String),
    /// The body is longer than the caller allows.
    #[error("the answer is longer than {limit} bytes when decompressed")]
    TooLong {
        /// What the caller allows, in bytes.
        limit: usize,
    },
}
