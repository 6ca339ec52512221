//! The engine as its owner sees it: against a model, over restarts, under readers.

#[cfg(test)]
#[path = "store/driver.rs"]
mod driver;
#[cfg(test)]
#[path = "store/smoke.rs"]
mod smoke;
