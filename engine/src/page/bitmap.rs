//! A growing set of page numbers.

/// A set of small numbers, one bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    len: u32,
}

impl Bitmap {
    /// A set over the numbers `0..len`, none of them in it.
    pub fn with_len(len: u32) -> Self {
        let mut bitmap = Self::default();
        bitmap.grow(len);
        bitmap
    }

    /// Extends the range to `0..len`; the new numbers are not in the set.
    pub fn grow(&mut self, len: u32) {
        assert!(len >= self.len, "a bitmap never shrinks: {} to {len}", self.len);
        self.len = len;
        self.words.resize(len.div_ceil(64) as usize, 0);
    }

    /// Makes the range `0..len`; `false`, and nothing changed, when numbers would fall out of it.
    pub fn set_len(&mut self, len: u32) -> bool {
        let fits = self.end() <= len;
        if fits {
            self.len = len;
            self.words.resize(len.div_ceil(64) as usize, 0);
        }
        fits
    }

    /// Makes the range `0..len`, which is shorter; what falls out of it is forgotten.
    pub fn truncate(&mut self, len: u32) {
        assert!(len <= self.len, "{len} of {}", self.len);
        self.len = len;
        self.words.truncate(len.div_ceil(64) as usize);
        if let Some(last) = self.words.last_mut().filter(|_| !len.is_multiple_of(64)) {
            *last &= (1 << (len % 64)) - 1;
        }
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn contains(&self, at: u32) -> bool {
        self.words[at as usize / 64] & (1 << (at % 64)) != 0
    }

    pub fn insert(&mut self, at: u32) {
        debug_assert!(at < self.len);
        self.words[at as usize / 64] |= 1 << (at % 64);
    }

    pub fn remove(&mut self, at: u32) {
        self.words[at as usize / 64] &= !(1 << (at % 64));
    }

    /// The first number of the set at or after `from`.
    pub fn next_present(&self, from: u32) -> Option<u32> {
        self.next_matching(from, |word| word)
    }

    /// The first number at or after `from` that is not in the set.
    pub fn next_absent(&self, from: u32) -> Option<u32> {
        self.next_matching(from, |word| !word)
    }

    fn next_matching(&self, from: u32, pick: impl Fn(u64) -> u64) -> Option<u32> {
        if from >= self.len {
            return None;
        }
        let mut base = from / 64 * 64;
        let mut word = pick(self.words[base as usize / 64]) & (u64::MAX << (from % 64));
        loop {
            if word != 0 {
                let found = base + word.trailing_zeros();
                return (found < self.len).then_some(found);
            }
            base += 64;
            if base >= self.len {
                return None;
            }
            word = pick(self.words[base as usize / 64]);
        }
    }

    /// The first run of `count` numbers at or after `from` of which none is in the set.
    pub fn next_absent_run(&self, from: u32, count: u32) -> Option<u32> {
        let mut start = self.next_absent(from)?;
        loop {
            let end = self.next_present(start).unwrap_or(self.len);
            if end - start >= count {
                return Some(start);
            }
            start = self.next_absent(end)?;
        }
    }

    /// One past the last number of the set.
    pub fn end(&self) -> u32 {
        let last = self.words.iter().rposition(|&word| word != 0);
        last.map_or(0, |at| {
            let at = u32::try_from(at).expect("a bitmap covers at most 2^32 pages");
            at * 64 + 64 - self.words[at as usize].leading_zeros()
        })
    }

    /// Takes out what is in the other set, which may have fewer numbers.
    pub fn subtract(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }

    /// Leaves only what is in the other set too.
    pub fn intersect(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "two sets over other numbers");
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
    }

    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The set's bytes, least significant bit first.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads what [`Self::to_bytes`] wrote over `0..len`; `None` when the bytes cannot be that.
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() || words.len() != len.div_ceil(64) as usize {
            return None;
        }
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let bitmap = Self { words, len };
        (bitmap.end() <= len).then_some(bitmap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_across_words() {
        let mut bitmap = Bitmap::with_len(200);
        for at in [0, 1, 63, 64, 130, 199] {
            bitmap.insert(at);
        }
        assert_eq!(bitmap.next_absent(0), Some(2));
        assert_eq!(bitmap.next_present(2), Some(63));
        assert_eq!(bitmap.next_absent_run(0, 61), Some(2));
        assert_eq!(bitmap.next_absent_run(0, 62), Some(65));
        assert_eq!(bitmap.next_absent_run(0, 68), Some(131));
        assert_eq!(bitmap.next_absent_run(0, 69), None);
        assert_eq!((bitmap.end(), bitmap.count()), (200, 6));
        bitmap.remove(199);
        assert_eq!(bitmap.end(), 131);
        bitmap.truncate(130);
        assert_eq!((bitmap.len(), bitmap.end(), bitmap.count()), (130, 65, 4));
        bitmap.grow(200);
        assert_eq!((bitmap.end(), bitmap.next_present(65)), (65, None));
        bitmap.truncate(64);
        assert_eq!(bitmap.end(), 64);
    }

    #[test]
    fn sets_are_taken_from_each_other() {
        let of = |pages: &[u32]| {
            let mut bitmap = Bitmap::with_len(140);
            pages.iter().for_each(|page| bitmap.insert(*page));
            bitmap
        };
        let (mut less, mut both) = (of(&[1, 63, 64, 139]), of(&[1, 63, 64, 139]));
        less.subtract(&of(&[63, 65, 139]));
        both.intersect(&of(&[63, 65, 139]));
        let all = |bitmap: &Bitmap| (0..140).filter(|at| bitmap.contains(*at)).collect::<Vec<_>>();
        assert_eq!((all(&less), all(&both)), (vec![1, 64], vec![63, 139]));
        less.subtract(&Bitmap::with_len(64));
        assert_eq!(less.count(), 2);
    }

    #[test]
    fn bytes_that_name_pages_outside_are_refused() {
        let mut bitmap = Bitmap::with_len(70);
        bitmap.insert(69);
        let bytes = bitmap.to_bytes();
        let read = Bitmap::from_bytes(&bytes, 70).unwrap();
        assert_eq!((read.count(), read.end()), (1, 70));
        assert!(Bitmap::from_bytes(&bytes, 69).is_none());
        assert!(Bitmap::from_bytes(&bytes, 129).is_none());
        assert!(Bitmap::from_bytes(&bytes[..15], 70).is_none());
    }
}
