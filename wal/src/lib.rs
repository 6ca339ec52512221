//! The write-ahead log: a durable order of opaque records.
