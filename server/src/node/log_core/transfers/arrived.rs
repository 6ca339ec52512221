//! What has come of a store and is not built in yet.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::transfer::{RECORD_LENGTH_SIZE_BYTES, record_size_bytes};

/// The records of a stream, out of chunks that end anywhere.
///
/// They are read where they came in; only a record that goes over the end of a chunk is put
/// together.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    chunks: VecDeque<Bytes>,
    /// The beginning of a record, or all of it, before what the chunks hold.
    seam: Vec<u8>,
    size_bytes: usize,
}

impl Arrived {
    /// Bytes that are not taken.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// More has come.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.size_bytes += chunk.len();
            self.chunks.push_back(chunk);
            self.look_at_front();
        }
    }

    /// Bytes to go on with. They begin with a whole record if there is one, or with one whose
    /// length cannot be.
    pub(super) fn front(&self) -> &[u8] {
        match self.chunks.front() {
            Some(chunk) if self.seam.is_empty() => chunk,
            _ => &self.seam,
        }
    }

    /// So much of the front was taken: whole records.
    pub(super) fn advance(&mut self, size_bytes: usize) {
        self.size_bytes -= size_bytes;
        if !self.seam.is_empty() {
            self.seam.drain(..size_bytes);
        } else if let Some(chunk) = self.chunks.front_mut() {
            drop(chunk.split_to(size_bytes));
        }
        self.look_at_front();
    }

    /// Puts a record together that does not stand in one chunk.
    fn look_at_front(&mut self) {
        while let Some(chunk) = self.chunks.front_mut() {
            let is_whole = |bytes: &[u8]| missing_size_bytes(bytes) == 0;
            let part = match self.seam.is_empty() {
                true if is_whole(chunk) => return,
                true => chunk.len(),
                false if is_whole(&self.seam) => return,
                false => missing_size_bytes(&self.seam).min(chunk.len()),
            };
            self.seam.extend_from_slice(&chunk.split_to(part));
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

/// How much has to follow before more can be said; 0 of a whole record, and of what is none.
fn missing_size_bytes(bytes: &[u8]) -> usize {
    match record_size_bytes(bytes) {
        Ok(Some(size)) => size.saturating_sub(bytes.len()),
        Ok(None) => RECORD_LENGTH_SIZE_BYTES - bytes.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(length: usize) -> Vec<u8> {
        let mut record = u32::try_from(length).unwrap().to_le_bytes().to_vec();
        record.extend((0..length).map(|at| at.to_le_bytes()[0]));
        record
    }

    /// Takes up to `records_max` whole records off bytes, as an engine does.
    fn take(bytes: &[u8], records_max: usize) -> usize {
        let mut taken = 0;
        for _ in 0..records_max {
            match record_size_bytes(&bytes[taken..]) {
                Ok(Some(size)) if size <= bytes.len() - taken => taken += size,
                _ => break,
            }
        }
        taken
    }

    #[test]
    fn chunks_end_anywhere() {
        let records: Vec<Vec<u8>> = [1, 2, 700, 3, 64, 1, 1, 300, 5].map(record).into();
        let stream = records.concat();
        for chunk_size in 1..=stream.len() {
            for records_max in [1, 2, 100] {
                let (mut arrived, mut out) = (Arrived::default(), Vec::new());
                for chunk in stream.chunks(chunk_size) {
                    arrived.push(Bytes::copy_from_slice(chunk));
                    arrived.push(Bytes::new());
                    loop {
                        let front = arrived.front();
                        let taken = take(front, records_max);
                        if taken == 0 {
                            break;
                        }
                        out.extend_from_slice(&front[..taken]);
                        arrived.advance(taken);
                    }
                    assert!(stream.starts_with(&out));
                }
                assert_eq!(out, stream, "chunks of {chunk_size}");
                assert_eq!((arrived.size_bytes(), arrived.front().len()), (0, 0));
            }
        }
    }

    #[test]
    fn a_record_is_taken_when_it_is_whole_and_no_later() {
        let mut arrived = Arrived::default();
        let mut bytes = record(10);
        bytes.extend(record(20));
        arrived.push(Bytes::copy_from_slice(&bytes[..13]));
        assert_eq!((take(arrived.front(), 9), arrived.size_bytes()), (0, 13));
        arrived.push(Bytes::copy_from_slice(&bytes[13..]));
        assert_eq!(take(arrived.front(), 9), 14);
        arrived.advance(14);
        assert_eq!((take(arrived.front(), 9), arrived.size_bytes()), (24, 24));
    }

    #[test]
    fn a_length_that_cannot_be_is_shown_to_who_refuses_it() {
        for prefix in [record(10), Vec::new()] {
            for chunk_size in [1, 3, 100] {
                let mut arrived = Arrived::default();
                let stream = [prefix.as_slice(), &[0xff; 9]].concat();
                for chunk in stream.chunks(chunk_size) {
                    arrived.push(Bytes::copy_from_slice(chunk));
                }
                arrived.advance(prefix.len());
                assert!(record_size_bytes(arrived.front()).is_err());
            }
        }
    }
}
