//! To come.

use super::Corpus;

/// Adds the cases.
pub fn add(_corpus: &mut Corpus) {}
