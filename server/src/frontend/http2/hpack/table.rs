//! The two tables of HPACK: the fixed static one and the decoder's dynamic one (RFC 7541, 2.3).
//!
//! The dynamic table is a queue of entries in one byte buffer. New entries are appended; old ones
//! are dropped from the front; when the buffer's end is reached the live bytes move to its start.
//! The buffer is twice the table's size, so such a move is paid for by as many appended bytes, and
//! no insertion allocates.
//!
//! Invariants:
//! - `size <= capacity <= capacity_max`; `size` counts 32 bytes more per entry (RFC 7541, 4.1).
//! - The live entries' bytes are one contiguous run, oldest first.

use std::collections::VecDeque;

use super::HpackError;

/// What each entry costs beyond its bytes (RFC 7541, 4.1).
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

/// The static table (RFC 7541, appendix A); index 1 is the first.
pub const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    name_len: usize,
    value_len: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.name_len + self.value_len + ENTRY_OVERHEAD_BYTES
    }
}

/// The decoder's dynamic table.
#[derive(Debug)]
pub struct DynamicTable {
    bytes: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    size: usize,
    capacity: usize,
    capacity_max: usize,
    generation: u64,
}

impl DynamicTable {
    /// An empty table that may never grow beyond `capacity_max`, our SETTINGS_HEADER_TABLE_SIZE.
    pub fn new(capacity_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            entries: VecDeque::new(),
            size: 0,
            capacity: capacity_max,
            capacity_max,
            generation: 0,
        }
    }

    /// Changes whenever the meaning of an index may have changed.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The field at an index of the combined index space (RFC 7541, 2.3.3).
    #[inline]
    pub fn get(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        let at = index.checked_sub(1).ok_or(HpackError::IndexOutOfRange)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name, value));
        }
        let age = at - STATIC.len();
        let place = self.entries.len().checked_sub(age + 1).ok_or(HpackError::IndexOutOfRange)?;
        let entry = self.entries[place];
        let (name, rest) = self.bytes[entry.start..].split_at(entry.name_len);
        Ok((name, &rest[..entry.value_len]))
    }

    /// Inserts a field, evicting as many old ones as it needs; one that is larger than the whole
    /// table just empties it (RFC 7541, 4.4).
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        self.generation += 1;
        let entry = Entry { start: 0, name_len: name.len(), value_len: value.len() };
        self.evict_to(self.capacity.saturating_sub(entry.size()));
        if entry.size() > self.capacity {
            return;
        }
        let needed = name.len() + value.len();
        let live_start = self.entries.front().map_or(self.bytes.len(), |oldest| oldest.start);
        if self.bytes.len() + needed > 2 * self.capacity_max {
            self.bytes.drain(..live_start);
            for entry in &mut self.entries {
                entry.start -= live_start;
            }
        }
        self.entries.push_back(Entry { start: self.bytes.len(), ..entry });
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += entry.size();
        assert!(self.size <= self.capacity, "{} of {} bytes", self.size, self.capacity);
    }

    /// Takes a dynamic table size update (RFC 7541, 6.3).
    pub fn resize(&mut self, capacity: usize) -> Result<(), HpackError> {
        if capacity > self.capacity_max {
            return Err(HpackError::BadSizeUpdate);
        }
        self.generation += 1;
        self.capacity = capacity;
        self.evict_to(capacity);
        Ok(())
    }

    fn evict_to(&mut self, size_max: usize) {
        while self.size > size_max {
            let oldest = self.entries.pop_front().expect("a size above zero has entries");
            self.size -= oldest.size();
        }
    }

    /// Bytes that the table counts, for tests and bounds.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_a_simple_model() {
        let mut table = DynamicTable::new(400);
        let mut model: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::new();
        let mut state = 4711u64;
        for step in 0..5000usize {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let roll = usize::try_from(state >> 40).unwrap();
            let capacity = if step % 97 == 96 {
                table.resize(roll % 401).unwrap();
                roll % 401
            } else {
                let name = vec![b'n'; roll % 60];
                let value = step.to_string().into_bytes();
                table.insert(&name, &value);
                model.push_front((name, value));
                table.capacity
            };
            let size = |model: &VecDeque<(Vec<u8>, Vec<u8>)>| {
                model.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>()
            };
            while size(&model) > capacity {
                model.pop_back();
            }
            assert_eq!(table.len(), model.len());
            assert_eq!(table.size(), size(&model));
            for (age, (name, value)) in model.iter().enumerate() {
                assert_eq!(table.get(62 + age).unwrap(), (&name[..], &value[..]));
            }
            assert!(table.get(62 + model.len()).is_err());
            assert!(table.bytes.len() <= 800);
        }
    }
}
