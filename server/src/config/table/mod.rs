//! The one table of flags: parser, environment, file, defaults, help and docs/flags.md follow from
//! it.
//!
//! One line says what a flag is, the call at its end what is done with it. The order within a
//! section is that of the help text.

mod clustering;
mod member;
mod operation;
mod security;

use super::flag::Flag;

/// Stores a value in a field of the configuration.
macro_rules! store {
    ($($field:ident).+: $into:ident) => {
        |config, value| {
            config.$($field).+ = value.$into();
            Ok(())
        }
    };
}
/// Stores a list of addresses; an empty text leaves what is there.
macro_rules! store_urls {
    ($field:ident) => {
        |config, value| {
            value.store_urls(&mut config.$field);
            Ok(())
        }
    };
}
use {store, store_urls};

/// Every flag there is.
pub fn flags() -> impl Iterator<Item = &'static Flag> {
    [
        member::GENERAL,
        member::MEMBER,
        clustering::CLUSTERING,
        security::SECURITY,
        security::AUTH,
        operation::OPERATION,
        operation::RINGD,
        operation::LEGACY,
    ]
    .into_iter()
    .flatten()
}
