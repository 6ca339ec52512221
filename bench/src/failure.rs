//! What the world refused: one text that names the operation, the place and the cause.
//!
//! The harness has one way to handle a failure, which is to print it and exit with a status other
//! than zero, so nothing needs to match on its kind.

use std::fmt;

/// A failed operation, told to the user once, by `main`.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure that has no other error as its cause.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Turns an error into a failure of the named operation; made for `map_err`.
    pub fn of<E: fmt::Display>(operation: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |cause| Self(format!("{operation}: {cause}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
