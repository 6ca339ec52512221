//! Chunks of a stream on its way out, and their memory.

use bytes::Bytes;

use super::CHUNKS_IN_FLIGHT_MAX;
use crate::peer::letter::CHUNK_SIZE_BYTES_MAX;

/// Memory of a chunk is used again up to this capacity: if there is more it was of a long record.
const SPARE_CAPACITY_MAX: usize = 4 * CHUNK_SIZE_BYTES_MAX;

/// Memory of chunks that have arrived, to be used again: what the system would hand out instead it
/// has to clear first.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// [`CHUNKS_IN_FLIGHT_MAX`] at most.
    buffers: Vec<Vec<u8>>,
}

impl Spare {
    /// A chunk has arrived. Its memory is kept, unless a connection still holds some of it.
    pub(super) fn keep(&mut self, chunk: Bytes) {
        if self.buffers.len() < CHUNKS_IN_FLIGHT_MAX && chunk.is_unique() {
            let buffer = Vec::from(chunk);
            if buffer.capacity() <= SPARE_CAPACITY_MAX {
                self.buffers.push(buffer);
            }
        }
    }

    /// Takes over what another one has.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.buffers.append(&mut other.buffers);
        self.buffers.truncate(CHUNKS_IN_FLIGHT_MAX);
    }

    /// Cuts whole chunks off what was gathered; those of one long record share its memory.
    pub(super) fn cut(&mut self, gathered: &mut Vec<u8>, chunks: &mut Vec<Bytes>) {
        let whole = gathered.len() / CHUNK_SIZE_BYTES_MAX * CHUNK_SIZE_BYTES_MAX;
        if whole == 0 {
            return;
        }
        let mut rest = self.buffers.pop().unwrap_or_default();
        rest.clear();
        rest.extend_from_slice(&gathered[whole..]);
        gathered.truncate(whole);
        let mut gathered = Bytes::from(std::mem::replace(gathered, rest));
        while gathered.len() > CHUNK_SIZE_BYTES_MAX {
            chunks.push(gathered.split_to(CHUNK_SIZE_BYTES_MAX));
        }
        chunks.push(gathered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is gathered: bytes that tell where they stand.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251).to_le_bytes()[0]).collect()
    }

    #[test]
    fn memory_that_came_back_is_used_again() {
        let (mut spare, mut chunks) = (Spare::default(), Vec::new());
        let mut gathered = bytes(CHUNK_SIZE_BYTES_MAX + 7);
        let place = gathered.as_ptr();
        spare.cut(&mut gathered, &mut chunks);
        let chunk = chunks.pop().unwrap();
        let held = chunk.clone();
        spare.keep(chunk);
        assert!(spare.buffers.is_empty(), "somebody else reads it");
        spare.keep(held);
        gathered.resize(CHUNK_SIZE_BYTES_MAX, 0);
        spare.cut(&mut gathered, &mut chunks);
        assert_eq!((gathered.as_ptr(), gathered.len()), (place, 0));
    }

    #[test]
    fn nothing_is_kept_without_bound() {
        let mut spare = Spare::default();
        spare.keep(Vec::with_capacity(SPARE_CAPACITY_MAX + 1).into());
        assert!(spare.buffers.is_empty());
        for _ in 0..2 * CHUNKS_IN_FLIGHT_MAX {
            spare.keep(bytes(9).into());
        }
        let mut other = Spare { buffers: vec![bytes(9); 3] };
        spare.append(&mut other);
        assert_eq!((spare.buffers.len(), other.buffers.len()), (CHUNKS_IN_FLIGHT_MAX, 0));
    }

    #[test]
    fn whole_chunks_are_cut_off() {
        for (len, whole) in [(0, 0), (CHUNK_SIZE_BYTES_MAX - 1, 0), (3 * CHUNK_SIZE_BYTES_MAX, 3)] {
            for more in [0, 1] {
                let (mut gathered, mut chunks) = (bytes(len + more), Vec::new());
                let expected = gathered.clone();
                Spare::default().cut(&mut gathered, &mut chunks);
                let has_one_more = usize::from(len + more == CHUNK_SIZE_BYTES_MAX);
                assert_eq!(chunks.len(), whole + has_one_more);
                assert!(chunks.iter().all(|chunk| chunk.len() == CHUNK_SIZE_BYTES_MAX));
                assert!([chunks.concat(), gathered].concat() == expected);
            }
        }
    }
}
