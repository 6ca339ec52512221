//! Makes a sequence that leads to a difference shorter by leaving parts out.
//!
//! Parts are halves first, then smaller, until single operations; a part stays out if a difference
//! remains without it, be it another one.

use std::time::{Duration, Instant};

use super::super::conversation::Difference;
use super::operation::Operation;

/// A sequence that takes longer to shorten is printed as far as it was.
const SHRINK_TIME_MAX: Duration = Duration::from_secs(180);

/// Runs a sequence on new servers; tells how many operations led to which differences, if any.
pub type Attempt<'a> =
    dyn FnMut(&[Operation]) -> Result<Option<(usize, Vec<Difference>)>, String> + 'a;

/// The shortest sequence found within so many attempts, and what it leads to.
pub fn shrink(
    mut operations: Vec<Operation>,
    mut differences: Vec<Difference>,
    attempts_max: usize,
    attempt: &mut Attempt<'_>,
) -> Result<(Vec<Operation>, Vec<Difference>), String> {
    let mut attempts = 0;
    let end = Instant::now() + SHRINK_TIME_MAX;
    let mut part = operations.len().div_ceil(2);
    while part > 0 {
        let mut start = 0;
        let before = operations.len();
        while start < operations.len()
            && operations.len() > 1
            && attempts < attempts_max
            && Instant::now() < end
        {
            let end = (start + part).min(operations.len());
            let shorter = [&operations[..start], &operations[end..]].concat();
            attempts += 1;
            match attempt(&shorter)? {
                Some((done, found)) => {
                    operations = shorter;
                    operations.truncate(done);
                    differences = found;
                }
                None => start = end,
            }
        }
        // Single operations are tried again as long as one of them could go.
        if part > 1 {
            part = part.div_ceil(2);
        } else if operations.len() == before || attempts >= attempts_max || Instant::now() >= end {
            part = 0;
        }
    }
    Ok((operations, differences))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let operations: Vec<_> = (0..100).map(Operation::LeaseRevoke).collect();
        // It takes 17 before 60 to fail.
        let mut attempt = |operations: &[Operation]| {
            let first = operations.iter().position(|it| *it == Operation::LeaseRevoke(17));
            let last = operations.iter().position(|it| *it == Operation::LeaseRevoke(60));
            Ok(match (first, last) {
                (Some(first), Some(last)) if first < last => Some((last + 1, Vec::new())),
                _ => None,
            })
        };
        let (shortest, _) = shrink(operations, Vec::new(), 1000, &mut attempt).unwrap();
        assert_eq!(shortest, [Operation::LeaseRevoke(17), Operation::LeaseRevoke(60)]);
    }
}
