//! The replicated state machine: shards, trees, revisions.
