//! The load generator and side-by-side harness.

fn main() {}
