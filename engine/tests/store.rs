//! The engine as its owner sees it: against a model, over restarts, under readers.
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

#[cfg(test)]
#[path = "store/against_model.rs"]
mod against_model;
#[cfg(test)]
#[path = "store/alarms.rs"]
mod alarms;
#[cfg(test)]
#[path = "store/defrag.rs"]
mod defrag;
#[cfg(test)]
#[path = "store/driver.rs"]
mod driver;
#[cfg(test)]
#[path = "store/edges.rs"]
mod edges;
#[cfg(test)]
#[path = "store/hash.rs"]
mod hash;
#[cfg(test)]
#[path = "store/install.rs"]
mod install;
#[cfg(test)]
#[path = "store/install_faults.rs"]
mod install_faults;
#[cfg(test)]
#[path = "store/interchange.rs"]
mod interchange;
#[cfg(test)]
#[path = "store/membership.rs"]
mod membership;
#[cfg(test)]
#[path = "store/model.rs"]
mod model;
#[cfg(test)]
#[path = "store/on_disk.rs"]
mod on_disk;
#[cfg(test)]
#[path = "store/random.rs"]
mod random;
#[cfg(test)]
#[path = "store/smoke.rs"]
mod smoke;
