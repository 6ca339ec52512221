//! The compactions of a drill: the compacted revision never goes back.
//!
//! A server tells its compacted revision by what it refuses to read, so that is what is asked for
//! after a restart: the revision right below each compaction that may have happened.
//!
//! Invariants:
//! - Compactions are asked for one at a time, each of a higher revision than the one before.

use super::history::Found;

/// All compactions of a drill.
#[derive(Debug, Default)]
pub struct Compactions {
    /// The highest revision whose compaction was acknowledged or found.
    done: u64,
    /// A compaction without an answer.
    unknown: Option<u64>,
}

/// What a read at a revision came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// An answer.
    Answered,
    /// It is compacted.
    Compacted,
}

impl Compactions {
    /// The lowest revision whose compaction would be new.
    pub fn next_min(&self) -> u64 {
        self.done.max(self.unknown.unwrap_or(0)) + 1
    }

    /// The compacted revision, as far as it is known.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// A compaction is about to be sent.
    pub fn begin(&mut self, revision: u64) {
        assert!(revision >= self.next_min(), "compaction of {revision} after {}", self.done);
        self.unknown = Some(revision);
    }

    /// The compaction was acknowledged.
    pub fn handle_done(&mut self) {
        self.done = self.unknown.take().expect("a compaction was sent");
    }

    /// The compaction was refused and has not happened.
    pub fn handle_refused(&mut self) {
        self.unknown = None;
    }

    /// The revisions to read at, each to be judged: what is compacted, what must still be there,
    /// and what decides about a compaction without an answer.
    pub fn probes(&self) -> Vec<u64> {
        let mut probes = Vec::new();
        if self.done > 1 {
            probes.push(self.done - 1);
        }
        match self.unknown {
            Some(unknown) => probes.extend([unknown - 1, unknown]),
            None if self.done > 0 => probes.push(self.done),
            None => {}
        }
        probes.retain(|&probe| probe > 0);
        probes.dedup();
        probes
    }

    /// Judges the reads that the probes asked for.
    pub fn judge(&mut self, reads: &[(u64, Read)], found: &mut Found) {
        let unknown = self.unknown.take();
        let below = unknown.map(|unknown| unknown - 1);
        let happened = reads
            .iter()
            .any(|&(at, read)| Some(at) == below && read == Read::Compacted && at >= self.done);
        if let Some(unknown) = unknown.filter(|_| happened) {
            self.done = unknown;
        }
        for &(at, read) in reads {
            let expected = if at < self.done { Read::Compacted } else { Read::Answered };
            if read != expected {
                let done = self.done;
                found.wrong(format!("{done} was compacted, but a read at {at} was {read:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(compactions: &mut Compactions, compacted: u64) -> u64 {
        let mut found = Found::default();
        let read = |at| if at < compacted { Read::Compacted } else { Read::Answered };
        let reads: Vec<_> = compactions.probes().into_iter().map(|at| (at, read(at))).collect();
        compactions.judge(&reads, &mut found);
        found.wrong_count
    }

    fn done(revision: u64) -> Compactions {
        let mut compactions = Compactions::default();
        compactions.begin(revision);
        compactions.handle_done();
        compactions
    }

    #[test]
    fn an_acknowledged_compaction_is_neither_lost_nor_exceeded() {
        assert_eq!(judge(&mut Compactions::default(), 0), 0);
        assert_eq!(judge(&mut done(10), 10), 0);
        assert_eq!(judge(&mut done(10), 9), 1, "it has gone back");
        assert_eq!(judge(&mut done(10), 11), 1, "it has gone too far");
        assert_eq!(judge(&mut done(1), 1), 0, "there is nothing below the first revision");
    }

    #[test]
    fn a_compaction_without_an_answer_is_settled_by_the_first_look() {
        for happened in [10, 20] {
            let mut compactions = done(10);
            compactions.begin(20);
            assert_eq!(judge(&mut compactions, happened), 0);
            assert_eq!(compactions.done(), happened);
            assert_eq!(judge(&mut compactions, 30 - happened), 1, "and stays as it was");
        }
        let mut compactions = done(10);
        compactions.begin(11);
        assert_eq!(judge(&mut compactions, 11), 0, "right above the one before");
        assert_eq!(compactions.done(), 11);
        let mut compactions = done(10);
        compactions.begin(20);
        assert_eq!(judge(&mut compactions, 9), 1, "the acknowledged one is lost");
    }

    #[test]
    fn a_refused_compaction_leaves_nothing_to_find() {
        let mut compactions = done(10);
        compactions.begin(20);
        compactions.handle_refused();
        assert_eq!((compactions.next_min(), judge(&mut compactions, 10)), (11, 0));
    }
}
