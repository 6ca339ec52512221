//! The hub against a list of all events: whatever streams, rings and compactions do, every watcher
//! is told what it wants, once and in order.

mod model;
mod rules;
mod world;
